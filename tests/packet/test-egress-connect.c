// SPDX-License-Identifier: MIT
/* What connect() and sendto() do to programs: real sockets against the real hooks, since cgroup programs
 * have no test-run. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/own.h"
#include "egress-fixture.h"

static void fills_refuses_and_recovers(int type)
{
	struct ps_egress_slice both[2] = {plan.slices[0], plan.slices[1]};
	int fds[3 * LAB_PORTS];
	struct told told = {0};
	uint64_t usage[2];

	fill(type, fds);
	assert_int_equal(ps_egress_usage(lab.pins, both, 2, usage), 0);
	assert_int_equal(usage[0], 3 * LAB_PORTS);
	assert_int_equal(usage[1], 0);
	assert_int_equal(dial(type, far[0]), -EADDRNOTAVAIL);
	assert_int_equal(counter(PS_EGRESS_EXHAUSTED), 1);
	assert_int_equal(counter(PS_EGRESS_CONNECT), 3 * LAB_PORTS);
	assert_int_equal(ps_egress_events_read(egress, note_event, &told), 1);
	assert_int_equal(told.last.reason, PS_EGRESS_EXHAUSTED);
	assert_int_equal(told.last.pid, getpid());
	assert_int_equal(told.last.cgroup, lab.class_id);
	assert_int_equal(told.last.class, 0);
	assert_int_equal(told.last.dst, ip4(far[0]));
	assert_int_equal(told.last.dport, htons(PORT));
	assert_true(strstr(program_invocation_short_name, told.last.comm) != NULL);
	close(fds[0]);
	wait_for_claims(3 * LAB_PORTS - 1);
	fds[0] = dial(type, far[0]);
	assert_true(fds[0] >= 0);
	close_all(fds, 3 * LAB_PORTS);
	wait_for_claims(0);
	assert_int_equal(counter(PS_EGRESS_RELEASE), 3 * LAB_PORTS + 1);
}

static void tcp_uses_every_port_towards_each_destination_and_then_is_told(void **state)
{
	(void)state;
	fills_refuses_and_recovers(SOCK_STREAM);
}

static void connected_udp_uses_every_port_towards_each_destination_and_then_is_told(void **state)
{
	(void)state;
	fills_refuses_and_recovers(SOCK_DGRAM);
}

static void a_refused_socket_connects_once_a_port_is_free(void **state)
{
	int fds[3 * LAB_PORTS], fd;

	(void)state;
	fill(SOCK_STREAM, fds);
	fd = new_socket(SOCK_STREAM);
	assert_int_equal(try_connect(fd, far[0], PORT), -EADDRNOTAVAIL);
	close(fds[0]);
	wait_for_claims(3 * LAB_PORTS - 1);
	assert_int_equal(try_connect(fd, far[0], PORT), 0);
	close(fd);
	close_all(fds + 1, 3 * LAB_PORTS - 1);
}

static void a_connection_refused_gives_its_port_back(void **state)
{
	int fd = new_socket(SOCK_STREAM);

	(void)state;
	assert_int_equal(try_connect(fd, far[0], PORT + 1), -ECONNREFUSED);
	wait_for_claims(0);
	assert_int_equal(try_connect(fd, far[0], PORT), 0);
	assert_from_slice(fd, &plan.slices[0]);
	assert_int_equal(counter(PS_EGRESS_RECONNECT), 1);
	close(fd);
	wait_for_claims(0);
}

static void two_slices_of_two_addresses_are_used_to_the_last_port(void **state)
{
	int fds[2 * LAB_PORTS];
	unsigned n[2] = {0};

	(void)state;
	plan.choices[0].n = 2;
	start();
	for (unsigned i = 0; i < 2 * LAB_PORTS; i++) {
		unsigned second;

		fds[i] = dial(SOCK_STREAM, far[0]);
		assert_true(fds[i] >= 0);
		second = name_of(fds[i]).sin_addr.s_addr == plan.slices[1].ip4_be;
		assert_from_slice(fds[i], &plan.slices[second]);
		n[second]++;
	}
	assert_int_equal(n[0], LAB_PORTS);
	assert_int_equal(n[1], LAB_PORTS);
	assert_int_equal(dial(SOCK_STREAM, far[0]), -EADDRNOTAVAIL);
	close_all(fds, 2 * LAB_PORTS);
	wait_for_claims(0);
}

static void a_requested_address_is_kept(void **state)
{
	int only = 1;

	(void)state;
	plan.choices[0].n = 2;
	start();
	for (unsigned i = 0; i < 8; i++) {
		int fd = new_socket(SOCK_STREAM);

		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &only, sizeof(only));
		assert_int_equal(try_bind(fd, "198.51.100.2", 0), 0);
		assert_int_equal(try_connect(fd, far[0], PORT), 0);
		assert_from_slice(fd, &plan.slices[1]);
		close(fd);
	}
}

static void the_mark_chooses_the_class(void **state)
{
	static const struct {
		uint32_t mark;
		const char *directory;
		int slice, error;
	} rows[] = {
		{0, lab.class_dir, 0, 0},
		{1, lab.class_dir, 0, 0},
		{MARK, lab.class_dir, 1, 0},
		{MARK, lab.plain_dir, -1, 0},
		{MARK + 1, lab.class_dir, -1, -EADDRNOTAVAIL},
		{MARK + 1, lab.plain_dir, -1, -EADDRNOTAVAIL},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		int fd = new_socket(SOCK_STREAM);

		lab_enter(rows[i].directory);
		assert_int_equal(
			setsockopt(fd, SOL_SOCKET, SO_MARK, &rows[i].mark, sizeof(rows[i].mark)),
			0);
		assert_int_equal(try_connect(fd, far[0], PORT), rows[i].error);
		if (rows[i].slice >= 0)
			assert_from_slice(fd, &plan.slices[rows[i].slice]);
		else if (!rows[i].error)
			assert_int_equal(name_of(fd).sin_addr.s_addr, ip4("10.77.0.1"));
		close(fd);
	}
	assert_int_equal(counter(PS_EGRESS_NO_SLICE), 2);
}

static void programs_of_no_class_keep_their_own_address(void **state)
{
	int fd;

	(void)state;
	lab_enter(lab.plain_dir);
	fd = dial(SOCK_STREAM, far[0]);
	assert_true(fd >= 0);
	assert_int_equal(name_of(fd).sin_addr.s_addr, ip4("10.77.0.1"));
	close(fd);
	assert_int_equal(counter(PS_EGRESS_OUTSIDE), 1);
	fd = new_socket(SOCK_STREAM);
	assert_int_equal(try_bind(fd, "198.51.100.1", LAB_FIRST_PORT), -EACCES);
	assert_int_equal(try_bind(fd, "198.51.100.1", 0), -EACCES);
	assert_int_equal(counter(PS_EGRESS_REFUSED_BIND), 2);
	assert_int_equal(try_bind(fd, "198.51.100.1", SERVICE_PORT), 0);
	close(fd);
	fd = new_socket(SOCK_DGRAM);
	assert_int_equal(try_bind(fd, "198.51.100.1", SERVICE_PORT), -EACCES);
	close(fd);
}

static void shared_destinations_are_refused_to_everyone(void **state)
{
	const char *const directories[] = {lab.class_dir, lab.plain_dir};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		int tcp = new_socket(SOCK_STREAM), udp = new_socket(SOCK_DGRAM);

		lab_enter(directories[i]);
		assert_int_equal(try_connect(tcp, "198.51.100.1", 22), -ECONNREFUSED);
		assert_int_equal(try_connect(udp, "198.51.100.77", 53), -ECONNREFUSED);
		assert_int_equal(try_send(udp, "198.51.100.77", 53), -ECONNREFUSED);
		assert_int_equal(counter(PS_EGRESS_REFUSED_SHARED), 3 * (i + 1));
		close(tcp);
		close(udp);
	}
}

static void a_service_of_this_host_may_be_reached_from_here(void **state)
{
	int server = new_socket(SOCK_STREAM), client = new_socket(SOCK_STREAM);

	(void)state;
	assert_int_equal(try_bind(server, "198.51.100.1", SERVICE_PORT), 0);
	assert_int_equal(listen(server, 1), 0);
	assert_int_equal(try_connect(client, "198.51.100.1", SERVICE_PORT), 0);
	close(client);
	close(server);
}

static void datagrams_without_connect_are_refused(void **state)
{
	int fd = new_socket(SOCK_DGRAM);

	(void)state;
	assert_int_equal(try_send(fd, far[0], PORT), -EDESTADDRREQ);
	assert_int_equal(try_send(fd, "10.77.0.4", PORT), 0);
	assert_int_equal(try_send(fd, "127.0.0.1", PORT), 0);
	close(fd);
	fd = dial(SOCK_DGRAM, far[0]);
	assert_int_equal(try_send(fd, far[0], PORT), 0);
	assert_int_equal(try_send(fd, far[1], PORT), -EDESTADDRREQ);
	close(fd);
	assert_int_equal(counter(PS_EGRESS_REFUSED_UNCONNECTED), 2);
}

static bool has_claim(int fd, const char *peer, uint16_t port)
{
	struct sockaddr_in name = name_of(fd);
	struct ps_claim_key key = {.src = name.sin_addr.s_addr,
				   .dst = ip4(peer),
				   .sport = name.sin_port,
				   .dport = htons(port),
				   .protocol = IPPROTO_UDP};
	struct ps_claim claim;

	return bpf_map_lookup_elem(ps_egress_claims_fd(egress), &key, &claim) == 0;
}

static void a_bound_socket_awaits_the_answers_of_direct_destinations(void **state)
{
	int fd = new_socket(SOCK_DGRAM);

	(void)state;
	assert_int_equal(try_bind(fd, "0.0.0.0", 0), 0);
	assert_int_equal(try_send(fd, "10.77.0.4", PORT), 0);
	assert_true(has_claim(fd, "10.77.0.4", PORT));
	assert_int_equal(try_send(fd, "10.77.0.4", PORT), 0);
	assert_int_equal(n_claims(), 2);
	for (unsigned i = 1; i < 2 * PS_REPLIES_MAX; i++)
		assert_int_equal(try_send(fd, "10.77.0.4", (uint16_t)(PORT + i)), 0);
	assert_int_equal(n_claims(), 1 + PS_REPLIES_MAX);
	assert_false(has_claim(fd, "10.77.0.4", PORT));
	assert_true(has_claim(fd, "10.77.0.4", PORT + 2 * PS_REPLIES_MAX - 1));
	assert_int_equal(counter(PS_EGRESS_REPLY), 2 * PS_REPLIES_MAX);
	close(fd);
	wait_for_claims(0);
}

static void loopback_answers_a_socket_that_was_moved(void **state)
{
	struct timeval second = {1, 0};
	int server = new_socket(SOCK_DGRAM);
	char byte;

	(void)state;
	assert_int_equal(try_bind(server, "127.0.0.1", PORT), 0);
	setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	for (unsigned connected = 0; connected < 2; connected++) {
		int fd = new_socket(SOCK_DGRAM);
		struct sockaddr_in from;
		socklen_t len = sizeof(from);

		assert_int_equal(try_bind(fd, "0.0.0.0", 0), 0);
		if (connected)
			assert_int_equal(try_connect(fd, "127.0.0.1", PORT), 0);
		assert_int_equal(try_send(fd, "127.0.0.1", PORT), 0);
		assert_int_equal(recvfrom(server, &byte, 1, 0, (struct sockaddr *)&from, &len), 1);
		assert_int_equal(from.sin_addr.s_addr, plan.slices[0].ip4_be);
		assert_int_equal(sendto(server, "y", 1, 0, (struct sockaddr *)&from, len), 1);
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
		assert_int_equal(recv(fd, &byte, 1, 0), 1);
		close(fd);
		wait_for_claims(0);
	}
	assert_int_equal(try_send(server, "198.51.100.1", LAB_FIRST_PORT), -ECONNREFUSED);
	close(server);
}

/* Sends from fd to far[0], which tells the source it saw on the wire. */
static struct sockaddr_in seen_by_far(int fd, const char *source)
{
	struct in_pktinfo info = {.ipi_spec_dst.s_addr = source ? ip4(source) : 0};
	char control[CMSG_SPACE(sizeof(info))] = {0}, byte = 'x';
	struct sockaddr_in to = at(far[0], PORT), from = {0};
	struct iovec io = {&byte, 1};
	struct msghdr message = {.msg_name = &to,
				 .msg_namelen = sizeof(to),
				 .msg_iov = &io,
				 .msg_iovlen = 1,
				 .msg_control = source ? control : NULL,
				 .msg_controllen = source ? sizeof(control) : 0};
	struct timeval second = {1, 0};
	socklen_t len = sizeof(from);
	int receiver;

	if (source) {
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);

		*cmsg = (struct cmsghdr){.cmsg_level = IPPROTO_IP,
					 .cmsg_type = IP_PKTINFO,
					 .cmsg_len = CMSG_LEN(sizeof(info))};
		memcpy(CMSG_DATA(cmsg), &info, sizeof(info));
	}
	assert_int_equal(setns(lab.far_ns, CLONE_NEWNET), 0);
	receiver = new_socket(SOCK_DGRAM);
	assert_int_equal(setns(lab.near_ns, CLONE_NEWNET), 0);
	assert_int_equal(try_bind(receiver, far[0], PORT), 0);
	setsockopt(receiver, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	if (sendmsg(fd, &message, 0) < 0)
		from.sin_port = htons((uint16_t)errno);
	else
		assert_int_equal(recvfrom(receiver, &byte, 1, 0, (struct sockaddr *)&from, &len),
				 1);
	close(receiver);
	return from;
}

static void a_published_udp_service_answers_from_its_address(void **state)
{
	static const struct {
		const char *bound, *source; /* IP_PKTINFO */
		uint16_t port;
		int error;
	} rows[] = {
		{"198.51.100.1", NULL, SERVICE_PORT, 0},
		{"0.0.0.0", NULL, SERVICE_PORT, 0},
		{"0.0.0.0", "198.51.100.1", SERVICE_PORT, 0},
		{"0.0.0.0", "198.51.100.2", SERVICE_PORT, EDESTADDRREQ},
		{"0.0.0.0", "10.77.0.1", SERVICE_PORT, EDESTADDRREQ},
		{"0.0.0.0", NULL, SERVICE_PORT + 1, EDESTADDRREQ},
		{"10.77.0.1", NULL, SERVICE_PORT, EDESTADDRREQ},
	};
	struct ps_claim_key service = plan.config.services[0];

	(void)state;
	service.protocol = IPPROTO_UDP;
	plan.config.services = &service;
	start();
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		int fd = new_socket(SOCK_DGRAM);
		struct sockaddr_in seen;

		assert_int_equal(try_bind(fd, rows[i].bound, rows[i].port), 0);
		seen = seen_by_far(fd, rows[i].source);
		assert_int_equal(seen.sin_addr.s_addr, rows[i].error ? 0 : ip4("198.51.100.1"));
		assert_int_equal(ntohs(seen.sin_port),
				 rows[i].error ? rows[i].error : SERVICE_PORT);
		assert_int_equal(n_claims(), 0);
		close(fd);
	}
}

/* Why the hook gives a service on the wildcard its address. */
static void the_route_would_choose_the_hosts_own_address(void **state)
{
	int fd = new_socket(SOCK_DGRAM);

	(void)state;
	lab_enter(lab.plain_dir);
	assert_int_equal(try_bind(fd, "0.0.0.0", SERVICE_PORT), 0);
	assert_int_equal(seen_by_far(fd, NULL).sin_addr.s_addr, ip4("10.77.0.1"));
	close(fd);
}

static void udp_may_connect_again_and_claims_follow(void **state)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	int fd = dial(SOCK_DGRAM, far[0]);
	uint16_t port = name_of(fd).sin_port;

	(void)state;
	assert_int_equal(try_connect(fd, far[1], PORT), 0);
	assert_int_equal(n_claims(), 1);
	assert_int_equal(connect(fd, &none, sizeof(none)), 0);
	assert_int_equal(try_connect(fd, far[2], PORT), 0);
	assert_int_equal(try_connect(fd, far[2], PORT), 0);
	assert_int_equal(try_connect(fd, "10.77.0.4", PORT), 0);
	assert_int_equal(name_of(fd).sin_port, port);
	assert_int_equal(n_claims(), 1);
	close(fd);
	wait_for_claims(0);
}

static int try_connect6(int fd, const char *address)
{
	struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(PORT)};

	assert_int_equal(inet_pton(AF_INET6, address, &to.sin6_addr), 1);
	return connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ? -errno : 0;
}

static void ipv4_inside_ipv6_sockets_is_served_too(void **state)
{
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM};
	struct sockaddr_in6 name, any = {.sin6_family = AF_INET6};
	socklen_t len = sizeof(name);

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		int fd = socket(AF_INET6, types[i & 1] | SOCK_CLOEXEC, 0);

		if (i & 2)
			assert_int_equal(bind(fd, (struct sockaddr *)&any, sizeof(any)), 0);
		assert_int_equal(try_connect6(fd, "::ffff:10.77.0.2"), 0);
		assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &len), 0);
		assert_int_equal(name.sin6_addr.s6_addr32[3], plan.slices[0].ip4_be);
		assert_true(ps_range_contains(plan.slices[0].ports, ntohs(name.sin6_port)));
		assert_int_equal(n_claims(), 1);
		close(fd);
		wait_for_claims(0);
	}
}

static void native_ipv6_is_refused_so_that_programs_fall_back(void **state)
{
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)state;
	assert_int_equal(try_connect6(fd, "2001:db8::1"), -ENETUNREACH);
	assert_int_equal(counter(PS_EGRESS_REFUSED_V6), 1);
	assert_int_equal(try_connect6(fd, "::1"), 0);
	close(fd);
}

static void sockets_of_other_namespaces_are_left_alone(void **state)
{
	int fd, server;

	(void)state;
	assert_int_equal(setns(lab.far_ns, CLONE_NEWNET), 0);
	fd = new_socket(SOCK_STREAM);
	assert_int_equal(setns(lab.near_ns, CLONE_NEWNET), 0);
	server = new_socket(SOCK_STREAM);
	assert_int_equal(try_bind(server, "10.77.0.1", 7001), 0);
	assert_int_equal(listen(server, 1), 0);
	assert_int_equal(try_connect(fd, "10.77.0.1", 7001), 0);
	assert_int_not_equal(name_of(fd).sin_addr.s_addr, plan.slices[0].ip4_be);
	assert_int_equal(n_claims(), 0);
	close(fd);
	close(server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FACT(tcp_uses_every_port_towards_each_destination_and_then_is_told),
		FACT(connected_udp_uses_every_port_towards_each_destination_and_then_is_told),
		FACT(a_refused_socket_connects_once_a_port_is_free),
		FACT(a_connection_refused_gives_its_port_back),
		FACT(two_slices_of_two_addresses_are_used_to_the_last_port),
		FACT(a_requested_address_is_kept),
		FACT(the_mark_chooses_the_class),
		FACT(programs_of_no_class_keep_their_own_address),
		FACT(shared_destinations_are_refused_to_everyone),
		FACT(a_service_of_this_host_may_be_reached_from_here),
		FACT(datagrams_without_connect_are_refused),
		FACT(a_bound_socket_awaits_the_answers_of_direct_destinations),
		FACT(loopback_answers_a_socket_that_was_moved),
		FACT(a_published_udp_service_answers_from_its_address),
		FACT(the_route_would_choose_the_hosts_own_address),
		FACT(udp_may_connect_again_and_claims_follow),
		FACT(ipv4_inside_ipv6_sockets_is_served_too),
		FACT(native_ipv6_is_refused_so_that_programs_fall_back),
		FACT(sockets_of_other_namespaces_are_left_alone),
	};

	return RUN_FACTS(tests);
}

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
#include "egress/choose.h"

static void fills_refuses_and_recovers(int type)
{
	struct ps_egress_slice both[2] = {*slice(0), *slice(1)};
	struct ps_ip peer = ip_of(net->far[0]);
	int fds[3 * LAB_SHARED];
	struct told told = {0};
	uint64_t usage[2];

	fill(type, fds);
	assert_int_equal(ps_egress_usage(lab.pins, both, 2, usage), 0);
	assert_int_equal(usage[0], 3 * LAB_SHARED);
	assert_int_equal(usage[1], 0);
	assert_int_equal(dial(type, net->far[0]), -EADDRNOTAVAIL);
	assert_int_equal(counter(PS_EGRESS_EXHAUSTED), 1);
	assert_int_equal(counter(PS_EGRESS_CONNECT), 3 * LAB_SHARED);
	/* 70 %, 90 %, full, and that. */
	assert_int_equal(ps_egress_events_read(egress, note_event, &told), 4);
	assert_int_equal(told.last.reason, PS_EGRESS_EXHAUSTED);
	assert_int_equal(told.last.pid, getpid());
	assert_int_equal(told.last.cgroup, lab.class_id);
	assert_int_equal(told.last.class, MAIN);
	assert_memory_equal(told.last.dst.bytes, &peer, sizeof(peer));
	assert_int_equal(told.last.dport, htons(PORT));
	assert_true(strstr(program_invocation_short_name, told.last.comm) != NULL);
	close(fds[0]);
	wait_for_claims(3 * LAB_SHARED - 1);
	fds[0] = dial(type, net->far[0]);
	assert_true(fds[0] >= 0);
	close_all(fds, 3 * LAB_SHARED);
	wait_for_claims(0);
	assert_int_equal(counter(PS_EGRESS_RELEASE), 3 * LAB_SHARED + 1);
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
	int fds[3 * LAB_SHARED], fd;

	(void)state;
	fill(SOCK_STREAM, fds);
	fd = new_socket(SOCK_STREAM);
	assert_int_equal(try_connect(fd, net->far[0], PORT), -EADDRNOTAVAIL);
	close(fds[0]);
	wait_for_claims(3 * LAB_SHARED - 1);
	assert_int_equal(try_connect(fd, net->far[0], PORT), 0);
	close(fd);
	close_all(fds + 1, 3 * LAB_SHARED - 1);
}

static void a_connection_refused_gives_its_port_back(void **state)
{
	int fd = new_socket(SOCK_STREAM);

	(void)state;
	assert_int_equal(try_connect(fd, net->far[0], PORT + 1), -ECONNREFUSED);
	wait_for_claims(0);
	assert_int_equal(try_connect(fd, net->far[0], PORT), 0);
	assert_from_slice(fd, slice(0));
	assert_int_equal(counter(PS_EGRESS_RECONNECT), 1);
	close(fd);
	wait_for_claims(0);
}

static void two_slices_of_two_addresses_are_used_to_the_last_port(void **state)
{
	int fds[2 * LAB_SHARED];
	unsigned n[2] = {0};

	(void)state;
	choice(MAIN)->n = 2;
	start();
	for (unsigned i = 0; i < 2 * LAB_SHARED; i++) {
		struct end name;
		unsigned second;

		fds[i] = dial(SOCK_STREAM, net->far[0]);
		assert_true(fds[i] >= 0);
		name = name_of(fds[i]);
		second = ps_ip_cmp(&name.ip, &slice(1)->address) == 0;
		assert_from_slice(fds[i], slice(second));
		n[second]++;
	}
	assert_int_equal(n[0], LAB_SHARED);
	assert_int_equal(n[1], LAB_SHARED);
	assert_int_equal(dial(SOCK_STREAM, net->far[0]), -EADDRNOTAVAIL);
	close_all(fds, 2 * LAB_SHARED);
	wait_for_claims(0);
}

static void a_requested_address_is_kept(void **state)
{
	int only = 1;

	(void)state;
	choice(MAIN)->n = 2;
	start();
	for (unsigned i = 0; i < 8; i++) {
		int fd = new_socket(SOCK_STREAM);

		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &only, sizeof(only));
		assert_int_equal(try_bind(fd, net->shared[1], 0), 0);
		assert_int_equal(try_connect(fd, net->far[0], PORT), 0);
		assert_from_slice(fd, slice(1));
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
		assert_int_equal(try_connect(fd, net->far[0], PORT), rows[i].error);
		if (rows[i].slice >= 0)
			assert_from_slice(fd, slice((unsigned)rows[i].slice));
		else if (!rows[i].error)
			assert_from(fd, net->own);
		close(fd);
	}
	assert_int_equal(counter(PS_EGRESS_NO_SLICE), 2);
}

/* Class MARKED, which has the second address, by something else than a mark. */
static struct ps_egress_match *other_match(void)
{
	plan.matches[MARKED] = (struct ps_egress_match){.class = MARKED, .cgroup = PS_EGRESS_ANY};
	return &plan.matches[MARKED];
}

static void the_uid_chooses_the_class(void **state)
{
	static const struct {
		uid_t uid;
		unsigned slice;
	} rows[] = {{999, 0}, {1000, 1}, {1500, 1}, {1999, 1}, {2000, 0}, {0, 0}};
	struct ps_egress_match *match = other_match();

	(void)state;
	match->has_uid = true;
	match->first_uid = 1000;
	match->last_uid = 1999;
	start();
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		int fd;

		assert_int_equal(setresuid(rows[i].uid, (uid_t)-1, (uid_t)-1), 0);
		fd = dial(SOCK_STREAM, net->far[0]);
		assert_int_equal(setresuid(0, (uid_t)-1, (uid_t)-1), 0);
		assert_true(fd >= 0);
		assert_from_slice(fd, slice(rows[i].slice));
		close(fd);
	}
}

static void the_destination_chooses_the_class(void **state)
{
	struct ps_egress_match *match = other_match();
	static const unsigned slices[] = {0, 1, 0};

	(void)state;
	match->has_to = true;
	match->to = prefix(net->far[1]);
	start();
	for (size_t i = 0; i < PS_N_ELEMENTS(slices); i++) {
		int tcp = dial(SOCK_STREAM, net->far[i]), udp = dial(SOCK_DGRAM, net->far[i]);

		assert_true(tcp >= 0 && udp >= 0);
		assert_from_slice(tcp, slice(slices[i]));
		assert_from_slice(udp, slice(slices[i]));
		close(tcp);
		close(udp);
	}
}

static void a_socket_bound_before_its_destination_is_known_stays_or_is_refused(void **state)
{
	struct ps_egress_match *match = other_match();
	int fd = new_socket(SOCK_STREAM);

	(void)state;
	match->has_to = true;
	match->to = prefix(net->far[1]);
	start();
	assert_int_equal(try_bind(fd, net->any, 0), 0);
	assert_from_slice(fd, slice(0));
	assert_int_equal(try_connect(fd, net->far[1], PORT), -EADDRNOTAVAIL);
	assert_int_equal(counter(PS_EGRESS_REFUSED_PORT), 1);
	assert_int_equal(try_connect(fd, net->far[0], PORT), 0);
	assert_from_slice(fd, slice(0));
	close(fd);
}

static void the_requested_source_chooses_the_class(void **state)
{
	struct ps_egress_match *match = other_match();
	int only = 1;

	(void)state;
	match->has_from = true;
	match->from = prefix(net->shared[1]);
	start();
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned late = 0; late < 2; late++) {
			int fd = new_socket(SOCK_STREAM);

			if (late)
				setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &only,
					   sizeof(only));
			assert_int_equal(try_bind(fd, net->shared[i], 0), 0);
			assert_int_equal(try_connect(fd, net->far[0], PORT), 0);
			assert_from_slice(fd, slice(i));
			close(fd);
		}
	}
	lab_enter(lab.plain_dir);
	for (unsigned i = 0; i < 2; i++) {
		int fd = new_socket(SOCK_STREAM);

		assert_int_equal(try_bind(fd, net->shared[i], 0), i ? 0 : -EACCES);
		close(fd);
	}
}

static void the_first_class_of_the_plan_wins_and_run_comes_before_all(void **state)
{
	struct ps_egress_match *match = other_match();
	int fd;

	(void)state;
	match->has_uid = true;
	match->last_uid = PS_CLASSES_MAX;
	start();
	fd = dial(SOCK_STREAM, net->far[0]);
	assert_from_slice(fd, slice(1));
	close(fd);
	plan.cgroups[0].run = MAIN;
	start();
	fd = dial(SOCK_STREAM, net->far[0]);
	assert_from_slice(fd, slice(0));
	close(fd);
}

/* MAIN has two addresses; all users' home is the one at `offset`. */
static void give_home(struct ps_homes *homes, uint16_t offset)
{
	for (size_t i = 0; i < PS_HOME_ROWS; i++)
		homes->rows[i] = (struct ps_home){offset, 1};
	choice(MAIN)->n = 2;
	choice(MAIN)->homes = 1;
	plan.config.homes = homes;
	plan.config.n_homes = 1;
	start();
}

static void a_user_keeps_the_home_address_and_then_spills_over(void **state)
{
	static struct ps_homes homes;
	int fds[2 * LAB_SHARED];
	unsigned n[2] = {0};

	(void)state;
	for (uint16_t home = 0; home < 2; home++) {
		give_home(&homes, home);
		for (unsigned i = 0; i < 2 * LAB_SHARED; i++) {
			unsigned second;

			fds[i] = dial(SOCK_STREAM, net->far[0]);
			assert_true(fds[i] >= 0);
			second = !ps_range_contains(slice(0)->ports, name_of(fds[i]).port);
			if (i < LAB_SHARED)
				assert_int_equal(second, home);
			n[second]++;
		}
		assert_int_equal(dial(SOCK_STREAM, net->far[0]), -EADDRNOTAVAIL);
		close_all(fds, 2 * LAB_SHARED);
		wait_for_claims(0);
	}
	assert_int_equal(n[0], 2 * LAB_SHARED);
	assert_int_equal(n[1], 2 * LAB_SHARED);
}

static void a_marked_socket_has_the_home_of_its_mark(void **state)
{
	static struct ps_homes homes;
	uint32_t mark = 0;

	(void)state;
	give_home(&homes, 0);
	do
		mark++;
	while (mark == MARK || mark == MARK + 1);
	homes.rows[ps_home_row(mark, 0, 0)] = (struct ps_home){1, 1};
	start();
	for (unsigned i = 0; i < 8; i++) {
		int plain = dial(SOCK_STREAM, net->far[0]), marked = new_socket(SOCK_STREAM);

		assert_int_equal(setsockopt(marked, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), 0);
		assert_int_equal(try_connect(marked, net->far[0], PORT), 0);
		assert_from_slice(marked, slice(1));
		assert_from_slice(plain, slice(0));
		close(plain);
		close(marked);
	}
}

static void programs_of_no_class_keep_their_own_address(void **state)
{
	int fd;

	(void)state;
	lab_enter(lab.plain_dir);
	fd = dial(SOCK_STREAM, net->far[0]);
	assert_true(fd >= 0);
	assert_from(fd, net->own);
	close(fd);
	assert_int_equal(counter(PS_EGRESS_OUTSIDE), 1);
	fd = new_socket(SOCK_STREAM);
	assert_int_equal(try_bind(fd, net->shared[0], LAB_FIRST_PORT), -EACCES);
	assert_int_equal(try_bind(fd, net->shared[0], 0), -EACCES);
	assert_int_equal(counter(PS_EGRESS_REFUSED_BIND), 2);
	assert_int_equal(try_bind(fd, net->shared[0], SERVICE_PORT), 0);
	close(fd);
	fd = new_socket(SOCK_DGRAM);
	assert_int_equal(try_bind(fd, net->shared[0], SERVICE_PORT), -EACCES);
	close(fd);
}

static void shared_destinations_are_refused_to_everyone(void **state)
{
	const char *const directories[] = {lab.class_dir, lab.plain_dir};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		int tcp = new_socket(SOCK_STREAM), udp = new_socket(SOCK_DGRAM);

		lab_enter(directories[i]);
		assert_int_equal(try_connect(tcp, net->shared[0], 22), -ECONNREFUSED);
		assert_int_equal(try_connect(udp, net->shared[2], 53), -ECONNREFUSED);
		assert_int_equal(try_send(udp, net->shared[2], 53), -ECONNREFUSED);
		assert_int_equal(counter(PS_EGRESS_REFUSED_SHARED), 3 * (i + 1));
		close(tcp);
		close(udp);
	}
}

static void a_service_of_this_host_may_be_reached_from_here(void **state)
{
	int server = new_socket(SOCK_STREAM), client = new_socket(SOCK_STREAM);

	(void)state;
	assert_int_equal(try_bind(server, net->shared[0], SERVICE_PORT), 0);
	assert_int_equal(listen(server, 1), 0);
	assert_int_equal(try_connect(client, net->shared[0], SERVICE_PORT), 0);
	close(client);
	close(server);
}

static void datagrams_without_connect_are_refused(void **state)
{
	int fd = new_socket(SOCK_DGRAM);

	(void)state;
	assert_int_equal(try_send(fd, net->far[0], PORT), -EDESTADDRREQ);
	assert_int_equal(try_send(fd, net->direct, PORT), 0);
	assert_int_equal(try_send(fd, net->loopback, PORT), 0);
	close(fd);
	fd = dial(SOCK_DGRAM, net->far[0]);
	assert_int_equal(try_send(fd, net->far[0], PORT), 0);
	assert_int_equal(try_send(fd, net->far[1], PORT), -EDESTADDRREQ);
	close(fd);
	assert_int_equal(counter(PS_EGRESS_REFUSED_UNCONNECTED), 2);
}

static bool has_claim(int fd, uint8_t protocol, const char *peer, uint16_t port)
{
	struct end name = name_of(fd);
	struct ps_ip to = ip_of(peer);
	struct ps_claim_key key = {.src = ps_ip16(&name.ip),
				   .dst = ps_ip16(&to),
				   .sport = htons(name.port),
				   .dport = htons(port),
				   .protocol = protocol,
				   .shift = LAB_SHIFT};
	struct ps_page_place place = {0};
	struct ps_narrow_page page;
	struct ps_page_key where;

	ps_place_port(&key, &place);
	where = ps_page_key_of(&key, place.base);
	if (bpf_map_lookup_elem(ps_egress_pages_fd(egress), &where, &page) < 0)
		return false;
	return page.words[place.bit / 64] >> place.bit % 64 & 1;
}

static void a_bound_socket_awaits_the_answers_of_direct_destinations(void **state)
{
	int fd = new_socket(SOCK_DGRAM);

	(void)state;
	assert_int_equal(try_bind(fd, net->any, 0), 0);
	assert_int_equal(try_send(fd, net->direct, PORT), 0);
	assert_true(has_claim(fd, IPPROTO_UDP, net->direct, PORT));
	assert_int_equal(try_send(fd, net->direct, PORT), 0);
	assert_int_equal(n_claims(), 2);
	for (unsigned i = 1; i < 2 * PS_REPLIES_MAX; i++)
		assert_int_equal(try_send(fd, net->direct, (uint16_t)(PORT + i)), 0);
	assert_int_equal(n_claims(), 1 + PS_REPLIES_MAX);
	assert_false(has_claim(fd, IPPROTO_UDP, net->direct, PORT));
	assert_true(has_claim(fd, IPPROTO_UDP, net->direct, PORT + 2 * PS_REPLIES_MAX - 1));
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
	assert_int_equal(try_bind(server, net->loopback, PORT), 0);
	setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	for (unsigned connected = 0; connected < 2; connected++) {
		int fd = new_socket(SOCK_DGRAM);
		struct sockaddr_storage from;
		socklen_t len = sizeof(from);
		struct end end;

		assert_int_equal(try_bind(fd, net->any, 0), 0);
		if (connected)
			assert_int_equal(try_connect(fd, net->loopback, PORT), 0);
		assert_int_equal(try_send(fd, net->loopback, PORT), 0);
		assert_int_equal(n_claims(), 1); /* its own: no answer need be awaited */
		assert_int_equal(recvfrom(server, &byte, 1, 0, (struct sockaddr *)&from, &len), 1);
		end = end_of(&from);
		assert_memory_equal(&end.ip, &slice(0)->address, sizeof(end.ip));
		assert_int_equal(sendto(server, "y", 1, 0, (struct sockaddr *)&from, len), 1);
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
		assert_int_equal(recv(fd, &byte, 1, 0), 1);
		close(fd);
		wait_for_claims(0);
	}
	assert_int_equal(try_send(server, net->shared[0], LAB_FIRST_PORT), -ECONNREFUSED);
	close(server);
}

/* Names the source of a message; CMSG_LEN bytes of control are used. */
static void put_source(struct msghdr *message, const char *source)
{
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(message);
	struct in6_pktinfo info6 = {0};
	struct in_pktinfo info = {0};

	if (net->family == AF_INET) {
		info.ipi_spec_dst.s_addr = inet_addr(source);
		*cmsg = (struct cmsghdr){.cmsg_level = IPPROTO_IP,
					 .cmsg_type = IP_PKTINFO,
					 .cmsg_len = CMSG_LEN(sizeof(info))};
		memcpy(CMSG_DATA(cmsg), &info, sizeof(info));
	} else {
		assert_int_equal(inet_pton(AF_INET6, source, &info6.ipi6_addr), 1);
		*cmsg = (struct cmsghdr){.cmsg_level = IPPROTO_IPV6,
					 .cmsg_type = IPV6_PKTINFO,
					 .cmsg_len = CMSG_LEN(sizeof(info6))};
		memcpy(CMSG_DATA(cmsg), &info6, sizeof(info6));
	}
	message->msg_controllen = CMSG_ALIGN(cmsg->cmsg_len);
}

/* Sends from fd to the first far end, which tells the source it saw on the wire; .port is the errno
 * and .ip zero where fd may not. */
static struct end seen_by_far(int fd, const char *source)
{
	char control[CMSG_SPACE(sizeof(struct in6_pktinfo))] = {0}, byte = 'x';
	struct sockaddr_storage to, from = {0};
	struct iovec io = {&byte, 1};
	struct msghdr message = {.msg_name = &to,
				 .msg_namelen = at(net->far[0], PORT, &to),
				 .msg_iov = &io,
				 .msg_iovlen = 1,
				 .msg_control = source ? control : NULL,
				 .msg_controllen = source ? sizeof(control) : 0};
	struct timeval second = {1, 0};
	socklen_t len = sizeof(from);
	struct end end = {0};
	int receiver;

	if (source)
		put_source(&message, source);
	assert_int_equal(setns(lab.far_ns, CLONE_NEWNET), 0);
	receiver = new_socket(SOCK_DGRAM);
	assert_int_equal(setns(lab.near_ns, CLONE_NEWNET), 0);
	assert_int_equal(try_bind(receiver, net->far[0], PORT), 0);
	setsockopt(receiver, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	if (sendmsg(fd, &message, 0) < 0) {
		end.port = (uint16_t)errno;
	} else {
		assert_int_equal(recvfrom(receiver, &byte, 1, 0, (struct sockaddr *)&from, &len),
				 1);
		end = end_of(&from);
	}
	close(receiver);
	return end;
}

static void a_published_udp_service_answers_from_its_address(void **state)
{
	const struct {
		const char *bound, *source; /* IP_PKTINFO */
		uint16_t port;
		int error;
	} rows[] = {
		{net->shared[0], NULL, SERVICE_PORT, 0},
		{net->any, NULL, SERVICE_PORT, 0},
		{net->any, net->shared[0], SERVICE_PORT, 0},
		{net->any, net->shared[1], SERVICE_PORT, EDESTADDRREQ},
		{net->any, net->own, SERVICE_PORT, EDESTADDRREQ},
		{net->any, NULL, SERVICE_PORT + 1, EDESTADDRREQ},
		{net->own, NULL, SERVICE_PORT, EDESTADDRREQ},
	};

	(void)state;
	plan.services[0].protocol = plan.services[1].protocol = IPPROTO_UDP;
	start();
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		int fd = new_socket(SOCK_DGRAM);
		struct ps_ip wanted = rows[i].error ? (struct ps_ip){0} : ip_of(net->shared[0]);
		struct end seen;

		assert_int_equal(try_bind(fd, rows[i].bound, rows[i].port), 0);
		seen = seen_by_far(fd, rows[i].source);
		assert_memory_equal(&seen.ip, &wanted, sizeof(wanted));
		assert_int_equal(seen.port, rows[i].error ? rows[i].error : SERVICE_PORT);
		assert_int_equal(n_claims(), 0);
		close(fd);
	}
}

/* Why the hook gives a service on the wildcard its address. */
static void the_route_would_choose_the_hosts_own_address(void **state)
{
	struct ps_ip own = ip_of(net->own);
	int fd = new_socket(SOCK_DGRAM);
	struct end seen;

	(void)state;
	lab_enter(lab.plain_dir);
	assert_int_equal(try_bind(fd, net->any, SERVICE_PORT), 0);
	seen = seen_by_far(fd, NULL);
	assert_memory_equal(&seen.ip, &own, sizeof(own));
	close(fd);
}

static void udp_may_connect_again_and_claims_follow(void **state)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	int fd = dial(SOCK_DGRAM, net->far[0]);
	uint16_t port = name_of(fd).port;

	(void)state;
	assert_int_equal(try_connect(fd, net->far[1], PORT), 0);
	assert_int_equal(n_claims(), 1);
	assert_int_equal(connect(fd, &none, sizeof(none)), 0);
	assert_int_equal(try_connect(fd, net->far[2], PORT), 0);
	assert_int_equal(try_connect(fd, net->far[2], PORT), 0);
	assert_int_equal(try_connect(fd, net->direct, PORT), 0);
	assert_int_equal(name_of(fd).port, port);
	assert_int_equal(n_claims(), 1);
	close(fd);
	wait_for_claims(0);
}

static int new_dual(int type)
{
	int fd = socket(AF_INET6, type | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	return fd;
}

static void ipv4_inside_ipv6_sockets_is_served_too(void **state)
{
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM};

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		int fd = new_dual(types[i & 1]);

		if (i & 2)
			assert_int_equal(try_bind(fd, "::", 0), 0);
		assert_int_equal(try_connect(fd, "::ffff:10.77.0.2", PORT), 0);
		assert_from_slice(fd, &plan.slices[0]);
		assert_int_equal(n_claims(), 1);
		close(fd);
		wait_for_claims(0);
	}
}

/* What `::` with port 0 becomes: IPv4 first for a socket of both families. */
static void the_wildcard_of_both_families_takes_what_the_class_has(void **state)
{
	static const struct {
		unsigned n_v4, n_v6;
		int only_v6, slice, claims;
		int connect4, connect6; /* errors */
	} rows[] = {
		{1, 1, 0, 0, 1, 0, -EADDRNOTAVAIL},
		{1, 1, 1, 2, 1, -EADDRNOTAVAIL, 0},
		{0, 1, 0, 2, 1, -ENETUNREACH, 0},
		{1, 0, 0, 0, 1, 0, -ENETUNREACH},
		{1, 0, 1, -1, 0, -EADDRNOTAVAIL, -ENETUNREACH},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		plan.choices[MAIN].v4.n = rows[i].n_v4;
		plan.choices[MAIN].v6.n = rows[i].n_v6;
		start();
		for (unsigned v6 = 0; v6 < 2; v6++) {
			int fd = new_dual(SOCK_DGRAM), r;

			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &rows[i].only_v6, sizeof(int));
			assert_int_equal(try_bind(fd, "::", 0), 0);
			assert_int_equal(n_claims(), rows[i].claims);
			if (rows[i].slice >= 0)
				assert_from_slice(fd, &plan.slices[rows[i].slice]);
			r = try_connect(fd, v6 ? nets[1].far[0] : "::ffff:10.77.0.2", PORT);
			if (r != (v6 ? rows[i].connect6 : rows[i].connect4))
				fail_msg("row %zu, %s: %d", i, v6 ? "IPv6" : "IPv4", r);
			close(fd);
			wait_for_claims(0);
		}
	}
}

static void a_class_without_addresses_of_a_family_is_told_to_use_the_other(void **state)
{
	const int v6 = net->family == AF_INET6,
		  reason = v6 ? PS_EGRESS_REFUSED_V6 : PS_EGRESS_REFUSED_V4;
	const struct net *other = &nets[!v6];
	int tcp = new_socket(SOCK_STREAM), udp = new_socket(SOCK_DGRAM);
	struct told told = {0};

	(void)state;
	choice(MAIN)->n = 0;
	start();
	assert_int_equal(try_connect(tcp, net->far[0], PORT), -ENETUNREACH);
	assert_int_equal(try_connect(udp, net->far[0], PORT), -ENETUNREACH);
	assert_int_equal(try_send(udp, net->far[0], PORT), -ENETUNREACH);
	assert_int_equal(try_connect(udp, net->direct, PORT), 0);
	assert_int_equal(counter(reason), 3);
	assert_true(ps_egress_events_read(egress, note_event, &told) >= 1);
	assert_int_equal(told.last.reason, reason);
	close(tcp);
	close(udp);
	net = other;
	tcp = dial(SOCK_STREAM, net->far[0]);
	assert_true(tcp >= 0);
	assert_from_slice(tcp, slice(0));
	close(tcp);
}

/* One program, one class: each destination by its own family. */
static void a_class_of_both_families_serves_each_destination_by_its_own(void **state)
{
	(void)state;
	for (size_t i = 0; i < 4; i++) {
		int fd = new_dual(i & 1 ? SOCK_STREAM : SOCK_DGRAM);
		int v6 = i >= 2;

		assert_int_equal(try_connect(fd, v6 ? nets[1].far[0] : "::ffff:10.77.0.2", PORT),
				 0);
		assert_from_slice(fd, &plan.slices[v6 ? 2 : 0]);
		close(fd);
	}
}

static void a_ping_gets_an_identifier_of_the_slice(void **state)
{
	int fd = socket(net->family, SOCK_DGRAM | SOCK_CLOEXEC, net->icmp);
	uint8_t echo[8] = {net->family == AF_INET ? 8 : 128};
	struct timeval second = {1, 0};

	(void)state;
	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	assert_int_equal(try_connect(fd, net->far[0], 7), 0); /* a port means nothing */
	assert_from_slice(fd, slice(0));
	assert_true(has_claim(fd, net->icmp, net->far[0], 0));
	assert_int_equal(n_claims(), 1);
	assert_int_equal(send(fd, echo, sizeof(echo), 0), sizeof(echo));
	assert_int_equal(recv(fd, echo, sizeof(echo), 0), sizeof(echo));
	assert_int_equal(echo[0], net->family == AF_INET ? 0 : 129);
	close(fd);
	wait_for_claims(0);
}

static void sockets_of_other_namespaces_are_left_alone(void **state)
{
	struct end name;
	int fd, server;

	(void)state;
	assert_int_equal(setns(lab.far_ns, CLONE_NEWNET), 0);
	fd = new_socket(SOCK_STREAM);
	assert_int_equal(setns(lab.near_ns, CLONE_NEWNET), 0);
	server = new_socket(SOCK_STREAM);
	assert_int_equal(try_bind(server, net->own, 7001), 0);
	assert_int_equal(listen(server, 1), 0);
	assert_int_equal(try_connect(fd, net->own, 7001), 0);
	name = name_of(fd);
	assert_int_not_equal(ps_ip_cmp(&name.ip, &slice(0)->address), 0);
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
		FACT(the_uid_chooses_the_class),
		FACT(the_destination_chooses_the_class),
		FACT(a_socket_bound_before_its_destination_is_known_stays_or_is_refused),
		FACT(the_requested_source_chooses_the_class),
		FACT(the_first_class_of_the_plan_wins_and_run_comes_before_all),
		FACT(a_user_keeps_the_home_address_and_then_spills_over),
		FACT(a_marked_socket_has_the_home_of_its_mark),
		FACT(programs_of_no_class_keep_their_own_address),
		FACT(shared_destinations_are_refused_to_everyone),
		FACT(a_service_of_this_host_may_be_reached_from_here),
		FACT(datagrams_without_connect_are_refused),
		FACT(a_bound_socket_awaits_the_answers_of_direct_destinations),
		FACT(loopback_answers_a_socket_that_was_moved),
		FACT(a_published_udp_service_answers_from_its_address),
		FACT(the_route_would_choose_the_hosts_own_address),
		FACT(udp_may_connect_again_and_claims_follow),
		FACT_V4(ipv4_inside_ipv6_sockets_is_served_too),
		FACT_V4(the_wildcard_of_both_families_takes_what_the_class_has),
		FACT_V4(a_class_of_both_families_serves_each_destination_by_its_own),
		FACT(a_class_without_addresses_of_a_family_is_told_to_use_the_other),
		FACT(a_ping_gets_an_identifier_of_the_slice),
		FACT(sockets_of_other_namespaces_are_left_alone),
	};

	return RUN_FACTS(tests);
}

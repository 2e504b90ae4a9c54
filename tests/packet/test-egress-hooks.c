// SPDX-License-Identifier: MIT
/* Real sockets against the real hooks: cgroup programs have no test-run. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "base/own.h"
#include "cm.h"
#include "egress-lab.h"

enum { PORT = 7000, MARK = 77, DEADLINE_MS = 5000, SERVICE_PORT = 25565 };

static struct lab lab;
static struct ps_egress *egress;
static int listener = -1;

static uint32_t ip4(const char *text)
{
	return inet_addr(text);
}

static struct ps_prefix prefix(const char *text)
{
	struct ps_prefix p;

	assert_int_equal(ps_prefix_parse(text, &p), 0);
	return p;
}

/* What a generation shall know; changed by tests before start(). */
static struct {
	struct ps_egress_slice slices[4];
	struct ps_choice choices[3];
	struct ps_egress_config config;
	struct ps_egress_options options;
} plan;

static struct ps_egress_slice slice(const char *address, uint16_t first)
{
	return (struct ps_egress_slice){ip4(address), {first, LAB_PORTS}, LAB_SHIFT};
}

/* Class 0 (by cgroup): one slice of .1.  Class 1 (cgroup and mark): one of .2.  Class 2: none. */
static void plan_default(void)
{
	static struct ps_egress_match matches[3];
	static struct ps_claim_key service;
	static struct ps_prefix direct[1], shared[1];
	static const unsigned shared_shift[] = {LAB_SHIFT};

	matches[0] = (struct ps_egress_match){lab.class_id, lab.class_level, false, 0, 0};
	matches[1] = (struct ps_egress_match){lab.class_id, lab.class_level, true, MARK, 1};
	matches[2] = (struct ps_egress_match){0, 0, true, MARK + 1, 2};
	service = (struct ps_claim_key){
		.src = ip4("198.51.100.1"), .sport = htons(SERVICE_PORT), .protocol = IPPROTO_TCP};
	direct[0] = prefix("10.77.0.4/32");
	shared[0] = prefix("198.51.100.0/24");
	plan.slices[0] = slice("198.51.100.1", LAB_FIRST_PORT);
	plan.slices[1] = slice("198.51.100.2", 8192);
	plan.choices[0] = (struct ps_choice){0, 1};
	plan.choices[1] = (struct ps_choice){1, 1};
	plan.choices[2] = (struct ps_choice){0, 0};
	plan.config = (struct ps_egress_config){.slices = plan.slices,
						.n_slices = 2,
						.choices = plan.choices,
						.n_choices = 3,
						.matches = matches,
						.n_matches = 3,
						.direct = direct,
						.n_direct = 1,
						.shared = shared,
						.shared_shift = shared_shift,
						.n_shared = 1,
						.services = &service,
						.n_services = 1};
	plan.options = (struct ps_egress_options){.pin_dir = lab.pins, .cgroup_path = lab.cgroup};
}

/* Loads the plan and puts it in place of the generation before. */
static void start(void)
{
	ps_auto(ps_egress_free) struct ps_egress *next = NULL;
	ps_auto_mem char *message = NULL;
	int r = ps_egress_load(&plan.config, &plan.options, &next, &message);

	if (r < 0)
		fail_msg("load: %d %s", r, message ? message : "");
	r = ps_egress_attach(next, &message);
	if (r < 0)
		fail_msg("attach: %d %s", r, message ? message : "");
	ps_egress_free(&egress);
	egress = ps_move(next);
}

static int set_up(void **state)
{
	(void)state;
	plan_default();
	start();
	lab_enter(lab.class_dir);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	lab_enter(lab.plain_dir);
	ps_egress_free(&egress);
	return ps_egress_detach_all(lab.pins);
}

static uint64_t counter(enum ps_egress_reason reason)
{
	uint64_t counters[PS_EGRESS_MAX];

	assert_int_equal(ps_egress_counters(lab.pins, counters), 0);
	return counters[reason];
}

static unsigned n_claims(void)
{
	struct ps_claim_key key, next;
	void *from = NULL;
	unsigned n = 0;

	for (; bpf_map_get_next_key(ps_egress_claims_fd(egress), from, &next) == 0; n++) {
		key = next;
		from = &key;
	}
	return n;
}

static void wait_for_claims(unsigned n)
{
	const struct timespec tick = {0, 5 * 1000 * 1000};

	for (int ms = 0; n_claims() != n && ms < DEADLINE_MS; ms += 5)
		nanosleep(&tick, NULL);
	assert_int_equal(n_claims(), n);
}

static struct sockaddr_in at(const char *address, uint16_t port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = ip4(address)};
}

static int try_connect(int fd, const char *address, uint16_t port)
{
	struct sockaddr_in to = at(address, port);

	return connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ? -errno : 0;
}

static int try_bind(int fd, const char *address, uint16_t port)
{
	struct sockaddr_in from = at(address, port);

	return bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0 ? -errno : 0;
}

static struct sockaddr_in name_of(int fd)
{
	struct sockaddr_in name = {0};
	socklen_t len = sizeof(name);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &len), 0);
	return name;
}

static int new_socket(int type)
{
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	return fd;
}

/* A connected socket, or the negative errno of connect(). */
static int dial(int type, const char *address)
{
	int fd = new_socket(type), r = try_connect(fd, address, PORT);

	if (r < 0)
		close(fd);
	return r < 0 ? r : fd;
}

static void assert_from_slice(int fd, const struct ps_egress_slice *of)
{
	struct sockaddr_in name = name_of(fd);

	assert_int_equal(name.sin_addr.s_addr, of->ip4_be);
	assert_true(ps_range_contains(of->ports, ntohs(name.sin_port)));
}

static void close_all(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

struct told {
	unsigned n;
	struct ps_egress_event last;
};

static void note_event(const struct ps_egress_event *event, void *arg)
{
	struct told *told = arg;

	told->n++;
	told->last = *event;
}

static const char *const far[] = {"10.77.0.2", "10.77.0.3", "10.77.0.5"};

/* Fills the slice towards three destinations; none of the ports is given twice to one of them. */
static void fill(int type, int fds[3 * LAB_PORTS])
{
	bool used[3][LAB_PORTS] = {{false}};

	for (unsigned i = 0; i < 3 * LAB_PORTS; i++) {
		unsigned port;

		fds[i] = dial(type, far[i % 3]);
		assert_true(fds[i] >= 0);
		assert_from_slice(fds[i], &plan.slices[0]);
		port = ntohs(name_of(fds[i]).sin_port) - LAB_FIRST_PORT;
		assert_false(used[i % 3][port]);
		used[i % 3][port] = true;
	}
}

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
	assert_true(strstr("test-egress-hooks", told.last.comm) != NULL);
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

static void a_killed_program_leaves_no_claims(void **state)
{
	int ready[2];
	char byte;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		for (int i = 0; i < 20; i++) {
			if (dial(SOCK_STREAM, far[i % 3]) < 0 || dial(SOCK_DGRAM, far[i % 3]) < 0)
				_exit(1);
		}
		(void)!write(ready[1], "", 1);
		pause();
	}
	assert_true(pid > 0);
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	assert_int_equal(n_claims(), 40);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	wait_for_claims(0);
}

/* Connects to far[0] until refused, tells how often, and keeps the sockets until `hold` closes. */
static pid_t fork_filler(const int go[2], const int tell[2], const int hold[2])
{
	pid_t pid = fork();
	int n = 0, fd;
	char byte;

	if (pid)
		return pid;
	close(go[1]);
	close(hold[1]);
	(void)!read(go[0], &byte, 1);
	while ((fd = dial(SOCK_STREAM, far[0])) >= 0)
		n++;
	if (fd != -EADDRNOTAVAIL)
		n = -1000;
	(void)!write(tell[1], &n, sizeof(n));
	(void)!read(hold[0], &byte, 1);
	_exit(0);
}

static void two_programs_at_once_get_all_ports_and_none_twice(void **state)
{
	int go[2], tell[2], hold[2], n, total = 0;
	pid_t pids[2];

	(void)state;
	assert_int_equal(pipe(go) | pipe(tell) | pipe(hold), 0);
	for (size_t i = 0; i < 2; i++)
		pids[i] = fork_filler(go, tell, hold);
	close(go[1]);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(read(tell[0], &n, sizeof(n)), sizeof(n));
		total += n;
	}
	assert_int_equal(total, LAB_PORTS);
	assert_int_equal(n_claims(), LAB_PORTS);
	close(hold[1]);
	for (size_t i = 0; i < 2; i++)
		waitpid(pids[i], NULL, 0);
	wait_for_claims(0);
	close_all((int[]){go[0], tell[0], tell[1], hold[0]}, 4);
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

static void binding_first_ends_in_the_slice(void **state)
{
	static const struct {
		const char *address;
		uint16_t port;
		bool address_only;
		unsigned n_claims_bound;
	} rows[] = {
		{"0.0.0.0", 0, false, 1},
		{"198.51.100.1", 0, false, 1},
		{"198.51.100.1", 0, true, 0},
		{"0.0.0.0", 0, true, 0},
		{"198.51.100.1", LAB_FIRST_PORT + 5, false, 1},
	};
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM};

	(void)state;
	for (size_t i = 0; i < 2 * PS_N_ELEMENTS(rows); i++) {
		int fd = new_socket(types[i & 1]), only = rows[i / 2].address_only;

		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &only, sizeof(only));
		if (rows[i / 2].address_only && !strcmp(rows[i / 2].address, "0.0.0.0"))
			assert_int_equal(try_bind(fd, rows[i / 2].address, 0), 0);
		else
			assert_int_equal(try_bind(fd, rows[i / 2].address, rows[i / 2].port), 0);
		assert_int_equal(n_claims(), rows[i / 2].n_claims_bound);
		if (!only)
			assert_from_slice(fd, &plan.slices[0]);
		assert_int_equal(try_connect(fd, far[0], PORT), 0);
		assert_from_slice(fd, &plan.slices[0]);
		assert_int_equal(n_claims(), 1);
		close(fd);
		wait_for_claims(0);
	}
}

static void bind_refuses_what_is_not_ours(void **state)
{
	static const struct {
		const char *address;
		uint16_t port;
		int error;
	} rows[] = {
		{"198.51.100.1", 50000, -EACCES},
		{"198.51.100.1", LAB_FIRST_PORT + LAB_PORTS, -EACCES},
		{"198.51.100.2", 0, -EADDRNOTAVAIL},
		{"198.51.100.9", 8192, -EADDRNOTAVAIL},
		{"198.51.100.1", SERVICE_PORT, 0},
		{"10.77.0.1", 0, 0},
		{"127.0.0.1", 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		int fd = new_socket(SOCK_STREAM);

		assert_int_equal(try_bind(fd, rows[i].address, rows[i].port), rows[i].error);
		assert_int_equal(n_claims(), 0);
		close(fd);
	}
	assert_int_equal(counter(PS_EGRESS_REFUSED_BIND), 4);
}

static void a_port_held_without_a_peer_is_held_once_and_never_drawn(void **state)
{
	int held[LAB_PORTS], fd;

	(void)state;
	for (unsigned i = 0; i < LAB_PORTS; i++) {
		held[i] = new_socket(SOCK_DGRAM);
		assert_int_equal(try_bind(held[i], "198.51.100.1", 0), 0);
	}
	fd = new_socket(SOCK_DGRAM);
	assert_int_equal(try_bind(fd, "198.51.100.1", 0), -EADDRNOTAVAIL);
	assert_int_equal(try_bind(fd, "198.51.100.1", LAB_FIRST_PORT), -EADDRINUSE);
	assert_int_equal(try_connect(fd, far[0], PORT), -EADDRNOTAVAIL);
	close(held[7]);
	assert_int_equal(try_connect(fd, far[0], PORT), 0);
	close(fd);
	for (unsigned i = 0; i < LAB_PORTS; i++) {
		if (i != 7)
			close(held[i]);
	}
	wait_for_claims(0);
}

static void a_socket_bound_elsewhere_may_not_connect(void **state)
{
	static const struct {
		const char *address;
		uint16_t port;
	} rows[] = {{"0.0.0.0", 50001}, {"10.77.0.1", 0}, {"10.77.0.1", LAB_FIRST_PORT + 1}};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		int fd = new_socket(SOCK_STREAM);

		assert_int_equal(try_bind(fd, rows[i].address, rows[i].port), 0);
		assert_int_equal(try_connect(fd, far[0], PORT), -EADDRNOTAVAIL);
		assert_int_equal(try_connect(fd, "10.77.0.4", PORT), 0);
		close(fd);
	}
	assert_int_equal(counter(PS_EGRESS_REFUSED_PORT), PS_N_ELEMENTS(rows));
	assert_int_equal(counter(PS_EGRESS_DIRECT), PS_N_ELEMENTS(rows));
}

static void a_listener_on_the_wildcard_costs_its_own_port_only(void **state)
{
	int server = new_socket(SOCK_STREAM), fds[LAB_PORTS], on = 1;

	(void)state;
	/* Passes by the TIME_WAIT of earlier tests; a listener still blocks its port. */
	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(try_bind(server, "0.0.0.0", LAB_FIRST_PORT + 9), 0);
	assert_int_equal(listen(server, 1), 0);
	for (unsigned i = 0; i < LAB_PORTS - 1; i++) {
		fds[i] = dial(SOCK_STREAM, far[0]);
		assert_true(fds[i] >= 0);
		assert_from_slice(fds[i], &plan.slices[0]);
	}
	assert_int_equal(dial(SOCK_STREAM, far[0]), -EADDRNOTAVAIL);
	close(server);
	fds[LAB_PORTS - 1] = dial(SOCK_STREAM, far[0]);
	assert_true(fds[LAB_PORTS - 1] >= 0);
	close_all(fds, LAB_PORTS);
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

static int try_send(int fd, const char *address, uint16_t port)
{
	struct sockaddr_in to = at(address, port);

	return sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)) < 0 ? -errno : 0;
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

static uint32_t link_id(const char *name)
{
	struct bpf_link_info info = {0};
	uint32_t len = sizeof(info);
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", lab.pins, name);
	fd = bpf_obj_get(path);
	assert_true(fd >= 0);
	assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
	close(fd);
	return info.id;
}

static void a_listener_gives_its_port_back(void **state)
{
	int fd = new_socket(SOCK_STREAM);

	(void)state;
	assert_int_equal(try_bind(fd, "198.51.100.1", LAB_FIRST_PORT + 3), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(n_claims(), 1);
	close(fd);
	wait_for_claims(0);
}

static void a_new_generation_keeps_the_claims_of_open_connections(void **state)
{
	uint32_t link = link_id("hook-connect4");
	int fds[LAB_PORTS], fd;

	(void)state;
	for (unsigned i = 0; i < LAB_PORTS; i++) {
		fds[i] = dial(SOCK_STREAM, far[0]);
		assert_true(fds[i] >= 0);
	}
	start();
	assert_int_equal(link_id("hook-connect4"), link);
	assert_int_equal(n_claims(), LAB_PORTS);
	assert_int_equal(dial(SOCK_STREAM, far[0]), -EADDRNOTAVAIL);
	plan.choices[0] = plan.choices[1];
	start();
	fd = dial(SOCK_STREAM, far[0]);
	assert_true(fd >= 0);
	assert_from_slice(fd, &plan.slices[1]);
	for (unsigned i = 0; i < LAB_PORTS; i++)
		assert_int_equal(send(fds[i], "x", 1, 0), 1);
	close(fd);
	close_all(fds, LAB_PORTS);
	wait_for_claims(0);
	assert_int_equal(counter(PS_EGRESS_EXHAUSTED), 1);
}

static void set_timestamps(const char *on)
{
	int fd = open("/proc/sys/net/ipv4/tcp_timestamps", O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, on, 1), 1);
	close(fd);
}

/* Pretends that the quarantine of all claims has ended. */
static void end_quarantines(void)
{
	const struct ps_claim past = {.free_after_ns = 1};
	struct ps_claim_key key, next;
	void *from = NULL;

	while (bpf_map_get_next_key(ps_egress_claims_fd(egress), from, &next) == 0) {
		key = next;
		from = &key;
		assert_int_equal(
			bpf_map_update_elem(ps_egress_claims_fd(egress), &key, &past, BPF_EXIST),
			0);
	}
}

static void a_connection_without_timestamps_keeps_its_port_for_time_wait(void **state)
{
	int fds[LAB_PORTS], fd;
	uint64_t n = 0;

	(void)state;
	set_timestamps("0");
	for (unsigned i = 0; i < LAB_PORTS; i++) {
		fds[i] = dial(SOCK_STREAM, far[0]);
		assert_true(fds[i] >= 0);
	}
	close_all(fds, LAB_PORTS);
	set_timestamps("1");
	for (int ms = 0; counter(PS_EGRESS_QUARANTINE) < LAB_PORTS && ms < DEADLINE_MS; ms++)
		poll(NULL, 0, 1);
	assert_int_equal(counter(PS_EGRESS_QUARANTINE), LAB_PORTS);
	assert_int_equal(n_claims(), LAB_PORTS);
	assert_int_equal(ps_egress_usage(lab.pins, plan.slices, 1, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(dial(SOCK_DGRAM, far[0]) >= 0, true); /* another protocol, other ports */
	assert_int_equal(dial(SOCK_STREAM, far[0]), -EADDRNOTAVAIL);
	assert_int_equal(ps_egress_sweep(egress, &n), 0);
	assert_int_equal(n, 0);
	end_quarantines();
	fd = new_socket(SOCK_STREAM);
	assert_int_equal(try_bind(fd, "198.51.100.1", LAB_FIRST_PORT), 0);
	(void)try_connect(fd, far[0], PORT); /* the kernel's TIME_WAIT may refuse it */
	assert_int_equal(ps_egress_sweep(egress, &n), 0);
	assert_int_equal(n, LAB_PORTS); /* the taken over one is not among them, the UDP one is */
	close(fd);
}

static void a_full_table_is_enobufs_until_it_is_swept(void **state)
{
	const struct ps_claim past = {.free_after_ns = 1};
	struct ps_claim_key key = {.protocol = 255};
	uint64_t n;
	int fd;

	(void)state;
	for (unsigned i = 0; i < PS_CLAIMS_MAX; i++) {
		key.src = i;
		assert_int_equal(
			bpf_map_update_elem(ps_egress_claims_fd(egress), &key, &past, BPF_ANY), 0);
	}
	assert_int_equal(dial(SOCK_STREAM, far[0]), -ENOBUFS);
	assert_int_equal(counter(PS_EGRESS_NO_MEMORY), 1);
	assert_int_equal(ps_egress_sweep(egress, &n), 0);
	assert_int_equal(n, PS_CLAIMS_MAX);
	fd = dial(SOCK_STREAM, far[0]);
	assert_true(fd >= 0);
	close(fd);
}

static void observing_changes_nothing(void **state)
{
	int fd;

	(void)state;
	plan.options.observe = true;
	start();
	fd = dial(SOCK_STREAM, far[0]);
	assert_true(fd >= 0);
	assert_int_equal(name_of(fd).sin_addr.s_addr, ip4("10.77.0.1"));
	close(fd);
	fd = new_socket(SOCK_DGRAM);
	assert_int_equal(try_send(fd, far[0], PORT), 0);
	close(fd);
	assert_int_equal(counter(PS_EGRESS_CONNECT), 1);
	assert_int_equal(counter(PS_EGRESS_REFUSED_UNCONNECTED), 1);
	assert_int_equal(n_claims(), 0);
}

static void mss_is_lowered_and_never_raised(void **state)
{
	static const struct {
		int own, expected;
	} rows[] = {{0, 1300}, {1200, 1200}, {1400, 1300}};

	(void)state;
	plan.config.mss = 1300;
	start();
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		int fd = new_socket(SOCK_STREAM), mss = 0;
		socklen_t len = sizeof(mss);

		if (rows[i].own)
			setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &rows[i].own, sizeof(int));
		assert_int_equal(try_connect(fd, far[0], PORT), 0);
		assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &mss, &len), 0);
		assert_true(mss > rows[i].expected - 20 && mss <= rows[i].expected);
		close(fd);
	}
}

static void events_come_once_a_second_and_say_how_many_were_held_back(void **state)
{
	struct told told = {0};
	int fd = new_socket(SOCK_DGRAM);

	(void)state;
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(try_send(fd, far[0], PORT), -EDESTADDRREQ);
	assert_true(ps_egress_events_read(egress, note_event, &told) >= 1);
	assert_true(told.n + told.last.suppressed <= 10);
	assert_true(told.n < 10);
	close(fd);
}

static void a_pinned_map_of_another_layout_is_refused_with_advice(void **state)
{
	ps_auto(ps_egress_free) struct ps_egress *other = NULL;
	ps_auto_mem char *message = NULL;
	char path[128];
	int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "claims", 8, 8, 16, NULL);

	(void)state;
	ps_egress_free(&egress);
	assert_int_equal(ps_egress_detach_all(lab.pins), 0);
	snprintf(path, sizeof(path), "%s/claims", lab.pins);
	assert_int_equal(bpf_obj_pin(fd, path), 0);
	close(fd);
	assert_int_equal(ps_egress_load(&plan.config, &plan.options, &other, &message), -ESTALE);
	assert_non_null(strstr(message, "portslice detach"));
}

static void a_direct_prefix_within_shared_addresses_is_refused(void **state)
{
	ps_auto(ps_egress_free) struct ps_egress *other = NULL;
	ps_auto_mem char *message = NULL;
	struct ps_prefix inside = prefix("198.51.100.128/25");

	(void)state;
	plan.config.direct = &inside;
	assert_int_equal(ps_egress_load(&plan.config, &plan.options, &other, &message), -EINVAL);
	assert_non_null(strstr(message, "198.51.100.128/25"));
}

static void detaching_leaves_no_pin_and_no_hook(void **state)
{
	uint32_t n = 0;
	int fd = open(lab.cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct dirent *entry;
	DIR *dir;

	(void)state;
	assert_int_equal(ps_egress_detach_all(lab.pins), 0);
	for (enum bpf_attach_type t = BPF_CGROUP_INET_INGRESS; t <= BPF_CGROUP_INET_SOCK_RELEASE;
	     t++) {
		if (bpf_prog_query(fd, t, 0, NULL, NULL, &n) == 0)
			assert_int_equal(n, 0);
	}
	close(fd);
	dir = opendir(lab.pins);
	assert_non_null(dir);
	while ((entry = readdir(dir)))
		assert_int_equal(entry->d_name[0], '.');
	closedir(dir);
	fd = dial(SOCK_STREAM, far[0]);
	assert_int_equal(name_of(fd).sin_addr.s_addr, ip4("10.77.0.1"));
	close(fd);
	assert_int_equal(ps_egress_detach_all(lab.pins), 0);
}

static int open_all(void **state)
{
	int r = lab_open(&lab);

	(void)state;
	if (r < 0)
		return r;
	if (setns(lab.far_ns, CLONE_NEWNET) < 0)
		return -errno;
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (setns(lab.near_ns, CLONE_NEWNET) < 0)
		return -errno;
	if (try_bind(listener, "0.0.0.0", PORT) < 0)
		return -errno;
	return listen(listener, 4096);
}

static int close_lab(void **state)
{
	(void)state;
	close(listener);
	lab_close(&lab);
	return 0;
}

#define FACT(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FACT(tcp_uses_every_port_towards_each_destination_and_then_is_told),
		FACT(connected_udp_uses_every_port_towards_each_destination_and_then_is_told),
		FACT(a_refused_socket_connects_once_a_port_is_free),
		FACT(a_killed_program_leaves_no_claims),
		FACT(two_programs_at_once_get_all_ports_and_none_twice),
		FACT(a_connection_refused_gives_its_port_back),
		FACT(binding_first_ends_in_the_slice),
		FACT(bind_refuses_what_is_not_ours),
		FACT(a_port_held_without_a_peer_is_held_once_and_never_drawn),
		FACT(a_socket_bound_elsewhere_may_not_connect),
		FACT(a_listener_on_the_wildcard_costs_its_own_port_only),
		FACT(two_slices_of_two_addresses_are_used_to_the_last_port),
		FACT(a_requested_address_is_kept),
		FACT(the_mark_chooses_the_class),
		FACT(programs_of_no_class_keep_their_own_address),
		FACT(shared_destinations_are_refused_to_everyone),
		FACT(a_service_of_this_host_may_be_reached_from_here),
		FACT(datagrams_without_connect_are_refused),
		FACT(udp_may_connect_again_and_claims_follow),
		FACT(ipv4_inside_ipv6_sockets_is_served_too),
		FACT(native_ipv6_is_refused_so_that_programs_fall_back),
		FACT(sockets_of_other_namespaces_are_left_alone),
		FACT(a_listener_gives_its_port_back),
		FACT(a_new_generation_keeps_the_claims_of_open_connections),
		FACT(a_connection_without_timestamps_keeps_its_port_for_time_wait),
		FACT(a_full_table_is_enobufs_until_it_is_swept),
		FACT(observing_changes_nothing),
		FACT(mss_is_lowered_and_never_raised),
		FACT(events_come_once_a_second_and_say_how_many_were_held_back),
		FACT(a_pinned_map_of_another_layout_is_refused_with_advice),
		FACT(a_direct_prefix_within_shared_addresses_is_refused),
		FACT(detaching_leaves_no_pin_and_no_hook),
	};
	const char *missing = lab_missing();

	if (missing) {
		printf("skip: %s\n", missing);
		return 77;
	}
	return cmocka_run_group_tests(tests, open_all, close_lab);
}

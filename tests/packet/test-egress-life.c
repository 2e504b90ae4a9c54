// SPDX-License-Identifier: MIT
/* Claims over time: programs killed, generations replaced, TIME_WAIT, full tables, taking all off. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sched.h>
#include <sys/wait.h>
#include <time.h>

#include "base/own.h"
#include "egress-fixture.h"

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
			if (dial(SOCK_STREAM, net->far[i % 3]) < 0 ||
			    dial(SOCK_DGRAM, net->far[i % 3]) < 0)
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

/* Connects to net->far[0] until refused, tells how often, and keeps the sockets until `hold` closes. */
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
	while ((fd = dial(SOCK_STREAM, net->far[0])) >= 0)
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
	assert_int_equal(total, LAB_SHARED);
	assert_int_equal(n_claims(), LAB_SHARED);
	close(hold[1]);
	for (size_t i = 0; i < 2; i++)
		waitpid(pids[i], NULL, 0);
	wait_for_claims(0);
	close_all((int[]){go[0], tell[0], tell[1], hold[0]}, 4);
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

static void a_new_generation_keeps_the_claims_of_open_connections(void **state)
{
	uint32_t link = link_id("hook-connect4");
	int fds[LAB_SHARED], fd;

	(void)state;
	for (unsigned i = 0; i < LAB_SHARED; i++) {
		fds[i] = dial(SOCK_STREAM, net->far[0]);
		assert_true(fds[i] >= 0);
	}
	start();
	assert_int_equal(link_id("hook-connect4"), link);
	assert_int_equal(n_claims(), LAB_SHARED);
	assert_int_equal(dial(SOCK_STREAM, net->far[0]), -EADDRNOTAVAIL);
	plan.choices[MAIN] = plan.choices[MARKED];
	start();
	fd = dial(SOCK_STREAM, net->far[0]);
	assert_true(fd >= 0);
	assert_from_slice(fd, slice(1));
	for (unsigned i = 0; i < LAB_SHARED; i++)
		assert_int_equal(send(fds[i], "x", 1, 0), 1);
	close(fd);
	close_all(fds, LAB_SHARED);
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

static void a_connection_without_timestamps_keeps_its_port_for_time_wait(void **state)
{
	int fds[LAB_SHARED], udp;
	uint64_t n = 0;

	(void)state;
	set_timestamps("0");
	for (unsigned i = 0; i < LAB_SHARED; i++) {
		fds[i] = dial(SOCK_STREAM, net->far[0]);
		assert_true(fds[i] >= 0);
	}
	close_all(fds, LAB_SHARED);
	set_timestamps("1");
	for (int ms = 0; counter(PS_EGRESS_QUARANTINE) < LAB_SHARED && ms < DEADLINE_MS; ms++)
		poll(NULL, 0, 1);
	assert_int_equal(counter(PS_EGRESS_QUARANTINE), LAB_SHARED);
	assert_int_equal(n_claims(), LAB_SHARED);
	assert_int_equal(ps_egress_usage(lab.pins, plan.slices, 1, &n), 0);
	assert_int_equal(n, 0);
	udp = dial(SOCK_DGRAM, net->far[0]); /* another protocol, other ports */
	assert_true(udp >= 0);
	assert_int_equal(dial(SOCK_STREAM, net->far[0]), -EADDRNOTAVAIL);
	assert_int_equal(ps_egress_thaw(egress, &n), 0);
	assert_int_equal(n, 0);
	start(); /* the record outlives a generation */
	end_quarantines();
	assert_int_equal(ps_egress_thaw(egress, &n), 0);
	assert_int_equal(n, LAB_SHARED);
	assert_int_equal(n_claims(), 1); /* the UDP one */
	assert_int_equal(ps_egress_thaw(egress, &n), 0);
	assert_int_equal(n, 0);
	close(udp);
}

static uint64_t quarantine_s(void)
{
	struct timespec now;
	struct ps_claim_key key;
	struct ps_quarantine value = {0};
	int fd = open_quarantine();

	for (int ms = 0; ms < DEADLINE_MS && counter(PS_EGRESS_QUARANTINE) == 0; ms++)
		poll(NULL, 0, 1);
	assert_int_equal(n_claims(), 1);
	assert_int_equal(bpf_map_get_next_key(fd, NULL, &key), 0);
	assert_int_equal(bpf_map_lookup_elem(fd, &key, &value), 0);
	close(fd);
	assert_int_equal(clock_gettime(CLOCK_BOOTTIME, &now), 0);
	return (value.free_after_ns / 1000000000u) - (uint64_t)now.tv_sec;
}

/* Accepts from fd, which closes first; the far end closes as well, or keeps its half open. */
static void close_both(bool far_closes, uint16_t port)
{
	int server, fd = new_socket(SOCK_STREAM), accepted;

	assert_int_equal(setns(lab.far_ns, CLONE_NEWNET), 0);
	server = new_socket(SOCK_STREAM);
	assert_int_equal(setns(lab.near_ns, CLONE_NEWNET), 0);
	assert_int_equal(try_bind(server, net->far[1], port), 0);
	assert_int_equal(listen(server, 1), 0);
	assert_int_equal(try_connect(fd, net->far[1], port), 0);
	accepted = accept(server, NULL, NULL);
	assert_true(accepted >= 0);
	if (far_closes) {
		/* Half first: only a socket still owned sees the peer's FIN in FIN_WAIT2. */
		char byte;

		assert_int_equal(shutdown(fd, SHUT_WR), 0);
		assert_int_equal(read(accepted, &byte, 1), 0);
		close(accepted);
		assert_int_equal(read(fd, &byte, 1), 0);
		close(fd);
	} else {
		close(fd);
	}
	wait_for_claims(1);
	if (!far_closes) {
		(void)quarantine_s();
		close(accepted);
	}
	close(server);
}

static void the_quarantine_covers_an_orphans_wait_for_the_peer(void **state)
{
	static const struct {
		bool far_closes;
		uint64_t least_s, most_s;
	} rows[] = {{true, 55, 60}, {false, 62, 66}};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		uint64_t s;

		start();
		set_timestamps("0");
		close_both(rows[i].far_closes, (uint16_t)(PORT + 10 + i));
		set_timestamps("1");
		s = quarantine_s();
		assert_in_range(s, rows[i].least_s, rows[i].most_s);
		tear_down(state);
		set_up(state);
	}
}

static void take_all_off(void)
{
	ps_egress_free(&egress);
	assert_int_equal(ps_egress_detach_all(lab.pins), 0);
}

static void a_full_ledger_is_enobufs_until_it_is_swept(void **state)
{
	enum { N = 8 };
	int fds[N], fd;
	uint64_t n;

	(void)state;
	take_all_off();
	plan.options.n_pages = N;
	start_afresh();
	for (uint16_t i = 0; i < N; i++) {
		fds[i] = new_socket(SOCK_DGRAM);
		assert_int_equal(try_connect(fds[i], net->far[0], (uint16_t)(PORT + i)), 0);
	}
	fd = new_socket(SOCK_DGRAM);
	assert_int_equal(try_connect(fd, net->far[0], PORT + N), -ENOBUFS);
	assert_int_equal(counter(PS_EGRESS_NO_MEMORY), 1);
	assert_int_equal(try_connect(fd, net->far[0], PORT), 0); /* there is a page */
	assert_int_equal(ps_egress_sweep(egress, true, &n), 0);
	assert_int_equal(n, 0);
	close(fd);
	close(fds[3]);
	wait_for_claims(N - 1);
	assert_int_equal(ps_egress_sweep(egress, false, &n), 0);
	assert_int_equal(n, 0); /* in use a moment ago */
	assert_int_equal(ps_egress_sweep(egress, true, &n), 0);
	assert_int_equal(n, 1);
	fds[3] = new_socket(SOCK_DGRAM);
	assert_int_equal(try_connect(fds[3], net->far[0], PORT + N), 0);
	close_all(fds, N);
	wait_for_claims(0);
	take_all_off();
}

static void a_slice_whose_lease_ends_gives_no_port(void **state)
{
	const struct ps_lease rows[] = {
		{.state = PS_LEASE_DRAINING}, {.state = PS_LEASE_GONE}, {.until_ns = 1}};
	const struct ps_lease active = {.until_ns = ~0ull};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		int fd = new_socket(SOCK_STREAM);

		assert_int_equal(ps_egress_lease(egress, net->slice, &rows[i]), 0);
		assert_int_equal(dial(SOCK_STREAM, net->far[0]), -EADDRNOTAVAIL);
		assert_int_equal(try_bind(fd, net->shared[0], 0), -EADDRNOTAVAIL);
		assert_int_equal(try_bind(fd, net->shared[0], LAB_FIRST_PORT), -EADDRNOTAVAIL);
		assert_int_equal(n_claims(), 0);
		assert_int_equal(ps_egress_lease(egress, net->slice, &active), 0);
		assert_int_equal(try_connect(fd, net->far[0], PORT), 0);
		close(fd);
		wait_for_claims(0);
	}
}

static void note_mark(const struct ps_egress_event *event, void *arg)
{
	unsigned *seen = arg;

	if (event->reason < PS_EGRESS_WATERMARK_70 || event->reason > PS_EGRESS_WATERMARK_FULL)
		return;
	assert_int_equal(event->pid, getpid());
	assert_int_equal(event->dport, htons(PORT));
	seen[event->reason - PS_EGRESS_WATERMARK_70]++;
}

static void a_destination_that_fills_up_is_told_before_it_is_full(void **state)
{
	static const unsigned after[] = {(LAB_SHARED * 70 + 99) / 100, (LAB_SHARED * 90 + 99) / 100,
					 LAB_SHARED};
	unsigned seen[3] = {0}, wanted[3] = {0};
	int fds[LAB_SHARED];

	(void)state;
	for (unsigned i = 0; i < LAB_SHARED; i++) {
		fds[i] = dial(SOCK_DGRAM, net->far[0]);
		assert_true(fds[i] >= 0);
		for (unsigned mark = 0; mark < 3; mark++)
			wanted[mark] += i + 1 == after[mark];
		assert_true(ps_egress_events_read(egress, note_mark, seen) >= 0);
		assert_memory_equal(seen, wanted, sizeof(seen));
	}
	assert_int_equal(counter(PS_EGRESS_WATERMARK_FULL), 1);
	close_all(fds, LAB_SHARED);
	wait_for_claims(0);
}

/* The kernel knows them still. */
static void sockets_without_a_claim_keep_their_ports(void **state)
{
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM};
	int old[2][LAB_SHARED / 2], new[LAB_SHARED / 2];
	struct ps_repair repair;

	(void)state;
	for (size_t t = 0; t < 2; t++) {
		for (unsigned i = 0; i < LAB_SHARED / 2; i++) {
			assert_true((old[t][i] = dial(types[t], net->far[0])) >= 0);
			(void)orphan(old[t][i]);
		}
	}
	assert_int_equal(ps_egress_repair(egress, NULL, NULL, &repair), 0);
	assert_int_equal(n_claims(), 0);
	for (size_t t = 0; t < 2; t++) {
		uint64_t stray = counter(PS_EGRESS_STRAY);

		for (unsigned i = 0; i < LAB_SHARED / 2; i++) {
			new[i] = dial(types[t], net->far[0]);
			assert_int_equal(new[i] < 0 ? new[i] : 0, 0);
			for (unsigned j = 0; j < LAB_SHARED / 2; j++)
				assert_int_not_equal(name_of(new[i]).port, name_of(old[t][j]).port);
		}
		assert_true(counter(PS_EGRESS_STRAY) > stray);
		assert_int_equal(dial(types[t], net->far[0]), -EADDRNOTAVAIL);
		assert_int_equal(counter(PS_EGRESS_BLOCKED), t + 1);
		close_all(new, LAB_SHARED / 2);
		close_all(old[t], LAB_SHARED / 2);
	}
	wait_for_claims(0);
}

/* Their claims stand in pages that the new slices' draws do not look at. */
static void sockets_keep_their_ports_when_slices_change_their_size(void **state)
{
	enum { SHIFT = LAB_SHIFT + 1, PORTS = 1 << SHIFT, SHARED = PORTS - PORTS / 8 };
	int old[LAB_SHARED], new[SHARED];
	unsigned n = 0;

	(void)state;
	for (size_t i = 0; i < LAB_SHARED; i++)
		assert_true((old[i] = dial(SOCK_DGRAM, net->far[0])) >= 0);
	plan_size(SHIFT);
	start();
	while (n < SHARED && (new[n] = dial(SOCK_DGRAM, net->far[0])) >= 0)
		n++;
	assert_true(n >= SHARED - LAB_SHARED);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < LAB_SHARED; j++)
			assert_int_not_equal(name_of(new[i]).port, name_of(old[j]).port);
	close_all(new, n);
	close_all(old, LAB_SHARED);
}

static void observing_changes_nothing(void **state)
{
	int fd;

	(void)state;
	plan.options.observe = true;
	start();
	fd = dial(SOCK_STREAM, net->far[0]);
	assert_true(fd >= 0);
	assert_from(fd, net->own);
	close(fd);
	fd = new_socket(SOCK_DGRAM);
	assert_int_equal(try_send(fd, net->far[0], PORT), 0);
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

	int less = net->family == AF_INET6 ? 20 : 0; /* the longer header's */

	(void)state;
	plan.config.mss = (uint16_t)(1300 + less);
	start();
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		int fd = new_socket(SOCK_STREAM), mss = 0;
		socklen_t len = sizeof(mss);

		if (rows[i].own)
			setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &rows[i].own, sizeof(int));
		assert_int_equal(try_connect(fd, net->far[0], PORT), 0);
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
		assert_int_equal(try_send(fd, net->far[0], PORT), -EDESTADDRREQ);
	assert_true(ps_egress_events_read(egress, note_event, &told) >= 1);
	assert_true(told.n + told.last.suppressed <= 10);
	assert_true(told.n < 10);
	close(fd);
}

static void a_direct_prefix_within_shared_addresses_is_refused(void **state)
{
	ps_auto(ps_egress_free) struct ps_egress *other = NULL;
	ps_auto_mem char *message = NULL;
	const char *text = net->family == AF_INET ? "198.51.100.128/25" : "2001:db8:100::80/121";
	struct ps_prefix inside = prefix(text);

	(void)state;
	plan.config.direct = &inside;
	plan.config.n_direct = 1;
	assert_int_equal(ps_egress_load(&plan.config, &plan.options, &other, &message), -EINVAL);
	assert_non_null(strstr(message, text));
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
	fd = dial(SOCK_STREAM, net->far[0]);
	assert_from(fd, net->own);
	close(fd);
	assert_int_equal(ps_egress_detach_all(lab.pins), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FACT(a_killed_program_leaves_no_claims),
		FACT(two_programs_at_once_get_all_ports_and_none_twice),
		FACT(a_new_generation_keeps_the_claims_of_open_connections),
		FACT(sockets_without_a_claim_keep_their_ports),
		FACT(sockets_keep_their_ports_when_slices_change_their_size),
		FACT(a_connection_without_timestamps_keeps_its_port_for_time_wait),
		FACT(the_quarantine_covers_an_orphans_wait_for_the_peer),
		FACT(a_full_ledger_is_enobufs_until_it_is_swept),
		FACT(a_slice_whose_lease_ends_gives_no_port),
		FACT(a_destination_that_fills_up_is_told_before_it_is_full),
		FACT(observing_changes_nothing),
		FACT(mss_is_lowered_and_never_raised),
		FACT(events_come_once_a_second_and_say_how_many_were_held_back),
		FACT(a_direct_prefix_within_shared_addresses_is_refused),
		FACT(detaching_leaves_no_pin_and_no_hook),
	};

	return RUN_FACTS(tests);
}

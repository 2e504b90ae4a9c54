// SPDX-License-Identifier: MIT
/* Sockets that were there before the hooks, and those whose end no hook is told of. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/own.h"
#include "egress-fixture.h"

enum { FIRST = LAB_FIRST_PORT };

static void set_sysctl(const char *name, const char *value)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv4/%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, value, strlen(value)), (ssize_t)strlen(value));
	close(fd);
}

static int set_up_bare(void **state)
{
	net = *state;
	plan_default();
	lab_enter(lab.class_dir);
	return 0;
}

static int bound(int type, uint16_t port)
{
	int fd = new_socket(type), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(try_bind(fd, net->shared[0], port), 0);
	return fd;
}

static bool is_claimed(uint8_t protocol, const char *peer, uint16_t port)
{
	struct ps_ip ours = ip_of(net->shared[0]), to = ip_of(peer ? peer : "::");
	struct ps_claim_key flow = {.src = ps_ip16(&ours),
				    .dst = ps_ip16(&to),
				    .sport = htons(port),
				    .dport = htons(peer ? PORT : 0),
				    .protocol = protocol,
				    .shift = LAB_SHIFT};
	struct ps_page_place place;
	struct ps_page_key key;
	struct ps_narrow_page page;

	ps_place_port(&flow, &place);
	key = ps_page_key_of(&flow, place.base);
	return bpf_map_lookup_elem(ps_egress_pages_fd(egress), &key, &page) == 0 &&
	       page.words[place.bit / 64] >> place.bit % 64 & 1;
}

static void sockets_from_before_the_hooks_have_claims_and_give_them_back(void **state)
{
	int fds[6] = {bound(SOCK_STREAM, FIRST),     bound(SOCK_STREAM, FIRST + 1),
		      bound(SOCK_DGRAM, FIRST + 2),  bound(SOCK_DGRAM, FIRST + 3),
		      bound(SOCK_STREAM, FIRST + 4), bound(SOCK_STREAM, SERVICE_PORT)};

	(void)state;
	assert_int_equal(try_connect(fds[0], net->far[0], PORT), 0);
	assert_int_equal(try_connect(fds[1], net->far[1], PORT), 0);
	assert_int_equal(try_connect(fds[2], net->far[0], PORT), 0);
	assert_int_equal(listen(fds[4], 1), 0);
	assert_int_equal(listen(fds[5], 1), 0);
	start();
	assert_int_equal(counter(PS_EGRESS_SEED), 5); /* a service has no claim */
	assert_int_equal(n_claims(), 5);
	assert_true(is_claimed(IPPROTO_TCP, net->far[0], FIRST));
	assert_true(is_claimed(IPPROTO_TCP, net->far[1], FIRST + 1));
	assert_true(is_claimed(IPPROTO_UDP, net->far[0], FIRST + 2));
	assert_true(is_claimed(IPPROTO_UDP, NULL, FIRST + 3));
	assert_true(is_claimed(IPPROTO_TCP, NULL, FIRST + 4));
	start(); /* again: nothing new */
	assert_int_equal(counter(PS_EGRESS_SEED), 5);
	close_all(fds, 6);
	wait_for_claims(0);
}

static void a_socket_outside_our_slices_is_left_alone(void **state)
{
	int fds[2] = {bound(SOCK_DGRAM, FIRST + LAB_PORTS), new_socket(SOCK_STREAM)};

	(void)state;
	assert_int_equal(try_connect(fds[0], net->far[0], PORT), 0);
	assert_int_equal(try_connect(fds[1], net->far[0], PORT), 0);
	start();
	assert_int_equal(counter(PS_EGRESS_SEED), 0);
	assert_int_equal(n_claims(), 0);
	close_all(fds, 2);
}

static int no_longer(const struct ps_claim_key *flow, const struct ps_quarantine *value, void *arg)
{
	(void)flow;
	(void)value;
	++*(unsigned *)arg;
	return 0;
}

static void time_wait_without_timestamps_from_before_goes_to_quarantine(void **state)
{
	static const char *const stamps[2] = {"0", "1"};
	unsigned n = 0;

	(void)state;
	for (uint16_t i = 0; i < 2; i++) {
		int fd = bound(SOCK_STREAM, FIRST + 10 + i);
		set_sysctl("tcp_timestamps", stamps[i]);
		assert_int_equal(try_connect(fd, net->far[2], PORT), 0);
		close(fd);
	}
	for (int ms = 0; ms < DEADLINE_MS && system("test `ss -Hant state fin-wait-1 | wc -l` = 0");
	     ms += 5)
		poll(NULL, 0, 5);
	start();
	assert_true(is_claimed(IPPROTO_TCP, net->far[2], FIRST + 10));
	assert_false(is_claimed(IPPROTO_TCP, net->far[2], FIRST + 11));
	assert_int_equal(ps_egress_quarantine(lab.pins, no_longer, &n), 0);
	assert_int_equal(n, n_claims());
}

static void a_syn_that_waits_for_data_and_never_goes_gives_its_port_back(void **state)
{
	int fd = new_socket(SOCK_STREAM), on = 1;
	unsigned n;

	(void)state;
	start();
	n = n_claims();                  /* TIME_WAIT of tests before */
	set_sysctl("tcp_fastopen", "5"); /* client, without a cookie */
	assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof(on)), 0);
	assert_int_equal(try_connect(fd, net->far[0], PORT), 0);
	assert_int_equal(n_claims(), n + 1);
	close(fd);
	set_sysctl("tcp_fastopen", "1");
	wait_for_claims(n);
}

/* Another program of the same cgroup, which overwrites the flags of every connection. */
static int attach_deaf(void)
{
	const struct bpf_insn insns[] = {
		{.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = 2, .src_reg = 1, .off = 0},
		{.code = BPF_JMP | BPF_JNE | BPF_K,
		 .dst_reg = 2,
		 .off = 2,
		 .imm = BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 2, .imm = 0},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_sock_ops_cb_flags_set},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 1},
		{.code = BPF_JMP | BPF_EXIT},
	};
	ps_auto_fd int prog = bpf_prog_load(BPF_PROG_TYPE_SOCK_OPS, "deaf", "GPL", insns,
					    PS_N_ELEMENTS(insns), NULL);
	ps_auto_fd int cgroup = open(lab.cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int link = bpf_link_create(prog, cgroup, BPF_CGROUP_SOCK_OPS, NULL);

	assert_true(prog >= 0 && cgroup >= 0 && link >= 0);
	return link;
}

static void a_connection_whose_end_is_not_told_gives_its_port_back_at_close(void **state)
{
	int link, fds[2];
	uint64_t kept;
	unsigned n;

	(void)state;
	start();
	n = n_claims();
	kept = counter(PS_EGRESS_QUARANTINE);
	link = attach_deaf();
	fds[0] = dial(SOCK_STREAM, net->far[0]);
	set_sysctl("tcp_timestamps", "0");
	fds[1] = dial(SOCK_STREAM, net->far[1]);
	set_sysctl("tcp_timestamps", "1");
	assert_int_equal(n_claims(), n + 2);
	close(fds[0]);
	wait_for_claims(n + 1);
	assert_int_equal(counter(PS_EGRESS_QUARANTINE), kept);
	close(fds[1]);
	assert_int_equal(counter(PS_EGRESS_QUARANTINE), kept + 1);
	close(link);
}

#define BARE_OF(name, i, text) {text, name, set_up_bare, tear_down, (void *)(uintptr_t)&nets[i]}
#define BARE(name) BARE_OF(name, 0, #name), BARE_OF(name, 1, #name " (IPv6)")

int main(void)
{
	const struct CMUnitTest tests[] = {
		BARE(sockets_from_before_the_hooks_have_claims_and_give_them_back),
		BARE(a_socket_outside_our_slices_is_left_alone),
		BARE(time_wait_without_timestamps_from_before_goes_to_quarantine),
		BARE(a_syn_that_waits_for_data_and_never_goes_gives_its_port_back),
		BARE(a_connection_whose_end_is_not_told_gives_its_port_back_at_close),
	};

	return RUN_FACTS(tests);
}

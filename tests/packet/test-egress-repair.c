// SPDX-License-Identifier: MIT
/* The sweep that repairs leaks: planted ones are all found, and what lives is left alone. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/own.h"
#include "egress-fixture.h"
#include "egress/inside.h"

enum {
	SHIFT = 11,
	CHURNERS = 2,
	KEPT = 860, /* sockets of each churner towards each of two peers: 96 % of the ports */
	ROUNDS = 40,
	NAIVE_ROUNDS = 200,
	PLANTED = 12,
};

static int set_up_large(void **state)
{
	struct rlimit files = {20000, 20000};

	(void)setrlimit(RLIMIT_NOFILE, &files);
	net = *state;
	plan_default();
	plan_size(SHIFT);
	start_afresh();
	lab_enter(lab.class_dir);
	return 0;
}

/* What a repair gave back. */
struct freed {
	unsigned n;
	struct ps_claim_key flows[1024];
};

static void note_leak(const struct ps_claim_key *flow, void *arg)
{
	struct freed *freed = arg;

	if (freed->n < PS_N_ELEMENTS(freed->flows))
		freed->flows[freed->n] = *flow;
	freed->n++;
}

static struct ps_repair repair(struct freed *freed)
{
	struct ps_repair found;

	freed->n = 0;
	assert_int_equal(ps_egress_repair(egress, note_leak, freed, &found), 0);
	assert_int_equal(found.n_freed, freed->n);
	return found;
}

static bool is_freed(const struct freed *freed, const struct ps_claim_key *flow)
{
	for (unsigned i = 0; i < freed->n && i < PS_N_ELEMENTS(freed->flows); i++)
		if (memcmp(&freed->flows[i], flow, sizeof(*flow)) == 0)
			return true;
	return false;
}

/* One socket of each way to hold a claim; the last has no peer. */
static void hold_each_way(int ret[3])
{
	ret[0] = dial(SOCK_STREAM, net->far[0]);
	ret[1] = dial(SOCK_DGRAM, net->far[1]);
	ret[2] = new_socket(SOCK_STREAM);
	assert_int_equal(try_bind(ret[2], net->shared[0], 0), 0);
	assert_true(ret[0] >= 0 && ret[1] >= 0);
}

static void claims_of_every_kind_are_left_to_their_holders(void **state)
{
	struct ps_repair found;
	struct freed freed;
	int fds[3], udp;

	(void)state;
	hold_each_way(fds);
	udp = new_socket(SOCK_DGRAM);
	assert_int_equal(try_bind(udp, net->shared[0], 0), 0);
	assert_int_equal(try_send(udp, net->direct, PORT), 0); /* one more claim, in `replies` */
	found = repair(&freed);
	assert_int_equal(found.n_claims, 5);
	assert_int_equal(found.n_freed + found.n_unsent, 0);
	assert_int_equal(n_claims(), 5);
	close_all(fds, 3);
	close(udp);
	wait_for_claims(0);
	assert_int_equal(repair(&freed).n_claims, 0);
}

static void claims_of_every_kind_are_given_back_when_nobody_holds_them(void **state)
{
	struct ps_claim_key lost[3];
	struct freed freed;
	int fds[3], kept[3];

	(void)state;
	hold_each_way(fds);
	hold_each_way(kept);
	for (int i = 0; i < 3; i++)
		lost[i] = orphan(fds[i]);
	close_all(fds, 3);
	assert_int_equal(n_claims(), 6);
	assert_int_equal(repair(&freed).n_freed, 3);
	for (int i = 0; i < 3; i++)
		assert_true(is_freed(&freed, &lost[i]));
	assert_int_equal(n_claims(), 3);
	assert_int_equal(counter(PS_EGRESS_LEAK), 3);
	assert_int_equal(repair(&freed).n_freed, 0);
	close_all(kept, 3);
	wait_for_claims(0);
}

static void strike_quarantine(void)
{
	int fd = bpf_map__fd(egress->hooks->maps.quarantine);
	struct ps_claim_key key;

	while (bpf_map_get_next_key(fd, NULL, &key) == 0)
		assert_int_equal(bpf_map_delete_elem(fd, &key), 0);
}

/* Every other one from the exclusive block, whose claims are counted (uses.bpf.h). */
static int dial_bound(bool binds)
{
	int fd = new_socket(SOCK_STREAM);

	if (binds)
		assert_int_equal(try_bind(fd, net->shared[0], 0), 0);
	assert_int_equal(try_connect(fd, net->far[0], PORT), 0);
	return fd;
}

static uint32_t n_counted(void)
{
	int fd = bpf_map__fd(egress->hooks->maps.uses);
	struct ps_uses_key key, *last = NULL;
	struct ps_uses value;
	uint32_t sum = 0;

	for (; bpf_map_get_next_key(fd, last, &key) == 0; last = &key) {
		assert_int_equal(bpf_map_lookup_elem(fd, &key, &value), 0);
		for (size_t i = 0; i < PS_EXCLUSIVE_MAX; i++)
			sum += value.n[i];
	}
	return sum;
}

static void a_port_in_quarantine_is_held(void **state)
{
	int fds[PLANTED];
	struct freed freed;

	(void)state;
	(void)!system("echo 0 >/proc/sys/net/ipv4/tcp_timestamps");
	for (unsigned i = 0; i < PLANTED; i++)
		fds[i] = dial_bound(i & 1);
	close_all(fds, PLANTED);
	(void)!system("echo 1 >/proc/sys/net/ipv4/tcp_timestamps");
	for (int ms = 0; counter(PS_EGRESS_QUARANTINE) < PLANTED && ms < DEADLINE_MS; ms++)
		poll(NULL, 0, 1);
	assert_int_equal(repair(&freed).n_freed, 0);
	assert_int_equal(n_claims(), PLANTED);
	assert_int_equal(n_counted(), PLANTED / 2);
	strike_quarantine();
	assert_int_equal(repair(&freed).n_freed, PLANTED);
	assert_int_equal(n_claims(), 0);
	assert_int_equal(n_counted(), 0);
}

static void a_connect_without_route_is_counted_apart(void **state)
{
	int fd = new_socket(SOCK_STREAM), udp = dial(SOCK_DGRAM, net->far[0]);
	const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
	struct ps_repair found;
	struct freed freed;

	(void)state;
	assert_int_equal(try_connect(fd, net->nowhere, PORT), -ENETUNREACH);
	found = repair(&freed);
	assert_int_equal(found.n_claims, 2);
	assert_int_equal(found.n_unsent, 1);
	assert_int_equal(connect(udp, &nobody, sizeof(nobody)), 0);
	found = repair(&freed);
	assert_int_equal(found.n_unsent, 2);
	assert_int_equal(found.n_freed, 0);
	/* Not far[0]: the kernel still knows TIME_WAIT there. */
	assert_int_equal(try_connect(fd, net->far[1], PORT), 0);
	assert_int_equal(repair(&freed).n_unsent, 1);
	close(fd);
	close(udp);
	wait_for_claims(0);
	assert_int_equal(repair(&freed).n_unsent, 0);
}

/* Gives back and takes again without a pause: closes and opens, and moves open sockets on. */
static void churn(unsigned seed)
{
	static int fds[2][KEPT];

	srandom(seed);
	for (unsigned i = 0; i < 2 * KEPT; i++)
		fds[i % 2][i / 2] = dial(SOCK_DGRAM, net->far[i % 2]);
	for (;;) {
		unsigned peer = (unsigned)random() % 2;
		int *fd = &fds[peer][random() % KEPT];

		if (*fd >= 0 && random() % 4 == 0) { /* to another peer and back, if still free */
			(void)try_connect(*fd, net->far[2], PORT);
			(void)try_connect(*fd, net->far[peer], PORT);
			continue;
		}
		if (*fd >= 0)
			close(*fd);
		*fd = dial(random() % 8 ? SOCK_DGRAM : SOCK_STREAM, net->far[peer]);
	}
}

static pid_t pids[CHURNERS];

static void start_churn(void)
{
	for (unsigned i = 0; i < CHURNERS; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			churn(i + 1);
		assert_true(pids[i] > 0);
	}
	for (int ms = 0; n_claims() < CHURNERS * 2 * KEPT * 9 / 10 && ms < DEADLINE_MS; ms++)
		poll(NULL, 0, 1);
}

static void end_churn(void)
{
	for (unsigned i = 0; i < CHURNERS; i++) {
		if (pids[i] <= 0)
			continue;
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
		pids[i] = 0;
	}
}

static int tear_down_churn(void **state)
{
	end_churn();
	return tear_down(state);
}

static void plant(struct ps_claim_key ret[PLANTED])
{
	for (unsigned i = 0; i < PLANTED; i++) {
		int fd = dial(SOCK_DGRAM, net->far[i % 2]);

		assert_true(fd >= 0);
		ret[i] = orphan(fd);
		close(fd);
	}
}

static void under_churn_all_leaks_are_repaired_and_nothing_that_lives(void **state)
{
	uint64_t given = counter(PS_EGRESS_RELEASE);
	struct ps_claim_key lost[PLANTED];
	struct freed freed;

	(void)state;
	start_churn();
	for (unsigned round = 0; round < ROUNDS; round++) {
		plant(lost);
		repair(&freed);
		for (unsigned i = 0; i < PLANTED; i++)
			assert_true(is_freed(&freed, &lost[i]));
		assert_int_equal(freed.n, PLANTED);
	}
	printf("%u repairs while %llu claims were given back\n", ROUNDS,
	       (unsigned long long)(counter(PS_EGRESS_RELEASE) - given));
	end_churn();
	wait_for_claims(0);
	assert_int_equal(repair(&freed).n_freed, 0);
}

/* Ports towards a peer of the kernel's own list of UDP sockets. */
struct dump {
	bool has[2][65536];
};

static void read_dump(struct dump *ret)
{
	struct ps_ip far[2] = {ip_of(net->far[0]), ip_of(net->far[1])};
	FILE *f = fopen("/proc/thread-self/net/udp", "re");
	unsigned port, remote;
	char line[256];

	assert_non_null(f);
	memset(ret, 0, sizeof(*ret));
	while (fgets(line, sizeof(line), f))
		for (unsigned i = 0; i < 2; i++)
			if (sscanf(line, " %*u: %*X:%X %X:", &port, &remote) == 2 &&
			    remote == ps_ip_v4_be(&far[i]))
				ret->has[i][port] = true;
	fclose(f);
}

/* The control: whatever a look at the sockets does not show is given back. */
static int free_unless_dumped(const struct ps_page *page, unsigned n_words, void *arg)
{
	const uint64_t *words = (const uint64_t *)(page + 1);
	struct ps_ip far = ip_of(net->far[0]);
	union ps_ip16 first = ps_ip16(&far);
	const struct dump *dump = arg;

	for (unsigned bit = 0; bit < n_words * 64; bit++) {
		struct ps_suspect suspect = {
			{ps_page_flow(page, bit), ps_state_gen(page->state)}, 1, 0};
		uint64_t id = ps_claim_id(suspect.grip.gen, bit);
		LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &id, .ctx_size_in = sizeof(id));

		if (suspect.grip.flow.protocol != IPPROTO_UDP || !(words[bit / 64] >> bit % 64 & 1))
			continue;
		if (dump->has[!ps_ip16_is_same(&suspect.grip.flow.dst, &first)]
			     [ntohs(suspect.grip.flow.sport)])
			continue;
		assert_int_equal(bpf_map_update_elem(bpf_map__fd(egress->hooks->maps.suspects), &id,
						     &suspect, BPF_ANY),
				 0);
		assert_int_equal(bpf_prog_test_run_opts(
					 bpf_program__fd(egress->hooks->progs.ps_free_leak), &opts),
				 0);
	}
	return 0;
}

static void the_naive_way_frees_live_claims_under_this_very_churn(void **state)
{
	static struct dump dump;

	(void)state;
	start_churn();
	for (unsigned i = 0; i < NAIVE_ROUNDS && !counter(PS_EGRESS_LEAK); i++) {
		read_dump(&dump);
		assert_int_equal(ps_egress_pages(lab.pins, free_unless_dumped, &dump), 0);
	}
	end_churn();
	assert_true(counter(PS_EGRESS_LEAK) > 0);
}

#define LARGE_OF(name, i, text) \
	{text, name, set_up_large, tear_down_churn, (void *)(uintptr_t)&nets[i]}
#define LARGE(name) LARGE_OF(name, 0, #name), LARGE_OF(name, 1, #name " (IPv6)")

int main(void)
{
	const struct CMUnitTest tests[] = {
		FACT(claims_of_every_kind_are_left_to_their_holders),
		FACT(claims_of_every_kind_are_given_back_when_nobody_holds_them),
		FACT(a_port_in_quarantine_is_held),
		FACT(a_connect_without_route_is_counted_apart),
		LARGE(under_churn_all_leaks_are_repaired_and_nothing_that_lives),
		LARGE_OF(the_naive_way_frees_live_claims_under_this_very_churn, 0,
			 "the_naive_way_frees_live_claims_under_this_very_churn"),
	};

	return RUN_FACTS(tests);
}

// SPDX-License-Identifier: MIT
/* A slice of 2,048 ports used by several processes at once: to the last port, and just below. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/own.h"
#include "egress-fixture.h"

enum {
	SHIFT = 11,
	SHARED = (1 << SHIFT) - PS_EXCLUSIVE_MAX,
	PROCESSES = 4,
	PEERS = 3,
	CHURNS = 4000,
	RACES = 3000,
	A_FEW = 8,
	FEW = SHARED * 97 / 100 / PROCESSES, /* of each process towards each peer: 97 % together */
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

/* Each process does its part when `go` is written, tells a number, and lives until `hold` closes. */
struct crew {
	int go[2], tell[2], hold[2];
	pid_t pids[PROCESSES];
};

static void crew_start(struct crew *crew, int (*work)(unsigned process))
{
	assert_int_equal(pipe(crew->go) | pipe(crew->tell) | pipe(crew->hold), 0);
	for (unsigned i = 0; i < PROCESSES; i++) {
		crew->pids[i] = fork();
		if (crew->pids[i] == 0) {
			char byte;
			int n;

			close(crew->go[1]);
			close(crew->hold[1]);
			(void)!read(crew->go[0], &byte, 1);
			n = work(i);
			(void)!write(crew->tell[1], &n, sizeof(n));
			(void)!read(crew->hold[0], &byte, 1);
			_exit(0);
		}
	}
	close(crew->go[1]);
}

static int crew_sum(const struct crew *crew)
{
	int sum = 0, n;

	for (unsigned i = 0; i < PROCESSES; i++) {
		assert_int_equal(read(crew->tell[0], &n, sizeof(n)), sizeof(n));
		sum += n;
	}
	return sum;
}

static void crew_end(struct crew *crew)
{
	close(crew->hold[1]);
	for (unsigned i = 0; i < PROCESSES; i++)
		waitpid(crew->pids[i], NULL, 0);
	close_all((int[]){crew->go[0], crew->tell[0], crew->tell[1], crew->hold[0]}, 4);
}

/* Connects towards each peer until refused; how many, or less than 0 after another error. */
static int take_all(unsigned process)
{
	int n = 0;

	for (unsigned i = 0; i < PEERS; i++) {
		unsigned peer = (process + i) % PEERS;
		int fd;

		while ((fd = dial(SOCK_DGRAM, net->far[peer])) >= 0)
			n++;
		if (fd != -EADDRNOTAVAIL)
			return -1000000;
	}
	return n;
}

/* Holds its share towards each peer, and gives back and takes at random; how many errors. */
static int churn(unsigned process)
{
	static int fds[PEERS][FEW];
	int errors = 0;

	srandom(process);
	for (unsigned i = 0; i < PEERS * FEW; i++)
		errors += (fds[i % PEERS][i / PEERS] = dial(SOCK_DGRAM, net->far[i % PEERS])) < 0;
	for (unsigned i = 0; i < CHURNS; i++) {
		int *fd = &fds[random() % PEERS][random() % FEW];
		unsigned peer = (unsigned)(fd - &fds[0][0]) / FEW;

		close(*fd);
		*fd = dial(SOCK_DGRAM, net->far[peer]);
		errors += *fd < 0;
	}
	return errors;
}

/* The kernel's own list of connected UDP sockets, against the ledger; how many there are. */
static unsigned compare_with_kernel(void)
{
	FILE *f = fopen("/proc/thread-self/net/udp", "re");
	struct end own = {.ip = slice(0)->address};
	char line[256];
	unsigned n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned local, port, remote, peer_port;
		struct ps_page_place place;
		struct ps_page_key key;
		struct ps_wide_page page;
		struct ps_claim_key flow = {.protocol = IPPROTO_UDP, .shift = SHIFT};

		if (sscanf(line, " %*u: %X:%X %X:%X", &local, &port, &remote, &peer_port) != 4 ||
		    local != ps_ip_v4_be(&own.ip))
			continue;
		flow.src = ps_ip16_v4(local);
		flow.dst = ps_ip16_v4(remote);
		flow.sport = htons((uint16_t)port);
		flow.dport = htons((uint16_t)peer_port);
		ps_place_port(&flow, &place);
		key = ps_page_key_of(&flow, place.base);
		assert_int_equal(bpf_map_lookup_elem(place.n_words == PS_WIDE_WORDS
							     ? ps_egress_wide_pages_fd(egress)
							     : ps_egress_pages_fd(egress),
						     &key, &page),
				 0);
		assert_true(page.words[place.bit / 64] >> place.bit % 64 & 1);
		n++;
	}
	fclose(f);
	return n;
}

static void four_processes_use_every_shared_port_towards_three_peers(void **state)
{
	struct crew crew;

	(void)state;
	crew_start(&crew, take_all);
	assert_int_equal(crew_sum(&crew), PEERS * SHARED);
	assert_int_equal(n_claims(), PEERS * SHARED);
	if (net->family == AF_INET)
		assert_int_equal(compare_with_kernel(), PEERS * SHARED);
	assert_int_equal(counter(PS_EGRESS_EXHAUSTED), PEERS * PROCESSES);
	assert_int_equal(counter(PS_EGRESS_WATERMARK_FULL), PEERS);
	crew_end(&crew);
	wait_for_claims(0);
}

static void just_below_full_nobody_is_refused(void **state)
{
	struct crew crew;

	(void)state;
	crew_start(&crew, churn);
	assert_int_equal(crew_sum(&crew), 0);
	assert_int_equal(n_claims(), PROCESSES * PEERS * FEW);
	if (net->family == AF_INET)
		assert_int_equal(compare_with_kernel(), PROCESSES * PEERS * FEW);
	assert_int_equal(counter(PS_EGRESS_EXHAUSTED) + counter(PS_EGRESS_BLOCKED), 0);
	crew_end(&crew);
	wait_for_claims(0);
}

static atomic_bool is_given;

/* One after the other, slower than they are asked for, so that it is full again in between. */
static void *give_back(void *fds)
{
	for (unsigned i = 0; i < A_FEW; i++) {
		for (unsigned n = random() % 8; n; n--)
			close(socket(AF_UNIX, SOCK_DGRAM, 0));
		close(((int *)fds)[i]);
	}
	atomic_store(&is_given, true);
	return NULL;
}

/* As many as were given back, whether the asking came too early or not. */
static void ask_again(int fds[A_FEW], pthread_t giver)
{
	int taken[A_FEW];
	unsigned n = 0;

	while (!atomic_load(&is_given) && n < A_FEW)
		n += (taken[n] = dial(SOCK_DGRAM, net->far[0])) >= 0;
	pthread_join(giver, NULL);
	for (; n < A_FEW; n++)
		assert_true((taken[n] = dial(SOCK_DGRAM, net->far[0])) >= 0);
	memcpy(fds, taken, sizeof(taken));
}

static void a_refusal_is_forgotten_as_soon_as_a_port_is_given_back(void **state)
{
	static int fds[SHARED];
	pthread_t giver;

	(void)state;
	for (unsigned i = 0; i < SHARED; i++)
		assert_true((fds[i] = dial(SOCK_DGRAM, net->far[0])) >= 0);
	for (unsigned i = 0; i < RACES; i++) {
		int *few = &fds[i * 7919 % (SHARED - A_FEW)];

		assert_int_equal(dial(SOCK_DGRAM, net->far[0]), -EADDRNOTAVAIL);
		atomic_store(&is_given, false);
		assert_int_equal(pthread_create(&giver, NULL, give_back, few), 0);
		ask_again(few, giver);
	}
	close_all(fds, SHARED);
	wait_for_claims(0);
}

static int add_page(const struct ps_page *page, unsigned n_words, void *arg)
{
	(void)page;
	((unsigned *)arg)[n_words == PS_WIDE_WORDS]++;
	return 0;
}

static void a_peer_has_one_narrow_page_until_that_is_full(void **state)
{
	unsigned n[2] = {0};
	int fds[257];

	(void)state;
	for (unsigned i = 0; i < 257; i++) {
		assert_true((fds[i] = dial(SOCK_DGRAM, net->far[0])) >= 0);
		if (i != 255)
			continue;
		assert_int_equal(ps_egress_pages(lab.pins, add_page, n), 0);
		assert_int_equal(n[0], 1);
		assert_int_equal(n[1], 0);
	}
	n[0] = n[1] = 0;
	assert_int_equal(ps_egress_pages(lab.pins, add_page, n), 0);
	assert_int_equal(n[0], 1);
	assert_int_equal(n[1], 1);
	close_all(fds, 257);
	wait_for_claims(0);
}

#define LARGE(name)                                                                         \
	{#name, name, set_up_large, tear_down, (void *)(uintptr_t)&nets[0]},                \
	{                                                                                   \
		#name " (IPv6)", name, set_up_large, tear_down, (void *)(uintptr_t)&nets[1] \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LARGE(four_processes_use_every_shared_port_towards_three_peers),
		LARGE(just_below_full_nobody_is_refused),
		LARGE(a_refusal_is_forgotten_as_soon_as_a_port_is_given_back),
		LARGE(a_peer_has_one_narrow_page_until_that_is_full),
	};

	return RUN_FACTS(tests);
}

// SPDX-License-Identifier: MIT
/* The ledger's protocol in the kernel: two processors claim and release, a third thread kills. */
#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/own.h"
#include "cm.h"
#include "egress/page-bits.h"
#include "ledger-stress.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual"
#include "ledger-stress.skel.h"
#pragma GCC diagnostic pop

/* On a busy machine the killer has its turn late: then users go on until it had. */
enum { N_ROUNDS = 20000, N_RUNS = 15, N_RUNS_MAX = 30 * N_RUNS, N_KILLS = 100 };

static struct ledger_stress_bpf *skel;
static atomic_bool over;

static int run(const struct bpf_program *program, struct stress_order order)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &order, .ctx_size_in = sizeof(order));

	return bpf_prog_test_run_opts(bpf_program__fd(program), &opts);
}

static bool is_over(unsigned n_runs)
{
	unsigned long long n_kills = *(volatile unsigned long long *)&skel->bss->sums.n_kills;

	return n_runs >= N_RUNS && (n_kills > N_KILLS || n_runs >= N_RUNS_MAX);
}

static void *user(void *arg)
{
	struct stress_order order = {(uint32_t)(uintptr_t)arg, N_ROUNDS};
	int r = 0;

	for (unsigned i = 0; !r && !is_over(i); i++)
		r = run(skel->progs.use, order);
	if (!r)
		r = run(skel->progs.end, order);
	return (void *)(intptr_t)r;
}

static void *killer(void *arg)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);
	int r = 0;

	(void)arg;
	while (!r && !atomic_load(&over))
		r = bpf_prog_test_run_opts(bpf_program__fd(skel->progs.kill), &opts);
	return (void *)(intptr_t)r;
}

static unsigned n_left(void)
{
	int fd = bpf_map__fd(skel->maps.pages);
	struct ps_page_key key, next;
	struct ps_narrow_page page;
	void *from = NULL;
	unsigned n = 0;

	while (bpf_map_get_next_key(fd, from, &next) == 0) {
		key = next;
		from = &key;
		if (bpf_map_lookup_elem(fd, &key, &page) < 0)
			continue;
		n += page.head.state & PS_STATE_PERMITS ||
		     (page.words[0] | page.words[1] | page.words[2] | page.words[3]);
	}
	return n;
}

static void stress(bool is_naive, const char *name)
{
	pthread_t users[STRESS_USERS], sweeper;
	void *r;

	skel = ledger_stress_bpf__open();
	assert_non_null(skel);
	skel->rodata->is_naive = is_naive;
	assert_int_equal(bpf_map__set_max_entries(skel->maps.pages, 32), 0);
	assert_int_equal(ledger_stress_bpf__load(skel), 0);
	over = false;
	assert_int_equal(pthread_create(&sweeper, NULL, killer, NULL), 0);
	for (uintptr_t i = 0; i < STRESS_USERS; i++)
		assert_int_equal(pthread_create(&users[i], NULL, user, (void *)i), 0);
	for (size_t i = 0; i < STRESS_USERS; i++) {
		pthread_join(users[i], &r);
		assert_null(r);
	}
	atomic_store(&over, true);
	pthread_join(sweeper, &r);
	assert_null(r);
	printf("%s: %llu claims, %llu kills, %llu full, %llu gave up, %llu doubles, %llu lost, "
	       "%u pages with something left\n",
	       name, skel->bss->sums.n_claims, skel->bss->sums.n_kills, skel->bss->sums.n_full,
	       skel->bss->sums.n_gave_up, skel->bss->sums.n_doubles, skel->bss->sums.n_lost,
	       n_left());
}

static void no_port_is_given_twice_and_none_is_lost(void **state)
{
	(void)state;
	stress(false, "ledger");
	assert_true(skel->bss->sums.n_claims > N_ROUNDS);
	assert_true(skel->bss->sums.n_kills > N_KILLS);
	assert_true(skel->bss->sums.n_full > 0);
	assert_int_equal(skel->bss->sums.n_doubles, 0);
	assert_int_equal(skel->bss->sums.n_lost, 0);
	assert_int_equal(n_left(), 0);
	ledger_stress_bpf__destroy(skel);
}

static void the_naive_way_fails_this_very_test(void **state)
{
	(void)state;
	stress(true, "naive");
	assert_true(skel->bss->sums.n_doubles + skel->bss->sums.n_lost + n_left() > 0);
	ledger_stress_bpf__destroy(skel);
}

int main(void)
{
	const struct bpf_insn pass[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	ps_auto_fd int fd =
		bpf_prog_load(BPF_PROG_TYPE_SYSCALL, "probe", "GPL", pass, 2,
			      &(struct bpf_prog_load_opts){.sz = sizeof(struct bpf_prog_load_opts),
							   .prog_flags = BPF_F_SLEEPABLE});
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_port_is_given_twice_and_none_is_lost),
		cmocka_unit_test(the_naive_way_fails_this_very_test),
	};

	if (fd < 0) {
		puts("skip: this process may not load BPF programs");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

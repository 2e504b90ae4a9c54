// SPDX-License-Identifier: MIT
/*
 * bench-dispatch: what the return path costs, against a no-op and a floor, in one interleaved run.
 *
 *   worlds (world.c)      tables of 1 to 1,048,576 addresses, built by ps_table, loaded by the product
 *   programs (bench.bpf.c) the product's text and its stages, a no-op, a floor; on the same maps
 *   rows (below)          a program, a world, a range of packets, the verdict each must get
 *   timing (measure.c)    rows take turns; batches of 4,096 packets, timed inside BPF
 *   live (live.c)         frames over a veth pair, through the attached dispatcher
 *
 * All figures of the cycle table are times of the loop: they contain the harness (the no-op row) and,
 * for what encapsulates, bpf_xdp_adjust_head() once by the program and once by the harness.
 * A run fails when any packet gets another verdict than its row says, when the product's own
 * counters disagree, when floor and dispatcher do not send the same bytes, or when a live frame is
 * lost.  Everything happens in mount and network namespaces of this process and ends with it.
 *
 * Where the kernel puts a program's code is worth up to 5 ns, so everything is loaded LOADS times.
 *
 * The last line of stdout is JSON.  Ratios are of the smallest batches (of medians: live).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include <bpf/bpf.h>

#include "base/own.h"
#include "claims.h"
#include "live.h"
#include "measure.h"
#include "packet.h"

enum { ROUNDS = 20, LOADS = 4, LOOPBACK = 1, SSH = 22 };

/* The pins of a run; on a bpffs that only this process sees. */
#define BPFFS "/sys/fs/bpf"

static const unsigned sizes[] = {1, 16, 256, 4096, 65536, 1048576};
enum { MAIN_WORLD = 4, WORLD6 = PS_N_ELEMENTS(sizes), N_WORLDS };

enum row_id {
	ROW_NOOP,
	ROW_PARSE,
	ROW_DECIDE,
	ROW_UNCOUNT,
	ROW_HOT,
	ROW_FLOOR,
	ROW_DECIDE_RANDOM,
	ROW_DELIVER,
	ROW_OUTSIDE,
	ROW_SSH,
	ROW_HOT6,
	ROW_RANDOM6,
	ROW_GROWTH,
	N_ROWS = ROW_GROWTH + WORLD6
};
enum { ROW_RANDOM = ROW_GROWTH + MAIN_WORLD };

/* Namespaces that go with the process, one CPU. */
static int isolate(void)
{
	cpu_set_t cpus;

	if (unshare(CLONE_NEWNS | CLONE_NEWNET) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("bpf", BPFFS, "bpf", 0, NULL) < 0)
		return -errno;
	CPU_ZERO(&cpus);
	CPU_SET(sched_getcpu(), &cpus);
	return sched_setaffinity(0, sizeof(cpus), &cpus) < 0 ? -errno : 0;
}

/* The ledger, with the one conversation that ROW_DELIVER belongs to. */
static int make_claims(struct claims *ret)
{
	struct ps_claim_key flow = {.src = ps_ip16_v4(htonl(WORLD_OWN)),
				    .dst = ps_ip16_v4(htonl(PEER)),
				    .sport = htons(OWN_SLICE << SHIFT),
				    .dport = htons(443),
				    .protocol = TCP,
				    .shift = SHIFT};
	int r = claims_open(ret);

	return r < 0 ? r : claims_add(ret, &flow);
}

static void list_stages(const struct world *world, struct row rows[N_ROWS])
{
	const struct bench_bpf *skel = world->skel;
	struct ps_bench_job hot = job_v4(WORLD_FIRST, 1, 1 << SHIFT, 1, XDP_TX), pass = hot;
	struct ps_bench_job random =
		job_v4(WORLD_FIRST, world->n_addresses, 1 << SHIFT, 65536 - (1 << SHIFT), XDP_PASS);

	pass.action = XDP_PASS;
	rows[ROW_NOOP] = (struct row){"no-op", world, skel->progs.run_noop, pass, -1};
	rows[ROW_PARSE] = (struct row){"parse", world, skel->progs.run_parse, pass, -1};
	rows[ROW_DECIDE] = (struct row){"parse, look-up", world, skel->progs.run_decide, pass, -1};
	rows[ROW_UNCOUNT] = (struct row){"parse, look-up, encapsulate", world,
					 skel->progs.run_uncount, hot, -1};
	rows[ROW_HOT] = (struct row){"dispatcher: to another host, hot", world,
				     skel->progs.run_full, hot, PS_REASON_TO_HOST};
	rows[ROW_FLOOR] =
		(struct row){"floor: parse, encapsulate", world, skel->progs.run_floor, hot, -1};
	rows[ROW_DECIDE_RANDOM] = (struct row){"parse, look-up, 65536 at random", world,
					       skel->progs.run_decide, random, -1};
}

static void list_others(const struct world *world, struct row rows[N_ROWS])
{
	const struct bpf_program *full = world->skel->progs.run_full;

	rows[ROW_DELIVER] = (struct row){"dispatcher: expected here", world, full,
					 job_v4(WORLD_OWN, 1, OWN_SLICE << SHIFT, 1, XDP_PASS),
					 PS_REASON_DELIVER};
	rows[ROW_OUTSIDE] =
		(struct row){"dispatcher: not shared", world, full,
			     job_v4(IP4(60, 0, 0, 1), 1, 443, 1, XDP_PASS), PS_REASON_NOT_OURS};
	rows[ROW_SSH] =
		(struct row){"dispatcher: SSH to this host", world, full,
			     job_v4(WORLD_UNDERLAY, 1, SSH, 1, XDP_PASS), PS_REASON_NOT_OURS};
}

static void list_v6(const struct world *world, struct row rows[N_ROWS])
{
	const struct bpf_program *full = world->skel->progs.run_full;

	rows[ROW_HOT6] = (struct row){"dispatcher: IPv6, hot", world, full,
				      job_v6(0, 1, 1 << SHIFT, 1), PS_REASON_TO_HOST};
	rows[ROW_RANDOM6] = (struct row){
		"dispatcher: IPv6, 65536 at random", world, full,
		job_v6(0, world->n_addresses, 1 << SHIFT, 65536 - (1 << SHIFT)), PS_REASON_TO_HOST};
}

static void list_growth(const struct world worlds[N_WORLDS], struct row rows[N_ROWS])
{
	for (unsigned i = 0; i < WORLD6; i++)
		rows[ROW_GROWTH + i] = (struct row){
			"dispatcher: random", &worlds[i], worlds[i].skel->progs.run_full,
			job_v4(WORLD_FIRST, sizes[i], 1 << SHIFT, 65536 - (1 << SHIFT), XDP_TX),
			PS_REASON_TO_HOST};
}

static void print_rows(const struct row rows[N_ROWS])
{
	const struct row *noop = &rows[ROW_NOOP], *floor = &rows[ROW_FLOOR];

	printf("\n%-36s %8s %8s %10s %9s\n", "ns a packet, loop time", "min", "median", "min-no-op",
	       "min/floor");
	for (unsigned i = 0; i < ROW_GROWTH; i++)
		printf("%-36s %8.1f %8.1f %10.1f %9.2f\n", rows[i].name, rows[i].min_ns,
		       rows[i].median_ns, rows[i].min_ns - noop->min_ns,
		       rows[i].min_ns / floor->min_ns);
}

static void print_growth(const struct world worlds[N_WORLDS], const struct row rows[N_ROWS])
{
	printf("\n%-36s %8s %8s %10s %14s\n", "random address and port", "min", "median", "min/hot",
	       "bytes");
	for (unsigned i = 0; i < WORLD6; i++) {
		const struct row *row = &rows[ROW_GROWTH + i];

		printf("%9u addresses %17s %8.1f %8.1f %10.2f %14zu\n", sizes[i], "", row->min_ns,
		       row->median_ns, row->min_ns / rows[ROW_HOT].min_ns,
		       world_bytes(&worlds[i], true));
	}
}

static void print_stages(const struct row rows[N_ROWS])
{
	static const char *const stages[] = {"harness", "parse", "look-up", "encapsulation",
					     "counter"};

	printf("\nstages, ns (difference of minima):");
	for (unsigned i = 0; i < PS_N_ELEMENTS(stages); i++)
		printf(" %s %.1f%c", stages[i], rows[i].min_ns - (i ? rows[i - 1].min_ns : 0),
		       i < 4 ? ',' : '\n');
}

static void print_live(const struct live_result *live)
{
	printf("\n%-36s %8s %8s %8s\n", "live on veth, Mpps", "median", "min", "max");
	for (unsigned i = 0; i < N_LIVE_PATHS; i++)
		printf("%-36s %8.3f %8.3f %8.3f\n", live_name(i), live->median_mpps[i],
		       live->mpps[i][0], live->mpps[i][LIVE_ALTERNATIONS - 1]);
}

static void print_json(const struct row rows[N_ROWS], const struct live_result *live,
		       size_t bytes_64k)
{
	const struct row *pass = rows[ROW_SSH].min_ns > rows[ROW_OUTSIDE].min_ns
					 ? &rows[ROW_SSH]
					 : &rows[ROW_OUTSIDE];
	double ours = live->median_mpps[LIVE_DISPATCH];

	printf("{\"hot_vs_floor\":%.3f,\"random64k_vs_hot\":%.3f,\"random64k_v6_vs_hot\":%.3f,"
	       "\"pass_minus_noop_ns\":%.1f,\"live_vs_tx\":%.3f,\"live_vs_forward\":%.3f,"
	       "\"bytes_64k\":%zu}\n",
	       rows[ROW_HOT].min_ns / rows[ROW_FLOOR].min_ns,
	       rows[ROW_RANDOM].min_ns / rows[ROW_HOT].min_ns,
	       rows[ROW_RANDOM6].min_ns / rows[ROW_HOT6].min_ns,
	       pass->min_ns - rows[ROW_NOOP].min_ns, ours / live->median_mpps[LIVE_TX],
	       ours / live->median_mpps[LIVE_FORWARD], bytes_64k);
}

static int open_worlds(const struct claims *claims, struct world ret[N_WORLDS])
{
	int r = 0;

	for (unsigned i = 0; r >= 0 && i < N_WORLDS; i++) {
		struct world_options options = {.pin_dir = BPFFS,
						.claims = *claims,
						.n_addresses = sizes[i == WORLD6 ? MAIN_WORLD : i],
						.is_v6 = i == WORLD6,
						.ifindex = LOOPBACK};

		fprintf(stderr, "\rbench: table of %u addresses ", options.n_addresses);
		r = world_open(&options, &ret[i]);
	}
	fputc('\n', stderr);
	return r;
}

static void close_worlds(struct world worlds[N_WORLDS])
{
	for (unsigned i = 0; i < N_WORLDS; i++)
		world_close(&worlds[i]);
}

/* Loads everything anew: the rows' next rounds run in these worlds. */
static int load(const struct claims *claims, struct world worlds[N_WORLDS], struct row rows[N_ROWS])
{
	struct row fresh[N_ROWS];
	int r;

	close_worlds(worlds);
	r = open_worlds(claims, worlds);
	if (r < 0)
		return r;
	list_stages(&worlds[MAIN_WORLD], fresh);
	list_others(&worlds[MAIN_WORLD], fresh);
	list_v6(&worlds[WORLD6], fresh);
	list_growth(worlds, fresh);
	for (unsigned i = 0; i < N_ROWS; i++) {
		fresh[i].batch_ns = rows[i].batch_ns;
		fresh[i].n_batches = rows[i].n_batches;
		fresh[i].room = rows[i].room;
		rows[i] = fresh[i];
	}
	return compare_with_floor(&worlds[MAIN_WORLD], &rows[ROW_HOT].job);
}

static int run_rows(unsigned rounds, const struct claims *claims, struct world worlds[N_WORLDS],
		    struct row rows[N_ROWS])
{
	int r = rows_init(rows, N_ROWS, rounds);

	for (unsigned i = 0; r >= 0 && i < LOADS; i++) {
		r = load(claims, worlds, rows);
		if (r >= 0)
			r = measure(rows, N_ROWS, i * rounds / LOADS, (i + 1) * rounds / LOADS,
				    BPFFS);
	}
	fputc('\n', stderr);
	if (r >= 0)
		rows_finish(rows, N_ROWS);
	return r;
}

static int bench(unsigned rounds, const struct claims *claims, struct world worlds[N_WORLDS],
		 struct row rows[N_ROWS])
{
	const struct world *world = &worlds[MAIN_WORLD];
	struct live_result live;
	int r = run_rows(rounds, claims, worlds, rows);

	if (r < 0)
		return r;
	print_rows(rows);
	print_stages(rows);
	print_growth(worlds, rows);
	printf("\nmemory of the table of %u addresses:\n", world->n_addresses);
	world_bytes(world, false);
	r = live_measure(world, BPFFS, &live);
	if (r < 0)
		return r;
	print_live(&live);
	print_json(rows, &live, world_bytes(world, true));
	return 0;
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : ROUNDS;
	struct world worlds[N_WORLDS] = {0};
	struct row rows[N_ROWS] = {0};
	ps_auto(claims_close) struct claims claims = {-1, -1};
	int r = rounds ? isolate() : -EINVAL;

	if (r >= 0)
		r = make_claims(&claims);
	if (r >= 0)
		r = bench(rounds, &claims, worlds, rows);
	for (unsigned i = 0; i < N_ROWS; i++)
		row_clear(&rows[i]);
	close_worlds(worlds);
	if (r < 0)
		fprintf(stderr, "bench: %s\n", strerror(-r));
	return r < 0;
}

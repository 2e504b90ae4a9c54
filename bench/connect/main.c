// SPDX-License-Identifier: MIT
/*
 * bench-connect: what the outgoing path costs a program, against plain connect(), in one interleaved
 * run; and whether it is exact under load.
 *
 *   world (world.c)     two namespaces, a listener, cgroups; the product's hooks by its own loader
 *   crew (crew.c, worker.c)  four processes that open connections when told to
 *   measure.c           pairs, fill, faults
 *   record (record.c, bench.bpf.c)  claim and release alone, the product's claim.h inside BPF
 *
 * Times are of the system call, non-blocking, to a peer that completes the handshake: the whole way
 * through both stacks, as a program pays it.  "Plain" is a process that meets no hook and whose port
 * the kernel chooses, from an ip_local_port_range as large as fourteen slices.
 *
 * A run fails when connections are refused that must not be, or the other way round, at one worker;
 * what four workers at once meet is counted instead.  A parent process holds the cgroups and removes
 * them whatever happens to the run; all else ends with the run.
 *
 * The last line of stdout is JSON.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/own.h"
#include "measure.h"
#include "record.h"

enum { ROUNDS = 12, PAIRS_A_ROUND = 5, LARGE_ROUNDS = 2, RECORD_ROUNDS = 9 };

enum { FILL_SMALL, FILL_LARGE, FILL_KERNEL, N_FILLS };

struct results {
	struct pairs pairs;
	struct fill fills[N_FILLS];
	struct faults faults;
	struct record_result record;
};

static void print_pairs(struct pairs *pairs)
{
	struct {
		const char *name;
		struct times *times;
	} rows[] = {{"plain: no hook, kernel's choice", &pairs->plain},
		    {"below the hooks, of no class", &pairs->outside},
		    {"of a class", &pairs->classed}};
	double plain_us = times_percentile_us(&pairs->plain, 50);

	printf("\n%-34s %8s %8s %8s %8s\n", "connect() and close(), us", "p10", "p50", "p90",
	       "p50/plain");
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++)
		printf("%-34s %8.1f %8.1f %8.1f %8.2f\n", rows[i].name,
		       times_percentile_us(rows[i].times, 10),
		       times_percentile_us(rows[i].times, 50),
		       times_percentile_us(rows[i].times, 90),
		       times_percentile_us(rows[i].times, 50) / plain_us);
}

static void print_fill(struct fill *fill)
{
	printf("%-24s", fill->name);
	for (unsigned i = 0; i < N_PARTS; i++)
		printf(" %7.1f/%-8.1f", times_percentile_us(&fill->parts[i], 50),
		       times_percentile_us(&fill->parts[i], 99));
	printf(" %u of %u\n", fill->n_used, fill->n_ports);
}

static double ratio(struct fill *fill, enum part part)
{
	return times_percentile_us(&fill->parts[part], 50) /
	       times_percentile_us(&fill->parts[PART_LOW], 50);
}

static void print_tables(struct results *results)
{
	print_pairs(&results->pairs);
	printf("\n%-24s %-16s %-16s %-16s %-16s %-16s %s\n", "connect(), us, p50/p99", "   0-50 %",
	       "  50-90 %", "  90-99 %", " 99-100 %", "   full", "ports used");
	for (unsigned i = 0; i < N_FILLS; i++)
		print_fill(&results->fills[i]);
	printf("\nfour processes, three destinations: %u connects at 95 to 99 %%, %u refused, "
	       "%llu leaked, %u duplicates (%u were reset by the peer)\n",
	       results->faults.n_connects, results->faults.spurious,
	       (unsigned long long)results->faults.leaked, results->faults.duplicates,
	       results->faults.n_died);
	printf("claim and release in BPF, ns: one destination %.0f, %u at random %.0f "
	       "(loop %.0f, subtracted)\n",
	       results->record.hot_ns, RECORD_SINKS, results->record.random_ns,
	       results->record.loop_ns);
}

static void print_json(struct results *results)
{
	double small = ratio(&results->fills[FILL_SMALL], PART_FULL);
	double large = ratio(&results->fills[FILL_LARGE], PART_FULL);

	printf("{\"overhead_low\":%.3f,\"p50_full_vs_empty_2048\":%.3f,"
	       "\"p50_full_vs_empty_28672\":%.3f,\"refuse_vs_empty\":%.3f,"
	       "\"kernel_p50_full_vs_empty_28k\":%.1f,\"spurious\":%u,\"leaked\":%llu,"
	       "\"duplicates\":%u,\"claim_ns_hot\":%.0f,\"claim_ns_64k\":%.0f}\n",
	       times_percentile_us(&results->pairs.classed, 50) /
		       times_percentile_us(&results->pairs.plain, 50),
	       ratio(&results->fills[FILL_SMALL], PART_LAST),
	       ratio(&results->fills[FILL_LARGE], PART_LAST), small > large ? small : large,
	       ratio(&results->fills[FILL_KERNEL], PART_LAST), results->faults.spurious,
	       (unsigned long long)results->faults.leaked, results->faults.duplicates,
	       results->record.hot_ns, results->record.random_ns);
}

static int check_used(const struct fill *fill)
{
	if (fill->place == PLACE_PLAIN || fill->n_used == fill->n_ports)
		return 0;
	fprintf(stderr, "bench: %s: refused when %u of %u ports were used\n", fill->name,
		fill->n_used, fill->n_ports);
	return -EBADMSG;
}

static int run_fill(const struct crew *crew, const struct world *world, struct fill *fill,
		    struct faults *faults)
{
	int r;

	fprintf(stderr, "\rbench: fill, %-30s", fill->name);
	r = measure_fill(crew, world, fill, faults);
	return r < 0 ? r : check_used(fill);
}

static int run_rounds(const struct crew *crew, const struct world *world, unsigned rounds,
		      struct results *results)
{
	struct faults *faults = &results->faults;
	int r = 0;

	for (unsigned i = 0; r >= 0 && i < rounds; i++) {
		r = measure_pairs(crew, world, PAIRS_A_ROUND, &results->pairs);
		if (r >= 0)
			r = run_fill(crew, world, &results->fills[FILL_SMALL], faults);
		if (r >= 0 && i < LARGE_ROUNDS)
			r = run_fill(crew, world, &results->fills[FILL_LARGE], faults);
		/* Half a minute: one pass must do. */
		if (r >= 0 && i == 0)
			r = run_fill(crew, world, &results->fills[FILL_KERNEL], faults);
	}
	return r;
}

static int bench(const struct cgroups *cgroups, unsigned rounds, struct results *results)
{
	struct world world;
	struct crew crew;
	int r = world_open(cgroups, &world);

	if (r < 0)
		return r;
	r = crew_open(cgroups, &crew);
	if (r >= 0) {
		r = run_rounds(&crew, &world, rounds, results);
		fprintf(stderr, "\rbench: four processes at once, then the record alone\n");
		if (r >= 0)
			r = measure_faults(&crew, &world, results->fills[FILL_SMALL].n_used,
					   &results->faults);
		crew_close(&crew);
	}
	if (r >= 0)
		r = record_measure(RECORD_ROUNDS, &results->record);
	world_close(&world);
	return r;
}

static int run(const struct cgroups *cgroups, unsigned rounds)
{
	struct results results = {
		.fills = {
			{.name = "one slice", .place = PLACE_SMALL, .n_ports = SMALL_SHARED},
			{.name = "fourteen slices", .place = PLACE_LARGE, .n_ports = LARGE_SHARED},
			{.name = "kernel's choice", .place = PLACE_PLAIN, .n_ports = LARGE_PORTS}}};
	int r = bench(cgroups, rounds, &results);

	if (r >= 0) {
		print_tables(&results);
		print_json(&results);
	}
	pairs_clear(&results.pairs);
	for (unsigned i = 0; i < N_FILLS; i++)
		fill_clear(&results.fills[i]);
	if (r < 0)
		fprintf(stderr, "bench: %s\n", strerror(-r));
	return r < 0;
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : ROUNDS;
	struct cgroups cgroups = {0};
	pid_t parent = getpid(), child;
	int status = 1, r = rounds ? cgroups_make(&cgroups) : -EINVAL;

	if (r < 0) {
		fprintf(stderr, "bench: cgroups: %s\n", strerror(-r));
		cgroups_remove(&cgroups);
		return 1;
	}
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		return getppid() != parent || run(&cgroups, rounds);
	}
	/* The run ends by a signal; what it leaves is still ours to remove. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	if (child > 0)
		waitpid(child, &status, 0);
	cgroups_remove(&cgroups);
	return !WIFEXITED(status) || WEXITSTATUS(status);
}

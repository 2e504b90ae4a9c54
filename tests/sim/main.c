// SPDX-License-Identifier: MIT
/*
 * lease-sim [--seeds N] [--first N] [--sites N] [--hosts N] [--seconds N] [--mutants] [--story]
 *
 * Runs seeds one after another and says what was injected and measured.  The first broken invariant
 * ends it: the seed is printed with the story that led there.  --mutants leaves out one guard of the
 * core after another and fails when a mutant survives its seeds.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

int ps_mutant;

struct order {
	struct world_options options;
	uint64_t first, n_seeds;
	bool is_mutants, is_story;
};

static const char *const faults[] = {
#define FAULT_TEXT(name, text) text,
	FAULTS(FAULT_TEXT)
#undef FAULT_TEXT
};

static const char *const guards[] = {"",
#define GUARD_TEXT(name, label, text) label ": " text,
				     PS_LEASE_GUARDS(GUARD_TEXT)
#undef GUARD_TEXT
};

static void add(struct stats *sum, struct stats *part)
{
	uint64_t *to = (uint64_t *)sum;
	size_t n = sum->n_waits + part->n_waits;

	sum->waits_ns = realloc(sum->waits_ns, (n + 1) * sizeof(*sum->waits_ns));
	memcpy(sum->waits_ns + sum->n_waits, part->waits_ns ? part->waits_ns : sum->waits_ns,
	       (part->waits_ns ? part->n_waits : 0) * sizeof(*sum->waits_ns));
	sum->n_waits = n;
	for (size_t i = 0; i < offsetof(struct stats, waits_ns) / sizeof(*to); i++)
		to[i] += ((const uint64_t *)part)[i];
	sum->sampled += part->sampled;
	sum->used_slots += part->used_slots;
	sum->all_slots += part->all_slots;
	sum->short_of += part->short_of;
}

static int cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void print_waits(struct stats *stats)
{
	if (!stats->n_waits)
		return;
	qsort(stats->waits_ns, stats->n_waits, sizeof(*stats->waits_ns), cmp);
	printf("from watermark to use, a slice being free: p50 %.0f ms, p90 %.0f ms, p99 %.1f s (%zu)\n",
	       (double)stats->waits_ns[stats->n_waits / 2] / 1e6,
	       (double)stats->waits_ns[stats->n_waits * 9 / 10] / 1e6,
	       (double)stats->waits_ns[stats->n_waits * 99 / 100] / 1e9, stats->n_waits);
}

static void print_stats(struct stats *stats, uint64_t n_seeds)
{
	printf("faults injected:\n");
	for (size_t i = 0; i < FAULT_MAX; i++)
		printf("  %8llu  %s\n", (unsigned long long)stats->faults[i], faults[i]);
	printf("%llu seeds, %llu events (%llu a seed), %llu steps of the core\n",
	       (unsigned long long)n_seeds, (unsigned long long)stats->n_events,
	       (unsigned long long)(stats->n_events / n_seeds), (unsigned long long)stats->n_steps);
	printf("store: %llu transactions, %llu refused by a compare, %llu records written\n",
	       (unsigned long long)stats->n_txns, (unsigned long long)stats->n_stale,
	       (unsigned long long)stats->n_writes);
	printf("slices: %llu granted, %llu given back, %llu times reclaimed; %llu evictions, %llu moves between sites\n",
	       (unsigned long long)stats->n_grants, (unsigned long long)stats->n_gives,
	       (unsigned long long)stats->n_reclaims, (unsigned long long)stats->n_evictions,
	       (unsigned long long)stats->n_site_moves);
	printf("utilisation: %.0f %% of all slices held; %.2f %% of host-seconds short of ports in an empty pool\n",
	       100.0 * (double)stats->used_slots / (double)(stats->all_slots + 1),
	       100.0 * (double)stats->short_of / (double)(stats->sampled * POOLS + 1));
	print_waits(stats);
}

static bool run(const struct order *order, uint64_t seed, bool is_told, struct stats *sum)
{
	struct world_options options = order->options;
	struct world *world;
	bool held;

	options.is_told = is_told;
	world = world_new(seed, &options);
	held = world_run(world);
	if (is_told) {
		printf("seed %llu:\n", (unsigned long long)seed);
		world_print_story(world, 120);
	}
	if (sum)
		add(sum, &world->stats);
	world_free(world);
	return held;
}

static int run_seeds(const struct order *order)
{
	struct stats sum = {0};

	for (uint64_t seed = order->first; seed < order->first + order->n_seeds; seed++) {
		if (run(order, seed, order->is_story, &sum))
			continue;
		(void)run(order, seed, true, NULL);
		free(sum.waits_ns);
		return 1;
	}
	print_stats(&sum, order->n_seeds);
	free(sum.waits_ns);
	return 0;
}

static bool is_caught(const struct order *order, uint64_t *ret_seed)
{
	for (*ret_seed = order->first; *ret_seed < order->first + order->n_seeds; ++*ret_seed)
		if (!run(order, *ret_seed, false, NULL))
			return true;
	return false;
}

static int run_mutants(const struct order *order)
{
	int n_survived = 0;

	for (ps_mutant = 1; ps_mutant < PS_LEASE_GUARD_MAX; ps_mutant++) {
		uint64_t seed;

		if (is_caught(order, &seed)) {
			printf("caught by seed %4llu: without %s\n", (unsigned long long)seed,
			       guards[ps_mutant]);
			if (order->is_story)
				(void)run(order, seed, true, NULL);
			continue;
		}
		n_survived++;
		printf("SURVIVED: without %s\n", guards[ps_mutant]);
	}
	return n_survived ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seeds", required_argument, NULL, 'n'},   {"first", required_argument, NULL, 'f'},
		{"sites", required_argument, NULL, 's'},   {"hosts", required_argument, NULL, 'h'},
		{"seconds", required_argument, NULL, 't'}, {"mutants", no_argument, NULL, 'm'},
		{"story", no_argument, NULL, 'v'},         {"mutant", required_argument, NULL, 'M'},
		{"faults", required_argument, NULL, 'F'},  {0},
	};
	struct order order = {.options = {2, 25, 6, 0, 0, 60, false}, .first = 1, .n_seeds = 10};
	uint64_t seconds = 40;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		uint64_t value = optarg ? strtoull(optarg, NULL, 10) : 0;

		if (c == 'n')
			order.n_seeds = value;
		else if (c == 'f')
			order.first = value;
		else if (c == 's')
			order.options.n_sites = (unsigned)value;
		else if (c == 'h')
			order.options.hosts_per_site = (unsigned)value;
		else if (c == 't')
			seconds = value;
		else if (c == 'F')
			order.options.faults_per_minute = (unsigned)value;
		else if (c == 'M')
			ps_mutant = (int)value;
		else if (c == 'm')
			order.is_mutants = true;
		else if (c == 'v')
			order.is_story = true;
		else
			return 2;
	}
	order.options.faults_until = seconds * S;
	order.options.end = order.options.faults_until + 80 * S;
	return order.is_mutants ? run_mutants(&order) : run_seeds(&order);
}

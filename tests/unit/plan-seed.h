/* SPDX-License-Identifier: MIT */
/* Plans made from a seed: each element depends on the seed and its number only, so that the same
 * seed with larger counts gives the same plan with more in it. */
#ifndef PS_TESTS_PLAN_SEED_H
#define PS_TESTS_PLAN_SEED_H

#include "plan-text.h"

static inline unsigned seed_hash(unsigned seed, unsigned what, unsigned i)
{
	uint64_t x = ((uint64_t)seed << 32 | what << 16 | i) + UINT64_C(0x9e3779b97f4a7c15);

	/* splitmix64 */
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return (unsigned)(x ^ x >> 31);
}

struct seed_size {
	unsigned sites, hosts, pools;
	bool services;
};

static inline unsigned seed_site(unsigned seed, struct seed_size size, unsigned host)
{
	return seed_hash(seed, 1, host) % size.sites;
}

static inline bool seed_pool_at(unsigned seed, unsigned pool, unsigned site)
{
	return seed_hash(seed, 2, pool * 100 + site) % 4 != 0;
}

static inline void seed_pool(FILE *f, unsigned seed, struct seed_size size, unsigned pool)
{
	static const char *const sizes[] = {"128", "1024", "2048", "8192", "16384", "whole"};
	unsigned which = seed_hash(seed, 3, pool) % PS_N_ELEMENTS(sizes);

	(void)fprintf(f, "  p%u:\n    slice: %s\n    tags: { n: p%u }\n    addresses:\n", pool,
		      sizes[which], pool);
	for (unsigned site = 0; site < size.sites; site++) {
		if (seed_pool_at(seed, pool, site) || site == 0)
			(void)fprintf(f, "      - { prefix: 100.%u.%u.%u/26, site: s%u }\n",
				      64 + pool, site, seed_hash(seed, 4, pool) % 4 * 64, site);
	}
}

/* One service for each of some hosts, on a slice size that is safe for every pool. */
static inline void seed_services(FILE *f, unsigned seed, struct seed_size size)
{
	(void)fputs("services:\n", f);
	for (unsigned host = 0; host < size.hosts; host += 3) {
		if (seed_site(seed, size, host) == 0)
			(void)fprintf(f,
				      "  - { name: v%u, address: 100.64.0.%u, port: %u, protocol: "
				      "udp, host: h%u }\n",
				      host, seed_hash(seed, 4, 0) % 4 * 64 + 1 + host,
				      16384 + seed_hash(seed, 5, host) % 49152, host);
	}
}

/* Text to be freed. */
static inline char *seed_text(unsigned seed, struct seed_size size)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	(void)fputs("version: 1\nsites:\n", f);
	for (unsigned i = 0; i < size.sites; i++)
		(void)fprintf(f, "  s%u: { edge: 10.255.0.%u }\n", i, i + 1);
	(void)fputs("hosts:\n", f);
	for (unsigned i = 0; i < size.hosts; i++)
		(void)fprintf(f, "  h%u: { site: s%u, underlay: 10.1.0.%u, uplinks: [e0] }\n", i,
			      seed_site(seed, size, i), i + 1);
	(void)fputs("pools:\n", f);
	for (unsigned i = 0; i < size.pools; i++)
		seed_pool(f, seed, size, i);
	if (size.services)
		seed_services(f, seed, size);
	assert_int_equal(fclose(f), 0);
	return text;
}

static inline struct ps_plan *seed_dealt(unsigned seed, struct seed_size size)
{
	ps_auto_mem char *text = seed_text(seed, size);
	struct ps_plan *plan = plan_undealt(text);
	size_t n;

	assert_int_equal(ps_plan_deal(plan, &n), 0);
	assert_int_equal(n, plan->n_grants);
	return plan;
}

#endif

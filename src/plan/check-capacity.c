// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plan/check.h"

/* One slice that is held, or will be because a service lies in it. */
struct claim {
	unsigned pool, site, host, slice;
	struct ps_ip address;
};

/* What one pool has at one site, in slices, and who is without, in hosts. */
struct supply {
	uint64_t slices, taken;
	size_t holders;
};

static int claim_order(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int r;

	if (x->pool != y->pool)
		return x->pool < y->pool ? -1 : 1;
	r = ps_ip_cmp(&x->address, &y->address);
	return r ? r : (x->slice > y->slice) - (x->slice < y->slice);
}

static bool service_claim(const struct ps_check *c, const struct ps_service *service,
			  struct claim *ret)
{
	const struct ps_plan *plan = c->plan;
	struct ps_place place;

	if (service->host == PS_NOWHERE || ps_plan_locate(plan, &service->address, &place) < 0 ||
	    plan->hosts[service->host].site != place.site)
		return false;
	*ret = (struct claim){place.pool, place.site, service->host,
			      (unsigned)service->port >> plan->pools[place.pool].shift,
			      service->address};
	return true;
}

/* All claims, sorted, each slice once. */
static struct claim *gather_claims(struct ps_check *c, size_t *ret_n)
{
	const struct ps_plan *plan = c->plan;
	struct claim *claims =
		ps_walk_alloc(c->w, plan->n_grants + plan->n_services, sizeof(*claims));
	size_t n = 0, kept = 0;

	for (size_t i = 0; claims && i < plan->n_grants; i++) {
		const struct ps_grant *g = &plan->grants[i];

		claims[n++] = (struct claim){g->pool, plan->hosts[g->host].site, g->host, g->slice,
					     g->address};
	}
	for (size_t i = 0; claims && i < plan->n_services; i++)
		n += service_claim(c, &plan->services[i], &claims[n]);
	if (claims)
		qsort(claims, n, sizeof(*claims), claim_order);
	for (size_t i = 0; i < n; i++) {
		if (kept == 0 || claim_order(&claims[kept - 1], &claims[i]) != 0)
			claims[kept++] = claims[i];
	}
	*ret_n = kept;
	return claims;
}

static void find_short(struct ps_check *c, unsigned pool, unsigned site,
		       const struct supply *supply, size_t hosts)
{
	const struct draft_pool *draft = c->draft->pools.items;
	const char *pool_name = c->plan->pools[pool].name;
	const char *site_name = c->plan->sites[site].name;

	if (supply->slices < hosts)
		ps_walk_find(
			c->w, draft[pool].name.at,
			"pool \"%s\" has %llu slice(s) at site \"%s\", which has %zu host(s): add "
			"addresses or make the slices smaller",
			ps_quote(pool_name).text, (unsigned long long)supply->slices,
			ps_quote(site_name).text, hosts);
	else if (supply->slices - supply->taken < hosts - supply->holders)
		ps_walk_find(
			c->w, draft[pool].name.at,
			"pool \"%s\" has %llu free slice(s) at site \"%s\" for %zu host(s) without "
			"one: add addresses",
			ps_quote(pool_name).text,
			(unsigned long long)(supply->slices - supply->taken),
			ps_quote(site_name).text, hosts - supply->holders);
}

static void count_slices(const struct ps_pool *pool, struct supply *sites)
{
	unsigned each = ps_slice_count(pool->shift) - ps_slice_first(pool->shift);

	for (size_t i = 0; i < pool->n_blocks; i++) {
		const struct ps_block *block = &pool->blocks[i];

		uint64_t size = ps_prefix_size(&block->prefix);

		/* More is a finding of its own. */
		if (block->site != PS_NOWHERE && size <= PS_PLAN_ADDRESSES_MAX)
			sites[block->site].slices += size * each;
	}
}

/* Room for one pool after the other. */
struct counting {
	struct supply *sites;
	size_t *hosts_at; /* by site */
	unsigned *seen;   /* by host: 1 + the pool of which it was last seen to hold a slice */
};

static void counting_clear(struct counting *counting)
{
	free(counting->sites);
	free(counting->hosts_at);
	free(counting->seen);
}

static size_t count_claims(const struct claim *claims, size_t n, unsigned pool,
			   struct counting *counting)
{
	size_t i = 0;

	for (; i < n && claims[i].pool == pool; i++) {
		const struct claim *claim = &claims[i];

		if (claim->site == PS_NOWHERE)
			continue;
		counting->sites[claim->site].taken++;
		counting->sites[claim->site].holders += counting->seen[claim->host] != pool + 1;
		counting->seen[claim->host] = pool + 1;
	}
	return i;
}

static void check_pool(struct ps_check *c, unsigned pool, const struct counting *counting)
{
	for (unsigned site = 0; site < c->plan->n_sites; site++) {
		if (counting->sites[site].slices)
			find_short(c, pool, site, &counting->sites[site], counting->hosts_at[site]);
	}
}

void ps_check_capacity(struct ps_check *c)
{
	size_t n, done = 0, n_sites = c->plan->n_sites;
	ps_auto_mem struct claim *claims = gather_claims(c, &n);
	ps_auto(counting_clear) struct counting counting = {
		ps_walk_alloc(c->w, n_sites, sizeof(struct supply)),
		ps_walk_alloc(c->w, n_sites, sizeof(size_t)),
		ps_walk_alloc(c->w, c->plan->n_hosts, sizeof(unsigned)),
	};

	if (c->w->error)
		return;
	for (size_t i = 0; i < c->plan->n_hosts; i++) {
		if (c->plan->hosts[i].site != PS_NOWHERE)
			counting.hosts_at[c->plan->hosts[i].site]++;
	}
	for (unsigned pool = 0; pool < c->plan->n_pools; pool++) {
		memset(counting.sites, 0, n_sites * sizeof(*counting.sites));
		count_slices(&c->plan->pools[pool], counting.sites);
		done += count_claims(claims + done, n - done, pool, &counting);
		check_pool(c, pool, &counting);
	}
}

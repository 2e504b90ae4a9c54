// SPDX-License-Identifier: MIT
/*
 * The plan says what the port plane should look like: which sites and hosts there are, which
 * addresses they share under which tags, which traffic takes which tags, and who holds which slice.
 * It is the one thing that operators write; every other folder works from it or from tables made
 * of it.
 *
 * A plan lives in four steps.  Text becomes a document (yaml-open.c; libyaml keeps the place of
 * every node).  The document becomes a draft (plan-parse.c names the keys and their types,
 * yaml-walk.c walks them): what the file says, each value with its line and column, and each read
 * by the type of its field, so that `country: NO` is the text "NO".  The draft becomes a plan
 * (plan-check.c, plan-check-slices.c): names become indexes, and what makes no sense becomes a
 * finding with its place.  Then the document and the draft are dropped, and the plan is only read;
 * dealing (plan-deal.c) is the one change it knows.  Findings are collected, never printed, and all
 * of them: an operator wants to correct a file once.
 *
 * What is judged here is what can be known from the file alone.  Whether an interface exists or an
 * underlay address is this machine's is for the agent to see.
 *
 * A file may be hostile.  libyaml's documents share aliased nodes, so a short file can be a huge
 * tree; the walk is as deep as the schema, never deeper, and has a budget of visits.  Sizes are
 * bounded where the file is read, and every search is a binary one over the orders in index.h.
 *
 * This folder must not: read files or clocks, know of BPF tables, or repair what it does not like.
 *
 * Standards: YAML 1.1 (as libyaml reads it); RFC 8259 for the JSON; FIPS 180-4 for the digest;
 * RFC 4291 §2.5.5.2 for addresses; RFC 7597 §5.1 for slices as contiguous, aligned port sets.
 */
#include "plan/plan.h"

#include <errno.h>
#include <string.h>

#include "base/own.h"
#include "plan/index.h"

static void tags_clear(struct ps_tags *tags)
{
	for (size_t i = 0; i < tags->n; i++) {
		free(tags->items[i].key);
		free(tags->items[i].value);
	}
	free(tags->items);
}

static void host_clear(struct ps_host *host)
{
	for (size_t i = 0; i < host->n_uplinks; i++)
		free(host->uplinks[i]);
	free(host->uplinks);
	free(host->underlay_interface);
	free(host->name);
}

static void pool_clear(struct ps_pool *pool)
{
	tags_clear(&pool->tags);
	free(pool->blocks);
	free(pool->name);
}

static void class_clear(struct ps_class *class)
{
	tags_clear(&class->tags);
	free(class->match.cgroup);
	free(class->name);
}

static void index_free(struct ps_plan_index *index)
{
	if (!index)
		return;
	for (unsigned kind = 0; kind < PS_KIND_COUNT; kind++)
		free(index->by_name[kind]);
	free(index->blocks);
	free(index);
}

void ps_plan_free(struct ps_plan **plan)
{
	struct ps_plan *p = *plan;

	if (!p)
		return;
	for (size_t i = 0; i < p->n_sites; i++)
		free(p->sites[i].name);
	for (size_t i = 0; i < p->n_hosts; i++)
		host_clear(&p->hosts[i]);
	for (size_t i = 0; i < p->n_pools; i++)
		pool_clear(&p->pools[i]);
	for (size_t i = 0; i < p->n_classes; i++)
		class_clear(&p->classes[i]);
	for (size_t i = 0; i < p->n_services; i++)
		free(p->services[i].name);
	free(p->sites);
	free(p->hosts);
	free(p->pools);
	free(p->classes);
	free(p->services);
	free(p->direct);
	free(p->grants);
	index_free(p->index);
	free(p);
	*plan = NULL;
}

int ps_plan_find_site(const struct ps_plan *plan, const char *name)
{
	return ps_index_find(plan, PS_KIND_SITE, name);
}

int ps_plan_find_host(const struct ps_plan *plan, const char *name)
{
	return ps_index_find(plan, PS_KIND_HOST, name);
}

int ps_plan_find_pool(const struct ps_plan *plan, const char *name)
{
	return ps_index_find(plan, PS_KIND_POOL, name);
}

int ps_plan_find_class(const struct ps_plan *plan, const char *name)
{
	return ps_index_find(plan, PS_KIND_CLASS, name);
}

bool ps_plan_is_over_v6(const struct ps_plan *plan)
{
	return plan->n_hosts && !ps_ip_is_v4(&plan->hosts[0].underlay);
}

unsigned ps_plan_outer_len(const struct ps_plan *plan)
{
	return ps_plan_is_over_v6(plan) ? PS_PLAN_OUTER_V6 : PS_PLAN_OUTER_V4;
}

static bool tags_have(const struct ps_tags *tags, const struct ps_tag *wanted)
{
	for (size_t i = 0; i < tags->n; i++) {
		if (strcmp(tags->items[i].key, wanted->key) == 0)
			return strcmp(tags->items[i].value, wanted->value) == 0;
	}
	return false;
}

bool ps_tags_cover(const struct ps_tags *tags, const struct ps_tags *wanted)
{
	for (size_t i = 0; i < wanted->n; i++) {
		if (!tags_have(tags, &wanted->items[i]))
			return false;
	}
	return true;
}

bool ps_plan_class_takes(const struct ps_plan *plan, unsigned class, const struct ps_grant *grant)
{
	const struct ps_class *of = &plan->classes[class];

	return ps_tags_cover(&plan->pools[grant->pool].tags, &of->tags) &&
	       (!of->match.has_from || ps_match_prefix(&of->match.from, &grant->address));
}

int ps_plan_class_pool(const struct ps_plan *plan, unsigned class, unsigned host)
{
	unsigned best = (unsigned)plan->n_pools;

	for (size_t i = 0; i < plan->n_grants; i++) {
		const struct ps_grant *grant = &plan->grants[i];

		if (grant->host == host && grant->pool < best &&
		    ps_plan_class_takes(plan, class, grant))
			best = grant->pool;
	}
	return best < plan->n_pools ? (int)best : PS_PLAN_NONE;
}

int ps_plan_locate(const struct ps_plan *plan, const struct ps_ip *address, struct ps_place *ret)
{
	const struct ps_index_block *blocks = plan->index->blocks;
	size_t low = 0, high = plan->index->n_blocks;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (ps_ip_cmp(&blocks[middle].prefix.ip, address) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || !ps_prefix_contains(&blocks[low - 1].prefix, address))
		return -ENOENT;
	*ret = blocks[low - 1].place;
	return 0;
}

const struct ps_grant *ps_plan_who(const struct ps_plan *plan, const struct ps_ip *address,
				   uint16_t port)
{
	struct ps_place place;
	unsigned shift, slice;

	if (ps_plan_locate(plan, address, &place) < 0)
		return NULL;
	shift = plan->pools[place.pool].shift;
	slice = (unsigned)port >> shift;
	if (!ps_range_contains(ps_slice_range(slice, shift), port))
		return NULL;
	return ps_grant_find(plan->grants, plan->n_grants, address, slice);
}

const struct ps_service *ps_plan_service(const struct ps_plan *plan, const struct ps_ip *address,
					 uint16_t port, uint8_t protocol)
{
	const struct ps_service key = {.address = *address, .port = port, .protocol = protocol};

	if (plan->n_services == 0)
		return NULL;
	return bsearch(&key, plan->services, plan->n_services, sizeof(key), ps_service_order);
}

// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "plan/index.h"

/* Where in a pool's addresses at one site the next free slice is looked for.  Nothing becomes free
 * while dealing, so it only moves forward.  Some networks filter addresses that end in .0 or .255
 * although they are good ones: a second round takes them. */
struct cursor {
	unsigned round;
	size_t block;    /* of those of this pool and site */
	uint64_t offset; /* in the block */
	unsigned slice;
};

struct deal {
	const struct ps_plan *plan;
	struct ps_grant *grants; /* the first n_held are sorted and cover services */
	size_t n, n_held, room;
	bool *has; /* hosts × pools: whether the host holds a slice of the pool */
};

static void deal_clear(struct deal *deal)
{
	free(deal->grants);
	free(deal->has);
}

static bool *has_slice(const struct deal *deal, unsigned host, unsigned pool)
{
	return &deal->has[(size_t)pool * deal->plan->n_hosts + host];
}

static int push(struct deal *deal, struct ps_grant grant)
{
	size_t room = 2 * deal->room + 64;
	struct ps_grant *grants;

	if (deal->n == deal->room) {
		grants = reallocarray(deal->grants, room, sizeof(*grants));
		if (!grants)
			return -ENOMEM;
		deal->grants = grants;
		deal->room = room;
	}
	deal->grants[deal->n++] = grant;
	*has_slice(deal, grant.host, grant.pool) = true;
	return 0;
}

static int push_held(struct deal *deal)
{
	for (size_t i = 0; i < deal->plan->n_grants; i++) {
		int r = push(deal, deal->plan->grants[i]);

		if (r < 0)
			return r;
	}
	deal->n_held = deal->n;
	return 0;
}

/* Services are sorted by address and port, so those of one slice follow each other. */
static int push_services(struct deal *deal)
{
	const struct ps_plan *plan = deal->plan;

	for (size_t i = 0; i < plan->n_services; i++) {
		const struct ps_service *service = &plan->services[i];
		const struct ps_grant *last =
			deal->n > deal->n_held ? &deal->grants[deal->n - 1] : NULL;
		struct ps_place place;
		unsigned slice;
		int r = ps_plan_locate(plan, &service->address, &place);

		if (r < 0)
			return r;
		slice = (unsigned)service->port >> plan->pools[place.pool].shift;
		if (ps_plan_who(plan, &service->address, service->port) ||
		    (last && last->slice == slice &&
		     ps_ip_cmp(&last->address, &service->address) == 0))
			continue;
		r = push(deal,
			 (struct ps_grant){service->address, slice, service->host, place.pool});
		if (r < 0)
			return r;
	}
	deal->n_held = deal->n;
	if (deal->n)
		qsort(deal->grants, deal->n, sizeof(*deal->grants), ps_grant_order);
	return 0;
}

static bool often_filtered(const struct ps_ip *ip)
{
	return ps_ip_is_v4(ip) && (ip->bytes[15] == 0 || ip->bytes[15] == 255);
}

/* The next slice of the address at the cursor that is free, if there is one. */
static bool next_at_address(const struct deal *deal, struct cursor *cursor,
			    const struct ps_ip *address, struct ps_place place,
			    struct ps_grant *ret)
{
	unsigned shift = deal->plan->pools[place.pool].shift;

	if (cursor->slice < ps_slice_first(shift))
		cursor->slice = ps_slice_first(shift);
	while (cursor->slice < ps_slice_count(shift)) {
		unsigned slice = cursor->slice++;

		if (ps_grant_find(deal->grants, deal->n_held, address, slice))
			continue;
		*ret = (struct ps_grant){.address = *address, .slice = slice, .pool = place.pool};
		return true;
	}
	return false;
}

static bool next_in_block(const struct deal *deal, struct cursor *cursor,
			  const struct ps_index_block *block, struct ps_grant *ret)
{
	uint64_t size = ps_prefix_size(&block->prefix);

	for (; cursor->offset < size; cursor->offset++, cursor->slice = 0) {
		struct ps_ip address = ps_ip_add(&block->prefix.ip, cursor->offset);

		if (often_filtered(&address) == (cursor->round == 1) &&
		    next_at_address(deal, cursor, &address, block->place, ret))
			return true;
	}
	return false;
}

/* The blocks of one pool at one site, in the order of their addresses. */
struct group {
	const struct ps_index_block *blocks;
	size_t n;
};

static int next_free(const struct deal *deal, struct cursor *cursor, const struct group *group,
		     struct ps_grant *ret)
{
	for (; cursor->round < 2; cursor->round++, cursor->block = 0) {
		for (; cursor->block < group->n; cursor->block++, cursor->offset = 0) {
			if (next_in_block(deal, cursor, &group->blocks[cursor->block], ret))
				return 0;
		}
	}
	return -ENOSPC;
}

static int deal_group(struct deal *deal, const struct group *group)
{
	struct ps_place place = group->blocks[0].place;
	struct cursor cursor = {0};

	for (unsigned host = 0; host < deal->plan->n_hosts; host++) {
		struct ps_grant grant;
		int r;

		if (deal->plan->hosts[host].site != place.site ||
		    *has_slice(deal, host, place.pool))
			continue;
		r = next_free(deal, &cursor, group, &grant);
		if (r < 0)
			return r;
		grant.host = host;
		r = push(deal, grant);
		if (r < 0)
			return r;
	}
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct ps_index_block *x = a, *y = b;

	if (x->place.pool != y->place.pool)
		return x->place.pool < y->place.pool ? -1 : 1;
	if (x->place.site != y->place.site)
		return x->place.site < y->place.site ? -1 : 1;
	return ps_ip_cmp(&x->prefix.ip, &y->prefix.ip);
}

static int deal_groups(struct deal *deal)
{
	const struct ps_plan_index *index = deal->plan->index;
	size_t n = index->n_blocks, next;
	ps_auto_mem struct ps_index_block *blocks = calloc(n + 1, sizeof(*blocks));
	int r = blocks ? 0 : -ENOMEM;

	if (r < 0)
		return r;
	memcpy(blocks, index->blocks, n * sizeof(*blocks));
	qsort(blocks, n, sizeof(*blocks), by_place);
	for (size_t i = 0; r == 0 && i < n; i = next) {
		struct ps_place place = blocks[i].place;

		next = i + 1;
		while (next < n && blocks[next].place.pool == place.pool &&
		       blocks[next].place.site == place.site)
			next++;
		r = deal_group(deal, &(struct group){&blocks[i], next - i});
	}
	return r;
}

static int deal_all(struct deal *deal)
{
	int r = push_held(deal);

	if (r == 0)
		r = push_services(deal);
	return r == 0 ? deal_groups(deal) : r;
}

int ps_plan_deal(struct ps_plan *plan, size_t *ret_n)
{
	ps_auto(deal_clear) struct deal deal = {.plan = plan};
	int r;

	deal.has = calloc(plan->n_hosts * plan->n_pools + 1, sizeof(*deal.has));
	if (!deal.has)
		return -ENOMEM;
	r = deal_all(&deal);
	if (r < 0)
		return r;
	if (deal.n)
		qsort(deal.grants, deal.n, sizeof(*deal.grants), ps_grant_order);
	*ret_n = deal.n - plan->n_grants;
	free(plan->grants);
	plan->grants = ps_move(deal.grants);
	plan->n_grants = deal.n;
	return 0;
}

static void drop_grant(struct ps_plan *plan, size_t at)
{
	plan->n_grants--;
	memmove(&plan->grants[at], &plan->grants[at + 1],
		(plan->n_grants - at) * sizeof(*plan->grants));
}

static int add_grant(struct ps_plan *plan, struct ps_grant grant)
{
	struct ps_grant *grants =
		reallocarray(plan->grants, plan->n_grants + 1, sizeof(*plan->grants));
	size_t at = 0;

	if (!grants)
		return -ENOMEM;
	while (at < plan->n_grants && ps_grant_order(&grants[at], &grant) < 0)
		at++;
	memmove(&grants[at + 1], &grants[at], (plan->n_grants - at) * sizeof(*grants));
	grants[at] = grant;
	plan->grants = grants;
	plan->n_grants++;
	return 0;
}

int ps_plan_regrant(struct ps_plan *plan, const struct ps_ip *address, unsigned slice, int host)
{
	const struct ps_grant *found = ps_grant_find(plan->grants, plan->n_grants, address, slice);
	struct ps_place place;
	unsigned shift;
	int r = ps_plan_locate(plan, address, &place);

	if (r < 0)
		return r;
	shift = plan->pools[place.pool].shift;
	if (slice < ps_slice_first(shift) || slice >= ps_slice_count(shift))
		return -ERANGE;
	if (!found && host == PS_PLAN_NONE)
		return 0;
	if (!found)
		return add_grant(plan,
				 (struct ps_grant){*address, slice, (unsigned)host, place.pool});
	if (host == PS_PLAN_NONE)
		drop_grant(plan, (size_t)(found - plan->grants));
	else
		plan->grants[found - plan->grants].host = (unsigned)host;
	return 0;
}

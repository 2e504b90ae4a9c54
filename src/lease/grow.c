// SPDX-License-Identifier: MIT
#include <string.h>

#include "lease/core.h"

enum {
	HOSTS_MAX = 4096, /* PS_PLAN_HOSTS_MAX */
	SPARE_PCT = 50,   /* a slice is spare when the others would be used no more than this */
};

/* How a pool stands, as this host sees it.  Every host computes the same from the same records. */
struct standing {
	uint32_t n_free;    /* may be granted */
	uint32_t n_without; /* hosts that hold none of it */
	uint32_t n_ahead;   /* hosts that wish for one and come before this one */
	uint32_t pick;      /* the slot to take */
	uint16_t poorest;   /* fewest that a wishing host holds */
};

static bool is_grantable(const struct ps_lease_core *core, const struct ps_lease_slot *slot)
{
	const struct ps_lease_address *address = &core->addresses[slot->address];
	const struct ps_address_record *record = &address->record;

	if (slot->record.state != PS_SLICE_FREE && slot->record.state != PS_SLICE_FREE_NEW)
		return false;
	if (slot->is_ahead || address->is_ahead || !address->revision)
		return false;
	return PS_GUARD(SITE, record->site == core->config.site &&
				      record->phase == PS_ADDRESS_HERE && !record->is_drained);
}

/* The slice this host had last, else the first free one after a place of its own in the pool, so
 * that hosts seldom want the same. */
static void look(const struct ps_lease_core *core, const struct ps_lease_pool *pool,
		 uint16_t held[HOSTS_MAX], struct standing *ret)
{
	uint32_t start = (uint32_t)((core->config.self * 0x9e3779b1u) % pool->n);
	bool is_former = false;

	for (uint32_t k = 0; k < pool->n; k++) {
		uint32_t i = pool->first + (start + k) % pool->n;
		const struct ps_lease_slot *slot = &core->slots[i];
		uint16_t owner = ps_lease_owner(slot);

		if (owner < HOSTS_MAX)
			held[owner]++;
		if (!is_grantable(core, slot))
			continue;
		if (ret->n_free++ == 0)
			ret->pick = i;
		if (!is_former && slot->record.state == PS_SLICE_FREE &&
		    slot->record.holder == core->config.self) {
			is_former = true;
			ret->pick = i;
		}
	}
}

/* Hosts with fewer slices come first, then those that have wished longer, then the lower number. */
static bool comes_before(const struct ps_lease_core *core, uint16_t other, uint16_t other_held,
			 uint64_t other_ms, uint16_t own_held)
{
	uint64_t own_ms = core->wish_ms ? core->wish_ms : core->clock_ms;

	if (other_held != own_held)
		return other_held < own_held;
	if (other_ms != own_ms)
		return other_ms < own_ms;
	return other < core->config.self;
}

static struct standing judge(const struct ps_lease_core *core, uint16_t p)
{
	const struct ps_lease_pool *pool = &core->pools[p];
	struct standing standing = {.poorest = UINT16_MAX};
	uint16_t held[HOSTS_MAX] = {0};
	uint16_t self = core->config.self;

	look(core, pool, held, &standing);
	for (uint16_t i = 0; i < core->n_members && i < HOSTS_MAX; i++) {
		const struct ps_host_record *record = &core->members[i].record;

		if (record->state != PS_HOST_ALIVE)
			continue;
		standing.n_without += held[i] == 0;
		if (i == self || record->wish_pool != p)
			continue;
		if (held[i] < standing.poorest)
			standing.poorest = held[i];
		/* Only hosts with none reach into the reserve, so only they race there. */
		if ((held[self] > 0 || held[i] == 0) &&
		    comes_before(core, i, held[i], record->wish_ms, held[self]))
			standing.n_ahead++;
	}
	if (held[self] > 0) {
		uint32_t kept =
			standing.n_without > pool->reserve ? standing.n_without : pool->reserve;

		standing.n_free = standing.n_free > kept ? standing.n_free - kept : 0;
	}
	return standing;
}

static bool is_waiting(const struct ps_lease_core *core, uint16_t p)
{
	for (size_t i = 0; i < core->n_own; i++)
		if (core->slots[core->own[i].slot].pool == p &&
		    core->own[i].phase == PS_OWN_WAITING)
			return true;
	return false;
}

/* Usable slices: those that are leaving help no more. */
static size_t useful(const struct ps_lease_core *core, uint16_t p)
{
	size_t n = 0;

	for (size_t i = 0; i < core->n_own; i++)
		n += core->slots[core->own[i].slot].pool == p &&
		     core->own[i].phase <= PS_OWN_USING && !core->own[i].is_leaving;
	return n;
}

static bool wants(const struct ps_lease_core *core, uint16_t p)
{
	const struct ps_lease_pool *pool = &core->pools[p];
	size_t held = ps_hold_count(core, p);

	if (!pool->is_used || core->is_retired || held >= pool->host_max ||
	    core->n_own == core->own_max || is_waiting(core, p))
		return false;
	return held == 0 || useful(core, p) == 0 ||
	       pool->fullest_pct >= core->config.watermark_pct ||
	       pool->all_pct >= core->config.watermark_pct;
}

static void write_grant(struct ps_lease_core *core, uint32_t slot)
{
	uint32_t address = core->slots[slot].address;
	struct ps_slice_record *record;

	ps_lease_begin(core, PS_TXN_GRANT);
	record = ps_lease_write_slot(core, slot);
	*record = (struct ps_slice_record){.stamp_ms = core->clock_ms,
					   .epoch = record->epoch + 1,
					   .holder = core->config.self,
					   .state = PS_SLICE_GRANTED};
	ps_lease_compare(core, PS_LEASE_BIRTH, 0, core->birth_revision);
	if (!PS_LACKS(SITE))
		ps_lease_compare(core, PS_LEASE_ADDRESS, address,
				 core->addresses[address].revision);
}

static void wish(struct ps_lease_core *core, uint16_t pool)
{
	if (core->wish_pool == pool)
		return;
	core->wish_pool = pool;
	core->wish_ms = pool == PS_LEASE_NO_POOL ? 0 : core->clock_ms;
}

/* One pool's turn: takes a slice if there is one for this host, else wishes. */
static bool try_pool(struct ps_lease_core *core, uint16_t p, uint64_t now_ns)
{
	struct standing standing = judge(core, p);
	struct ps_lease_pool *pool = &core->pools[p];

	pool->granted_ns = now_ns;
	pool->is_unfit = standing.n_free <= standing.n_ahead;
	if (!pool->is_unfit)
		write_grant(core, standing.pick);
	return !pool->is_unfit;
}

/* Pools of which this host holds nothing come first. */
static bool try_pools(struct ps_lease_core *core, bool is_first, uint64_t now_ns,
		      struct ps_lease_actions *ret, uint16_t *wished)
{
	for (uint16_t p = 0; p < core->n_pools; p++) {
		struct ps_lease_pool *pool = &core->pools[p];
		uint64_t next_ns = pool->granted_ns ? pool->granted_ns + core->config.grow_ns : 0;

		if ((ps_hold_count(core, p) == 0) != is_first)
			continue;
		if (!wants(core, p)) {
			pool->is_unfit = false;
			continue;
		}
		if (ps_lease_is_due(ret, next_ns, now_ns) && try_pool(core, p, now_ns))
			return true;
		if (pool->is_unfit && *wished == PS_LEASE_NO_POOL)
			*wished = p;
	}
	return false;
}

bool ps_grow_txn(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	uint16_t wished = PS_LEASE_NO_POOL;

	if (!core->is_joined || core->is_restored || core->is_adopting ||
	    ps_serve_own_until(core) <= now_ns || !PS_GUARD(SETTLED, ps_lease_is_settled(core)))
		return false;
	if (try_pools(core, true, now_ns, ret, &wished) ||
	    try_pools(core, false, now_ns, ret, &wished))
		return true;
	wish(core, wished);
	return false;
}

void ps_grow_demand(struct ps_lease_core *core, const struct ps_lease_event *event, uint64_t now_ns)
{
	struct ps_lease_pool *pool = &core->pools[event->index];
	size_t held = useful(core, (uint16_t)event->index);
	unsigned most = event->fullest_pct > event->all_pct ? event->fullest_pct : event->all_pct;

	if (event->index >= core->n_pools)
		return;
	pool->fullest_pct = event->fullest_pct;
	pool->all_pct = event->all_pct;
	if (held <= 1 || most * held >= SPARE_PCT * (held - 1) || !pool->busy_ns)
		pool->busy_ns = now_ns;
}

static struct ps_lease_own *newest(struct ps_lease_core *core, uint16_t p)
{
	struct ps_lease_own *found = NULL;

	for (size_t i = 0; i < core->n_own; i++) {
		struct ps_lease_own *own = &core->own[i];

		if (core->slots[own->slot].pool == p && own->phase == PS_OWN_USING &&
		    !own->is_leaving && (!found || own->since_ns > found->since_ns))
			found = own;
	}
	return found;
}

/* Idle long enough?  Sooner when others wish and hold fewer. */
static bool is_spare(const struct ps_lease_core *core, uint16_t p, uint64_t now_ns,
		     struct ps_lease_actions *ret)
{
	const struct ps_lease_pool *pool = &core->pools[p];
	size_t held = useful(core, p);

	if (held <= 1 || !pool->busy_ns)
		return false;
	if (ps_lease_is_due(ret, pool->busy_ns + core->config.idle_ns, now_ns))
		return true;
	return ps_lease_is_due(ret, pool->busy_ns + core->config.idle_short_ns, now_ns) &&
	       judge(core, p).poorest < held - 1;
}

void ps_grow_poll(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	for (uint16_t p = 0; p < core->n_pools; p++) {
		struct ps_lease_own *own;

		if (!is_spare(core, p, now_ns, ret))
			continue;
		core->pools[p].busy_ns = now_ns;
		own = newest(core, p);
		if (own)
			own->is_leaving = true;
		ret->wake_ns = now_ns;
	}
}

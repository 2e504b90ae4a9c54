/* SPDX-License-Identifier: MIT */
/* One core, and a store that does what the test says. */
#ifndef PS_TESTS_LEASE_RIG_H
#define PS_TESTS_LEASE_RIG_H

#include <string.h>

#include "cm.h"
#include "lease/lease.h"

#define MS (1000ull * 1000)
#define S (1000 * MS)

enum { RIG_HOSTS = 6, RIG_SLOTS = 12, INCARNATION = 7, SESSION = 99 };

struct rig {
	struct ps_lease_core core;
	struct ps_lease_pool pools[1];
	struct ps_lease_slot slots[RIG_SLOTS];
	struct ps_lease_address addresses[2];
	struct ps_lease_member members[RIG_HOSTS];
	struct ps_lease_own own[8];
	struct ps_lease_actions actions;
	uint64_t now_ns, revision;
	size_t n_seen[PS_LEASE_DO_RECONNECT + 1]; /* actions since rig_forget() */
	uint32_t last_index[PS_LEASE_DO_RECONNECT + 1];
};

static inline void rig_step(struct rig *rig, const struct ps_lease_event *event)
{
	ps_lease_step(&rig->core, event, rig->now_ns, &rig->actions);
	for (size_t i = 0; i < rig->actions.n; i++) {
		rig->n_seen[rig->actions.items[i].kind]++;
		rig->last_index[rig->actions.items[i].kind] = rig->actions.items[i].index;
	}
}

static inline void rig_forget(struct rig *rig)
{
	memset(rig->n_seen, 0, sizeof(rig->n_seen));
}

/* An event without more to it than its kind and id. */
static inline void rig_event(struct rig *rig, unsigned kind, uint64_t id)
{
	const struct ps_lease_event event = {
		.kind = (uint8_t)kind, .id = id, .revision = id, .index = (uint32_t)id};

	rig_step(rig, &event);
}

static inline void rig_pass(struct rig *rig, uint64_t ns)
{
	rig->now_ns += ns;
	rig_event(rig, PS_LEASE_TIMER, 0);
}

/* Another host, or the operator, writes a record. */
static inline void rig_give(struct rig *rig, unsigned kind, uint32_t index,
			    union ps_lease_value value)
{
	const struct ps_lease_event event = {.kind = PS_LEASE_RECORD,
					     .revision = ++rig->revision,
					     .record = {{(uint8_t)kind, index}, value}};

	rig_step(rig, &event);
	rig_event(rig, PS_LEASE_PROGRESS, rig->revision);
}

static inline void rig_host(struct rig *rig, uint32_t host, struct ps_host_record record)
{
	rig_give(rig, PS_LEASE_HOST, host, (union ps_lease_value){.host = record});
}

static inline void rig_slice(struct rig *rig, uint32_t slot, struct ps_slice_record record)
{
	rig_give(rig, PS_LEASE_SLICE, slot, (union ps_lease_value){.slice = record});
}

static inline void rig_clock(struct rig *rig, uint64_t ms)
{
	rig_give(rig, PS_LEASE_CLOCK, 0, (union ps_lease_value){.clock_ms = ms});
}

/* What the core wants written, or 0. */
static inline unsigned rig_asks(const struct rig *rig)
{
	return rig->core.is_busy ? rig->core.txn.kind + 1u : 0;
}

#define assert_asks(rig, kind_) assert_int_equal(rig_asks(rig), (kind_) + 1)
#define assert_asks_nothing(rig) assert_int_equal(rig_asks(rig), 0)

static inline void rig_answer(struct rig *rig, unsigned status)
{
	struct ps_lease_event event = {.kind = PS_LEASE_RESULT,
				       .status = (uint8_t)status,
				       .id = rig->core.txn.id,
				       .incarnation = rig->core.incarnation};

	if (status == PS_LEASE_DONE)
		rig->revision++;
	event.revision = rig->revision;
	rig_step(rig, &event);
	if (status == PS_LEASE_DONE)
		rig_event(rig, PS_LEASE_PROGRESS, rig->revision);
}

/* Lets everything that is asked of store and kernel succeed at once, until nothing more is asked. */
static inline void rig_settle(struct rig *rig)
{
	for (int i = 0; i < 60; i++) {
		if (rig->core.is_loading)
			rig_event(rig, PS_LEASE_LOADED, rig->core.loading_revision);
		else if (rig->core.dispatch == PS_DISPATCH_WITHDRAWING)
			rig_event(rig, PS_LEASE_WITHDRAWN, 0);
		else if (rig->core.is_busy)
			rig_answer(rig, PS_LEASE_DONE);
		else
			return;
	}
}

/* A store in use: settled, one clock, addresses here, no host and no lease. */
static inline void rig_list(struct rig *rig, uint64_t incarnation, bool is_settled)
{
	const struct ps_lease_event reset = {.kind = PS_LEASE_RESET, .incarnation = incarnation};
	const union ps_lease_value birth = {.birth = {incarnation, 0, is_settled}};
	const union ps_lease_value here = {.address = {1, 0, 0, PS_ADDRESS_HERE, false}};
	struct ps_lease_event event = {.kind = PS_LEASE_RECORD};

	rig_step(rig, &reset);
	event.record = (struct ps_lease_record){{PS_LEASE_BIRTH, 0}, birth};
	event.revision = ++rig->revision;
	rig_step(rig, &event);
	for (uint32_t i = 0; i < 2; i++) {
		event.record = (struct ps_lease_record){{PS_LEASE_ADDRESS, i}, here};
		event.revision = ++rig->revision;
		rig_step(rig, &event);
	}
	event.record = (struct ps_lease_record){{PS_LEASE_CLOCK, 0}, {.clock_ms = 1000}};
	event.revision = ++rig->revision;
	rig_step(rig, &event);
}

static inline void rig_init(struct rig *rig, bool is_used)
{
	struct ps_lease_core *core = &rig->core;

	memset(rig, 0, sizeof(*rig));
	rig->now_ns = 1000 * S;
	core->config = ps_lease_defaults;
	core->config.session = SESSION;
	core->pools = rig->pools;
	core->slots = rig->slots;
	core->addresses = rig->addresses;
	core->members = rig->members;
	core->own = rig->own;
	core->n_pools = 1;
	core->n_slots = RIG_SLOTS;
	core->n_addresses = 2;
	core->n_members = RIG_HOSTS;
	core->own_max = 8;
	rig->pools[0] = (struct ps_lease_pool){.n = RIG_SLOTS, .host_max = 4, .is_used = is_used};
	for (uint32_t i = 0; i < RIG_SLOTS; i++)
		rig->slots[i].address = i / 6;
	ps_lease_init(core, true);
}

/* A host that serves and holds nothing (unless its pool is used: then one slice). */
static inline void rig_start(struct rig *rig, bool is_used)
{
	rig_init(rig, is_used);
	rig_list(rig, INCARNATION, true);
	rig_event(rig, PS_LEASE_PROGRESS, rig->revision);
	rig_settle(rig);
	rig_pass(rig, 20 * MS); /* confirmations are coalesced */
	rig_settle(rig);
	rig_forget(rig);
}

static inline struct ps_host_record rig_peer(const struct rig *rig)
{
	return (struct ps_host_record){.session = 5,
				       .asserted = INCARNATION,
				       .stamp_ms = rig->core.clock_ms,
				       .confirmed = rig->revision + 1000,
				       .wish_pool = PS_LEASE_NO_POOL,
				       .state = PS_HOST_ALIVE,
				       .is_dispatcher = true};
}

static inline void rig_demand(struct rig *rig, unsigned fullest_pct, unsigned all_pct)
{
	const struct ps_lease_event event = {
		.kind = PS_LEASE_DEMAND, .fullest_pct = fullest_pct, .all_pct = all_pct};

	rig_step(rig, &event);
}

#endif

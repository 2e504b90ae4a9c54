// SPDX-License-Identifier: MIT
/*
 * Ownership of slices, decided by equals.  Every host runs this core on its own copy of what the store
 * of its site says.  There is no controller: whatever must happen for the site (store time advances,
 * the dead are evicted, quarantines end) is done by any host that sees it due, as one compare-and-swap
 * of the store, in an order drawn anew each time so that they do not all try at once.
 *
 *   view.c   what the store says, and what a restored store has forgotten
 *   serve.c  renewal of the host record; the dispatcher: register, load, announce, confirm, withdraw
 *   hold.c   own leases: granted, used, drained, given back
 *   grow.c   more and fewer of them, and who comes first when a pool runs short
 *   keep.c   for everybody: store time, suspicion, eviction, expiry, quarantine, restored stores
 *
 * The life of a slice: free -(grant, by the host that wants it)-> granted -(all dispatchers that may
 * attract traffic have confirmed)-> active -> draining -(cleared from the hooks, barrier, no port in
 * use)-> quarantine -> free.  The epoch grows with each grant.  Of two records of a slice the one with
 * the higher epoch, then the later state, is the newer; that order survives a restored backup.
 *
 * step() keeps no queue: an event changes what is known, then each part looks at what is known and
 * says what is due.  So a lost, late or repeated event costs time and nothing else, and at most one
 * transaction is under way.  Everything that ends by time does so by a clock that cannot run ahead:
 * own promises by this host's boot-time clock, counted from the sending of the renewal and cut short
 * by the possible error of two clocks' rates; those of others by store time (record.h).
 *
 * It must not believe: a wall clock; an answer that did not come; a revision of another incarnation;
 * its own memory once its renewals have failed for longer than its lease.
 */
#include "lease/lease.h"

#include <errno.h>
#include <string.h>

#include "lease/core.h"

#define MS (1000ull * 1000)
#define S (1000 * MS)

const struct ps_lease_config ps_lease_defaults = {
	.dispatch_ns = 10 * S,
	.own_ns = 3600 * S,
	.quarantine_ns = 120 * S, /* RFC 6888 REQ-8 */
	.beat_ns = 3 * S,
	.tick_ns = 1 * S,
	.tick_max_ns = 1500 * MS,
	.vote_ns = 4 * S,
	.spread_ns = 5 * S,
	.lag_ns = 2 * S,
	.withdraw_ns = 2 * S,
	.hold_down_ns = 10 * S,
	.retry_ns = 500 * MS,
	.confirm_ns =
		2500 * 1000, /* 400 a second for the site: half of what etcd took (lab.md §3) */
	.grow_ns = 1 * S,
	.idle_ns = 1800 * S,
	.idle_short_ns = 60 * S,
	.drain_ns = 86400 * S,
	.watermark_pct = 70,
	.rate_ppm = 3000,
};

int ps_lease_check(const struct ps_lease_config *config, const char **ret_why)
{
	const struct {
		bool holds;
		const char *why;
	} rules[] = {
		{config->session != 0, "the session must not be 0"},
		{config->dispatch_ns >= 3 * config->beat_ns,
		 "a dispatching lease must outlive two lost renewals"},
		{config->own_ns > 2 * config->dispatch_ns,
		 "ownership must be longer than two dispatching leases"},
		{config->spread_ns > config->beat_ns,
		 "hosts that lose the store together renewed up to one renewal apart"},
		{config->dispatch_ns >
			 config->spread_ns + config->tick_max_ns + config->withdraw_ns,
		 "a peer's renewal must show before the dispatching lease ends"},
		{config->vote_ns >= 2 * config->withdraw_ns,
		 "a vote must outlive the time a withdrawal takes"},
		{config->tick_max_ns >= config->tick_ns, "store time would fall behind"},
		{config->rate_ppm < 100000, "a clock that is wrong by a tenth is broken"},
		{config->watermark_pct > 0 && config->watermark_pct <= 100,
		 "the watermark is a percentage"},
	};

	for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++) {
		if (rules[i].holds)
			continue;
		if (ret_why)
			*ret_why = rules[i].why;
		return -EINVAL;
	}
	return 0;
}

void ps_lease_init(struct ps_lease_core *core, bool wants_traffic)
{
	core->wants_traffic = wants_traffic;
	core->wish_pool = PS_LEASE_NO_POOL;
	core->next_id = 1;
	core->dispatch = PS_DISPATCH_WITHDRAWING; /* whatever a former agent announced */
	for (size_t p = 0; p < core->n_pools; p++)
		for (uint32_t i = 0; i < core->pools[p].n; i++)
			core->slots[core->pools[p].first + i].pool = (uint16_t)p;
}

struct ps_lease_action *ps_lease_emit(struct ps_lease_actions *actions, unsigned kind)
{
	static struct ps_lease_action nowhere; /* when full: the next step says it again */

	if (actions->n == PS_LEASE_ACTIONS_MAX) {
		actions->wake_ns = 0;
		return &nowhere;
	}
	actions->items[actions->n] = (struct ps_lease_action){.kind = (uint8_t)kind};
	return &actions->items[actions->n++];
}

bool ps_lease_is_due(struct ps_lease_actions *actions, uint64_t at_ns, uint64_t now_ns)
{
	if (at_ns <= now_ns)
		return true;
	if (at_ns < actions->wake_ns)
		actions->wake_ns = at_ns;
	return false;
}

uint64_t ps_lease_shorter(const struct ps_lease_core *core, uint64_t span_ns)
{
	return span_ns - span_ns / 1000000 * core->config.rate_ppm;
}

void ps_lease_begin(struct ps_lease_core *core, unsigned kind)
{
	core->txn.id = core->next_id;
	core->txn.kind = (uint8_t)kind;
	core->txn.n_compares = core->txn.n_writes = 0;
}

void ps_lease_compare(struct ps_lease_core *core, unsigned kind, uint32_t index, uint64_t revision)
{
	struct ps_lease_txn *txn = &core->txn;

	txn->compares[txn->n_compares].key = (struct ps_lease_key){(uint8_t)kind, index};
	txn->compares[txn->n_compares++].revision = revision;
}

struct ps_lease_record *ps_lease_write(struct ps_lease_core *core, unsigned kind, uint32_t index)
{
	struct ps_lease_record *record = &core->txn.writes[core->txn.n_writes++];

	memset(record, 0, sizeof(*record));
	record->key = (struct ps_lease_key){(uint8_t)kind, index};
	return record;
}

struct ps_slice_record *ps_lease_write_slot(struct ps_lease_core *core, uint32_t slot)
{
	struct ps_slice_record *record = &ps_lease_write(core, PS_LEASE_SLICE, slot)->value.slice;

	ps_lease_compare(core, PS_LEASE_SLICE, slot, core->slots[slot].revision);
	*record = core->slots[slot].record;
	return record;
}

uint64_t ps_lease_turn_ns(const struct ps_lease_core *core, uint64_t seed)
{
	const uint64_t step_ns = 10 * MS;
	uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15 ^ (core->config.self + 1) * 0xbf58476d1ce4e5b9;
	size_t n = ps_view_hosts(core);

	x = (x ^ x >> 29) * 0x94d049bb133111eb;
	return n ? (x >> 32) % n * step_ns : 0;
}

uint64_t ps_lease_age_ns(const struct ps_lease_core *core, uint64_t now_ns)
{
	return core->renewed_ns ? now_ns - core->renewed_ns : PS_LEASE_NEVER;
}

uint16_t ps_lease_owner(const struct ps_lease_slot *slot)
{
	switch (slot->record.state) {
	case PS_SLICE_GRANTED:
	case PS_SLICE_ACTIVE:
	case PS_SLICE_DRAINING:
		return slot->record.holder;
	default:
		return PS_LEASE_NOBODY;
	}
}

bool ps_lease_is_settled(const struct ps_lease_core *core)
{
	return core->is_synced && core->birth.incarnation == core->incarnation &&
	       core->birth.is_settled;
}

static void take_result(struct ps_lease_core *core, const struct ps_lease_event *event,
			uint64_t now_ns)
{
	unsigned status = event->status;

	if (!core->is_busy || event->id != core->txn.id)
		return;
	core->is_busy = false;
	if (status != PS_LEASE_UNKNOWN && event->incarnation != core->incarnation)
		status = PS_LEASE_UNKNOWN; /* a RESET follows */
	if (status == PS_LEASE_UNKNOWN) {
		core->retry_at_ns = now_ns + core->config.retry_ns;
		return;
	}
	core->answered_ns = now_ns;
	if (event->revision > core->head_revision)
		core->head_revision = event->revision;
	if (status == PS_LEASE_STALE) {
		if (core->txn.kind == PS_TXN_GRANT)
			core->pools[core->slots[core->txn.writes[0].key.index].pool].granted_ns = 0;
		core->stale_revision = event->revision;
		core->retry_at_ns = now_ns + core->config.retry_ns;
		return;
	}
	for (size_t i = 0; i < core->txn.n_writes; i++)
		ps_view_record(core, &core->txn.writes[i], event->revision, now_ns);
	if (core->txn.kind == PS_TXN_BEAT)
		ps_serve_renewed(core, event->revision, now_ns);
}

static void take_store(struct ps_lease_core *core, const struct ps_lease_event *event,
		       uint64_t now_ns)
{
	switch (event->kind) {
	case PS_LEASE_RESET:
		ps_view_reset(core, event->incarnation);
		break;
	case PS_LEASE_RECORD:
		ps_view_record(core, &event->record, event->revision, now_ns);
		break;
	case PS_LEASE_GONE:
		ps_view_gone(core, &event->record.key, event->revision);
		break;
	case PS_LEASE_PROGRESS:
		ps_view_progress(core, event->revision);
		break;
	default:
		take_result(core, event, now_ns);
	}
}

static void take_kernel(struct ps_lease_core *core, const struct ps_lease_event *event,
			uint64_t now_ns)
{
	switch (event->kind) {
	case PS_LEASE_LOADED:
		core->is_loading = false;
		if (event->revision == core->loading_revision)
			core->loaded_revision = event->revision;
		break;
	case PS_LEASE_WITHDRAWN:
		if (core->dispatch == PS_DISPATCH_WITHDRAWING)
			core->dispatch = PS_DISPATCH_WITHDRAWN;
		break;
	case PS_LEASE_BARRIER:
		if (event->id > core->barrier_done_id && event->id <= core->barrier_id)
			core->barrier_done_id = event->id;
		break;
	case PS_LEASE_EMPTIED:
		ps_hold_emptied(core, event->index, now_ns);
		break;
	default:
		break;
	}
}

static void take(struct ps_lease_core *core, const struct ps_lease_event *event, uint64_t now_ns)
{
	switch (event->kind) {
	case PS_LEASE_RESET:
	case PS_LEASE_RECORD:
	case PS_LEASE_GONE:
	case PS_LEASE_PROGRESS:
	case PS_LEASE_RESULT:
		take_store(core, event, now_ns);
		break;
	case PS_LEASE_DEMAND:
		ps_grow_demand(core, event, now_ns);
		break;
	case PS_LEASE_PEER:
		ps_serve_peer(core, event, now_ns);
		break;
	case PS_LEASE_LEAVE:
		ps_hold_leave(core, event->index, event->on);
		break;
	case PS_LEASE_LEFT:
		ps_view_left(core, event->index, (uint32_t)event->id);
		break;
	case PS_LEASE_RETIRE:
		core->is_retired = event->on;
		break;
	default:
		take_kernel(core, event, now_ns);
	}
}

/* After a compare that did not hold: once what it failed on has been seen. */
static bool may_write(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	if (core->is_busy || !core->is_synced)
		return false;
	if (core->stale_revision && core->revision >= core->stale_revision)
		core->retry_at_ns = 0;
	if (!ps_lease_is_due(ret, core->retry_at_ns, now_ns))
		return false;
	core->stale_revision = 0;
	return true;
}

static void write_store(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	if (!may_write(core, now_ns, ret))
		return;
	if (core->n_ahead > 0 && ps_lease_is_settled(core)) {
		/* The site went on without us for a whole ownership lease: what it says counts. */
		ps_view_forget(core);
		ps_lease_emit(ret, PS_LEASE_DO_RECONNECT);
		return;
	}
	if (!ps_keep_restore_txn(core) && !ps_serve_txn(core, now_ns, ret) && !ps_hold_txn(core) &&
	    !ps_grow_txn(core, now_ns, ret) && !ps_keep_txn(core, now_ns, ret))
		return;
	core->is_busy = true;
	core->next_id++;
	core->sent_ns = now_ns;
	ret->txn = core->txn;
	ps_lease_emit(ret, PS_LEASE_DO_TXN)->id = core->txn.id;
}

void ps_lease_step(struct ps_lease_core *core, const struct ps_lease_event *event, uint64_t now_ns,
		   struct ps_lease_actions *ret)
{
	ret->n = 0;
	ret->wake_ns = PS_LEASE_NEVER;
	take(core, event, now_ns);
	if (event->kind == PS_LEASE_RESET || event->kind == PS_LEASE_RECORD ||
	    event->kind == PS_LEASE_LEFT || event->kind == PS_LEASE_GONE) {
		ret->wake_ns = now_ns;
		return;
	}
	ps_hold_poll(core, now_ns, ret);
	ps_serve_poll(core, now_ns, ret);
	ps_grow_poll(core, now_ns, ret);
	write_store(core, now_ns, ret);
}

// SPDX-License-Identifier: MIT
#include "lease/core.h"

static struct ps_lease_own *find_own(struct ps_lease_core *core, uint32_t slot)
{
	for (size_t i = 0; i < core->n_own; i++)
		if (core->own[i].slot == slot)
			return &core->own[i];
	return NULL;
}

size_t ps_hold_count(const struct ps_lease_core *core, unsigned pool)
{
	size_t n = 0;

	for (size_t i = 0; i < core->n_own; i++)
		n += core->slots[core->own[i].slot].pool == pool;
	return n;
}

static void say_word(struct ps_lease_actions *ret, const struct ps_lease_own *own, unsigned word)
{
	struct ps_lease_action *action = ps_lease_emit(ret, PS_LEASE_DO_WORD);

	action->index = own->slot;
	action->word = (uint8_t)word;
	action->id = own->epoch;
}

static void drop(struct ps_lease_core *core, size_t i, struct ps_lease_actions *ret)
{
	if (core->own[i].phase != PS_OWN_WAITING && !core->own[i].is_shut) {
		say_word(ret, &core->own[i], PS_WORD_GONE);
		ps_lease_emit(ret, PS_LEASE_DO_DESTROY)->index = core->own[i].slot;
	}
	core->own[i] = core->own[--core->n_own];
}

static bool is_leaving(const struct ps_lease_core *core, const struct ps_lease_own *own)
{
	const struct ps_lease_slot *slot = &core->slots[own->slot];
	const struct ps_address_record *address = &core->addresses[slot->address].record;

	return own->is_leaving || core->is_retired || address->is_drained ||
	       address->phase != PS_ADDRESS_HERE || address->site != core->config.site;
}

/* Ports may still be drawn by calls that read the list before this; the barrier outlasts them. */
static void clear(struct ps_lease_core *core, struct ps_lease_own *own, uint64_t now_ns,
		  struct ps_lease_actions *ret)
{
	own->phase = PS_OWN_CLEARED;
	own->since_ns = now_ns;
	own->barrier_id = ++core->barrier_id;
	say_word(ret, own, PS_WORD_DRAINING);
	ps_lease_emit(ret, PS_LEASE_DO_BARRIER)->id = own->barrier_id;
}

static void advance(struct ps_lease_core *core, struct ps_lease_own *own, uint64_t now_ns,
		    struct ps_lease_actions *ret)
{
	if (own->phase == PS_OWN_WAITING &&
	    core->slots[own->slot].record.state == PS_SLICE_ACTIVE) {
		own->phase = PS_OWN_USING;
		own->since_ns = now_ns;
		say_word(ret, own, PS_WORD_ACTIVE);
	}
	if (own->phase == PS_OWN_USING && is_leaving(core, own))
		clear(core, own, now_ns, ret);
	if (own->phase == PS_OWN_CLEARED &&
	    PS_GUARD(BARRIER, core->barrier_done_id >= own->barrier_id)) {
		own->phase = PS_OWN_EMPTYING;
		ps_lease_emit(ret, PS_LEASE_DO_LOOK)->index = own->slot;
	}
	if (own->phase == PS_OWN_EMPTY && !own->is_shut) {
		own->is_shut = true;
		say_word(ret, own, PS_WORD_GONE);
	}
	if (own->phase == PS_OWN_EMPTYING && !own->is_destroyed &&
	    ps_lease_is_due(ret, own->since_ns + core->config.drain_ns, now_ns)) {
		own->is_destroyed = true;
		ps_lease_emit(ret, PS_LEASE_DO_DESTROY)->index = own->slot;
	}
}

/* The record is no longer this lease: given back, reclaimed, or another epoch's. */
static bool is_over(const struct ps_lease_core *core, const struct ps_lease_own *own)
{
	const struct ps_slice_record *record = &core->slots[own->slot].record;

	return record->holder != core->config.self || record->epoch != own->epoch ||
	       record->state < PS_SLICE_GRANTED || record->state > PS_SLICE_DRAINING;
}

static bool may_adopt(const struct ps_lease_core *core, const struct ps_lease_slot *slot)
{
	return slot->record.holder == core->config.self && slot->revision && !slot->is_ahead &&
	       ps_lease_owner(slot) == core->config.self &&
	       (slot->record.state == PS_SLICE_GRANTED ||
		ps_view_all_confirmed(core, slot->revision));
}

/* A slice the store says is ours: granted just now, or held before this agent started. */
static void adopt(struct ps_lease_core *core, uint32_t slot, uint64_t now_ns,
		  struct ps_lease_actions *ret)
{
	const struct ps_slice_record *record = &core->slots[slot].record;
	struct ps_lease_own *own = &core->own[core->n_own++];

	*own = (struct ps_lease_own){
		.slot = slot, .epoch = record->epoch, .since_ns = now_ns, .phase = PS_OWN_WAITING};
	if (record->state == PS_SLICE_DRAINING) {
		own->is_leaving = true;
		clear(core, own, now_ns, ret);
	}
}

static void adopt_all(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	if (!core->is_adopting || !core->is_joined || core->is_restored || !core->is_synced ||
	    core->revision < core->join_revision || !PS_GUARD(SETTLED, ps_lease_is_settled(core)))
		return;
	core->is_adopting = false;
	for (uint32_t i = 0; i < core->n_slots; i++) {
		const struct ps_lease_slot *slot = &core->slots[i];

		if (ps_lease_owner(slot) != core->config.self || find_own(core, i))
			continue;
		if (core->n_own < core->own_max && may_adopt(core, slot))
			adopt(core, i, now_ns, ret);
		else
			core->is_adopting = true; /* when dispatchers have confirmed */
	}
}

void ps_hold_poll(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	uint64_t until_ns = core->is_joined ? ps_serve_own_until(core) : 0;
	bool is_late = until_ns <= now_ns;

	if (!is_late)
		(void)ps_lease_is_due(ret, until_ns, now_ns);
	for (size_t i = core->n_own; i-- > 0;) {
		if (is_late || is_over(core, &core->own[i]))
			drop(core, i, ret);
		else
			advance(core, &core->own[i], now_ns, ret);
	}
	if (is_late)
		core->is_adopting = true;
	else
		adopt_all(core, now_ns, ret);
}

void ps_hold_emptied(struct ps_lease_core *core, uint32_t slot, uint64_t now_ns)
{
	struct ps_lease_own *own = find_own(core, slot);

	if (!own || own->phase != PS_OWN_EMPTYING)
		return;
	own->phase = PS_OWN_EMPTY;
	own->since_ns = now_ns;
}

void ps_hold_leave(struct ps_lease_core *core, uint32_t slot, bool on)
{
	struct ps_lease_own *own = find_own(core, slot);

	if (own && own->phase <= PS_OWN_USING)
		own->is_leaving = on;
}

static void write_own(struct ps_lease_core *core, const struct ps_lease_own *own, unsigned kind,
		      unsigned state)
{
	struct ps_slice_record *record;

	ps_lease_begin(core, kind);
	record = ps_lease_write_slot(core, own->slot);
	ps_lease_compare(core, PS_LEASE_CLOCK, 0, core->clock_revision);
	record->state = (uint8_t)state;
	record->stamp_ms = core->clock_ms;
}

static bool own_txn(struct ps_lease_core *core, const struct ps_lease_own *own)
{
	const struct ps_lease_slot *slot = &core->slots[own->slot];

	if (slot->record.state == PS_SLICE_GRANTED && own->phase == PS_OWN_WAITING) {
		if (is_leaving(core, own))
			write_own(core, own, PS_TXN_GIVE, PS_SLICE_QUARANTINE);
		else if (ps_view_all_confirmed(core, slot->revision))
			write_own(core, own, PS_TXN_ACTIVATE, PS_SLICE_ACTIVE);
		else
			return false;
		return true;
	}
	if (slot->record.state == PS_SLICE_ACTIVE && own->phase >= PS_OWN_CLEARED) {
		write_own(core, own, PS_TXN_DRAIN, PS_SLICE_DRAINING);
		return true;
	}
	if (slot->record.state != PS_SLICE_DRAINING || own->phase != PS_OWN_EMPTY)
		return false;
	write_own(core, own, PS_TXN_GIVE, PS_SLICE_QUARANTINE);
	return true;
}

bool ps_hold_txn(struct ps_lease_core *core)
{
	if (!core->is_joined || core->is_restored || !ps_lease_is_settled(core))
		return false;
	for (size_t i = 0; i < core->n_own; i++)
		if (own_txn(core, &core->own[i]))
			return true;
	return false;
}

// SPDX-License-Identifier: MIT
#include <string.h>

#include "lease/core.h"

struct ps_lease_member *ps_view_self(const struct ps_lease_core *core)
{
	return &core->members[core->config.self];
}

size_t ps_view_hosts(const struct ps_lease_core *core)
{
	size_t n = 0;

	for (size_t i = 0; i < core->n_members; i++)
		n += core->members[i].record.state != PS_HOST_NONE;
	return n;
}

/* Everything known becomes memory, which the records of the new store must outdo. */
static void remember(struct ps_lease_core *core)
{
	core->n_ahead = 0;
	for (size_t i = 0; i < core->n_slots; i++) {
		core->slots[i].revision = 0;
		core->slots[i].is_ahead = core->slots[i].record.epoch > 0;
		core->n_ahead += core->slots[i].is_ahead;
	}
	for (size_t i = 0; i < core->n_addresses; i++) {
		core->addresses[i].revision = 0;
		core->addresses[i].is_ahead = core->addresses[i].record.epoch > 0;
		core->n_ahead += core->addresses[i].is_ahead;
	}
	for (size_t i = 0; i < core->n_members; i++) {
		core->members[i].revision = 0;
		core->members[i].is_ahead = core->members[i].record.state != PS_HOST_NONE;
		core->n_ahead += core->members[i].is_ahead;
	}
}

void ps_view_reset(struct ps_lease_core *core, uint64_t incarnation)
{
	core->is_synced = false;
	core->clock_revision = core->birth_revision = 0;
	core->upkeep_revision = 0;
	if (incarnation == core->incarnation) {
		for (size_t i = 0; i < core->n_members; i++)
			core->members[i].revision = 0;
		return;
	}
	remember(core);
	core->incarnation = incarnation;
	core->revision = core->head_revision = core->stale_revision = 0;
	core->grant_revision = 0;
	ps_serve_reset(core);
}

void ps_view_left(struct ps_lease_core *core, uint32_t slot, uint32_t epoch)
{
	if (slot < core->n_slots && core->incarnation == 0)
		core->slots[slot].record = (struct ps_slice_record){
			.epoch = epoch, .holder = core->config.self, .state = PS_SLICE_ACTIVE};
}

void ps_view_forget(struct ps_lease_core *core)
{
	for (size_t i = 0; i < core->n_slots; i++)
		core->slots[i].record = (struct ps_slice_record){0};
	for (size_t i = 0; i < core->n_addresses; i++)
		core->addresses[i].record = (struct ps_address_record){0};
	for (size_t i = 0; i < core->n_members; i++)
		core->members[i].record = (struct ps_host_record){0};
	core->n_granted = 0;
	core->incarnation = 0;
	core->is_synced = core->is_joined = false;
	core->renewed_sent_ns = core->renewed_ns = core->vote_until_ns = 0;
}

static void take_slot(struct ps_lease_core *core, struct ps_lease_slot *slot,
		      const struct ps_slice_record *record)
{
	core->n_granted -= slot->record.state == PS_SLICE_GRANTED;
	slot->record = *record;
	core->n_granted += slot->record.state == PS_SLICE_GRANTED;
	if (slot->is_ahead)
		core->n_ahead--;
	slot->is_ahead = false;
	if (record->holder == core->config.self)
		core->is_adopting = true;
}

static void see_slot(struct ps_lease_core *core, uint32_t index,
		     const struct ps_slice_record *record, uint64_t revision)
{
	struct ps_lease_slot *slot = &core->slots[index];

	if (index >= core->n_slots || revision <= slot->revision)
		return;
	slot->revision = revision;
	if (!slot->is_ahead || !PS_GUARD(EPOCH, ps_slice_record_newer(&slot->record, record)))
		take_slot(core, slot, record);
	if (revision > core->table_revision)
		core->table_revision = revision;
	if (record->state == PS_SLICE_GRANTED && record->holder != core->config.self &&
	    revision > core->grant_revision)
		core->grant_revision = revision;
}

static bool address_newer(const struct ps_address_record *a, const struct ps_address_record *b)
{
	return a->epoch > b->epoch;
}

static void see_address(struct ps_lease_core *core, uint32_t index,
			const struct ps_address_record *record, uint64_t revision)
{
	struct ps_lease_address *address = &core->addresses[index];

	if (index >= core->n_addresses || revision <= address->revision)
		return;
	address->revision = revision;
	if (!address->is_ahead || !address_newer(&address->record, record)) {
		address->record = *record;
		core->n_ahead -= address->is_ahead;
		address->is_ahead = false;
	}
	if (revision > core->table_revision)
		core->table_revision = revision;
	if (revision > core->grant_revision)
		core->grant_revision = revision;
}

static void see_host(struct ps_lease_core *core, uint32_t index,
		     const struct ps_host_record *record, uint64_t revision)
{
	struct ps_lease_member *member = &core->members[index];

	if (index >= core->n_members || revision <= member->revision)
		return;
	core->n_ahead -= member->is_ahead;
	member->is_ahead = false;
	member->record = *record;
	member->revision = revision;
}

void ps_view_record(struct ps_lease_core *core, const struct ps_lease_record *record,
		    uint64_t revision, uint64_t now_ns)
{
	const union ps_lease_value *value = &record->value;

	switch (record->key.kind) {
	case PS_LEASE_CLOCK:
		if (revision <= core->clock_revision)
			break;
		core->clock_ms = value->clock_ms;
		core->clock_revision = revision;
		core->clock_seen_ns = now_ns;
		break;
	case PS_LEASE_BIRTH:
		if (revision <= core->birth_revision)
			break;
		core->birth = value->birth;
		core->birth_revision = revision;
		core->is_adopting = true;
		break;
	case PS_LEASE_HOST:
		see_host(core, record->key.index, &value->host, revision);
		break;
	case PS_LEASE_SLICE:
		see_slot(core, record->key.index, &value->slice, revision);
		break;
	default:
		see_address(core, record->key.index, &value->address, revision);
	}
}

/* Only hosts are ever deleted, by an operator who knows that the host is off for good. */
void ps_view_gone(struct ps_lease_core *core, const struct ps_lease_key *key, uint64_t revision)
{
	const struct ps_host_record none = {.wish_pool = PS_LEASE_NO_POOL};

	if (key->kind == PS_LEASE_HOST)
		see_host(core, key->index, &none, revision);
}

void ps_view_progress(struct ps_lease_core *core, uint64_t revision)
{
	const struct ps_host_record none = {.wish_pool = PS_LEASE_NO_POOL};

	if (revision > core->revision)
		core->revision = revision;
	if (revision > core->head_revision)
		core->head_revision = revision;
	if (core->is_synced)
		return;
	core->is_synced = true;
	core->is_adopting = true;
	for (size_t i = 0; i < core->n_members; i++)
		if (core->members[i].revision == 0 && !core->members[i].is_ahead)
			core->members[i].record = none;
}

static bool has_confirmed(const struct ps_lease_core *core, const struct ps_lease_member *member,
			  uint64_t revision)
{
	const struct ps_host_record *record = &member->record;

	if (record->state != PS_HOST_ALIVE || !record->is_dispatcher)
		return true;
	if (member == ps_view_self(core) && core->registered_revision)
		return PS_GUARD(CONFIRMATION, ps_serve_confirmable(core) >= revision);
	return record->asserted == core->incarnation &&
	       PS_GUARD(CONFIRMATION, record->confirmed >= revision);
}

bool ps_view_all_confirmed(const struct ps_lease_core *core, uint64_t revision)
{
	if (core->revision < revision)
		return false;
	for (size_t i = 0; i < core->n_members; i++)
		if (!has_confirmed(core, &core->members[i], revision))
			return false;
	return true;
}

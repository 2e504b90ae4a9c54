// SPDX-License-Identifier: MIT
#include "lease/core.h"

#define MS_NS 1000000ull

/* Store time has surely gone `span` further than `since`; the last step may have begun before. */
static bool has_passed(const struct ps_lease_core *core, uint64_t since_ms, uint64_t span_ns)
{
	return core->clock_ms >= since_ms + (span_ns + core->config.tick_max_ns) / MS_NS;
}

static void write_tick(struct ps_lease_core *core, uint64_t passed_ns)
{
	ps_lease_begin(core, PS_TXN_TICK);
	ps_lease_compare(core, PS_LEASE_CLOCK, 0, core->clock_revision);
	ps_lease_write(core, PS_LEASE_CLOCK, 0)->value.clock_ms =
		(core->clock_revision ? core->clock_ms : 0) + passed_ns / MS_NS;
}

static void write_birth(struct ps_lease_core *core, unsigned kind, bool is_settled)
{
	struct ps_birth_record *birth;

	ps_lease_begin(core, kind);
	ps_lease_compare(core, PS_LEASE_BIRTH, 0, core->birth_revision);
	ps_lease_compare(core, PS_LEASE_CLOCK, 0, core->clock_revision);
	birth = &ps_lease_write(core, PS_LEASE_BIRTH, 0)->value.birth;
	*birth = core->birth;
	if (kind == PS_TXN_BIRTH)
		*birth = (struct ps_birth_record){core->incarnation, core->clock_ms, false};
	birth->is_settled = is_settled;
}

static bool has_room(const struct ps_lease_core *core)
{
	return core->txn.n_writes < PS_LEASE_WRITES_MAX;
}

static void reassert_slots(struct ps_lease_core *core)
{
	for (uint32_t i = 0; i < core->n_slots && has_room(core); i++) {
		if (!core->slots[i].is_ahead)
			continue;
		/* Quarantine starts anew: this store's time knows nothing of the old one's. */
		ps_lease_write_slot(core, i)->stamp_ms = core->clock_ms;
	}
}

static void reassert_rest(struct ps_lease_core *core)
{
	for (uint32_t i = 0; i < core->n_members && has_room(core); i++) {
		struct ps_host_record *host;

		if (!core->members[i].is_ahead)
			continue;
		ps_lease_compare(core, PS_LEASE_HOST, i, 0);
		host = &ps_lease_write(core, PS_LEASE_HOST, i)->value.host;
		*host = core->members[i].record;
		host->stamp_ms = core->clock_ms;
		host->acked_ms = host->suspect_ms = host->confirmed = 0;
	}
	for (uint32_t i = 0; i < core->n_addresses && has_room(core); i++) {
		if (!core->addresses[i].is_ahead)
			continue;
		ps_lease_compare(core, PS_LEASE_ADDRESS, i, core->addresses[i].revision);
		ps_lease_write(core, PS_LEASE_ADDRESS, i)->value.address =
			core->addresses[i].record;
	}
}

bool ps_keep_restore_txn(struct ps_lease_core *core)
{
	if (!core->clock_revision) {
		write_tick(core, MS_NS);
		return true;
	}
	if (core->birth.incarnation != core->incarnation || !core->birth_revision) {
		write_birth(core, PS_TXN_BIRTH, false);
		return true;
	}
	if (core->n_ahead == 0)
		return false;
	ps_lease_begin(core, PS_TXN_REASSERT);
	ps_lease_compare(core, PS_LEASE_BIRTH, 0, core->birth_revision);
	ps_lease_compare(core, PS_LEASE_CLOCK, 0, core->clock_revision);
	reassert_slots(core);
	reassert_rest(core);
	return true;
}

static bool all_asserted(const struct ps_lease_core *core)
{
	for (size_t i = 0; i < core->n_members; i++)
		if (core->members[i].record.state != PS_HOST_NONE &&
		    core->members[i].record.asserted != core->incarnation)
			return false;
	return true;
}

static bool settle(struct ps_lease_core *core)
{
	/* The missing may use what the backup forgot until their leases and connections are over. */
	uint64_t longest_ns = core->config.own_ns + core->config.quarantine_ns;

	if (ps_lease_is_settled(core) ||
	    !PS_GUARD(SETTLED,
		      all_asserted(core) || has_passed(core, core->birth.stamp_ms, longest_ns)))
		return false;
	write_birth(core, PS_TXN_SETTLE, true);
	return true;
}

/* At least half of the site's hosts know that they renewed when this one's lease was over.  It goes on
 * without the store only with more than half, of which none renewed: the two never meet. */
static bool is_outlived(const struct ps_lease_core *core, const struct ps_host_record *host)
{
	uint64_t since_ms = host->stamp_ms + core->config.dispatch_ns / MS_NS;
	size_t n = 0, n_hosts = 0;

	for (size_t i = 0; i < core->n_members; i++) {
		const struct ps_host_record *other = &core->members[i].record;

		if (other->state == PS_HOST_NONE)
			continue;
		n_hosts++;
		n += other->asserted == core->incarnation && other->acked_ms >= since_ms;
	}
	return 2 * n >= n_hosts;
}

static unsigned due_for(const struct ps_lease_core *core, const struct ps_host_record *host)
{
	if (host->state != PS_HOST_ALIVE ||
	    !has_passed(core, host->stamp_ms, core->config.dispatch_ns))
		return 0;
	if (!host->suspect_ms)
		return PS_GUARD(EVIDENCE, is_outlived(core, host)) ? PS_TXN_SUSPECT : 0;
	if (!has_passed(core, host->suspect_ms, core->config.vote_ns))
		return 0;
	if (host->is_dispatcher)
		return PS_TXN_EVICT;
	return has_passed(core, host->stamp_ms, core->config.own_ns) ? PS_TXN_EXPIRE : 0;
}

static bool bury(struct ps_lease_core *core)
{
	for (uint32_t i = 0; i < core->n_members; i++) {
		unsigned kind =
			i == core->config.self ? 0 : due_for(core, &core->members[i].record);
		struct ps_host_record *host;

		if (!kind)
			continue;
		ps_lease_begin(core, kind);
		ps_lease_compare(core, PS_LEASE_HOST, i, core->members[i].revision);
		ps_lease_compare(core, PS_LEASE_CLOCK, 0, core->clock_revision);
		host = &ps_lease_write(core, PS_LEASE_HOST, i)->value.host;
		*host = core->members[i].record;
		if (kind == PS_TXN_SUSPECT)
			host->suspect_ms = core->clock_ms;
		else if (kind == PS_TXN_EVICT)
			host->is_dispatcher = false;
		else
			host->state = PS_HOST_EXPIRED;
		return true;
	}
	return false;
}

static bool is_orphan(const struct ps_lease_core *core, const struct ps_lease_slot *slot)
{
	uint16_t owner = ps_lease_owner(slot);

	return owner < core->n_members && core->members[owner].record.state != PS_HOST_ALIVE;
}

static bool reclaim(struct ps_lease_core *core)
{
	uint16_t holder = PS_LEASE_NOBODY;

	for (uint32_t i = 0; i < core->n_slots; i++) {
		const struct ps_lease_slot *slot = &core->slots[i];
		struct ps_slice_record *record;

		if (!is_orphan(core, slot) ||
		    (holder != PS_LEASE_NOBODY && slot->record.holder != holder))
			continue;
		if (holder == PS_LEASE_NOBODY) {
			holder = slot->record.holder;
			ps_lease_begin(core, PS_TXN_RECLAIM);
			ps_lease_compare(core, PS_LEASE_HOST, holder,
					 core->members[holder].revision);
			ps_lease_compare(core, PS_LEASE_CLOCK, 0, core->clock_revision);
		}
		if (!has_room(core))
			break;
		record = ps_lease_write_slot(core, i);
		record->state = PS_SLICE_QUARANTINE;
		record->stamp_ms = core->clock_ms;
	}
	return holder != PS_LEASE_NOBODY;
}

static bool release(struct ps_lease_core *core)
{
	ps_lease_begin(core, PS_TXN_FREE);
	for (uint32_t i = 0; i < core->n_slots && has_room(core); i++) {
		const struct ps_slice_record *record = &core->slots[i].record;

		if (record->state == PS_SLICE_QUARANTINE &&
		    PS_GUARD(QUARANTINE,
			     has_passed(core, record->stamp_ms, core->config.quarantine_ns)))
			ps_lease_write_slot(core, i)->state = PS_SLICE_FREE;
	}
	return core->txn.n_writes > 0;
}

/* What nobody in particular is to do: looked for once in each step of store time. */
static bool upkeep(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	uint64_t turn_ns = core->clock_seen_ns + ps_lease_turn_ns(core, core->clock_revision);

	if (core->upkeep_revision == core->clock_revision || !ps_lease_is_due(ret, turn_ns, now_ns))
		return false;
	if (settle(core))
		return true;
	if (ps_lease_is_settled(core) && (bury(core) || reclaim(core) || release(core)))
		return true;
	core->upkeep_revision = core->clock_revision;
	return false;
}

bool ps_keep_txn(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	uint64_t passed_ns = now_ns - core->clock_seen_ns;
	uint64_t turn_ns = ps_lease_turn_ns(core, core->clock_revision * 2 + 1);

	if (!core->is_joined)
		return false;
	if (upkeep(core, now_ns, ret))
		return true;
	if (!ps_lease_is_due(ret, core->clock_seen_ns + core->config.tick_ns + turn_ns, now_ns))
		return false;
	if (passed_ns > core->config.tick_max_ns)
		passed_ns = core->config.tick_max_ns;
	write_tick(core, ps_lease_shorter(core, passed_ns));
	return true;
}

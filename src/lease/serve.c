// SPDX-License-Identifier: MIT
#include "lease/core.h"

static bool is_serving(const struct ps_lease_core *core)
{
	return core->dispatch == PS_DISPATCH_REGISTERED || core->dispatch == PS_DISPATCH_ANNOUNCED;
}

static uint64_t dispatch_until(const struct ps_lease_core *core)
{
	return core->renewed_sent_ns + ps_lease_shorter(core, core->config.dispatch_ns);
}

uint64_t ps_serve_own_until(const struct ps_lease_core *core)
{
	uint64_t until_ns = core->renewed_sent_ns + ps_lease_shorter(core, core->config.own_ns);

	if (!core->renewed_sent_ns)
		return 0;
	return until_ns > core->vote_until_ns ? until_ns : core->vote_until_ns;
}

uint64_t ps_serve_confirmable(const struct ps_lease_core *core)
{
	if (PS_GUARD(LOADED, core->loaded_revision >= core->table_revision) || core->revision == 0)
		return core->revision;
	return core->loaded_revision;
}

void ps_serve_reset(struct ps_lease_core *core)
{
	/* Revisions of another incarnation count for nothing: load again, register again. */
	core->table_revision = 1;
	core->registered_revision = 0;
	core->is_restored = core->is_joined;
	core->mark_revision = core->acked_ms = 0;
	if (PS_LACKS(INCARNATION))
		return;
	core->loaded_revision = 0;
	core->loading_revision = PS_LEASE_NEVER; /* an answer still to come is of the old one */
	core->is_loading = false;
}

void ps_serve_peer(struct ps_lease_core *core, const struct ps_lease_event *event, uint64_t now_ns)
{
	struct ps_lease_member *member = &core->members[event->index];

	if (event->index >= core->n_members)
		return;
	if (event->asked_ns > member->asked_ns)
		member->asked_ns = event->asked_ns;
	if (event->age_ns != PS_LEASE_NEVER && now_ns - event->age_ns > member->renewed_ns &&
	    event->age_ns <= now_ns)
		member->renewed_ns = now_ns - event->age_ns;
}

/* The store is down for most of the site and nobody known could renew since we last did.  Evidence
 * to the contrary is never forgotten; agreement is, after vote_ns. */
static bool vote(struct ps_lease_core *core, uint64_t now_ns)
{
	uint64_t oldest_ns = now_ns;
	size_t heard = 1;

	for (size_t i = 0; i < core->n_members; i++) {
		const struct ps_lease_member *member = &core->members[i];

		if (i == core->config.self || member->record.state == PS_HOST_NONE)
			continue;
		if (PS_LACKS(VOTE))
			continue;
		if (member->renewed_ns > core->renewed_sent_ns + core->config.spread_ns)
			return false;
		if (!member->asked_ns || now_ns - member->asked_ns > core->config.vote_ns / 2)
			continue;
		heard++;
		if (member->asked_ns < oldest_ns)
			oldest_ns = member->asked_ns;
	}
	if (!PS_GUARD(VOTE, 2 * heard > ps_view_hosts(core)))
		return false;
	core->vote_until_ns = oldest_ns + core->config.vote_ns;
	return true;
}

static bool has_lost_store(const struct ps_lease_core *core, uint64_t now_ns)
{
	return core->renewed_sent_ns && now_ns > core->renewed_sent_ns + 2 * core->config.beat_ns;
}

static void ask(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	const uint64_t every_ns = core->config.vote_ns / 4;

	if (!core->renewed_sent_ns ||
	    !ps_lease_is_due(ret, core->renewed_sent_ns + 2 * core->config.beat_ns + 1, now_ns) ||
	    !ps_lease_is_due(ret, core->asked_ns + every_ns, now_ns))
		return;
	core->asked_ns = now_ns;
	ps_lease_is_due(ret, now_ns + every_ns, now_ns);
	ps_lease_emit(ret, PS_LEASE_DO_ASK);
}

static void withdraw(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	core->dispatch = PS_LACKS(WITHDRAWN) ? PS_DISPATCH_WITHDRAWN : PS_DISPATCH_WITHDRAWING;
	core->quiet_until_ns = now_ns + core->config.hold_down_ns;
	core->is_told = true;
	ps_lease_emit(ret, PS_LEASE_DO_WITHDRAW);
}

/* False: this host knew less than the store said for too long, while the store did answer. */
static bool keeps_up(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	if (ps_serve_confirmable(core) >= core->mark_revision) {
		core->is_reconnected = false;
		core->mark_revision = core->head_revision;
		core->mark_ns = now_ns;
		return true;
	}
	if (core->answered_ns < core->mark_ns + core->config.lag_ns)
		return true;
	if (core->is_reconnected)
		return false;
	core->is_reconnected = true;
	core->mark_ns = now_ns;
	ps_lease_emit(ret, PS_LEASE_DO_RECONNECT);
	return true;
}

/* Somebody declared this host expired, deleted it, or runs under its name. */
static bool is_displaced(const struct ps_lease_core *core)
{
	const struct ps_lease_member *self = ps_view_self(core);

	return core->is_joined && core->is_synced && !core->is_restored &&
	       (self->record.state != PS_HOST_ALIVE ||
		self->record.session != core->config.session);
}

static void guard_lease(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	uint64_t last_call_ns = dispatch_until(core) - core->config.withdraw_ns;

	if (is_displaced(core)) {
		core->is_joined = false;
		core->renewed_sent_ns = core->renewed_ns = core->vote_until_ns = 0;
	}
	if (!is_serving(core))
		return;
	if (!core->is_joined || !keeps_up(core, now_ns, ret)) {
		withdraw(core, now_ns, ret);
		return;
	}
	if (ps_lease_is_due(ret, last_call_ns, now_ns) && !vote(core, now_ns))
		withdraw(core, now_ns, ret);
}

static void load(struct ps_lease_core *core, struct ps_lease_actions *ret)
{
	if (core->is_loading || !core->is_synced || core->loaded_revision >= core->table_revision ||
	    core->revision <= core->loaded_revision)
		return;
	core->is_loading = true;
	core->loading_revision = core->revision;
	ps_lease_emit(ret, PS_LEASE_DO_LOAD)->revision = core->revision;
}

static void announce(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	/* What a restored store says is not the truth before everybody has re-asserted. */
	if (core->dispatch != PS_DISPATCH_REGISTERED || !core->registered_revision ||
	    !PS_GUARD(SETTLED, ps_lease_is_settled(core) &&
				       ps_serve_confirmable(core) >= core->birth_revision))
		return;
	if (!PS_GUARD(REGISTRATION, ps_serve_confirmable(core) >= core->registered_revision) ||
	    core->loaded_revision == 0)
		return;
	if (now_ns >= dispatch_until(core) - core->config.withdraw_ns)
		return;
	core->dispatch = PS_DISPATCH_ANNOUNCED;
	ps_lease_emit(ret, PS_LEASE_DO_ANNOUNCE);
}

/* Own leases and announcement end by themselves, should this program not be there to end them. */
static void tell_deadlines(struct ps_lease_core *core, uint64_t now_ns,
			   struct ps_lease_actions *ret)
{
	bool is_carried = has_lost_store(core, now_ns) && vote(core, now_ns);
	uint64_t until_ns = PS_LACKS(DEADLINE) ? PS_LEASE_NEVER : ps_serve_own_until(core);
	uint64_t attract_ns = dispatch_until(core);

	if (is_carried && core->vote_until_ns > attract_ns)
		attract_ns = core->vote_until_ns;
	if (until_ns > core->told_until_ns) {
		core->told_until_ns = until_ns;
		ps_lease_emit(ret, PS_LEASE_DO_DEADLINE)->until_ns = until_ns;
	}
	/* Not while withdrawing: what has lapsed must not attract again with an old table. */
	if (attract_ns > core->told_attract_ns && core->renewed_sent_ns && is_serving(core)) {
		core->told_attract_ns = attract_ns;
		ps_lease_emit(ret, PS_LEASE_DO_ATTRACT)->until_ns = attract_ns;
	}
}

void ps_serve_poll(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	if (core->dispatch == PS_DISPATCH_WITHDRAWING && !core->is_told) {
		core->is_told = true;
		ps_lease_emit(ret, PS_LEASE_DO_WITHDRAW);
	}
	ask(core, now_ns, ret);
	tell_deadlines(core, now_ns, ret);
	guard_lease(core, now_ns, ret);
	load(core, ret);
	announce(core, now_ns, ret);
}

/* Somebody waits for a confirmation that can be given. */
static bool owes_confirmation(const struct ps_lease_core *core, uint64_t now_ns,
			      struct ps_lease_actions *ret)
{
	uint64_t confirmed = ps_view_self(core)->record.confirmed;

	if (!is_serving(core) || confirmed >= core->grant_revision ||
	    ps_serve_confirmable(core) <= confirmed)
		return false;
	return ps_lease_is_due(
		ret, core->confirmed_at_ns + core->config.confirm_ns * ps_view_hosts(core), now_ns);
}

static bool may_register(const struct ps_lease_core *core, uint64_t now_ns,
			 struct ps_lease_actions *ret)
{
	return core->wants_traffic && core->is_joined && core->dispatch == PS_DISPATCH_OFF &&
	       ps_lease_is_due(ret, core->quiet_until_ns, now_ns);
}

static bool is_beat_due(const struct ps_lease_core *core, uint64_t now_ns,
			struct ps_lease_actions *ret)
{
	const struct ps_host_record *record = &ps_view_self(core)->record;

	if (!core->is_joined) /* nothing of a former life may be left */
		return core->n_own == 0 && (core->dispatch == PS_DISPATCH_WITHDRAWN ||
					    core->dispatch == PS_DISPATCH_OFF);
	return ps_lease_is_due(ret, core->renewed_sent_ns + core->config.beat_ns, now_ns) ||
	       core->is_restored || record->suspect_ms || record->asserted != core->incarnation ||
	       record->wish_pool != core->wish_pool || core->dispatch == PS_DISPATCH_WITHDRAWN ||
	       may_register(core, now_ns, ret) || owes_confirmation(core, now_ns, ret);
}

bool ps_serve_txn(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret)
{
	const struct ps_lease_member *self = ps_view_self(core);
	struct ps_host_record *record;

	if (!core->clock_revision || !is_beat_due(core, now_ns, ret))
		return false;
	ps_lease_begin(core, PS_TXN_BEAT);
	ps_lease_compare(core, PS_LEASE_HOST, core->config.self, self->revision);
	ps_lease_compare(core, PS_LEASE_CLOCK, 0, core->clock_revision);
	record = &ps_lease_write(core, PS_LEASE_HOST, core->config.self)->value.host;
	*record = (struct ps_host_record){
		.session = core->config.session,
		.asserted = core->n_ahead == 0 ? core->incarnation : self->record.asserted,
		.stamp_ms = core->clock_ms,
		.acked_ms = core->acked_ms,
		.confirmed = is_serving(core) ? ps_serve_confirmable(core) : 0,
		.wish_pool = core->wish_pool,
		.wish_ms = core->wish_ms,
		.state = PS_HOST_ALIVE,
		.is_dispatcher = is_serving(core) || may_register(core, now_ns, ret) ||
				 core->dispatch == PS_DISPATCH_WITHDRAWING,
	};
	if (!core->is_joined)
		record->is_dispatcher = false;
	return true;
}

/* What the record just written says about the dispatcher. */
static void take_registration(struct ps_lease_core *core, uint64_t revision)
{
	bool is_registered = ps_view_self(core)->record.is_dispatcher;

	if (core->dispatch == PS_DISPATCH_OFF && is_registered)
		core->dispatch = PS_DISPATCH_REGISTERED;
	else if (core->dispatch == PS_DISPATCH_WITHDRAWN && !is_registered)
		core->dispatch = PS_DISPATCH_OFF;
	if (is_serving(core) && !core->registered_revision)
		core->registered_revision = revision;
	if (core->dispatch == PS_DISPATCH_OFF)
		core->registered_revision = 0;
}

void ps_serve_renewed(struct ps_lease_core *core, uint64_t revision, uint64_t now_ns)
{
	const struct ps_host_record *sent = &core->txn.writes[0].value.host;

	if (!core->is_joined || core->is_restored)
		core->join_revision = revision;
	core->is_joined = true;
	core->is_restored = false;
	core->is_adopting = true;
	core->renewed_sent_ns = core->sent_ns;
	core->renewed_ns = now_ns;
	core->acked_ms = sent->stamp_ms;
	core->confirmed_at_ns = now_ns;
	core->vote_until_ns = 0;
	take_registration(core, revision);
}

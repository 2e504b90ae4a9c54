// SPDX-License-Identifier: MIT
/*
 * replay [--without GUARD] < events
 *
 * Plays a trace of lease.pml to the C core, in the simulator's world: one site, two hosts, one slice.
 * The trace decides what fails when, in which order the slice's transactions reach the store, and when
 * a kernel has its table.  An event whose time has not come for the core is waited for, then passed by:
 * a trace of a model that lacks a guard asks for what the core refuses.  The invariants are the
 * simulator's.  Exit status 1: one did not hold.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim.h"

int ps_mutant;

/* What the trace lets through now, for which host. */
static struct {
	uint32_t host;
	unsigned kind; /* of transaction */
	bool is_txn, is_load;
	bool is_in[2]; /* the trace has let this host into the store as it is now */
} open_gate;

static bool is_of_slice(const struct ps_lease_txn *txn)
{
	return txn->kind == PS_TXN_GRANT || txn->kind == PS_TXN_ACTIVATE ||
	       txn->kind == PS_TXN_DRAIN || txn->kind == PS_TXN_GIVE;
}

static bool gate(struct world *world, const struct item *item)
{
	(void)world;
	if (item->kind == ITEM_ARRIVE && !open_gate.is_in[item->host])
		return false;
	if (item->kind == ITEM_ARRIVE && is_of_slice(&item->txn))
		return open_gate.is_txn && item->host == open_gate.host &&
		       item->txn.kind == open_gate.kind && item->txn.writes[0].key.index == 0;
	if (item->kind == ITEM_CORE && item->event.kind == PS_LEASE_LOADED)
		return open_gate.is_load && item->host == open_gate.host;
	return true;
}

static unsigned slice_state(const struct world *world)
{
	return world->stores[0].now.slots[0].state;
}

/* Each event: what it does to the world, and how one sees that it came about. */
static bool is_there(const struct world *world, const char *event, uint32_t h)
{
	const struct host *host = &world->hosts[h];
	const struct ps_host_record *record = &world->stores[0].now.hosts[h];
	const struct ps_slice_record *slice = &world->stores[0].now.slots[0];
	const struct ps_lease_core *core = &host->core;
	const struct {
		const char *event;
		bool is_there;
	} rows[] = {
		{"join", core->is_joined && core->is_synced && core->loaded_revision > 0},
		{"rejoin", core->is_joined},
		{"assert", core->is_joined && record->asserted == world->stores[0].incarnation},
		{"settle",
		 world->stores[0].now.birth.is_settled &&
			 world->stores[0].now.birth.incarnation == world->stores[0].incarnation},
		{"register", record->is_dispatcher},
		{"deliver", core->loaded_revision >= core->table_revision},
		{"confirm", record->confirmed >= world->stores[0].now.slot_revisions[0]},
		{"announce", kernel_attracts(world, host)},
		{"renew", core->renewed_ns && ps_lease_age_ns(core, host_ns(world, host)) < S},
		{"grant", slice->state == PS_SLICE_GRANTED && slice->holder == h},
		{"adopt", core->n_own > 0},
		{"activate", host->words[0] == PS_WORD_ACTIVE},
		{"drain", slice->state == PS_SLICE_DRAINING},
		{"give", slice->state == PS_SLICE_QUARANTINE},
		{"free", slice->state == PS_SLICE_FREE},
		{"reclaim", slice->state == PS_SLICE_QUARANTINE || slice->state == PS_SLICE_FREE},
		{"expire", record->state == PS_HOST_EXPIRED},
		{"evict", !record->is_dispatcher},
		{"dispatch_over", host_ns(world, host) >= host->attract_ns},
		{"deadline", host_ns(world, host) >= host->until_ns[0]},
		{"clear", host->words[0] != PS_WORD_ACTIVE},
		{"clear_busy", host->words[0] != PS_WORD_ACTIVE},
		{"barrier", host->words[0] != PS_WORD_ACTIVE},
		{"connect", true},
		{"hang_up", !host->in_use[0]},
		{"emptied", host->words[0] == PS_WORD_GONE},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
		if (strcmp(rows[i].event, event) == 0)
			return rows[i].is_there;
	return true;
}

static void open_for(const char *event, uint32_t h)
{
	static const struct {
		const char *event;
		unsigned kind;
	} txns[] = {{"grant", PS_TXN_GRANT},
		    {"activate", PS_TXN_ACTIVATE},
		    {"drain", PS_TXN_DRAIN},
		    {"give", PS_TXN_GIVE}};

	open_gate.host = h;
	open_gate.is_txn = false;
	open_gate.is_load = strcmp(event, "deliver") == 0 || strcmp(event, "join") == 0;
	if (strcmp(event, "join") == 0 || strcmp(event, "assert") == 0)
		open_gate.is_in[h] = true;
	if (strcmp(event, "crash") == 0 || strcmp(event, "rollback") == 0)
		open_gate.is_in[h] = false;
	if (strcmp(event, "rollback") == 0)
		open_gate.is_in[1 - h] = false;
	for (size_t i = 0; i < sizeof(txns) / sizeof(*txns); i++) {
		if (strcmp(txns[i].event, event) != 0)
			continue;
		open_gate.is_txn = true;
		open_gate.kind = txns[i].kind;
	}
}

static void leave(struct world *world, uint32_t h)
{
	const struct ps_lease_event event = {.kind = PS_LEASE_LEAVE, .index = 0, .on = true};

	if (world->hosts[h].is_running)
		host_step(world, h, &event);
}

/* A host is a dispatcher, and wants a slice, when the trace says so. */
static void calm(struct host *host)
{
	host->core.wants_traffic = false;
	for (unsigned p = 0; p < POOLS; p++)
		host->core.pools[p].is_used = false;
}

static void do_event(struct world *world, const char *event, uint32_t h)
{
	struct host *host = &world->hosts[h];

	if (strcmp(event, "crash") == 0 && host->is_running)
		host_kill(world, h);
	else if (strcmp(event, "start") == 0 && !host->is_running) {
		host_start(world, h);
		calm(host);
	} else if (strcmp(event, "register") == 0)
		host->core.wants_traffic = true;
	else if (strcmp(event, "grant") == 0)
		host->core.pools[0].is_used = true;
	else if (strcmp(event, "cut") == 0)
		host->cut = 1;
	else if (strcmp(event, "heal") == 0)
		host->cut = 0;
	else if (strcmp(event, "backup") == 0)
		store_backup(world, &world->stores[0]);
	else if (strcmp(event, "rollback") == 0 && world->stores[0].has_backup)
		store_roll_back(world, 0);
	else if (strncmp(event, "clear", 5) == 0)
		leave(world, h);
}

static bool follow(struct world *world, const char *event, uint32_t h)
{
	uint64_t last = world->now + 70 * S;

	open_for(event, h);
	do_event(world, event, h);
	while (!is_there(world, event, h) && world->now < last)
		if (!world_run_until(world, world->now + 5 * MS))
			return false;
	world->hosts[h].core.pools[0].is_used = false;
	return is_there(world, event, h);
}

static int play(struct world *world)
{
	unsigned n = 0, n_followed = 0, h;
	char event[32];

	world->gate = gate;
	for (h = 0; h < 2; h++)
		calm(&world->hosts[h]);
	while (scanf("%31s %u", event, &h) == 2 && h < 2 && !*world->broken) {
		n++;
		if (follow(world, event, h))
			n_followed++;
		else if (!*world->broken)
			printf("not followed: %s %u; ", event, h);
	}
	/* Then everything is let through: all must end well. */
	world->gate = NULL;
	for (h = 0; h < 2 && !*world->broken; h++) {
		do_event(world, "heal", h);
		do_event(world, "start", h);
	}
	(void)world_run_until(world, world->now + 60 * S);
	printf("%u of %u events followed, %s, slice %s\n", n_followed, n,
	       *world->broken ? world->broken : "invariants held",
	       ps_slice_state_text(slice_state(world)));
	return *world->broken ? 1 : 0;
}

static int find_guard(const char *name)
{
	static const char *const names[] = {"NONE",
#define GUARD_NAME(name, label, text) #name,
					    PS_LEASE_GUARDS(GUARD_NAME)
#undef GUARD_NAME
	};

	for (int i = 1; i < PS_LEASE_GUARD_MAX; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return 0;
}

int main(int argc, char **argv)
{
	const struct world_options options = {.n_sites = 1, .hosts_per_site = 2, .end = UINT64_MAX};
	struct world *world;
	int r;

	if (argc == 3 && strcmp(argv[1], "--without") == 0)
		ps_mutant = find_guard(argv[2]);
	world = world_new(1, &options);
	r = play(world);
	world_free(world);
	return r;
}

// SPDX-License-Identifier: MIT
/* One host: its clock, and the glue an agent would be between core, store and kernel. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

uint64_t host_ns(const struct world *world, const struct host *host)
{
	int64_t passed = (int64_t)(world->now - host->boot_at);

	return (uint64_t)(host->boot_ns + passed + passed * host->ppm / 1000000);
}

uint64_t host_real(const struct host *host, uint64_t local_ns)
{
	int64_t passed = (int64_t)local_ns - host->boot_ns;

	if (local_ns > (uint64_t)INT64_MAX / 4)
		return UINT64_MAX / 4;
	return host->boot_at + (uint64_t)(passed - passed * host->ppm / (1000000 + host->ppm));
}

void host_new(struct world *world, uint32_t i)
{
	struct host *host = &world->hosts[i];
	struct ps_lease_core *core = &host->core;
	size_t n = world->n_slots;

	host->site = (uint16_t)(i / world->options.hosts_per_site);
	host->number = (uint16_t)(i % world->options.hosts_per_site);
	host->ppm = (int64_t)world_random(world, 2001) - 1000;
	host->boot_ns = (int64_t)(world_random(world, 1000) * S + S);
	core->n_slots = n;
	core->n_addresses = world->n_addresses;
	core->n_members = world->options.hosts_per_site;
	core->n_pools = POOLS;
	core->own_max = 64;
	core->slots = calloc(n, sizeof(*core->slots));
	core->addresses = calloc(core->n_addresses, sizeof(*core->addresses));
	core->members = calloc(core->n_members, sizeof(*core->members));
	core->pools = calloc(POOLS, sizeof(*core->pools));
	core->own = calloc(core->own_max, sizeof(*core->own));
	host->words = malloc(n);
	memset(host->words, PS_WORD_GONE, n);
	host->in_use = calloc(n, 1);
	host->looking = calloc(n, 1);
	host->until_ns = calloc(n, sizeof(*host->until_ns));
	host->epochs = calloc(n, sizeof(*host->epochs));
	host->is_told = calloc(n, sizeof(*host->is_told));
	host->owners = calloc(n, sizeof(*host->owners));
	host->next_owners = calloc(n, sizeof(*host->next_owners));
	host->sites = calloc(world->n_addresses, sizeof(*host->sites));
	host->next_sites = calloc(world->n_addresses, sizeof(*host->next_sites));
}

void host_free(struct host *host)
{
	void *const all[] = {host->core.slots,  host->core.addresses, host->core.members,
			     host->core.pools,  host->core.own,       host->words,
			     host->in_use,      host->looking,        host->until_ns,
			     host->epochs,      host->is_told,        host->owners,
			     host->next_owners, host->sites,          host->next_sites};

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		free(all[i]);
}

/* The core of a new agent: nothing of the old one is left but what the caller lays out. */
static void init_core(struct world *world, struct host *host)
{
	struct ps_lease_core old = host->core, *core = &host->core;
	uint32_t per_address = (uint32_t)(world->n_slots / world->n_addresses);

	*core = (struct ps_lease_core){.config = world->config,
				       .pools = old.pools,
				       .slots = old.slots,
				       .addresses = old.addresses,
				       .members = old.members,
				       .own = old.own,
				       .n_pools = POOLS,
				       .n_slots = old.n_slots,
				       .n_addresses = old.n_addresses,
				       .n_members = old.n_members,
				       .own_max = old.own_max};
	core->config.self = host->number;
	core->config.site = host->site;
	core->config.session = world_random(world, 1ull << 60) + 1;
	memset(core->slots, 0, core->n_slots * sizeof(*core->slots));
	memset(core->addresses, 0, core->n_addresses * sizeof(*core->addresses));
	memset(core->members, 0, core->n_members * sizeof(*core->members));
	for (uint32_t k = 0; k < core->n_slots; k++)
		core->slots[k].address = k / per_address;
	for (uint32_t p = 0; p < POOLS; p++)
		core->pools[p] =
			(struct ps_lease_pool){.first = (uint32_t)(core->n_slots / POOLS) * p,
					       .n = (uint32_t)(core->n_slots / POOLS),
					       .host_max = 16,
					       .reserve = 2,
					       .is_used = true};
	ps_lease_init(core, true);
}

void host_start(struct world *world, uint32_t i)
{
	struct host *host = &world->hosts[i];
	struct ps_lease_event event = {.kind = PS_LEASE_TIMER};

	init_core(world, host);
	host->is_running = true;
	memset(host->is_told, 0, world->n_slots * sizeof(*host->is_told));
	host->deadline_ns = 0;
	kernel_hand_over(world, i);
	host->incarnation = host->timer_at = 0;
	host->watch_at = world->now + MS + world_random(world, 50 * MS);
	world_push(world, ITEM_WATCH, host->watch_at, i);
	world_tell(world, (int)i, -1, "host %u: agent starts", i);
	host_step(world, i, &event);
}

/* The child that outlives the agent withdraws the announcement. */
void host_kill(struct world *world, uint32_t i)
{
	struct host *host = &world->hosts[i];
	struct item *item;

	host->is_running = false;
	host->life++;
	host->watch_at = 0;
	memset(host->asked_at, 0, sizeof(host->asked_at));
	item = world_push(world, ITEM_SILENT, world->now + world_random(world, S), i);
	item->incarnation = world->now;
}

static struct item *later(struct world *world, uint32_t i, unsigned kind, uint64_t delay_ns)
{
	struct item *item = world_push(world, ITEM_CORE, world->now + delay_ns, i);

	item->event = (struct ps_lease_event){.kind = (uint8_t)kind};
	return item;
}

static void send(struct world *world, uint32_t i, const struct ps_lease_txn *txn)
{
	struct host *host = &world->hosts[i];
	bool is_up = store_is_reachable(world, host);
	struct item *item =
		later(world, i, PS_LEASE_RESULT, is_up || world_random(world, 2) ? S : MS);

	item->event.status = PS_LEASE_UNKNOWN;
	item->event.id = txn->id;
	if (!is_up || (host->lossy && world_random(world, 4) == 0))
		return;
	item = world_push(world, ITEM_ARRIVE,
			  world->now + MS / 2 + world_random(world, host->lossy ? 3 * S : 4 * MS),
			  i);
	item->txn = *txn;
	item->incarnation = host->core.incarnation;
}

static void load(struct world *world, uint32_t i, uint64_t revision)
{
	struct host *host = &world->hosts[i];
	uint64_t delay_ns = MS + world_random(world, 20 * MS);

	if (host->slow_load)
		delay_ns += world_random(world, 8 * S);
	kernel_snapshot(world, i, host->next_owners, host->next_sites);
	later(world, i, PS_LEASE_LOADED, delay_ns)->event.revision = revision;
}

static void withdraw(struct world *world, uint32_t i)
{
	uint64_t delay_ns = 20 * MS + world_random(world, 1500 * MS);
	struct item *item = world_push(world, ITEM_SILENT, world->now + delay_ns, i);

	item->incarnation = world->now;
	later(world, i, PS_LEASE_WITHDRAWN, delay_ns + 1);
	world_tell(world, (int)i, -1, "host %u: withdraws", i);
}

static void announce(struct world *world, uint32_t i)
{
	struct host *host = &world->hosts[i];

	host->is_announced = true;
	host->announced_at = world->now;
	world_tell(world, (int)i, -1, "host %u: announces, table of revision %llu", i,
		   (unsigned long long)host->core.loaded_revision);
	kernel_check_dispatcher(world, i);
	later(world, i, PS_LEASE_ANNOUNCED, MS);
}

static bool hears(const struct host *a, const struct host *b)
{
	return a->group == b->group && !a->cut_from_peers && !b->cut_from_peers && !a->alone &&
	       !b->alone && b->is_running && !b->stalled;
}

static void ask(struct world *world, uint32_t i)
{
	struct host *host = &world->hosts[i];
	uint32_t n = world->options.hosts_per_site;

	for (uint32_t k = host->site * n; k < (host->site + 1u) * n; k++) {
		const struct host *peer = &world->hosts[k];
		struct item *item;

		if (k == i || !hears(host, peer))
			continue;
		item = later(world, i, PS_LEASE_PEER, MS + world_random(world, 20 * MS));
		item->event.index = peer->number;
		item->event.asked_ns = host_ns(world, host);
		item->event.age_ns = ps_lease_age_ns(&peer->core, host_ns(world, peer));
	}
}

static void note_wait(struct world *world, struct host *host, uint32_t slot)
{
	unsigned pool = host->core.slots[slot].pool;
	struct stats *stats = &world->stats;

	if (!host->asked_at[pool])
		return;
	if (stats->n_waits == stats->waits_max) {
		stats->waits_max = stats->waits_max ? 2 * stats->waits_max : 256;
		stats->waits_ns =
			realloc(stats->waits_ns, stats->waits_max * sizeof(*stats->waits_ns));
	}
	stats->waits_ns[stats->n_waits++] = world->now - host->asked_at[pool];
	host->asked_at[pool] = 0;
}

static void act_kernel(struct world *world, uint32_t i, const struct ps_lease_action *action)
{
	struct host *host = &world->hosts[i];
	bool is_lapsed;

	switch (action->kind) {
	case PS_LEASE_DO_WORD:
		kernel_word(world, i, action);
		if (action->word == PS_WORD_ACTIVE)
			note_wait(world, host, action->index);
		break;
	case PS_LEASE_DO_DEADLINE:
		kernel_deadline(world, i, action->until_ns);
		break;
	case PS_LEASE_DO_ATTRACT:
		is_lapsed = host->is_announced && !kernel_attracts(world, host);
		host->attract_ns = action->until_ns;
		if (is_lapsed)
			kernel_check_dispatcher(world, i);
		break;
	case PS_LEASE_DO_BARRIER:
		later(world, i, PS_LEASE_BARRIER, 10 * MS + world_random(world, 10 * MS))
			->event.id = action->id;
		break;
	case PS_LEASE_DO_LOOK:
		host->looking[action->index] = 1;
		kernel_report_empty(world, i, action->index);
		break;
	default:
		kernel_destroy(world, i, action->index);
	}
}

static void act(struct world *world, uint32_t i, const struct ps_lease_action *action,
		const struct ps_lease_txn *txn)
{
	switch (action->kind) {
	case PS_LEASE_DO_TXN:
		send(world, i, txn);
		break;
	case PS_LEASE_DO_LOAD:
		load(world, i, action->revision);
		break;
	case PS_LEASE_DO_ANNOUNCE:
		announce(world, i);
		break;
	case PS_LEASE_DO_WITHDRAW:
		withdraw(world, i);
		break;
	case PS_LEASE_DO_ASK:
		ask(world, i);
		break;
	case PS_LEASE_DO_RECONNECT:
		world->hosts[i].incarnation = 0;
		break;
	default:
		act_kernel(world, i, action);
	}
}

static void arm(struct world *world, uint32_t i, uint64_t wake_ns)
{
	struct host *host = &world->hosts[i];
	uint64_t at;

	if (wake_ns == PS_LEASE_NEVER)
		return;
	at = host_real(host, wake_ns) + 1000;
	if (at <= world->now)
		at = world->now + 1000;
	if (host->timer_at && host->timer_at <= at)
		return;
	host->timer_at = at;
	world_push(world, ITEM_TIMER, at, i);
}

void host_step(struct world *world, uint32_t i, const struct ps_lease_event *event)
{
	struct ps_lease_actions actions;

	ps_lease_step(&world->hosts[i].core, event, host_ns(world, &world->hosts[i]), &actions);
	world->stats.n_steps++;
	if (event->kind == PS_LEASE_RECORD || event->kind == PS_LEASE_RESET ||
	    event->kind == PS_LEASE_LEFT)
		return;
	for (size_t k = 0; k < actions.n && !*world->broken; k++)
		act(world, i, &actions.items[k], &actions.txn);
	arm(world, i, actions.wake_ns);
}

/* The load wanders; what share of the held ports it takes is what the hooks would report. */
void host_demand(struct world *world, uint32_t i)
{
	struct host *host = &world->hosts[i];

	for (uint32_t p = 0; p < POOLS; p++) {
		const struct ps_lease_pool *pool = &host->core.pools[p];
		struct ps_lease_event event = {.kind = PS_LEASE_DEMAND, .index = p};
		uint32_t held = 0, pct;

		if (world_random(world, 15) == 0)
			host->load[p] = (uint32_t)world_random(world, 5 * SLICE_PORTS);
		for (size_t k = 0; k < host->core.n_own; k++)
			held += host->core.slots[host->core.own[k].slot].pool == p &&
				host->core.own[k].phase == PS_OWN_USING;
		pct = held ? host->load[p] * 100 / (held * SLICE_PORTS) : 100;
		event.fullest_pct = event.all_pct = pct > 100 ? 100 : pct;
		if (pool->is_unfit || host->core.is_retired || held >= pool->host_max) {
			host->asked_at[p] = 0;
			world->stats.short_of +=
				pct >= 100 && world->now < world->options.faults_until;
		} else if (pct < world->config.watermark_pct) {
			host->asked_at[p] = 0;
		} else if (!host->asked_at[p]) {
			host->asked_at[p] = world->now;
		}
		if (host->is_running && !host->stalled)
			host_step(world, i, &event);
	}
}

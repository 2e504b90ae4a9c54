// SPDX-License-Identifier: MIT
/* What goes wrong, and the operators' orders, which come at the worst time. */
#include <stdlib.h>

#include "sim.h"

static const char *const texts[] = {
#define FAULT_TEXT(name, text) text,
	FAULTS(FAULT_TEXT)
#undef FAULT_TEXT
};

static struct item *heal_later(struct world *world, unsigned fault, uint32_t host, uint64_t most_ns)
{
	uint64_t at = world->now + 100 * MS + world_random(world, most_ns);
	uint64_t last = world->options.faults_until + 15 * S;
	struct item *item = world_push(world, ITEM_HEAL, at < last ? at : last, host);

	item->index = fault;
	return item;
}

static void each_of_site(struct world *world, uint16_t site, bool on, bool is_cut)
{
	uint32_t n = world->options.hosts_per_site;

	for (uint32_t k = 0; k < n; k++) {
		struct host *host = &world->hosts[site * n + k];

		/* By number, so that healing finds the same ones: more than half. */
		if (is_cut && k < n / 2 + 2)
			host->cut += on ? 1 : -1;
		if (!is_cut)
			host->group = on ? k < n / 2 + 2 : 0;
	}
}

static void set_flags(struct world *world, unsigned fault, uint32_t i, bool on)
{
	struct host *host = &world->hosts[i];
	int by = on ? 1 : -1;

	switch (fault) {
	case FAULT_STORE_DOWN:
		world->stores[host->site].down += by;
		break;
	case FAULT_HOST_CUT:
		host->cut += by;
		break;
	case FAULT_MOST_CUT:
		each_of_site(world, host->site, on, true);
		break;
	case FAULT_APART:
		each_of_site(world, host->site, on, true);
		each_of_site(world, host->site, on, false);
		break;
	case FAULT_PEERS_SPLIT:
		each_of_site(world, host->site, on, false);
		break;
	case FAULT_PEER_CUT:
		host->cut_from_peers += by;
		break;
	case FAULT_ALONE:
		host->alone += by;
		break;
	case FAULT_STALL:
		host->stalled += by;
		break;
	case FAULT_SLOW_LOAD:
		host->slow_load += by;
		break;
	case FAULT_SLOW_WATCH:
		host->slow_watch += by;
		break;
	default:
		host->lossy += by;
	}
}

static void retire(struct world *world, uint32_t i, bool on)
{
	struct ps_lease_event event = {.kind = PS_LEASE_RETIRE, .on = on};

	if (world->hosts[i].is_running)
		host_step(world, i, &event);
}

static void kill_host(struct world *world, unsigned fault, uint32_t i)
{
	struct host *host = &world->hosts[i];

	if (!host->is_running)
		return;
	host_kill(world, i);
	if (fault == FAULT_REBOOT) {
		kernel_reset(world, i);
		host->boot_at = world->now;
		host->boot_ns = (int64_t)S;
	}
	heal_later(world, fault, i, world_random(world, 4) ? 10 * S : 80 * S);
}

static void restore(struct world *world, uint32_t i)
{
	struct store *store = &world->stores[world->hosts[i].site];

	if (!store->has_backup || store->down)
		return;
	store->down++;
	heal_later(world, FAULT_ROLLBACK, i, 6 * S);
}

static bool view_of(struct world *world, uint16_t site, uint32_t address, struct ps_move_site *ret)
{
	uint32_t n = world->options.hosts_per_site;
	uint32_t i = site * n + (uint32_t)world_random(world, n);
	const struct host *host = &world->hosts[i];
	const struct ps_lease_core *core = &host->core;

	if (!host->is_running || !store_is_reachable(world, host) || !ps_lease_is_settled(core) ||
	    core->n_ahead || core->incarnation != world->stores[site].incarnation)
		return false;
	ret->record = core->addresses[address].record;
	ret->revision = core->addresses[address].revision;
	ret->is_unheld = ps_move_is_unheld(core, address);
	ret->is_confirmed = ps_move_is_confirmed(core, address);
	return true;
}

static bool write_step(struct world *world, uint32_t address, const struct ps_move_step *step)
{
	struct ps_lease_txn txn = {.n_compares = 1, .n_writes = 1, .kind = PS_TXN_REASSERT};

	if (world->stores[step->site].down)
		return false;
	txn.compares[0].key = (struct ps_lease_key){PS_LEASE_ADDRESS, address};
	txn.compares[0].revision = step->revision;
	txn.writes[0].key = txn.compares[0].key;
	txn.writes[0].value.address = step->record;
	if (store_commit(world, step->site, &txn) != PS_LEASE_DONE)
		return false;
	world_tell(world, -1, -1,
		   "address %u (slices %zu to %zu) in store %u: phase %u, site %u, epoch %u",
		   address, address * world->n_slots / world->n_addresses,
		   (address + 1) * world->n_slots / world->n_addresses - 1, step->site,
		   step->record.phase, step->record.site, step->record.epoch);
	return true;
}

/* Enough stays for each host of the site to have a slice of the pool and one to spare. */
static bool can_spare(const struct world *world, uint16_t site, uint32_t address)
{
	size_t per_pool = world->n_addresses / POOLS, pool = address / per_pool, n = 0;

	for (size_t k = pool * per_pool; k < (pool + 1) * per_pool; k++)
		n += world->stores[site].now.addresses[k].site == site &&
		     world->stores[site].now.addresses[k].phase == PS_ADDRESS_HERE;
	return n > 0 && (n - 1) * (world->n_slots / world->n_addresses) >=
				2 * (size_t)world->options.hosts_per_site;
}

static void move(struct world *world, bool is_twice)
{
	uint32_t address = (uint32_t)world_random(world, world->n_addresses);
	uint16_t n = (uint16_t)world->options.n_sites;
	uint16_t site = (uint16_t)world_random(world, n);
	struct ps_move_site view = {0};
	struct ps_move_step steps[2];
	bool first;

	if (!world->has_moves || world->n_moving > 2 || !can_spare(world, site, address) ||
	    !view_of(world, site, address, &view) ||
	    ps_move_begin(&view, site, (uint16_t)((site + 1) % n), &steps[0]) < 0)
		return;
	first = write_step(world, address, &steps[0]);
	if (!is_twice || ps_move_begin(&view, site, (uint16_t)((site + n - 1) % n), &steps[1]) < 0)
		return;
	if (write_step(world, address, &steps[1]) && first)
		world_break(world, -1, -1, -1, "two operators moved address %u at once", address);
}

/* True while the sites' stores differ about it or it is on its way. */
static bool is_moving(const struct world *world, uint32_t address)
{
	const struct ps_address_record *first = &world->stores[0].now.addresses[address];

	for (size_t s = 0; s < world->options.n_sites; s++) {
		const struct ps_address_record *record = &world->stores[s].now.addresses[address];

		if (record->phase != PS_ADDRESS_HERE || record->epoch != first->epoch)
			return true;
	}
	return false;
}

static void carry_on(struct world *world, uint32_t address)
{
	struct ps_move_site views[16] = {0};
	struct ps_move_step step;

	for (uint16_t s = 0; s < world->options.n_sites && s < 16; s++)
		(void)view_of(world, s, address, &views[s]);
	if (ps_move_next(views, world->options.n_sites, &step) && write_step(world, address, &step))
		world->stats.n_site_moves +=
			step.record.phase == PS_ADDRESS_HERE && step.site == step.record.site;
}

void fault_mover(struct world *world)
{
	world->n_moving = 0;
	for (uint32_t a = 0; world->has_moves && a < world->n_addresses; a++) {
		if (!is_moving(world, a))
			continue;
		world->n_moving++;
		carry_on(world, a);
	}
}

static void strike(struct world *world, unsigned fault, uint32_t i)
{
	switch (fault) {
	case FAULT_CRASH:
	case FAULT_REBOOT:
		kill_host(world, fault, i);
		break;
	case FAULT_ROLLBACK:
		restore(world, i);
		break;
	case FAULT_WALL_JUMP:
		world->hosts[i].wall_ns += (world_random(world, 2) ? 1 : -1) * 86400ll * (int64_t)S;
		break;
	case FAULT_RETIRE:
		retire(world, i, true);
		heal_later(world, fault, i, 30 * S);
		break;
	case FAULT_MOVE:
	case FAULT_TWO_MOVES:
		move(world, fault == FAULT_TWO_MOVES);
		break;
	default:
		set_flags(world, fault, i, true);
		heal_later(world, fault, i, world_random(world, 3) ? 12 * S : 70 * S);
	}
}

void fault_next(struct world *world)
{
	uint64_t mean_ns = 60 * S / world->options.faults_per_minute;
	unsigned fault = (unsigned)world_random(world, FAULT_MAX);
	uint32_t i = (uint32_t)world_random(world, world->n_hosts);

	if (world->now >= world->options.faults_until)
		return;
	world_push(world, ITEM_FAULT, world->now + world_random(world, 2 * mean_ns), 0);
	if (world_random(world, 8) == 0)
		store_backup(world, &world->stores[world->hosts[i].site]);
	world->stats.faults[fault]++;
	world_tell(world, (int)i, -1, "FAULT host %u (site %u): %s", i, world->hosts[i].site,
		   texts[fault]);
	strike(world, fault, i);
}

void fault_heal(struct world *world, const struct item *item)
{
	uint32_t i = item->host;

	world_tell(world, (int)i, -1, "HEALED host %u: %s", i, texts[item->index]);
	switch (item->index) {
	case FAULT_CRASH:
	case FAULT_REBOOT:
		host_start(world, i);
		break;
	case FAULT_ROLLBACK:
		world->stores[world->hosts[i].site].down--;
		store_roll_back(world, world->hosts[i].site);
		break;
	case FAULT_RETIRE:
		retire(world, i, false);
		break;
	default:
		set_flags(world, item->index, i, false);
	}
}

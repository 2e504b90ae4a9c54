// SPDX-License-Identifier: MIT
/* The kernels: hooks, connections, dispatchers.  The invariants are judged here, on what the kernels
 * do, not on what any core believes. */
#include <string.h>

#include "sim.h"

static bool hooks_draw(const struct world *world, const struct host *host, uint32_t slot)
{
	return host->words[slot] != PS_WORD_GONE && host_ns(world, host) < host->until_ns[slot];
}

/* Draws ports, or has connections: after the deadline delivery and guard end them within half of the
 * quarantine. */
static bool uses(const struct world *world, const struct host *host, uint32_t slot)
{
	if (hooks_draw(world, host, slot))
		return true;
	return host->in_use[slot] &&
	       (host->until_ns[slot] == PS_LEASE_NEVER ||
		host_ns(world, host) < host->until_ns[slot] + world->config.quarantine_ns / 2);
}

/* Whether hosts a and b see the same slot under this number. */
static bool is_same_plane(const struct world *world, const struct host *a, const struct host *b)
{
	return world->has_moves || a->site == b->site;
}

/* Where the truth about a slot is kept. */
static size_t plane_of(const struct world *world, uint32_t host, uint32_t slot)
{
	return (world->has_moves ? 0 : world->hosts[host].site) * world->n_slots + slot;
}

static void note_end(struct world *world, uint32_t host, uint32_t slot)
{
	uint64_t ended = host_real(&world->hosts[host], world->hosts[host].until_ns[slot]);

	if (world->now < ended || world->hosts[host].until_ns[slot] == PS_LEASE_NEVER)
		ended = world->now;
	if (ended < world->truth[plane_of(world, host, slot)].ended_at)
		return;
	world->truth[plane_of(world, host, slot)].ended_by = host;
	world->truth[plane_of(world, host, slot)].ended_at = ended;
}

static bool dispatches_right(const struct host *dispatcher, uint32_t slot, uint32_t address,
			     const struct host *user)
{
	if (dispatcher->site != user->site)
		return dispatcher->sites[address] == user->site;
	return dispatcher->owners[slot] == user->number && dispatcher->sites[address] == user->site;
}

bool kernel_attracts(const struct world *world, const struct host *host)
{
	return host->is_announced && host_ns(world, host) < host->attract_ns;
}

static void check_pair(struct world *world, uint32_t dispatcher, uint32_t slot, uint32_t user)
{
	const struct host *d = &world->hosts[dispatcher], *u = &world->hosts[user];
	uint32_t address = u->core.slots[slot].address;

	if (!kernel_attracts(world, d) || dispatches_right(d, slot, address, u))
		return;
	world_break(
		world, (int)slot, (int)dispatcher, (int)user,
		"host %u attracts traffic and sends slice %u, which host %u uses, to %u (site %u)",
		dispatcher, slot, user, d->owners[slot], d->sites[address]);
}

static void check_user(struct world *world, uint32_t user, uint32_t slot)
{
	const struct host *u = &world->hosts[user];

	for (uint32_t i = 0; i < world->n_hosts && !*world->broken; i++) {
		const struct host *other = &world->hosts[i];

		if (!is_same_plane(world, u, other))
			continue;
		if (i != user && uses(world, other, slot))
			world_break(world, (int)slot, (int)user, (int)i,
				    "hosts %u and %u both use slice %u", user, i, slot);
		check_pair(world, i, slot, user);
	}
}

/* Nobody else used it during the last quarantine (less the error of clocks). */
static void check_rest(struct world *world, uint32_t user, uint32_t slot)
{
	struct truth *truth = &world->truth[plane_of(world, user, slot)];
	uint64_t rest = world->config.quarantine_ns - world->config.quarantine_ns / 100;

	for (uint32_t i = 0; i < world->n_hosts; i++) {
		struct host *other = &world->hosts[i];

		if (i != user && is_same_plane(world, other, &world->hosts[user]) &&
		    (other->words[slot] != PS_WORD_GONE || other->in_use[slot]))
			note_end(world, i, slot);
	}
	if (truth->ended_at && truth->ended_by != user && world->now < truth->ended_at + rest)
		world_break(world, (int)slot, (int)user, (int)truth->ended_by,
			    "slice %u is used by host %u %.1f s after host %u", slot, user,
			    (double)(world->now - truth->ended_at) / 1e9, truth->ended_by);
}

void kernel_deadline(struct world *world, uint32_t i, uint64_t until_ns)
{
	struct host *host = &world->hosts[i];

	host->deadline_ns = until_ns;
	for (uint32_t slot = 0; slot < world->n_slots; slot++)
		if (host->is_told[slot])
			host->until_ns[slot] = until_ns;
}

static void leave_calls_under_way(struct world *world, uint32_t host, uint32_t slot)
{
	struct item *item;

	if (world_random(world, 2))
		return;
	item = world_push(world, ITEM_CONNECT, world->now + world_random(world, 10 * MS), host);
	item->index = slot;
}

void kernel_hand_over(struct world *world, uint32_t i)
{
	const struct host *host = &world->hosts[i];
	struct ps_lease_event event = {.kind = PS_LEASE_LEFT};

	for (uint32_t slot = 0; slot < world->n_slots; slot++) {
		if (!hooks_draw(world, host, slot))
			continue;
		event.index = slot;
		event.id = host->epochs[slot];
		host_step(world, i, &event);
	}
}

void kernel_word(struct world *world, uint32_t i, const struct ps_lease_action *action)
{
	struct host *host = &world->hosts[i];
	uint32_t slot = action->index;
	unsigned word = action->word;
	unsigned before = host->words[slot];

	host->words[slot] = (uint8_t)word;
	host->epochs[slot] = (uint32_t)action->id;
	host->is_told[slot] = word != PS_WORD_GONE;
	if (word != PS_WORD_GONE)
		host->until_ns[slot] = host->deadline_ns;
	world_tell(world, (int)i, (int)slot, "host %u: slice %u %s", i, slot,
		   word == PS_WORD_ACTIVE     ? "in use"
		   : word == PS_WORD_DRAINING ? "drains"
					      : "gone");
	if (word == PS_WORD_ACTIVE) {
		check_rest(world, i, slot);
		check_user(world, i, slot);
		world->truth[plane_of(world, i, slot)].user = i;
		host->in_use[slot] = 1;
	} else if (word == PS_WORD_DRAINING) {
		bool is_idle = world_random(world, 3) == 0;
		uint64_t most_ns = is_idle ? MS : 15 * S;

		world_push(world, ITEM_HANG_UP, world->now + world_random(world, most_ns), i)
			->index = slot;
		if (before == PS_WORD_ACTIVE)
			leave_calls_under_way(world, i, slot);
	} else {
		host->looking[slot] = 0;
		if (before != PS_WORD_GONE)
			note_end(world, i, slot);
	}
}

void kernel_report_empty(struct world *world, uint32_t i, uint32_t slot)
{
	struct host *host = &world->hosts[i];
	struct item *item;

	if (!host->looking[slot] || host->in_use[slot])
		return;
	item = world_push(world, ITEM_CORE, world->now + world_random(world, 2 * MS), i);
	item->event = (struct ps_lease_event){.kind = PS_LEASE_EMPTIED, .index = slot};
}

void kernel_hang_up(struct world *world, uint32_t i, uint32_t slot)
{
	struct host *host = &world->hosts[i];

	if (host->in_use[slot] && host->words[slot] == PS_WORD_GONE)
		note_end(world, i, slot);
	if (host->words[slot] != PS_WORD_ACTIVE)
		host->in_use[slot] = 0;
	kernel_report_empty(world, i, slot);
}

void kernel_destroy(struct world *world, uint32_t i, uint32_t slot)
{
	world->hosts[i].in_use[slot] = 0;
	kernel_report_empty(world, i, slot);
}

void kernel_snapshot(struct world *world, uint32_t i, uint16_t *owners, uint16_t *sites)
{
	const struct ps_lease_core *core = &world->hosts[i].core;

	for (size_t k = 0; k < world->n_slots; k++)
		owners[k] = ps_lease_owner(&core->slots[k]);
	for (size_t k = 0; k < world->n_addresses; k++)
		sites[k] = core->addresses[k].record.site;
}

/* A new table was loaded; what has not changed in it was judged before. */
void kernel_load(struct world *world, uint32_t i)
{
	struct host *host = &world->hosts[i];
	uint32_t per_address = (uint32_t)(world->n_slots / world->n_addresses);
	bool is_changed = false;

	for (uint32_t slot = 0; slot < world->n_slots; slot++) {
		uint32_t user = world->truth[plane_of(world, i, slot)].user;
		uint32_t address = slot / per_address;
		bool is_same = host->owners[slot] == host->next_owners[slot] &&
			       host->sites[address] == host->next_sites[address];

		host->owners[slot] = host->next_owners[slot];
		if (slot % per_address == per_address - 1)
			host->sites[address] = host->next_sites[address];
		if (!is_same && user < world->n_hosts &&
		    hooks_draw(world, &world->hosts[user], slot))
			is_changed = true;
	}
	if (is_changed)
		kernel_check_dispatcher(world, i);
}

void kernel_check_dispatcher(struct world *world, uint32_t i)
{
	if (!kernel_attracts(world, &world->hosts[i]))
		return;
	for (uint32_t slot = 0; slot < world->n_slots && !*world->broken; slot++) {
		uint32_t user = world->truth[plane_of(world, i, slot)].user;

		if (user < world->n_hosts && hooks_draw(world, &world->hosts[user], slot))
			check_pair(world, i, slot, user);
	}
}

void kernel_reset(struct world *world, uint32_t i)
{
	struct host *host = &world->hosts[i];

	for (uint32_t slot = 0; slot < world->n_slots; slot++) {
		if (host->words[slot] != PS_WORD_GONE || host->in_use[slot])
			note_end(world, i, slot);
		host->words[slot] = PS_WORD_GONE;
		host->in_use[slot] = host->looking[slot] = 0;
		host->until_ns[slot] = 0;
		host->is_told[slot] = false;
		host->owners[slot] = PS_LEASE_NOBODY;
	}
	host->is_announced = false;
	host->deadline_ns = host->attract_ns = 0;
}

/* After a long peace: everybody serves and holds a slice of each pool, nothing is stuck. */
void kernel_check_end(struct world *world)
{
	for (uint32_t i = 0; i < world->n_hosts && !*world->broken; i++) {
		const struct host *host = &world->hosts[i];
		unsigned held[POOLS] = {0};

		if (!kernel_attracts(world, host))
			world_break(world, -1, (int)i, -1, "host %u does not serve again", i);
		for (size_t k = 0; k < host->core.n_own; k++)
			if (hooks_draw(world, host, host->core.own[k].slot))
				held[host->core.slots[host->core.own[k].slot].pool]++;
		for (unsigned p = 0; p < POOLS && !*world->broken; p++)
			if (!held[p])
				world_break(world, -1, (int)i, -1,
					    "host %u holds nothing of pool %u", i, p);
	}
}

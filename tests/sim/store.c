// SPDX-License-Identifier: MIT
/* The store of one site: revisions, compare-and-swap, a log that watchers read, 800 writes a second. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { WRITES_PER_S = 800 };

static void tables_new(const struct world *world, struct tables *tables)
{
	tables->hosts = calloc(world->options.hosts_per_site, sizeof(*tables->hosts));
	tables->slots = calloc(world->n_slots, sizeof(*tables->slots));
	tables->addresses = calloc(world->n_addresses, sizeof(*tables->addresses));
	tables->host_revisions = calloc(world->options.hosts_per_site, sizeof(uint64_t));
	tables->slot_revisions = calloc(world->n_slots, sizeof(uint64_t));
	tables->address_revisions = calloc(world->n_addresses, sizeof(uint64_t));
}

static void tables_free(struct tables *tables)
{
	free(tables->hosts);
	free(tables->slots);
	free(tables->addresses);
	free(tables->host_revisions);
	free(tables->slot_revisions);
	free(tables->address_revisions);
}

static void tables_copy(const struct world *world, struct tables *to, const struct tables *from)
{
	size_t n = world->options.hosts_per_site;
	struct tables kept = *to;

	memcpy(to->hosts, from->hosts, n * sizeof(*to->hosts));
	memcpy(to->slots, from->slots, world->n_slots * sizeof(*to->slots));
	memcpy(to->addresses, from->addresses, world->n_addresses * sizeof(*to->addresses));
	memcpy(to->host_revisions, from->host_revisions, n * sizeof(uint64_t));
	memcpy(to->slot_revisions, from->slot_revisions, world->n_slots * sizeof(uint64_t));
	memcpy(to->address_revisions, from->address_revisions,
	       world->n_addresses * sizeof(uint64_t));
	*to = *from;
	to->hosts = kept.hosts;
	to->slots = kept.slots;
	to->addresses = kept.addresses;
	to->host_revisions = kept.host_revisions;
	to->slot_revisions = kept.slot_revisions;
	to->address_revisions = kept.address_revisions;
}

/* A new site: every address has a record, the operator has said that nobody holds anything. */
void store_new(struct world *world, struct store *store)
{
	tables_new(world, &store->now);
	tables_new(world, &store->backup);
	store->incarnation = world_random(world, 1ull << 40) + 1;
	store->now.revision = 1;
	store->now.birth = (struct ps_birth_record){store->incarnation, 0, true};
	store->now.birth_revision = 1;
	for (size_t i = 0; i < world->n_addresses; i++) {
		uint16_t site = (uint16_t)(world->has_moves ? i % world->options.n_sites
							    : (size_t)(store - world->stores));

		store->now.addresses[i] = (struct ps_address_record){1, site, site, 0, false};
		store->now.address_revisions[i] = 1;
	}
}

void store_free(struct store *store)
{
	tables_free(&store->now);
	tables_free(&store->backup);
	free(store->log);
}

bool store_is_reachable(const struct world *world, const struct host *host)
{
	return !world->stores[host->site].down && !host->cut && !host->alone;
}

static uint64_t *revision_of(struct tables *tables, const struct ps_lease_key *key)
{
	switch (key->kind) {
	case PS_LEASE_CLOCK:
		return &tables->clock_revision;
	case PS_LEASE_BIRTH:
		return &tables->birth_revision;
	case PS_LEASE_HOST:
		return &tables->host_revisions[key->index];
	case PS_LEASE_SLICE:
		return &tables->slot_revisions[key->index];
	default:
		return &tables->address_revisions[key->index];
	}
}

static void put(struct tables *tables, const struct ps_lease_record *record)
{
	uint32_t i = record->key.index;

	switch (record->key.kind) {
	case PS_LEASE_CLOCK:
		tables->clock_ms = record->value.clock_ms;
		break;
	case PS_LEASE_BIRTH:
		tables->birth = record->value.birth;
		break;
	case PS_LEASE_HOST:
		tables->hosts[i] = record->value.host;
		break;
	case PS_LEASE_SLICE:
		tables->slots[i] = record->value.slice;
		break;
	default:
		tables->addresses[i] = record->value.address;
	}
	*revision_of(tables, &record->key) = tables->revision;
}

static void append(struct world *world, struct store *store, const struct ps_lease_record *record)
{
	if (store->n_log == store->log_max) {
		store->log_max = store->log_max ? 2 * store->log_max : 256;
		store->log = realloc(store->log, store->log_max * sizeof(*store->log));
	}
	store->log[store->n_log++] = (struct log_entry){*record, store->now.revision, world->now};
}

static void wake_watchers(struct world *world, uint16_t site)
{
	uint32_t n = world->options.hosts_per_site;

	for (uint32_t i = site * n; i < (site + 1u) * n; i++) {
		struct host *host = &world->hosts[i];
		uint64_t at = world->now + MS + world_random(world, 20 * MS);

		if (host->slow_watch)
			at += world_random(world, 5 * S);
		if (!host->is_running ||
		    (host->watch_at && host->watch_at <= world->now + 25 * MS) ||
		    (host->slow_watch && host->watch_at && host->watch_at <= at))
			continue;
		host->watch_at = at;
		world_push(world, ITEM_WATCH, at, i);
	}
}

static void tell_write(struct world *world, uint16_t site, const struct ps_lease_record *record)
{
	const struct ps_slice_record *slice = &record->value.slice;

	if (record->key.kind != PS_LEASE_SLICE || !world->story)
		return;
	world_tell(world, (int)(site * world->options.hosts_per_site + slice->holder),
		   (int)record->key.index,
		   "store %u: slice %u is %s, host %u, epoch %u, revision %llu", site,
		   record->key.index, ps_slice_state_text(slice->state), slice->holder,
		   slice->epoch, (unsigned long long)world->stores[site].now.revision);
}

unsigned store_commit(struct world *world, uint16_t site, const struct ps_lease_txn *txn)
{
	struct store *store = &world->stores[site];

	world->stats.n_txns++;
	for (size_t i = 0; i < txn->n_compares; i++) {
		if (*revision_of(&store->now, &txn->compares[i].key) != txn->compares[i].revision) {
			world->stats.n_stale++;
			return PS_LEASE_STALE;
		}
	}
	store->now.revision++;
	world->stats.n_writes += txn->n_writes;
	for (size_t i = 0; i < txn->n_writes; i++) {
		put(&store->now, &txn->writes[i]);
		append(world, store, &txn->writes[i]);
		tell_write(world, site, &txn->writes[i]);
	}
	world->stats.n_grants += txn->kind == PS_TXN_GRANT;
	world->stats.n_gives += txn->kind == PS_TXN_GIVE;
	world->stats.n_reclaims += txn->kind == PS_TXN_RECLAIM;
	world->stats.n_evictions += txn->kind == PS_TXN_EVICT;
	wake_watchers(world, site);
	return PS_LEASE_DONE;
}

/* Queues at the server, then commits, then the answer travels back (or does not). */
void store_arrive(struct world *world, struct item *item)
{
	struct host *host = &world->hosts[item->host];
	struct store *store = &world->stores[host->site];
	struct item *answer;
	unsigned status;

	if (!store_is_reachable(world, host) || item->incarnation != store->incarnation)
		return;
	if (!item->index) {
		bool must_wait = store->free_at > world->now;
		uint64_t at = must_wait ? store->free_at : world->now;

		store->free_at = at + S / WRITES_PER_S;
		if (must_wait) {
			struct item *later = world_push(world, ITEM_ARRIVE, at, item->host);

			later->life = item->life;
			later->txn = item->txn;
			later->incarnation = item->incarnation;
			later->index = 1; /* its turn */
			return;
		}
	}
	status = store_commit(world, host->site, &item->txn);
	if (host->lossy && world_random(world, 4) == 0)
		return;
	answer = world_push(world, ITEM_CORE,
			    world->now + world_random(world, host->lossy ? 900 * MS : 4 * MS),
			    item->host);
	answer->life = item->life;
	answer->event = (struct ps_lease_event){.kind = PS_LEASE_RESULT,
						.status = (uint8_t)status,
						.id = item->txn.id,
						.revision = store->now.revision,
						.incarnation = store->incarnation};
}

static void give(struct world *world, uint32_t host, unsigned kind, uint32_t index,
		 const struct tables *tables, uint64_t revision)
{
	struct ps_lease_event event = {.kind = PS_LEASE_RECORD, .revision = revision};

	if (!revision)
		return;
	event.record.key = (struct ps_lease_key){(uint8_t)kind, index};
	if (kind == PS_LEASE_CLOCK)
		event.record.value.clock_ms = tables->clock_ms;
	else if (kind == PS_LEASE_BIRTH)
		event.record.value.birth = tables->birth;
	else if (kind == PS_LEASE_HOST)
		event.record.value.host = tables->hosts[index];
	else if (kind == PS_LEASE_SLICE)
		event.record.value.slice = tables->slots[index];
	else
		event.record.value.address = tables->addresses[index];
	host_step(world, host, &event);
}

static void list_all(struct world *world, uint32_t i)
{
	struct host *host = &world->hosts[i];
	struct store *store = &world->stores[host->site];
	const struct tables *now = &store->now;
	struct ps_lease_event event = {.kind = PS_LEASE_RESET, .incarnation = store->incarnation};

	host_step(world, i, &event);
	give(world, i, PS_LEASE_CLOCK, 0, now, now->clock_revision);
	give(world, i, PS_LEASE_BIRTH, 0, now, now->birth_revision);
	for (uint32_t k = 0; k < world->options.hosts_per_site; k++)
		give(world, i, PS_LEASE_HOST, k, now, now->host_revisions[k]);
	for (uint32_t k = 0; k < world->n_slots; k++)
		give(world, i, PS_LEASE_SLICE, k, now, now->slot_revisions[k]);
	for (uint32_t k = 0; k < world->n_addresses; k++)
		give(world, i, PS_LEASE_ADDRESS, k, now, now->address_revisions[k]);
	host->incarnation = store->incarnation;
	host->log_read = store->n_log;
	event = (struct ps_lease_event){.kind = PS_LEASE_PROGRESS, .revision = now->revision};
	host_step(world, i, &event);
}

/* Whole transactions that were written before they set out. */
static void give_news(struct world *world, uint32_t i)
{
	struct host *host = &world->hosts[i];
	struct store *store = &world->stores[host->site];
	struct ps_lease_event event = {.kind = PS_LEASE_PROGRESS};

	while (host->log_read < store->n_log &&
	       store->log[host->log_read].at + MS / 2 <= world->now) {
		const struct log_entry *entry = &store->log[host->log_read++];
		struct ps_lease_event record = {.kind = PS_LEASE_RECORD,
						.record = entry->record,
						.revision = entry->revision};

		event.revision = entry->revision;
		host_step(world, i, &record);
	}
	if (event.revision)
		host_step(world, i, &event);
}

void store_watch(struct world *world, uint32_t i)
{
	struct host *host = &world->hosts[i];
	struct store *store = &world->stores[host->site];

	host->watch_at = world->now + S - 200 * MS + world_random(world, 400 * MS);
	world_push(world, ITEM_WATCH, host->watch_at, i);
	if (!store_is_reachable(world, host))
		return;
	if (host->incarnation != store->incarnation || host->core.incarnation != store->incarnation)
		list_all(world, i);
	else
		give_news(world, i);
	if (host->log_read < store->n_log) {
		host->watch_at = world->now + MS;
		world_push(world, ITEM_WATCH, host->watch_at, i);
	}
}

void store_backup(struct world *world, struct store *store)
{
	tables_copy(world, &store->backup, &store->now);
	store->has_backup = true;
}

void store_roll_back(struct world *world, uint16_t site)
{
	struct store *store = &world->stores[site];

	tables_copy(world, &store->now, &store->backup);
	store->incarnation = world_random(world, 1ull << 40) + 1;
	store->n_log = 0;
	for (size_t i = 0; i < world->n_hosts; i++)
		if (world->hosts[i].site == site)
			world->hosts[i].log_read = 0;
	world_tell(world, -1, -1, "store %u restored at revision %llu", site,
		   (unsigned long long)store->now.revision);
}

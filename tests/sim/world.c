// SPDX-License-Identifier: MIT
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { STORY_MAX = 20000, ADDRESS_SLICES = 15 };

/* xoroshiro128+ (Blackman, Vigna 2018): the same everywhere, unlike the C library's. */
uint64_t world_random(struct world *world, uint64_t below)
{
	uint64_t a = world->random[0], b = world->random[1], sum = a + b;

	b ^= a;
	world->random[0] = (a << 24 | a >> 40) ^ b ^ b << 16;
	world->random[1] = b << 37 | b >> 27;
	return below ? (sum >> 11) % below : 0;
}

static bool is_before(const struct item *a, const struct item *b)
{
	return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void sift_up(struct world *world, size_t i)
{
	struct item **heap = world->heap, *item = heap[i];

	for (; i > 0 && is_before(item, heap[(i - 1) / 2]); i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = item;
}

static struct item *pop(struct world *world)
{
	struct item **heap = world->heap, *first = heap[0], *item = heap[--world->n_heap];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= world->n_heap)
			break;
		if (child + 1 < world->n_heap && is_before(heap[child + 1], heap[child]))
			child++;
		if (!is_before(heap[child], item))
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = item;
	return first;
}

struct item *world_push(struct world *world, unsigned kind, uint64_t at, uint32_t host)
{
	struct item *item = world->spare;

	if (item)
		world->spare = item->next;
	else
		item = calloc(1, sizeof(*item));
	if (world->n_heap == world->heap_max) {
		world->heap_max = world->heap_max ? 2 * world->heap_max : 1024;
		world->heap = realloc(world->heap, world->heap_max * sizeof(struct item *));
	}
	item->at = at;
	item->seq = world->seq++;
	item->kind = (uint8_t)kind;
	item->host = host;
	item->life = world->hosts[host].life;
	item->index = 0;
	world->heap[world->n_heap] = item;
	sift_up(world, world->n_heap++);
	return item;
}

void world_tell(struct world *world, int host, int slot, const char *format, ...)
{
	struct story_line *line;
	va_list args;
	int n;

	if (!world->story)
		return;
	line = &world->story[world->n_story++ % STORY_MAX];
	line->host = host;
	line->slot = slot;
	n = snprintf(line->text, sizeof(line->text), "%10.3f  ", (double)world->now / 1e9);
	va_start(args, format);
	vsnprintf(line->text + n, sizeof(line->text) - (size_t)n, format, args);
	va_end(args);
}

void world_break(struct world *world, int slot, int a, int b, const char *format, ...)
{
	va_list args;

	if (*world->broken)
		return;
	va_start(args, format);
	vsnprintf(world->broken, sizeof(world->broken), format, args);
	va_end(args);
	world->broken_slot = slot;
	world->broken_hosts[0] = a;
	world->broken_hosts[1] = b;
}

static bool is_of_interest(const struct world *world, const struct story_line *line)
{
	if (line->host < 0)
		return true;
	if (line->slot >= 0)
		return line->slot == world->broken_slot;
	return line->host == world->broken_hosts[0] || line->host == world->broken_hosts[1] ||
	       strstr(line->text, "FAULT") || strstr(line->text, "HEALED");
}

void world_print_story(const struct world *world, size_t most)
{
	size_t first = world->n_story > STORY_MAX ? world->n_story - STORY_MAX : 0, n = 0;

	for (size_t i = world->n_story; i > first; i--) {
		n += is_of_interest(world, &world->story[(i - 1) % STORY_MAX]);
		if (n == most)
			first = i - 1;
	}
	for (size_t i = first; i < world->n_story; i++)
		if (is_of_interest(world, &world->story[i % STORY_MAX]))
			printf("%s\n", world->story[i % STORY_MAX].text);
	printf("%10.3f  BROKEN: %s\n", (double)world->now / 1e9, world->broken);
}

/* The figures of design.md §5, the long ones shortened so that a run of minutes sees them end. */
static struct ps_lease_config short_config(void)
{
	struct ps_lease_config config = ps_lease_defaults;

	config.own_ns = 25 * S;
	config.quarantine_ns = 15 * S;
	config.idle_ns = 20 * S;
	config.idle_short_ns = 8 * S;
	config.hold_down_ns = 3 * S;
	config.drain_ns = 10 * S;
	return config;
}

static void size_plane(struct world *world)
{
	const struct world_options *options = &world->options;
	size_t hosts = options->hosts_per_site * (world->has_moves ? options->n_sites : 1);
	size_t per_pool = hosts * options->slices_per_host / POOLS / ADDRESS_SLICES + 1;

	if (world->has_moves)
		per_pool += options->n_sites - per_pool % options->n_sites;
	world->n_addresses = POOLS * per_pool;
	world->n_slots = world->n_addresses * ADDRESS_SLICES;
	if (options->slices_per_host == 0) /* the smallest plane there is */
		world->n_slots = world->n_addresses = POOLS;
}

struct world *world_new(uint64_t seed, const struct world_options *options)
{
	struct world *world = calloc(1, sizeof(*world));

	world->options = *options;
	world->seed = seed;
	world->random[0] = seed * 0x9e3779b97f4a7c15 + 1;
	world->random[1] = seed ^ 0xbf58476d1ce4e5b9;
	for (int i = 0; i < 20; i++)
		(void)world_random(world, 0);
	world->config = short_config();
	world->now = S;
	world->has_moves = options->n_sites > 1 && options->n_sites <= 4;
	world->n_hosts = (size_t)options->n_sites * options->hosts_per_site;
	size_plane(world);
	world->hosts = calloc(world->n_hosts, sizeof(*world->hosts));
	world->stores = calloc(options->n_sites, sizeof(*world->stores));
	world->truth = calloc(world->n_slots * options->n_sites, sizeof(*world->truth));
	for (size_t i = 0; i < world->n_slots * options->n_sites; i++)
		world->truth[i].user = UINT32_MAX;
	if (options->is_told)
		world->story = calloc(STORY_MAX, sizeof(*world->story));
	for (size_t i = 0; i < options->n_sites; i++)
		store_new(world, &world->stores[i]);
	for (uint32_t i = 0; i < world->n_hosts; i++) {
		host_new(world, i);
		host_start(world, i);
		world_push(world, ITEM_DEMAND, world->now + world_random(world, S), i);
	}
	if (options->faults_per_minute)
		world_push(world, ITEM_FAULT, world->now + 10 * S, 0);
	world_push(world, ITEM_MOVER, world->now + S, 0);
	return world;
}

void world_free(struct world *world)
{
	while (world->n_heap)
		free(world->heap[--world->n_heap]);
	while (world->spare) {
		struct item *next = world->spare->next;

		free(world->spare);
		world->spare = next;
	}
	for (size_t i = 0; i < world->n_hosts; i++)
		host_free(&world->hosts[i]);
	for (size_t i = 0; i < world->options.n_sites; i++)
		store_free(&world->stores[i]);
	free(world->hosts);
	free(world->stores);
	free(world->truth);
	free(world->heap);
	free(world->story);
	free(world->stats.waits_ns);
	free(world);
}

static void deliver(struct world *world, struct item *item)
{
	if (item->event.kind == PS_LEASE_LOADED)
		kernel_load(world, item->host);
	host_step(world, item->host, &item->event);
}

static void fire_timer(struct world *world, struct item *item)
{
	const struct ps_lease_event event = {.kind = PS_LEASE_TIMER};
	struct host *host = &world->hosts[item->host];

	if (host->timer_at != item->at)
		return;
	host->timer_at = 0;
	host_step(world, item->host, &event);
}

static void sample(struct world *world, uint32_t i)
{
	const struct host *host = &world->hosts[i];

	if (world->now > world->options.faults_until)
		return;
	world->stats.sampled++;
	world->stats.used_slots += host->core.n_own;
	world->stats.all_slots +=
		world->n_slots /
		(world->has_moves ? world->n_hosts : world->options.hosts_per_site);
}

/* What an agent does: not while it is stopped, never after it died. */
static void run_agent(struct world *world, struct item *item)
{
	struct host *host = &world->hosts[item->host];

	if (item->life != host->life || !host->is_running)
		return;
	if (host->stalled) {
		struct item *again =
			world_push(world, item->kind, world->now + 50 * MS, item->host);

		again->event = item->event;
		if (item->kind == ITEM_TIMER && host->timer_at == item->at)
			host->timer_at = again->at;
		if (item->kind == ITEM_WATCH && host->watch_at == item->at)
			host->watch_at = again->at;
		return;
	}
	if (item->kind == ITEM_CORE)
		deliver(world, item);
	else if (item->kind == ITEM_TIMER)
		fire_timer(world, item);
	else if (host->watch_at == item->at)
		store_watch(world, item->host);
}

static void run_world(struct world *world, struct item *item)
{
	struct host *host = &world->hosts[item->host];

	switch (item->kind) {
	case ITEM_ARRIVE:
		store_arrive(world, item);
		break;
	case ITEM_CONNECT:
		if (host->words[item->index] != PS_WORD_ACTIVE && item->life == host->life) {
			host->in_use[item->index] = 1;
			world_push(world, ITEM_HANG_UP, world->now + world_random(world, 60 * S),
				   item->host)
				->index = item->index;
		}
		break;
	case ITEM_HANG_UP:
		kernel_hang_up(world, item->host, item->index);
		break;
	case ITEM_SILENT:
		if (host->announced_at <= item->incarnation)
			host->is_announced = false;
		break;
	case ITEM_DEMAND:
		world_push(world, ITEM_DEMAND, world->now + S, item->host);
		sample(world, item->host);
		host_demand(world, item->host);
		break;
	case ITEM_FAULT:
		fault_next(world);
		break;
	case ITEM_HEAL:
		fault_heal(world, item);
		break;
	default:
		world_push(world, ITEM_MOVER, world->now + 400 * MS, 0);
		fault_mover(world);
	}
}

/* What is held back is lost on its way to the store, and waits elsewhere. */
static bool is_held(struct world *world, struct item *item)
{
	struct item *again;

	if (!world->gate || world->gate(world, item))
		return false;
	if (item->kind == ITEM_ARRIVE)
		return true;
	again = world_push(world, item->kind, world->now + 10 * MS, item->host);
	again->life = item->life;
	again->event = item->event;
	return true;
}

static void run_item(struct world *world, struct item *item)
{
	world->now = item->at;
	world->stats.n_events++;
	if (is_held(world, item))
		return;
	if (item->kind <= ITEM_WATCH)
		run_agent(world, item);
	else
		run_world(world, item);
}

bool world_run_until(struct world *world, uint64_t at)
{
	while (!*world->broken && world->n_heap && world->heap[0]->at < at) {
		struct item *item = pop(world);

		run_item(world, item);
		item->next = world->spare;
		world->spare = item;
	}
	if (!*world->broken)
		world->now = at;
	return !*world->broken;
}

bool world_run(struct world *world)
{
	if (world_run_until(world, world->options.end))
		kernel_check_end(world);
	return !*world->broken;
}

// SPDX-License-Identifier: MIT
/*
 * Tables are built by ps_table and loaded by ps_dispatch_load(), as the agent does; the measured
 * programs then take over the product's maps by name, so that no layout is written down twice.
 */
#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/own.h"
#include "base/range.h"
#include "dispatch/load.h"

/* xorshift: the same table in every run. */
static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static int add_address(struct ps_table *table, const struct ps_ip *ip)
{
	const struct ps_table_address address = {.ip = *ip, .shift = SHIFT};

	return ps_table_add_address(table, &address);
}

/* The i-th address from the family's first on. */
static struct ps_ip address_at(bool is_v6, uint32_t i)
{
	struct ps_ip ip;

	if (!is_v6)
		return ps_ip_from_v4(htonl(WORLD_FIRST + i));
	memcpy(ip.bytes, (uint8_t[16])WORLD_FIRST6, sizeof(ip.bytes));
	return ps_ip_add(&ip, i);
}

static int fill(struct ps_table *table, unsigned n_addresses, bool is_v6, unsigned *ret_hot)
{
	const struct ps_ip own = ps_ip_from_v4(htonl(WORLD_OWN));
	uint64_t seed = 0x9e3779b97f4a7c15u;
	unsigned host;
	int r = 0;

	for (unsigned i = 0; r >= 0 && i < HOSTS; i++) {
		const struct ps_ip underlay = ps_ip_from_v4(htonl(WORLD_UNDERLAY + i));

		r = ps_table_set_host(table, i, &underlay);
	}
	for (unsigned i = 0; r >= 0 && i < n_addresses; i++) {
		const struct ps_ip ip = address_at(is_v6, i);

		r = add_address(table, &ip);
		for (unsigned slice = 1; r >= 0 && slice < ps_slice_count(SHIFT); slice++) {
			host = OURSELF + 1 + (unsigned)(next_random(&seed) >> 33) % (HOSTS - 1);
			r = ps_table_set_owner(table, &ip, slice, host);
			if (i == 0 && slice == 1)
				*ret_hot = host;
		}
	}
	if (r >= 0)
		r = add_address(table, &own);
	return r < 0 ? r : ps_table_set_owner(table, &own, OWN_SLICE, OURSELF);
}

static int make_table(const struct world_options *options, struct ps_table **ret,
		      unsigned *ret_hot_host)
{
	const struct ps_table_self self = {
		.underlay = ps_ip_from_v4(htonl(WORLD_UNDERLAY)), .host = OURSELF, .mtu = 1500};
	ps_auto(ps_table_free) struct ps_table *table = NULL;
	int r = ps_table_new(&self, &table);

	if (r >= 0)
		r = fill(table, options->n_addresses, options->is_v6, ret_hot_host);
	if (r < 0)
		return r;
	*ret = ps_move(table);
	return 0;
}

struct ps_hop world_hop(unsigned ifindex)
{
	return (struct ps_hop){{2, 0, 0, 0, 0, 2}, {2, 0, 0, 0, 0, 1}, ifindex};
}

static int set_hops(struct ps_dispatch *dispatch, unsigned ifindex)
{
	struct ps_hop hop = world_hop(ifindex);
	int r = 0;

	for (unsigned i = 0; r >= 0 && i < HOSTS; i++)
		r = i == OURSELF ? 0 : ps_dispatch_set_hop(dispatch, i, &hop);
	return r;
}

/* Lets the measured programs work on every map of the product; of the sections only .bss, which
 * holds tables too. */
static int share_maps(struct bench_bpf *skel, const struct ps_dispatch *dispatch)
{
	struct bpf_map *theirs, *ours;
	int r = 0;

	bpf_object__for_each_map(theirs, dispatch->skel->obj)
	{
		if (bpf_map__is_internal(theirs))
			continue;
		ours = bpf_object__find_map_by_name(skel->obj, bpf_map__name(theirs));
		if (!ours)
			return -ENOENT;
		r = bpf_map__reuse_fd(ours, bpf_map__fd(theirs));
		if (r < 0)
			return r;
	}
	return bpf_map__reuse_fd(skel->maps.bss, bpf_map__fd(dispatch->skel->maps.bss));
}

static int open_programs(struct world *world)
{
	const struct ps_peer *peer = world->dispatch->skel->bss->peers + PS_GROUP_SIZE + 1;
	int r;

	while (peer->host != world->hot_host)
		peer++;
	world->skel = bench_bpf__open();
	if (!world->skel)
		return -errno;
	bpf_program__set_autoload(world->skel->progs.ps_dispatch, false);
	world->skel->data_floor->floor_peer = *peer;
	r = share_maps(world->skel, world->dispatch);
	return r < 0 ? r : bench_bpf__load(world->skel);
}

static int load(const struct world_options *options, struct ps_table *table,
		struct ps_dispatch **ret)
{
	struct ps_dispatch_options load_options = {options->pin_dir, options->claims.pages_fd,
						   options->claims.wide_pages_fd, false};
	ps_auto_mem char *message = NULL;
	int r = ps_dispatch_load(table, &load_options, ret, &message);

	if (r < 0)
		fprintf(stderr, "bench: cannot load: %s\n", message ? message : strerror(-r));
	return r;
}

int world_open(const struct world_options *options, struct world *ret)
{
	ps_auto(ps_table_free) struct ps_table *table = NULL;
	ps_auto(world_close) struct world world = {.n_addresses = options->n_addresses};
	int r;

	r = make_table(options, &table, &world.hot_host);
	if (r >= 0)
		r = load(options, table, &world.dispatch);
	if (r >= 0)
		r = set_hops(world.dispatch, options->ifindex);
	if (r >= 0)
		r = open_programs(&world);
	if (r < 0)
		return r;
	*ret = world;
	world = (struct world){0};
	return 0;
}

void world_close(struct world *world)
{
	bench_bpf__destroy(world->skel);
	ps_dispatch_free(&world->dispatch);
	*world = (struct world){0};
}

/* `memlock` of the map, as /proc tells. */
static size_t map_bytes(int fd)
{
	char path[64], line[128];
	size_t bytes = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "memlock: %zu", &bytes) == 1)
			break;
	if (file)
		fclose(file);
	return bytes;
}

size_t world_bytes(const struct world *world, bool quiet)
{
	size_t bytes, sum = 0;
	struct bpf_map *map;

	bpf_object__for_each_map(map, world->dispatch->skel->obj)
	{
		if (strstr(bpf_map__name(map), "pages"))
			continue; /* the egress side's, as large as its conversations */
		bytes = map_bytes(bpf_map__fd(map));
		sum += bytes;
		if (!quiet)
			printf("  %-16s %10u x %3u %12zu bytes\n", bpf_map__name(map),
			       bpf_map__max_entries(map), bpf_map__value_size(map), bytes);
	}
	return sum;
}

/* SPDX-License-Identifier: MIT */
/* A filled table, the product's own generation of it in the kernel, and the measured programs on the
 * same maps. */
#ifndef PS_BENCH_WORLD_H
#define PS_BENCH_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "claims.h"
#include "dispatch/dispatch.h"
#include "dispatch/table.h"
#include "job.h"
#include "skel.h"

enum {
	HOSTS = 254,    /* of the site: as many as a group holds */
	OURSELF = 0,    /* index of this host */
	SHIFT = 11,     /* slices of 2,048 ports */
	OWN_SLICE = 31, /* of an address of the second range: this host's; see world_open() */
};

/* Shared addresses, host order: n from FIRST on, whose slices 1 to 31 belong to other hosts, drawn
 * at random; and one beside them, whose slice OWN_SLICE is this host's. */
#define WORLD_FIRST 0x14000000u               /* 20.0.0.0 */
#define WORLD_FIRST6 {0x20, 0x01, 0x0d, 0xb8} /* 2001:db8::, where addresses are IPv6 */
#define WORLD_OWN 0x28000001u                 /* 40.0.0.1 */
#define WORLD_UNDERLAY 0x0a000001u            /* 10.0.0.1, this host; the others count on */

struct world {
	struct ps_dispatch *dispatch;
	struct bench_bpf *skel;
	unsigned n_addresses;
	unsigned hot_host; /* owner of slice 1 of the first address */
};

struct world_options {
	const char *pin_dir;
	struct claims claims;
	unsigned n_addresses;
	bool is_v6;
	unsigned ifindex; /* by which every other host is reached */
};

int world_open(const struct world_options *options, struct world *ret);
void world_close(struct world *world);
/* What the kernel says each of the generation's maps costs, bytes; prints them unless quiet. */
size_t world_bytes(const struct world *world, bool quiet);
struct ps_hop world_hop(unsigned ifindex);

#endif

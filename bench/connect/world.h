/* SPDX-License-Identifier: MIT */
/*
 * Where connections are made: this process's network namespace, a peer's that answers, cgroups with
 * and without the product's hooks.
 *
 *   cgroup2 ─┬─ bench-connect-PID ─┬─ hooked ─┬─ small   class 0: one slice at 198.51.100.1
 *            │                     │  (hooks) ├─ large   class 1: fourteen at 198.51.100.2
 *            │                     │          └─ outside no class
 *            │                     └─ plain             no hooks
 *   here: c0 10.77.0.1 ════ c1 10.77.0.2 to .4, a listener on port 7000
 */
#ifndef PS_BENCH_CONNECT_WORLD_H
#define PS_BENCH_CONNECT_WORLD_H

#include "egress/egress.h"

enum {
	SHIFT = 11, /* slices of 2,048 ports */
	SLICE_PORTS = 1 << SHIFT,
	LARGE_SLICES = 14,
	LARGE_PORTS = LARGE_SLICES * SLICE_PORTS,
	/* The first slice of an address keeps some for sockets without a peer. */
	SMALL_SHARED = SLICE_PORTS - PS_EXCLUSIVE_MAX,
	LARGE_SHARED = LARGE_PORTS - PS_EXCLUSIVE_MAX,
	SINK_PORT = 7000,
	N_SINKS = 3, /* destinations: 10.77.0.2 on */
};

enum place { PLACE_PLAIN, PLACE_OUTSIDE, PLACE_SMALL, PLACE_LARGE, N_PLACES };

struct world {
	int here, there; /* network namespaces */
	int sink;        /* the listener; accepts nothing by itself */
	struct ps_egress *egress;
	struct ps_egress_slice slices[1 + LARGE_SLICES];
};

/* Folders below cgroup2; made and removed by the process that outlives the run. */
struct cgroups {
	char root[96], hooked[128], places[N_PLACES][160];
};

int cgroups_make(struct cgroups *ret);
/* Ends what is left in them. */
void cgroups_remove(const struct cgroups *cgroups);

/* Namespaces and hooks go with the process.  On failure something has been said. */
int world_open(const struct cgroups *cgroups, struct world *ret);
void world_close(struct world *world);
/* Accepts and closes what waits at the listener. */
void world_drain(const struct world *world);
/* Ports that the record of ports holds for all slices. */
int world_usage(const struct world *world, uint64_t *ret);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Two hosts, each with the real dispatcher on two uplinks, and the observer around them:
 *
 *   observer's namespace                          host 0                    host 1
 *   storm_source --> g0 (port 0) ================ u: ps_dispatch
 *                    x0 (port 1) ================ w: ps_dispatch
 *   storm_source --> g1 (port 2) ========================================== u: ps_dispatch
 *                    x1 (port 3) ========================================== w: ps_dispatch
 *
 * A next hop's MACs are 02:k:k:k:k:PEER and 02:k:k:k:k:HOST; k even leaves by u, odd by w.  So
 * whoever sees a frame knows whether its hop is whole.
 */
#ifndef PS_WEATHER_RIG_H
#define PS_WEATHER_RIG_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "claims.h"
#include "dispatch/dispatch.h"
#include "kernel.h"
#include "skel.h"
#include "storm.h"

struct rig_host {
	int ns;
	struct claims claims;
	unsigned u, w; /* ifindex in ns */
	char pin_dir[PIN_DIR_MAX];
	struct ps_dispatch *dispatch;
};

struct rig {
	int here; /* observer's namespace */
	struct storm_bpf *skel;
	struct storm_slot *slots; /* STORM_SLOTS, mapped */
	struct ring_buffer *ring;
	struct rig_host hosts[STORM_HOSTS];
	/* Given every frame that was seen, by rig_look(). */
	void (*judge)(const struct storm_seen *seen, void *arg);
	void *judge_arg;
};

struct rig_traffic {
	uint64_t rx_packets, rx_dropped, tx_packets, tx_dropped;
};

/* Messages go to stderr.  The process stays in the observer's namespace. */
int rig_open(struct rig *rig);
void rig_close(struct rig *rig);
struct ps_hop rig_hop(const struct rig *rig, unsigned host, unsigned peer, unsigned k);
/* The tables of a host of rows.h's world; hops by rig_hop(), host 2 by w. */
int rig_table(const struct rig *rig, unsigned host, struct ps_table **ret);
/* Loads the table and puts it under the host's uplinks, in place of what is there; holds the lock
 * (may be NULL) while the host's dispatch changes.  In whatever thread. */
int rig_put(struct rig *rig, unsigned host, const struct ps_table *table, pthread_mutex_t *lock);
/* Sends the first n slots to the host. */
int rig_send(const struct rig *rig, unsigned host, unsigned n);
/* Judges what was seen since the last time. */
int rig_look(const struct rig *rig);
int rig_enter(int ns);
/* Of an interface in the namespace ns, by the kernel's own count. */
int rig_traffic(int ns, const char *ifname, struct rig_traffic *ret);
/* Sum of ethtool's statistics whose names end so. */
int rig_statistic(int ns, const char *ifname, const char *suffix, uint64_t *ret);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Path MTUs learned from ICMP about our own encapsulated packets: believed for ten minutes, so that
 * a path may grow again and a forgery does not last (RFC 1191 §6.3).  They outlive generations of
 * the dispatcher, not the agent: the next too-big packet teaches them anew.
 */
#ifndef PS_AGENT_MTU_H
#define PS_AGENT_MTU_H

#include "base/ip.h"
#include "dispatch/dispatch.h"

enum { PS_MTU_MS = 600000 }; /* how long one is believed */

struct ps_mtus;

int ps_mtus_new(struct ps_mtus **ret);
void ps_mtus_free(struct ps_mtus **mtus);
/* Lowers the peer's MTU in the dispatcher and remembers it.  1: news; 0: it was as low already;
 * -ENOENT, -ERANGE: not believed (ps_dispatch_set_mtu). */
int ps_mtus_learn(struct ps_mtus *mtus, struct ps_dispatch *dispatch, const struct ps_ip *dst,
		  unsigned mtu, uint64_t now_ms);
/* Tells a new generation what is known; peers that it does not have are forgotten. */
void ps_mtus_apply(struct ps_mtus *mtus, struct ps_dispatch *dispatch);
/* Puts back the plan's value where the time is over; how many. */
size_t ps_mtus_expire(struct ps_mtus *mtus, struct ps_dispatch *dispatch, uint64_t now_ms);
/* The i-th, in no order; 0, or -ENOENT behind the last. */
int ps_mtus_get(const struct ps_mtus *mtus, size_t i, struct ps_ip *ret_dst, unsigned *ret_mtu);

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* The record of ports as the hooks use it: all that this benchmark knows of egress/claim.h. */
#ifndef PS_BENCH_CONNECT_DOOR_H
#define PS_BENCH_CONNECT_DOOR_H

#include "egress/claim.h"

/* flow names the destination; 0: ask holds a port of the choice towards it. */
static __always_inline int door_take(struct ps_ask *ask, const struct ps_claim_key *flow,
				     const struct ps_choice *choice)
{
	ask->key = *flow;
	ps_ask_start(ask, choice, PS_WALK_PEER);
	return ps_claim_draw(ask);
}

static __always_inline void door_give(struct ps_ask *ask)
{
	ps_claim_drop(&ask->key);
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* The record of ports as the hooks use it: all that this benchmark knows of egress/claim.h. */
#ifndef PS_BENCH_CONNECT_DOOR_H
#define PS_BENCH_CONNECT_DOOR_H

#include "egress/claim.h"

enum { DOOR_STEPS = 16 }; /* pages of one slice are fewer */

/* flow names the destination; 0: ask holds a port of the choice towards it. */
static __always_inline int door_take(struct ps_ask *ask, const struct ps_claim_key *flow,
				     const struct ps_choice *choice)
{
	ask->page.grip.flow = *flow;
	ps_ask_start(ask, choice, (struct ps_home){0});
	for (int i = 0; i < DOOR_STEPS; i++) {
		int r = ps_claim_step(ask);

		if (r != -EAGAIN)
			return r;
	}
	return -EAGAIN;
}

static __always_inline void door_give(struct ps_ask *ask)
{
	ps_claim_drop(&ask->page.grip);
}

#endif

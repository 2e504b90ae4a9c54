/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* Draws of a port without a peer, as steps of bpf_loop(); ask->error is how the draw ended. */
#ifndef PS_EGRESS_DRAW_BPF_H
#define PS_EGRESS_DRAW_BPF_H

#include "egress/claim.h"

/* Any port, but a service's. */
static long any_step(__u64 nth, struct ps_ask *ask)
{
	const struct ps_claim_key *flow = &ask->page.grip.flow;
	int r = ps_claim_step(ask);

	if (r == -EAGAIN)
		return 0;
	if (!r && is_service(&flow->src, flow->sport, flow->protocol)) {
		ps_claim_pass(ask);
		return 0;
	}
	ask->error = r;
	return 1;
}

/* As ps_claim_pass, but on to the port n_ports further, or to the next slice when that is of another
 * block.  The first port was drawn at random; after it they are tried in order. */
static __always_inline void claim_skip(struct ps_ask *ask, __u32 n_ports)
{
	__u32 bit = ask->page.place.bit + n_ports;

	ps_claim_drop(&ask->page.grip);
	if (ask->page.how == PS_CLAIM_ANY) {
		ask->page.how = PS_CLAIM_ONWARD;
		ask->page.place.bit = ask->walk.slice = ask->walk.page = 0;
		return;
	}
	ask->page.place.bit = bit;
	if (bit < PS_EXCLUSIVE_MAX)
		return;
	ask->page.place.bit = 0;
	ps_walk_skip_slice(&ask->walk);
}

/* Passes ports by that are in use towards a peer, as the one may be to whom this socket will connect. */
static long unused_step(__u64 nth, struct ps_ask *ask)
{
	const struct ps_claim_key *flow = &ask->page.grip.flow;
	int r = ps_claim_step(ask), n_skip = 0;

	if (r == -EAGAIN)
		return 0;
	if (!r && is_service(&flow->src, flow->sport, flow->protocol))
		n_skip = 1;
	else if (!r)
		n_skip = ps_uses_skip(flow);
	if (n_skip) {
		claim_skip(ask, n_skip);
		return 0;
	}
	ask->error = r;
	return 1;
}

#endif

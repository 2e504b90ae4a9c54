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
		ps_claim_skip(ask, n_skip);
		return 0;
	}
	ask->error = r;
	return 1;
}

#endif

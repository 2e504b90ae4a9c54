/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* Which host gathers: the loop behind ps_look_gatherer(). */
#ifndef PS_DISPATCH_GATHERER_H
#define PS_DISPATCH_GATHERER_H

#include "dispatch/look.h"
#include "dispatch/steer-fragment.h"

/* The host of the group that gathers the fragments of a packet, by rendezvous among those that this
 * host can reach, an element of peers; -1: none. */
PS_INLINE __s32 ps_find_gatherer(struct ps_frame *frame, __u32 group, __u32 hash)
{
	__u32 best_score = 0;
	__s32 best = -1;

	for (__u32 slot = 1; slot < PS_GROUP_MAX; slot++) {
		__u32 at = group * PS_GROUP_SIZE + slot, score;
		const struct ps_peer *peer = ps_look_peer(frame, at);

		if (!peer->is_used)
			break;
		if (peer->kind != PS_PEER_SELF && !peer->hop.ifindex)
			continue;
		score = ps_rendezvous_score(hash, peer->dst);
		if (score > best_score) {
			best_score = score;
			best = (__s32)at;
		}
	}
	return best;
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* Which host gathers: the loop behind ps_look_gatherer(). */
#ifndef PS_DISPATCH_GATHERER_H
#define PS_DISPATCH_GATHERER_H

#include "dispatch/look.h"
#include "dispatch/steer-fragment.h"

/* The host of this site that gathers the fragments of a packet, by rendezvous among those that this
 * host can reach; -1: none. */
PS_INLINE __s32 ps_find_gatherer(struct ps_frame *frame, __u32 group_index, __u32 hash)
{
	const struct ps_group *group = ps_look_group(frame, group_index);
	__u32 best_score = 0;
	__s32 best = -1;

	if (!group)
		return -1;
	for (__u32 slot = 1; slot < PS_GROUP_MAX; slot++) {
		const struct ps_peer *peer;
		__u32 score;

		if (slot > group->host[0])
			break;
		peer = ps_look_host(frame, group->host[slot]);
		if (!peer || (!peer->self && !peer->hop.ifindex))
			continue;
		score = ps_rendezvous_score(hash, peer->dst);
		if (score > best_score) {
			best_score = score;
			best = group->host[slot];
		}
	}
	return best;
}

#endif

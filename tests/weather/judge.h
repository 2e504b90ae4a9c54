/* SPDX-License-Identifier: MIT */
/* Whether a frame may leave a host or reach its stack, said by other means than the dispatcher's. */
#ifndef PS_WEATHER_JUDGE_H
#define PS_WEATHER_JUDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "storm.h"

struct judge {
	const struct storm_slot *sent;
	unsigned n_sent;
	uint64_t passed, delivered, encapsulated, answered, searched;
	uint64_t wrong;
	char first_wrong[1024]; /* what, and the frame in hex */
};

/* Callback for struct rig; arg is a struct judge. */
void judge_frame(const struct storm_seen *seen, void *arg);

/* The peer whose whole hop a frame left by, below STORM_PEERS, or -1: a hop of no peer.
 * *ret_k: which of its hops. */
int judge_hop(const struct storm_seen *seen, unsigned *ret_k);
/* NULL, or what is wrong with the outer headers of a frame to this peer. */
const char *judge_outer(const struct storm_seen *seen, unsigned peer);
void judge_wrong(struct judge *judge, const struct storm_seen *seen, const char *why);

#endif

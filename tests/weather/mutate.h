/* SPDX-License-Identifier: MIT */
/* Packets of the Internet's worse days: rows of the packet table, as they are and mutated. */
#ifndef PS_WEATHER_MUTATE_H
#define PS_WEATHER_MUTATE_H

#include <stdint.h>

#include "storm.h"

enum mutation {
	MUTATE_NOTHING,
	MUTATE_BITS,      /* 1 to 8 bits anywhere */
	MUTATE_HEAD_BITS, /* 1 to 3 bits of the headers */
	MUTATE_CUT,       /* the end is missing */
	MUTATE_LENGTH,    /* a length field lies */
	MUTATE_PORTS,
	MUTATE_ADDRESSES,
	MUTATE_REMIX,  /* fields of the row before the frame is made: tags, outer header, port */
	MUTATE_SPLICE, /* head of one row, tail of another */
	MUTATE_NOISE,  /* Ethernet header, then anything */
	N_MUTATIONS
};

struct mutator {
	uint64_t seed;
	unsigned host; /* that gets the packets: rows are written for host 0 */
	uint64_t made[N_MUTATIONS];
};

/* Fills the first n slots (even).  The source MAC of each frame is STORM_MARK and the number of
 * its slot, which TCP acknowledges and pings have as sequence too; half of it is the identification
 * (IPv4) or flow label (IPv6) of the inner packet; until a mutation hits them.  The fragments of a packet are an even slot and the one behind it. */
void mutate_fill(struct mutator *mutator, struct storm_slot *slots, unsigned n);

enum { STORM_MARK = 6 };

#endif

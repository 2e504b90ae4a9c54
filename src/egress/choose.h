/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * In which order ports are tried.  Pure arithmetic over the sizes of slices; who holds a port is
 * asked elsewhere (claim.h), so that the same lines run in the kernel and in unit tests.
 *
 *   slice   |0 ........ shared, 7/8 ........|.. last eighth ..|
 *   with a peer     tried first, from a random port      tried last
 *   without a peer  tried last                           tried first
 *
 * A port held without a peer is lost to every destination, one held towards a peer only to that
 * peer; keeping the two kinds apart lets them meet late, yet every port serves both.
 *
 * Of addresses with equal standing a user has one as its home, whose slices come first, then those
 * of the next ones (RFC 6888 REQ-2, paired pooling).  Which one is the loader's to say (homes.c).
 */
#ifndef PS_EGRESS_CHOOSE_H
#define PS_EGRESS_CHOOSE_H

#include <linux/types.h>

#include "egress/abi.h"

/* The row of struct ps_homes of a user, who is known by the socket's mark where it has one, else by
 * the cgroup and uid of the program. */
static inline __attribute__((always_inline)) __u32 ps_home_row(__u32 mark, __u64 cgroup, __u32 uid)
{
	__u64 hash = mark ? mark : (cgroup << 32 ^ cgroup >> 32 ^ uid) + (1ull << 32);

	/* The finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
	hash += 0x9e3779b97f4a7c15ull;
	hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9ull;
	hash = (hash ^ hash >> 27) * 0x94d049bb133111ebull;
	return (__u32)((hash ^ hash >> 31) >> (64 - PS_HOME_BITS));
}

enum ps_walk_kind { PS_WALK_PEER, PS_WALK_PEERLESS };

/* A walk that meets every port of n_slices slices once: all slices' preferred parts first. */
struct ps_walk {
	__u32 n_slices;
	struct ps_home home; /* these slices come first; n 0: all are equal */
	__u32 start;         /* random; which slice of home, and which port of each, comes first */
	__u16 kind;          /* enum ps_walk_kind */
	__u16 part;          /* 0: preferred parts, 1: the other parts, 2: the walk is over */
	__u32 slice;         /* slices done in this part */
	__u32 port;          /* ports done in this slice's part */
};

static inline struct ps_walk ps_walk_start(__u32 kind, __u32 n_slices, struct ps_home home,
					   __u32 random)
{
	return (struct ps_walk){
		.n_slices = n_slices,
		.home = home,
		.start = random,
		.kind = (__u16)kind,
		.part = n_slices ? 0 : 2,
	};
}

static inline int ps_walk_over(const struct ps_walk *walk)
{
	return walk->part > 1;
}

/* Index of the present slice, below n_slices.  The walk is not over. */
static inline __u32 ps_walk_slice(const struct ps_walk *walk)
{
	__u32 n = walk->home.n ? walk->home.n : walk->n_slices, i = walk->slice;

	if (i < n)
		i = ((walk->start >> 16) + i) % n;
	return (walk->home.offset + i) % walk->n_slices;
}

/* Ports in the part that the walk is in, of a slice of n_ports; at least 1 when n_ports >= 8. */
static inline __u32 ps_walk_part_size(const struct ps_walk *walk, __u32 n_ports)
{
	__u32 eighth = n_ports / 8;

	return walk->kind == walk->part ? n_ports - eighth : eighth;
}

/* The present port, counted from the slice's first one; below n_ports when n_ports >= 8. */
static inline __u32 ps_walk_port(const struct ps_walk *walk, __u32 n_ports)
{
	__u32 size = ps_walk_part_size(walk, n_ports);
	__u32 base = walk->kind == walk->part ? 0 : n_ports - size;

	return size ? base + ((walk->start & 0xffff) + walk->port) % size : n_ports;
}

static inline void ps_walk_skip_slice(struct ps_walk *walk)
{
	walk->port = 0;
	if (++walk->slice < walk->n_slices)
		return;
	walk->slice = 0;
	walk->part++;
}

static inline void ps_walk_next(struct ps_walk *walk, __u32 n_ports)
{
	if (++walk->port >= ps_walk_part_size(walk, n_ports))
		ps_walk_skip_slice(walk);
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * In which order pages are tried: the slices of a choice from one that a hash of the peer names, and
 * of each slice its narrow page, then the wide ones; the first that is not full serves.  So a peer
 * has few pages, and different peers fill different slices.  Pure arithmetic, so that the same lines
 * run in the kernel and in unit tests.
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

struct ps_walk {
	__u32 n_slices;
	struct ps_home home; /* these slices come first; n 0: all are equal */
	__u32 start;         /* the slice of home that comes first */
	__u32 slice;         /* slices done */
	__u32 page;          /* pages of the present slice done */
};

static inline __u32 ps_walk_home_size(const struct ps_walk *walk)
{
	return walk->home.n ? walk->home.n : walk->n_slices;
}

static inline struct ps_walk ps_walk_start(__u32 n_slices, struct ps_home home, __u32 hash)
{
	struct ps_walk walk = {.n_slices = n_slices, .home = home};

	walk.start = (__u32)((__u64)hash * ps_walk_home_size(&walk) >> 32);
	return walk;
}

static inline int ps_walk_over(const struct ps_walk *walk)
{
	return walk->slice >= walk->n_slices;
}

/* Index of the present slice, below n_slices.  The walk is not over. */
static inline __u32 ps_walk_slice(const struct ps_walk *walk)
{
	__u32 n = ps_walk_home_size(walk), i = walk->slice;

	if (i < n) {
		i += walk->start;
		i = i < n ? i : i - n;
	}
	i += walk->home.offset;

	return i < walk->n_slices ? i : i - walk->n_slices;
}

static inline void ps_walk_skip_slice(struct ps_walk *walk)
{
	walk->page = 0;
	walk->slice++;
}

/* n_pages: of the present slice. */
static inline void ps_walk_next(struct ps_walk *walk, __u32 n_pages)
{
	if (++walk->page >= n_pages)
		ps_walk_skip_slice(walk);
}

#endif

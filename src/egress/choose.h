/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * In which order pages are tried: the slices of a choice from one that a hash of the peer names, and
 * of each slice its narrow page, then the wide ones; the first that is not full serves.  So a peer
 * has few pages, and different peers fill different slices.  Pure arithmetic, so that the same lines
 * run in the kernel and in unit tests.
 */
#ifndef PS_EGRESS_CHOOSE_H
#define PS_EGRESS_CHOOSE_H

#include <linux/types.h>

struct ps_walk {
	__u32 n_slices;
	__u32 start; /* the slice that comes first */
	__u32 slice; /* slices done */
	__u32 page;  /* pages of the present slice done */
};

static inline struct ps_walk ps_walk_start(__u32 n_slices, __u32 hash)
{
	return (struct ps_walk){.n_slices = n_slices,
				.start = (__u32)((__u64)hash * n_slices >> 32)};
}

static inline int ps_walk_over(const struct ps_walk *walk)
{
	return walk->slice >= walk->n_slices;
}

/* Index of the present slice, below n_slices.  The walk is not over. */
static inline __u32 ps_walk_slice(const struct ps_walk *walk)
{
	__u32 i = walk->start + walk->slice;

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

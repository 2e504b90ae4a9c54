/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* What user space runs now and then: quarantines end, empty pages go, pages of other sizes are counted. */
#ifndef PS_EGRESS_TEND_BPF_H
#define PS_EGRESS_TEND_BPF_H

#include "egress/claim.h"

struct bpf_map;

/* The record goes first: when the bit is free another may take it, and come here with it. */
static long thaw_step(struct bpf_map *map, struct ps_claim_key *key, struct ps_quarantine *value,
		      __u64 *n_freed)
{
	struct ps_grip grip = {.flow = *key, .gen = value->gen};

	grip.flow.is_counted = value->is_counted;
	if (value->free_after_ns > bpf_ktime_get_boot_ns())
		return 0;
	if (!bpf_map_delete_elem(map, key) && !ps_claim_drop(&grip))
		++*n_freed;
	return 0;
}

/* Run by user space now and then: frees the ports whose quarantine is over. */
SEC("syscall")
int ps_thaw(void *ctx)
{
	__u64 n_freed = 0;

	bpf_for_each_map_elem(&quarantine, thaw_step, &n_freed, 0);
	return (int)n_freed;
}

/* Some ports of the page are in use, and the slice that it was made for is not ours, or of another
 * size. */
static __always_inline int is_odd(const struct ps_page_key *key, const struct ps_page *page)
{
	struct ps_owned_key block = {.address = key->ours, .block = key->base >> (key->shift & 31)};
	struct ps_choice_slice *slice;
	__u32 *i;

	if (!(PS_LOAD(page->state) & PS_STATE_PERMITS))
		return 0;
	i = bpf_map_lookup_elem(&owned, &block);
	slice = i ? bpf_map_lookup_elem(&slices, i) : NULL;
	return !slice || slice->shift != key->shift;
}

static long odd_narrow(struct bpf_map *map, struct ps_page_key *key, struct ps_narrow_page *page,
		       __u32 *n)
{
	*n += is_odd(key, &page->head);
	return 0;
}

static long odd_wide(struct bpf_map *map, struct ps_page_key *key, struct ps_wide_page *page,
		     __u32 *n)
{
	*n += is_odd(key, &page->head);
	return 0;
}

/* How many pages hold claims that draws of this generation do not see. */
SEC("syscall")
int ps_count_odd(void *ctx)
{
	__u32 n = 0;

	bpf_for_each_map_elem(&pages, odd_narrow, &n, 0);
	bpf_for_each_map_elem(&wide_pages, odd_wide, &n, 0);
	return (int)n;
}

struct sweep {
	__u32 is_urgent;
	__u32 n_removed;
};

static long sweep_narrow(struct bpf_map *map, struct ps_page_key *key, struct ps_narrow_page *page,
			 struct sweep *sweep)
{
	sweep->n_removed += ps_ledger_kill(&page->head, sweep->is_urgent, PS_NARROW_WORDS);
	return 0;
}

static long sweep_wide(struct bpf_map *map, struct ps_page_key *key, struct ps_wide_page *page,
		       struct sweep *sweep)
{
	sweep->n_removed += ps_ledger_kill(&page->head, sweep->is_urgent, PS_WIDE_WORDS);
	return 0;
}

/* Run by user space now and then: removes the pages that are empty.  Nobody else does. */
SEC("syscall")
int ps_sweep(struct ps_sweep_order *order)
{
	struct sweep sweep = {.is_urgent = order->is_urgent};

	bpf_for_each_map_elem(&pages, sweep_narrow, &sweep, 0);
	bpf_for_each_map_elem(&wide_pages, sweep_wide, &sweep, 0);
	return (int)sweep.n_removed;
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The only door between the hooks and the record of ports in use.  The hooks know how to ask for
 * a port; that the record is a ledger of pages (ledger.h) stays in here.
 */
#ifndef PS_EGRESS_CLAIM_H
#define PS_EGRESS_CLAIM_H

#include "egress/choose.h"
#include "egress/maps.bpf.h"
#include "egress/pages.bpf.h"

enum { FRESH_STARTS = 128 }; /* after that many unfit ports, in order through all the others */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ps_choice_slice);
} slices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ps_lease);
} leases SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PS_QUARANTINE_MAX);
	__type(key, struct ps_claim_key);
	__type(value, struct ps_quarantine);
} quarantine SEC(".maps");

/* A wish for any port of a choice. */
struct ps_ask {
	struct ps_page_ask page; /* grip.flow: in: dst, dport, protocol; out: all */
	__u64 stamp; /* when the walk began (full.bpf.h); 0: its end is not to be noted */
	struct ps_walk walk;
	__u32 is_pinned; /* only slices of the address that flow.src names */
	__u32 first;     /* of the choice, in map slices */
	__u32 n_unfit;   /* claims that were passed on */
	__u32 n_passed;  /* shared ports of the full pages before the present one */
	int error;       /* what the walk ends with */
};

/* ask->page.grip.flow is set; its src may be zero: any address, the user's home first. */
static __always_inline void ps_ask_start(struct ps_ask *ask, const struct ps_choice *choice,
					 struct ps_home home)
{
	ask->is_pinned = !ps_ip16_is_zero(&ask->page.grip.flow.src);
	ask->first = choice->first;
	ask->walk = ps_walk_start(choice->n, home, ps_peer_hash(&ask->page.grip.flow));
	ask->page.how = PS_CLAIM_ANY;
	ask->error = -EADDRNOTAVAIL;
}

/* May ports of this slice be drawn? */
static __always_inline int lease_is_active(__u32 i)
{
	struct ps_lease *lease = bpf_map_lookup_elem(&leases, &i);
	__u64 until_ns;

	if (!lease || PS_LOAD(lease->state) != PS_LEASE_ACTIVE)
		return 0;
	until_ns = PS_LOAD(lease->until_ns);
	return !until_ns || bpf_ktime_get_boot_ns() < until_ns;
}

/* Goes to the next page. */
static __always_inline void pass_page(struct ps_ask *ask, const struct ps_choice_slice *slice)
{
	ask->n_passed += ask->page.place.draw.n;
	ask->page.place.bit = 0;
	ps_walk_next(&ask->walk, ps_slice_pages(slice, ps_ip16_is_zero(&ask->page.grip.flow.dst)));
}

/* The slice that the walk has come to, if it serves. */
static __always_inline struct ps_choice_slice *ask_slice(const struct ps_ask *ask, __u32 i)
{
	struct ps_choice_slice *slice = bpf_map_lookup_elem(&slices, &i);

	if (!slice || !lease_is_active(i))
		return NULL;
	if (ask->is_pinned && !ps_ip16_is_same(&ask->page.grip.flow.src, &slice->address))
		return NULL;
	return slice;
}

/* Tries the page that the walk has come to.  0: grip is claimed; -EAGAIN: there is nothing, the walk
 * has gone on; -EADDRNOTAVAIL: it is over; -ENOBUFS: so, and pages could not be made. */
__noinline int ps_claim_step(struct ps_ask *ask)
{
	struct ps_choice_slice *slice;
	__u32 i;
	int r;

	if (!ask)
		return -EINVAL;
	if (ps_walk_over(&ask->walk))
		return ask->error;
	i = ask->first + ps_walk_slice(&ask->walk);
	slice = ask_slice(ask, i);
	if (!slice) {
		ps_walk_skip_slice(&ask->walk);
		return -EAGAIN;
	}
	if (!ask->is_pinned)
		ask->page.grip.flow.src = slice->address;
	ask->page.grip.flow.shift = slice->shift;
	ps_place_nth(slice, &ask->page.grip.flow, ask->walk.page, &ask->page.place);
	if (ask->page.how == PS_CLAIM_ANY)
		ask->page.place.bit = ps_draw_nth(&ask->page.place.draw, bpf_get_prandom_u32());
	r = ask->page.place.draw.n ? ps_page_claim(&ask->page) : PS_CLAIM_FULL;
	if (r) {
		if (r != PS_CLAIM_FULL)
			ask->stamp = 0;
		if (r == PS_CLAIM_SHORT)
			ask->error = -ENOBUFS;
		pass_page(ask, slice);
		return -EAGAIN;
	}
	ask->page.grip.flow.sport = bpf_htons(ask->page.place.base + ask->page.place.bit);
	if (lease_is_active(i))
		return 0;
	ps_claim_drop(&ask->page.grip);
	ps_walk_skip_slice(&ask->walk);
	return -EAGAIN;
}

/* Gives back the claim of the last step, which was not fit, and goes on to another port. */
__noinline int ps_claim_pass(struct ps_ask *ask)
{
	if (!ask)
		return -EINVAL;
	ps_claim_drop(&ask->page.grip);
	ask->stamp = 0;
	ask->n_unfit++;
	if (ask->n_unfit > FRESH_STARTS) {
		ask->page.place.bit++;
		return 0;
	}
	ask->walk.slice = ask->walk.page = ask->n_passed = 0;
	if (ask->n_unfit == FRESH_STARTS) {
		ask->page.how = PS_CLAIM_ONWARD;
		ask->page.place.bit = 0;
	}
	return 0;
}

/* Is it known how a walk would end? */
static __always_inline int ps_ask_is_vain(struct ps_ask *ask)
{
	return !ask->is_pinned &&
	       ps_full_known(&ask->page.grip.flow, ask->first, ask->walk.n_slices, &ask->stamp);
}

/* The walk met the end. */
static __always_inline void ps_ask_note(struct ps_ask *ask)
{
	if (ask->stamp)
		ps_full_note(&ask->page.grip.flow, ask->first, ask->walk.n_slices, ask->stamp);
}

/* After the walk: a grip that names no port, as before. */
static __always_inline void ps_ask_end(struct ps_ask *ask)
{
	if (!ask->is_pinned)
		ask->page.grip.flow.src = (union ps_ip16){0};
	ask->page.grip.flow.sport = 0;
}

/* The place in map slices of the slice of this host that has flow's src and sport, -ENOENT: there is
 * none; sets flow's shift. */
__noinline int ps_slice_index(struct ps_claim_key *flow)
{
	struct ps_owned_key key = {0};
	struct ps_place_value *place;
	__u32 *i;

	if (!flow)
		return -EINVAL;
	if (bpf_ntohs(flow->sport) < PS_WHOLE_UNUSABLE << PS_NARROW_SHIFT)
		return -ENOENT;
	key.address = flow->src;
	place = place_find(&key.address);
	if (!place || place->kind != PS_PLACE_SHARED)
		return -ENOENT;
	flow->shift = place->shift;
	key.block = bpf_ntohs(flow->sport) >> (place->shift & 31);
	i = bpf_map_lookup_elem(&owned, &key);
	return i ? (int)*i : -ENOENT;
}

/* Takes exactly the port of ask's flow: towards dst, or without a peer where dst and dport are 0; the
 * ask's grip is the claim.  -EADDRINUSE: taken; -ENOBUFS: no page could be made; -EADDRNOTAVAIL: no
 * slice of this host, or one that is leaving. */
__noinline int ps_claim_exactly(struct ps_page_ask *ask)
{
	struct ps_choice_slice *slice;
	__u32 i, shift, base;
	int r, is_peerless;

	if (!ask)
		return -EINVAL;
	is_peerless = ps_ip16_is_zero(&ask->grip.flow.dst);
	i = (__u32)ps_slice_index(&ask->grip.flow);
	slice = bpf_map_lookup_elem(&slices, &i);
	if (!slice)
		return -EADDRNOTAVAIL;
	ask->how = PS_CLAIM_EXACTLY;
	ps_place_port(&ask->grip.flow, &ask->place);
	shift = slice->shift & 31;
	base = ps_slice_base(slice->first_port, shift);
	if (shift > PS_NARROW_SHIFT)
		base = ps_narrow_base(base, shift, ps_peer_hash(&ask->grip.flow));
	ps_place_shape(slice, is_peerless, base, &ask->place);
	r = ps_page_claim(ask);
	if (r)
		return r == PS_CLAIM_SHORT ? -ENOBUFS : -EADDRINUSE;
	if (!lease_is_active(i)) {
		ps_claim_drop(&ask->grip);
		return -EADDRNOTAVAIL;
	}
	if (!is_peerless && !ps_draw_has(&ask->place.draw, ask->place.bit))
		ps_uses_begin(&ask->grip.flow);
	return 0;
}

/* Gives a port back as from that time on. */
__noinline int ps_claim_quarantine(const struct ps_grip *grip, __u64 for_ns)
{
	struct ps_quarantine value = {.free_after_ns = bpf_ktime_get_boot_ns() + for_ns};
	struct ps_claim_key key;

	if (!grip)
		return -EINVAL;
	key = grip->flow;
	key.is_counted = 0;
	value.gen = grip->gen;
	value.is_counted = grip->flow.is_counted;
	if (bpf_map_update_elem(&quarantine, &key, &value, BPF_ANY))
		return ps_claim_drop(grip); /* no room: the kernel still refuses the port */
	return 0;
}

/* The key of the same port without a peer, as map `services` has it. */
static __always_inline struct ps_claim_key bare_key(const struct ps_claim_key *key)
{
	return (struct ps_claim_key){
		.src = key->src, .sport = key->sport, .protocol = key->protocol};
}

static __always_inline int held_without_peer(const struct ps_claim_key *flow)
{
	struct ps_claim_key bare = bare_key(flow);

	bare.shift = flow->shift;
	return ps_claim_is_held(&bare);
}

/* What a choice has of a claim's source. */
enum ps_serves { PS_SERVES_NOTHING, PS_SERVES_ADDRESS, PS_SERVES_PORT };

struct serves {
	union ps_ip16 address;
	__u32 first;
	__u32 found; /* enum ps_serves */
};

static long serves_step(__u64 nth, struct serves *serves)
{
	__u32 i = serves->first + (__u32)nth;
	struct ps_choice_slice *slice = bpf_map_lookup_elem(&slices, &i);

	if (!slice || !ps_ip16_is_same(&slice->address, &serves->address))
		return 0;
	serves->found = PS_SERVES_ADDRESS;
	return 1;
}

/* enum ps_serves: does the choice [first, first + n) have flow's src, and its sport too? */
__noinline int ps_claim_serves(struct ps_claim_key *flow, __u32 first, __u32 n)
{
	struct serves serves = {.first = first};

	if (!flow)
		return PS_SERVES_NOTHING;
	if (flow->sport && (__u32)ps_slice_index(flow) - first < n)
		return PS_SERVES_PORT;
	serves.address = flow->src;
	bpf_loop(n, serves_step, &serves, 0);
	return serves.found;
}

#endif

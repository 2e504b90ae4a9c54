/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The only door between the hooks and the record of ports in use.  The hooks know how to ask for
 * a port; what a record of it looks like stays in here, so that the ledger can take its place.
 *
 * One hash entry a port in use: taking is an insertion that fails when the entry exists, so two
 * processors never take the same one.  An entry whose free_after_ns has passed is free as well and
 * is taken by compare-and-swap of that field.
 */
#ifndef PS_EGRESS_CLAIM_H
#define PS_EGRESS_CLAIM_H

#include "egress/choose.h"
#include "egress/maps.bpf.h"

enum { LOOPS_MAX = 1 << 23 }; /* BPF_MAX_LOOPS; more than PS_CLAIMS_MAX, so a free port is met */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PS_CLAIMS_MAX);
	__type(key, struct ps_claim_key);
	__type(value, struct ps_claim);
} claims SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ps_choice_slice);
} slices SEC(".maps");

/* A wish for any port of a choice. */
struct ps_ask {
	struct ps_claim_key key; /* in: dst, dport, protocol; out: src, sport as well */
	__u32 is_pinned;         /* only slices of the address that key.src names */
	__u32 first;             /* of the choice, in map slices */
	struct ps_walk walk;     /* a further draw goes on after the last one */
	int error;
};

/* ask->key is set; its src may be zero: any address, the user's home first. */
static __always_inline void ps_ask_start(struct ps_ask *ask, const struct ps_choice *choice,
					 __u32 kind, struct ps_home home)
{
	ask->is_pinned = !ps_ip16_is_zero(&ask->key.src);
	ask->first = choice->first;
	ask->walk = ps_walk_start(kind, choice->n, home, bpf_get_prandom_u32());
}

/* Takes exactly key's port: towards dst, or without a peer where dst and dport are 0.
 * -EADDRINUSE: taken; -ENOBUFS: the table is full. */
__noinline int ps_claim_exactly(const struct ps_claim_key *wanted)
{
	struct ps_claim fresh = {0}, *old;
	struct ps_claim_key key;
	__u64 until;
	int r;

	if (!wanted)
		return -EINVAL;
	key = *wanted; /* Linux 6.1 takes no key from a global function's argument */
	r = bpf_map_update_elem(&claims, &key, &fresh, BPF_NOEXIST);
	if (!r)
		return 0;
	if (r == -E2BIG || r == -ENOMEM)
		return -ENOBUFS;
	old = bpf_map_lookup_elem(&claims, &key);
	if (!old)
		return -EADDRINUSE;
	until = *(volatile __u64 *)&old->free_after_ns;
	if (!until || until > bpf_ktime_get_boot_ns())
		return -EADDRINUSE;
	if (__sync_val_compare_and_swap(&old->free_after_ns, until, 0) != until)
		return -EADDRINUSE;
	return 0;
}

/* Gives a port back.  Only whoever holds it may. */
static __always_inline void ps_claim_drop(const struct ps_claim_key *key)
{
	bpf_map_delete_elem(&claims, key);
}

/* Gives a port back as from that time on. */
static __always_inline void ps_claim_quarantine(const struct ps_claim_key *key, __u64 for_ns)
{
	struct ps_claim *claim = bpf_map_lookup_elem(&claims, key);

	if (claim)
		*(volatile __u64 *)&claim->free_after_ns = bpf_ktime_get_boot_ns() + for_ns;
}

/* The key of the same port without a peer. */
static __always_inline struct ps_claim_key bare_key(const struct ps_claim_key *key)
{
	return (struct ps_claim_key){
		.src = key->src, .sport = key->sport, .protocol = key->protocol};
}

static __always_inline int is_claimed(const struct ps_claim_key *key)
{
	return !!bpf_map_lookup_elem(&claims, key);
}

static __always_inline int held_without_peer(const struct ps_claim_key *key)
{
	struct ps_claim_key bare = bare_key(key);

	return is_claimed(&bare);
}

/* A service's port is nobody's to draw; one held without a peer is free towards nobody. */
static __always_inline int is_kept(const struct ps_ask *ask)
{
	struct ps_claim_key bare = bare_key(&ask->key);

	if (n_services && bpf_map_lookup_elem(&services, &bare))
		return 1;
	return ask->walk.kind == PS_WALK_PEER && is_claimed(&bare);
}

static long draw_step(__u64 nth, struct ps_ask *ask)
{
	struct ps_choice_slice *slice;
	__u32 i;

	if (ps_walk_over(&ask->walk))
		return 1;
	i = ask->first + ps_walk_slice(&ask->walk);
	slice = bpf_map_lookup_elem(&slices, &i);
	if (!slice || (ask->is_pinned && !ps_ip16_is_same(&ask->key.src, &slice->address))) {
		ps_walk_skip_slice(&ask->walk);
		return 0;
	}
	ask->key.src = slice->address;
	ask->key.sport = bpf_htons(slice->first_port + ps_walk_port(&ask->walk, slice->n_ports));
	ps_walk_next(&ask->walk, slice->n_ports);
	if (is_kept(ask))
		return 0;
	ask->error = ps_claim_exactly(&ask->key);
	return ask->error != -EADDRINUSE;
}

/* Takes the next free port of the choice.  -EADDRNOTAVAIL: there is none; -ENOBUFS: the table is
 * full; then key names no port. */
__noinline int ps_claim_draw(struct ps_ask *ask)
{
	struct ps_ask local;

	if (!ask)
		return -EINVAL;
	local = *ask; /* bpf_loop wants its argument on the stack of this very function */
	local.error = -EADDRINUSE;
	bpf_loop(LOOPS_MAX, draw_step, &local, 0);
	if (local.error && !local.is_pinned)
		local.key.src = (union ps_ip16){0};
	if (local.error)
		local.key.sport = 0;
	*ask = local;
	return local.error == -EADDRINUSE ? -EADDRNOTAVAIL : local.error;
}

/* What a choice has of a claim's source. */
enum ps_serves { PS_SERVES_NOTHING, PS_SERVES_ADDRESS, PS_SERVES_PORT };

struct serves {
	union ps_ip16 address;
	__u32 first;
	__u16 port;
	__u16 found; /* enum ps_serves */
};

static long serves_step(__u64 nth, struct serves *serves)
{
	__u32 i = serves->first + (__u32)nth;
	struct ps_choice_slice *slice = bpf_map_lookup_elem(&slices, &i);

	if (!slice || !ps_ip16_is_same(&slice->address, &serves->address))
		return 0;
	serves->found = PS_SERVES_ADDRESS;
	if (serves->port < slice->first_port ||
	    (__u32)(serves->port - slice->first_port) >= slice->n_ports)
		return 0;
	serves->found = PS_SERVES_PORT;
	return 1;
}

/* enum ps_serves: does the choice [first, first + n) have key's src, and its sport too? */
__noinline int ps_claim_serves(const struct ps_claim_key *key, __u32 first, __u32 n)
{
	struct serves serves = {.first = first};

	if (!key)
		return PS_SERVES_NOTHING;
	serves.address = key->src;
	serves.port = bpf_ntohs(key->sport);
	bpf_loop(n, serves_step, &serves, 0);
	return serves.found;
}

#endif

// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * The ledger against a continuous killer: users claim ports of few pages and give them back, while
 * every empty page is removed at once.  An owner for each (page, port) is the judge.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

/* Widens the time in which a pointer grows stale. */
__attribute__((noinline)) int stall(void)
{
	__u32 random = bpf_get_prandom_u32();
	__u64 until;

	if (random & 7)
		return 0;
	until = bpf_ktime_get_ns() + (random >> 16 & 8191);
	for (int i = 0; i < 256; i++)
		if (bpf_ktime_get_ns() > until)
			break;
	return 0;
}
#define PS_LEDGER_WINDOW() stall()

#include "egress/pages.bpf.h"
#include "../unit/ledger-naive.h"
#include "ledger-stress.h"

/* A claim that a user holds. */
struct stress_slot {
	struct ps_page_ask ask;
	__u32 is_used;
	__u32 pad;
};

const volatile __u8 is_naive;
struct stress_sums sums;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STRESS_USERS *STRESS_SLOTS);
	__type(key, __u32);
	__type(value, struct stress_slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STRESS_KEYS << PS_NARROW_SHIFT);
	__type(key, __u32);
	__type(value, __u32);
} owners SEC(".maps");

__noinline int attempt_naively(struct ps_page_ask *ask)
{
	return ask ? naive_attempt(ask, PS_NARROW_WORDS) : -EINVAL;
}

__noinline int claim_naively(struct ps_page_ask *ask)
{
	int r = PS_CLAIM_AGAIN;

	if (!ask)
		return -EINVAL;
	for (int i = 0; i < CLAIM_TRIES; i++) {
		r = attempt_naively(ask);
		if (r == PS_CLAIM_NO_PAGE)
			r = ps_make_narrow(ask);
		else if (r != PS_CLAIM_AGAIN)
			return r;
	}
	return r;
}

__noinline int claim_rightly(struct ps_page_ask *ask)
{
	return ask ? ps_page_claim(ask) : -EINVAL;
}

/* Makes the user, from 1 on, the owner of the slot's port in place of the one before. */
__noinline int own(const struct ps_page_ask *ask, __u32 from, __u32 to)
{
	__u32 i, *owner;

	if (!ask)
		return 0;
	i = ask->grip.flow.dst.words[3] << PS_NARROW_SHIFT | ask->place.bit;
	owner = bpf_map_lookup_elem(&owners, &i);
	return owner && __sync_val_compare_and_swap(owner, from, to) == from;
}

static __always_inline void give_back(struct stress_slot *slot, __u32 user)
{
	own(&slot->ask, user + 1, 0);
	if (ps_ledger_drop(&slot->ask.grip, &slot->ask.place, PS_NARROW_WORDS))
		__sync_fetch_and_add(&sums.n_lost, 1);
	slot->is_used = 0;
}

static __always_inline void take(struct stress_slot *slot, __u32 user)
{
	struct ps_page_ask *ask = &slot->ask;
	int r;

	ask->grip.flow.dst.words[3] = bpf_get_prandom_u32() % STRESS_KEYS;
	ask->place.n_words = PS_NARROW_WORDS;
	ask->place.bit = bpf_get_prandom_u32() % 256;
	ask->place.draw.first = 62;
	ask->place.draw.end = 62 + STRESS_PORTS;
	ask->place.draw.n = STRESS_PORTS;
	ask->place.draw.hole = PS_NO_HOLE;
	ask->how = PS_CLAIM_ANY;
	r = is_naive ? claim_naively(ask) : claim_rightly(ask);
	if (r == PS_CLAIM_FULL)
		__sync_fetch_and_add(&sums.n_full, 1);
	else if (r)
		__sync_fetch_and_add(&sums.n_gave_up, 1);
	if (r)
		return;
	__sync_fetch_and_add(&sums.n_claims, 1);
	if (!own(ask, 0, user + 1))
		__sync_fetch_and_add(&sums.n_doubles, 1);
	slot->is_used = 1;
}

static long use_step(__u64 nth, __u32 *user)
{
	__u32 i = *user * STRESS_SLOTS + bpf_get_prandom_u32() % STRESS_SLOTS;
	struct stress_slot *slot = bpf_map_lookup_elem(&slots, &i);

	if (slot && slot->is_used)
		give_back(slot, *user);
	else if (slot)
		take(slot, *user);
	return 0;
}

SEC("syscall")
int use(struct stress_order *order)
{
	__u32 user = order->user;

	bpf_loop(order->n_rounds, use_step, &user, 0);
	return 0;
}

static long end_step(__u64 nth, __u32 *user)
{
	__u32 i = *user * STRESS_SLOTS + (__u32)nth;
	struct stress_slot *slot = bpf_map_lookup_elem(&slots, &i);

	if (slot && slot->is_used)
		give_back(slot, *user);
	return 0;
}

SEC("syscall")
int end(struct stress_order *order)
{
	__u32 user = order->user;

	bpf_loop(STRESS_SLOTS, end_step, &user, 0);
	return 0;
}

struct bpf_map;

static long kill_step(struct bpf_map *map, struct ps_page_key *key, struct ps_narrow_page *page,
		      void *arg)
{
	int killed = is_naive ? naive_kill(&page->head, PS_NARROW_WORDS)
			      : ps_ledger_kill(&page->head, 1, PS_NARROW_WORDS);

	if (killed)
		__sync_fetch_and_add(&sums.n_kills, 1);
	return 0;
}

SEC("syscall")
int kill(void *ctx)
{
	bpf_for_each_map_elem(&pages, kill_step, NULL, 0);
	return 0;
}

char ps_license[] SEC("license") = "GPL";

/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The ledger's pages in kernel maps.  Each step of the protocol is a global function: the verifier
 * walks it once, and every caller's stack stays small (512 bytes for a chain of calls, each rounded
 * up to 32 on Linux 6.1).
 */
#ifndef PS_EGRESS_PAGES_BPF_H
#define PS_EGRESS_PAGES_BPF_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "egress/abi.h"
#include "egress/full.bpf.h"
#include "egress/uses.bpf.h"

/* Never LRU: a page in use must not go.  Preallocated: the memory is there, and elements are used
 * again by the same map only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PS_PAGES_MAX);
	__type(key, struct ps_page_key);
	__type(value, struct ps_narrow_page);
} pages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PS_WIDE_PAGES_MAX);
	__type(key, struct ps_page_key);
	__type(value, struct ps_wide_page);
} wide_pages SEC(".maps");

#include "egress/ledger.h"

enum { CLAIM_TRIES = 64, PAUSE_NS = 300, PAUSE_LOOKS = 32 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PS_DRAFTS_MAX);
	__type(key, __u32);
	__type(value, struct ps_draft);
} drafts SEC(".maps");

/* While a repair runs (repair.bpf.h): the claims whose holder it has not seen, by ps_claim_id(). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, PS_SUSPECTS_MAX);
	__type(key, __u64);
	__type(value, struct ps_suspect);
} suspects SEC(".maps");

/* Its one element is 1 while a repair runs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} accusing SEC(".maps");

PS_PURE struct ps_page *ps_page_find(__u32 n_words, const struct ps_page_key *key)
{
	if (n_words == PS_NARROW_WORDS)
		return bpf_map_lookup_elem(&pages, key);
	return bpf_map_lookup_elem(&wide_pages, key);
}

PS_PURE int ps_page_insert(__u32 n_words, const struct ps_page_key *key,
			   const struct ps_page *template)
{
	if (n_words == PS_NARROW_WORDS)
		return bpf_map_update_elem(&pages, key, template, BPF_NOEXIST);
	return bpf_map_update_elem(&wide_pages, key, template, BPF_NOEXIST);
}

PS_PURE void ps_page_delete(__u32 n_words, const struct ps_page_key *key)
{
	if (n_words == PS_NARROW_WORDS)
		bpf_map_delete_elem(&pages, key);
	else
		bpf_map_delete_elem(&wide_pages, key);
}

PS_PURE void ps_ledger_undone(void)
{
	ps_full_undone();
}

PS_PURE struct ps_draft *ps_draft_at(__u32 i)
{
	return bpf_map_lookup_elem(&drafts, &i);
}

__noinline int ps_attempt_narrow(struct ps_page_ask *ask)
{
	return ask ? ps_ledger_attempt(ask, PS_NARROW_WORDS) : -EINVAL;
}

__noinline int ps_attempt_wide(struct ps_page_ask *ask)
{
	return ask ? ps_ledger_attempt(ask, PS_WIDE_WORDS) : -EINVAL;
}

__noinline int ps_make_narrow(const struct ps_page_ask *ask)
{
	if (!ask)
		return -EINVAL;
	return ps_ledger_make(ask, bpf_get_smp_processor_id(), PS_NARROW_WORDS);
}

__noinline int ps_make_wide(const struct ps_page_ask *ask)
{
	if (!ask)
		return -EINVAL;
	return ps_ledger_make(ask, bpf_get_smp_processor_id(), PS_WIDE_WORDS);
}

/* Lets another processor end what it does. */
__noinline int ps_pause(void)
{
	__u64 until = bpf_ktime_get_ns() + PAUSE_NS;

	for (int i = 0; i < PAUSE_LOOKS; i++)
		if (bpf_ktime_get_ns() > until)
			break;
	return 0;
}

/* Claims in the page of the ask, which is made if it is not there.  0, PS_CLAIM_FULL,
 * PS_CLAIM_TAKEN, PS_CLAIM_SHORT; PS_CLAIM_AGAIN: others were faster 64 times. */
static __always_inline int ps_page_claim(struct ps_page_ask *ask)
{
	int is_wide = ask->place.n_words == PS_WIDE_WORDS, r = PS_CLAIM_AGAIN;

	for (int i = 0; i < CLAIM_TRIES; i++) {
		r = is_wide ? ps_attempt_wide(ask) : ps_attempt_narrow(ask);
		if (r == PS_CLAIM_NO_PAGE) {
			r = is_wide ? ps_make_wide(ask) : ps_make_narrow(ask);
			if (r == PS_CLAIM_SHORT)
				return r;
		} else if (r == PS_CLAIM_LEAVING) {
			ps_pause();
		} else if (r != PS_CLAIM_AGAIN) {
			return r;
		}
	}
	return PS_CLAIM_AGAIN;
}

static __always_inline void ps_acquit(__u64 gen, __u32 bit)
{
	__u64 id = ps_claim_id(gen, bit);

	bpf_map_delete_elem(&suspects, &id);
}

/* Gives a port back.  Only whoever holds it may.  Who does is no leak: a repair is told, after the bit
 * is free (repair.bpf.h says why then). */
__noinline int ps_claim_drop(const struct ps_grip *grip)
{
	struct ps_page_place place = {0};
	__u32 zero = 0, *watched;
	int r;

	if (!grip)
		return -EINVAL;
	ps_place_port(&grip->flow, &place);
	if (place.n_words == PS_WIDE_WORDS)
		r = ps_ledger_drop(grip, &place, PS_WIDE_WORDS);
	else
		r = ps_ledger_drop(grip, &place, PS_NARROW_WORDS);
	watched = bpf_map_lookup_elem(&accusing, &zero);
	if (watched && PS_LOAD(*watched))
		ps_acquit(grip->gen, place.bit);
	if (r)
		return r;
	ps_full_given_back(&grip->flow);
	ps_uses_end(&grip->flow);
	return 0;
}

/* Is this very claim, of this page and no later one, in use? */
__noinline int ps_claim_stands(const struct ps_grip *grip)
{
	struct ps_page_place place = {0};
	struct ps_page_key key;
	struct ps_page *page;
	int is_wide;

	if (!grip)
		return 0;
	ps_place_port(&grip->flow, &place);
	key = ps_page_key_of(&grip->flow, place.base);
	is_wide = place.n_words == PS_WIDE_WORDS;
	page = is_wide ? ps_page_find(PS_WIDE_WORDS, &key) : ps_page_find(PS_NARROW_WORDS, &key);
	if (!page || ps_state_gen(PS_LOAD(page->state)) != grip->gen)
		return 0;
	if (is_wide)
		return ps_page_has(page, PS_WIDE_WORDS, place.bit);
	return ps_page_has(page, PS_NARROW_WORDS, place.bit);
}

/* Is the port, of a slice with flow->shift, in use towards the peer (or without one)? */
__noinline int ps_claim_is_held(const struct ps_claim_key *flow)
{
	struct ps_page_place place = {0};
	struct ps_page_key key;

	if (!flow)
		return 0;
	ps_place_port(flow, &place);
	key = ps_page_key_of(flow, place.base);
	if (place.n_words == PS_WIDE_WORDS)
		return ps_page_has(ps_page_find(PS_WIDE_WORDS, &key), PS_WIDE_WORDS, place.bit);
	return ps_page_has(ps_page_find(PS_NARROW_WORDS, &key), PS_NARROW_WORDS, place.bit);
}

#endif

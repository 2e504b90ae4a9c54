/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The ledger's protocol: how ports are claimed in pages, given back, and pages made and removed, by
 * any number of processors at once and without a lock.  The same lines run in the cgroup hooks and
 * in a user-space build; whoever includes this defines the functions below.  Why it is right
 * is in doc/ledger.md.
 *
 *   state   |generation: 36|life: 2|apart: 13|count: 13|
 *   life    UNINIT -> LIVE (whoever finds it in place) -> DEAD (the sweeper, from counts 0 only)
 *
 * claim    count + 1 by compare-and-swap while LIVE and not full: a *permit*; then the page's copy
 *          of its key must be ours; then a free bit by fetch-or, which the permit guarantees
 * release  the bit, then the permit
 * make     a whole template UNINIT with a generation of its own, inserted if there is none
 * remove   LIVE with no permit -> DEAD, then deleted, by whoever made it DEAD; by nobody else
 *
 * Elements of the map are used again at once, but for pages only, so a pointer that went stale
 * still shows a page: of another key or generation, or DEAD, or not yet in place.
 */
#ifndef PS_EGRESS_LEDGER_H
#define PS_EGRESS_LEDGER_H

#include <linux/errno.h>

#include "egress/page-bits.h"

/* NULL: there is none.  n_words says which map. */
static struct ps_page *ps_page_find(__u32 n_words, const struct ps_page_key *key);
/* Inserts a copy of the template; 0, -EEXIST, or another errno when memory is short. */
static int ps_page_insert(__u32 n_words, const struct ps_page_key *key,
			  const struct ps_page *template);
static void ps_page_delete(__u32 n_words, const struct ps_page_key *key);
/* A permit was given back that never was a claim; while it was out a page may have looked full. */
static void ps_ledger_undone(void);

/* Between looking a page up and touching it; tests make the time long. */
#ifndef PS_LEDGER_WINDOW
#define PS_LEDGER_WINDOW() ((void)0)
#endif

enum {
	PS_DRAFTS_MAX = 64, /* a power of two */
	PS_DRAFT_TRIES = 8,
};

/* What an attempt says beside 0, a claim. */
enum {
	PS_CLAIM_FULL = -ENOSPC, /* nothing to draw is left */
	PS_CLAIM_TAKEN = -EADDRINUSE,
	PS_CLAIM_NO_PAGE = -ENOENT,
	PS_CLAIM_AGAIN = -EAGAIN,   /* another was faster */
	PS_CLAIM_LEAVING = -ESTALE, /* the page is about to go: again, in a moment */
	PS_CLAIM_SHORT = -ENOBUFS,  /* no room for another page */
};

enum ps_claim_how {
	PS_CLAIM_ANY,     /* from bit place.bit on, then from the first */
	PS_CLAIM_ONWARD,  /* from bit place.bit on */
	PS_CLAIM_EXACTLY, /* bit place.bit */
};

struct ps_page_ask {
	struct ps_grip grip;        /* flow: in, but for sport; gen: out */
	struct ps_page_place place; /* bit: in as `how` says; out: the one claimed */
	__u32 how;                  /* enum ps_claim_how */
	__u32 n_used;               /* out: drawn ports of the page, this one among them */
};

/* A template under construction: an element of map `drafts`, since it is too large for the stack.
 * A slot is one maker's while `busy`, and makes generations of its own. */
struct ps_draft {
	__u32 busy;
	__u32 pad;
	__u64 n_made;
	struct ps_wide_page page; /* its words stay zero */
};

/* Slot i, below PS_DRAFTS_MAX. */
static struct ps_draft *ps_draft_at(__u32 i);

PS_PURE int ps_page_is_of(struct ps_page *page, const struct ps_page_key *key)
{
	__u64 *a = (__u64 *)&page->key;
	const __u64 *b = (const __u64 *)key;

	return !((PS_LOAD(a[0]) ^ b[0]) | (PS_LOAD(a[1]) ^ b[1]) | (PS_LOAD(a[2]) ^ b[2]) |
		 (PS_LOAD(a[3]) ^ b[3]) | (PS_LOAD(a[4]) ^ b[4]));
}

/* Also a full barrier. */
PS_PURE int ps_state_still(struct ps_page *page, __u64 state)
{
	return __sync_val_compare_and_swap(&page->state, state, state) == state;
}

/* An element found UNINIT is in place, and whole, if a look-up that begins now still finds it: it left
 * the map's lists before it became UNINIT, and comes back to them when it has been copied. */
PS_PURE int ps_page_publish(struct ps_page *page, __u64 state, const struct ps_page_key *key,
			    __u32 n_words)
{
	if (ps_state_still(page, state) && ps_page_find(n_words, key) == page)
		__sync_val_compare_and_swap(&page->state, state,
					    state | (__u64)PS_PAGE_LIVE << PS_STATE_LIFE_SHIFT);
	return PS_CLAIM_AGAIN;
}

/* The count of a LIVE page is at its limit, if the page is the one we mean. */
PS_PURE int ps_page_is_full(struct ps_page *page, __u64 state, const struct ps_page_key *key)
{
	int is_full;

	if (!ps_state_still(page, state))
		return PS_CLAIM_AGAIN;
	is_full = ps_page_is_of(page, key) && ps_state_count(state) >= PS_LOAD(page->draw.n);
	return ps_state_still(page, state) && is_full ? PS_CLAIM_FULL : PS_CLAIM_AGAIN;
}

/* The permit that the ask needs of this page: of a drawn port, or apart. */
PS_PURE __u64 ps_page_permit(struct ps_page *page, const struct ps_page_ask *ask)
{
	struct ps_page_draw draw = ps_page_draw(page);

	if (ask->how == PS_CLAIM_EXACTLY && !ps_draw_has(&draw, ask->place.bit))
		return PS_STATE_APART;
	return 1;
}

/* The page is pinned by our permit: 0, or why not. */
PS_PURE int ps_page_use(struct ps_page *page, struct ps_page_ask *ask, __u32 n_words)
{
	int bit;

	if (!PS_LOAD(page->draw.is_warm))
		PS_STORE(page->draw.is_warm, 1);
	if (ask->how == PS_CLAIM_EXACTLY)
		bit = ps_bits_take(page, n_words, ask->place.bit);
	else
		bit = ps_bits_draw(page, n_words, ask->place.bit, ask->how == PS_CLAIM_ANY);
	if (bit >= 0) {
		ask->place.bit = (__u32)bit;
		return 0;
	}
	if (ask->how == PS_CLAIM_EXACTLY)
		return PS_CLAIM_TAKEN;
	return ask->how == PS_CLAIM_ONWARD ? PS_CLAIM_FULL : PS_CLAIM_AGAIN;
}

/* One attempt to claim.  n_words is that of the ask, as a constant. */
PS_PURE int ps_ledger_attempt(struct ps_page_ask *ask, __u32 n_words)
{
	struct ps_page_key key = ps_page_key_of(&ask->grip.flow, ask->place.base);
	struct ps_page *page = ps_page_find(n_words, &key);
	__u64 state, permit;
	int r;

	if (!page)
		return PS_CLAIM_NO_PAGE;
	PS_LEDGER_WINDOW();
	state = PS_LOAD(page->state);
	if (ps_state_life(state) == PS_PAGE_UNINIT)
		return ps_page_publish(page, state, &key, n_words);
	if (ps_state_life(state) != PS_PAGE_LIVE)
		return PS_CLAIM_LEAVING;
	permit = ps_page_permit(page, ask);
	if (permit == 1 && ps_state_count(state) >= PS_LOAD(page->draw.n))
		return ps_page_is_full(page, state, &key);
	if (__sync_val_compare_and_swap(&page->state, state, state + permit) != state)
		return PS_CLAIM_AGAIN;
	/* From here on the page cannot go; what was read of it before may be of another. */
	r = PS_CLAIM_AGAIN;
	if (ps_page_is_of(page, &key) && permit == ps_page_permit(page, ask) &&
	    (permit != 1 || ps_state_count(state) < PS_LOAD(page->draw.n)))
		r = ps_page_use(page, ask, n_words);
	if (r) {
		__sync_fetch_and_sub(&page->state, permit);
		ps_ledger_undone();
	}
	ask->n_used = ps_state_count(state) + 1;
	ask->grip.gen = ps_state_gen(state);
	return r;
}

/* Gives a claim back; only whoever holds it may, once. */
PS_PURE int ps_ledger_drop(const struct ps_grip *grip, const struct ps_page_place *place,
			   __u32 n_words)
{
	struct ps_page_key key = ps_page_key_of(&grip->flow, place->base);
	struct ps_page *page = ps_page_find(n_words, &key);
	__u64 one = 1ull << (place->bit & 63);
	struct ps_page_draw draw;

	if (!page)
		return -ENOENT;
	if (ps_state_gen(PS_LOAD(page->state)) != grip->gen)
		return -ESTALE;
	draw = ps_page_draw(page);
	if (!(__sync_fetch_and_and(&ps_page_words(page)[(place->bit >> 6) & (n_words - 1)], ~one) &
	      one))
		return -EALREADY;
	__sync_fetch_and_sub(&page->state,
			     ps_draw_has(&draw, place->bit) ? 1ull : (__u64)PS_STATE_APART);
	return 0;
}

PS_PURE struct ps_draft *ps_draft_take(__u32 start, __u32 *ret_slot)
{
	for (__u32 i = 0; i < PS_DRAFT_TRIES; i++) {
		__u32 slot = (start + i) & (PS_DRAFTS_MAX - 1);
		struct ps_draft *draft = ps_draft_at(slot);

		if (draft && !__sync_val_compare_and_swap(&draft->busy, 0, 1)) {
			*ret_slot = slot;
			return draft;
		}
	}
	return NULL;
}

/* Makes the page that is missing; start: any number, better another on each processor.  0: it is
 * there, PS_CLAIM_AGAIN, PS_CLAIM_SHORT. */
PS_PURE int ps_ledger_make(const struct ps_page_ask *ask, __u32 start, __u32 n_words)
{
	struct ps_page_key key = ps_page_key_of(&ask->grip.flow, ask->place.base);
	struct ps_draft *draft;
	__u32 slot = 0;
	__u64 gen;
	int r;

	draft = ps_draft_take(start, &slot);
	if (!draft)
		return PS_CLAIM_AGAIN;
	gen = ++draft->n_made * PS_DRAFTS_MAX + slot;
	draft->page.head = (struct ps_page){
		.state = gen << PS_STATE_GEN_SHIFT, .key = key, .draw = ask->place.draw};
	draft->page.head.draw.is_warm = 1;
	r = ps_page_insert(n_words, &key, &draft->page.head);
	__sync_val_compare_and_swap(&draft->busy, 1, 0);
	return !r || r == -EEXIST ? 0 : PS_CLAIM_SHORT;
}

/* The sweeper's: removes a page of which nothing is in use, nor was since the last time it came by
 * unless is_urgent.  1: removed. */
PS_PURE int ps_ledger_kill(struct ps_page *page, int is_urgent, __u32 n_words)
{
	const __u64 dead = (__u64)(PS_PAGE_LIVE ^ PS_PAGE_DEAD) << PS_STATE_LIFE_SHIFT;
	__u64 state = PS_LOAD(page->state);
	struct ps_page_key key;

	if (ps_state_life(state) != PS_PAGE_LIVE || state & PS_STATE_PERMITS)
		return 0;
	if (!is_urgent && PS_LOAD(page->draw.is_warm)) {
		PS_STORE(page->draw.is_warm, 0);
		return 0;
	}
	PS_LEDGER_WINDOW();
	if (__sync_val_compare_and_swap(&page->state, state, state ^ dead) != state)
		return 0;
	key = page->key; /* nobody writes it until it is deleted */
	ps_page_delete(n_words, &key);
	return 1;
}

#endif

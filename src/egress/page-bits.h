/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* A page's state word and its bits, as the ledger (ledger.h) and readers see them. */
#ifndef PS_EGRESS_PAGE_BITS_H
#define PS_EGRESS_PAGE_BITS_H

#include "egress/page.h"

#ifdef __bpf__
#define PS_LOAD(x) (*(const volatile __typeof__(x) *)&(x))
#define PS_STORE(x, value) (*(volatile __typeof__(x) *)&(x) = (value))
#else
#define PS_LOAD(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define PS_STORE(x, value) __atomic_store_n(&(x), (value), __ATOMIC_RELAXED)
#endif

enum ps_page_life { PS_PAGE_UNINIT, PS_PAGE_LIVE, PS_PAGE_DEAD };

enum {
	PS_STATE_COUNT_BITS = 13,
	PS_STATE_APART = 1 << PS_STATE_COUNT_BITS, /* one permit apart; one of a drawn port is 1 */
	PS_STATE_COUNT = PS_STATE_APART - 1,
	PS_STATE_PERMITS = (1 << 2 * PS_STATE_COUNT_BITS) - 1,
	PS_STATE_LIFE_SHIFT = 2 * PS_STATE_COUNT_BITS,
	PS_STATE_GEN_SHIFT = PS_STATE_LIFE_SHIFT + 2,
};

PS_PURE __u32 ps_state_life(__u64 state)
{
	return state >> PS_STATE_LIFE_SHIFT & 3;
}

PS_PURE __u64 ps_state_gen(__u64 state)
{
	return state >> PS_STATE_GEN_SHIFT;
}

/* Names a claim: generations are unique in both maps, and a page has PS_WIDE_WORDS words at most. */
PS_PURE __u64 ps_claim_id(__u64 gen, __u32 bit)
{
	return gen << PS_WIDE_SHIFT | bit;
}

/* Permits of drawn ports, and of the others. */
PS_PURE __u32 ps_state_count(__u64 state)
{
	return state & PS_STATE_COUNT;
}

PS_PURE __u32 ps_state_apart(__u64 state)
{
	return state >> PS_STATE_COUNT_BITS & PS_STATE_COUNT;
}

PS_PURE __u64 *ps_page_words(struct ps_page *page)
{
	return (__u64 *)(page + 1);
}

PS_PURE struct ps_page_draw ps_page_draw(struct ps_page *page)
{
	return (struct ps_page_draw){
		.first = PS_LOAD(page->draw.first),
		.end = PS_LOAD(page->draw.end),
		.n = PS_LOAD(page->draw.n),
		.hole = PS_LOAD(page->draw.hole),
	};
}

/* All ones from bit n on; none when n is 64 or more, all when it is 0 or less.  Without a branch, or the
 * verifier would look at each word both ways. */
PS_PURE __u64 ps_ones_from(__s64 n)
{
	__s64 below = n >> 63, rest;

	__asm__ volatile("" : "+r"(below));
	n &= ~below;
	rest = 63 - n;
	__asm__ volatile("" : "+r"(rest));
	return ~0ull << (n & 63) & ~(__u64)(rest >> 63);
}

/* Bits of word w that are drawn. */
PS_PURE __u64 ps_draw_mask(const struct ps_page_draw *draw, __u32 w)
{
	__s64 at = (__s64)w * 64,
	      outside = ((__s64)(w - (__u32)draw->hole) - PS_NARROW_WORDS) >> 63;

	__asm__ volatile("" : "+r"(outside));
	return ps_ones_from(draw->first - at) & ~ps_ones_from(draw->end - at) & ~(__u64)outside;
}

/* Which bit the word, of one bit, has: BPF cannot count zeros (de Bruijn). */
PS_PURE __u32 ps_bit_index(__u64 one)
{
	static const __u8 index[64] = {0,  1,  2,  53, 3,  7,  54, 27, 4,  38, 41, 8,  34,
				       55, 48, 28, 62, 5,  39, 46, 44, 42, 22, 9,  24, 35,
				       59, 56, 49, 18, 29, 11, 63, 52, 6,  26, 37, 40, 33,
				       47, 61, 45, 43, 21, 23, 58, 17, 10, 51, 25, 36, 32,
				       60, 20, 57, 16, 50, 31, 19, 15, 30, 14, 13, 12};

	return index[one * 0x022fdd63cc95386dull >> 58];
}

/* Takes a free bit of those that are drawn, seen from `from` on; -1: met none, or others were faster
 * wherever there was one. */
PS_PURE int ps_bits_draw(struct ps_page *page, __u32 n_words, __u32 from, int wraps)
{
	struct ps_page_draw draw = ps_page_draw(page);
	__u64 *words = ps_page_words(page), mask = ~0ull << (from & 63);
	__u32 start = (from >> 6) & (n_words - 1);
	__u32 last = wraps ? n_words : n_words - 1 - start;

	for (__u32 i = 0; i <= n_words; i++) {
		__u32 w = (start + i) & (n_words - 1), nth = i;
		__u64 free = ~PS_LOAD(words[w]) & ps_draw_mask(&draw, w) & mask;
		__u64 one = free & -free;

		mask = ~0ull;
		__asm__ volatile("" : "+r"(nth)); /* else clang counts down from last, unbounded */
		if (nth > last)
			return -1;
		if (one && !(__sync_fetch_and_or(&words[w], one) & one))
			return (int)(w * 64 + ps_bit_index(one));
	}
	return -1;
}

PS_PURE int ps_bits_take(struct ps_page *page, __u32 n_words, __u32 bit)
{
	__u64 one = 1ull << (bit & 63);
	__u64 *word = ps_page_words(page) + ((bit >> 6) & (n_words - 1));

	return __sync_fetch_and_or(word, one) & one ? -1 : (int)bit;
}

/* Is the bit of a page that was just looked up set?  One that is being removed meanwhile may be
 * taken for another: for a moment, and for a port that nobody holds. */
PS_PURE int ps_page_has(struct ps_page *page, __u32 n_words, __u32 bit)
{
	return page && PS_LOAD(ps_page_words(page)[(bit >> 6) & (n_words - 1)]) >> (bit & 63) & 1;
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The control: pages counted and deleted without permits, lives, generations and key copies.  The
 * tests that the ledger passes must fail with it, or they would show nothing.
 */
#ifndef PS_TESTS_LEDGER_NAIVE_H
#define PS_TESTS_LEDGER_NAIVE_H

#include "egress/ledger.h"

PS_PURE int naive_attempt(struct ps_page_ask *ask, __u32 n_words)
{
	struct ps_page_key key = ps_page_key_of(&ask->grip.flow, ask->place.base);
	struct ps_page *page = ps_page_find(n_words, &key);
	int bit;

	if (!page)
		return PS_CLAIM_NO_PAGE;
	PS_LEDGER_WINDOW();
	if (ps_state_count(PS_LOAD(page->state)) >= PS_LOAD(page->draw.n))
		return PS_CLAIM_FULL;
	__sync_fetch_and_add(&page->state, 1);
	bit = ps_bits_draw(page, n_words, ask->place.bit, 1);
	if (bit < 0) {
		__sync_fetch_and_sub(&page->state, 1);
		return PS_CLAIM_AGAIN;
	}
	ask->place.bit = (__u32)bit;
	ask->grip.gen = ps_state_gen(PS_LOAD(page->state));
	return 0;
}

PS_PURE int naive_kill(struct ps_page *page, __u32 n_words)
{
	struct ps_page_key key;

	for (int i = 0; i < 5; i++)
		((__u64 *)&key)[i] = PS_LOAD(((__u64 *)&page->key)[i]);
	if (ps_state_count(PS_LOAD(page->state)))
		return 0;
	PS_LEDGER_WINDOW();
	ps_page_delete(n_words, &key);
	return 1;
}

#endif

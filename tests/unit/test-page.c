// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "base/range.h"
#include "cm.h"
#include "egress/ledger.h"

static struct ps_page *ps_page_find(__u32 n_words, const struct ps_page_key *key)
{
	(void)n_words;
	(void)key;
	return NULL;
}

static int ps_page_insert(__u32 n_words, const struct ps_page_key *key,
			  const struct ps_page *template)
{
	(void)n_words;
	(void)key;
	(void)template;
	return -E2BIG;
}

static void ps_page_delete(__u32 n_words, const struct ps_page_key *key)
{
	(void)n_words;
	(void)key;
}

static void ps_ledger_undone(void)
{
}

static struct ps_draft *ps_draft_at(__u32 i)
{
	(void)i;
	return NULL;
}

static const unsigned shifts[] = {7, 8, 9, 10, 11, 12, 13, 14, PS_SHIFT_WHOLE};

static struct ps_choice_slice slice_of(unsigned slice, unsigned shift, bool has_exclusive)
{
	struct ps_range ports = ps_slice_range(slice, shift);
	unsigned eighth = ports.count / PS_EXCLUSIVE_PART;

	return (struct ps_choice_slice){
		.address = ps_ip16_v4(htonl(0xc6336401)),
		.first_port = ports.first,
		.shift = (__u8)shift,
		.n_ports = ports.count,
		.n_exclusive = !has_exclusive              ? 0
			       : eighth < PS_EXCLUSIVE_MAX ? eighth
							   : PS_EXCLUSIVE_MAX,
	};
}

static struct ps_claim_key flow_to(const struct ps_choice_slice *slice, unsigned peer)
{
	return (struct ps_claim_key){
		.src = slice->address,
		.dst = peer ? ps_ip16_v4(htonl(0x0a4d0000 + peer)) : (union ps_ip16){{0}},
		.dport = peer ? htons(443) : 0,
		.protocol = 6,
		.shift = slice->shift,
	};
}

static bool same_page(const struct ps_page_place *a, const struct ps_page_place *b)
{
	return a->n_words == b->n_words && a->base == b->base;
}

/* Draws all there is of page nth; marks the ports, checks each one's place. */
static unsigned draw_all(const struct ps_choice_slice *slice, struct ps_claim_key flow,
			 unsigned nth, unsigned char *seen)
{
	struct ps_page_place page = {0}, place = {0};
	unsigned n = 0;

	ps_place_nth(slice, &flow, nth, &page);
	assert_true(page.n_words == PS_NARROW_WORDS || page.n_words == PS_WIDE_WORDS);
	for (unsigned bit = 0; bit < page.n_words * 64; bit++) {
		bool drawn = ps_draw_mask(&page.draw, bit / 64) >> bit % 64 & 1;
		unsigned port = page.base + bit;

		assert_int_equal(drawn, ps_draw_has(&page.draw, bit));
		if (!drawn)
			continue;
		n++;
		assert_int_equal(seen[port]++, 0);
		flow.sport = htons((uint16_t)port);
		ps_place_port(&flow, &place);
		assert_true(same_page(&page, &place));
		assert_int_equal(place.bit, bit);
	}
	assert_int_equal(n, page.draw.n);
	return n;
}

static void check_slice(const struct ps_choice_slice *slice, unsigned peer)
{
	static unsigned char seen[PS_PORT_COUNT];
	struct ps_claim_key flow = flow_to(slice, peer);
	unsigned n = 0;

	memset(seen, 0, sizeof(seen));
	for (unsigned nth = 0; nth < ps_slice_pages(slice, !peer); nth++)
		n += draw_all(slice, flow, nth, seen);
	assert_int_equal(n, ps_slice_draws(slice, !peer));
	for (unsigned i = 0; i < slice->n_ports; i++) {
		bool exclusive = i >= slice->n_ports - slice->n_exclusive;

		assert_int_equal(seen[slice->first_port + i], peer ? !exclusive : exclusive);
	}
}

static void every_shared_port_is_drawn_from_one_page_and_no_other(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2 * PS_N_ELEMENTS(shifts); i++) {
		unsigned shift = shifts[i / 2], last = ps_slice_count(shift) - 1;
		unsigned some[3] = {ps_slice_first(shift), ps_slice_first(shift) + 1, last};

		for (size_t j = 0; j < 3; j++) {
			struct ps_choice_slice slice;

			if (some[j] > last)
				continue;
			slice = slice_of(some[j], shift, i & 1);
			for (unsigned peer = 0; peer < 20; peer++)
				check_slice(&slice, peer);
		}
	}
}

static int compare_places(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct ps_page_place));
}

static void no_two_ports_have_the_same_place_whether_drawn_or_not(void **state)
{
	static struct ps_page_place places[PS_PORT_COUNT];

	(void)state;
	for (size_t i = 0; i < 2 * PS_N_ELEMENTS(shifts); i++) {
		struct ps_choice_slice whole =
			slice_of(ps_slice_first(shifts[i / 2]), shifts[i / 2], true);
		struct ps_claim_key flow = flow_to(&whole, i & 1);

		memset(places, 0, sizeof(places));
		for (unsigned port = 0; port < PS_PORT_COUNT; port++) {
			flow.sport = htons((uint16_t)port);
			ps_place_port(&flow, &places[port]);
			assert_true(places[port].bit < places[port].n_words * 64);
			assert_int_equal(places[port].base + places[port].bit, port);
		}
		qsort(places, PS_PORT_COUNT, sizeof(places[0]), compare_places);
		for (unsigned port = 1; port < PS_PORT_COUNT; port++)
			assert_int_not_equal(compare_places(&places[port - 1], &places[port]), 0);
	}
}

static void narrow_pages_of_many_peers_lie_all_over_the_slice(void **state)
{
	struct ps_choice_slice slice = slice_of(2, 11, true);
	unsigned n[8] = {0};

	(void)state;
	for (unsigned peer = 1; peer <= 7000; peer++) {
		struct ps_claim_key flow = flow_to(&slice, peer);
		struct ps_page_place page = {0};

		ps_place_nth(&slice, &flow, 0, &page);
		n[(page.base - slice.first_port) >> PS_NARROW_SHIFT]++;
	}
	for (unsigned i = 0; i < 7; i++)
		assert_in_range(n[i], 850, 1150);
	assert_int_equal(n[7], 0); /* the exclusive block's */
}

static void a_bit_of_a_word_is_found_by_its_index(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(ps_bit_index(1ull << i), i);
}

/* What drawing does with from and wraps, on words whose free bits are known. */
static void drawing_takes_the_next_free_bit_and_no_other(void **state)
{
	static const struct {
		uint64_t used[PS_NARROW_WORDS];
		unsigned from;
		int wraps, bit;
	} rows[] = {
		{{0, 0, 0, 0}, 100, 1, 100},
		{{0, 0, 0, 0}, 3, 1, 10},
		{{0, 0, 0, 0}, 205, 1, 10},
		{{0, 0, 0, 0}, 205, 0, -1},
		{{0, ~0ull, 0, 0}, 100, 1, 128},
		{{~0ull, ~0ull, ~0ull, ~0ull}, 100, 1, -1},
		{{~(1ull << 12), ~0ull, ~0ull, ~0ull}, 100, 1, 12},
		{{~(1ull << 12), ~0ull, ~0ull, ~0ull}, 13, 1, 12},
		{{~(1ull << 12), ~0ull, ~0ull, ~0ull}, 13, 0, -1},
		{{~(1ull << 9), ~0ull, ~0ull, ~(1ull << 8)}, 0, 1, -1}, /* both outside [10, 200) */
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		struct ps_narrow_page page = {
			.head.draw = {.first = 10, .end = 200, .n = 190, .hole = PS_NO_HOLE}};

		memcpy(page.words, rows[i].used, sizeof(page.words));
		assert_int_equal(
			ps_bits_draw(&page.head, PS_NARROW_WORDS, rows[i].from, rows[i].wraps),
			rows[i].bit);
	}
}

static void every_port_that_is_drawn_may_be_the_first_and_no_other(void **state)
{
	static const struct {
		struct ps_page_draw draw;
		uint32_t random;
		unsigned first;
	} rows[] = {
		{{224, 256, 32, PS_NO_HOLE, 0}, 0, 224},
		{{224, 256, 32, PS_NO_HOLE, 0}, 0x07ffffff, 224},
		{{224, 256, 32, PS_NO_HOLE, 0}, 0x08000000, 225},
		{{224, 256, 32, PS_NO_HOLE, 0}, 0xffffffff, 255},
		{{0, 2048, 1792, 0, 0}, 0xffffffff, 2047},
		{{0, 1, 1, PS_NO_HOLE, 0}, 0xffffffff, 0},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++)
		assert_int_equal(ps_draw_nth(&rows[i].draw, rows[i].random), rows[i].first);
}

static void without_room_for_a_page_nothing_is_claimed(void **state)
{
	struct ps_page_ask ask = {.how = PS_CLAIM_ANY};

	(void)state;
	assert_int_equal(ps_ledger_attempt(&ask, PS_NARROW_WORDS), PS_CLAIM_NO_PAGE);
	assert_int_equal(ps_ledger_make(&ask, 0, PS_NARROW_WORDS), PS_CLAIM_AGAIN);
	assert_int_equal(ps_ledger_drop(&ask.grip, &ask.place, PS_NARROW_WORDS), -ENOENT);
}

static void a_bit_of_a_page_is_the_claim_that_put_it_there(void **state)
{
	(void)state;
	for (unsigned shift = 7; shift <= PS_WHOLE_SHIFT; shift++) {
		for (uint32_t port = 1024; port < 65536; port += 37) {
			struct ps_claim_key flow = {.src = ps_ip16_v4(htonl(0xc6336401)),
						    .dst = ps_ip16_v4(htonl(port * 7919)),
						    .sport = htons((uint16_t)port),
						    .dport = htons(443),
						    .protocol = 6,
						    .shift = (uint8_t)shift};
			struct ps_page_place place;
			struct ps_page page;
			struct ps_claim_key found;

			ps_place_port(&flow, &place);
			page = (struct ps_page){.key = ps_page_key_of(&flow, place.base)};
			found = ps_page_flow(&page, place.bit);
			assert_memory_equal(&found, &flow, sizeof(flow));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bit_of_a_page_is_the_claim_that_put_it_there),
		cmocka_unit_test(every_shared_port_is_drawn_from_one_page_and_no_other),
		cmocka_unit_test(no_two_ports_have_the_same_place_whether_drawn_or_not),
		cmocka_unit_test(narrow_pages_of_many_peers_lie_all_over_the_slice),
		cmocka_unit_test(a_bit_of_a_word_is_found_by_its_index),
		cmocka_unit_test(drawing_takes_the_next_free_bit_and_no_other),
		cmocka_unit_test(every_port_that_is_drawn_may_be_the_first_and_no_other),
		cmocka_unit_test(without_room_for_a_page_nothing_is_claimed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
#include <string.h>

#include "base/own.h"
#include "cm.h"
#include "egress/choose.h"

enum { SLICES_MAX = 5, PORTS_MAX = 64512 };

static const struct ps_home nowhere = {0, 0};
static unsigned char seen[SLICES_MAX][PORTS_MAX];

/* Walks to the end; returns the number of steps, marks what it met, counts repeats. */
static unsigned long walk_all(struct ps_walk *walk, const uint32_t *n_ports, unsigned *ret_repeats)
{
	unsigned long n = 0;

	memset(seen, 0, sizeof(seen));
	*ret_repeats = 0;
	for (; !ps_walk_over(walk); n++) {
		uint32_t slice = ps_walk_slice(walk);
		uint32_t port = ps_walk_port(walk, n_ports[slice]);

		assert_true(slice < walk->n_slices);
		assert_true(port < n_ports[slice]);
		*ret_repeats += seen[slice][port]++;
		ps_walk_next(walk, n_ports[slice]);
	}
	return n;
}

static void a_walk_meets_every_port_of_every_slice_once(void **state)
{
	static const struct {
		uint32_t n_slices, n_ports[SLICES_MAX];
		struct ps_home home;
	} rows[] = {
		{1, {128}},
		{1, {2048}},
		{1, {64512}},
		{3, {128, 128, 128}},
		{5, {2048, 2048, 2048, 2048, 2048}},
		{4, {8, 9, 128, 64512}},
		{4, {8, 9, 128, 256}, {1, 2}},
		{5, {128, 128, 128, 128, 128}, {4, 1}},
		{5, {128, 128, 128, 128, 128}, {0, 5}},
	};
	static const uint32_t randoms[] = {0, 1, 127, 0xffff, 0x10000, 0x2ffff, 0xdeadbeef, ~0u};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		for (size_t j = 0; j < PS_N_ELEMENTS(randoms) * 2; j++) {
			struct ps_walk walk = ps_walk_start(j & 1, rows[i].n_slices, rows[i].home,
							    randoms[j / 2]);
			unsigned long total = 0;
			unsigned repeats;

			for (uint32_t k = 0; k < rows[i].n_slices; k++)
				total += rows[i].n_ports[k];
			assert_int_equal(walk_all(&walk, rows[i].n_ports, &repeats), total);
			assert_int_equal(repeats, 0);
		}
	}
}

/* The first `n` ports of a walk over one slice of 128 lie in [lo, hi). */
static void assert_first_ports(uint32_t kind, unsigned n, uint32_t lo, uint32_t hi)
{
	struct ps_walk walk = ps_walk_start(kind, 1, nowhere, 0xabcd1234);

	for (unsigned i = 0; i < n; i++) {
		uint32_t port = ps_walk_port(&walk, 128);

		assert_true(port >= lo && port < hi);
		ps_walk_next(&walk, 128);
	}
	assert_false(ps_walk_port(&walk, 128) >= lo && ps_walk_port(&walk, 128) < hi);
}

static void sockets_with_a_peer_try_the_last_eighth_last(void **state)
{
	(void)state;
	assert_first_ports(PS_WALK_PEER, 112, 0, 112);
}

static void sockets_without_a_peer_try_the_last_eighth_first(void **state)
{
	(void)state;
	assert_first_ports(PS_WALK_PEERLESS, 16, 112, 128);
}

static void preferred_parts_of_all_slices_come_before_any_other_part(void **state)
{
	const uint32_t n_ports[] = {128, 128, 128};
	struct ps_walk walk = ps_walk_start(PS_WALK_PEER, 3, nowhere, 0x00020005);

	(void)state;
	assert_int_equal(ps_walk_slice(&walk), 2);
	assert_int_equal(ps_walk_port(&walk, 128), 5);
	for (unsigned i = 0; i < 3 * 112; i++) {
		assert_true(ps_walk_port(&walk, 128) < 112);
		ps_walk_next(&walk, n_ports[ps_walk_slice(&walk)]);
	}
	assert_true(ps_walk_port(&walk, 128) >= 112);
}

static void skipping_goes_to_the_next_slice_and_ends(void **state)
{
	struct ps_walk walk = ps_walk_start(PS_WALK_PEER, 2, nowhere, 0);

	(void)state;
	ps_walk_next(&walk, 128);
	ps_walk_skip_slice(&walk);
	assert_int_equal(ps_walk_slice(&walk), 1);
	assert_int_equal(ps_walk_port(&walk, 128), 0);
	for (unsigned i = 0; i < 3; i++)
		ps_walk_skip_slice(&walk);
	assert_true(ps_walk_over(&walk));
}

static void a_choice_of_no_slices_is_over_at_once(void **state)
{
	struct ps_walk walk = ps_walk_start(PS_WALK_PEER, 0, nowhere, 7);

	(void)state;
	assert_true(ps_walk_over(&walk));
}

static void slices_of_the_home_come_first_and_then_those_after_it(void **state)
{
	static const uint32_t wanted[] = {3, 2, 4, 0, 1};
	/* The second of two slices of home is the random one. */
	struct ps_walk walk = ps_walk_start(PS_WALK_PEER, 5, (struct ps_home){2, 2}, 1 << 16);

	(void)state;
	for (unsigned i = 0; i < 2 * 5; i++) {
		assert_int_equal(ps_walk_slice(&walk), wanted[i % 5]);
		ps_walk_skip_slice(&walk);
	}
	assert_true(ps_walk_over(&walk));
}

static void a_user_is_known_by_the_mark_or_else_by_cgroup_and_uid(void **state)
{
	(void)state;
	assert_int_equal(ps_home_row(7, 1000, 33), ps_home_row(7, 2000, 0));
	assert_int_not_equal(ps_home_row(7, 1000, 33), ps_home_row(8, 1000, 33));
	assert_int_equal(ps_home_row(0, 1000, 33), ps_home_row(0, 1000, 33));
	assert_int_not_equal(ps_home_row(0, 1000, 33), ps_home_row(0, 1001, 33));
	assert_int_not_equal(ps_home_row(0, 1000, 33), ps_home_row(0, 1000, 34));
	/* Cgroup 7 is not the user of mark 7. */
	assert_int_not_equal(ps_home_row(7, 0, 0), ps_home_row(0, 7, 0));
}

static void users_are_spread_over_all_rows(void **state)
{
	static unsigned n[PS_HOME_ROWS];

	(void)state;
	for (uint32_t i = 0; i < 64 * PS_HOME_ROWS; i++)
		n[ps_home_row(0, 4000 + i, 1000)]++; /* ids of cgroups follow each other */
	for (size_t i = 0; i < PS_HOME_ROWS; i++)
		assert_true(n[i] >= 24 && n[i] <= 128);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_walk_meets_every_port_of_every_slice_once),
		cmocka_unit_test(sockets_with_a_peer_try_the_last_eighth_last),
		cmocka_unit_test(sockets_without_a_peer_try_the_last_eighth_first),
		cmocka_unit_test(preferred_parts_of_all_slices_come_before_any_other_part),
		cmocka_unit_test(skipping_goes_to_the_next_slice_and_ends),
		cmocka_unit_test(a_choice_of_no_slices_is_over_at_once),
		cmocka_unit_test(slices_of_the_home_come_first_and_then_those_after_it),
		cmocka_unit_test(a_user_is_known_by_the_mark_or_else_by_cgroup_and_uid),
		cmocka_unit_test(users_are_spread_over_all_rows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

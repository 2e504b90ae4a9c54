// SPDX-License-Identifier: MIT
#include <string.h>

#include "base/own.h"
#include "cm.h"
#include "egress/choose.h"

enum { SLICES_MAX = 14, PAGES_MAX = 33 };

static const struct ps_home nowhere = {0, 0};

static void a_walk_meets_every_page_of_every_slice_once_the_narrow_one_first(void **state)
{
	static const struct {
		uint32_t n_slices, n_pages[SLICES_MAX];
		struct ps_home home;
	} rows[] = {
		{1, {1}, {0}},
		{1, {33}, {0}},
		{3, {2, 2, 2}, {0}},
		{5, {1, 2, 3, 33, 1}, {0}},
		{14, {2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, {0}},
		{4, {1, 2, 3, 4}, {1, 2}},
		{5, {1, 2, 3, 33, 1}, {4, 1}},
		{5, {1, 2, 3, 33, 1}, {0, 5}},
	};
	static const uint32_t hashes[] = {0, 1, 0x10000, 0x7fffffff, 0x80000000, 0xdeadbeef, ~0u};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows) * PS_N_ELEMENTS(hashes); i++) {
		const uint32_t *n_pages = rows[i % PS_N_ELEMENTS(rows)].n_pages;
		uint32_t n_slices = rows[i % PS_N_ELEMENTS(rows)].n_slices;
		struct ps_walk walk = ps_walk_start(n_slices, rows[i % PS_N_ELEMENTS(rows)].home,
						    hashes[i / PS_N_ELEMENTS(rows)]);
		unsigned char seen[SLICES_MAX][PAGES_MAX] = {{0}};

		while (!ps_walk_over(&walk)) {
			uint32_t slice = ps_walk_slice(&walk);

			assert_true(slice < n_slices && walk.page < n_pages[slice]);
			assert_int_equal(seen[slice][walk.page]++, 0);
			assert_true(!walk.page || seen[slice][walk.page - 1]);
			ps_walk_next(&walk, n_pages[slice]);
		}
		for (uint32_t slice = 0; slice < n_slices; slice++)
			for (uint32_t page = 0; page < n_pages[slice]; page++)
				assert_int_equal(seen[slice][page], 1);
	}
}

static void without_slices_the_walk_is_over(void **state)
{
	struct ps_walk walk = ps_walk_start(0, nowhere, 0xdeadbeef);

	(void)state;
	assert_true(ps_walk_over(&walk));
}

static void slices_are_skipped_whole(void **state)
{
	struct ps_walk walk = ps_walk_start(3, nowhere, 0);

	(void)state;
	ps_walk_next(&walk, 5);
	ps_walk_skip_slice(&walk);
	assert_int_equal(ps_walk_slice(&walk), 1);
	assert_int_equal(walk.page, 0);
}

static void different_hashes_begin_with_different_slices(void **state)
{
	unsigned n[4] = {0};

	(void)state;
	for (uint32_t i = 0; i < 4000; i++) {
		struct ps_walk walk = ps_walk_start(4, nowhere, i * 0x9e3779b1u);

		n[ps_walk_slice(&walk)]++;
	}
	for (unsigned i = 0; i < 4; i++)
		assert_in_range(n[i], 900, 1100);
}

static void slices_of_the_home_come_first_and_then_those_after_it(void **state)
{
	static const uint32_t wanted[] = {3, 2, 4, 0, 1};
	/* The hash names the second of home's two slices. */
	struct ps_walk walk = ps_walk_start(5, (struct ps_home){2, 2}, 0x80000000);

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(ps_walk_slice(&walk), wanted[i]);
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
		cmocka_unit_test(a_walk_meets_every_page_of_every_slice_once_the_narrow_one_first),
		cmocka_unit_test(without_slices_the_walk_is_over),
		cmocka_unit_test(slices_are_skipped_whole),
		cmocka_unit_test(different_hashes_begin_with_different_slices),
		cmocka_unit_test(slices_of_the_home_come_first_and_then_those_after_it),
		cmocka_unit_test(a_user_is_known_by_the_mark_or_else_by_cgroup_and_uid),
		cmocka_unit_test(users_are_spread_over_all_rows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

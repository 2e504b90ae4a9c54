// SPDX-License-Identifier: MIT
/* Classes by sets against the rule they stand for: the first class of the plan that matches. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "agent/compile.h"
#include "base/own.h"
#include "cm.h"
#include "egress/class-sets.h"
#include "egress/homes.h"

enum { CLASSES_MAX = 200, CALLS = 400 };

/* Where programs run, and what classes name.  Class c3 has /portslice/c3. */
static char *const folders[] = {
	"/a", "/a/b", "/a/b/c", "/ab", "/d/e/f/g", "/d", "/portslice/c3", "/portslice/c3/in", "/z",
};
static const char *const prefixes[] = {
	"0.0.0.0/0", "198.51.100.0/24", "198.51.100.0/26", "198.51.100.7/32", "203.0.113.0/25",
	"::/0",      "2001:db8::/32",   "2001:db8:1::/48", "0.0.0.0/1",       "2001:db8::7/128",
};
static const char *const addresses[] = {
	"198.51.100.7", "198.51.100.63", "198.51.100.64", "203.0.113.9",
	"192.0.2.1",    "2001:db8::7",   "2001:db8:1::1", "2001:dead::1",
};

struct world {
	struct ps_plan plan;
	struct ps_compile_egress egress;
	struct ps_compile_cgroup own[CLASSES_MAX], named[CLASSES_MAX];
	struct ps_class_sets *sets;
};

static unsigned any(unsigned n)
{
	return (unsigned)rand() % n;
}

static struct ps_prefix any_prefix(void)
{
	struct ps_prefix prefix;

	assert_int_equal(ps_prefix_parse(prefixes[any(PS_N_ELEMENTS(prefixes))], &prefix), 0);
	return prefix;
}

static struct ps_match any_match(unsigned *ret_folder)
{
	struct ps_match match = {0};

	*ret_folder = any(PS_N_ELEMENTS(folders));
	if (any(2))
		match.cgroup = folders[*ret_folder];
	match.has_mark = any(4) == 0;
	match.mark = match.has_mark ? any(3) : 0;
	match.has_uid = any(3) == 0;
	match.first_uid = match.has_uid ? any(6) * 100 : 0;
	match.last_uid = match.has_uid ? match.first_uid + any(250) : 0;
	if (match.has_uid && any(8) == 0)
		match.last_uid = PS_PLAN_UID_MAX;
	match.has_from = any(4) == 0;
	match.has_to = any(3) == 0;
	match.from = match.has_from ? any_prefix() : (struct ps_prefix){0};
	match.to = match.has_to ? any_prefix() : (struct ps_prefix){0};
	return match;
}

static void open_world(struct world *world, size_t n)
{
	*world = (struct world){.plan = {.n_classes = n}};
	world->plan.classes = calloc(n, sizeof(*world->plan.classes));
	world->egress.cgroups = calloc(2 * n + 1, sizeof(*world->egress.cgroups));
	world->egress.matches = calloc(n + 1, sizeof(*world->egress.matches));
	for (unsigned i = 0; i < n; i++) {
		unsigned folder;

		assert_true(asprintf(&world->plan.classes[i].name, "c%u", i) > 0);
		world->plan.classes[i].match = any_match(&folder);
		world->own[i] = (struct ps_compile_cgroup){1000 + i, 2};
		world->named[i] = (struct ps_compile_cgroup){1 + folder, 1};
	}
	assert_int_equal(ps_compile_matches(&world->egress, &world->plan, world->own, world->named),
			 0);
	world->egress.config.cgroups = world->egress.cgroups;
	world->egress.config.matches = world->egress.matches;
	world->egress.config.n_choices = n;
	assert_int_equal(ps_class_sets_new(&world->egress.config, &world->sets), 0);
}

static void close_world(struct world *world)
{
	for (size_t i = 0; i < world->plan.n_classes; i++)
		free(world->plan.classes[i].name);
	free(world->plan.classes);
	free(world->egress.cgroups);
	free(world->egress.matches);
	ps_class_sets_free(&world->sets);
}

/* The entry of the innermost cgroup, as class_cgroup() of the hooks finds it. */
static struct ps_class_cgroup cgroup_of(const struct world *world, const char *folder)
{
	struct ps_class_cgroup best = {PS_BY_CGROUP, 0};
	size_t len = 0;

	for (size_t i = 0; i < world->egress.config.n_cgroups; i++) {
		uint64_t id = world->egress.cgroups[i].id;
		const char *path = id < 1000 ? folders[id - 1] : "/portslice/c3";

		if ((id >= 1000 && id != 1003) || !ps_cgroup_contains(path, folder) ||
		    strlen(path) <= len)
			continue;
		len = strlen(path);
		best = world->sets->cgroups[i];
	}
	return best;
}

static uint32_t prefix_set(const struct ps_class_sets *sets, unsigned way, const struct ps_ip *ip)
{
	uint32_t set = way ? PS_BY_TO : PS_BY_FROM;
	int bits = -1;

	for (size_t i = 0; ip && i < sets->n_prefixes[way]; i++) {
		const struct ps_class_prefix *entry = &sets->prefixes[way][i];

		if (!ps_prefix_contains(&entry->prefix, ip) || entry->prefix.bits <= bits)
			continue;
		bits = entry->prefix.bits;
		set = entry->set;
	}
	return set;
}

static int class_by_sets(const struct world *world, const struct ps_call *call)
{
	const struct ps_class_sets *sets = world->sets;
	struct ps_class_cgroup cgroup = cgroup_of(world, call->cgroup);
	const struct ps_class_set *of[PS_CLASS_KINDS] = {
		&sets->sets[cgroup.set],
		&sets->sets[PS_BY_MARK],
		&sets->sets[sets->first_uid_set +
			    ps_uid_interval(&sets->uids, (uint32_t)sets->n_uid_starts, call->uid)],
		&sets->sets[prefix_set(sets, 0, call->from)],
		&sets->sets[prefix_set(sets, 1, call->to)],
	};

	if (cgroup.run)
		return (int)cgroup.run - 1;
	for (size_t i = 0; i < sets->n_marks; i++) {
		if (sets->marks[i].mark == call->mark)
			of[PS_BY_MARK] = &sets->sets[sets->marks[i].set];
	}
	return ps_class_first(of, (uint32_t)(world->plan.n_classes + 63) / 64);
}

static int class_by_rule(const struct world *world, const struct ps_call *call)
{
	if (world->plan.n_classes > 3 && ps_cgroup_contains("/portslice/c3", call->cgroup))
		return 3;
	for (size_t i = 0; i < world->plan.n_classes; i++) {
		if (ps_match_judge(&world->plan.classes[i].match, call) == PS_MATCH_HOLDS)
			return (int)i;
	}
	return -1;
}

static void sets_find_the_first_class_that_matches(void **state)
{
	static const size_t sizes[] = {1, 2, 5, 20, 64, 65, CLASSES_MAX};
	unsigned n_met = 0, n_outside = 0;

	(void)state;
	srand(7);
	for (size_t i = 0; i < 5 * PS_N_ELEMENTS(sizes); i++) {
		struct world world;

		open_world(&world, sizes[i / 5]);
		for (unsigned k = 0; k < CALLS; k++) {
			struct ps_ip from, to;
			struct ps_call call = {
				.cgroup = folders[any(PS_N_ELEMENTS(folders))],
				.mark = any(4),
				.uid = any(3) ? any(900) : PS_PLAN_UID_MAX - any(2),
				.from = any(2) ? &from : NULL,
				.to = any(4) ? &to : NULL,
			};
			int wanted;

			ps_ip_parse(addresses[any(PS_N_ELEMENTS(addresses))], &from);
			ps_ip_parse(addresses[any(PS_N_ELEMENTS(addresses))], &to);
			wanted = class_by_rule(&world, &call);
			assert_int_equal(class_by_sets(&world, &call), wanted);
			n_met += wanted >= 0;
			n_outside += wanted < 0;
		}
		close_world(&world);
	}
	assert_true(n_met > 1000 && n_outside > 1000);
}

static void the_lowest_bit_of_every_word_is_found(void **state)
{
	(void)state;
	for (uint32_t bit = 0; bit < 64; bit++) {
		assert_int_equal(ps_lowest_bit(UINT64_C(1) << bit), bit);
		assert_int_equal(ps_lowest_bit(~UINT64_C(0) << bit), bit);
	}
}

/* n addresses from 198.51.100.0 on, each with so many slices. */
static size_t make_slices(struct ps_egress_slice *slices, unsigned n, unsigned each)
{
	const struct ps_ip first = ps_ip_from_v4(htonl(0xc6336400));

	for (unsigned i = 0; i < n * each; i++)
		slices[i] = (struct ps_egress_slice){.address = ps_ip_add(&first, i / each)};
	return n * each;
}

static void users_of_one_address_have_no_home(void **state)
{
	struct ps_egress_slice slices[3];
	struct ps_homes homes;

	(void)state;
	assert_false(ps_homes_fill(slices, make_slices(slices, 1, 3), &homes));
	assert_false(ps_homes_fill(slices, 0, &homes));
}

static void homes_are_whole_addresses_and_spread_evenly(void **state)
{
	struct ps_egress_slice slices[8 * 3];
	struct ps_homes homes;
	unsigned n[8] = {0};

	(void)state;
	assert_true(ps_homes_fill(slices, make_slices(slices, 8, 3), &homes));
	for (size_t row = 0; row < PS_HOME_ROWS; row++) {
		assert_int_equal(homes.rows[row].n, 3);
		assert_int_equal(homes.rows[row].offset % 3, 0);
		n[homes.rows[row].offset / 3]++;
	}
	for (size_t i = 0; i < 8; i++)
		assert_true(n[i] >= PS_HOME_ROWS / 8 / 2 && n[i] <= PS_HOME_ROWS / 8 * 2);
}

static void an_address_more_moves_only_those_who_go_there(void **state)
{
	struct ps_egress_slice slices[9];
	struct ps_homes before, after;
	unsigned n_moved = 0;

	(void)state;
	assert_true(ps_homes_fill(slices, make_slices(slices, 8, 1), &before));
	assert_true(ps_homes_fill(slices, make_slices(slices, 9, 1), &after));
	for (size_t row = 0; row < PS_HOME_ROWS; row++) {
		if (after.rows[row].offset == before.rows[row].offset)
			continue;
		assert_int_equal(after.rows[row].offset, 8);
		n_moved++;
	}
	assert_true(n_moved > PS_HOME_ROWS / 9 / 2 && n_moved < PS_HOME_ROWS / 9 * 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sets_find_the_first_class_that_matches),
		cmocka_unit_test(the_lowest_bit_of_every_word_is_found),
		cmocka_unit_test(users_of_one_address_have_no_home),
		cmocka_unit_test(homes_are_whole_addresses_and_spread_evenly),
		cmocka_unit_test(an_address_more_moves_only_those_who_go_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

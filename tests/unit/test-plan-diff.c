// SPDX-License-Identifier: MIT
#include "plan-seed.h"

static void the_same_plan_has_no_difference(void **state)
{
	ps_auto(ps_plan_free) struct ps_plan *plan = plan_from(PLAN_TEXT);
	ps_auto(ps_plan_free) struct ps_plan *same = plan_from("# other words\n" PLAN_TEXT);
	ps_auto_mem char *diff = NULL;

	(void)state;
	assert_int_equal(ps_plan_diff(plan, same, &diff), 0);
	assert_string_equal(diff, "");
}

#define SIX "  six: { addresses: [ { prefix: \"2001:db8::/126\", site: LHR } ] }\n"

static void each_change_is_a_line(void **state)
{
	static const struct {
		const char *old, *new, *diff;
	} rows[] = {
		{PLAN_TEXT,
		 PLAN_HEAD
		 "  lhr3: { site: LHR, underlay: 10.1.3.1, uplinks: [eth0] }\n" PLAN_POOLS,
		 "+ host lhr3\n"},
		{PLAN_HEAD
		 "  lhr3: { site: LHR, underlay: 10.1.3.1, uplinks: [eth0] }\n" PLAN_POOLS,
		 PLAN_HEAD
		 "  lhr3: { site: CDG, underlay: 10.1.3.1, uplinks: [eth0, eth1], mtu: 9000 "
		 "}\n" PLAN_POOLS,
		 "~ host lhr3 site LHR -> CDG\n"
		 "~ host lhr3 uplinks [\"eth0\"] -> [\"eth0\",\"eth1\"]\n"
		 "~ host lhr3 mtu 1500 -> 9000\n"},
		{PLAN_TEXT,
		 PLAN_HEAD "pools:\n"
			   "  own: { slice: whole, addresses: [ { prefix: "
			   "203.0.113.0/30, site: LHR } ] }\n",
		 "- pool gb\n"},
		{PLAN_TEXT "direct: [10.0.0.0/8, 192.168.0.0/16]\n",
		 PLAN_TEXT "direct: [172.16.0.0/12, 10.0.0.0/8]\n",
		 "- direct 192.168.0.0/16\n+ direct 172.16.0.0/12\n"},
		{PLAN_TEXT "classes: [ { name: a, tags: {} }, { name: b, tags: {} } ]\n",
		 PLAN_TEXT
		 "classes: [ { name: b, tags: {} }, { name: a, match: { mark: 1 }, tags: {} } ]\n",
		 "~ class a match "
		 "{\"cgroup\":null,\"from\":null,\"mark\":null,\"to\":null,\"uid\":null} -> "
		 "{\"cgroup\":null,\"from\":null,\"mark\":1,\"to\":null,\"uid\":null}\n"
		 "~ class order of classes\n"},
		{PLAN_TEXT "slices: { 198.51.100.1: { lhr1: 1, lhr2: 2 } }\n",
		 PLAN_TEXT "slices: { 198.51.100.1: { lhr2: 1, lhr1: 3 } }\n",
		 "~ slice 198.51.100.1:2048-4095 lhr1 -> lhr2\n"
		 "- slice 198.51.100.1:4096-6143 lhr2\n"
		 "+ slice 198.51.100.1:6144-8191 lhr1\n"},
		{PLAN_TEXT SIX "slices: { \"2001:db8::1\": { lhr1: 1 } }\n",
		 PLAN_TEXT SIX "slices: { \"2001:db8::1\": { lhr2: 1 } }\n",
		 "~ slice [2001:db8::1]:2048-4095 lhr1 -> lhr2\n"},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		ps_auto(ps_plan_free) struct ps_plan *old = plan_from(rows[i].old);
		ps_auto(ps_plan_free) struct ps_plan *new = plan_from(rows[i].new);
		ps_auto_mem char *diff = NULL;

		assert_int_equal(ps_plan_diff(old, new, &diff), 0);
		assert_string_equal(diff, rows[i].diff);
	}
}

static void from_no_plan_everything_is_new(void **state)
{
	ps_auto(ps_plan_free) struct ps_plan *plan =
		plan_from(PLAN_TEXT "slices: { 203.0.113.1: { lhr1: 0 } }\n");
	ps_auto_mem char *diff = NULL;

	(void)state;
	assert_int_equal(ps_plan_diff(NULL, plan, &diff), 0);
	assert_string_equal(diff, "+ site CDG\n+ site LHR\n"
				  "+ host cdg1\n+ host lhr1\n+ host lhr2\n"
				  "+ pool gb\n+ pool own\n"
				  "+ slice 203.0.113.1:1024-65535 lhr1\n");
}

static const char *name_at(const struct ps_plan *plan, const struct ps_ip *ip, unsigned port)
{
	const struct ps_grant *grant = plan ? ps_plan_who(plan, ip, (uint16_t)port) : NULL;

	return grant ? plan->hosts[grant->host].name : NULL;
}

static bool same(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

/* Every port of an address against the moves of it; returns how many moves were met. */
static size_t check_address(const struct ps_plan *old, const struct ps_plan *new,
			    const struct ps_ip *ip, const struct ps_move *moves, size_t n)
{
	size_t at = 0, met = 0;

	while (at < n && ps_ip_cmp(&moves[at].address, ip) < 0)
		at++;
	for (unsigned port = 0; port < PS_PORT_COUNT; port++) {
		const char *from = name_at(old, ip, port), *to = name_at(new, ip, port);

		while (at < n && ps_ip_cmp(&moves[at].address, ip) == 0 &&
		       port >= moves[at].ports.first + moves[at].ports.count)
			at++;
		if (at < n && ps_ip_cmp(&moves[at].address, ip) == 0 &&
		    ps_range_contains(moves[at].ports, (uint16_t)port)) {
			met += port == moves[at].ports.first;
			assert_true(same(moves[at].from, from));
			assert_true(same(moves[at].to, to));
			assert_false(same(from, to));
		} else {
			assert_true(same(from, to));
		}
	}
	return met;
}

/* Two plans with the same hosts whose pool may have slices of another size. */
static struct ps_plan *shuffled(unsigned seed)
{
	static const char *const sizes[] = {"2048", "8192", "16384", "whole"};
	bool whole = seed % 4 == 3;
	struct ps_plan *plan;
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	(void)fprintf(f,
		      PLAN_HEAD "pools:\n  a: { slice: %s, addresses: [ { prefix: 192.0.2.0/29, "
				"site: LHR } ] }\nslices:\n",
		      sizes[seed % 4]);
	for (unsigned i = 0; i < 4; i++) {
		unsigned r = seed_hash(seed, 1, i);

		if (r % 5 == 0)
			continue;
		if (whole)
			(void)fprintf(f, "  192.0.2.%u: { lhr%u: 0 }\n", i, 1 + r % 2);
		else
			(void)fprintf(f, "  192.0.2.%u: { lhr%u: 1, lhr%u: \"2-3\" }\n", i,
				      1 + r % 2, 2 - r % 2);
	}
	assert_int_equal(fclose(f), 0);
	plan = plan_from(text);
	free(text);
	return plan;
}

static void moves_agree_with_asking_about_every_port(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < 24; seed++) {
		ps_auto(ps_plan_free) struct ps_plan *old = seed ? shuffled(seed) : NULL;
		ps_auto(ps_plan_free) struct ps_plan *new = shuffled(seed_hash(seed, 8, 0) % 1000);
		ps_auto_mem struct ps_move *moves = NULL;
		size_t n, met = 0;

		assert_int_equal(ps_plan_moves(old, new, &moves, &n), 0);
		for (unsigned i = 0; i < 4; i++) {
			struct ps_ip ip = ps_ip_add(&new->pools[0].blocks[0].prefix.ip, i);

			met += check_address(old, new, &ip, moves, n);
		}
		assert_int_equal(met, n);
	}
}

static void an_empty_difference_and_equal_digests_are_one(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < 40; seed++) {
		ps_auto(ps_plan_free) struct ps_plan *a = shuffled(seed % 7);
		ps_auto(ps_plan_free) struct ps_plan *b = shuffled(seed_hash(seed, 8, 1) % 7);
		uint8_t x[PS_PLAN_DIGEST_LEN], y[PS_PLAN_DIGEST_LEN];
		ps_auto_mem char *diff = NULL;

		assert_int_equal(ps_plan_diff(a, b, &diff), 0);
		assert_int_equal(ps_plan_digest(a, x), 0);
		assert_int_equal(ps_plan_digest(b, y), 0);
		assert_int_equal(*diff == '\0', memcmp(x, y, sizeof(x)) == 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_plan_has_no_difference),
		cmocka_unit_test(each_change_is_a_line),
		cmocka_unit_test(from_no_plan_everything_is_new),
		cmocka_unit_test(moves_agree_with_asking_about_every_port),
		cmocka_unit_test(an_empty_difference_and_equal_digests_are_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
#include <errno.h>

#include "plan-seed.h"

enum { SEEDS = 60 };

static struct seed_size size_of(unsigned seed)
{
	return (struct seed_size){1 + seed % 4, 1 + seed_hash(seed, 9, 0) % 50,
				  1 + seed_hash(seed, 9, 1) % 5, seed % 2};
}

static bool holds(const struct ps_plan *plan, unsigned host, unsigned pool)
{
	for (size_t i = 0; i < plan->n_grants; i++) {
		if (plan->grants[i].host == host && plan->grants[i].pool == pool)
			return true;
	}
	return false;
}

static bool pool_is_at(const struct ps_pool *pool, unsigned site)
{
	for (size_t i = 0; i < pool->n_blocks; i++) {
		if (pool->blocks[i].site == site)
			return true;
	}
	return false;
}

static void every_host_holds_a_slice_of_every_pool_at_its_site(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < SEEDS; seed++) {
		ps_auto(ps_plan_free) struct ps_plan *plan = seed_dealt(seed, size_of(seed));

		for (unsigned host = 0; host < plan->n_hosts; host++) {
			for (unsigned pool = 0; pool < plan->n_pools; pool++)
				assert_int_equal(
					holds(plan, host, pool),
					pool_is_at(&plan->pools[pool], plan->hosts[host].site));
		}
	}
}

static void dealt_slices_are_sorted_and_leasable_and_have_one_owner(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < SEEDS; seed++) {
		ps_auto(ps_plan_free) struct ps_plan *plan = seed_dealt(seed, size_of(seed));

		for (size_t i = 0; i < plan->n_grants; i++) {
			const struct ps_grant *grant = &plan->grants[i];
			unsigned shift = plan->pools[grant->pool].shift;
			struct ps_place place;
			int order = i ? ps_ip_cmp(&grant[-1].address, &grant->address) : -1;

			assert_true(order < 0 || (order == 0 && grant[-1].slice < grant->slice));
			assert_true(grant->slice >= ps_slice_first(shift));
			assert_true(grant->slice < ps_slice_count(shift));
			assert_int_equal(ps_plan_locate(plan, &grant->address, &place), 0);
			assert_int_equal(place.pool, grant->pool);
			assert_int_equal(place.site, plan->hosts[grant->host].site);
		}
	}
}

/* What ps_plan_who() does, without any order or index. */
static const struct ps_grant *naive_who(const struct ps_plan *plan, const struct ps_ip *ip,
					unsigned port)
{
	for (size_t i = 0; i < plan->n_grants; i++) {
		const struct ps_grant *grant = &plan->grants[i];
		unsigned shift = plan->pools[grant->pool].shift;

		if (ps_ip_cmp(&grant->address, ip) == 0 && port >> shift == grant->slice &&
		    port >= PS_PORT_FIRST)
			return grant;
	}
	return NULL;
}

static void who_agrees_with_a_naive_search(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < SEEDS; seed++) {
		ps_auto(ps_plan_free) struct ps_plan *plan = seed_dealt(seed, size_of(seed));

		for (unsigned i = 0; i < 2000; i++) {
			unsigned r = seed_hash(seed, 7, i);
			const struct ps_pool *pool = &plan->pools[r % plan->n_pools];
			struct ps_ip ip = ps_ip_add(&pool->blocks[0].prefix.ip, r >> 8 & 3);
			unsigned port = r >> 16;

			if (i % 2)
				port %= 4096;
			assert_ptr_equal(ps_plan_who(plan, &ip, (uint16_t)port),
					 naive_who(plan, &ip, port));
		}
	}
}

static void dealing_again_deals_nothing(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < SEEDS; seed++) {
		ps_auto(ps_plan_free) struct ps_plan *plan = seed_dealt(seed, size_of(seed));
		size_t n = 99;

		assert_int_equal(ps_plan_deal(plan, &n), 0);
		assert_int_equal(n, 0);
	}
}

/* The text of the seed's plan with the slices of `plan` in it. */
static char *text_with(unsigned seed, struct seed_size size, const struct ps_plan *plan)
{
	ps_auto_mem char *text = seed_text(seed, size);
	char *dealt = NULL;

	assert_int_equal(ps_plan_deal_text(text, strlen(text), plan, &dealt), 0);
	return dealt;
}

static void the_text_of_a_deal_reads_back_as_the_same_plan(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < SEEDS; seed++) {
		ps_auto(ps_plan_free) struct ps_plan *plan = seed_dealt(seed, size_of(seed));
		ps_auto_mem char *text = text_with(seed, size_of(seed), plan);
		ps_auto(ps_plan_free) struct ps_plan *back = plan_from(text);
		ps_auto_mem char *diff = NULL, *again = NULL;
		uint8_t a[PS_PLAN_DIGEST_LEN], b[PS_PLAN_DIGEST_LEN];

		assert_int_equal(ps_plan_diff(plan, back, &diff), 0);
		assert_string_equal(diff, "");
		assert_int_equal(ps_plan_digest(plan, a), 0);
		assert_int_equal(ps_plan_digest(back, b), 0);
		assert_memory_equal(a, b, sizeof(a));
		assert_int_equal(ps_plan_deal_text(text, strlen(text), back, &again), 0);
		assert_string_equal(again, text);
	}
}

static void more_hosts_and_pools_move_no_slice_that_is_held(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < SEEDS; seed++) {
		struct seed_size size = size_of(seed), more = size;
		ps_auto(ps_plan_free) struct ps_plan *small = NULL, *large = NULL;
		ps_auto_mem char *text = NULL, *slices = NULL;
		ps_auto_mem struct ps_move *moves = NULL;
		size_t n;

		size.services = more.services = false;
		more.hosts += 7;
		more.pools += 2;
		small = seed_dealt(seed, size);
		slices = text_with(seed, size, small);
		text = seed_text(seed, more);
		text = realloc(text, strlen(text) + strlen(slices) + 1);
		assert_non_null(text);
		strcat(text, strstr(slices, "slices:"));
		large = plan_undealt(text);
		assert_int_equal(large->n_grants, small->n_grants);
		assert_int_equal(ps_plan_deal(large, &n), 0);
		assert_true(n > 0);
		assert_int_equal(ps_plan_moves(small, large, &moves, &n), 0);
		for (size_t i = 0; i < n; i++) {
			assert_null(moves[i].from);
			assert_non_null(moves[i].to);
		}
		assert_int_equal(n, large->n_grants - small->n_grants);
	}
}

static char *deal_text(const char *text)
{
	ps_auto(ps_plan_free) struct ps_plan *plan = plan_undealt(text);
	char *dealt = NULL;
	size_t n;

	assert_int_equal(ps_plan_deal(plan, &n), 0);
	assert_int_equal(ps_plan_deal_text(text, strlen(text), plan, &dealt), 0);
	return dealt;
}

static void hosts_share_the_first_address_that_is_not_often_filtered(void **state)
{
	ps_auto_mem char *text = deal_text(PLAN_TEXT);

	(void)state;
	assert_non_null(strstr(text, "\nslices:\n"
				     "  198.51.100.1: { lhr1: 1, lhr2: 2 }\n"
				     "  198.51.100.64: { cdg1: 1 }\n"
				     "  203.0.113.1: { lhr1: 0 }\n"
				     "  203.0.113.2: { lhr2: 0 }\n"));
}

static void an_often_filtered_address_is_dealt_when_no_other_is_left(void **state)
{
	static const char *const blocks[] = {"192.0.2.0/31", "192.0.2.254/31"};
	static const char *const slices[] = {"  192.0.2.0: { lhr2: 0 }\n  192.0.2.1: { lhr1: 0 }\n",
					     "  192.0.2.254: { lhr1: 0 }\n"
					     "  192.0.2.255: { lhr2: 0 }\n"};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(blocks); i++) {
		ps_auto_mem char *text = NULL, *dealt = NULL;

		assert_true(asprintf(&text,
				     PLAN_HEAD
				     "pools:\n  a: { slice: whole, addresses: [ { prefix: "
				     "%s, site: LHR } ] }\n",
				     blocks[i]) > 0);
		dealt = deal_text(text);
		assert_non_null(strstr(dealt, slices[i]));
	}
}

static void whole_ipv6_addresses_are_dealt_from_the_first_on(void **state)
{
	static const char text[] =
		"version: 1\n"
		"sites: { A: }\n"
		"hosts:\n"
		"  a: { site: A, underlay: \"2001:db8:9::1\", uplinks: [e] }\n"
		"  b: { site: A, underlay: \"2001:db8:9::2\", uplinks: [e] }\n"
		"pools: { p: { slice: whole, addresses: [ { prefix: \"2001:db8:1::/112\", site: A } ] } }\n"
		"services: [ { name: s, address: \"2001:db8:1::ffff\", port: 2443, protocol: tcp, host: b } ]\n";
	ps_auto_mem char *dealt = deal_text(text);
	ps_auto(ps_plan_free) struct ps_plan *plan = plan_from(dealt);

	(void)state;
	assert_int_equal(plan->n_grants, 2);
	assert_string_equal(plan_owner(plan, "2001:db8:1::", 1024), "a");
	assert_string_equal(plan_owner(plan, "2001:db8:1::", 1023), "nobody");
	assert_string_equal(plan_owner(plan, "2001:db8:1::ffff", 65535), "b");
	assert_string_equal(plan_owner(plan, "2001:db8:1::1", 5000), "nobody");
}

static void services_get_their_slices_first(void **state)
{
	ps_auto_mem char *text = deal_text(
		PLAN_TEXT
		"services:\n"
		"  - { name: a, address: 198.51.100.1, port: 2443, protocol: tcp, host: lhr2 }\n"
		"  - { name: b, address: 198.51.100.1, port: 2443, protocol: udp, host: lhr2 }\n"
		"  - { name: c, address: 198.51.100.9, port: 9000, protocol: udp, host: lhr2 }\n");

	(void)state;
	assert_non_null(strstr(text, "  198.51.100.1: { lhr1: 2, lhr2: 1 }\n"
				     "  198.51.100.9: { lhr2: 4 }\n"));
}

static void a_deal_that_cannot_be_is_a_finding_before(void **state)
{
	static const struct {
		const char *text, *words;
	} rows[] = {
		{PLAN_TEXT "services:\n"
			   "  - { name: a, address: 198.51.100.1, port: 2443, protocol: tcp, host: "
			   "lhr2 }\n"
			   "  - { name: b, address: 198.51.100.1, port: 2444, protocol: tcp, host: "
			   "lhr1 }\n",
		 "like the service on line 17, which has another host"},
		{PLAN_TEXT "services:\n"
			   "  - { name: a, address: 198.51.100.1, port: 2443, protocol: tcp, host: "
			   "lhr2 }\n"
			   "slices: { 198.51.100.1: { lhr1: 1 } }\n",
		 "which \"lhr1\" holds"},
		{PLAN_HEAD
		 "pools:\n  a: { slice: whole, addresses: [ { prefix: 192.0.2.0/31, site: LHR } ] }\n"
		 "services:\n"
		 "  - { name: a, address: 192.0.2.0, port: 2443, protocol: tcp, host: lhr2 }\n"
		 "  - { name: b, address: 192.0.2.1, port: 2443, protocol: tcp, host: lhr2 }\n",
		 "has 0 free slice(s) at site \"LHR\" for 1 host(s) without one"},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		ps_auto(ps_diags_clear) struct ps_diags diags = {0};
		ps_auto(ps_plan_free) struct ps_plan *plan = NULL;

		assert_int_equal(ps_plan_parse_undealt(rows[i].text, strlen(rows[i].text), "p",
						       &diags, &plan),
				 -EINVAL);
		plan_print(&diags);
		assert_int_equal(diags.n, 1);
		assert_non_null(strstr(diags.items[0].text, rows[i].words));
	}
}

#define TINY_HEAD "version: 1\n"
#define TINY_REST                                                       \
	"sites: { A: {} }  # one\n"                                     \
	"hosts: { h: { site: A, underlay: 10.0.0.1, uplinks: [e] } }\n" \
	"pools: { p: { addresses: [ { address: 192.0.2.1, site: A } ] } }\n"

#define TINY_REST6                                                               \
	"sites: { A: {} }\n"                                                     \
	"hosts: { h: { site: A, underlay: \"2001:db8:9::1\", uplinks: [e] } }\n" \
	"pools: { p: { addresses: [ { address: \"2001:db8::\", site: A } ] } }\n"

/* However the slices stand in the file, only they change. */
static const struct {
	const char *before, *after;
} dealt_files[] = {
	/* none yet */
	{TINY_HEAD TINY_REST, TINY_HEAD TINY_REST "\nslices:\n  192.0.2.1: { h: 1 }\n"},
	{TINY_HEAD TINY_REST "# end\n\n",
	 TINY_HEAD TINY_REST "# end\n\n\nslices:\n  192.0.2.1: { h: 1 }\n"},
	{TINY_HEAD TINY_REST "direct: []",
	 TINY_HEAD TINY_REST "direct: []\n\nslices:\n  192.0.2.1: { h: 1 }\n"},
	{"---\n" TINY_HEAD TINY_REST "...\n",
	 "---\n" TINY_HEAD TINY_REST "\nslices:\n  192.0.2.1: { h: 1 }\n...\n"},
	/* first, between and last, with comments around and inside */
	{"# top\nslices:  # by portslice\n  # old\n  192.0.2.1:\n    h: 7\n# version\n" TINY_HEAD
		 TINY_REST,
	 "# top\nslices:  # by portslice\n  # old\n  192.0.2.1: { h: 7 }\n# version\n" TINY_HEAD
		 TINY_REST},
	{TINY_HEAD "slices:\n  192.0.2.1: { h: \"3-4\" } # x\n\n# sites\n" TINY_REST,
	 TINY_HEAD "slices:\n  192.0.2.1: { h: \"3-4\" }\n\n# sites\n" TINY_REST},
	{TINY_HEAD TINY_REST "slices:\n  192.0.2.1: { h: 9 }",
	 TINY_HEAD TINY_REST "slices:\n  192.0.2.1: { h: 9 }\n"},
	{TINY_HEAD TINY_REST "slices:\n  192.0.2.1: { h: 9 }\n# the end",
	 TINY_HEAD TINY_REST "slices:\n  192.0.2.1: { h: 9 }\n# the end"},
	/* empty, as a place to put them */
	{TINY_HEAD "slices: {}  # none yet\n" TINY_REST,
	 TINY_HEAD "slices:  # none yet\n  192.0.2.1: { h: 1 }\n" TINY_REST},
	{TINY_HEAD "slices:\n" TINY_REST, TINY_HEAD "slices:\n  192.0.2.1: { h: 1 }\n" TINY_REST},
	{TINY_HEAD TINY_REST "slices:", TINY_HEAD TINY_REST "slices:\n  192.0.2.1: { h: 1 }\n"},
	/* flow style */
	{TINY_HEAD "slices: { 192.0.2.1: {\n  h: 5 } }\n" TINY_REST,
	 TINY_HEAD "slices:\n  192.0.2.1: { h: 5 }\n" TINY_REST},
	{"{version: 1, sites: {A: }, hosts: {}, pools: {}}",
	 "{version: 1, sites: {A: }, hosts: {}, pools: {}, slices: {  }}"},
	{"{version: 1, sites: {A: }, hosts: {}, pools: {}, }\n",
	 "{version: 1, sites: {A: }, hosts: {}, pools: {}, slices: {  }}\n"},
	{"{slices: {}, version: 1, sites: {A: }, hosts: {}, pools: {}}\n",
	 "{slices: {  }, version: 1, sites: {A: }, hosts: {}, pools: {}}\n"},
	/* IPv6, with and without quotes, in whatever spelling */
	{"version: 1\n" TINY_REST6,
	 "version: 1\n" TINY_REST6 "\nslices:\n  \"2001:db8::\": { h: 1 }\n"},
	{"version: 1\n" TINY_REST6 "slices:\n  2001:0DB8::: { h: 7 }\n",
	 "version: 1\n" TINY_REST6 "slices:\n  \"2001:db8::\": { h: 7 }\n"},
	{"version: 1\n" TINY_REST6 "slices: { \"2001:db8::\": { h: \"3-4\" } }\n",
	 "version: 1\n" TINY_REST6 "slices:\n  \"2001:db8::\": { h: \"3-4\" }\n"},
	/* other bytes than ASCII before it, and lines that end as in DOS */
	{"# caf\xc3\xa9 \xf0\x9f\x98\x80\n" TINY_HEAD "slices: {} # \xc3\xa9\n" TINY_REST,
	 "# caf\xc3\xa9 \xf0\x9f\x98\x80\n" TINY_HEAD
	 "slices: # \xc3\xa9\n  192.0.2.1: { h: 1 }\n" TINY_REST},
	{"version: 1\r\nsites: { A: }\r\nhosts: {}\r\npools: {}\r\nslices: {}\r\n# x\r\n",
	 "version: 1\r\nsites: { A: }\r\nhosts: {}\r\npools: {}\r\nslices:\r\n# x\r\n"},
};

static void only_the_slices_of_a_file_change(void **state)
{
	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(dealt_files); i++) {
		ps_auto_mem char *after = deal_text(dealt_files[i].before);

		assert_string_equal(after, dealt_files[i].after);
	}
}

static void slices_written_as_an_alias_are_not_touched(void **state)
{
	static const char text[] = TINY_HEAD TINY_REST "services: &none\nslices: *none\n";
	ps_auto(ps_plan_free) struct ps_plan *plan = plan_undealt(text);
	char *dealt = NULL;
	size_t n;

	(void)state;
	assert_int_equal(ps_plan_deal(plan, &n), 0);
	assert_int_equal(ps_plan_deal_text(text, strlen(text), plan, &dealt), -EINVAL);
	assert_null(dealt);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_host_holds_a_slice_of_every_pool_at_its_site),
		cmocka_unit_test(dealt_slices_are_sorted_and_leasable_and_have_one_owner),
		cmocka_unit_test(who_agrees_with_a_naive_search),
		cmocka_unit_test(dealing_again_deals_nothing),
		cmocka_unit_test(the_text_of_a_deal_reads_back_as_the_same_plan),
		cmocka_unit_test(more_hosts_and_pools_move_no_slice_that_is_held),
		cmocka_unit_test(hosts_share_the_first_address_that_is_not_often_filtered),
		cmocka_unit_test(an_often_filtered_address_is_dealt_when_no_other_is_left),
		cmocka_unit_test(whole_ipv6_addresses_are_dealt_from_the_first_on),
		cmocka_unit_test(services_get_their_slices_first),
		cmocka_unit_test(a_deal_that_cannot_be_is_a_finding_before),
		cmocka_unit_test(only_the_slices_of_a_file_change),
		cmocka_unit_test(slices_written_as_an_alias_are_not_touched),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

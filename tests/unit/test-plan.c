// SPDX-License-Identifier: MIT
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>

#include "plan-text.h"

static void a_plan_reads_as_it_is_written(void **state)
{
	ps_auto(ps_plan_free) struct ps_plan *plan = plan_from(
		PLAN_TEXT
		"classes:\n"
		"  - { name: all, tags: {} }\n"
		"  - { name: gb, match: { cgroup: /proxies/gb, mark: 0x1f }, tags: { country: GB } }\n"
		"direct: [10.0.0.0/8, \"2001:db8::/32\"]\n"
		"services:\n"
		"  - { name: b, address: 198.51.100.1, port: 2443, protocol: udp, host: lhr1 }\n"
		"  - { name: a, address: 198.51.100.1, port: 2443, protocol: tcp, host: lhr1 }\n"
		"slices:\n"
		"  203.0.113.0: { lhr2: 0 }\n"
		"  198.51.100.1: { lhr2: \"3-4, 7\", lhr1: 1 }\n");

	(void)state;
	assert_int_equal(plan->n_sites, 2);
	assert_true(plan->sites[1].has_edge);
	assert_int_equal(plan->n_hosts, 3);
	assert_string_equal(plan->hosts[2].name, "cdg1");
	assert_int_equal(plan->hosts[2].site, 1);
	assert_int_equal(plan->hosts[2].mtu, 1500);
	assert_null(plan->hosts[2].underlay_interface);
	assert_string_equal(plan->hosts[2].uplinks[0], "eth0");
	assert_int_equal(plan->pools[0].shift, PS_SHIFT_DEFAULT);
	assert_int_equal(plan->pools[0].unowned, PS_UNOWNED_REJECT);
	assert_int_equal(plan->pools[0].echo, PS_ECHO_ANSWER);
	assert_int_equal(plan->pools[1].shift, PS_SHIFT_WHOLE);
	assert_null(plan->classes[0].match.cgroup);
	assert_int_equal(plan->classes[1].match.mark, 0x1f);
	assert_int_equal(plan->n_direct, 2);
	assert_int_equal(plan->services[0].protocol, IPPROTO_TCP);
	assert_int_equal(plan->n_grants, 5);
	assert_int_equal(plan->grants[3].slice, 7);
	assert_int_equal(plan->grants[3].host, 1);
	assert_int_equal(plan->grants[4].pool, 1);
}

static void a_plan_may_be_of_ipv6_alone(void **state)
{
	ps_auto(ps_plan_free) struct ps_plan *plan = plan_from(
		"version: 1\n"
		"sites: { LHR: { edge: \"2001:db8:a::ffff\" }, CDG: { edge: 2001:db8:b::ffff } }\n"
		"hosts:\n"
		"  lhr1: { site: LHR, underlay: \"2001:db8:a::1\", uplinks: [eth0], mtu: 1328 }\n"
		"  cdg1: { site: CDG, underlay: \"fd00::1\", uplinks: [eth0] }\n"
		"pools:\n"
		"  all: { slice: whole, addresses: [ { prefix: \"2001:db8:1::/112\", site: LHR } ] }\n"
		"slices: { \"2001:db8:1::ff\": { lhr1: 0 } }\n");
	struct ps_ip ip = plan_ip("2001:db8:1::ffff"), beyond = plan_ip("2001:db8:1::1:0");
	struct ps_place place;

	(void)state;
	assert_true(ps_plan_is_over_v6(plan));
	assert_int_equal(ps_plan_outer_len(plan), 48);
	assert_int_equal(ps_plan_locate(plan, &ip, &place), 0);
	assert_int_equal(ps_plan_locate(plan, &beyond, &place), -ENOENT);
	assert_string_equal(plan_owner(plan, "2001:db8:1::ff", 2000), "lhr1");
}

static void either_family_is_carried_over_either(void **state)
{
	ps_auto(ps_plan_free) struct ps_plan *plan = plan_from(
		PLAN_TEXT "  six: { addresses: [ { address: \"2001:db8::1\", site: LHR } ] }\n");

	(void)state;
	assert_false(ps_plan_is_over_v6(plan));
	assert_int_equal(ps_plan_outer_len(plan), 28);
}

static void a_country_called_no_is_norway(void **state)
{
	ps_auto(ps_plan_free) struct ps_plan *plan = plan_from(
		PLAN_HEAD "pools:\n  no: { tags: { country: NO, customer: 007 }, addresses: "
			  "[ { prefix: 192.0.2.0/24, site: LHR } ] }\n");

	(void)state;
	assert_string_equal(plan->pools[0].name, "no");
	assert_string_equal(plan->pools[0].tags.items[0].value, "NO");
	assert_string_equal(plan->pools[0].tags.items[1].value, "007");
}

static void every_slice_size_of_the_design_is_accepted(void **state)
{
	static const struct {
		const char *text;
		unsigned shift;
	} sizes[] = {{"128", 7},   {"256", 8},   {"512", 9},    {"1024", 10}, {"2048", 11},
		     {"4096", 12}, {"8192", 13}, {"16384", 14}, {"whole", 16}};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(sizes); i++) {
		ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
		ps_auto_mem char *text = NULL;

		assert_true(
			asprintf(&text,
				 PLAN_HEAD
				 "pools:\n  a: { slice: %s, unowned: drop, echo: drop, addresses: "
				 "[ { prefix: 192.0.2.0/24, site: LHR } ] }\n",
				 sizes[i].text) > 0);
		plan = plan_from(text);
		assert_int_equal(plan->pools[0].shift, sizes[i].shift);
		assert_int_equal(plan->pools[0].unowned, PS_UNOWNED_DROP);
		assert_int_equal(plan->pools[0].echo, PS_ECHO_DROP);
	}
}

static void names_are_found_and_strangers_are_not(void **state)
{
	ps_auto(ps_plan_free) struct ps_plan *plan =
		plan_from(PLAN_TEXT "classes: [ { name: gb, tags: { country: GB } } ]\n");

	(void)state;
	assert_int_equal(ps_plan_find_site(plan, "CDG"), 1);
	assert_int_equal(ps_plan_find_host(plan, "lhr2"), 1);
	assert_int_equal(ps_plan_find_pool(plan, "own"), 1);
	assert_int_equal(ps_plan_find_class(plan, "gb"), 0);
	assert_int_equal(ps_plan_find_host(plan, "lhr"), PS_PLAN_NONE);
	assert_int_equal(ps_plan_find_host(plan, ""), PS_PLAN_NONE);
}

static void an_address_is_located_by_its_block(void **state)
{
	static const struct {
		const char *address;
		int error;
		unsigned pool, site;
	} rows[] = {
		{"198.51.100.0", 0, 0, 0},          {"198.51.100.63", 0, 0, 0},
		{"198.51.100.64", 0, 0, 1},         {"198.51.100.127", 0, 0, 1},
		{"203.0.113.3", 0, 1, 0},           {"203.0.113.4", -ENOENT, 0, 0},
		{"198.51.100.128", -ENOENT, 0, 0},  {"0.0.0.0", -ENOENT, 0, 0},
		{"255.255.255.255", -ENOENT, 0, 0}, {"2001:db8::1", -ENOENT, 0, 0},
	};
	ps_auto(ps_plan_free) struct ps_plan *plan = plan_from(PLAN_TEXT);

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		struct ps_ip ip = plan_ip(rows[i].address);
		struct ps_place place = {0};

		assert_int_equal(ps_plan_locate(plan, &ip, &place), rows[i].error);
		assert_int_equal(place.pool, rows[i].pool);
		assert_int_equal(place.site, rows[i].site);
	}
}

static void a_port_belongs_to_the_holder_of_its_slice(void **state)
{
	ps_auto(ps_plan_free) struct ps_plan *plan =
		plan_from(PLAN_TEXT "slices:\n"
				    "  198.51.100.1: { lhr1: 1, lhr2: 31 }\n"
				    "  203.0.113.1: { lhr2: 0 }\n");

	(void)state;
	assert_string_equal(plan_owner(plan, "198.51.100.1", 2047), "nobody");
	assert_string_equal(plan_owner(plan, "198.51.100.1", 2048), "lhr1");
	assert_string_equal(plan_owner(plan, "198.51.100.1", 4095), "lhr1");
	assert_string_equal(plan_owner(plan, "198.51.100.1", 4096), "nobody");
	assert_string_equal(plan_owner(plan, "198.51.100.1", 65535), "lhr2");
	assert_string_equal(plan_owner(plan, "203.0.113.1", 1023), "nobody");
	assert_string_equal(plan_owner(plan, "203.0.113.1", 1024), "lhr2");
	assert_string_equal(plan_owner(plan, "203.0.113.1", 65535), "lhr2");
	assert_string_equal(plan_owner(plan, "192.0.2.1", 2048), "nobody");
}

static void a_class_is_served_by_the_first_pool_that_covers_and_is_held(void **state)
{
	ps_auto(ps_plan_free) struct ps_plan *plan = plan_from(
		PLAN_HEAD "pools:\n"
			  "  a: { tags: { country: GB }, addresses: [ { prefix: "
			  "192.0.2.0/29, site: LHR } ] }\n"
			  "  b: { tags: { country: GB, trust: no }, addresses: [ { prefix: "
			  "192.0.2.8/29, site: LHR } ] }\n"
			  "classes:\n"
			  "  - { name: gb, tags: { country: GB } }\n"
			  "  - { name: no, tags: { trust: no, country: GB } }\n"
			  "slices:\n"
			  "  192.0.2.1: { lhr1: 1 }\n"
			  "  192.0.2.9: { lhr1: 1, lhr2: 2 }\n");

	(void)state;
	assert_int_equal(ps_plan_class_pool(plan, 0, 0), 0);
	assert_int_equal(ps_plan_class_pool(plan, 0, 1), 1);
	assert_int_equal(ps_plan_class_pool(plan, 1, 0), 1);
	assert_int_equal(ps_plan_class_pool(plan, 1, 2), PS_PLAN_NONE);
}

static void a_service_is_found_by_address_port_and_protocol(void **state)
{
	ps_auto(ps_plan_free) struct ps_plan *plan = plan_from(
		PLAN_TEXT
		"services:\n"
		"  - { name: a, address: 198.51.100.1, port: 2443, protocol: tcp, host: lhr1 }\n"
		"  - { name: b, address: 198.51.100.1, port: 2053, protocol: udp, host: lhr1 }\n"
		"slices: { 198.51.100.1: { lhr1: 1 } }\n");
	ps_auto(ps_plan_free) struct ps_plan *none = plan_from(PLAN_TEXT);
	struct ps_ip ip = plan_ip("198.51.100.1"), other = plan_ip("198.51.100.2");

	(void)state;
	assert_string_equal(ps_plan_service(plan, &ip, 2443, IPPROTO_TCP)->name, "a");
	assert_string_equal(ps_plan_service(plan, &ip, 2053, IPPROTO_UDP)->name, "b");
	assert_null(ps_plan_service(plan, &ip, 2443, IPPROTO_UDP));
	assert_null(ps_plan_service(plan, &other, 2443, IPPROTO_TCP));
	assert_null(ps_plan_service(none, &ip, 2443, IPPROTO_TCP));
}

static struct ps_plan *plan_from_file(const char *path)
{
	static char text[1 << 16];
	FILE *f = fopen(path, "re");

	assert_non_null(f);
	text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
	assert_int_equal(fclose(f), 0);
	return plan_from(text);
}

static void every_example_is_a_good_and_dealt_plan(void **state)
{
	DIR *dir = opendir(PS_EXAMPLES);
	unsigned n = 0;

	(void)state;
	assert_non_null(dir);
	for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
		ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
		ps_auto_mem char *path = NULL;
		size_t dealt;

		if (!strstr(entry->d_name, ".yaml"))
			continue;
		assert_true(asprintf(&path, "%s/%s", PS_EXAMPLES, entry->d_name) > 0);
		plan = plan_from_file(path);
		assert_int_equal(ps_plan_deal(plan, &dealt), 0);
		assert_int_equal(dealt, 0);
		n++;
	}
	closedir(dir);
	assert_true(n >= 3);
}

static void a_digest_sees_the_meaning_only(void **state)
{
	static const struct {
		const char *text;
		bool same;
	} rows[] = {
		{"# hello\nsites: {B: {edge: 10.0.0.2}, A: {edge: 10.0.0.1}}\nversion: 1\n"
		 "slices: {192.0.2.1: {h: \"1\"}}\n"
		 "hosts: {i: {uplinks: [e], site: B, underlay: 10.0.0.9}, "
		 "h: {mtu: 1500, site: A, underlay: 10.0.0.8, uplinks: [e]}}\n"
		 "pools:\n  p:\n    slice: 2048\n    addresses: [{site: A, prefix: 192.0.2.1/32}]\n",
		 true},
		{"version: 1\nsites: {A: {edge: 10.0.0.1}, B: {edge: 10.0.0.2}}\n"
		 "hosts: {h: {site: A, underlay: 10.0.0.8, uplinks: [e]}, "
		 "i: {site: B, underlay: 10.0.0.9, uplinks: [e]}}\n"
		 "pools: {p: {addresses: [{address: 192.0.2.1, site: A}]}}\n"
		 "slices: {192.0.2.1: {h: 2}}\n",
		 false},
	};
	ps_auto(ps_plan_free) struct ps_plan *plan =
		plan_from("version: 1\nsites: {A: {edge: 10.0.0.1}, B: {edge: 10.0.0.2}}\n"
			  "hosts: {h: {site: A, underlay: 10.0.0.8, uplinks: [e]}, "
			  "i: {site: B, underlay: 10.0.0.9, uplinks: [e]}}\n"
			  "pools: {p: {addresses: [{address: 192.0.2.1, site: A}]}}\n"
			  "slices: {192.0.2.1: {h: 1}}\n");
	uint8_t wanted[PS_PLAN_DIGEST_LEN], got[PS_PLAN_DIGEST_LEN];

	(void)state;
	assert_int_equal(ps_plan_digest(plan, wanted), 0);
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		ps_auto(ps_plan_free) struct ps_plan *other = plan_from(rows[i].text);

		assert_int_equal(ps_plan_digest(other, got), 0);
		assert_int_equal(memcmp(wanted, got, sizeof(got)) == 0, rows[i].same);
	}
}

static void json_says_names_not_indexes(void **state)
{
	static const char wanted[] =
		"{\"address\":\"198.51.100.1\",\"count\":2048,\"first\":2048,\"host\":\"lhr1\","
		"\"pool\":\"gb\",\"slice\":1}";
	ps_auto(ps_plan_free) struct ps_plan *plan =
		plan_from(PLAN_TEXT "slices: { 198.51.100.1: { lhr1: 1 } }\n");
	json_t *json = ps_plan_json(plan);
	ps_auto_mem char *text = NULL;

	(void)state;
	assert_non_null(json);
	text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(json);
	assert_non_null(text);
	assert_non_null(strstr(text, wanted));
	assert_non_null(strstr(text, "\"slice\":\"whole\""));
	assert_non_null(strstr(text, "{\"edge\":\"10.2.255.1\",\"name\":\"CDG\"}"));
	assert_non_null(strstr(text, "\"version\":1"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plan_reads_as_it_is_written),
		cmocka_unit_test(a_plan_may_be_of_ipv6_alone),
		cmocka_unit_test(either_family_is_carried_over_either),
		cmocka_unit_test(a_country_called_no_is_norway),
		cmocka_unit_test(every_slice_size_of_the_design_is_accepted),
		cmocka_unit_test(names_are_found_and_strangers_are_not),
		cmocka_unit_test(an_address_is_located_by_its_block),
		cmocka_unit_test(a_port_belongs_to_the_holder_of_its_slice),
		cmocka_unit_test(a_class_is_served_by_the_first_pool_that_covers_and_is_held),
		cmocka_unit_test(a_service_is_found_by_address_port_and_protocol),
		cmocka_unit_test(every_example_is_a_good_and_dealt_plan),
		cmocka_unit_test(a_digest_sees_the_meaning_only),
		cmocka_unit_test(json_says_names_not_indexes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

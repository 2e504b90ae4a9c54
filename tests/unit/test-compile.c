// SPDX-License-Identifier: MIT
/* From the plan to one host's tables: what the two sides are told must be what the plan says. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "agent/compile.h"
#include "base/own.h"
#include "cm.h"

enum { LHR1, LHR2, CDG1, N_HOSTS };

static const char text[] =
	"version: 1\n"
	"sites:\n"
	"  LHR: { edge: 10.1.255.1 }\n"
	"  CDG: { edge: 10.2.255.1 }\n"
	"hosts:\n"
	"  lhr1: { site: LHR, underlay: 10.1.1.1, uplinks: [eth0] }\n"
	"  lhr2: { site: LHR, underlay: 10.1.2.1, uplinks: [eth0], mtu: 9000 }\n"
	"  cdg1: { site: CDG, underlay: 10.2.1.1, uplinks: [eth0] }\n"
	"pools:\n"
	"  gb:\n"
	"    tags: { country: GB }\n"
	"    addresses: [ { prefix: 198.51.100.0/31, site: LHR }, { address: 198.51.100.9, site: CDG } ]\n"
	"  ie: { tags: { country: IE }, addresses: [ { address: 198.51.100.64, site: LHR } ] }\n"
	"  six: { addresses: [ { address: \"2001:db8:1::\", site: LHR } ] }\n"
	"  own6:\n"
	"    slice: whole\n"
	"    unowned: drop\n"
	"    echo: drop\n"
	"    addresses: [ { prefix: \"2001:db8:2::/127\", site: LHR }, { address: \"2001:db8:9::9\", site: CDG } ]\n"
	"classes:\n"
	"  - { name: ie, match: { mark: 2 }, tags: { country: IE } }\n"
	"  - { name: gb, match: { cgroup: /gb, mark: 1 }, tags: { country: GB } }\n"
	"  - { name: rest, match: { cgroup: /rest }, tags: { country: GB } }\n"
	"services:\n"
	"  - { name: web, address: 198.51.100.1, port: 4443, protocol: tcp, host: lhr2 }\n"
	"  - { name: web6, address: \"2001:db8:2::1\", port: 4443, protocol: tcp, host: lhr2 }\n"
	"direct: [10.0.0.0/8]\n"
	"slices:\n"
	"  198.51.100.0: { lhr1: \"1,5\" }\n"
	"  198.51.100.1: { lhr1: 1, lhr2: \"2-3\" }\n"
	"  198.51.100.9: { cdg1: 1 }\n"
	"  198.51.100.64: { lhr1: 4, lhr2: 5 }\n"
	"  \"2001:db8:1::\": { lhr1: 1, lhr2: \"2,31\" }\n"
	"  \"2001:db8:2::\": { lhr1: 0 }\n"
	"  \"2001:db8:2::1\": { lhr2: 0 }\n";

static int setup(void **state)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	struct ps_plan *plan = NULL;
	int r = ps_plan_parse(text, strlen(text), "plan", &diags, &plan);

	for (size_t i = 0; i < diags.n; i++)
		print_error("%u: %s\n", diags.items[i].line, diags.items[i].text);
	*state = plan;
	return r;
}

static int teardown(void **state)
{
	struct ps_plan *plan = *state;

	ps_plan_free(&plan);
	return 0;
}

static void
a_host_gets_local_routes_for_the_addresses_it_holds_slices_of_and_no_others(void **state)
{
	static const size_t n_wanted[N_HOSTS] = {5, 4, 1};
	static const char *const wanted[N_HOSTS][5] = {
		{"198.51.100.0", "198.51.100.1", "198.51.100.64", "2001:db8:1::", "2001:db8:2::"},
		{"198.51.100.1", "198.51.100.64", "2001:db8:1::", "2001:db8:2::1"},
		{"198.51.100.9"}};

	for (unsigned host = 0; host < N_HOSTS; host++) {
		ps_auto_mem struct ps_ip *addresses = NULL;
		char name[PS_IP_TEXT_MAX];
		size_t n;

		assert_int_equal(ps_compile_addresses(*state, host, &addresses, &n), 0);
		assert_int_equal(n, n_wanted[host]);
		for (size_t i = 0; i < n; i++)
			assert_string_equal(ps_ip_format(&addresses[i], name), wanted[host][i]);
	}
}

static void every_slice_of_the_plan_is_compiled_for_exactly_one_host(void **state)
{
	const struct ps_plan *plan = *state;
	size_t all = 0;

	for (unsigned host = 0; host < N_HOSTS; host++) {
		ps_auto_mem struct ps_egress_slice *slices = NULL;
		size_t n;

		assert_int_equal(ps_compile_slices(plan, host, &slices, &n), 0);
		all += n;
		for (size_t i = 0; i < n; i++) {
			const struct ps_grant *grant =
				ps_plan_who(plan, &slices[i].address, slices[i].ports.first);

			assert_non_null(grant);
			assert_int_equal(grant->host, host);
			assert_int_equal(slices[i].shift, plan->pools[grant->pool].shift);
			assert_int_equal(slices[i].ports.count,
					 slices[i].shift == PS_SHIFT_WHOLE ? 64512 : 2048);
		}
	}
	assert_int_equal(all, plan->n_grants);
}

static void a_class_draws_from_the_slices_of_its_pool_here(void **state)
{
	const struct ps_compile_cgroup own[3] = {{101, 3}, {102, 3}, {103, 3}};
	const struct ps_compile_cgroup named[3] = {{0, 0}, {202, 2}, {0, 0}};
	ps_auto(ps_compile_egress_free) struct ps_compile_egress *egress = NULL;
	const struct ps_choice *ie, *gb;

	assert_int_equal(ps_compile_egress_new(*state, LHR1, own, named, &egress), 0);
	assert_int_equal(egress->config.n_choices, 3);
	ie = &egress->choices[0].v4;
	gb = &egress->choices[1].v4;
	assert_int_equal(ie->n, 1);
	assert_int_equal(ps_ip_v4_be(&egress->slices[ie->first].address), htonl(0xc6336440));
	assert_int_equal(egress->slices[ie->first].ports.first, 4 << 11);
	assert_int_equal(gb->n, 3);
	for (size_t i = 0; i < gb->n; i++)
		assert_true(ntohl(ps_ip_v4_be(&egress->slices[gb->first + i].address)) <=
			    0xc6336401);
	assert_memory_equal(gb, &egress->choices[2].v4, sizeof(*gb));
}

static void a_class_is_met_by_its_own_cgroup_and_by_its_match(void **state)
{
	const struct ps_compile_cgroup own[3] = {{101, 3}, {102, 3}, {103, 3}};
	const struct ps_compile_cgroup named[3] = {{0, 0}, {202, 2}, {0, 0}};
	ps_auto(ps_compile_egress_free) struct ps_compile_egress *egress = NULL;
	static const struct ps_egress_cgroup cgroups[] = {
		{101, 3, PS_EGRESS_ANY, 0},
		{102, 3, PS_EGRESS_ANY, 1},
		{202, 2, PS_EGRESS_ANY, PS_EGRESS_ANY},
		{103, 3, PS_EGRESS_ANY, 2},
		{0, 0, PS_EGRESS_ANY, PS_EGRESS_ANY}, /* it is not there */
	};
	static const struct ps_egress_match wanted[] = {
		{.cgroup = PS_EGRESS_ANY, .has_mark = true, .mark = 2, .class = 0},
		{.cgroup = 2, .has_mark = true, .mark = 1, .class = 1},
		{.cgroup = 4, .class = 2},
	};

	assert_int_equal(ps_compile_egress_new(*state, LHR1, own, named, &egress), 0);
	assert_int_equal(egress->config.n_cgroups, PS_N_ELEMENTS(cgroups));
	for (size_t i = 0; i < PS_N_ELEMENTS(cgroups); i++)
		assert_memory_equal(&egress->cgroups[i], &cgroups[i], sizeof(cgroups[i]));
	assert_int_equal(egress->config.n_matches, PS_N_ELEMENTS(wanted));
	for (size_t i = 0; i < PS_N_ELEMENTS(wanted); i++) {
		assert_int_equal(egress->matches[i].cgroup, wanted[i].cgroup);
		assert_int_equal(egress->matches[i].has_mark, wanted[i].has_mark);
		assert_int_equal(egress->matches[i].mark, wanted[i].mark);
		assert_int_equal(egress->matches[i].class, wanted[i].class);
	}
}

static void services_mss_and_direct_destinations_are_those_of_the_host(void **state)
{
	const struct ps_compile_cgroup none[3] = {{0}};

	for (unsigned host = 0; host < N_HOSTS; host++) {
		ps_auto(ps_compile_egress_free) struct ps_compile_egress *egress = NULL;

		assert_int_equal(ps_compile_egress_new(*state, host, none, none, &egress), 0);
		assert_int_equal(egress->config.n_services, host == LHR2 ? 2 : 0);
		assert_int_equal(egress->config.mss,
				 host == LHR2 ? 9000 - 28 - 40 : 1500 - 28 - 40);
		assert_int_equal(egress->config.n_direct, 1 + N_HOSTS + 2);
		assert_int_equal(egress->config.n_shared, 6);
	}
}

/* What the parser will make of a plan whose pool gb also has an IPv6 block, and where pool ie has
 * IPv6 only: IPv4 places of the text, put elsewhere. */
static void put_ipv6(struct ps_plan *plan)
{
	struct ps_ip six;
	const struct ps_ip gb = ps_ip_from_v4(htonl(0xc6336401)),
			   ie = ps_ip_from_v4(htonl(0xc6336440));

	assert_int_equal(ps_ip_parse("2001:db8::1", &six), 0);
	for (size_t i = 0; i < plan->n_grants; i++) {
		struct ps_ip *ip = &plan->grants[i].address;

		if (ps_ip_cmp(ip, &gb) == 0 || ps_ip_cmp(ip, &ie) == 0)
			*ip = ps_ip_add(&six, ps_ip_cmp(ip, &ie) == 0);
	}
	for (size_t i = 0; i < plan->n_services; i++)
		plan->services[i].address = six;
	plan->pools[1].blocks[0].prefix = (struct ps_prefix){ps_ip_add(&six, 1), 128};
}

static void a_class_has_slices_of_each_family_that_its_pools_have(void **state)
{
	const struct ps_compile_cgroup none[3] = {{0}};
	ps_auto(ps_compile_egress_free) struct ps_compile_egress *egress = NULL;
	const struct ps_choices *ie, *gb;
	struct ps_plan *plan = *state;

	put_ipv6(plan);
	assert_int_equal(ps_compile_egress_new(plan, LHR1, none, none, &egress), 0);
	ie = &egress->choices[0];
	gb = &egress->choices[1];
	assert_int_equal(ie->v4.n, 0);
	assert_int_equal(ie->v6.n, 1);
	assert_int_equal(gb->v4.n, 2);
	assert_int_equal(gb->v6.n, 1);
	assert_int_equal(egress->config.n_slices, 6);
	assert_true(ps_ip_is_v4(&egress->slices[gb->v4.first].address));
	assert_int_equal(egress->slices[gb->v6.first].address.bytes[15], 1);
	assert_int_equal(egress->slices[gb->v6.first].ports.first, 1 << 11);
	assert_int_equal(egress->slices[ie->v6.first].address.bytes[15], 2);
	assert_int_equal(egress->shared[2].bits, 128);
	assert_false(ps_ip_is_v4(&egress->shared[2].ip));
	assert_int_equal(ps_compile_class_pool(plan, 0, LHR1, true), PS_PLAN_NONE);
	assert_int_equal(ps_compile_class_pool(plan, 0, LHR1, false), 1);
	assert_int_equal(ps_compile_class_pool(plan, 1, LHR1, false), 0);
}

static void an_ipv6_service_keeps_its_address(void **state)
{
	const struct ps_compile_cgroup none[3] = {{0}};
	ps_auto(ps_compile_egress_free) struct ps_compile_egress *egress = NULL;
	struct ps_plan *plan = *state;

	put_ipv6(plan);
	assert_int_equal(ps_compile_egress_new(plan, LHR2, none, none, &egress), 0);
	assert_int_equal(egress->config.n_services, 2);
	assert_memory_equal(egress->services[0].src.bytes, plan->services[0].address.bytes, 16);
	assert_int_equal(egress->services[0].sport, htons(4443));
}

static void the_dispatchers_tables_are_made_for_every_host(void **state)
{
	for (unsigned host = 0; host < N_HOSTS; host++) {
		ps_auto(ps_table_free) struct ps_table *table = NULL;

		assert_int_equal(ps_compile_table(*state, host, &table), 0);
		assert_int_equal(table->n_services, host == LHR2 ? 2 : 0);
		assert_true(table->n_hosts >= N_HOSTS);
		assert_true(table->config.reject_per_s > 0);
		assert_int_equal(table->config.fresh_until_ns, 0); /* nobody confirmed it yet */
	}
}

static void a_path_over_ipv6_leaves_20_bytes_less_for_segments(void **state)
{
	static const char over6[] =
		"version: 1\n"
		"sites: { A: }\n"
		"hosts: { a: { site: A, underlay: \"2001:db8::1\", uplinks: [eth0], mtu: 1500 } }\n"
		"pools: { p: { addresses: [ { address: 198.51.100.1, site: A } ] } }\n";
	ps_auto(ps_compile_egress_free) struct ps_compile_egress *egress = NULL;
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;

	(void)state;
	assert_int_equal(ps_plan_parse(over6, strlen(over6), "plan", &diags, &plan), 0);
	assert_int_equal(ps_compile_egress_new(plan, 0, NULL, NULL, &egress), 0);
	assert_int_equal(egress->config.mss, 1500 - 48 - 40);
}

static struct ps_address find(const struct ps_table *table, const char *where)
{
	struct ps_address address = {0};
	struct ps_ip ip;

	assert_int_equal(ps_ip_parse(where, &ip), 0);
	assert_true(ps_table_find(table, &ip, &address));
	return address;
}

/* The host that the tables name for a slice of an address, -1: nobody. */
static int owner_of(const struct ps_table *table, const char *where, unsigned slice)
{
	struct ps_address address = find(table, where);
	__u8 slot = table->owners[address.row + slice / PS_ROW_SLICES].slot[slice % PS_ROW_SLICES];

	if (slot == PS_OWNER_NONE)
		return -1;
	return table->peers[address.group * PS_GROUP_SIZE + slot].host;
}

static void ipv6_addresses_and_their_owners_are_in_the_dispatchers_tables(void **state)
{
	static const struct {
		const char *address;
		unsigned slice;
		int host;
	} rows[] = {
		{"2001:db8:1::", 1, LHR1}, {"2001:db8:1::", 2, LHR2}, {"2001:db8:1::", 31, LHR2},
		{"2001:db8:1::", 3, -1},   {"2001:db8:2::", 0, LHR1}, {"2001:db8:2::1", 0, LHR2},
		{"2001:db8:9::9", 0, -1},
	};

	for (unsigned host = LHR1; host <= LHR2; host++) {
		ps_auto(ps_table_free) struct ps_table *table = NULL;

		assert_int_equal(ps_compile_table(*state, host, &table), 0);
		for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++)
			assert_int_equal(owner_of(table, rows[i].address, rows[i].slice),
					 rows[i].host);
	}
}

static void the_policy_of_a_pool_is_that_of_its_ipv6_addresses(void **state)
{
	static const struct {
		const char *address;
		unsigned site, bits;
	} rows[] = {
		{"2001:db8:1::", 0, 11},
		{"2001:db8:2::1", 0,
		 16 | (PS_ADDRESS_DROP | PS_ADDRESS_WHOLE | PS_ADDRESS_SILENT) << 5},
		{"2001:db8:9::9", 1,
		 16 | (PS_ADDRESS_DROP | PS_ADDRESS_WHOLE | PS_ADDRESS_SILENT) << 5},
	};
	ps_auto(ps_table_free) struct ps_table *table = NULL;

	assert_int_equal(ps_compile_table(*state, LHR1, &table), 0);
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		struct ps_address found = find(table, rows[i].address);

		assert_int_equal(found.site, rows[i].site);
		assert_int_equal(found.bits, rows[i].bits);
	}
}

static void the_ledger_has_as_many_pages_as_its_memory_holds(void **state)
{
	static const struct {
		unsigned mib;
		uint32_t n_pages, n_wide_pages;
	} rows[] = {{1, 4096, 512},
		    {2, 8192, 1024},
		    {PS_PLAN_LEDGER_DEFAULT_MIB, PS_PAGES_MAX, PS_WIDE_PAGES_MAX},
		    {PS_PLAN_LEDGER_MAX_MIB, 1 << 24, 1 << 21}};
	struct ps_egress_options options;

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		ps_compile_memory(rows[i].mib, &options);
		assert_int_equal(options.n_pages, rows[i].n_pages);
		assert_int_equal(options.n_wide_pages, rows[i].n_wide_pages);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_ledger_has_as_many_pages_as_its_memory_holds),
		cmocka_unit_test_setup_teardown(
			a_host_gets_local_routes_for_the_addresses_it_holds_slices_of_and_no_others,
			setup, teardown),
		cmocka_unit_test_setup_teardown(
			every_slice_of_the_plan_is_compiled_for_exactly_one_host, setup, teardown),
		cmocka_unit_test_setup_teardown(a_class_draws_from_the_slices_of_its_pool_here,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_class_is_met_by_its_own_cgroup_and_by_its_match,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			services_mss_and_direct_destinations_are_those_of_the_host, setup,
			teardown),
		cmocka_unit_test_setup_teardown(
			a_class_has_slices_of_each_family_that_its_pools_have, setup, teardown),
		cmocka_unit_test_setup_teardown(an_ipv6_service_keeps_its_address, setup, teardown),
		cmocka_unit_test_setup_teardown(the_dispatchers_tables_are_made_for_every_host,
						setup, teardown),
		cmocka_unit_test(a_path_over_ipv6_leaves_20_bytes_less_for_segments),
		cmocka_unit_test_setup_teardown(
			ipv6_addresses_and_their_owners_are_in_the_dispatchers_tables, setup,
			teardown),
		cmocka_unit_test_setup_teardown(the_policy_of_a_pool_is_that_of_its_ipv6_addresses,
						setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

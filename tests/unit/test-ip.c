// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "base/ip.h"
#include "base/own.h"
#include "cm.h"

static void prefixes_parse_and_print_as_operators_write_them(void **state)
{
	static const struct {
		const char *text, *printed;
		int error;
	} rows[] = {
		{"198.51.100.0/24", "198.51.100.0/24", 0},
		{"198.51.100.7", "198.51.100.7/32", 0},
		{"0.0.0.0/0", "0.0.0.0/0", 0},
		{"2001:db8::/32", "2001:db8::/32", 0},
		{"2001:db8::1", "2001:db8::1/128", 0},
		{"198.51.100.1/24", NULL, -EDOM},
		{"198.51.100.0/33", NULL, -EINVAL},
		{"198.51.100.0/", NULL, -EINVAL},
		{"198.51.100.0/-1", NULL, -EINVAL},
		{"198.51.100", NULL, -EINVAL},
		{"", NULL, -EINVAL},
		{"2001:db8::/129", NULL, -EINVAL},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		char text[PS_PREFIX_TEXT_MAX];
		struct ps_prefix prefix;

		assert_int_equal(ps_prefix_parse(rows[i].text, &prefix), rows[i].error);
		if (!rows[i].error)
			assert_string_equal(ps_prefix_format(&prefix, text), rows[i].printed);
	}
}

static void an_address_before_a_port_has_brackets_if_it_is_ipv6(void **state)
{
	static const struct {
		const char *text, *printed;
	} rows[] = {{"198.51.100.7", "198.51.100.7"},
		    {"2001:DB8::7", "[2001:db8::7]"},
		    {"2001:db8:1111:2222:3333:4444:5555:6666",
		     "[2001:db8:1111:2222:3333:4444:5555:6666]"}};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		char text[PS_IP_HOST_MAX];
		struct ps_ip ip;

		assert_int_equal(ps_ip_parse(rows[i].text, &ip), 0);
		assert_string_equal(ps_ip_format_host(&ip, text), rows[i].printed);
	}
}

static bool overlap(const char *a, const char *b)
{
	struct ps_prefix x, y;

	assert_int_equal(ps_prefix_parse(a, &x), 0);
	assert_int_equal(ps_prefix_parse(b, &y), 0);
	assert_int_equal(ps_prefix_overlaps(&x, &y), ps_prefix_overlaps(&y, &x));
	return ps_prefix_overlaps(&x, &y);
}

static void prefixes_overlap_when_one_holds_the_other(void **state)
{
	(void)state;
	assert_true(overlap("198.51.100.0/24", "198.51.100.128/25"));
	assert_true(overlap("0.0.0.0/0", "192.0.2.1"));
	assert_false(overlap("198.51.100.0/25", "198.51.100.128/25"));
	assert_false(overlap("192.0.2.1", "192.0.2.2"));
	assert_false(overlap("0.0.0.0/0", "2001:db8::1"));
}

static void counting_through_a_prefix_carries_into_the_next_byte(void **state)
{
	char text[PS_IP_TEXT_MAX];
	struct ps_ip ip;

	(void)state;
	assert_int_equal(ps_ip_parse("198.51.100.255", &ip), 0);
	ip = ps_ip_add(&ip, 2);
	assert_string_equal(ps_ip_format(&ip, text), "198.51.101.1");
	assert_true(ps_ip_is_v4(&ip));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prefixes_parse_and_print_as_operators_write_them),
		cmocka_unit_test(an_address_before_a_port_has_brackets_if_it_is_ipv6),
		cmocka_unit_test(prefixes_overlap_when_one_holds_the_other),
		cmocka_unit_test(counting_through_a_prefix_carries_into_the_next_byte),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* Addresses as egress keeps them: the same bytes as struct ps_ip. */
#include <arpa/inet.h>

#include "base/own.h"
#include "cm.h"
#include "egress/egress.h"

static union ps_ip16 parse(const char *text)
{
	struct ps_ip ip;

	assert_int_equal(ps_ip_parse(text, &ip), 0);
	return ps_ip16(&ip);
}

static void an_address_is_what_base_says_it_is(void **state)
{
	static const struct {
		const char *text;
		int v4, zero, any;
	} rows[] = {
		{"198.51.100.1", 1, 0, 0},
		{"0.0.0.0", 1, 0, 1},
		{"255.255.255.255", 1, 0, 0},
		{"::", 0, 1, 1},
		{"::1", 0, 0, 0},
		{"::ffff:0:198.51.100.1", 0, 0, 0},
		{"::198.51.100.1", 0, 0, 0},
		{"2001:db8::ffff:c633:6401", 0, 0, 0},
		{"1::ffff:0:0", 0, 0, 0},
		{"0:1::ffff:0:0", 0, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		union ps_ip16 ip = parse(rows[i].text);

		assert_int_equal(ps_ip16_is_v4(&ip), rows[i].v4);
		assert_int_equal(ps_ip16_is_zero(&ip), rows[i].zero);
		assert_int_equal(ps_ip16_is_any(&ip), rows[i].any);
	}
}

static void four_bytes_make_the_mapped_address(void **state)
{
	union ps_ip16 made = ps_ip16_v4(inet_addr("198.51.100.1")), parsed = parse("198.51.100.1");

	(void)state;
	assert_memory_equal(made.bytes, parsed.bytes, sizeof(made));
}

static void addresses_differ_by_any_bit(void **state)
{
	union ps_ip16 one = parse("2001:db8::1");

	(void)state;
	assert_true(ps_ip16_is_same(&one, &one));
	for (unsigned bit = 0; bit < 128; bit++) {
		union ps_ip16 other = one;

		other.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_false(ps_ip16_is_same(&one, &other));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_address_is_what_base_says_it_is),
		cmocka_unit_test(four_bytes_make_the_mapped_address),
		cmocka_unit_test(addresses_differ_by_any_bit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "agent/hello.h"
#include "base/own.h"
#include "cm.h"

static struct ps_hello example(size_t n_slices)
{
	struct ps_hello hello = {
		.part = 1, .parts = 3, .round = 77, .revision = 1ull << 40, .name = "lhr1"};

	memset(hello.digest, 0xab, sizeof(hello.digest));
	hello.n_slices = n_slices;
	for (size_t i = 0; i < n_slices; i++) {
		struct ps_ip *ip = &hello.slices[i].ip;

		assert_int_equal(ps_ip_parse(i % 2 ? "198.51.100.0" : "2001:db8:1::", ip), 0);
		*ip = ps_ip_add(ip, i);
		hello.slices[i].slice = (uint16_t)(i + 1);
	}
	return hello;
}

static void what_is_encoded_is_decoded_the_same(void **state)
{
	static const size_t sizes[] = {0, 1, PS_HELLO_SLICES_MAX};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(sizes); i++) {
		struct ps_hello in = example(sizes[i]), out;
		uint8_t data[PS_HELLO_MAX];
		size_t len = ps_hello_encode(&in, data);

		assert_true(len <= PS_HELLO_MAX);
		assert_int_equal(ps_hello_decode(data, len, &out), 0);
		assert_string_equal(out.name, in.name);
		assert_int_equal(out.part, in.part);
		assert_int_equal(out.parts, in.parts);
		assert_int_equal(out.round, in.round);
		assert_int_equal(out.revision, in.revision);
		assert_memory_equal(out.digest, in.digest, sizeof(in.digest));
		assert_int_equal(out.n_slices, in.n_slices);
		for (size_t j = 0; j < in.n_slices; j++) {
			assert_int_equal(ps_ip_cmp(&out.slices[j].ip, &in.slices[j].ip), 0);
			assert_int_equal(out.slices[j].slice, in.slices[j].slice);
		}
	}
}

static void a_hello_cut_short_or_too_long_is_refused(void **state)
{
	struct ps_hello in = example(3), out;
	uint8_t data[PS_HELLO_MAX + 1];
	size_t len = ps_hello_encode(&in, data);

	(void)state;
	for (size_t n = 0; n < len; n++) {
		ps_auto_mem uint8_t *exact = malloc(n + 1);

		memcpy(exact, data, n);
		assert_int_equal(ps_hello_decode(exact, n, &out), -EBADMSG);
	}
	assert_int_equal(ps_hello_decode(data, len + 1, &out), -EBADMSG);
}

static void a_hello_of_other_magic_or_impossible_parts_is_refused(void **state)
{
	struct ps_hello in = example(1), out;
	uint8_t data[PS_HELLO_MAX];
	size_t len = ps_hello_encode(&in, data);

	(void)state;
	data[0] = 'X';
	assert_int_equal(ps_hello_decode(data, len, &out), -EBADMSG);
	memcpy(data, "PSH1", 4); /* addresses of four bytes */
	assert_int_equal(ps_hello_decode(data, len, &out), -EBADMSG);
	in.part = in.parts;
	len = ps_hello_encode(&in, data);
	assert_int_equal(ps_hello_decode(data, len, &out), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_encoded_is_decoded_the_same),
		cmocka_unit_test(a_hello_cut_short_or_too_long_is_refused),
		cmocka_unit_test(a_hello_of_other_magic_or_impossible_parts_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cm.h"
#include "lease/record.h"

static const char *const hosts[] = {"lhr1", "lhr2", "cdg1"}, *const sites[] = {"LHR", "CDG"};

static const char *name_of(void *context, unsigned number, bool is_site)
{
	(void)context;
	if (is_site)
		return number < 2 ? sites[number] : NULL;
	return number < 3 ? hosts[number] : NULL;
}

static int number_of(void *context, const char *name, bool is_site)
{
	for (int i = 0; i < (is_site ? 2 : 3); i++)
		if (strcmp(name, name_of(context, (unsigned)i, is_site)) == 0)
			return i;
	return -ENOENT;
}

static const struct ps_lease_names names = {name_of, number_of, NULL};

static const struct row {
	struct ps_lease_record record;
	const char *text;
} rows[] = {
	{{{PS_LEASE_CLOCK, 0}, {.clock_ms = 86400000}}, "86400000"},
	{{{PS_LEASE_BIRTH, 0}, {.birth = {1234567890123456789, 5, true}}},
	 "1234567890123456789 stamp 5 settled 1"},
	{{{PS_LEASE_HOST, 1},
	  {.host = {.session = 0xfeedface12345678,
		    .asserted = 42,
		    .stamp_ms = 1000,
		    .acked_ms = 900,
		    .confirmed = 77,
		    .suspect_ms = 3,
		    .wish_ms = 4,
		    .wish_pool = PS_LEASE_NO_POOL,
		    .state = PS_HOST_ALIVE,
		    .is_dispatcher = true}}},
	 "alive session feedface12345678 asserted 42 stamp 1000 acked 900 dispatcher 1 confirmed 77 "
	 "suspect 3 wish 65535 since 4"},
	{{{PS_LEASE_SLICE, 9}, {.slice = {12, 3, 2, PS_SLICE_DRAINING}}},
	 "draining cdg1 epoch 3 stamp 12"},
	{{{PS_LEASE_ADDRESS, 2}, {.address = {7, 0, 1, PS_ADDRESS_LEAVING, false}}},
	 "leaving LHR target CDG epoch 7 drained 0"},
};

static void a_record_reads_back_as_it_was_written(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct ps_lease_record back = {.key = rows[i].record.key};
		char text[PS_LEASE_TEXT_MAX];
		int n = ps_lease_record_format(&rows[i].record, &names, text, sizeof(text));

		assert_int_equal(n, (int)strlen(rows[i].text));
		assert_string_equal(text, rows[i].text);
		assert_int_equal(ps_lease_record_parse(text, &names, &back), 0);
		assert_memory_equal(&back.value, &rows[i].record.value,
				    rows[i].record.key.kind == PS_LEASE_CLOCK ? 8 : 16);
		assert_int_equal(ps_lease_record_format(&back, &names, text, sizeof(text)), n);
		assert_string_equal(text, rows[i].text);
	}
}

static void what_is_not_a_record_is_refused_and_leaves_the_output_alone(void **state)
{
	static const struct {
		uint8_t kind;
		const char *text;
		int error;
	} bad[] = {
		{PS_LEASE_CLOCK, "", -EBADMSG},
		{PS_LEASE_CLOCK, "12 13", -EBADMSG},
		{PS_LEASE_BIRTH, "1 stamp 2 settled 2", -EBADMSG},
		{PS_LEASE_HOST, "alive", -EBADMSG},
		{PS_LEASE_SLICE, "sleeping lhr1 epoch 1 stamp 1", -EBADMSG},
		{PS_LEASE_SLICE, "active lhr1 epoch 1 stamp 1 more", -EBADMSG},
		{PS_LEASE_SLICE, "active lhr9 epoch 1 stamp 1", -ENOENT},
		{PS_LEASE_ADDRESS, "here LHR target ORD epoch 1 drained 0", -ENOENT},
		{PS_LEASE_ADDRESS, "here LHR target CDG epoch 1 drained 3", -EBADMSG},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct ps_lease_record record = {.key = {bad[i].kind, 1}};

		record.value.clock_ms = 99;
		assert_int_equal(ps_lease_record_parse(bad[i].text, &names, &record), bad[i].error);
	}
}

static void a_host_without_a_name_cannot_be_written(void **state)
{
	const struct ps_lease_record record = {{PS_LEASE_SLICE, 0}, {.slice = {0, 1, 8, 1}}};
	char text[PS_LEASE_TEXT_MAX];

	(void)state;
	assert_int_equal(ps_lease_record_format(&record, &names, text, sizeof(text)), -EINVAL);
	assert_int_equal(ps_lease_record_format(&rows[2].record, &names, text, 20), -ENOBUFS);
}

static void a_higher_epoch_is_newer_and_within_one_the_later_state(void **state)
{
	const struct ps_slice_record granted = {.epoch = 4, .state = PS_SLICE_GRANTED};
	const struct ps_slice_record active = {.epoch = 4, .state = PS_SLICE_ACTIVE};
	const struct ps_slice_record old = {.epoch = 3, .state = PS_SLICE_FREE};

	(void)state;
	assert_true(ps_slice_record_newer(&granted, &old));
	assert_false(ps_slice_record_newer(&old, &granted));
	assert_true(ps_slice_record_newer(&active, &granted));
	assert_false(ps_slice_record_newer(&active, &active));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_record_reads_back_as_it_was_written),
		cmocka_unit_test(what_is_not_a_record_is_refused_and_leaves_the_output_alone),
		cmocka_unit_test(a_host_without_a_name_cannot_be_written),
		cmocka_unit_test(a_higher_epoch_is_newer_and_within_one_the_later_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
#include <errno.h>

#include "cm.h"
#include "lease/move.h"

enum { LHR, CDG, MAN, SITES };

static struct ps_move_site site(unsigned phase, uint16_t at, uint16_t target, uint32_t epoch)
{
	return (struct ps_move_site){
		.record = {epoch, at, target, (uint8_t)phase, false},
		.revision = 10 + epoch,
		.is_confirmed = true,
		.is_unheld = true,
	};
}

static void a_move_begins_once_and_only_at_the_authority(void **state)
{
	const struct {
		struct ps_move_site site;
		uint16_t number, target;
		int wanted;
	} rows[] = {
		{site(PS_ADDRESS_HERE, LHR, LHR, 4), LHR, CDG, 0},
		{site(PS_ADDRESS_HERE, LHR, LHR, 4), LHR, LHR, -EALREADY},
		{site(PS_ADDRESS_HERE, LHR, LHR, 4), CDG, CDG, -EREMOTE},
		{site(PS_ADDRESS_LEAVING, LHR, MAN, 5), LHR, CDG, -EBUSY},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct ps_move_step step = {0};

		assert_int_equal(
			ps_move_begin(&rows[i].site, rows[i].number, rows[i].target, &step),
			rows[i].wanted);
		if (rows[i].wanted < 0)
			continue;
		assert_int_equal(step.record.phase, PS_ADDRESS_LEAVING);
		assert_int_equal(step.record.epoch, 5);
		assert_int_equal(step.revision, 14); /* two operators: the second compare fails */
	}
}

/* Carries on until nothing is to do, each site's dispatchers confirming at once. */
static int carry_on(struct ps_move_site sites[SITES], int most)
{
	struct ps_move_step step;
	int n = 0;

	while (n < most && ps_move_next(sites, SITES, &step)) {
		assert_int_equal(sites[step.site].revision, step.revision);
		sites[step.site].record = step.record;
		sites[step.site].revision++;
		n++;
	}
	return n;
}

static void an_address_leaves_then_is_copied_everywhere_then_arrives(void **state)
{
	struct ps_move_site sites[SITES] = {site(PS_ADDRESS_LEAVING, LHR, CDG, 5),
					    site(PS_ADDRESS_HERE, LHR, LHR, 4),
					    site(PS_ADDRESS_HERE, LHR, LHR, 4)};

	(void)state;
	assert_int_equal(carry_on(sites, 1), 1);
	assert_int_equal(sites[LHR].record.phase, PS_ADDRESS_MOVED);
	assert_int_equal(sites[LHR].record.site, CDG);
	assert_int_equal(carry_on(sites, 2), 2);
	assert_int_equal(sites[CDG].record.phase, PS_ADDRESS_MOVED);
	assert_int_equal(sites[MAN].record.phase, PS_ADDRESS_MOVED);
	assert_int_equal(carry_on(sites, 1), 1);
	assert_int_equal(sites[CDG].record.phase, PS_ADDRESS_HERE);
	assert_int_equal(carry_on(sites, 9), 2); /* the others learn that it has arrived */
	assert_int_equal(sites[MAN].record.epoch, 7);
}

static void nothing_happens_before_its_time(void **state)
{
	(void)state;
	for (int what = 0; what < 4; what++) {
		struct ps_move_site sites[SITES] = {site(PS_ADDRESS_MOVED, CDG, CDG, 6),
						    site(PS_ADDRESS_MOVED, CDG, CDG, 6),
						    site(PS_ADDRESS_MOVED, CDG, CDG, 6)};

		if (what == 0)
			sites[MAN].is_confirmed = false;
		if (what == 1)
			sites[MAN].revision = 0; /* cannot be read */
		if (what == 2) {
			sites[LHR] = site(PS_ADDRESS_LEAVING, LHR, CDG, 7);
			sites[LHR].is_unheld = false;
		}
		assert_int_equal(carry_on(sites, 1), what == 3);
	}
}

static void a_move_is_called_off_while_slices_drain_and_not_later(void **state)
{
	const struct ps_move_site leaving = site(PS_ADDRESS_LEAVING, LHR, CDG, 5);
	const struct ps_move_site moved = site(PS_ADDRESS_MOVED, CDG, CDG, 6);
	const struct ps_move_site here = site(PS_ADDRESS_HERE, LHR, LHR, 4);
	struct ps_move_step step;

	(void)state;
	assert_int_equal(ps_move_cancel(&leaving, LHR, &step), 0);
	assert_int_equal(step.record.phase, PS_ADDRESS_HERE);
	assert_int_equal(step.record.epoch, 6);
	assert_int_equal(ps_move_cancel(&moved, LHR, &step), -EBUSY);
	assert_int_equal(ps_move_cancel(&here, LHR, &step), -EALREADY);
}

static void a_forced_address_outdoes_whatever_the_dead_site_had_begun(void **state)
{
	struct ps_move_site sites[SITES] = {site(PS_ADDRESS_HERE, LHR, LHR, 4),
					    site(PS_ADDRESS_HERE, LHR, LHR, 4),
					    site(PS_ADDRESS_HERE, LHR, LHR, 4)};
	struct ps_move_step step;

	(void)state;
	sites[LHR].revision = 0;
	ps_move_force(sites, SITES, CDG, &step);
	sites[CDG].record = step.record;
	assert_int_equal(carry_on(sites, 9), 1); /* the third site learns it */
	sites[LHR] = site(PS_ADDRESS_MOVED, MAN, MAN, 6);
	assert_int_equal(carry_on(sites, 9), 1); /* the dead one too, when it is back */
	for (int i = 0; i < SITES; i++) {
		assert_int_equal(sites[i].record.site, CDG);
		assert_int_equal(sites[i].record.phase, PS_ADDRESS_HERE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_move_begins_once_and_only_at_the_authority),
		cmocka_unit_test(an_address_leaves_then_is_copied_everywhere_then_arrives),
		cmocka_unit_test(nothing_happens_before_its_time),
		cmocka_unit_test(a_move_is_called_off_while_slices_drain_and_not_later),
		cmocka_unit_test(a_forced_address_outdoes_whatever_the_dead_site_had_begun),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

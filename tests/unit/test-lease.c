// SPDX-License-Identifier: MIT
/* The rules of design.md §5 for a host whose store is well, one by one. */
#include <errno.h>

#include "lease-rig.h"

static void a_dispatcher_registers_then_loads_then_announces(void **state)
{
	struct rig rig;

	(void)state;
	rig_init(&rig, false);
	rig_list(&rig, INCARNATION, true);
	rig_event(&rig, PS_LEASE_PROGRESS, rig.revision);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_WITHDRAW], 1); /* what a former agent announced */
	rig_event(&rig, PS_LEASE_LOADED, rig.core.loading_revision);
	assert_asks_nothing(&rig);
	rig_event(&rig, PS_LEASE_WITHDRAWN, 0);
	assert_asks(&rig, PS_TXN_BEAT);
	assert_false(rig.core.txn.writes[0].value.host.is_dispatcher);
	rig_answer(&rig, PS_LEASE_DONE);
	assert_asks(&rig, PS_TXN_BEAT);
	assert_true(rig.core.txn.writes[0].value.host.is_dispatcher);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_ANNOUNCE], 0);
	rig_answer(&rig, PS_LEASE_DONE);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_ANNOUNCE], 1);
}

static void what_was_loaded_before_registering_is_not_announced(void **state)
{
	struct rig rig;

	(void)state;
	rig_init(&rig, false);
	rig_list(&rig, INCARNATION, true);
	rig_event(&rig, PS_LEASE_PROGRESS, rig.revision);
	rig_event(&rig, PS_LEASE_LOADED, rig.core.loading_revision);
	rig_event(&rig, PS_LEASE_WITHDRAWN, 0);
	rig_answer(&rig, PS_LEASE_DONE);
	/* A grant comes in between: the table loaded so far lacks it. */
	rig_slice(&rig, 3, (struct ps_slice_record){1, 1, 2, PS_SLICE_GRANTED});
	rig_answer(&rig, PS_LEASE_DONE);
	assert_int_equal(rig.core.dispatch, PS_DISPATCH_REGISTERED);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_ANNOUNCE], 0);
	rig_event(&rig, PS_LEASE_LOADED, rig.core.loading_revision);
	rig_settle(&rig);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_ANNOUNCE], 1);
}

static void a_grant_is_used_when_every_registered_dispatcher_has_confirmed_it(void **state)
{
	static const struct {
		const char *what;
		bool is_alive, is_dispatcher, is_asserted, has_confirmed, is_usable;
	} rows[] = {
		{"confirmed", true, true, true, true, true},
		{"not confirmed", true, true, true, false, false},
		{"confirmed in another incarnation", true, true, false, true, false},
		{"not registered", true, false, true, false, true},
		{"expired", false, true, true, false, true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct rig rig;
		struct ps_host_record peer;

		rig_start(&rig, false);
		peer = rig_peer(&rig);
		peer.state = rows[i].is_alive ? PS_HOST_ALIVE : PS_HOST_EXPIRED;
		peer.is_dispatcher = rows[i].is_dispatcher;
		peer.asserted = rows[i].is_asserted ? INCARNATION : INCARNATION + 1;
		peer.confirmed = rows[i].has_confirmed ? rig.revision + 1000 : 1;
		rig_host(&rig, 1, peer);
		rig.pools[0].is_used = true;
		rig_settle(&rig);
		rig_pass(&rig, MS);
		assert_asks(&rig, PS_TXN_GRANT);
		rig_settle(&rig);
		rig_pass(&rig, 20 * MS); /* the own confirmation */
		rig_settle(&rig);
		if ((rig.n_seen[PS_LEASE_DO_WORD] == 1) != rows[i].is_usable)
			fail_msg("%s", rows[i].what);
	}
}

static void
a_lease_ends_a_whole_lease_after_its_renewal_was_sent_less_the_clocks_error(void **state)
{
	struct rig rig;
	uint64_t sent_ns;

	(void)state;
	rig_start(&rig, true);
	rig_pass(&rig, 3 * S);
	assert_asks(&rig, PS_TXN_BEAT);
	sent_ns = rig.now_ns;
	rig.now_ns += 2 * S; /* the answer is slow */
	rig_answer(&rig, PS_LEASE_DONE);
	assert_int_equal(rig.core.told_until_ns, sent_ns + 3600 * S - 3600 * S / 1000000 * 3000);
	assert_int_equal(rig.core.told_attract_ns, sent_ns + 10 * S - 10 * S / 1000000 * 3000);
}

static void at_the_deadline_hooks_are_told_and_sockets_destroyed(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, true);
	rig_host(&rig, 1, rig_peer(&rig)); /* one alone would take itself for the whole site */
	assert_int_equal(rig.core.n_own, 1);
	rig.now_ns = rig.core.told_until_ns - 1;
	rig_event(&rig, PS_LEASE_TIMER, 0);
	assert_int_equal(rig.core.n_own, 1);
	rig_pass(&rig, 1);
	assert_int_equal(rig.core.n_own, 0);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_WORD], 1);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_DESTROY], 1);
}

static void leave(struct rig *rig, bool on)
{
	const struct ps_lease_event event = {
		.kind = PS_LEASE_LEAVE, .index = rig->own[0].slot, .on = on};

	rig_step(rig, &event);
}

static void a_slice_drains_behind_a_barrier_and_is_given_when_empty(void **state)
{
	struct rig rig;
	uint32_t slot;

	(void)state;
	rig_start(&rig, true);
	rig.pools[0].is_used = false; /* want no other */
	slot = rig.own[0].slot;
	leave(&rig, true);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_WORD], 1);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_BARRIER], 1);
	assert_asks(&rig, PS_TXN_DRAIN);
	rig_settle(&rig);
	rig_event(&rig, PS_LEASE_EMPTIED, slot); /* seen before the barrier: worth nothing */
	assert_asks_nothing(&rig);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_LOOK], 0);
	rig_event(&rig, PS_LEASE_BARRIER, rig.core.barrier_id);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_LOOK], 1);
	rig_event(&rig, PS_LEASE_EMPTIED, slot);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_WORD], 2); /* gone, before the record says so */
	assert_asks(&rig, PS_TXN_GIVE);
	assert_int_equal(rig.core.txn.writes[0].value.slice.state, PS_SLICE_QUARANTINE);
	rig_answer(&rig, PS_LEASE_DONE);
	assert_int_equal(rig.core.n_own, 0);
}

static void a_drain_that_takes_too_long_ends_with_destroyed_sockets(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, true);
	rig.core.config.drain_ns = 5 * S;
	leave(&rig, true);
	rig_settle(&rig);
	rig_event(&rig, PS_LEASE_BARRIER, rig.core.barrier_id);
	rig_pass(&rig, 4 * S);
	rig_settle(&rig);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_DESTROY], 0);
	rig_pass(&rig, 1 * S);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_DESTROY], 1);
}

static void a_drain_that_has_not_begun_can_be_called_off(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, true);
	leave(&rig, true);
	leave(&rig, false); /* too late */
	assert_int_equal(rig.own[0].phase, PS_OWN_CLEARED);
	assert_true(rig.own[0].is_leaving);
}

static void store_time_passes_no_faster_than_its_fastest_witness(void **state)
{
	static const struct {
		uint64_t after_ns, step_ms;
	} rows[] = {{1000 * MS, 997}, {1200 * MS, 1196}, {1500 * MS, 1495}, {3600 * S, 1495}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct rig rig;
		uint64_t before_ms;

		rig_start(&rig, false);
		before_ms = rig.core.clock_ms;
		rig_clock(&rig, before_ms);
		rig.core.renewed_sent_ns = rig.now_ns + rows[i].after_ns; /* no beat is due */
		rig_pass(&rig, rows[i].after_ns);
		assert_asks(&rig, PS_TXN_TICK);
		assert_int_equal(rig.core.txn.writes[0].value.clock_ms - before_ms,
				 rows[i].step_ms);
	}
}

static void quarantine_ends_by_store_time_not_before(void **state)
{
	struct rig rig;
	uint64_t now_ms;

	(void)state;
	rig_start(&rig, false);
	now_ms = rig.core.clock_ms;
	rig_slice(&rig, 3, (struct ps_slice_record){now_ms, 1, 2, PS_SLICE_QUARANTINE});
	rig_settle(&rig);
	rig_clock(&rig, now_ms + 121499); /* 120 s and the longest step of store time, less 1 ms */
	rig_pass(&rig, 200 * MS);
	assert_asks_nothing(&rig);
	rig_clock(&rig, now_ms + 121500);
	rig_pass(&rig, 200 * MS);
	assert_asks(&rig, PS_TXN_FREE);
	assert_int_equal(rig.core.txn.writes[0].key.index, 3);
}

static void a_host_is_suspected_only_when_half_of_the_site_outlived_its_lease(void **state)
{
	static const struct {
		unsigned n_hosts, n_outlived; /* the own host is among both */
		bool is_suspected;
	} rows[] = {{2, 1, true}, {3, 1, false}, {3, 2, true},
		    {4, 2, true}, {5, 2, false}, {6, 3, true}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct rig rig;
		struct ps_host_record peer;

		rig_start(&rig, false);
		for (uint32_t h = 1; h < rows[i].n_hosts; h++) {
			peer = rig_peer(&rig);
			peer.acked_ms = h < rows[i].n_outlived ? peer.stamp_ms + 20000 : 0;
			peer.stamp_ms +=
				h + 1 < rows[i].n_hosts ? 30000 : 0; /* the last one is dead */
			rig_host(&rig, h, peer);
		}
		rig_clock(&rig, rig.core.clock_ms + 25000);
		rig_pass(&rig, 3 * S);
		rig_settle(&rig); /* a renewal that knows of one after the lease */
		rig_clock(&rig, rig.core.clock_ms + 10);
		rig.core.acked_ms = rig.core.clock_ms;
		rig_pass(&rig, 3 * S);
		rig_answer(&rig, PS_LEASE_DONE);
		rig_pass(&rig, 100 * MS);
		if ((rig_asks(&rig) == PS_TXN_SUSPECT + 1) != rows[i].is_suspected)
			fail_msg("%u of %u hosts outlived it", rows[i].n_outlived, rows[i].n_hosts);
	}
}

static void who_lost_the_store_goes_on_only_with_most_of_a_site_that_lost_it_too(void **state)
{
	static const struct {
		const char *what;
		unsigned n_hosts, n_heard; /* peers that answer */
		uint64_t age_ns;           /* of the renewal of the first of them; others': 12 s */
		bool goes_on;
	} rows[] = {
		{"alone in the world", 1, 0, 0, true},
		{"one of two, the other silent", 2, 0, 0, false},
		{"both of two", 2, 1, 12 * S, true},
		{"two of four", 4, 1, 12 * S, false},
		{"three of four", 4, 2, 12 * S, true},
		{"a peer renewed after the store was lost", 4, 3, 1 * S, false},
		{"a peer never renewed", 4, 2, PS_LEASE_NEVER, true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct rig rig;

		rig_start(&rig, false);
		for (uint32_t h = 1; h < rows[i].n_hosts; h++)
			rig_host(&rig, h, rig_peer(&rig));
		rig_settle(&rig);
		rig_forget(&rig);
		for (int second = 0; second < 12; second++) {
			rig_pass(&rig, S);
			if (rig.core.is_busy)
				rig_answer(&rig, PS_LEASE_UNKNOWN);
			for (uint32_t h = 1; h <= rows[i].n_heard; h++) {
				const struct ps_lease_event event = {
					.kind = PS_LEASE_PEER,
					.index = h,
					.asked_ns = rig.now_ns,
					.age_ns = h == 1 ? rows[i].age_ns : 12 * S};

				rig_step(&rig, &event);
			}
		}
		assert_true(rig.n_seen[PS_LEASE_DO_ASK] > 2);
		if ((rig.n_seen[PS_LEASE_DO_WITHDRAW] == 0) != rows[i].goes_on)
			fail_msg("%s", rows[i].what);
	}
}

static void a_dispatcher_that_lags_reconnects_then_withdraws_then_deregisters(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, false);
	rig_slice(&rig, 3, (struct ps_slice_record){1, 1, 2, PS_SLICE_ACTIVE});
	assert_int_equal(rig.n_seen[PS_LEASE_DO_LOAD], 1);
	/* Its load never ends, while the store goes on answering. */
	for (int i = 0; i < 8 && rig.n_seen[PS_LEASE_DO_WITHDRAW] == 0; i++) {
		rig_pass(&rig, 1500 * MS);
		if (rig.core.is_busy)
			rig_answer(&rig, PS_LEASE_DONE);
		if (rig.n_seen[PS_LEASE_DO_WITHDRAW])
			assert_int_equal(rig.n_seen[PS_LEASE_DO_RECONNECT], 1);
	}
	assert_int_equal(rig.n_seen[PS_LEASE_DO_WITHDRAW], 1);
	assert_true(rig.members[0].record.is_dispatcher);
	rig_event(&rig, PS_LEASE_WITHDRAWN, 0);
	while (rig.core.is_busy)
		rig_answer(&rig, PS_LEASE_DONE);
	assert_false(rig.members[0].record.is_dispatcher);
}

static void another_slice_is_asked_for_at_the_watermark(void **state)
{
	static const struct {
		const char *what;
		unsigned fullest_pct, all_pct;
		uint32_t host_max;
		bool asks;
	} rows[] = {
		{"below", 69, 69, 4, false},
		{"the fullest destination", 70, 10, 4, true},
		{"all destinations", 20, 70, 4, true},
		{"but not beyond the host's share", 100, 100, 1, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct rig rig;

		rig_start(&rig, true);
		rig.pools[0].host_max = rows[i].host_max;
		rig.now_ns += S;
		rig_demand(&rig, rows[i].fullest_pct, rows[i].all_pct);
		rig_settle(&rig);
		if ((rig.core.n_own == 2) != rows[i].asks)
			fail_msg("%s", rows[i].what);
	}
}

static void growth_is_limited_to_one_grant_a_second(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, true);
	rig.now_ns += S;
	rig_demand(&rig, 100, 100);
	rig_settle(&rig);
	assert_int_equal(rig.core.n_own, 2);
	rig_pass(&rig, 900 * MS);
	rig_settle(&rig);
	assert_int_equal(rig.core.n_own, 2);
	rig_pass(&rig, 100 * MS);
	rig_settle(&rig);
	assert_int_equal(rig.core.n_own, 3);
}

/* Leaves n_free slices, the rest held by host 5. */
static void shorten(struct rig *rig, uint32_t n_free)
{
	uint32_t n = RIG_SLOTS - n_free - (uint32_t)rig->core.n_own;

	rig_host(rig, 5, rig_peer(rig));
	for (uint32_t i = 0; i < RIG_SLOTS && n > 0; i++) {
		if (rig->slots[i].record.state != PS_SLICE_FREE_NEW)
			continue;
		rig_slice(rig, i, (struct ps_slice_record){1, 1, 5, PS_SLICE_ACTIVE});
		n--;
	}
	rig_settle(rig);
}

static void when_a_pool_runs_short_the_poorest_then_the_longest_waiting_come_first(void **state)
{
	static const struct {
		const char *what;
		uint32_t n_free, reserve;
		uint16_t wish_pool; /* of host 1, which holds nothing */
		bool is_holder;     /* this host holds one already */
		bool gets;
	} rows[] = {
		{"the last one, nobody else wants it", 1, 0, PS_LEASE_NO_POOL, false, true},
		{"one is left for the host that has none", 1, 0, 0, true, false},
		{"host 1, which waited longer, has none either", 1, 0, 0, false, false},
		{"enough for both", 2, 0, 0, false, true},
		{"the reserve is for those with none", 3, 3, PS_LEASE_NO_POOL, true, false},
		{"who has none reaches into the reserve", 3, 3, PS_LEASE_NO_POOL, false, true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct ps_host_record peer;
		struct rig rig;
		size_t held;

		rig_start(&rig, rows[i].is_holder);
		rig.pools[0].reserve = rows[i].reserve;
		shorten(&rig, rows[i].n_free);
		held = rig.core.n_own;
		rig_clock(&rig, rig.core.clock_ms + 500);
		peer = rig_peer(&rig);
		peer.wish_pool = rows[i].wish_pool;
		peer.wish_ms = 1;
		rig_host(&rig, 1, peer);
		rig.pools[0].is_used = true;
		rig.now_ns += S;
		rig_demand(&rig, 100, 100);
		rig_settle(&rig);
		rig_pass(&rig, 20 * MS);
		rig_settle(&rig);
		if ((rig.core.n_own > held) != rows[i].gets)
			fail_msg("%s", rows[i].what);
		if (!rows[i].gets && rig.members[0].record.wish_pool != 0)
			fail_msg("%s: but it wishes", rows[i].what);
	}
}

static void a_slice_long_idle_is_given_back_and_sooner_when_others_wish(void **state)
{
	static const struct {
		const char *what;
		bool others_wish;
		unsigned used_pct;
		uint64_t after_ns;
		bool gives;
	} rows[] = {
		{"idle, but not for long", false, 10, 1700 * S, false},
		{"idle for half an hour", false, 10, 1800 * S, true},
		{"others wish", true, 10, 60 * S, true},
		{"others wish, but it is in use", true, 40, 60 * S, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct ps_host_record peer;
		struct rig rig;

		rig_start(&rig, true);
		rig.now_ns += S;
		rig_demand(&rig, 100, 100);
		rig_settle(&rig);
		assert_int_equal(rig.core.n_own, 2);
		if (rows[i].others_wish)
			shorten(&rig, 0);
		peer = rig_peer(&rig);
		peer.wish_pool = rows[i].others_wish ? 0 : PS_LEASE_NO_POOL;
		rig_host(&rig, 1, peer);
		rig_demand(&rig, rows[i].used_pct, rows[i].used_pct);
		rig.core.renewed_sent_ns += rows[i].after_ns;
		rig_forget(&rig);
		rig_pass(&rig, rows[i].after_ns - S);
		rig_demand(&rig, rows[i].used_pct, rows[i].used_pct);
		rig_pass(&rig, S);
		rig_pass(&rig, 0);
		if ((rig.n_seen[PS_LEASE_DO_BARRIER] == 1) != rows[i].gives)
			fail_msg("%s", rows[i].what);
	}
}

static void only_addresses_that_are_here_to_stay_are_granted_and_others_drain(void **state)
{
	static const struct ps_address_record rows[] = {
		{2, 0, 1, PS_ADDRESS_LEAVING, false},
		{2, 1, 1, PS_ADDRESS_MOVED, false},
		{2, 1, 1, PS_ADDRESS_HERE, false},
		{2, 0, 0, PS_ADDRESS_HERE, true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		const union ps_lease_value value = {.address = rows[i]};
		struct rig rig;

		rig_start(&rig, true);
		rig_give(&rig, PS_LEASE_ADDRESS, 1 - rig.slots[rig.own[0].slot].address, value);
		rig.now_ns += S;
		rig_demand(&rig, 100, 100);
		rig_settle(&rig);
		assert_int_equal(rig.core.n_own, 2);
		assert_int_equal(rig.slots[rig.own[0].slot].address,
				 rig.slots[rig.own[1].slot].address);
		rig_forget(&rig);
		rig_give(&rig, PS_LEASE_ADDRESS, rig.slots[rig.own[0].slot].address, value);
		rig_settle(&rig);
		assert_int_equal(rig.n_seen[PS_LEASE_DO_BARRIER], 2);
	}
}

static void a_host_whose_record_was_taken_away_stops_and_joins_again(void **state)
{
	struct ps_host_record record;
	struct rig rig;

	(void)state;
	rig_start(&rig, true);
	record = rig.members[0].record;
	record.state = PS_HOST_EXPIRED;
	rig_host(&rig, 0, record);
	rig_pass(&rig, MS);
	assert_int_equal(rig.core.n_own, 0);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_DESTROY], 1);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_WITHDRAW], 1);
	assert_asks_nothing(&rig);
	rig_event(&rig, PS_LEASE_WITHDRAWN, 0);
	assert_asks(&rig, PS_TXN_BEAT);
	rig_answer(&rig, PS_LEASE_DONE);
	rig_settle(&rig);
	rig_pass(&rig, S);
	rig_settle(&rig);
	assert_int_equal(rig.core.n_own, 1); /* nobody had taken it: still its own */
}

static void an_answer_that_does_not_come_changes_nothing(void **state)
{
	struct rig rig;
	uint64_t until_ns;

	(void)state;
	rig_start(&rig, true);
	until_ns = rig.core.told_until_ns;
	rig_pass(&rig, 3 * S);
	assert_asks(&rig, PS_TXN_BEAT);
	rig_answer(&rig, PS_LEASE_UNKNOWN);
	assert_asks_nothing(&rig);
	assert_int_equal(rig.core.told_until_ns, until_ns);
	rig_pass(&rig, 500 * MS);
	assert_asks(&rig, PS_TXN_BEAT);
	assert_int_equal(rig.core.txn.compares[0].revision, rig.members[0].revision);
}

static void figures_that_would_break_the_protocol_are_refused(void **state)
{
	struct ps_lease_config config = ps_lease_defaults;
	const char *why = NULL;

	(void)state;
	assert_int_equal(ps_lease_check(&config, &why), -EINVAL); /* no session */
	config.session = 1;
	assert_int_equal(ps_lease_check(&config, &why), 0);
	config.beat_ns = 4 * S;
	assert_int_equal(ps_lease_check(&config, &why), -EINVAL);
	assert_string_equal(why, "a dispatching lease must outlive two lost renewals");
	config.beat_ns = 3 * S;
	config.spread_ns = 2 * S;
	assert_int_equal(ps_lease_check(&config, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_dispatcher_registers_then_loads_then_announces),
		cmocka_unit_test(what_was_loaded_before_registering_is_not_announced),
		cmocka_unit_test(a_grant_is_used_when_every_registered_dispatcher_has_confirmed_it),
		cmocka_unit_test(
			a_lease_ends_a_whole_lease_after_its_renewal_was_sent_less_the_clocks_error),
		cmocka_unit_test(at_the_deadline_hooks_are_told_and_sockets_destroyed),
		cmocka_unit_test(a_slice_drains_behind_a_barrier_and_is_given_when_empty),
		cmocka_unit_test(a_drain_that_takes_too_long_ends_with_destroyed_sockets),
		cmocka_unit_test(a_drain_that_has_not_begun_can_be_called_off),
		cmocka_unit_test(store_time_passes_no_faster_than_its_fastest_witness),
		cmocka_unit_test(quarantine_ends_by_store_time_not_before),
		cmocka_unit_test(a_host_is_suspected_only_when_half_of_the_site_outlived_its_lease),
		cmocka_unit_test(
			who_lost_the_store_goes_on_only_with_most_of_a_site_that_lost_it_too),
		cmocka_unit_test(a_dispatcher_that_lags_reconnects_then_withdraws_then_deregisters),
		cmocka_unit_test(another_slice_is_asked_for_at_the_watermark),
		cmocka_unit_test(growth_is_limited_to_one_grant_a_second),
		cmocka_unit_test(
			when_a_pool_runs_short_the_poorest_then_the_longest_waiting_come_first),
		cmocka_unit_test(a_slice_long_idle_is_given_back_and_sooner_when_others_wish),
		cmocka_unit_test(only_addresses_that_are_here_to_stay_are_granted_and_others_drain),
		cmocka_unit_test(a_host_whose_record_was_taken_away_stops_and_joins_again),
		cmocka_unit_test(an_answer_that_does_not_come_changes_nothing),
		cmocka_unit_test(figures_that_would_break_the_protocol_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

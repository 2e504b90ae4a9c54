// SPDX-License-Identifier: MIT
/* What happens when the store comes back from a backup: another incarnation, less than was known. */
#include "lease-rig.h"

enum { RESTORED = 8 };

/* A host that holds a slice and knows that host 1 holds slot 11 in epoch 3. */
static void start(struct rig *rig)
{
	rig_start(rig, true);
	rig_host(rig, 1, rig_peer(rig));
	rig_slice(rig, 11, (struct ps_slice_record){1, 3, 1, PS_SLICE_ACTIVE});
	rig_settle(rig);
	rig_forget(rig);
}

/* The restored store knows the host itself, an older state of slot 11, and perhaps host 1. */
static void restore(struct rig *rig, bool knows_peer)
{
	struct ps_lease_event event = {.kind = PS_LEASE_RECORD, .revision = 3};
	struct ps_host_record self = rig->members[0].record, peer = rig_peer(rig);

	rig->revision = 0;
	rig_list(rig, RESTORED, false);
	event.record = (struct ps_lease_record){{PS_LEASE_HOST, 0}, {.host = self}};
	event.revision = ++rig->revision;
	rig_step(rig, &event);
	event.record = (struct ps_lease_record){{PS_LEASE_HOST, 1}, {.host = peer}};
	event.revision = ++rig->revision;
	if (knows_peer)
		rig_step(rig, &event);
	event.record =
		(struct ps_lease_record){{PS_LEASE_SLICE, 11}, {.slice = {1, 2, 4, PS_SLICE_FREE}}};
	event.revision = ++rig->revision;
	rig_step(rig, &event);
	rig_event(rig, PS_LEASE_PROGRESS, rig->revision);
}

static bool writes_slot(const struct ps_lease_txn *txn, uint32_t slot,
			const struct ps_slice_record *ret)
{
	for (size_t i = 0; i < txn->n_writes; i++)
		if (txn->writes[i].key.kind == PS_LEASE_SLICE && txn->writes[i].key.index == slot)
			return memcmp(&txn->writes[i].value.slice.epoch, &ret->epoch, 4) == 0 &&
			       txn->writes[i].value.slice.holder == ret->holder &&
			       txn->writes[i].value.slice.state == ret->state;
	return false;
}

static void higher_epochs_are_written_back_also_those_of_others(void **state)
{
	const struct ps_slice_record wanted = {0, 3, 1, PS_SLICE_ACTIVE};
	struct rig rig;
	uint32_t own;

	(void)state;
	start(&rig);
	own = rig.own[0].slot;
	restore(&rig, true);
	assert_asks(&rig, PS_TXN_REASSERT);
	assert_true(writes_slot(&rig.core.txn, 11, &wanted));
	assert_true(writes_slot(&rig.core.txn, own, &rig.slots[own].record));
	/* Meanwhile nothing changes for traffic. */
	assert_int_equal(ps_lease_owner(&rig.slots[11]), 1);
	assert_int_equal(rig.core.n_own, 1);
	assert_int_equal(rig.core.dispatch, PS_DISPATCH_ANNOUNCED);
}

static void a_host_that_the_backup_does_not_know_is_written_back_and_waited_for(void **state)
{
	struct rig rig;

	(void)state;
	start(&rig);
	restore(&rig, false);
	rig_settle(&rig);
	rig_pass(&rig, S);
	assert_true(rig.members[1].record.state == PS_HOST_ALIVE);
	assert_true(rig.members[1].revision > 0);
	assert_int_not_equal(rig.members[1].record.asserted, RESTORED);
	assert_false(ps_lease_is_settled(&rig.core));
}

static void nothing_is_granted_before_all_have_reasserted(void **state)
{
	struct ps_host_record peer;
	struct rig rig;

	(void)state;
	start(&rig);
	restore(&rig, true);
	rig_demand(&rig, 100, 100);
	for (int i = 0; i < 20; i++) {
		rig_settle(&rig);
		rig_pass(&rig, 500 * MS);
	}
	assert_int_equal(rig.core.n_own, 1);
	assert_int_equal(rig.members[0].record.asserted, RESTORED);
	peer = rig_peer(&rig);
	peer.asserted = RESTORED;
	rig_host(&rig, 1, peer);
	for (int i = 0; i < 20; i++) {
		rig_settle(&rig);
		rig_pass(&rig, 500 * MS);
	}
	assert_true(ps_lease_is_settled(&rig.core));
	assert_int_equal(rig.core.n_own, 4); /* as many as one host may hold */
}

static void after_a_whole_ownership_lease_grants_go_on_without_the_missing(void **state)
{
	struct rig rig;

	(void)state;
	start(&rig);
	restore(&rig, true);
	rig_settle(&rig);
	rig_clock(&rig, 1000 + (3600 + 120) * 1000);
	rig_pass(&rig, 200 * MS);
	rig_settle(&rig);
	assert_false(ps_lease_is_settled(&rig.core));
	rig_clock(&rig, rig.core.clock_ms + 3000);
	rig_pass(&rig, 200 * MS);
	rig_settle(&rig);
	assert_true(ps_lease_is_settled(&rig.core));
}

static void who_comes_late_to_a_settled_store_forgets_and_reads_again(void **state)
{
	const union ps_lease_value birth = {.birth = {RESTORED, 0, true}};
	struct rig rig;

	(void)state;
	start(&rig);
	restore(&rig, true);
	rig.core.is_busy = false;
	rig_give(&rig, PS_LEASE_BIRTH, 0, birth);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_RECONNECT], 1);
	assert_int_equal(rig.slots[11].record.epoch, 0);
	rig_pass(&rig, MS);
	assert_int_equal(rig.core.n_own, 0);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_WITHDRAW], 1);
}

static void a_new_agent_does_not_believe_a_restored_store_about_its_own_slices(void **state)
{
	struct ps_lease_event event = {.kind = PS_LEASE_RECORD};
	struct rig rig;

	(void)state;
	rig_init(&rig, true);
	rig_list(&rig, RESTORED, false);
	event.record = (struct ps_lease_record){{PS_LEASE_SLICE, 2},
						{.slice = {1, 2, 0, PS_SLICE_ACTIVE}}};
	event.revision = ++rig.revision;
	rig_step(&rig, &event);
	event.record = (struct ps_lease_record){{PS_LEASE_HOST, 1}, {.host = rig_peer(&rig)}};
	event.revision = ++rig.revision;
	rig_step(&rig, &event);
	rig_event(&rig, PS_LEASE_PROGRESS, rig.revision);
	for (int i = 0; i < 10; i++) {
		rig_settle(&rig);
		rig_pass(&rig, 500 * MS);
	}
	assert_true(rig.core.is_joined);
	assert_int_equal(rig.core.n_own, 0);
	assert_int_equal(rig.n_seen[PS_LEASE_DO_ANNOUNCE], 0);
}

static void what_the_hooks_still_use_is_remembered_by_a_new_agent(void **state)
{
	const struct ps_slice_record wanted = {0, 5, 0, PS_SLICE_ACTIVE};
	const struct ps_lease_event left = {.kind = PS_LEASE_LEFT, .index = 2, .id = 5};
	struct rig rig;

	(void)state;
	rig_init(&rig, true);
	rig_step(&rig, &left);
	rig_list(&rig, RESTORED, false); /* the backup is older than the lease */
	rig_event(&rig, PS_LEASE_PROGRESS, rig.revision);
	assert_asks(&rig, PS_TXN_REASSERT);
	assert_true(writes_slot(&rig.core.txn, 2, &wanted));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(higher_epochs_are_written_back_also_those_of_others),
		cmocka_unit_test(
			a_host_that_the_backup_does_not_know_is_written_back_and_waited_for),
		cmocka_unit_test(nothing_is_granted_before_all_have_reasserted),
		cmocka_unit_test(after_a_whole_ownership_lease_grants_go_on_without_the_missing),
		cmocka_unit_test(who_comes_late_to_a_settled_store_forgets_and_reads_again),
		cmocka_unit_test(
			a_new_agent_does_not_believe_a_restored_store_about_its_own_slices),
		cmocka_unit_test(what_the_hooks_still_use_is_remembered_by_a_new_agent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* The journal against the kernel of a network namespace of our own; skipped where we may not make one. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/undo.h"
#include "base/own.h"
#include "cm.h"

static const char arp_ignore[] = "net/ipv4/conf/lo/arp_ignore";

struct place {
	char folder[32], journal[64];
	struct ps_net *net;
	struct ps_undo *undo;
};

static int setup(void **state)
{
	struct place *place = calloc(1, sizeof(*place));

	*state = place;
	strcpy(place->folder, "/tmp/undo-XXXXXX");
	if (!mkdtemp(place->folder))
		return -1;
	sprintf(place->journal, "%s/undo.json", place->folder);
	return ps_undo_open(place->journal, &place->undo) < 0 || ps_net_open(&place->net) < 0;
}

static int teardown(void **state)
{
	struct place *place = *state;

	ps_undo_free(&place->undo);
	ps_net_close(&place->net);
	(void)unlink(place->journal);
	(void)rmdir(place->folder);
	free(place);
	return 0;
}

/* As an agent that was killed and started anew. */
static void open_again(struct place *place)
{
	ps_undo_free(&place->undo);
	assert_int_equal(ps_undo_open(place->journal, &place->undo), 0);
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static char read_sysctl(void)
{
	char path[128];
	FILE *file;
	int c;

	sprintf(path, "/proc/sys/%s", arp_ignore);
	file = fopen(path, "re");
	assert_non_null(file);
	c = fgetc(file);
	fclose(file);
	return (char)c;
}

static unsigned unguarded, qdiscs_removed;

static int unguard(unsigned ifindex, bool remove_qdisc)
{
	assert_int_equal(ifindex, 1);
	unguarded += !remove_qdisc;
	qdiscs_removed += remove_qdisc;
	return 0;
}

static int undo_all(struct place *place)
{
	unguarded = qdiscs_removed = 0;
	return ps_undo_all(place->undo, place->net, unguard);
}

static size_t count_routes(struct place *place)
{
	ps_auto_mem struct ps_ip *routes = NULL;
	size_t n;

	assert_int_equal(ps_net_local_routes(place->net, &routes, &n), 0);
	return n;
}

static void the_first_value_of_a_sysctl_is_restored_even_by_another_process(void **state)
{
	struct place *place = *state;

	assert_int_equal(ps_undo_sysctl(place->undo, arp_ignore, "1"), 1);
	assert_int_equal(ps_undo_sysctl(place->undo, arp_ignore, "1"), 0);
	assert_int_equal(ps_undo_sysctl(place->undo, arp_ignore, "2"), 1);
	open_again(place);
	assert_int_equal(read_sysctl(), '2');
	assert_int_equal(undo_all(place), 0);
	assert_int_equal(read_sysctl(), '0');
	assert_false(exists(place->journal));
}

static void what_is_changed_after_undoing_begins_a_new_journal(void **state)
{
	struct place *place = *state;

	assert_int_equal(ps_undo_sysctl(place->undo, arp_ignore, "1"), 1);
	assert_int_equal(undo_all(place), 0);
	assert_int_equal(system("sysctl -qw net.ipv4.conf.lo.arp_ignore=2"), 0); /* by others */
	assert_int_equal(ps_undo_sysctl(place->undo, arp_ignore, "1"), 1);
	assert_int_equal(undo_all(place), 0);
	assert_int_equal(read_sysctl(), '2');
	assert_int_equal(system("sysctl -qw net.ipv4.conf.lo.arp_ignore=0"), 0);
}

static struct ps_ip ip(const char *text)
{
	struct ps_ip ip;

	assert_int_equal(ps_ip_parse(text, &ip), 0);
	return ip;
}

static void routes_are_made_exactly_the_set_and_counted(void **state)
{
	struct place *place = *state;
	struct ps_ip first[] = {ip("198.51.100.2"), ip("2001:db8:1::1"), ip("198.51.100.1")},
		     second[] = {ip("198.51.100.1"), ip("2001:db8:1::1"), ip("2001:db8:1::")};

	assert_int_equal(ps_undo_routes(place->undo, place->net, first, 3), 3);
	assert_int_equal(ps_undo_routes(place->undo, place->net, first, 3), 0);
	assert_int_equal(ps_undo_routes(place->undo, place->net, second, 3), 1);
	assert_int_equal(count_routes(place), 3);
	for (size_t i = 0; i < PS_N_ELEMENTS(second); i++) {
		assert_int_equal(ps_net_local_route(place->net, &second[i], false), 0);
		assert_int_equal(ps_undo_routes(place->undo, place->net, second, 3), 1);
	}
	open_again(place);
	assert_int_equal(undo_all(place), 0);
	assert_int_equal(count_routes(place), 0);
}

static void a_qdisc_is_removed_only_where_it_was_ours(void **state)
{
	struct place *place = *state;

	assert_int_equal(ps_undo_guard(place->undo, "lo", false), 0);
	assert_int_equal(ps_undo_guard(place->undo, "gone0", true), 0);
	assert_int_equal(undo_all(place), 0);
	assert_int_equal(unguarded, 1);
	assert_int_equal(qdiscs_removed, 0);
	assert_int_equal(ps_undo_guard(place->undo, "lo", true), 0);
	assert_int_equal(ps_undo_guard(place->undo, "lo", false), 0); /* ours, found again */
	assert_int_equal(undo_all(place), 0);
	assert_int_equal(qdiscs_removed, 1);
}

static void folders_go_children_first_and_those_of_others_stay(void **state)
{
	struct place *place = *state;
	char child[96], parent[64];

	sprintf(parent, "%s/a", place->folder);
	sprintf(child, "%s/b/c", parent);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(ps_undo_mkdir(place->undo, child), 0);
		assert_int_equal(rmdir(child), 0); /* by others; and made anew */
		assert_int_equal(ps_undo_mkdir(place->undo, child), 0);
		assert_true(exists(child));
		assert_int_equal(undo_all(place), 0);
		assert_false(exists(parent));
	}
	assert_int_equal(mkdir(parent, 0755), 0);
	assert_int_equal(ps_undo_mkdir(place->undo, parent), 0);
	assert_int_equal(undo_all(place), 0);
	assert_int_equal(rmdir(parent), 0);
}

static void a_damaged_journal_is_refused_and_left_alone(void **state)
{
	static const char *const texts[] = {"", "[]", "{\"sysctl\"", "nonsense"};
	struct place *place = *state;

	for (size_t i = 0; i < PS_N_ELEMENTS(texts); i++) {
		struct ps_undo *undo = NULL;
		FILE *file = fopen(place->journal, "we");

		fputs(texts[i], file);
		fclose(file);
		assert_int_equal(ps_undo_open(place->journal, &undo), -EBADMSG);
		assert_null(undo);
		assert_true(exists(place->journal));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			the_first_value_of_a_sysctl_is_restored_even_by_another_process, setup,
			teardown),
		cmocka_unit_test_setup_teardown(what_is_changed_after_undoing_begins_a_new_journal,
						setup, teardown),
		cmocka_unit_test_setup_teardown(routes_are_made_exactly_the_set_and_counted, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_qdisc_is_removed_only_where_it_was_ours, setup,
						teardown),
		cmocka_unit_test_setup_teardown(folders_go_children_first_and_those_of_others_stay,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_damaged_journal_is_refused_and_left_alone, setup,
						teardown),
	};

	if (unshare(CLONE_NEWNET) < 0 || system("ip link set lo up") != 0) {
		puts("skipped: needs a network namespace of its own");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

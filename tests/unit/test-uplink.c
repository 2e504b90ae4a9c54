// SPDX-License-Identifier: MIT
/*
 * What is said about uplinks.  The kernel here may have no bonds, so messages about them are made as
 * rtnetlink sends them (rtnetlink(7); drivers/net/bonding fills IFLA_LINKINFO with
 * IFLA_INFO_KIND of the master and IFLA_INFO_SLAVE_KIND of its ports).
 */
#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>

#include <libmnl/libmnl.h>

#include "agent/uplink.h"
#include "base/own.h"
#include "cm.h"

struct message {
	unsigned ifindex;
	const char *name, *kind, *slave_kind;
	unsigned master;
};

/* eth0 alone; bond0 of eth1 and eth2; team0 of eth3, whose port says nothing; a bridge of eth4. */
static const struct message messages[] = {
	{1, "lo", NULL, NULL, 0},       {2, "eth0", NULL, NULL, 0},
	{3, "eth1", NULL, "bond", 10},  {4, "eth2", NULL, "bond", 10},
	{5, "eth3", NULL, NULL, 11},    {6, "eth4", "veth", "bridge", 12},
	{7, "eth5.9", "vlan", NULL, 0}, {10, "bond0", "bond", NULL, 0},
	{11, "team0", "team", NULL, 0}, {12, "br0", "bridge", NULL, 0},
};

enum { N_LINKS = PS_N_ELEMENTS(messages) };

static struct ps_net_link read_message(const struct message *m)
{
	char buffer[1024] __attribute__((aligned(8)));
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	struct ifinfomsg *info;
	struct ps_net_link link;
	struct nlattr *nest;

	header->nlmsg_type = RTM_NEWLINK;
	info = mnl_nlmsg_put_extra_header(header, sizeof(*info));
	info->ifi_index = (int)m->ifindex;
	info->ifi_flags = strcmp(m->name, "lo") == 0 ? IFF_LOOPBACK : 0;
	mnl_attr_put_strz(header, IFLA_IFNAME, m->name);
	mnl_attr_put(header, IFLA_ADDRESS, 6, "\2\0\0\0\0\1");
	if (m->master)
		mnl_attr_put_u32(header, IFLA_MASTER, m->master);
	nest = mnl_attr_nest_start(header, IFLA_LINKINFO);
	if (m->kind)
		mnl_attr_put_strz(header, IFLA_INFO_KIND, m->kind);
	if (m->slave_kind)
		mnl_attr_put_strz(header, IFLA_INFO_SLAVE_KIND, m->slave_kind);
	mnl_attr_nest_end(header, nest);
	ps_net_read_link(header, &link);
	return link;
}

static struct ps_uplink_facts facts_of(const char *ifname)
{
	struct ps_net_link links[N_LINKS];
	struct ps_uplink_facts facts;

	for (unsigned i = 0; i < N_LINKS; i++)
		links[i] = read_message(&messages[i]);
	ps_uplink_find(links, N_LINKS, ifname, &facts);
	return facts;
}

static const char *note_of(const char *ifname, bool lro, enum ps_dispatch_mode mode)
{
	static char note[PS_UPLINK_NOTE_MAX];
	struct ps_uplink_facts facts = facts_of(ifname);

	facts.lro = lro;
	return ps_uplink_note(ifname, &facts, mode, note);
}

static void a_link_message_tells_kind_master_and_kind_of_the_master(void **state)
{
	static const struct {
		const char *name, *kind, *master, *master_kind;
	} rows[] = {{"eth0", "", "", ""},          {"eth1", "", "bond0", "bond"},
		    {"eth3", "", "team0", "team"}, {"eth4", "veth", "br0", "bridge"},
		    {"eth5.9", "vlan", "", ""},    {"bond0", "bond", "", ""}};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		struct ps_uplink_facts facts = facts_of(rows[i].name);

		assert_true(facts.present);
		assert_string_equal(facts.kind, rows[i].kind);
		assert_string_equal(facts.master, rows[i].master);
		assert_string_equal(facts.master_kind, rows[i].master_kind);
	}
	assert_false(facts_of("eth9").present);
}

static void a_kind_that_is_too_long_is_cut(void **state)
{
	const struct message wide = {2, "eth0", "a_kind_of_more_than_sixteen_bytes", NULL, 0};
	struct ps_net_link link = read_message(&wide);

	(void)state;
	assert_int_equal(strlen(link.kind), PS_NET_KIND_MAX - 1);
}

static void a_port_of_a_bond_or_team_is_told_to_name_the_master(void **state)
{
	(void)state;
	assert_non_null(strstr(note_of("eth2", false, PS_MODE_NATIVE), "name bond0 as uplink"));
	assert_non_null(strstr(note_of("eth3", false, PS_MODE_NATIVE), "name team0 as uplink"));
}

static void a_bond_itself_a_port_of_a_bridge_and_a_plain_card_are_well(void **state)
{
	(void)state;
	assert_string_equal(note_of("bond0", false, PS_MODE_NATIVE), "");
	assert_string_equal(note_of("eth4", false, PS_MODE_NATIVE), "");
	assert_string_equal(note_of("eth0", false, PS_MODE_NATIVE), "");
}

static void lro_and_generic_mode_are_said_with_the_remedy(void **state)
{
	(void)state;
	assert_non_null(strstr(note_of("eth0", true, PS_MODE_NATIVE), "ethtool -K eth0 lro off"));
	assert_non_null(
		strstr(note_of("eth0", false, PS_MODE_GENERIC), "its driver has no native"));
	assert_non_null(strstr(note_of("eth5.9", false, PS_MODE_GENERIC), "vlan has no native"));
	assert_non_null(strstr(note_of("eth9", false, PS_MODE_NATIVE), "no such interface"));
}

static void loopback_has_no_lro_and_neither_has_what_is_not_there(void **state)
{
	bool lro = true;

	(void)state;
	assert_int_equal(ps_uplink_lro("lo", &lro), 0);
	assert_false(lro);
	lro = true;
	assert_int_equal(ps_uplink_lro("eth9nowhere", &lro), 0);
	assert_false(lro);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_link_message_tells_kind_master_and_kind_of_the_master),
		cmocka_unit_test(a_kind_that_is_too_long_is_cut),
		cmocka_unit_test(a_port_of_a_bond_or_team_is_told_to_name_the_master),
		cmocka_unit_test(a_bond_itself_a_port_of_a_bridge_and_a_plain_card_are_well),
		cmocka_unit_test(lro_and_generic_mode_are_said_with_the_remedy),
		cmocka_unit_test(loopback_has_no_lro_and_neither_has_what_is_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

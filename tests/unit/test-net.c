// SPDX-License-Identifier: MIT
/* Routes and neighbours of a network namespace of our own; skipped where we may not make one. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "agent/net.h"
#include "base/own.h"
#include "cm.h"

static const char script[] =
	"set -e\n"
	"ip link set lo up\n"
	"ip link add near type veth peer name far\n"
	"ip link set near addrgenmode none up && ip link set far addrgenmode none up\n"
	"sysctl -qw net.ipv6.conf.near.accept_dad=0\n"
	"ip addr add 192.0.2.1/24 dev near\n"
	"ip addr add 2001:db8::1/64 dev near nodad\n"
	"ip addr add fe80::1/64 dev near nodad\n"
	"ip route add 198.51.100.0/24 via 192.0.2.9\n"
	"ip route add 203.0.113.0/24 via inet6 fe80::9 dev near\n"
	"ip -6 route add 2001:db8:1::/48 via 2001:db8::9\n"
	"ip -6 route add 2001:db8:2::/48 via fe80::9 dev near\n"
	"ip -6 route add blackhole 2001:db8:3::/48\n"
	"ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:04 dev near nud permanent\n"
	"ip neigh add 2001:db8::9 lladdr 02:00:00:00:00:06 dev near nud noarp\n"
	"ip neigh add fe80::9 lladdr 02:00:00:00:00:09 dev near nud stale\n";

static struct ps_net *net;
static unsigned near;

static struct ps_ip ip(const char *text)
{
	struct ps_ip ip;

	assert_int_equal(ps_ip_parse(text, &ip), 0);
	return ip;
}

static void the_next_hop_is_the_gateway_or_the_destination_itself(void **state)
{
	static const struct {
		const char *dst, *next;
	} rows[] = {
		{"192.0.2.77", "192.0.2.77"},     {"198.51.100.5", "192.0.2.9"},
		{"203.0.113.5", "fe80::9"},       {"2001:db8::77", "2001:db8::77"},
		{"2001:db8:1::5", "2001:db8::9"}, {"2001:db8:2::5", "fe80::9"},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		struct ps_ip dst = ip(rows[i].dst), next = ip(rows[i].next);

		for (unsigned oif = 0; oif <= near; oif += near) {
			struct ps_net_route route = {0};

			assert_int_equal(ps_net_route(net, &dst, oif, &route), 0);
			assert_int_equal(route.ifindex, near);
			assert_int_equal(ps_ip_cmp(&route.next, &next), 0);
		}
	}
}

static void without_a_route_there_is_no_next_hop(void **state)
{
	static const char *const rows[] = {"10.9.9.9", "2001:db8:3::1", "2001:db8:4::1", "::1"};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		struct ps_net_route route = {.ifindex = 77};
		struct ps_ip dst = ip(rows[i]);

		assert_true(ps_net_route(net, &dst, 0, &route) < 0);
		assert_int_equal(route.ifindex, 77);
	}
}

static void a_neighbour_of_either_family_has_its_address_and_may_be_stale(void **state)
{
	static const struct {
		const char *ip;
		int r;
		uint8_t last;
	} rows[] = {
		{"192.0.2.9", 0, 4},        {"2001:db8::9", 0, 6},        {"fe80::9", 1, 9},
		{"192.0.2.10", -ENOENT, 0}, {"2001:db8::10", -ENOENT, 0},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		struct ps_ip neighbour = ip(rows[i].ip);
		uint8_t mac[6] = {0};

		assert_int_equal(ps_net_neighbour(net, near, &neighbour, mac), rows[i].r);
		assert_int_equal(mac[5], rows[i].last);
	}
}

/* Sent and not answered yet: the kernel's entry is there without an address. */
static bool is_asked_for(const char *text)
{
	ps_auto_mem char *command = NULL;

	assert_true(asprintf(&command,
			     "ip neigh show to %s dev near | grep -q -e INCOMPLETE -e PROBE"
			     " -e DELAY -e FAILED",
			     text) > 0);
	return system(command) == 0;
}

static void the_kernel_asks_for_a_neighbour_when_told_to(void **state)
{
	static const char *const rows[] = {"192.0.2.20", "2001:db8::20", "fe80::20", "fe80::9"};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		struct ps_ip neighbour = ip(rows[i]);

		assert_false(is_asked_for(rows[i]));
		assert_int_equal(ps_net_solicit(net, near, &neighbour), 0);
		assert_true(is_asked_for(rows[i]));
	}
}

static void local_routes_of_both_families_are_told_apart_from_those_of_others(void **state)
{
	const struct ps_ip mine[] = {ip("198.51.100.1"), ip("2001:db8:1::1")};
	ps_auto_mem struct ps_ip *found = NULL;
	size_t n;

	(void)state;
	assert_int_equal(system("ip route add local 198.51.100.9 dev lo && "
				"ip -6 route add local 2001:db8:1::9 dev lo"),
			 0);
	for (int twice = 0; twice < 2; twice++)
		for (size_t i = 0; i < PS_N_ELEMENTS(mine); i++)
			assert_int_equal(ps_net_local_route(net, &mine[i], true), 0);
	assert_int_equal(ps_net_local_routes(net, &found, &n), 0);
	assert_int_equal(n, 2);
	assert_memory_equal(found, mine, sizeof(mine));
	for (int twice = 0; twice < 2; twice++)
		for (size_t i = 0; i < PS_N_ELEMENTS(mine); i++)
			assert_int_equal(ps_net_local_route(net, &mine[i], false), 0);
	free(found);
	assert_int_equal(ps_net_local_routes(net, &found, &n), 0);
	assert_int_equal(n, 0);
}

static void changes_of_either_family_wake_the_monitor(void **state)
{
	static const char *const changes[] = {
		"ip route add 10.1.0.0/16 via 192.0.2.9",
		"ip -6 route add 2001:db8:5::/48 via 2001:db8::9",
		"ip neigh replace 192.0.2.30 lladdr 02:00:00:00:00:30 dev near",
		"ip neigh replace 2001:db8::30 lladdr 02:00:00:00:00:30 dev near",
		"ip link set near mtu 1400",
	};

	(void)state;
	ps_net_monitor_drain(net);
	for (size_t i = 0; i < PS_N_ELEMENTS(changes); i++) {
		assert_false(ps_net_monitor_drain(net));
		assert_int_equal(system(changes[i]), 0);
		assert_true(ps_net_monitor_drain(net));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_next_hop_is_the_gateway_or_the_destination_itself),
		cmocka_unit_test(without_a_route_there_is_no_next_hop),
		cmocka_unit_test(a_neighbour_of_either_family_has_its_address_and_may_be_stale),
		cmocka_unit_test(changes_of_either_family_wake_the_monitor),
		cmocka_unit_test(the_kernel_asks_for_a_neighbour_when_told_to),
		cmocka_unit_test(local_routes_of_both_families_are_told_apart_from_those_of_others),
	};

	if (unshare(CLONE_NEWNET) < 0 || system(script) != 0 || ps_net_open(&net) < 0) {
		puts("skipped: needs a network namespace of its own");
		return 77;
	}
	near = if_nametoindex("near");
	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* The guard's programs run on packets of ours (BPF_PROG_TEST_RUN), and stand on a real interface. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/own.h"
#include "cm.h"
#include "egress-lab.h"
#include "egress/inside.h"

enum { SERVICE_PORT = 25565, PACKET_MAX = 128 };

static struct lab lab;
static struct ps_egress *egress;
static struct ps_egress_slice slices[2];
static struct ps_prefix shared[2];
static const unsigned shared_shift[] = {LAB_SHIFT, PS_SHIFT_WHOLE};
static struct ps_claim_key service;
static struct ps_egress_config config;

static int load_generation(bool observe)
{
	const struct ps_egress_options options = {.pin_dir = lab.pins, .observe = observe};
	ps_auto_mem char *message = NULL;
	int r;

	ps_egress_free(&egress);
	r = ps_egress_load(&config, &options, &egress, &message);
	if (r < 0)
		printf("load: %d %s\n", r, message ? message : "");
	return r;
}

static int set_up(void **state)
{
	(void)state;
	slices[0] = (struct ps_egress_slice){
		inet_addr("198.51.100.1"), {LAB_FIRST_PORT, LAB_PORTS}, LAB_SHIFT};
	slices[1] = (struct ps_egress_slice){
		inet_addr("203.0.113.1"), {1024, 65536 - 1024}, PS_SHIFT_WHOLE};
	service = (struct ps_claim_key){.src = inet_addr("198.51.100.1"),
					.sport = htons(SERVICE_PORT),
					.protocol = IPPROTO_TCP};
	if (ps_prefix_parse("198.51.100.0/24", &shared[0]) < 0 ||
	    ps_prefix_parse("203.0.113.0/24", &shared[1]) < 0)
		return -1;
	config = (struct ps_egress_config){.slices = slices,
					   .n_slices = 2,
					   .shared = shared,
					   .shared_shift = shared_shift,
					   .n_shared = 2,
					   .services = &service,
					   .n_services = 1};
	return load_generation(false);
}

static int tear_down(void **state)
{
	(void)state;
	ps_egress_free(&egress);
	return ps_egress_detach_all(lab.pins);
}

static uint64_t counter(int reason)
{
	uint64_t counters[PS_EGRESS_MAX];

	assert_int_equal(ps_egress_counters(lab.pins, counters), 0);
	return counters[reason];
}

/* What a packet shall be; zeros are the usual. */
struct packet {
	const char *src, *dst;
	uint8_t protocol;
	uint16_t sport, dport;
	uint16_t fragment, id; /* host order */
	unsigned n_tags;       /* VLAN */
	uint8_t icmp_type;
	uint8_t quoted; /* protocol within an ICMP error */
	unsigned cut;   /* bytes missing at the end */
};

static size_t put16(uint8_t *at, uint16_t value)
{
	value = htons(value);
	memcpy(at, &value, sizeof(value));
	return sizeof(value);
}

static size_t put_ip4(uint8_t *at, const char *src, const char *dst, uint8_t protocol)
{
	struct iphdr ip = {.version = 4,
			   .ihl = 5,
			   .ttl = 64,
			   .protocol = protocol,
			   .tot_len = htons(60),
			   .saddr = inet_addr(src),
			   .daddr = inet_addr(dst)};

	memcpy(at, &ip, sizeof(ip));
	return sizeof(ip);
}

static size_t put_icmp(uint8_t *at, const struct packet *p)
{
	size_t n = 8;

	memset(at, 0, n);
	at[0] = p->icmp_type;
	put16(at + 4, p->sport);
	if (!p->quoted)
		return n;
	/* We quote what came to us: its destination port is ours. */
	n += put_ip4(at + n, "192.0.2.7", p->src, p->quoted);
	if (p->quoted == IPPROTO_ICMP) {
		memset(at + n, 0, 8);
		put16(at + n + 4, p->sport);
		return n + 8;
	}
	n += put16(at + n, p->dport);
	n += put16(at + n, p->sport);
	return n + 4;
}

static size_t build(const struct packet *p, uint8_t ret[PACKET_MAX], bool ethernet)
{
	size_t n = 0, ip;

	memset(ret, 0, PACKET_MAX);
	if (ethernet) {
		n = 2 * ETH_ALEN;
		for (unsigned i = 0; i < p->n_tags; i++) {
			n += put16(ret + n, ETH_P_8021Q);
			n += put16(ret + n, 100);
		}
		n += put16(ret + n, ETH_P_IP);
	}
	ip = n;
	n += put_ip4(ret + n, p->src, p->dst ? p->dst : "192.0.2.7", p->protocol);
	put16(ret + ip + 4, p->id);
	put16(ret + ip + 6, p->fragment);
	if (p->protocol == IPPROTO_ICMP)
		return n + put_icmp(ret + n, p) - p->cut;
	n += put16(ret + n, p->sport);
	n += put16(ret + n, p->dport ? p->dport : 443);
	return n + 16 - p->cut;
}

static int run(const struct bpf_program *program, const struct packet *p, bool ethernet)
{
	uint8_t room[PACKET_MAX];
	size_t len = build(p, room, ethernet);
	ps_auto_mem uint8_t *exact = malloc(len);
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = exact, .data_size_in = (uint32_t)len,
		    .repeat = 1);

	assert_non_null(exact);
	memcpy(exact, room, len);
	assert_int_equal(bpf_prog_test_run_opts(bpf_program__fd(program), &opts), 0);
	return (int)opts.retval;
}

static const struct row {
	const char *fact;
	struct packet packet;
	int drop; /* reason, or -1: passes */
} rows[] = {
	{"other sources pass", {.src = "10.77.0.1", .protocol = 6, .sport = 5}, -1},
	{"other sources pass with any protocol", {.src = "10.77.0.1", .protocol = 47}, -1},
	{"our first port", {.src = "198.51.100.1", .protocol = 6, .sport = 4096}, -1},
	{"our last port", {.src = "198.51.100.1", .protocol = 17, .sport = 4223}, -1},
	{"port below our slice",
	 {.src = "198.51.100.1", .protocol = 6, .sport = 4095},
	 PS_EGRESS_GUARD_PORT},
	{"port above our slice",
	 {.src = "198.51.100.1", .protocol = 17, .sport = 4224},
	 PS_EGRESS_GUARD_PORT},
	{"our port at another's address",
	 {.src = "198.51.100.2", .protocol = 6, .sport = 4096},
	 PS_EGRESS_GUARD_PORT},
	{"a service", {.src = "198.51.100.1", .protocol = 6, .sport = SERVICE_PORT}, -1},
	{"a service's port of another protocol",
	 {.src = "198.51.100.1", .protocol = 17, .sport = SERVICE_PORT},
	 PS_EGRESS_GUARD_PORT},
	{"whole address, first port", {.src = "203.0.113.1", .protocol = 6, .sport = 1024}, -1},
	{"whole address, last port", {.src = "203.0.113.1", .protocol = 6, .sport = 65535}, -1},
	{"whole address, port below 1024",
	 {.src = "203.0.113.1", .protocol = 6, .sport = 1023},
	 PS_EGRESS_GUARD_PORT},
	{"one VLAN tag",
	 {.src = "198.51.100.1", .protocol = 6, .sport = 1, .n_tags = 1},
	 PS_EGRESS_GUARD_PORT},
	{"two VLAN tags",
	 {.src = "198.51.100.1", .protocol = 6, .sport = 1, .n_tags = 2},
	 PS_EGRESS_GUARD_PORT},
	{"two VLAN tags, our port",
	 {.src = "198.51.100.1", .protocol = 6, .sport = 4100, .n_tags = 2},
	 -1},
	{"echo request with our identifier",
	 {.src = "198.51.100.1", .protocol = 1, .icmp_type = 8, .sport = 4100},
	 -1},
	{"echo request with another identifier",
	 {.src = "198.51.100.1", .protocol = 1, .icmp_type = 8, .sport = 9},
	 PS_EGRESS_GUARD_PORT},
	{"echo reply with another identifier",
	 {.src = "198.51.100.1", .protocol = 1, .icmp_type = 0, .sport = 9},
	 PS_EGRESS_GUARD_PORT},
	{"error about a packet to our port",
	 {.src = "198.51.100.1", .protocol = 1, .icmp_type = 3, .quoted = 17, .sport = 4100},
	 -1},
	{"error about a packet to another's port",
	 {.src = "198.51.100.1", .protocol = 1, .icmp_type = 3, .quoted = 6, .sport = 4095},
	 PS_EGRESS_GUARD_PORT},
	{"error about an echo reply to us",
	 {.src = "198.51.100.1", .protocol = 1, .icmp_type = 11, .quoted = 1, .sport = 4100},
	 -1},
	{"error about a protocol without ports",
	 {.src = "198.51.100.1", .protocol = 1, .icmp_type = 3, .quoted = 47, .sport = 4100},
	 PS_EGRESS_GUARD_PROTOCOL},
	{"error cut within the quoted packet",
	 {.src = "198.51.100.1",
	  .protocol = 1,
	  .icmp_type = 3,
	  .quoted = 17,
	  .sport = 4100,
	  .cut = 6},
	 PS_EGRESS_GUARD_PROTOCOL},
	{"ICMP redirect",
	 {.src = "198.51.100.1", .protocol = 1, .icmp_type = 5, .sport = 4100},
	 PS_EGRESS_GUARD_PROTOCOL},
	{"GRE", {.src = "198.51.100.1", .protocol = 47}, PS_EGRESS_GUARD_PROTOCOL},
	{"SCTP", {.src = "198.51.100.1", .protocol = 132, .sport = 4100}, PS_EGRESS_GUARD_PROTOCOL},
	{"TCP cut before its ports",
	 {.src = "198.51.100.1", .protocol = 6, .sport = 4100, .cut = 18},
	 PS_EGRESS_GUARD_PROTOCOL},
	{"follower of an unknown first fragment",
	 {.src = "198.51.100.1", .protocol = 17, .id = 1, .fragment = 100},
	 PS_EGRESS_GUARD_FRAGMENT},
	{"first fragment from another's port",
	 {.src = "198.51.100.1", .protocol = 17, .sport = 9, .id = 2, .fragment = 0x2000},
	 PS_EGRESS_GUARD_PORT},
	{"its follower",
	 {.src = "198.51.100.1", .protocol = 17, .id = 2, .fragment = 100},
	 PS_EGRESS_GUARD_FRAGMENT},
	{"first fragment from our port",
	 {.src = "198.51.100.1", .protocol = 17, .sport = 4100, .id = 3, .fragment = 0x2000},
	 -1},
	{"its follower", {.src = "198.51.100.1", .protocol = 17, .id = 3, .fragment = 100}, -1},
	{"a follower to somebody else",
	 {.src = "198.51.100.1", .dst = "192.0.2.8", .protocol = 17, .id = 3, .fragment = 100},
	 PS_EGRESS_GUARD_FRAGMENT},
};

static void check_rows(const struct bpf_program *program, bool ethernet)
{
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		const struct row *row = &rows[i];
		uint64_t before = row->drop < 0 ? 0 : counter(row->drop);
		int verdict = run(program, &row->packet, ethernet);

		if (verdict != (row->drop < 0 ? TC_ACT_UNSPEC : TC_ACT_SHOT))
			fail_msg("%s: verdict %d", row->fact, verdict);
		if (row->drop >= 0 && counter(row->drop) != before + 1)
			fail_msg("%s: not counted", row->fact);
	}
}

static void only_our_ports_leave_with_a_shared_address(void **state)
{
	(void)state;
	check_rows(egress->guard->progs.ps_guard_out, true);
}

static void the_same_holds_without_an_ethernet_header(void **state)
{
	const struct packet wrong = {.src = "198.51.100.1", .protocol = 6, .sport = 1};
	const struct packet ours = {.src = "198.51.100.1", .protocol = 6, .sport = 4096};

	(void)state;
	assert_int_equal(run(egress->guard->progs.ps_guard_out_ip, &wrong, false), TC_ACT_SHOT);
	assert_int_equal(run(egress->guard->progs.ps_guard_out_ip, &ours, false), TC_ACT_UNSPEC);
}

static void other_ethertypes_are_not_touched(void **state)
{
	uint8_t frame[64] = {[12] = 0x86, [13] = 0xdd};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = sizeof(frame),
		    .repeat = 1);

	(void)state;
	put_ip4(frame + 14, "198.51.100.1", "192.0.2.7", IPPROTO_TCP);
	assert_int_equal(
		bpf_prog_test_run_opts(bpf_program__fd(egress->guard->progs.ps_guard_out), &opts),
		0);
	assert_int_equal((int)opts.retval, TC_ACT_UNSPEC);
}

static void nothing_for_a_shared_address_comes_in_beside_the_uplinks(void **state)
{
	const struct packet in = {.src = "192.0.2.7", .dst = "198.51.100.1", .protocol = 6};
	const struct packet other = {.src = "192.0.2.7", .dst = "10.77.0.1", .protocol = 6};
	const struct bpf_program *program = egress->guard->progs.ps_guard_in;

	(void)state;
	assert_int_equal(run(program, &in, true), TC_ACT_SHOT);
	assert_int_equal(run(program, &other, true), TC_ACT_UNSPEC);
	assert_int_equal(counter(PS_EGRESS_GUARD_INGRESS), 1);
}

static void note_event(const struct ps_egress_event *event, void *arg)
{
	*(struct ps_egress_event *)arg = *event;
}

static void a_drop_tells_the_packet(void **state)
{
	const struct packet wrong = {.src = "198.51.100.1", .protocol = 6, .sport = 9};
	struct ps_egress_event event = {0};

	(void)state;
	run(egress->guard->progs.ps_guard_out, &wrong, true);
	run(egress->guard->progs.ps_guard_out, &wrong, true);
	assert_int_equal(ps_egress_events_read(egress, note_event, &event), 1);
	assert_int_equal(event.reason, PS_EGRESS_GUARD_PORT);
	assert_int_equal(event.src, inet_addr("198.51.100.1"));
	assert_int_equal(event.sport, htons(9));
	assert_int_equal(event.dport, htons(443));
	assert_int_equal(event.class, PS_CLASS_NONE);
	assert_int_equal(event.pid, 0);
}

/* It is ICMP that was dropped; the protocol it quotes only decided. */
static void a_dropped_icmp_error_is_told_as_icmp(void **state)
{
	static const struct {
		uint8_t type, quoted;
		uint16_t told; /* source port or identifier */
	} told[] = {{3, IPPROTO_UDP, 0}, {11, IPPROTO_TCP, 0}, {3, IPPROTO_ICMP, 0}, {8, 0, 9}};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(told); i++) {
		const struct packet wrong = {.src = "198.51.100.1",
					     .protocol = IPPROTO_ICMP,
					     .icmp_type = told[i].type,
					     .quoted = told[i].quoted,
					     .sport = 9};
		struct ps_egress_event event = {0};

		assert_int_equal(load_generation(false), 0); /* whose events come at once */
		run(egress->guard->progs.ps_guard_out, &wrong, true);
		assert_int_equal(ps_egress_events_read(egress, note_event, &event), 1);
		assert_int_equal(event.reason, PS_EGRESS_GUARD_PORT);
		assert_int_equal(event.protocol, IPPROTO_ICMP);
		assert_int_equal(event.sport, htons(told[i].told));
		assert_int_equal(event.dport, 0);
	}
}

static void observing_counts_and_passes(void **state)
{
	const struct packet wrong = {.src = "198.51.100.1", .protocol = 6, .sport = 9};

	(void)state;
	assert_int_equal(load_generation(true), 0);
	assert_int_equal(run(egress->guard->progs.ps_guard_out, &wrong, true), TC_ACT_UNSPEC);
	assert_int_equal(counter(PS_EGRESS_GUARD_PORT), 1);
}

static void put_guard(unsigned ifindex, bool uplink, bool expect_made)
{
	ps_auto_mem char *message = NULL;
	bool made;
	int r = ps_egress_guard(egress, ifindex, uplink, &made, &message);

	if (r < 0)
		fail_msg("%s", message);
	assert_int_equal(made, expect_made);
	assert_true(ps_egress_guard_stands(egress, ifindex, uplink));
}

static void a_guard_is_put_replaced_and_taken_away(void **state)
{
	unsigned ifindex;

	(void)state;
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	ifindex = if_nametoindex("lo");
	assert_false(ps_egress_guard_stands(egress, ifindex, true));
	assert_int_equal(ps_egress_unguard(ifindex, false), 0);
	put_guard(ifindex, true, true);
	assert_false(ps_egress_guard_stands(egress, ifindex, false));
	put_guard(ifindex, false, false);
	assert_int_equal(load_generation(false), 0);
	assert_false(ps_egress_guard_stands(egress, ifindex, false));
	put_guard(ifindex, false, false);
	put_guard(ifindex, true, false);
	assert_false(ps_egress_guard_stands(egress, ifindex, false));
	assert_int_equal(ps_egress_unguard(ifindex, true), 0);
	assert_false(ps_egress_guard_stands(egress, ifindex, true));
	put_guard(ifindex, true, true);
}

static void filters_of_others_outlive_the_guard_and_its_qdisc(void **state)
{
	static const char *const commands[] = {
		"tc filter add dev lo egress pref 7 protocol ip u32 match u32 0 0",
		"tc filter add dev lo ingress pref 7 protocol ip u32 match u32 0 0",
		"tc filter add dev lo egress pref 9 protocol ipv6 u32 match u32 0 0",
	};
	unsigned ifindex;

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(commands); i++) {
		assert_int_equal(unshare(CLONE_NEWNET), 0);
		ifindex = if_nametoindex("lo");
		put_guard(ifindex, false, true);
		assert_int_equal(system(commands[i]), 0);
		assert_int_equal(ps_egress_unguard(ifindex, true), 0);
		assert_true(ps_egress_has_qdisc(ifindex));
		assert_int_equal(system("tc filter show dev lo egress | grep -q . ||"
					"tc filter show dev lo ingress | grep -q ."),
				 0);
		assert_int_equal(system("tc filter show dev lo egress | grep -q ps_guard"), 256);
		assert_int_equal(
			system("tc filter del dev lo egress; tc filter del dev lo ingress"), 0);
		assert_int_equal(ps_egress_unguard(ifindex, true), 0);
		assert_false(ps_egress_has_qdisc(ifindex));
	}
}

static void a_qdisc_is_seen_with_and_without_filters(void **state)
{
	unsigned ifindex;

	(void)state;
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	ifindex = if_nametoindex("lo");
	assert_false(ps_egress_has_qdisc(ifindex));
	assert_false(ps_egress_has_qdisc(ifindex + 1));
	assert_int_equal(system("tc qdisc add dev lo clsact"), 0);
	assert_true(ps_egress_has_qdisc(ifindex));
	put_guard(ifindex, false, false);
	assert_true(ps_egress_has_qdisc(ifindex));
	assert_int_equal(ps_egress_unguard(ifindex, false), 0);
	assert_true(ps_egress_has_qdisc(ifindex));
	assert_int_equal(system("tc qdisc del dev lo clsact"), 0);
	assert_false(ps_egress_has_qdisc(ifindex));
	assert_int_equal(system("tc qdisc add dev lo ingress"), 0);
	assert_false(ps_egress_has_qdisc(ifindex));
}

static int open_all(void **state)
{
	(void)state;
	return lab_open_pins(&lab);
}

static int close_all(void **state)
{
	(void)state;
	lab_close_pins(&lab);
	return 0;
}

#define FACT(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FACT(only_our_ports_leave_with_a_shared_address),
		FACT(the_same_holds_without_an_ethernet_header),
		FACT(other_ethertypes_are_not_touched),
		FACT(nothing_for_a_shared_address_comes_in_beside_the_uplinks),
		FACT(a_drop_tells_the_packet),
		FACT(a_dropped_icmp_error_is_told_as_icmp),
		FACT(observing_counts_and_passes),
		FACT(a_guard_is_put_replaced_and_taken_away),
		FACT(a_qdisc_is_seen_with_and_without_filters),
		FACT(filters_of_others_outlive_the_guard_and_its_qdisc),
	};
	const char *missing = lab_missing();

	if (missing) {
		printf("skip: %s\n", missing);
		return 77;
	}
	return cmocka_run_group_tests(tests, open_all, close_all);
}

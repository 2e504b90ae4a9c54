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

enum { SERVICE_PORT = 25565, PACKET_MAX = 192 };

static struct lab lab;
static struct ps_egress *egress;
static struct ps_egress_slice slices[4];
static struct ps_prefix shared[4];
static const unsigned shared_shift[] = {LAB_SHIFT, PS_SHIFT_WHOLE, LAB_SHIFT, PS_SHIFT_WHOLE};
static struct ps_claim_key services[2];
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
	static const char *const addresses[] = {"198.51.100.1", "203.0.113.1", "2001:db8:100::1",
						"2001:db8:200::1"};
	static const char *const prefixes[] = {"198.51.100.0/24", "203.0.113.0/24",
					       "2001:db8:100::/120", "2001:db8:200::/120"};

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		bool whole = i & 1;

		slices[i] = (struct ps_egress_slice){
			.ports = {whole ? 1024 : LAB_FIRST_PORT, whole ? 65536 - 1024 : LAB_PORTS},
			.shift = shared_shift[i]};
		if (ps_ip_parse(addresses[i], &slices[i].address) < 0 ||
		    ps_prefix_parse(prefixes[i], &shared[i]) < 0)
			return -1;
		if (!whole)
			services[i / 2] = (struct ps_claim_key){.src = ps_ip16(&slices[i].address),
								.sport = htons(SERVICE_PORT),
								.protocol = IPPROTO_TCP};
	}
	config = (struct ps_egress_config){.slices = slices,
					   .n_slices = 4,
					   .shared = shared,
					   .shared_shift = shared_shift,
					   .n_shared = 4,
					   .services = services,
					   .n_services = 2};
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
	/* IPv6 */
	unsigned n_extensions;
	bool atomic;        /* a fragment header, but not a fragment (RFC 6946) */
	const char *target; /* of neighbour discovery */
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

static bool is_v6(const struct packet *p)
{
	return strchr(p->src, ':') != NULL;
}

static size_t put_ip6(uint8_t *at, const char *src, const char *dst, uint8_t next)
{
	memset(at, 0, 8);
	at[0] = 0x60;
	put16(at + 4, 24);
	at[6] = next;
	at[7] = 64;
	if (inet_pton(AF_INET6, src, at + 8) != 1 || inet_pton(AF_INET6, dst, at + 24) != 1)
		abort();
	return 40;
}

/* Destination options headers of 8 bytes, and a fragment header last where the packet is one. */
static size_t put_extensions(uint8_t *at, const struct packet *p, uint8_t protocol)
{
	unsigned n = p->n_extensions + (p->fragment || p->atomic);

	memset(at, 0, n * 8);
	for (unsigned i = 0; i < n; i++) {
		bool last = i + 1 == n, is_fragment = last && (p->fragment || p->atomic);

		at[i * 8] = last                                       ? protocol
			    : i + 2 == n && (p->fragment || p->atomic) ? IPPROTO_FRAGMENT
								       : IPPROTO_DSTOPTS;
		if (is_fragment) {
			put16(at + i * 8 + 2, p->fragment);
			put16(at + i * 8 + 6, p->id);
		}
	}
	return n * 8;
}

static uint8_t first_next(const struct packet *p, uint8_t protocol)
{
	if (p->n_extensions)
		return IPPROTO_DSTOPTS;
	return p->fragment || p->atomic ? IPPROTO_FRAGMENT : protocol;
}

static size_t put_icmp6(uint8_t *at, const struct packet *p)
{
	size_t n = 8;

	memset(at, 0, n);
	at[0] = p->icmp_type;
	put16(at + 4, p->sport);
	if (p->target) {
		memset(at + 4, 0, 4);
		return inet_pton(AF_INET6, p->target, at + 8) == 1 ? 24 : 0;
	}
	if (!p->quoted)
		return n;
	n += put_ip6(at + n, "2001:db8:ffff::7", p->src, first_next(p, p->quoted));
	n += put_extensions(at + n, p, p->quoted);
	if (p->quoted == IPPROTO_ICMPV6) {
		memset(at + n, 0, 8);
		put16(at + n + 4, p->sport);
		return n + 8;
	}
	n += put16(at + n, p->dport);
	n += put16(at + n, p->sport);
	return n + 4;
}

/* An error's extension headers are those of the packet it quotes. */
static size_t build6(const struct packet *p, uint8_t *at)
{
	size_t n = put_ip6(at, p->src, p->dst ? p->dst : "2001:db8:ffff::7",
			   p->quoted ? p->protocol : first_next(p, p->protocol));

	if (!p->quoted)
		n += put_extensions(at + n, p, p->protocol);
	if (p->protocol == IPPROTO_ICMPV6)
		return n + put_icmp6(at + n, p) - p->cut;
	n += put16(at + n, p->sport);
	n += put16(at + n, p->dport ? p->dport : 443);
	return n + 16 - p->cut;
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
		n += put16(ret + n, is_v6(p) ? ETH_P_IPV6 : ETH_P_IP);
	}
	if (is_v6(p))
		return n + build6(p, ret + n);
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

#define OURS6 .src = "2001:db8:100::1"
static const struct row rows6[] = {
	{"other sources pass", {.src = "2001:db8:77::1", .protocol = 6, .sport = 5}, -1},
	{"our first port", {OURS6, .protocol = 6, .sport = 4096}, -1},
	{"our last port", {OURS6, .protocol = 17, .sport = 4223}, -1},
	{"port below our slice", {OURS6, .protocol = 6, .sport = 4095}, PS_EGRESS_GUARD_PORT},
	{"port above our slice", {OURS6, .protocol = 17, .sport = 4224}, PS_EGRESS_GUARD_PORT},
	{"our port at another's address",
	 {.src = "2001:db8:100::2", .protocol = 6, .sport = 4096},
	 PS_EGRESS_GUARD_PORT},
	{"a service", {OURS6, .protocol = 6, .sport = SERVICE_PORT}, -1},
	{"a service's port of another protocol",
	 {OURS6, .protocol = 17, .sport = SERVICE_PORT},
	 PS_EGRESS_GUARD_PORT},
	{"whole address, first port", {.src = "2001:db8:200::1", .protocol = 6, .sport = 1024}, -1},
	{"whole address, port below 1024",
	 {.src = "2001:db8:200::1", .protocol = 6, .sport = 1023},
	 PS_EGRESS_GUARD_PORT},
	{"two VLAN tags", {OURS6, .protocol = 6, .sport = 1, .n_tags = 2}, PS_EGRESS_GUARD_PORT},
	{"two VLAN tags, our port", {OURS6, .protocol = 6, .sport = 4100, .n_tags = 2}, -1},
	{"four extension headers, our port",
	 {OURS6, .protocol = 6, .sport = 4100, .n_extensions = 4},
	 -1},
	{"four extension headers, another's port",
	 {OURS6, .protocol = 6, .sport = 9, .n_extensions = 4},
	 PS_EGRESS_GUARD_PORT},
	{"five extension headers",
	 {OURS6, .protocol = 6, .sport = 4100, .n_extensions = 5},
	 PS_EGRESS_GUARD_PROTOCOL},
	{"cut within an extension header",
	 {OURS6, .protocol = 6, .sport = 4100, .n_extensions = 1, .cut = 24},
	 PS_EGRESS_GUARD_PROTOCOL},
	{"echo request with our identifier",
	 {OURS6, .protocol = 58, .icmp_type = 128, .sport = 4100},
	 -1},
	{"echo request with another identifier",
	 {OURS6, .protocol = 58, .icmp_type = 128, .sport = 9},
	 PS_EGRESS_GUARD_PORT},
	{"echo reply with another identifier",
	 {OURS6, .protocol = 58, .icmp_type = 129, .sport = 9},
	 PS_EGRESS_GUARD_PORT},
	{"error about a packet to our port",
	 {OURS6, .protocol = 58, .icmp_type = 1, .quoted = 17, .sport = 4100},
	 -1},
	{"error about a packet to another's port",
	 {OURS6, .protocol = 58, .icmp_type = 1, .quoted = 6, .sport = 4095},
	 PS_EGRESS_GUARD_PORT},
	{"error about a packet with extension headers",
	 {OURS6, .protocol = 58, .icmp_type = 2, .quoted = 6, .sport = 4100, .n_extensions = 3},
	 -1},
	{"error about a first fragment to our port",
	 {OURS6, .protocol = 58, .icmp_type = 1, .quoted = 17, .sport = 4100, .fragment = 1},
	 -1},
	{"error about a later fragment",
	 {OURS6, .protocol = 58, .icmp_type = 1, .quoted = 17, .sport = 4100, .fragment = 80},
	 PS_EGRESS_GUARD_PROTOCOL},
	{"error about an echo reply to us",
	 {OURS6, .protocol = 58, .icmp_type = 3, .quoted = 58, .sport = 4100},
	 -1},
	{"error about a protocol without ports",
	 {OURS6, .protocol = 58, .icmp_type = 1, .quoted = 47, .sport = 4100},
	 PS_EGRESS_GUARD_PROTOCOL},
	{"error cut within the quoted packet",
	 {OURS6, .protocol = 58, .icmp_type = 1, .quoted = 17, .sport = 4100, .cut = 6},
	 PS_EGRESS_GUARD_PROTOCOL},
	{"multicast listener report",
	 {OURS6, .protocol = 58, .icmp_type = 143, .sport = 4100},
	 PS_EGRESS_GUARD_PROTOCOL},
	{"ICMP of IPv4 in IPv6",
	 {OURS6, .protocol = 1, .icmp_type = 8, .sport = 4100},
	 PS_EGRESS_GUARD_PROTOCOL},
	{"router solicitation from a shared address",
	 {OURS6, .protocol = 58, .icmp_type = 133},
	 PS_EGRESS_GUARD_NEIGHBOUR},
	{"neighbour solicitation from a shared address",
	 {OURS6, .protocol = 58, .icmp_type = 135, .target = "2001:db8:77::2"},
	 PS_EGRESS_GUARD_NEIGHBOUR},
	{"neighbour advertisement from a shared address, behind an extension header",
	 {OURS6, .protocol = 58, .icmp_type = 136, .target = "2001:db8:77::2", .n_extensions = 1},
	 PS_EGRESS_GUARD_NEIGHBOUR},
	{"redirect from a shared address",
	 {OURS6, .protocol = 58, .icmp_type = 137},
	 PS_EGRESS_GUARD_NEIGHBOUR},
	{"neighbour advertisement of a shared address",
	 {.src = "fe80::1", .protocol = 58, .icmp_type = 136, .target = "2001:db8:100::9"},
	 PS_EGRESS_GUARD_NEIGHBOUR},
	{"neighbour solicitation for a shared address",
	 {.src = "fe80::1", .protocol = 58, .icmp_type = 135, .target = "2001:db8:200::1"},
	 PS_EGRESS_GUARD_NEIGHBOUR},
	{"neighbour solicitation for another address",
	 {.src = "fe80::1", .protocol = 58, .icmp_type = 135, .target = "2001:db8:77::2"},
	 -1},
	{"GRE", {OURS6, .protocol = 47}, PS_EGRESS_GUARD_PROTOCOL},
	{"ESP", {OURS6, .protocol = 50, .sport = 4100}, PS_EGRESS_GUARD_PROTOCOL},
	{"no next header", {OURS6, .protocol = 59, .sport = 4100}, PS_EGRESS_GUARD_PROTOCOL},
	{"TCP cut before its ports",
	 {OURS6, .protocol = 6, .sport = 4100, .cut = 18},
	 PS_EGRESS_GUARD_PROTOCOL},
	{"an atomic fragment from our port",
	 {OURS6, .protocol = 17, .sport = 4100, .atomic = true},
	 -1},
	{"an atomic fragment from another's port",
	 {OURS6, .protocol = 17, .sport = 9, .atomic = true},
	 PS_EGRESS_GUARD_PORT},
	{"follower of an unknown first fragment",
	 {OURS6, .protocol = 17, .id = 1, .fragment = 80},
	 PS_EGRESS_GUARD_FRAGMENT},
	{"first fragment from another's port",
	 {OURS6, .protocol = 17, .sport = 9, .id = 2, .fragment = 1},
	 PS_EGRESS_GUARD_PORT},
	{"its follower",
	 {OURS6, .protocol = 17, .id = 2, .fragment = 80},
	 PS_EGRESS_GUARD_FRAGMENT},
	{"first fragment from our port",
	 {OURS6, .protocol = 17, .sport = 4100, .id = 3, .fragment = 1},
	 -1},
	{"its follower", {OURS6, .protocol = 17, .id = 3, .fragment = 81}, -1},
	{"its last follower, which tells another protocol",
	 {OURS6, .protocol = 6, .id = 3, .fragment = 160},
	 -1},
	{"a follower that seems to begin with another fragment header",
	 {OURS6, .protocol = 44, .id = 4, .fragment = 80, .sport = 6 << 8, .dport = 1},
	 PS_EGRESS_GUARD_FRAGMENT},
	{"a follower to somebody else",
	 {OURS6, .dst = "2001:db8:ffff::8", .protocol = 17, .id = 3, .fragment = 80},
	 PS_EGRESS_GUARD_FRAGMENT},
};

static void check_rows(const struct row *all, size_t n, const struct bpf_program *program,
		       bool ethernet)
{
	for (size_t i = 0; i < n; i++) {
		const struct row *row = &all[i];
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
	check_rows(rows, PS_N_ELEMENTS(rows), egress->guard->progs.ps_guard_out, true);
	check_rows(rows6, PS_N_ELEMENTS(rows6), egress->guard->progs.ps_guard_out, true);
}

static void the_same_holds_without_an_ethernet_header(void **state)
{
	(void)state;
	check_rows(rows, PS_N_ELEMENTS(rows), egress->guard->progs.ps_guard_out_ip, false);
	check_rows(rows6, PS_N_ELEMENTS(rows6), egress->guard->progs.ps_guard_out_ip, false);
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
	const struct packet in6 = {
		.src = "2001:db8:77::2", .dst = "2001:db8:100::1", .protocol = 6};
	const struct packet other6 = {
		.src = "2001:db8:77::2", .dst = "2001:db8:77::1", .protocol = 6};
	const struct bpf_program *program = egress->guard->progs.ps_guard_in;

	(void)state;
	assert_int_equal(run(program, &in, true), TC_ACT_SHOT);
	assert_int_equal(run(program, &other, true), TC_ACT_UNSPEC);
	assert_int_equal(run(program, &in6, true), TC_ACT_SHOT);
	assert_int_equal(run(program, &other6, true), TC_ACT_UNSPEC);
	assert_int_equal(counter(PS_EGRESS_GUARD_INGRESS), 2);
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
	assert_true(ps_ip16_is_v4(&event.src));
	assert_int_equal(event.src.words[3], inet_addr("198.51.100.1"));
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

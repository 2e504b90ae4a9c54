/* SPDX-License-Identifier: MIT */
/*
 * The dispatcher's packet table: a small world and what becomes of packets in it.  Every row runs
 * through the kernel's program and through ps_trace_packet().
 *
 *   site 0: host 0 (this one), 1 (next hop by the interface the packets come in by), 2 (by another),
 *           3 (unresolved)      site 1: host 4      site 2: edge unresolved
 *   A 198.51.100.1   slices of 2,048: 16 -> host 0, 17 -> 1, 18 -> 2, 19 -> 3, others nobody
 *     198.51.100.2   nobody, pool says drop        198.51.100.3  at site 1
 *     198.51.100.4   at site 2                     198.51.100.5  whole, host 1
 *     203.0.113.9    slices of 128: 500 -> host 1
 *   services: A:33000/tcp, A:33001/udp      known conversations: A:33100 with PEER
 */
#ifndef PS_TESTS_ROWS_H
#define PS_TESTS_ROWS_H

#include <arpa/inet.h>

#include "dispatch/trace.h"
#include "packet.h"

enum { HERE = 1, ELSEWHERE = 7 }; /* interfaces; 1 is loopback, which test runs come in by */
enum { OWN = 33100, OWN_IDLE = 33200, FIRST = 34900, SECOND = 36900, NO_HOP = 39000, FREE = 61500 };
enum { SERVICE_TCP = 33000, SERVICE_UDP = 33001 };

static const uint32_t A_DROP = IP4(198, 51, 100, 2), A_FAR = IP4(198, 51, 100, 3),
		      A_FAR_NO_HOP = IP4(198, 51, 100, 4), A_WHOLE = IP4(198, 51, 100, 5),
		      A_FINE = IP4(203, 0, 113, 9), EDGE = IP4(192, 0, 2, 100),
		      EDGE_FAR = IP4(192, 0, 2, 200), STRANGER = IP4(192, 0, 2, 77);

/* What else differs between rows. */
enum world_kind { USUAL, STALE, NO_BUDGET, NO_GATEWAY, GATEWAY_ELSEWHERE, N_WORLDS };

struct row {
	const char *sentence;
	struct packet packet;
	enum ps_dispatch_reason reason;
	enum ps_trace_action action;
	unsigned port; /* UDP port it is encapsulated to */
	uint32_t dst;  /* and address */
	enum world_kind world;
	bool known;        /* the conversation is in the ledger */
	uint32_t seq, ack; /* of a RST */
	unsigned flags;    /* of a RST */
};

/* What a row does not say is zero. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
static const struct row rows[] = {
	/* not ours */
	{"a packet for another address passes", {.dst = PEER}, PS_REASON_NOT_OURS, PS_TRACE_PASS},
	{"IPv6 passes", {.type = 0x86dd}, PS_REASON_NOT_OURS, PS_TRACE_PASS},
	{"ARP passes", {.type = 0x0806}, PS_REASON_NOT_OURS, PS_TRACE_PASS},
	{"ARP in a VLAN passes", {.type = 0x0806, .vlans = 1}, PS_REASON_NOT_OURS, PS_TRACE_PASS},
	{"three VLAN tags are none of ours",
	 {.type = 0x8100, .vlans = 2},
	 PS_REASON_NOT_OURS,
	 PS_TRACE_PASS},
	{"a malformed packet for another address passes",
	 {.dst = PEER, .version = 5, .ihl = 2},
	 PS_REASON_NOT_OURS,
	 PS_TRACE_PASS},
	{"the address beside ours in its /24 passes",
	 {.dst = A + 100, .dport = FIRST},
	 PS_REASON_NOT_OURS,
	 PS_TRACE_PASS},
	{"a /24 beside ours in its /16 passes",
	 {.dst = A + 256, .dport = FIRST},
	 PS_REASON_NOT_OURS,
	 PS_TRACE_PASS},

	/* to the owner */
	{"TCP goes to the host that owns the port",
	 {.dport = FIRST},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"the first port of a slice goes to its owner",
	 {.dport = 34816},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"the last port of a slice goes to its owner",
	 {.dport = 36863},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"UDP goes to the host that owns the port, by its interface",
	 {.protocol = UDP, .dport = SECOND, .payload = 33},
	 PS_REASON_TO_HOST,
	 PS_TRACE_REDIRECT,
	 6080,
	 IP4(192, 0, 2, 3)},
	{"one VLAN tag is replaced by the hop's header",
	 {.vlans = 1, .dport = FIRST},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"two VLAN tags are replaced by the hop's header",
	 {.vlans = 2, .dport = FIRST},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"IP options are carried along",
	 {.options = 40, .dport = FIRST},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"Ethernet padding does not count",
	 {.dport = FIRST, .padding = 6},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"a slice of 128 ports beyond the row's first element is found",
	 {.dst = A_FINE, .dport = 64127},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"every port from 1,024 of a whole address goes to its host",
	 {.dst = A_WHOLE, .dport = 1024},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"an echo reply goes by its identifier",
	 {.protocol = ICMP, .icmp = 0, .dport = FIRST},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"unreachable goes by the source port of the embedded TCP packet",
	 {.protocol = ICMP, .icmp = 3, .embedded = TCP, .dport = FIRST},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"source quench goes by the source port of the embedded UDP packet",
	 {.protocol = ICMP, .icmp = 4, .embedded = UDP, .dport = FIRST},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"time exceeded goes by the identifier of the embedded echo request",
	 {.protocol = ICMP, .icmp = 11, .embedded = ICMP, .dport = FIRST},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"parameter problem goes by the source port, whatever other fragments follow",
	 {.protocol = ICMP, .icmp = 12, .embedded = UDP, .dport = FIRST, .embedded_frag = 0x2000},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"an address at another site goes to that site's edge with one step left",
	 {.dst = A_FAR, .dport = 5000},
	 PS_REASON_TO_SITE,
	 PS_TRACE_TX,
	 6079,
	 EDGE_FAR},
	{"the largest packet that fits is sent",
	 {.dport = FIRST, .payload = 1500 - 28 - 40},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"a packet one byte too long for the underlay is dropped",
	 {.dport = FIRST, .payload = 1500 - 28 - 40 + 1},
	 PS_REASON_DROP_TOO_BIG,
	 PS_TRACE_DROP},
	{"a packet for a host without next hop is dropped",
	 {.dport = NO_HOP},
	 PS_REASON_DROP_NO_HOP,
	 PS_TRACE_DROP},
	{"a packet for a site without next hop is dropped",
	 {.dst = A_FAR_NO_HOP, .dport = FIRST},
	 PS_REASON_DROP_NO_HOP,
	 PS_TRACE_DROP},

	/* delivery */
	{"a TCP conversation of this host is delivered",
	 {.dport = OWN},
	 PS_REASON_DELIVER,
	 PS_TRACE_PASS,
	 .known = true},
	{"a UDP conversation of this host is delivered, tags and all",
	 {.protocol = UDP, .dport = OWN, .vlans = 2, .options = 8},
	 PS_REASON_DELIVER,
	 PS_TRACE_PASS,
	 .known = true},
	{"the answer to our ping is delivered",
	 {.protocol = ICMP, .icmp = 0, .dport = OWN},
	 PS_REASON_DELIVER,
	 PS_TRACE_PASS,
	 .known = true},
	{"an ICMP error about our UDP conversation is delivered",
	 {.protocol = ICMP, .icmp = 3, .embedded = UDP, .dport = OWN},
	 PS_REASON_DELIVER,
	 PS_TRACE_PASS,
	 .known = true},
	{"an ICMP error about our ping is delivered, whoever sends it",
	 {.protocol = ICMP, .src = STRANGER, .icmp = 11, .embedded = ICMP, .dport = OWN},
	 PS_REASON_DELIVER,
	 PS_TRACE_PASS,
	 .known = true},
	{"strangers may open a published TCP port",
	 {.src = STRANGER, .dport = SERVICE_TCP, .flags = SYN},
	 PS_REASON_DELIVER_SERVICE,
	 PS_TRACE_PASS},
	{"strangers may send to a published UDP port",
	 {.src = STRANGER, .protocol = UDP, .dport = SERVICE_UDP},
	 PS_REASON_DELIVER_SERVICE,
	 PS_TRACE_PASS},
	{"a port published for UDP is not open for TCP",
	 {.dport = SERVICE_UDP, .flags = SYN},
	 PS_REASON_REJECT_TCP,
	 PS_TRACE_TX,
	 .ack = 0x01020305,
	 .flags = RST | ACK},

	/* nobody's */
	{"a SYN to nobody's port is reset: sequence 0, acknowledging the SYN",
	 {.dport = FREE, .flags = SYN},
	 PS_REASON_REJECT_TCP,
	 PS_TRACE_TX,
	 .ack = 0x01020305,
	 .flags = RST | ACK},
	{"data with FIN and without ACK is reset, acknowledging every byte and the FIN",
	 {.dport = FREE, .flags = FIN | PSH, .payload = 11, .padding = 3},
	 PS_REASON_REJECT_TCP,
	 PS_TRACE_TX,
	 .ack = 0x01020304 + 12,
	 .flags = RST | ACK},
	{"a segment with ACK is reset with the sequence number it acknowledges",
	 {.dport = FREE, .flags = ACK | PSH, .payload = 11},
	 PS_REASON_REJECT_TCP,
	 PS_TRACE_TX,
	 .seq = 0xfffefdfc,
	 .flags = RST},
	{"TCP options count as header in a reset",
	 {.dport = FREE, .flags = SYN, .doff = 8, .payload = 12, .options = 12},
	 PS_REASON_REJECT_TCP,
	 PS_TRACE_TX,
	 .ack = 0x01020305,
	 .flags = RST | ACK},
	{"a reset goes back with the VLAN tags it came by",
	 {.dport = FREE, .flags = SYN, .vlans = 2},
	 PS_REASON_REJECT_TCP,
	 PS_TRACE_TX,
	 .ack = 0x01020305,
	 .flags = RST | ACK},
	{"a port of this host that expects nobody is nobody's",
	 {.dport = OWN_IDLE, .flags = SYN},
	 PS_REASON_REJECT_TCP,
	 PS_TRACE_TX,
	 .ack = 0x01020305,
	 .flags = RST | ACK},
	{"ports of a whole address below 1,024 are nobody's",
	 {.dst = A_WHOLE, .dport = 1023, .flags = SYN},
	 PS_REASON_REJECT_TCP,
	 PS_TRACE_TX,
	 .ack = 0x01020305,
	 .flags = RST | ACK},
	{"UDP to nobody's port draws port unreachable",
	 {.protocol = UDP, .dport = FREE, .payload = 100},
	 PS_REASON_REJECT_ICMP,
	 PS_TRACE_TX},
	{"port unreachable quotes IP options and 8 bytes",
	 {.protocol = UDP, .dport = FREE, .options = 40},
	 PS_REASON_REJECT_ICMP,
	 PS_TRACE_TX},
	{"port unreachable to an empty datagram keeps its VLAN tag and no padding",
	 {.protocol = UDP, .dport = OWN_IDLE, .vlans = 1, .padding = 14},
	 PS_REASON_REJECT_ICMP,
	 PS_TRACE_TX},
	{"port unreachable keeps two VLAN tags",
	 {.protocol = UDP, .dport = FREE, .vlans = 2},
	 PS_REASON_REJECT_ICMP,
	 PS_TRACE_TX},
	{"the pool may say that nobody's ports are silent",
	 {.dst = A_DROP, .dport = FREE},
	 PS_REASON_DROP_UNOWNED,
	 PS_TRACE_DROP},
	{"a RST is never answered",
	 {.dport = FREE, .flags = RST},
	 PS_REASON_DROP_REJECT_NEVER,
	 PS_TRACE_DROP},
	{"an unknown echo reply is never answered",
	 {.protocol = ICMP, .icmp = 0, .dport = FREE},
	 PS_REASON_DROP_REJECT_NEVER,
	 PS_TRACE_DROP},
	{"an unknown ICMP error is never answered",
	 {.protocol = ICMP, .icmp = 3, .embedded = UDP, .dport = FREE},
	 PS_REASON_DROP_REJECT_NEVER,
	 PS_TRACE_DROP},
	{"a broadcast frame is never answered",
	 {.dport = FREE, .multicast = true},
	 PS_REASON_DROP_REJECT_NEVER,
	 PS_TRACE_DROP},
	{"a multicast source is never answered",
	 {.protocol = UDP, .src = IP4(224, 0, 0, 1), .dport = FREE},
	 PS_REASON_DROP_REJECT_NEVER,
	 PS_TRACE_DROP},
	{"a TCP header longer than its segment is not answered",
	 {.dport = FREE, .doff = 6},
	 PS_REASON_DROP_HEADER,
	 PS_TRACE_DROP},
	{"a TCP header shorter than it can be is not answered",
	 {.dport = FREE, .doff = 4},
	 PS_REASON_DROP_HEADER,
	 PS_TRACE_DROP},
	{"nothing is reset by a table that may be old",
	 {.dport = FREE},
	 PS_REASON_DROP_REJECT_STALE,
	 PS_TRACE_DROP,
	 .world = STALE},
	{"nothing is reset beyond the budget",
	 {.dport = FREE},
	 PS_REASON_DROP_REJECT_LIMIT,
	 PS_TRACE_DROP,
	 .world = NO_BUDGET},

	/* what has no port */
	{"a first fragment is dropped",
	 {.dport = FIRST, .frag = 0x2000},
	 PS_REASON_DROP_FRAGMENT,
	 PS_TRACE_DROP},
	{"a last fragment is dropped",
	 {.dport = FIRST, .frag = 0x0010},
	 PS_REASON_DROP_FRAGMENT,
	 PS_TRACE_DROP},
	{"DF is no fragment",
	 {.dport = FIRST, .frag = 0x4000},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"GRE is dropped", {.protocol = 47}, PS_REASON_DROP_PROTOCOL, PS_TRACE_DROP},
	{"a ping to a shared address is dropped",
	 {.protocol = ICMP, .icmp = 8, .dport = FIRST},
	 PS_REASON_DROP_ECHO_REQUEST,
	 PS_TRACE_DROP},
	{"an ICMP redirect is dropped",
	 {.protocol = ICMP, .icmp = 5, .embedded = TCP, .dport = FIRST},
	 PS_REASON_DROP_ICMP_TYPE,
	 PS_TRACE_DROP},
	{"an ICMP error about somebody else's packet is dropped",
	 {.protocol = ICMP, .icmp = 3, .embedded = TCP, .embedded_src = STRANGER, .dport = FIRST},
	 PS_REASON_DROP_EMBEDDED,
	 PS_TRACE_DROP},
	{"an ICMP error about a later fragment is dropped",
	 {.protocol = ICMP, .icmp = 11, .embedded = UDP, .embedded_frag = 1, .dport = FIRST},
	 PS_REASON_DROP_EMBEDDED,
	 PS_TRACE_DROP},
	{"an ICMP error about an echo reply is dropped",
	 {.protocol = ICMP, .icmp = 3, .embedded = ICMP, .embedded_icmp = 13, .dport = FIRST},
	 PS_REASON_DROP_EMBEDDED,
	 PS_TRACE_DROP},
	{"an ICMP error about GRE is dropped",
	 {.protocol = ICMP, .icmp = 3, .embedded = 47, .dport = FIRST},
	 PS_REASON_DROP_EMBEDDED,
	 PS_TRACE_DROP},
	{"an ICMP error about IPv6 is dropped",
	 {.protocol = ICMP, .icmp = 3, .embedded = TCP, .embedded_version = 6, .dport = FIRST},
	 PS_REASON_DROP_EMBEDDED,
	 PS_TRACE_DROP},
	{"an ICMP error without embedded packet is dropped",
	 {.protocol = ICMP, .icmp = 3, .dport = FIRST},
	 PS_REASON_DROP_TRUNCATED,
	 PS_TRACE_DROP},

	/* malformed */
	{"IP version 5 is dropped",
	 {.version = 5, .dport = FIRST},
	 PS_REASON_DROP_HEADER,
	 PS_TRACE_DROP},
	{"an IP header of 16 bytes is dropped",
	 {.ihl = 4, .dport = FIRST},
	 PS_REASON_DROP_HEADER,
	 PS_TRACE_DROP},
	{"a total length below the header's is dropped",
	 {.len_error = -21, .dport = FIRST},
	 PS_REASON_DROP_HEADER,
	 PS_TRACE_DROP},
	{"a total length that cuts the TCP header is dropped",
	 {.len_error = -1, .dport = FIRST},
	 PS_REASON_DROP_TRUNCATED,
	 PS_TRACE_DROP},
	{"a total length beyond the frame is dropped",
	 {.len_error = 1, .dport = FIRST},
	 PS_REASON_DROP_TRUNCATED,
	 PS_TRACE_DROP},

	/* encapsulated */
	{"what another host sends us is decapsulated and delivered",
	 {.dport = OWN, .outer = {6080}},
	 PS_REASON_DELIVER,
	 PS_TRACE_PASS,
	 .known = true},
	{"what another site sends to our edge is decapsulated and delivered",
	 {.dport = OWN, .outer = {6079, .src = IP4(192, 0, 2, 5), .dst = EDGE}},
	 PS_REASON_DELIVER,
	 PS_TRACE_PASS,
	 .known = true},
	{"outer options, inner options and a VLAN tag do not hinder delivery",
	 {.dport = OWN, .options = 4, .vlans = 1, .outer = {6078, .options = 12}},
	 PS_REASON_DELIVER,
	 PS_TRACE_PASS,
	 .known = true},
	{"a published port is open through another host too",
	 {.protocol = UDP, .src = STRANGER, .dport = SERVICE_UDP, .outer = {6080}},
	 PS_REASON_DELIVER_SERVICE,
	 PS_TRACE_PASS},
	{"with one step left a packet goes on to its owner, which has none left",
	 {.dport = FIRST, .outer = {6079, .dst = EDGE}},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"with two steps left a packet goes on with one",
	 {.dport = SECOND, .outer = {6078}},
	 PS_REASON_TO_HOST,
	 PS_TRACE_REDIRECT,
	 6079,
	 IP4(192, 0, 2, 3)},
	{"going on drops outer options and VLAN tags",
	 {.dport = FIRST, .vlans = 2, .outer = {6079, .options = 40}},
	 PS_REASON_TO_HOST,
	 PS_TRACE_TX,
	 6080,
	 NEIGHBOUR},
	{"with no step left a packet for another host is dropped",
	 {.dport = FIRST, .outer = {6080}},
	 PS_REASON_DROP_NO_STEPS,
	 PS_TRACE_DROP},
	{"with no step left nobody's port is not answered",
	 {.dport = FREE, .outer = {6080}},
	 PS_REASON_DROP_NO_STEPS,
	 PS_TRACE_DROP},
	{"with no step left an unexpected packet is not answered",
	 {.dport = OWN_IDLE, .outer = {6080}},
	 PS_REASON_DROP_NO_STEPS,
	 PS_TRACE_DROP},
	{"with a step left nobody's TCP port is reset by the gateway",
	 {.dport = FREE, .flags = SYN, .outer = {6079}},
	 PS_REASON_REJECT_TCP,
	 PS_TRACE_TX,
	 .ack = 0x01020305,
	 .flags = RST | ACK},
	{"with a step left nobody's UDP port is refused by the gateway",
	 {.protocol = UDP, .dport = FREE, .vlans = 1, .outer = {6078, .options = 8}},
	 PS_REASON_REJECT_ICMP,
	 PS_TRACE_REDIRECT,
	 .world = GATEWAY_ELSEWHERE},
	{"without a gateway there is no answer",
	 {.dport = FREE, .outer = {6079}},
	 PS_REASON_DROP_NO_HOP,
	 PS_TRACE_DROP,
	 .world = NO_GATEWAY},
	{"what came encapsulated never goes to another site",
	 {.dst = A_FAR, .dport = FIRST, .outer = {6079}},
	 PS_REASON_DROP_OTHER_SITE,
	 PS_TRACE_DROP},
	{"a stranger's encapsulated packet is dropped",
	 {.dport = OWN, .outer = {6080, .src = STRANGER}},
	 PS_REASON_DROP_STRANGER,
	 PS_TRACE_DROP,
	 .known = true},
	{"port 6081 is no encapsulation of ours",
	 {.dport = OWN, .outer = {6081}},
	 PS_REASON_NOT_OURS,
	 PS_TRACE_PASS},
	{"port 6077 is no encapsulation of ours",
	 {.dport = OWN, .outer = {6077}},
	 PS_REASON_NOT_OURS,
	 PS_TRACE_PASS},
	{"encapsulation for another host's underlay passes",
	 {.dport = OWN, .outer = {6080, .dst = NEIGHBOUR}},
	 PS_REASON_NOT_OURS,
	 PS_TRACE_PASS},
	{"TCP to port 6080 of this host passes",
	 {.dport = OWN, .outer = {6080, .protocol = TCP}},
	 PS_REASON_NOT_OURS,
	 PS_TRACE_PASS},
	{"a fragment of an encapsulated packet is left to the stack",
	 {.dport = OWN, .outer = {6080, .frag = 0x2000}},
	 PS_REASON_NOT_OURS,
	 PS_TRACE_PASS},
	{"an encapsulated packet for an address that is not shared is dropped",
	 {.dst = PEER, .outer = {6080}},
	 PS_REASON_DROP_INNER,
	 PS_TRACE_DROP},
	{"nested encapsulation is dropped",
	 {.dport = OWN, .outer = {6080}, .outer2 = {6080}},
	 PS_REASON_DROP_INNER,
	 PS_TRACE_DROP},
	{"an inner length below the outer one's is dropped",
	 {.dport = OWN, .payload = 4, .len_error = -1, .outer = {6080}},
	 PS_REASON_DROP_INNER,
	 PS_TRACE_DROP},
	{"an inner length beyond the outer one's is dropped",
	 {.dport = OWN, .len_error = 1, .padding = 8, .outer = {6080}},
	 PS_REASON_DROP_INNER,
	 PS_TRACE_DROP},
	{"a UDP length that is not the outer packet's is dropped",
	 {.dport = OWN, .outer = {6080, .udp_len_error = -1}},
	 PS_REASON_DROP_INNER,
	 PS_TRACE_DROP},
	{"an inner packet that is not IPv4 is dropped",
	 {.dport = OWN, .version = 6, .outer = {6080}},
	 PS_REASON_DROP_INNER,
	 PS_TRACE_DROP},
	{"an inner packet without ports is dropped by its own reason",
	 {.protocol = 47, .outer = {6080}},
	 PS_REASON_DROP_PROTOCOL,
	 PS_TRACE_DROP},
	{"an inner fragment is dropped by its own reason",
	 {.dport = OWN, .frag = 0x2000, .outer = {6080}},
	 PS_REASON_DROP_FRAGMENT,
	 PS_TRACE_DROP},
};
#pragma GCC diagnostic pop

static inline struct ps_hop hop_by(unsigned ifindex)
{
	return (struct ps_hop){{2, 0, 0, 0, 1, (unsigned char)ifindex},
			       {2, 0, 0, 0, 2, (unsigned char)ifindex},
			       ifindex};
}

static inline int add_address(struct ps_table *t, uint32_t ip4, unsigned site, unsigned shift,
			      bool drop)
{
	const struct ps_table_address address = {htonl(ip4), site, shift, drop};

	return ps_table_add_address(t, &address);
}

/* All of this must succeed; returns the number of failures. */
static inline int fill_world(struct ps_table *t)
{
	int r = 0;

	for (unsigned host = 1; host <= 4; host++)
		r += ps_table_set_host(t, host, htonl(SELF + host)) != 0;
	r += ps_table_set_site(t, 1, htonl(EDGE_FAR)) != 0;
	r += ps_table_set_site(t, 2, htonl(EDGE_FAR + 1)) != 0;
	r += add_address(t, A, 0, 11, false) != 0;
	r += add_address(t, A_DROP, 0, 11, true) != 0;
	r += add_address(t, A_FAR, 1, 11, false) != 0;
	r += add_address(t, A_FAR_NO_HOP, 2, 11, false) != 0;
	r += add_address(t, A_WHOLE, 0, 16, false) != 0;
	r += add_address(t, A_FINE, 0, 7, false) != 0;
	for (unsigned host = 0; host <= 3; host++)
		r += ps_table_set_owner(t, htonl(A), 16 + host, host) != 0;
	r += ps_table_set_owner(t, htonl(A_WHOLE), 0, 1) != 0;
	r += ps_table_set_owner(t, htonl(A_FINE), 500, 1) != 0;
	r += ps_table_add_service(t, htonl(A), SERVICE_TCP, TCP) != 0;
	r += ps_table_add_service(t, htonl(A), SERVICE_UDP, UDP) != 0;
	return r;
}

static inline int make_world(enum world_kind kind, struct ps_table **ret)
{
	const struct ps_table_self self = {htonl(SELF), htonl(EDGE), 0, 0, 1500};
	int r = ps_table_new(&self, ret);

	if (r < 0)
		return r;
	r = fill_world(*ret);
	(*ret)->hosts[1].hop = hop_by(HERE);
	(*ret)->hosts[2].hop = hop_by(ELSEWHERE);
	(*ret)->edges[1].hop = hop_by(HERE);
	if (kind != NO_GATEWAY)
		(*ret)->config.gateway = hop_by(kind == GATEWAY_ELSEWHERE ? ELSEWHERE : HERE);
	(*ret)->config.fresh_until_ns = kind == STALE ? 0 : UINT64_MAX;
	(*ret)->config.reject_per_s = kind == NO_BUDGET ? 0 : 1000000000;
	return r;
}

static inline struct ps_trace_options options_of(const struct row *row)
{
	return (struct ps_trace_options){.expected = row->known,
					 .ifindex = HERE,
					 .now_ns = 5000000000,
					 .headroom = PS_TRACE_HEADROOM};
}

#endif

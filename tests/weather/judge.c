// SPDX-License-Identifier: MIT
/*
 * What may come out of a host, by rules of thumb that know the world of rows.h but nothing of the
 * dispatcher's text:
 *
 *   encapsulated  the hop of a peer, whole; outer headers to that peer's underlay address; steps that
 *                 this peer may be given; inside, bytes of a packet that was sent, to a shared
 *                 address and, where it tells a port, to the owner of that port
 *   answer        from the shared address a packet was sent to, to that packet's source, by the way
 *                 it came (or by the gateway, had it come encapsulated); RST, ICMP unreachable, too
 *                 big or echo, each with its quote
 *   to the stack  the very frame that was sent, not to a shared address; or a packet to a port that
 *                 this host owns and expects
 */
#include "judge.h"

#include <stdio.h>
#include <string.h>

#include "rows.h"

enum { ETHER = 14, OUTER = 28 };

/* Of a packet, as far as the snap reaches. */
struct view {
	const unsigned char *ip;
	unsigned len; /* bytes there are */
	unsigned is_v6;
	unsigned ip_len; /* bytes it says it has */
	unsigned l4;     /* offset of what has ports, 0: not found */
	unsigned protocol;
	bool fragment;
};

static const uint32_t underlays[] = {IP4(192, 0, 2, 1), IP4(192, 0, 2, 2), IP4(192, 0, 2, 3),
				     IP4(192, 0, 2, 4), IP4(192, 0, 2, 200)};

void judge_wrong(struct judge *judge, const struct storm_seen *seen, const char *why)
{
	unsigned n = seen->len < 160 ? seen->len : 160;
	int at;

	if (judge->wrong++)
		return;
	at = snprintf(judge->first_wrong, sizeof(judge->first_wrong),
		      "%s (place %u, %u bytes): ", why, seen->place, seen->len);
	for (unsigned i = 0; i < n; i++)
		at += snprintf(judge->first_wrong + at, sizeof(judge->first_wrong) - (size_t)at,
			       "%02x", seen->bytes[i]);
}

static bool is_extension(unsigned type)
{
	return type == 0 || type == 43 || type == 60 || type == 44;
}

static void walk6(struct view *v)
{
	unsigned next = v->ip[6], at = 40;

	for (int i = 0; i < 4 && is_extension(next) && at + 8 <= v->len; i++) {
		if (next == 44)
			v->fragment = (get16(v->ip + at + 2) & 0xfff9) != 0;
		unsigned len = next == 44 ? 8 : 8 + 8 * v->ip[at + 1];

		next = v->ip[at];
		at += len;
	}
	v->protocol = next;
	v->l4 = is_extension(next) || at + 8 > v->len ? 0 : at;
}

/* What is at ip; false: no packet of either kind. */
static bool view(const unsigned char *ip, unsigned len, struct view *ret)
{
	struct view v = {.ip = ip, .len = len, .is_v6 = len && ip[0] >> 4 == 6};

	if (len < (v.is_v6 ? 40u : 20u) || (!v.is_v6 && ip[0] >> 4 != 4))
		return false;
	if (v.is_v6) {
		v.ip_len = 40 + get16(ip + 4);
		walk6(&v);
	} else {
		v.ip_len = get16(ip + 2);
		v.protocol = ip[9];
		v.fragment = (get16(ip + 6) & 0x3fff) != 0;
		v.l4 = (ip[0] & 15u) * 4;
		if (v.l4 < 20 || v.l4 + 8 > len)
			v.l4 = 0;
	}
	*ret = v;
	return true;
}

static const unsigned char *src_of(const struct view *v)
{
	return v->ip + (v->is_v6 ? 8 : 12);
}

static const unsigned char *dst_of(const struct view *v)
{
	return v->ip + (v->is_v6 ? 24 : 16);
}

static unsigned address_len(const struct view *v)
{
	return v->is_v6 ? 16 : 4;
}

/* The world's number of a shared address: last byte of A's kind, 9 for A_FINE; 0: not shared. */
static unsigned shared(const unsigned char *address, bool v6)
{
	static const unsigned char prefix6[15] = {0x20, 1, 0xd, 0xb8};
	unsigned last = address[v6 ? 15 : 3];

	if (v6)
		return memcmp(address, prefix6, 15) == 0 && (last == 1 || last == 2 || last == 3 ||
							     last == 5 || last == 6)
			       ? last
			       : 0;
	if (get32(address) == A_FINE)
		return 9;
	return get32(address) >> 8 == A >> 8 && last >= 1 && last <= 6 ? last : 0;
}

/* The host that owns the port, 4: the edge of site 1, -1: nobody. */
static int owner(unsigned number, unsigned port)
{
	if (number == 3)
		return 4;
	if (number == 1 && port >> 11 >= 16 && port >> 11 <= 18)
		return (int)(port >> 11) - 16;
	if (number == 5 && port >= 1024)
		return 1;
	return number == 9 && port >> 7 == 500 ? 1 : -1;
}

/* The port or identifier that says whose the packet is, -1: it tells none, or not for sure. */
static int deciding_port(const struct view *v)
{
	const unsigned char *l4 = v->ip + v->l4;
	unsigned echo_reply = v->is_v6 ? 129 : 0;

	if (!v->l4 || v->fragment)
		return -1;
	if (v->protocol == TCP || v->protocol == UDP)
		return (int)get16(l4 + 2);
	if (v->protocol == (v->is_v6 ? ICMP6 : ICMP) && l4[0] == echo_reply)
		return (int)get16(l4 + 4);
	return -1;
}

static unsigned snap(const struct storm_seen *seen)
{
	return seen->len < STORM_SNAP ? seen->len : STORM_SNAP;
}

int judge_hop(const struct storm_seen *seen, unsigned *ret_k)
{
	const unsigned char *mac = seen->bytes;
	unsigned k = mac[1];

	if (seen->len < 12 || mac[0] != 2 || mac[6] != 2)
		return -1;
	for (unsigned i = 1; i < 5; i++)
		if (mac[i] != k || mac[6 + i] != k)
			return -1;
	if (mac[11] != seen->place / 2 || (k & 1) != (seen->place & 1) || mac[5] > STORM_GATEWAY)
		return -1;
	*ret_k = k;
	return mac[5];
}

const char *judge_outer(const struct storm_seen *seen, unsigned peer)
{
	const unsigned char *ip = seen->bytes + ETHER;
	unsigned len = get16(ip + 2), port = get16(ip + 22);

	if (seen->len < ETHER + OUTER + 20 || get16(ip - 2) != 0x0800)
		return "too short or not IPv4";
	if (ip[0] != 0x45 || get16(ip + 6) != 0x4000 || ip[8] != 64 || ip[9] != UDP ||
	    checksum(ip, 20, 0) != 0)
		return "outer IPv4 header";
	if (get32(ip + 12) != underlays[seen->place / 2] || get32(ip + 16) != underlays[peer])
		return "outer addresses";
	if (len + ETHER > seen->len || len > 1500 || get16(ip + 24) != len - 20)
		return "outer lengths";
	if (get16(ip + 20) < 49152 || get16(ip + 26) != 0)
		return "outer UDP header";
	if (port != 6080 && port != 6079 && (port != 6078 || peer != 4))
		return "outer port";
	return peer == 4 && port == 6080 ? "no step left for another site" : NULL;
}

/* Offset of the IP header in a frame with up to two tags. */
static unsigned ether_len(const unsigned char *frame)
{
	unsigned at = 12;

	while (at < 20 && (get16(frame + at) == 0x8100 || get16(frame + at) == 0x88a8))
		at += 4;
	return at + 2;
}

/* Offset of what an encapsulated packet holds; 0: nothing. */
static unsigned inner_at(const struct storm_slot *slot)
{
	unsigned at = ether_len(slot->bytes);
	const unsigned char *ip = slot->bytes + at;

	if (at + 28 > slot->len || ip[9] != UDP || ip[0] >> 4 != 4)
		return 0;
	return at + (ip[0] & 15u) * 4 + 8;
}

/* Does the slot hold these bytes as its packet, encapsulated or not? */
static bool holds(const struct storm_slot *slot, const unsigned char *packet, unsigned len)
{
	unsigned plain = ether_len(slot->bytes), inner = inner_at(slot);

	if (plain + len <= slot->len && memcmp(slot->bytes + plain, packet, len) == 0)
		return true;
	return inner && inner + len <= slot->len && memcmp(slot->bytes + inner, packet, len) == 0;
}

/* Is v a piece of this packet: the same but for length, flags and offset, and bytes of its payload? */
static bool is_piece(const struct view *v, unsigned len, const unsigned char *packet,
		     unsigned packet_len)
{
	unsigned at = get16(v->ip + 6) & 0x1fff, from, head = 20;

	if (packet_len < head || packet[0] != 0x45 || v->ip[0] != 0x45 || packet[1] != v->ip[1] ||
	    memcmp(packet + 4, v->ip + 4, 2) != 0 || memcmp(packet + 8, v->ip + 8, 2) != 0 ||
	    memcmp(packet + 12, v->ip + 12, 8) != 0)
		return false;
	from = (at - (get16(packet + 6) & 0x1fff)) * 8 + head;
	return at >= (get16(packet + 6) & 0x1fff) && from + len - head <= packet_len &&
	       memcmp(packet + from, v->ip + head, len - head) == 0;
}

static bool holds_whole(const struct storm_slot *slot, const struct view *v, unsigned len)
{
	unsigned plain = ether_len(slot->bytes), inner = inner_at(slot);

	return (plain < slot->len && is_piece(v, len, slot->bytes + plain, slot->len - plain)) ||
	       (inner && inner < slot->len &&
		is_piece(v, len, slot->bytes + inner, slot->len - inner));
}

static bool holds_some(const struct storm_slot *slot, const struct view *v, unsigned len)
{
	return holds(slot, v->ip, len) || (!v->is_v6 && v->fragment && holds_whole(slot, v, len));
}

static bool was_sent(struct judge *judge, const struct view *v, unsigned len)
{
	unsigned hint = 2 * (v->is_v6 ? get16(v->ip + 2) : get16(v->ip + 4));

	for (unsigned i = hint; i < hint + 2 && i < judge->n_sent; i++)
		if (holds_some(&judge->sent[i], v, len))
			return true;
	judge->searched++;
	for (unsigned i = 0; i < judge->n_sent; i++)
		if (holds_some(&judge->sent[i], v, len))
			return true;
	return false;
}

static const char *judge_encapsulated(struct judge *judge, const struct storm_seen *seen,
				      unsigned peer)
{
	const char *why = judge_outer(seen, peer);
	unsigned number, port, room = snap(seen) - ETHER - OUTER;
	struct view v;
	int decides;

	if (why)
		return why;
	if (!view(seen->bytes + ETHER + OUTER, room, &v) ||
	    v.ip_len != get16(seen->bytes + ETHER + 2) - OUTER)
		return "inner length";
	number = shared(dst_of(&v), v.is_v6);
	port = get16(seen->bytes + ETHER + 22);
	if (!number || (peer == 4) != (number == 3))
		return "inner destination";
	if (v.fragment == false && peer == 4 && port != 6079)
		return "steps to the other site";
	decides = deciding_port(&v);
	if (decides >= 0 && owner(number, (unsigned)decides) != (int)peer)
		return "not the owner";
	return was_sent(judge, &v, v.ip_len < room ? v.ip_len : room) ? NULL
								      : "inner packet nobody sent";
}

static bool is_turned(const struct view *answer, const struct view *asked)
{
	unsigned len = address_len(answer);

	return asked->is_v6 == answer->is_v6 && memcmp(src_of(answer), dst_of(asked), len) == 0 &&
	       memcmp(dst_of(answer), src_of(asked), len) == 0;
}

static bool is_rst_to(const struct view *answer, const struct view *asked)
{
	const unsigned char *tcp = answer->ip + answer->l4, *from = asked->ip + asked->l4;

	return asked->protocol == TCP && asked->l4 &&
	       answer->ip_len == (answer->is_v6 ? 60u : 40u) && get16(tcp) == get16(from + 2) &&
	       get16(tcp + 2) == get16(from) && (tcp[13] & RST) && !(from[13] & RST);
}

/* Unreachable or too big, with a quote of it. */
static bool is_error_about(const struct view *answer, const struct view *asked)
{
	const unsigned char *icmp = answer->ip + answer->l4;
	unsigned quote = answer->len - answer->l4 - 8, kind = get16(icmp);
	struct view quoted = {0};

	if (quote > answer->ip_len - answer->l4 - 8)
		quote = answer->ip_len - answer->l4 - 8;
	if (!asked->is_v6 && (get16(icmp + 14) & 0x1fff)) /* RFC 1122 §3.2.2 */
		return false;
	if (answer->is_v6 ? kind != (1 << 8 | 4) && kind != 2 << 8
			  : kind != (3 << 8 | 3) && kind != (3 << 8 | 4))
		return false;
	if (quote < 28 || quote > asked->len)
		return false;
	quoted.ip = icmp + 8;
	return memcmp(icmp + 8, asked->ip, quote) == 0 ||
	       (!asked->is_v6 && is_piece(&quoted, quote, asked->ip, asked->len));
}

static bool is_echo_to(const struct view *answer, const struct view *asked)
{
	const unsigned char *icmp = answer->ip + answer->l4, *from = asked->ip + asked->l4;
	unsigned len = answer->len - answer->l4;

	if (icmp[0] != (answer->is_v6 ? 129 : 0) || !asked->l4 ||
	    from[0] != (answer->is_v6 ? 128 : 8) || answer->ip_len != asked->ip_len)
		return false;
	if (answer->ip_len - answer->l4 < len)
		len = answer->ip_len - answer->l4;
	return asked->l4 + len <= asked->len && memcmp(icmp + 4, from + 4, len - 4) == 0;
}

static bool answers(const struct view *answer, const unsigned char *packet, unsigned len)
{
	struct view asked;

	if (!view(packet, len, &asked) || !is_turned(answer, &asked))
		return false;
	return (answer->protocol == TCP && is_rst_to(answer, &asked)) ||
	       (answer->protocol != TCP &&
		(is_error_about(answer, &asked) || is_echo_to(answer, &asked)));
}

/* Header, length and, but for an echo and beyond the snap, the checksum. */
static bool is_sound(const struct view *v, unsigned room)
{
	const unsigned char *ip = v->ip, *l4 = ip + v->l4;
	unsigned len = v->ip_len - v->l4;
	bool echo = v->protocol != TCP && l4[0] == (v->is_v6 ? 129 : 0);

	if (!v->l4 || v->ip_len < v->l4 + 8 || ip[v->is_v6 ? 7 : 8] != 64)
		return false;
	if (!v->is_v6 && (ip[0] != 0x45 || get16(ip + 6) != 0x4000 || checksum(ip, 20, 0)))
		return false;
	if (echo || v->ip_len > room)
		return true;
	return checksum(l4, len,
			v->is_v6             ? pseudo6(ip, len, v->protocol)
			: v->protocol == TCP ? pseudo(ip, len)
					     : 0) == 0;
}

/* Is it the answer to the plain frame in the slot, by the way it came? */
static bool answers_plain(const struct view *v, const unsigned char *frame,
			  const struct storm_slot *slot)
{
	unsigned at = ether_len(slot->bytes);

	return at <= slot->len && memcmp(frame, slot->bytes + 6, 6) == 0 &&
	       memcmp(frame + 6, slot->bytes, 6) == 0 &&
	       memcmp(frame + 12, slot->bytes + 12, at - 12) == 0 &&
	       answers(v, slot->bytes + at, slot->len - at);
}

/* Or to what it holds, or to what another host may have encapsulated? */
static bool answers_held(const struct view *v, const struct storm_slot *slot)
{
	unsigned plain = ether_len(slot->bytes), inner = inner_at(slot);

	return (inner && inner < slot->len && answers(v, slot->bytes + inner, slot->len - inner)) ||
	       (plain < slot->len && answers(v, slot->bytes + plain, slot->len - plain));
}

/* The slot that the answer's own bytes tell: what it quotes, or repeats. */
static unsigned hint_of(const struct view *v)
{
	const unsigned char *l4 = v->ip + v->l4;

	if (v->protocol == TCP || l4[0] == 0 || l4[0] == 129)
		return get16(l4 + 6);
	return 2 * (v->is_v6 ? get16(l4 + 10) : get16(l4 + 12));
}

static bool answers_slot(const struct judge *judge, const struct view *v,
			 const struct storm_seen *seen, bool gateway, unsigned number)
{
	const struct storm_slot *slot = &judge->sent[number];

	return gateway ? answers_held(v, slot) : answers_plain(v, seen->bytes, slot);
}

static bool answers_any(struct judge *judge, const struct view *v, const struct storm_seen *seen,
			bool gateway)
{
	unsigned hint = gateway ? hint_of(v) : get32(seen->bytes + 2);

	for (unsigned i = hint; i < hint + 2 && i < judge->n_sent; i++)
		if (answers_slot(judge, v, seen, gateway, i))
			return true;
	judge->searched++;
	for (unsigned i = 0; i < judge->n_sent; i++)
		if (answers_slot(judge, v, seen, gateway, i))
			return true;
	return false;
}

static const char *judge_answer(struct judge *judge, const struct storm_seen *seen, bool gateway)
{
	unsigned at = ether_len(seen->bytes);
	struct view v;

	if (at > snap(seen) || !view(seen->bytes + at, snap(seen) - at, &v))
		return "neither encapsulated nor an IP packet";
	if (!is_sound(&v, snap(seen) - at) || v.ip_len + at > seen->len)
		return "unsound answer";
	if (!shared(src_of(&v), v.is_v6))
		return "not from a shared address";
	if (answers_any(judge, &v, seen, gateway))
		return NULL;
	return "an answer to nothing that was sent";
}

/* A frame that reached a stack as it was sent, but for the tag that the kernel takes off. */
static bool is_frame(const struct storm_slot *slot, const struct storm_seen *seen)
{
	unsigned tag = seen->vlan ? 4 : 0, len = snap(seen) - 12;

	if (slot->len != seen->len + tag || memcmp(slot->bytes, seen->bytes, 12) != 0)
		return false;
	if (tag && get32(slot->bytes + 12) != seen->vlan)
		return false;
	return memcmp(slot->bytes + 12 + tag, seen->bytes + 12, len) == 0;
}

static bool was_sent_so(struct judge *judge, const struct storm_seen *seen)
{
	unsigned hint = get32(seen->bytes + 8);

	if (hint < judge->n_sent && is_frame(&judge->sent[hint], seen))
		return true;
	judge->searched++;
	for (unsigned i = 0; i < judge->n_sent; i++)
		if (is_frame(&judge->sent[i], seen))
			return true;
	return false;
}

static bool is_expected(unsigned host, unsigned number, const struct view *v)
{
	int port = deciding_port(v);

	if (port < 0 || number != 1) /* fragments and ICMP errors: by what came before, or inside */
		return number == 1;
	if (host == 1)
		return port == FIRST;
	return port == OWN || port == OWN6 || port == SERVICE_TCP || port == SERVICE_UDP;
}

static bool is_neighbour_discovery(const struct view *v)
{
	return v->is_v6 && v->protocol == ICMP6 && v->l4 && v->ip[v->l4] >= 133 &&
	       v->ip[v->l4] <= 137;
}

static const char *judge_stack(struct judge *judge, const struct storm_seen *seen)
{
	unsigned at = ether_len(seen->bytes), number = 0;
	unsigned type = get16(seen->bytes + at - 2);
	struct view v;

	if (at < snap(seen) && view(seen->bytes + at, snap(seen) - at, &v) &&
	    type == (v.is_v6 ? 0x86dd : 0x0800) && !is_neighbour_discovery(&v))
		number = shared(dst_of(&v), v.is_v6);
	if (!number) {
		judge->passed++;
		return was_sent_so(judge, seen) ? NULL : "passed, but nobody sent it";
	}
	judge->delivered++;
	if (!is_expected(seen->place - STORM_PORTS, number, &v))
		return "delivered, but not expected";
	if (v.ip_len > seen->len - at)
		return "delivered with a length that lies";
	return was_sent(judge, &v, v.ip_len < snap(seen) - at ? v.ip_len : snap(seen) - at)
		       ? NULL
		       : "delivered, but nobody sent it";
}

void judge_frame(const struct storm_seen *seen, void *arg)
{
	struct judge *judge = arg;
	const char *why;
	unsigned k;
	int peer = -1;

	if (seen->place >= STORM_PORTS) {
		why = judge_stack(judge, seen);
	} else if ((peer = judge_hop(seen, &k)) >= 0 && peer < STORM_GATEWAY) {
		judge->encapsulated++;
		why = judge_encapsulated(judge, seen, (unsigned)peer);
	} else {
		judge->answered++;
		why = judge_answer(judge, seen, peer == STORM_GATEWAY);
	}
	if (why)
		judge_wrong(judge, seen, why);
}

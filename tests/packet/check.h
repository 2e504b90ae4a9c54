/* SPDX-License-Identifier: MIT */
/* What must hold for the frame that leaves, said again by other means than the code under test. */
#ifndef PS_TESTS_CHECK_H
#define PS_TESTS_CHECK_H

#include "cm.h"
#include "dispatch/steer-split.h"
#include "rows.h"

/* An Ethernet header by this hop, then a plain IPv4 header with a right checksum. */
static inline void check_head(const unsigned char *out, size_t l2, unsigned protocol, uint32_t src,
			      uint32_t dst)
{
	const unsigned char *ip = out + l2;

	assert_int_equal(get16(ip - 2), 0x0800);
	assert_int_equal(ip[0], 0x45);
	assert_int_equal(get16(ip + 6), 0x4000);
	assert_int_equal(ip[8], 64);
	assert_int_equal(ip[9], protocol);
	assert_int_equal(get32(ip + 12), src);
	assert_int_equal(get32(ip + 16), dst);
	assert_int_equal(checksum(ip, 20, 0), 0);
}

static inline void check_hop(const unsigned char *out, unsigned ifindex)
{
	struct ps_hop hop = hop_by(ifindex);

	assert_memory_equal(out, hop.dst_mac, 6);
	assert_memory_equal(out + 6, hop.src_mac, 6);
}

/* An outer header of IPv6: our flow in its label too, UDP checksum 0. */
static inline void check_outer6(const struct row *row, const unsigned char *ip, size_t inner_len)
{
	unsigned char src[16], dst[16];

	put_ip6(src, UNDERLAY6, SELF & 0xffff);
	put_ip6(dst, UNDERLAY6, row->dst & 0xffff);
	assert_int_equal(get16(ip - 2), 0x86dd);
	assert_int_equal(get32(ip), 0x60000000u | get16(ip + 40));
	assert_int_equal(get16(ip + 4), 8 + inner_len);
	assert_int_equal(ip[6], UDP);
	assert_int_equal(ip[7], 64);
	assert_memory_equal(ip + 8, src, 16);
	assert_memory_equal(ip + 24, dst, 16);
}

static inline unsigned overhead(const struct row *row)
{
	return row->world == OVER6 ? 48 : 28;
}

/* The headers before a packet of inner_len bytes that goes where the row says. */
static inline void check_outer(const struct row *row, const unsigned char *out, size_t inner_len)
{
	const unsigned char *udp = out + 14 + overhead(row) - 8;

	if (row->world == OVER6) {
		check_outer6(row, out + 14, inner_len);
	} else {
		check_head(out, 14, UDP, SELF, row->dst);
		assert_int_equal(get16(out + 16), 28 + inner_len);
	}
	assert_true(get16(udp) >= 49152);
	assert_int_equal(get16(udp + 2), row->port);
	assert_int_equal(get16(udp + 4), 8 + inner_len);
	assert_int_equal(get16(udp + 6), 0);
}

/* One of two frames: the outer headers, the packet's own header but for what makes a fragment of it,
 * and its payload from `skip` on. */
static inline void check_piece(const struct row *row, const unsigned char *in, struct layout at,
			       const unsigned char *out, size_t len, size_t skip, size_t payload)
{
	const unsigned char *whole = in + at.ip, *ip = out + 14 + overhead(row);
	unsigned more = skip ? get16(whole + 6) & 0x2000 : 0x2000;

	assert_int_equal(len, 14 + overhead(row) + 20 + payload);
	check_outer(row, out, 20 + payload);
	assert_memory_equal(ip, whole, 2);
	assert_int_equal(get16(ip + 2), 20 + payload);
	assert_int_equal(get16(ip + 4), row->packet.id);
	assert_int_equal(get16(ip + 6), more | ((get16(whole + 6) & 0x1fff) + skip / 8));
	assert_memory_equal(ip + 8, whole + 8, 2);
	assert_int_equal(checksum(ip, 20, 0), 0);
	assert_memory_equal(ip + 12, whole + 12, 8);
	assert_memory_equal(ip + 20, whole + 20 + skip, payload);
}

static inline void check_pieces(const struct row *row, const unsigned char *in, struct layout at,
				const struct ps_trace_result *out)
{
	assert_int_equal(row->pieces[0] + row->pieces[1], at.ip_len - 20);
	assert_true(out->len <= 1514 && out->second_len <= 1514);
	check_piece(row, in, at, out->frame, out->len, 0, row->pieces[0]);
	check_piece(row, in, at, out->second, out->second_len, row->pieces[0], row->pieces[1]);
	assert_int_equal(get16(out->frame + 14 + overhead(row) - 8),
			 get16(out->second + 14 + overhead(row) - 8));
	assert_memory_equal(out->frame, out->second, 14);
	check_hop(out->frame, out->ifindex);
}

static inline void check_encapsulated(const struct row *row, const unsigned char *in,
				      struct layout at, const unsigned char *out, size_t len)
{
	assert_int_equal(len, 14 + overhead(row) + at.ip_len + row->packet.padding);
	check_hop(out, row->action == PS_TRACE_TX ? HERE : ELSEWHERE);
	check_outer(row, out, at.ip_len);
	assert_memory_equal(out + 14 + overhead(row), in + at.ip, at.ip_len);
}

/* Where the answer's IP header is; checks what is before. */
static inline size_t check_way_back(const struct row *row, const unsigned char *in,
				    const unsigned char *out)
{
	size_t l2 = 14 + 4 * (size_t)row->packet.vlans;

	if (row->packet.outer.port) {
		check_hop(out, row->action == PS_TRACE_TX ? HERE : ELSEWHERE);
		return 14;
	}
	assert_memory_equal(out, in + 6, 6);
	assert_memory_equal(out + 6, in, 6);
	assert_memory_equal(out + 12, in + 12, l2 - 12);
	return l2;
}

static inline void check_reset(const struct row *row, const unsigned char *in, struct layout at,
			       const unsigned char *out, size_t len)
{
	size_t l2 = check_way_back(row, in, out);
	const unsigned char *ip = out + l2, *tcp = ip + 20, *asked = in + at.ip;
	size_t head = (asked[0] & 15u) * 4u;

	assert_int_equal(len, l2 + 40);
	check_head(out, l2, TCP, get32(asked + 16), get32(asked + 12));
	assert_int_equal(get16(ip + 2), 40);
	assert_int_equal(checksum(tcp, 20, pseudo(ip, 20)), 0);
	assert_int_equal(get16(tcp), get16(asked + head + 2));
	assert_int_equal(get16(tcp + 2), get16(asked + head));
	assert_int_equal(get32(tcp + 4), row->seq);
	assert_int_equal(get32(tcp + 8), row->ack);
	assert_int_equal(get16(tcp + 12), 5 << 12 | row->flags);
}

/* Destination unreachable with this code and second word of the ICMP header. */
static inline void check_error(const struct row *row, const unsigned char *in, struct layout at,
			       const unsigned char *out, size_t len, uint32_t code, uint32_t rest)
{
	size_t l2 = check_way_back(row, in, out);
	const unsigned char *ip = out + l2, *asked = in + at.ip;
	size_t quote = (asked[0] & 15u) * 4u + 8;

	assert_int_equal(len, l2 + 28 + quote);
	check_head(out, l2, ICMP, get32(asked + 16), get32(asked + 12));
	assert_int_equal(get16(ip + 2), 28 + quote);
	assert_int_equal(get16(ip + 20), 3 << 8 | code);
	assert_int_equal(get32(ip + 24), rest);
	assert_int_equal(checksum(ip + 20, 8 + quote, 0), 0);
	assert_memory_equal(ip + 28, asked, quote);
}

static inline void check_echo(const struct row *row, const unsigned char *in, struct layout at,
			      const unsigned char *out, size_t len)
{
	size_t l2 = check_way_back(row, in, out);
	const unsigned char *ip = out + l2, *asked = in + at.ip;

	assert_int_equal(len, l2 + at.ip_len);
	check_head(out, l2, ICMP, get32(asked + 16), get32(asked + 12));
	assert_int_equal(get16(ip + 2), at.ip_len);
	assert_int_equal(get16(ip + 20), 0);
	assert_int_equal(checksum(ip + 20, at.ip_len - 20, 0), 0);
	assert_memory_equal(ip + 24, asked + 24, at.ip_len - 24);
}

/* An Ethernet type, an IPv6 header back to where the packet came from. */
static inline void check_head6(const unsigned char *ip, const unsigned char *asked, unsigned next,
			       size_t len)
{
	assert_int_equal(get16(ip - 2), 0x86dd);
	assert_int_equal(get32(ip), 0x60000000);
	assert_int_equal(get16(ip + 4), len);
	assert_int_equal(ip[6], next);
	assert_int_equal(ip[7], 64);
	assert_memory_equal(ip + 8, asked + 24, 16);
	assert_memory_equal(ip + 24, asked + 8, 16);
	assert_int_equal(checksum(ip + 40, len, pseudo6(ip, len, next)), 0);
}

static inline void check_reset6(const struct row *row, const unsigned char *in, struct layout at,
				const unsigned char *out, size_t len)
{
	size_t l2 = check_way_back(row, in, out);
	const unsigned char *tcp = out + l2 + 40, *asked = in + at.ip;
	size_t head = 40 + 8 * row->packet.n_ext;

	assert_int_equal(len, l2 + 60);
	check_head6(out + l2, asked, TCP, 20);
	assert_int_equal(get16(tcp), get16(asked + head + 2));
	assert_int_equal(get16(tcp + 2), get16(asked + head));
	assert_int_equal(get32(tcp + 4), row->seq);
	assert_int_equal(get32(tcp + 8), row->ack);
	assert_int_equal(get16(tcp + 12), 5 << 12 | row->flags);
}

static inline void check_error6(const struct row *row, const unsigned char *in, struct layout at,
				const unsigned char *out, size_t len, uint32_t code, uint32_t rest)
{
	size_t l2 = check_way_back(row, in, out);
	size_t quote = at.ip_len < 128 ? at.ip_len & ~3u : 128;
	const unsigned char *icmp = out + l2 + 40;

	assert_int_equal(len, l2 + 48 + quote);
	check_head6(out + l2, in + at.ip, ICMP6, 8 + quote);
	assert_int_equal(get16(icmp), code);
	assert_int_equal(get32(icmp + 4), rest);
	assert_memory_equal(icmp + 8, in + at.ip, quote);
}

static inline void check_echo6(const struct row *row, const unsigned char *in, struct layout at,
			       const unsigned char *out, size_t len)
{
	size_t l2 = check_way_back(row, in, out);

	assert_int_equal(len, l2 + at.ip_len);
	check_head6(out + l2, in + at.ip, ICMP6, at.ip_len - 40);
	assert_int_equal(get16(out + l2 + 40), 129 << 8);
	assert_memory_equal(out + l2 + 44, in + at.ip + 44, at.ip_len - 44);
}

static inline void check_answer6(const struct row *row, const unsigned char *in, struct layout at,
				 const unsigned char *out, size_t len)
{
	if (row->reason == PS_REASON_REJECT_TCP)
		check_reset6(row, in, at, out, len);
	else if (row->reason == PS_REASON_ECHO_REPLY)
		check_echo6(row, in, at, out, len);
	else if (row->reason == PS_REASON_TOO_BIG)
		check_error6(row, in, at, out, len, 2 << 8, 1500 - overhead(row));
	else
		check_error6(row, in, at, out, len, 1 << 8 | 4, 0);
}

static inline bool is_answer(unsigned reason)
{
	return reason == PS_REASON_REJECT_TCP || reason == PS_REASON_REJECT_ICMP ||
	       reason == PS_REASON_TOO_BIG || reason == PS_REASON_ECHO_REPLY;
}

static inline void check_delivered(const struct row *row, const unsigned char *in, struct layout at,
				   const unsigned char *out, size_t len)
{
	if (!row->packet.outer.port) {
		assert_int_equal(len, at.len);
		assert_memory_equal(out, in, len);
		return;
	}
	assert_int_equal(len, 14 + at.ip_len + row->packet.padding);
	assert_memory_equal(out, in, 12);
	assert_int_equal(get16(out + 12), row->packet.v6 ? 0x86dd : 0x0800);
	assert_memory_equal(out + 14, in + at.ip, at.ip_len);
}

/* What the XDP program leaves for the one at tc: the note, and the whole packet encapsulated. */
static inline void check_noted(const struct row *row, const unsigned char *in, struct layout at,
			       const unsigned char *out, size_t len)
{
	struct ps_split_note note;

	assert_int_equal(len, sizeof(note) + 14 + overhead(row) + at.ip_len);
	memcpy(&note, out, sizeof(note));
	out += sizeof(note);
	assert_int_equal(note.magic, PS_SPLIT_MAGIC);
	assert_int_equal(note.head_len, 14 + overhead(row) + 20);
	assert_int_equal(note.first_len, row->pieces[0]);
	assert_int_equal(note.rest_len, row->pieces[1]);
	check_hop(out, note.ifindex);
	check_outer(row, out, at.ip_len);
	assert_memory_equal(out + 14 + overhead(row), in + at.ip, at.ip_len);
}

/* Judges a frame that left, by the reason. */
static inline void check_output(const struct row *row, const unsigned char *in, struct layout at,
				const unsigned char *out, size_t len)
{
	if (row->packet.v6 && is_answer(row->reason)) {
		check_answer6(row, in, at, out, len);
		return;
	}
	switch (row->reason) {
	case PS_REASON_TO_HOST:
	case PS_REASON_TO_SITE:
	case PS_REASON_TO_GATHERER:
		check_encapsulated(row, in, at, out, len);
		break;
	case PS_REASON_REJECT_TCP:
		check_reset(row, in, at, out, len);
		break;
	case PS_REASON_REJECT_ICMP:
		check_error(row, in, at, out, len, 3, 0);
		break;
	case PS_REASON_TOO_BIG:
		check_error(row, in, at, out, len, 4, 1500 - overhead(row));
		break;
	case PS_REASON_ECHO_REPLY:
		check_echo(row, in, at, out, len);
		break;
	case PS_REASON_DELIVER:
	case PS_REASON_DELIVER_SERVICE:
		check_delivered(row, in, at, out, len);
		break;
	default:
		assert_int_equal(len, at.len);
		assert_memory_equal(out, in, len);
		break;
	}
}

/* Judges all that left, by the trace. */
static inline void check_result(const struct row *row, const unsigned char *in, struct layout at,
				const struct ps_trace_result *out)
{
	if (row->reason == PS_REASON_SPLIT)
		check_pieces(row, in, at, out);
	else
		check_output(row, in, at, out->frame, out->len);
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Where in the ledger a port stands: arithmetic that the hooks, the dispatcher and user space share.
 *
 * The ports of a slice in use towards one peer are bits of pages.  A peer gets a narrow page first,
 * 256 ports of the slice that a hash of the peer names, and wide ones, 2,048 ports each, when that
 * is full.  A slice of 256 ports or less has a narrow page only.
 *
 *   slice of 2,048   |0 ............ |narrow page| ..................... |exclusive|
 *   wide page        |bits           |   hole    | bits                  | apart   |
 *
 * So each (port, peer) has one place, computed from the two and the slice's size alone: nothing of
 * it depends on which slices this host has, or on how a generation numbers them.  Ports without a
 * peer stand in narrow pages of their own (peer zero).
 *
 * What may be *drawn* of a page is a range of bits but for the hole; other bits (the exclusive block
 * towards a peer, the shared ports without one) are claimed one by one, and counted apart, so that
 * the count of what was drawn says whether a page is full.
 */
#ifndef PS_EGRESS_PAGE_H
#define PS_EGRESS_PAGE_H

#include <linux/types.h>

#include "egress/abi.h"

#ifdef __bpf__
#include <bpf/bpf_endian.h>
#define PS_PAGE_NTOHS(x) bpf_ntohs(x)
#define PS_PAGE_HTONS(x) bpf_htons(x)
#else
#include <arpa/inet.h>
#define PS_PAGE_NTOHS(x) ntohs(x)
#define PS_PAGE_HTONS(x) htons(x)
#endif

#define PS_PURE static inline __attribute__((always_inline))

enum {
	PS_NARROW_SHIFT = 8,
	PS_NARROW_WORDS = 4, /* of 64 bits */
	PS_WIDE_SHIFT = 11,
	PS_WIDE_WORDS = 32,
	PS_NO_HOLE = 255,
	PS_WHOLE_SHIFT = 16,   /* a whole address, of which ports below 1,024 are nobody's */
	PS_WHOLE_UNUSABLE = 4, /* narrow pages' worth of them */
	PS_EXCLUSIVE_PART = 8, /* an eighth of the slice is exclusive, PS_EXCLUSIVE_MAX at most */
};

/* Key of maps `pages` and `wide_pages`. */
struct ps_page_key {
	union ps_ip16 ours, peer; /* peer zero: ports held without one */
	__u16 base;               /* first port of the page */
	__be16 peer_port;
	__u8 protocol;
	__u8 shift; /* of the slice */
	__u16 pad;
};
_Static_assert(sizeof(struct ps_page_key) == 40, "map key layout is ABI");

/* What of a page may be drawn: bits [first, end), but for the 256 that begin at word `hole`. */
struct ps_page_draw {
	__u16 first, end;
	__u16 n;      /* how many */
	__u8 hole;    /* or PS_NO_HOLE */
	__u8 is_warm; /* of a page in a map: used since the sweeper came by */
};

/* Head of the values of maps `pages` and `wide_pages`; the bits follow. */
struct ps_page {
	__u64 state; /* generation, life, counts (ledger.h) */
	struct ps_page_key key;
	struct ps_page_draw draw;
};

struct ps_narrow_page {
	struct ps_page head;
	__u64 words[PS_NARROW_WORDS];
};
_Static_assert(sizeof(struct ps_narrow_page) == 88, "map value layout is ABI");

struct ps_wide_page {
	struct ps_page head;
	__u64 words[PS_WIDE_WORDS];
};
_Static_assert(sizeof(struct ps_wide_page) == 312, "map value layout is ABI");

/* Which page towards a peer, and what of it. */
struct ps_page_place {
	__u32 n_words; /* PS_NARROW_WORDS or PS_WIDE_WORDS */
	__u32 base;    /* its first port */
	__u32 bit;
	struct ps_page_draw draw;
};

/* Of flow, src, dst, dport, protocol and shift count. */
PS_PURE struct ps_page_key ps_page_key_of(const struct ps_claim_key *flow, __u32 base)
{
	return (struct ps_page_key){
		.ours = flow->src,
		.peer = flow->dst,
		.base = (__u16)base,
		.peer_port = flow->dport,
		.protocol = flow->protocol,
		.shift = flow->shift,
	};
}

/* The claim that a bit of a page stands for. */
PS_PURE struct ps_claim_key ps_page_flow(const struct ps_page *page, __u32 bit)
{
	return (struct ps_claim_key){
		.src = page->key.ours,
		.dst = page->key.peer,
		.sport = PS_PAGE_HTONS((__u16)(page->key.base + bit)),
		.dport = page->key.peer_port,
		.protocol = page->key.protocol,
		.shift = page->key.shift,
	};
}

/* Mixes a peer into 32 bits (the finish of MurmurHash3). */
PS_PURE __u32 ps_peer_hash(const struct ps_claim_key *flow)
{
	__u32 hash = flow->dst.words[0];

	hash = hash * 0x9e3779b1u + flow->dst.words[1];
	hash = hash * 0x9e3779b1u + flow->dst.words[2];
	hash = hash * 0x9e3779b1u + flow->dst.words[3];
	hash = hash * 0x9e3779b1u + ((__u32)flow->dport << 8 | flow->protocol);
	hash = (hash ^ hash >> 16) * 0x85ebca6bu;
	hash = (hash ^ hash >> 13) * 0xc2b2ae35u;
	return hash ^ hash >> 16;
}

/* First port of the narrow page towards this peer, of a slice larger than that which begins at
 * slice_base.  Never the last 256 ports, where the exclusive block may be, whoever has one. */
PS_PURE __u32 ps_narrow_base(__u32 slice_base, __u32 shift, __u32 hash)
{
	__u32 skip = shift == PS_WHOLE_SHIFT ? PS_WHOLE_UNUSABLE : 0;
	__u32 n = (1u << (shift - PS_NARROW_SHIFT)) - 1 - skip;

	return slice_base + ((skip + (__u32)((__u64)hash * n >> 32)) << PS_NARROW_SHIFT);
}

PS_PURE __u32 ps_slice_base(__u32 port, __u32 shift)
{
	return port >> shift << shift;
}

/* Sets base, n_words and bit of the place where flow's port stands. */
PS_PURE void ps_place_port(const struct ps_claim_key *flow, struct ps_page_place *ret)
{
	__u32 port = PS_PAGE_NTOHS(flow->sport), shift = flow->shift & 31, size = PS_NARROW_SHIFT;

	ret->n_words = PS_NARROW_WORDS;
	if (shift <= PS_NARROW_SHIFT) {
		size = shift;
	} else if (!ps_ip16_is_zero(&flow->dst) &&
		   ps_narrow_base(ps_slice_base(port, shift), shift, ps_peer_hash(flow)) !=
			   ps_slice_base(port, PS_NARROW_SHIFT)) {
		size = shift < PS_WIDE_SHIFT ? shift : PS_WIDE_SHIFT;
		ret->n_words = PS_WIDE_WORDS;
	}
	ret->base = ps_slice_base(port, size);
	ret->bit = port - ret->base;
}

/* Ports of the slice that are drawn towards peers, or without one. */
PS_PURE __u32 ps_slice_draws(const struct ps_choice_slice *slice, int is_peerless)
{
	return is_peerless ? slice->n_exclusive : slice->n_ports - slice->n_exclusive;
}

/* Sets place->draw; its base and n_words are set, and the page is of this slice. */
PS_PURE void ps_place_shape(const struct ps_choice_slice *slice, int is_peerless, __u32 narrow_base,
			    struct ps_page_place *place)
{
	__u32 shared = (__u32)slice->first_port + slice->n_ports - slice->n_exclusive;
	__u32 from = is_peerless ? shared : slice->first_port;
	__u32 to = is_peerless ? shared + slice->n_exclusive : shared;
	__u32 base = place->base, end = base + place->n_words * 64;

	from = from < base ? base : from > end ? end : from;
	to = to < from ? from : to > end ? end : to;
	place->draw = (struct ps_page_draw){
		.first = (__u16)(from - base),
		.end = (__u16)(to - base),
		.n = (__u16)(to - from),
		.hole = PS_NO_HOLE,
	};
	if (place->n_words != PS_WIDE_WORDS || narrow_base < base || narrow_base >= end)
		return;
	place->draw.hole = (__u8)((narrow_base - base) >> 6);
	place->draw.n -= 1u << PS_NARROW_SHIFT;
}

/* Pages of the slice towards one peer, or without one. */
PS_PURE __u32 ps_slice_pages(const struct ps_choice_slice *slice, int is_peerless)
{
	if (is_peerless || slice->shift <= PS_NARROW_SHIFT)
		return 1;
	return slice->shift <= PS_WIDE_SHIFT ? 2
					     : 1 + (1u << ((slice->shift & 31) - PS_WIDE_SHIFT));
}

/* Sets base, n_words and draw of the nth page to draw from for flow, whose dst, dport and protocol
 * count; nth is below ps_slice_pages().  The narrow one comes first. */
PS_PURE void ps_place_nth(const struct ps_choice_slice *slice, const struct ps_claim_key *flow,
			  __u32 nth, struct ps_page_place *ret)
{
	__u32 shift = slice->shift & 31, start = ps_slice_base(slice->first_port, shift);
	int is_peerless = ps_ip16_is_zero(&flow->dst);
	__u32 base = start, narrow = start, hash = ps_peer_hash(flow);

	if (shift > PS_NARROW_SHIFT)
		narrow = ps_narrow_base(start, shift, hash);
	if (is_peerless && shift > PS_NARROW_SHIFT)
		base = start + (1u << shift) - (1u << PS_NARROW_SHIFT);
	else if (!nth)
		base = narrow;
	else if (shift > PS_WIDE_SHIFT)
		base = start +
		       (((hash + nth) & ((1u << (shift - PS_WIDE_SHIFT)) - 1)) << PS_WIDE_SHIFT);
	ret->n_words = nth && !is_peerless ? PS_WIDE_WORDS : PS_NARROW_WORDS;
	ret->base = base;
	ps_place_shape(slice, is_peerless, narrow, ret);
}

/* Where to begin to draw; random is of 32 bits. */
PS_PURE __u32 ps_draw_nth(const struct ps_page_draw *draw, __u32 random)
{
	return draw->first + (__u32)((__u64)random * (__u32)(draw->end - draw->first) >> 32);
}

/* Is this bit one that is drawn? */
PS_PURE int ps_draw_has(const struct ps_page_draw *draw, __u32 bit)
{
	return bit >= draw->first && bit < draw->end && (bit >> 6) - draw->hole >= PS_NARROW_WORDS;
}

#endif

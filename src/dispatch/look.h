/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Where frame and tables are: the functions that whoever includes decide.h must define, and the
 * verdict on a packet.
 */
#ifndef PS_DISPATCH_LOOK_H
#define PS_DISPATCH_LOOK_H

#include <linux/bpf.h>

#include "dispatch/steer-split.h"
#include "dispatch/steer.h"

struct ps_frame;

static void *ps_frame_data(struct ps_frame *frame);
static void *ps_frame_end(struct ps_frame *frame);
/* Moves the start by delta bytes (negative: room before the frame), 0 or not. */
static int ps_frame_move(struct ps_frame *frame, int delta);
/* Cuts the frame to len bytes, 0 or not. */
static int ps_frame_cut(struct ps_frame *frame, __u32 len);
/* Notes before the frame how to split it, 0 or not. */
static int ps_frame_note(struct ps_frame *frame, const struct ps_split_note *note);
/* XDP_TX or XDP_REDIRECT. */
static int ps_frame_leave(struct ps_frame *frame, __u32 ifindex);

static const struct ps_dispatch_config *ps_look_config(struct ps_frame *frame);
/* 1: the address is shared, and *ret is set. */
static int ps_look_address(struct ps_frame *frame, __be32 ip4_be, struct ps_address *ret);
static const struct ps_address *ps_look_address6(struct ps_frame *frame, const __be32 *ip6);
static const struct ps_owners *ps_look_owners(struct ps_frame *frame, __u32 row);
static const struct ps_group *ps_look_group(struct ps_frame *frame, __u32 group);
static const struct ps_peer *ps_look_host(struct ps_frame *frame, __u32 host);
static const struct ps_peer *ps_look_edge(struct ps_frame *frame, __u32 site);
static int ps_look_source(struct ps_frame *frame, __be32 ip4_be);
static int ps_look_service(struct ps_frame *frame, const struct ps_service_key *key);
/* True when the flow is in the ledger, or is that of a TCP socket that does not listen. */
static int ps_look_claim(struct ps_frame *frame, const struct ps_flow *flow);
static int ps_look_socket(struct ps_frame *frame, const struct ps_flow *flow);
/* IPv6: DELIVER, DELIVER_SERVICE or PS_UNDECIDED; ports and protocol are flow's. */
static __u32 ps_look_expected6(struct ps_frame *frame, const __be32 *ours, const __be32 *peer,
			       const struct ps_flow *flow);
static __u64 ps_look_clock(struct ps_frame *frame);
/* Takes one answer of this kind from the budget. */
static int ps_look_budget(struct ps_frame *frame, enum ps_budget_kind kind, __u64 now_ns,
			  __u32 per_s);

/* The host of this site that gathers the fragments with this hash (gatherer.h); -1: none. */
static __s32 ps_look_gatherer(struct ps_frame *frame, __u32 group, __u32 hash);
/* The owner noted for the packet's fragments, index into hosts; -1: none, or too long ago. */
static __s32 ps_look_fragment(struct ps_frame *frame, const struct ps_fragment_key *key,
			      __u64 now_ns);
static void ps_note_fragment(struct ps_frame *frame, const struct ps_fragment_key *key, __u32 host,
			     __u64 now_ns);
/* Hands a hint to user space; may fail silently. */
static void ps_frame_hint(struct ps_frame *frame, const struct ps_mtu_hint *hint);

struct ps_verdict {
	__u32 reason;     /* enum ps_dispatch_reason */
	__u32 l2_len;     /* of the frame as it came: Ethernet header and VLAN tags, bytes */
	__u32 ip_off;     /* of the packet to a shared address, bytes from the start of the frame */
	__u32 ip_len;     /* its total length */
	__u32 came;       /* UDP port by which it came encapsulated, 0: from the wire */
	__u32 goes;       /* UDP port to encapsulate it to */
	__s32 site, host; /* of its owner as far as known, -1: not */
	const struct ps_peer *peer; /* to encapsulate to */
	struct ps_hop hop;          /* to leave by */
	struct ps_flow flow;
	struct ps_reset reset;
	__u16 quote_len;  /* of an ICMP error to make */
	__u16 answer_mtu; /* that it tells; 0: none */
	__u32 is_v6;      /* the packet; flow then holds digests of its addresses */
};

#endif

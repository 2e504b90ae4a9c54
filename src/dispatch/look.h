/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Where frame and tables are: the functions that whoever includes decide.h must define, and the
 * verdict on a packet, which the stages of a decision fill one after the other.
 */
#ifndef PS_DISPATCH_LOOK_H
#define PS_DISPATCH_LOOK_H

#include <linux/bpf.h>

#include "dispatch/steer-split.h"
#include "dispatch/steer.h"

#ifdef __bpf__
/* A stage is a global function: the verifier walks it once and on its own, not again for each way
 * that leads to it, and for all it knows v may be NULL.  What callers hand over must not depend on
 * what clang sees of its inside, nor what they make of its answer. */
#define PS_STAGE(name)                                                                     \
	PS_INLINE __u32 name##_inside(struct ps_frame *frame, struct ps_verdict *v);       \
	__attribute__((noinline)) __u32 name(struct ps_frame *frame, struct ps_verdict *v) \
	{                                                                                  \
		__u32 next = v ? name##_inside(frame, v) : 0;                              \
                                                                                           \
		__asm__ volatile("" : "+r"(next) : "r"(frame));                            \
		return next;                                                               \
	}                                                                                  \
	PS_INLINE __u32 name##_inside(struct ps_frame *frame, struct ps_verdict *v)
#else
struct ps_frame;
#define PS_STAGE(name) static __u32 name(struct ps_frame *frame, struct ps_verdict *v)
#endif

/* What a stage says beside a reason: which stage goes on. */
enum ps_next {
	PS_NEXT_GATHER = PS_UNDECIDED + 1,
	PS_NEXT_PING,
	PS_NEXT_HINT,
	PS_NEXT_EXPECT,
	PS_NEXT_REFUSE,
	PS_NEXT_SEND,
	PS_NEXT_TOO_BIG,
};

/* What a packet is, as far as it matters where it goes. */
enum ps_form {
	PS_FORM_WHOLE,
	PS_FORM_PING,  /* an echo request */
	PS_FORM_FIRST, /* the first of its packet's fragments */
	PS_FORM_LATER, /* another */
};

struct ps_verdict {
	__u32 reason;     /* enum ps_dispatch_reason, or PS_UNDECIDED and beyond (wire.h) */
	__s32 site, host; /* of its owner as far as known, -1: not */
	__u32 l2_len;     /* of the frame as it came: Ethernet header and VLAN tags, bytes */
	__u32 ip_off;     /* of the packet to a shared address, bytes from the start of the frame */
	__u32 ip_len;     /* its total length */
	__u32 l4_off;     /* of its transport header, from ip_off */
	__u32 room;       /* that the outer packet has for it; 0: from the wire */
	__u16 came;       /* UDP port by which it came encapsulated, 0: from the wire */
	__u16 goes;       /* UDP port to encapsulate it to */
	__u16 flow_port;  /* and from */
	__u8 is_v6;       /* the packet */
	__u8 form;        /* enum ps_form */
	__u32 to;         /* element of `peers`: owner, gatherer or edge */
	__u32 found;      /* what found it: reason to encapsulate for */
	__be32 fragment;  /* identification */
	__u8 may_split;   /* an IPv4 packet without DF */
	__u8 pad;
	__u16 quote_len;  /* of an ICMP error to make */
	__u16 answer_mtu; /* that it tells; 0: none */
	struct ps_address address;
	struct ps_hop hop; /* for an answer to leave by */
	struct ps_flow flow;
	struct ps_ends ends;
	struct ps_reset reset;
};

/* What became of a frame; site and host as in struct ps_verdict. */
struct ps_outcome {
	__u32 reason;
	__s32 site, host;
	int action; /* of XDP */
};

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
/* Hands a hint to user space; may fail silently. */
static void ps_frame_hint(struct ps_frame *frame, const struct ps_mtu_hint *hint);

static const struct ps_dispatch_config *ps_look_config(struct ps_frame *frame);
/* 1: the address is shared, and *ret is set. */
static int ps_look_address(struct ps_frame *frame, __be32 ip4_be, struct ps_address *ret);
static int ps_look_address6(struct ps_frame *frame, const __be32 *ip6, struct ps_address *ret);
/* PS_OWNER_NONE, or the byte that says who owns the slice. */
static __u8 ps_look_owner(struct ps_frame *frame, const struct ps_address *address, __u32 slice);
/* Elements i modulo PS_PEERS_MAX. */
static const struct ps_peer *ps_look_peer(struct ps_frame *frame, __u32 i);
static const struct ps_peer6 *ps_look_peer6(struct ps_frame *frame, __u32 i);
/* True for the underlay address of a host. */
static int ps_look_source(struct ps_frame *frame, const struct ps_source_key *key);
static int ps_look_service(struct ps_frame *frame, const struct ps_service_key *key);
/* True when the conversation is in the ledger, or that of a socket with a peer. */
static int ps_look_claim(struct ps_frame *frame, const struct ps_verdict *v);
static int ps_look_socket(struct ps_frame *frame, const struct ps_verdict *v);
static __u64 ps_look_clock(struct ps_frame *frame);
/* Takes one answer of this kind from the budget. */
static int ps_look_budget(struct ps_frame *frame, enum ps_budget_kind kind, __u64 now_ns,
			  __u32 per_s);

/* The host of the group that gathers the fragments with this hash (gatherer.h), an element of
 * peers; -1: none. */
static __s32 ps_look_gatherer(struct ps_frame *frame, __u32 group, __u32 hash);
/* The owner noted for the packet's fragments, an element of peers; -1: none, or too long ago. */
static __s32 ps_look_fragment(struct ps_frame *frame, const struct ps_fragment_key *key,
			      __u64 now_ns);
static void ps_note_fragment(struct ps_frame *frame, const struct ps_fragment_key *key, __u32 peer,
			     __u64 now_ns);

/* Longest packet that can go to the peer, bytes. */
PS_INLINE __u32 ps_room_to(struct ps_frame *frame, __u32 to)
{
	const struct ps_peer *peer = ps_look_peer(frame, to);

	return peer->kind == PS_PEER_V6 ? ps_look_peer6(frame, to)->room : peer->room;
}

/* The packet to a shared address; nothing of it is known to be within the frame. */
PS_INLINE const void *ps_packet_of(struct ps_frame *frame, const struct ps_verdict *v)
{
	const __u8 *data = ps_frame_data(frame);

	return data + (v->ip_off & 127); /* at most 90; the verifier does not remember */
}

#endif

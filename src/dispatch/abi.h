/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What the dispatcher's kernel half and user half share: map layouts, reasons, wire constants.
 *
 *   index16[dst >> 16] --> block[dst >> 8 & 255] -----------------------> owners[row + slice / 32]
 *      __u32, 0: none       8 bytes, bits 0: none   \                    /   one byte a slice
 *   index6[hash of dst's /112] -^ (as below)         address[dst & 255]       |
 *                                                       8 bytes              v
 *                                                     peers[group << 8 | byte], ready-made headers
 *
 * An IPv4 /24 whose addresses are all shared alike is told by its block alone, and their rows follow
 * one another; else the block says where its addresses are, as it always does in IPv6.
 *
 * The index alone decides that a packet is not ours.  One byte names the owner, so a change of
 * owner is one atomic store.  All multi-byte fields are in host order unless the type is __be.
 * Addresses of either family are four words in network order, IPv4 as ::ffff:a.b.c.d (base/ip.h).
 */
#ifndef PS_DISPATCH_ABI_H
#define PS_DISPATCH_ABI_H

#include <linux/types.h>

enum {
	PS_HOSTS_MAX = 4096,
	PS_SITES_MAX = 256,
	PS_GROUPS_MAX =
		32, /* [0]: the edges, by site; then hosts of the own site; a power of two */
	PS_ROW_SLICES = 32, /* slices in one element of the owners map */
	PS_GROUP_SIZE = 256,
	PS_GROUP_MAX = 255, /* owner bytes 1..254 pick a host within the group; 0: nobody */
	PS_PEERS_MAX = PS_GROUPS_MAX * PS_GROUP_SIZE,
	PS_OWNER_NONE = 0,
	PS_INDEX6_PROBES = 8,
	PS_BLOCKS_NEAR = 64, /* those with lower numbers are read without a look-up */
	PS_GUE_PORT = 6080,  /* no steps left; 6079: one; 6078: two (design.md §3) */
	PS_GUE_STEPS_MAX = 2,
	PS_REJECTS_PER_S = 1000, /* preset, per CPU; as net.ipv4.icmp_msgs_per_sec */
	PS_OVERHEAD_V4 = 28,     /* outer IPv4 and UDP header, bytes */
	PS_OVERHEAD_V6 = 48,     /* outer IPv6 and UDP header */
	PS_MTU_MIN =
		576 + 28, /* least learned from ICMP: what every host takes (RFC 791), outside */
	PS_MTU_MIN_V6 = 1280, /* of an IPv6 underlay (RFC 8200 §5) */
};

/* What the dispatcher did with a packet, and why: enum, metric label, sentence.  The order is the
 * index in the counters map. */
#define PS_DISPATCH_REASONS(X)                                                                     \
	X(NOT_OURS, "not_ours", "destination is not a shared address")                             \
	X(DELIVER, "deliver", "owner is this host and the packet is expected")                     \
	X(DELIVER_SERVICE, "deliver_service", "published service of this host")                    \
	X(TO_HOST, "to_host", "encapsulated to the host that owns the slice")                      \
	X(TO_SITE, "to_site", "encapsulated to the site where the address is")                     \
	X(REJECT_TCP, "reject_tcp", "nobody owns the port: answered with RST")                     \
	X(REJECT_ICMP, "reject_icmp", "nobody owns the port: answered with ICMP unreachable")      \
	X(DROP_UNOWNED, "drop_unowned", "nobody owns the port: dropped as the pool says")          \
	X(DROP_REJECT_LIMIT, "drop_reject_limit", "nobody owns the port: over the reject rate")    \
	X(DROP_REJECT_STALE, "drop_reject_stale", "nobody owns the port: table not known fresh")   \
	X(DROP_REJECT_NEVER, "drop_reject_never",                                                  \
	  "nobody owns the port: RST, ICMP or group address")                                      \
	X(DROP_NO_STEPS, "drop_no_steps", "encapsulated with no steps left and not for this host") \
	X(DROP_OTHER_SITE, "drop_other_site", "encapsulated, but the address is at another site")  \
	X(DROP_FRAGMENT, "drop_fragment", "fragment too short, or over the header or the end")     \
	X(DROP_PROTOCOL, "drop_protocol", "protocol without ports")                                \
	X(DROP_ICMP_TYPE, "drop_icmp_type", "ICMP type that has no owner")                         \
	X(DROP_ECHO_REQUEST, "drop_echo_request",                                                  \
	  "ping that the pool or its form leaves unanswered")                                      \
	X(DROP_TRUNCATED, "drop_truncated", "packet ends before its headers say")                  \
	X(DROP_HEADER, "drop_header", "malformed IP or TCP header")                                \
	X(DROP_INNER, "drop_inner",                                                                \
	  "encapsulated packet is malformed, from a shared address or not to one")                 \
	X(DROP_STRANGER, "drop_stranger", "encapsulated by an address that is no host of ours")    \
	X(DROP_TOO_BIG, "drop_too_big",                                                            \
	  "does not fit the underlay once encapsulated, not answered")                             \
	X(DROP_NO_HOP, "drop_no_hop", "next hop of the owner is not resolved")                     \
	X(DROP_ROOM, "drop_room", "no head room to encapsulate")                                   \
	X(DROP_EMBEDDED, "drop_embedded", "ICMP error about a packet that we cannot have sent")    \
	X(ECHO_REPLY, "echo_reply", "ping to a shared address: answered")                          \
	X(DROP_ANSWER_LIMIT, "drop_answer_limit", "ping or too big: over the rate of answers")     \
	X(TOO_BIG, "too_big", "does not fit the underlay once encapsulated: sender told by ICMP")  \
	X(MTU_HINT, "mtu_hint", "ICMP says that what we encapsulated was too big: passed, noted")  \
	X(TO_GATHERER, "to_gatherer", "fragment encapsulated to the host that gathers its packet") \
	X(DROP_STRAY, "drop_stray", "fragment that came before the first one of its packet")       \
	X(SPLIT, "split", "does not fit the underlay once encapsulated: sent in two pieces")       \
	X(DROP_SPLIT, "drop_split", "was to be sent in two pieces, and could not be")

#define PS_DISPATCH_REASON_ENUM(name, label, text) PS_REASON_##name,
enum ps_dispatch_reason { PS_DISPATCH_REASONS(PS_DISPATCH_REASON_ENUM) PS_REASON_MAX };
#undef PS_DISPATCH_REASON_ENUM

enum ps_dispatch_flags {
	PS_ADDRESS_DROP = 1,   /* pool says `unowned: drop` */
	PS_ADDRESS_WHOLE = 2,  /* slice: whole; ports below 1,024 are nobody's */
	PS_ADDRESS_SILENT = 4, /* pool says `echo: drop` */
};

/* Blocks: in ps_address.row_bits of one whose addresses are alike.  Of another row is the number of their
 * 256 elements; 0: none. */
enum { PS_BLOCK_ALIKE = 0x80 };

/* Element of map `index6`: a /112 with shared addresses, at its hash or up to 7 places behind it.
 * Its block is one of `blocks`, as that of an IPv4 /16 is. */
struct ps_index6 {
	__be32 prefix[3];
	__u16 prefix_low; /* bits 96 to 111, host order */
	__u16 pad;
	__u32 block; /* 0: free */
	__u32 pad2;
};
_Static_assert(sizeof(struct ps_index6) == 24, "map value layout is ABI");

/* Element of map `addresses`: one shared address; of map `blocks`: the first of 256 alike. */
struct ps_address {
	__u32 row;     /* first element in `owners` */
	__u8 group;    /* its owner bytes mean peers of this; 0: it is at another site */
	__u8 row_bits; /* of blocks: 1 << row_bits elements later the next address\'s row begins */
	__u8 site;     /* index of the site the address is at */
	__u8 bits;     /* shift (low 5 bits), enum ps_dispatch_flags << 5; 0: not shared */
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct ps_address) == 8, "map value layout is ABI");

/* Element of map `owners`. */
struct ps_owners {
	__u8 slot[PS_ROW_SLICES]; /* index into the group, PS_OWNER_NONE: nobody */
};

/* Ethernet header of the next hop and the interface to leave by.  ifindex 0: not resolved.
 * Two aligned words, each written by one store while the program runs (steer.h, ps_hop_read). */
struct ps_hop {
	__u8 dst_mac[6], src_mac[6];
	__u32 ifindex;
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct ps_hop) == 16, "map value layout is ABI");

enum ps_peer_kind {
	PS_PEER_V4,   /* another host, or the edge of another site, over IPv4 */
	PS_PEER_SELF, /* this host or site */
	PS_PEER_V6,   /* as PS_PEER_V4, over IPv6: its address is in `peers6` */
};

/* Element of array `peers`: where to send and how.  [site]: edge of a site; from PS_GROUP_SIZE on
 * the host that an owner byte of a group means. */
struct ps_peer {
	struct ps_hop hop;
	__be32 dst;   /* underlay address of the host, or edge of the site; IPv6: a digest of it */
	__be32 src;   /* own underlay address */
	__u16 room;   /* longest packet that fits over IPv4, bytes; lowered while the program runs;
		       * 0: this host, or over IPv6 */
	__u16 csum;   /* partial sum of the outer IPv4 header without total length (RFC 1071) */
	__u16 host;   /* its number; of an edge: the site */
	__u8 kind;    /* enum ps_peer_kind */
	__u8 is_used; /* those of a group are used from the front */
};
_Static_assert(sizeof(struct ps_peer) == 32, "map value layout is ABI");

/* Element of array `peers6`, at the same place. */
struct ps_peer6 {
	__be32 dst[4]; /* IPv4 as ever */
	__u16 room;    /* over IPv6; 0: not so */
	__u16 pad[3];
};
_Static_assert(sizeof(struct ps_peer6) == 24, "map value layout is ABI");

/* The one element of map `config`; written by the agent while the program runs. */
struct ps_dispatch_config {
	__be32 underlay;        /* own; encapsulated packets are for it, or for `edge`; 0: none */
	__be32 edge;            /* own site's */
	struct ps_hop gateway;  /* by the default route: for answers to decapsulated packets */
	struct ps_hop gateway6; /* the same for IPv6 */
	__u64 fresh_until_ns;   /* CLOCK_BOOTTIME; rejects are made only before it */
	__u32 reject_per_s;     /* of each budget, per CPU */
	__u8 site;              /* own */
	__u8 index6_bits; /* index6 has 1 << index6_bits elements; 0: no IPv6 address is shared */
	__u8 pad[2];
	__be32 underlay6[4], edge6[4]; /* own, where the underlay is IPv6; zeros: none */
};
_Static_assert(sizeof(struct ps_dispatch_config) == 88, "map value layout is ABI");

/* What is limited apart, so that pings cannot use up rejects: elements of per-CPU map `budget`. */
enum ps_budget_kind {
	PS_BUDGET_REJECT,
	PS_BUDGET_ECHO,
	PS_BUDGET_TOO_BIG,
	PS_BUDGET_HINT,
	PS_BUDGET_MAX,
};

/* When the answers given so far are paid for. */
struct ps_budget {
	__u64 paid_ns; /* CLOCK_BOOTTIME */
};

/* Key of map `services`: a published port of this host. */
struct ps_service_key {
	__be32 address[4];
	__be16 port;
	__u8 protocol;
	__u8 pad;
};
_Static_assert(sizeof(struct ps_service_key) == 20, "map key layout is ABI");

/* Key of map `sources`: underlay address of a host. */
struct ps_source_key {
	__be32 address[4];
};

/* Key of map `fragments`: what the fragments of one packet have in common. */
struct ps_fragment_key {
	__be32 src[4], dst[4];
	__be32 id;
	__u8 protocol;
	__u8 version;
	__u16 pad;
};
_Static_assert(sizeof(struct ps_fragment_key) == 40, "map key layout is ABI");

/* Whose the packet is, by its first fragment. */
struct ps_fragment_note {
	__u64 seen_ns; /* CLOCK_BOOTTIME */
	__u32 peer;    /* index into `peers` */
	__u32 pad;
};
_Static_assert(sizeof(struct ps_fragment_note) == 16, "map value layout is ABI");

/* Record of ring buffer `hints`: a router says how large a packet to dst may be. */
struct ps_mtu_hint {
	__u8 dst[16]; /* underlay or edge; IPv4 as ::ffff:a.b.c.d */
	__u32 mtu;    /* bytes of outer packet, at least PS_MTU_MIN */
	__u32 pad;
};
_Static_assert(sizeof(struct ps_mtu_hint) == 24, "ring buffer record layout is ABI");

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What the outgoing path's kernel half and user half share.  All multi-byte fields are in host
 * order unless the type is __be.
 */
#ifndef PS_EGRESS_ABI_H
#define PS_EGRESS_ABI_H

#include <linux/types.h>

#include "egress/address.h"

enum {
	PS_CLASSES_MAX = 1024,
	PS_CHOICE_SLICES_MAX = 65536, /* slices of this host, all pools together */
	PS_PAGES_MAX = 1 << 17,       /* narrow: destinations with a port in use; 25 MB */
	PS_WIDE_PAGES_MAX = 1 << 14,  /* of destinations with more than 256; 7 MB */
	PS_QUARANTINE_MAX = 1 << 18,  /* memory as they come */
	PS_USES_MAX = 1 << 16,        /* memory as they come */
	PS_EXCLUSIVE_MAX = 256,       /* ports of the exclusive block */
	PS_SUSPECTS_MAX = 1 << 16,    /* claims that a repair examines at once; while it runs */
	PS_COMM_LEN = 16,             /* TASK_COMM_LEN, NUL included */
	PS_CLASS_NONE = 0xffff,       /* in events: of no class */
};

/* Value of map `services` (by src, sport, protocol; src 0.0.0.0 or `::`: a service on whatever
 * address of the family).  address is zero where several addresses publish the port. */
struct ps_service_value {
	union ps_ip16 address;
};

/* How long Linux keeps TIME_WAIT (TCP_TIMEWAIT_LEN, include/net/tcp.h). */
#define PS_QUARANTINE_NS (60ull * 1000 * 1000 * 1000)

/* What happened on the outgoing path: enum, metric label, sentence. */
#define PS_EGRESS_REASONS(X)                                                                     \
	X(CONNECT, "connect", "connect() given a port of this host's slices")                    \
	X(RECONNECT, "reconnect", "connect() kept the port the socket already had")              \
	X(BIND, "bind", "bind() moved to a port of this host's slices")                          \
	X(DIRECT, "direct", "destination is reached with the host's own address")                \
	X(OUTSIDE, "outside", "program belongs to no class")                                     \
	X(RELEASE, "release", "port given back")                                                 \
	X(QUARANTINE, "quarantine", "port kept for its TIME_WAIT (no timestamps)")               \
	X(LEAK, "leak", "port in use by nobody: given back by the sweep")                        \
	X(SEED, "seed", "port of a socket older than the hooks")                                 \
	X(WATERMARK_70, "watermark_70", "70 % of the ports towards this destination are in use") \
	X(WATERMARK_90, "watermark_90", "90 % of the ports towards this destination are in use") \
	X(WATERMARK_FULL, "watermark_full", "the last port towards this destination was given")  \
	X(EXHAUSTED, "exhausted", "no port left towards this destination: EADDRNOTAVAIL")        \
	X(BLOCKED, "blocked",                                                                    \
	  "every port left is bound by another socket of this host: EADDRNOTAVAIL")              \
	X(STRAY, "stray", "port passed by: a socket that has no claim is connected with it")     \
	X(NO_SLICE, "no_slice", "the class's pool has no slice on this host: EADDRNOTAVAIL")     \
	X(NO_MEMORY, "no_memory", "the ledger has no room for another page: ENOBUFS")            \
	X(REFUSED_PORT, "refused_port",                                                          \
	  "socket is bound outside this host's slices: EADDRNOTAVAIL")                           \
	X(REFUSED_SHARED, "refused_shared", "destination is a shared address: ECONNREFUSED")     \
	X(REFUSED_BIND, "refused_bind", "may not bind this shared address or port: EACCES")      \
	X(REPLY, "reply", "unconnected UDP send to a direct destination, which may answer")      \
	X(REFUSED_UNCONNECTED, "refused_unconnected", "unconnected UDP send: EDESTADDRREQ")      \
	X(REFUSED_RAW, "refused_raw",                                                            \
	  "raw socket, or of a protocol without ports of ours: EACCES")                          \
	X(REFUSED_PING, "refused_ping", "ping without connect(): dropped (IPv4: ENOBUFS)")       \
	X(REFUSED_V4, "refused_v4", "no shared IPv4 address for this class: ENETUNREACH")        \
	X(REFUSED_V6, "refused_v6", "no shared IPv6 address for this class: ENETUNREACH")        \
	X(REFUSED_KERNEL, "refused_kernel",                                                      \
	  "kernel refused the shared address (its local route is missing?)")                     \
	X(GUARD_PORT, "guard_port",                                                              \
	  "left with a shared address and a port outside our slices: dropped")                   \
	X(GUARD_FRAGMENT, "guard_fragment",                                                      \
	  "fragment from a shared address without its first: dropped")                           \
	X(GUARD_PROTOCOL, "guard_protocol",                                                      \
	  "protocol without ports from a shared address: dropped")                               \
	X(GUARD_NEIGHBOUR, "guard_neighbour",                                                    \
	  "neighbour discovery from or for a shared address: dropped")                           \
	X(GUARD_INGRESS, "guard_ingress", "for a shared address, not by an uplink: dropped")

#define PS_EGRESS_REASON_ENUM(name, label, text) PS_EGRESS_##name,
enum ps_egress_reason { PS_EGRESS_REASONS(PS_EGRESS_REASON_ENUM) PS_EGRESS_MAX };
#undef PS_EGRESS_REASON_ENUM

/* A port in use towards one peer (facts.md PX-3).  dst and dport zero: the port is held by a bound
 * socket that has no peer.  Key of maps `quarantine` and `services`. */
struct ps_claim_key {
	union ps_ip16 src, dst;
	__be16 sport, dport;
	__u8 protocol;
	__u8 shift;      /* of the slice of src and sport; 0 in map `services` */
	__u8 is_counted; /* in map `uses`; 0 in map `services` */
	__u8 pad;
};
_Static_assert(sizeof(struct ps_claim_key) == 40, "map key layout is ABI");

/* A claim, as whoever holds it must give it back. */
struct ps_grip {
	struct ps_claim_key flow;
	__u64 gen; /* of its page */
};
_Static_assert(sizeof(struct ps_grip) == 48, "part of layouts that are ABI");

/* Value of map `quarantine`: a port in use by nobody until the kernel's TIME_WAIT has passed. */
struct ps_quarantine {
	__u64 free_after_ns; /* CLOCK_BOOTTIME */
	__u64 gen;
	__u32 is_counted; /* of the claim; in the key it is 0 */
	__u32 pad;
};

/* Key of map `uses`. */
struct ps_uses_key {
	union ps_ip16 address;
	__u8 block; /* port / PS_EXCLUSIVE_MAX */
	__u8 protocol;
	__u8 pad[2];
};
_Static_assert(sizeof(struct ps_uses_key) == 20, "map key layout is ABI");

/* Value of map `uses`: how many peers each port of the block is claimed towards.  Exclusive ports
 * count only. */
struct ps_uses {
	__u32 n[PS_EXCLUSIVE_MAX];
};

/* Value of map `suspects`, by ps_claim_id(): a claim of which a repair has not seen the holder yet. */
struct ps_suspect {
	struct ps_grip grip;
	__u32 stood; /* the port was in use after this element was there */
	__u32 pad;
};
_Static_assert(sizeof(struct ps_suspect) == 56, "map value layout is ABI");

/* Value of socket storage `sockets`: the one claim a socket has. */
struct ps_held {
	struct ps_grip grip;
	__u32 held; /* 1: the claim is this socket's; whoever swaps it to 0 gives the port back */
	__u32 pad;
};
_Static_assert(sizeof(struct ps_held) == 56, "socket storage outlives a generation");

/* Element of map `leases`, at the place of its slice: may ports be drawn?  A claim reads it again
 * after it was taken, so nothing is taken of a slice once the word says so. */
enum ps_lease_state { PS_LEASE_ACTIVE, PS_LEASE_DRAINING, PS_LEASE_GONE };
struct ps_lease {
	__u32 state; /* enum ps_lease_state */
	__u32 pad;
	__u64 until_ns; /* CLOCK_BOOTTIME; 0: without end */
};

/* Element of map `turnover`: of the peers with one hash, the last for all (full.bpf.h). */
enum { PS_TURNOVER_ANY = 1 << 12, PS_TURNOVER_MAX };
struct ps_turnover {
	__u64 n_given_back;
	__u64 full_at; /* the latest stamp noted, 0: none */
};

/* What ps_sweep is run with. */
struct ps_sweep_order {
	__u32 is_urgent; /* remove pages that were in use a moment ago, too */
};

/* Direct destinations whose answers a datagram socket may await at once; the last ones it sent to. */
enum { PS_REPLIES_MAX = 8 };

/* Value of socket storage `replies`: claims towards direct destinations that a socket bound to a
 * shared address sent to without connect().  flow.protocol 0: a free place. */
struct ps_replies {
	__u32 lock; /* struct bpf_spin_lock */
	__u32 next; /* the place to take, modulo PS_REPLIES_MAX */
	struct ps_grip grips[PS_REPLIES_MAX];
};
_Static_assert(sizeof(struct ps_replies) == 392, "socket storage outlives a generation");

/* Value of socket storage `pings`: who made this ping socket, a program of a class. */
struct ps_ping {
	__u64 cgroup;
	__u32 pid;
	char comm[PS_COMM_LEN];
	__u8 pad[4];
};
_Static_assert(sizeof(struct ps_ping) == 32, "socket storage outlives a generation");

/* Slices that serve a class, [first, first + n) in map `slices`, those of one address side by side.
 * n 0: none on this host. */
struct ps_choice {
	__u32 first, n;
	__u32 n_shared; /* their ports that are drawn towards peers; the loader sets it */
	__u32 homes; /* 1 + the row of map `homes`; 0: there is one address, or nobody has a home */
};

/* The slices of one address within a choice, counted from its first: the home of some users. */
struct ps_home {
	__u16 offset, n;
};

/* Element of map `homes`: an address with equal standing for each user (choose.h). */
enum { PS_HOME_BITS = 10, PS_HOME_ROWS = 1 << PS_HOME_BITS };
struct ps_homes {
	struct ps_home rows[PS_HOME_ROWS];
};

/* Value of map `choices` (by class): the destination's family decides which. */
struct ps_choices {
	struct ps_choice v4, v6;
};

/* Element of map `slices`: ports [first_port, first_port + n_ports) of one shared address. */
struct ps_choice_slice {
	union ps_ip16 address;
	__u16 first_port;
	__u8 shift;
	__u8 pad;
	__u32 n_ports;
	__u32 n_exclusive; /* of them, the last: drawn for sockets without a peer only */
};
_Static_assert(sizeof(struct ps_choice_slice) == 28, "map value layout is ABI");

/* Element of map `class_sets`: classes, by bit. */
enum { PS_CLASS_WORDS = PS_CLASSES_MAX / 64 };
struct ps_class_set {
	__u64 words[PS_CLASS_WORDS];
};

/* Value of map `cgroups` (by cgroup id): a cgroup that a class names, or in which `portslice run`
 * starts programs. */
struct ps_class_cgroup {
	__u32 set; /* element of `class_sets`; holds for all below that have no entry of their own */
	__u32 run; /* 0, or 1 + the class of whatever runs there */
};

/* The one element of map `uids`: where in `class_sets` the uids from first[i] to before first[i + 1]
 * are, at set + i. */
enum { PS_UID_STARTS_MAX = 4096 }; /* a power of two above 2 * PS_CLASSES_MAX + 1 */
struct ps_uid_starts {
	__u32 first[PS_UID_STARTS_MAX];
};

/* Key of map `owned` (value: __u32, its place in map `slices`): (address, port block) this host may
 * use.  block is port >> shift. */
struct ps_owned_key {
	union ps_ip16 address;
	__u16 block;
	__u16 pad;
};

/* Key of LPM map `places` (IPv4), and of `places6`, `class_from`, `class_to` (value of those two:
 * __u32, an element of `class_sets`). */
struct ps_place_key {
	__u32 n_bits;
	__be32 address;
};
struct ps_place6_key {
	__u32 n_bits;
	union ps_ip16 address;
};

/* Value of LPM maps `places` and `places6`: what a destination prefix is to the hooks. */
enum ps_place_kind { PS_PLACE_OTHER, PS_PLACE_DIRECT, PS_PLACE_SHARED };
struct ps_place_value {
	__u8 kind;  /* enum ps_place_kind */
	__u8 shift; /* of a shared address */
	__u8 pad[2];
};

/* Value of map `limits` (by reason * (classes + 1) + class): one event a second each. */
struct ps_limit {
	__u64 last_ns; /* CLOCK_BOOTTIME */
	__u64 suppressed;
};

/* Record in ring buffer `events`. */
struct ps_egress_event {
	__u64 time_ns; /* CLOCK_BOOTTIME */
	__u64 cgroup;
	__u32 reason;     /* enum ps_egress_reason */
	__u32 class;      /* or PS_CLASS_NONE */
	__u32 pid;        /* 0: in softirq (guard) */
	__u32 suppressed; /* events like this not sent since the last one */
	union ps_ip16 src, dst;
	__be16 sport, dport;
	__u8 protocol;
	__u8 pad[3];
	char comm[PS_COMM_LEN];
};

#endif

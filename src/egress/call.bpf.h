/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* What every hook asks and answers: whose call it is, the class of it, and the verdict told. */
#ifndef PS_EGRESS_CALL_BPF_H
#define PS_EGRESS_CALL_BPF_H

#include "egress/claim.h"
#include "egress/kernel.bpf.h"

enum {
	AF_INET = 2,
	AF_INET6 = 10,
	SOCK_STREAM = 1,
	SOCK_DGRAM = 2,
	SOL_SOCKET = 1,
	SO_REUSEADDR = 2,
	CURRENT_NETNS = -1, /* BPF_F_CURRENT_NETNS */
	TCP_MAXSEG = 2,
	TCP_BPF_SOCK_OPS_CB_FLAGS = 1008,
	LOOPS_MAX = 1 << 23, /* BPF_MAX_LOOPS */
	CGROUP_LEVELS = 32,
	DENY = 0,
	ALLOW = 1,
};

const volatile __u64 netns_cookie;  /* of the loader's network namespace */
const volatile __u32 cgroup_levels; /* bit n: a class names a cgroup n levels below the root */
const volatile __u8 have_marks;     /* a class names a mark */
const volatile __u16 mss;
const volatile __u64 fin_timeout_ns; /* how long the kernel waits in FIN_WAIT2 for the peer's FIN */

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct ps_held);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct ps_class_key);
	__type(value, __u32);
} classes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ps_choices);
} choices SEC(".maps");

/* struct ps_replies, with a lock the verifier knows. */
struct replies {
	struct bpf_spin_lock lock;
	__u32 next;
	struct ps_grip grips[PS_REPLIES_MAX];
};
_Static_assert(sizeof(struct replies) == sizeof(struct ps_replies), "one layout");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct replies);
} replies SEC(".maps");

static __always_inline int class_find(__u64 cgroup, __u32 mark, __u32 has_mark)
{
	struct ps_class_key key = {cgroup, mark, has_mark};
	__u32 *class = bpf_map_lookup_elem(&classes, &key);

	return class ? (int)*class : -ENOENT;
}

/* The class of the innermost cgroup that has one, with this mark or with none. */
__noinline int class_of_cgroup(__u32 mark, __u32 has_mark)
{
	for (int level = CGROUP_LEVELS - 1; level > 0; level--) {
		__u64 cgroup;
		int class;

		if (!(cgroup_levels & 1u << level))
			continue;
		cgroup = bpf_get_current_ancestor_cgroup_id(level);
		if (!cgroup)
			continue;
		class = class_find(cgroup, mark, has_mark);
		if (class >= 0)
			return class;
	}
	return -ENOENT;
}

static __always_inline int class_of(struct bpf_sock *sk)
{
	__u32 mark = sk->mark;
	int class;

	if (have_marks) {
		class = class_of_cgroup(mark, 1);
		if (class >= 0)
			return class;
		class = class_find(0, mark, 1);
		if (class >= 0)
			return class;
	}
	return class_of_cgroup(0, 0);
}

/* Counts, and tells user space whose call it was. */
static __always_inline void tell(const struct ps_claim_key *flow, int class, __u32 reason)
{
	__u32 known = class >= 0 ? (__u32) class : PS_CLASS_NONE;
	struct ps_egress_event *event;

	count(reason);
	event = event_reserve(flow, known, reason);
	if (event) {
		event->cgroup = bpf_get_current_cgroup_id();
		event->pid = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(event->comm, sizeof(event->comm));
		bpf_ringbuf_submit(event, 0);
	}
}

/* Tells, and answers the program: DENY with this errno. */
static __always_inline int deny(const struct ps_claim_key *flow, int class, __u32 reason, int error)
{
	tell(flow, class, reason);
	if (observe)
		return ALLOW;
	bpf_set_retval(-error);
	return DENY;
}

static __always_inline int allow(__u32 reason)
{
	count(reason);
	return ALLOW;
}

/* The class has no slice for the family of this destination. */
static __always_inline int deny_family(const struct ps_claim_key *flow, int class,
				       const struct ps_choices *has)
{
	int is_v4 = ps_ip16_is_v4(&flow->dst);

	if (!has || !(has->v4.n | has->v6.n))
		return deny(flow, class, PS_EGRESS_NO_SLICE, EADDRNOTAVAIL);
	return deny(flow, class, is_v4 ? PS_EGRESS_REFUSED_V4 : PS_EGRESS_REFUSED_V6, ENETUNREACH);
}

static __always_inline int is_foreign(struct bpf_sock_addr *ctx)
{
	return bpf_get_netns_cookie(ctx) != netns_cookie;
}

/* TCP, UDP, and ping sockets, whose port is the echo identifier. */
static __always_inline int has_port(struct bpf_sock_addr *ctx)
{
	if (ctx->type == SOCK_STREAM)
		return ctx->protocol == IPPROTO_TCP;
	return ctx->type == SOCK_DGRAM &&
	       (ctx->protocol == IPPROTO_UDP || ctx->protocol == IPPROTO_ICMP ||
		ctx->protocol == IPPROTO_ICMPV6);
}

#endif

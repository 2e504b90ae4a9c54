/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* What every hook asks and answers: whose call it is, the class of it, and the verdict told. */
#ifndef PS_EGRESS_CALL_BPF_H
#define PS_EGRESS_CALL_BPF_H

#include "egress/claim.h"
#include "egress/classes.h"
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
const volatile __u32 class_words;   /* of a set that have classes */
const volatile __u32 n_uid_starts;  /* in map `uids`; 1: no class names a uid */
const volatile __u32 first_uid_set; /* element of `class_sets` of the first of them */
const volatile __u8 have_marks;     /* a class names a mark */
const volatile __u8 have_from;      /* a class names a source */
const volatile __u8 have_to;        /* a class names a destination */
const volatile __u16 mss;
const volatile __u64 fin_timeout_ns; /* how long the kernel waits in FIN_WAIT2 for the peer's FIN */

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct ps_held);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PS_CLASS_KINDS);
	__type(key, __u32);
	__type(value, struct ps_class_set);
} class_sets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, struct ps_class_cgroup);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} marks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ps_uid_starts);
} uids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct ps_place6_key);
	__type(value, __u32);
} class_from SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct ps_place6_key);
	__type(value, __u32);
} class_to SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ps_homes);
} homes SEC(".maps");

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

/* The innermost cgroup around the program that the classes know. */
__noinline int class_cgroup(struct ps_class_cgroup *ret)
{
	if (!ret)
		return -EINVAL;
	for (int level = CGROUP_LEVELS - 1; level > 0; level--) {
		struct ps_class_cgroup *found;
		__u64 cgroup;

		if (!(cgroup_levels & 1u << level))
			continue;
		cgroup = bpf_get_current_ancestor_cgroup_id(level);
		found = cgroup ? bpf_map_lookup_elem(&cgroups, &cgroup) : NULL;
		if (!found)
			continue;
		*ret = *found;
		return 0;
	}
	return -ENOENT;
}

static __always_inline __u32 set_of_mark(__u32 mark)
{
	__u32 *set = have_marks ? bpf_map_lookup_elem(&marks, &mark) : NULL;

	return set ? *set : PS_BY_MARK;
}

static __always_inline __u32 set_of_uid(void)
{
	const __u32 zero = 0;
	struct ps_uid_starts *starts;

	if (n_uid_starts < 2)
		return PS_BY_UID;
	starts = bpf_map_lookup_elem(&uids, &zero);
	return starts ? first_uid_set + ps_uid_interval(starts, n_uid_starts,
							(__u32)bpf_get_current_uid_gid())
		      : PS_BY_UID;
}

static __always_inline __u32 set_of_ip(void *map, const union ps_ip16 *ip, __u32 other)
{
	struct ps_place6_key key = {128, *ip};
	__u32 *set = ps_ip16_is_zero(ip) ? NULL : bpf_map_lookup_elem(map, &key);

	return set ? *set : other;
}

/* The class of a call by the present program; source zero: it asked for none; destination zero: it
 * is not known.  -ENOENT: none. */
__noinline int class_of(__u32 mark, const union ps_ip16 *source, const union ps_ip16 *destination)
{
	struct ps_class_cgroup cgroup = {PS_BY_CGROUP, 0};
	const struct ps_class_set *sets[PS_CLASS_KINDS];
	__u32 at[PS_CLASS_KINDS];

	if (!source || !destination)
		return -EINVAL;
	class_cgroup(&cgroup);
	if (cgroup.run)
		return (int)cgroup.run - 1;
	at[PS_BY_CGROUP] = cgroup.set;
	at[PS_BY_MARK] = set_of_mark(mark);
	at[PS_BY_UID] = set_of_uid();
	at[PS_BY_FROM] = have_from ? set_of_ip(&class_from, source, PS_BY_FROM) : PS_BY_FROM;
	at[PS_BY_TO] = have_to ? set_of_ip(&class_to, destination, PS_BY_TO) : PS_BY_TO;
	for (int i = 0; i < PS_CLASS_KINDS; i++) {
		sets[i] = bpf_map_lookup_elem(&class_sets, &at[i]);
		if (!sets[i])
			return -ENOENT;
	}
	return ps_class_first(sets, class_words);
}

/* In a function of its own because the compiler would keep &sk->mark from class_of() on, which the
 * verifier refuses. */
static __attribute__((noinline)) __u32 user_row(struct bpf_sock *sk)
{
	return ps_home_row(sk->mark, bpf_get_current_cgroup_id(), (__u32)bpf_get_current_uid_gid());
}

/* The address of the choice that the user of this socket is given first. */
static __always_inline struct ps_home home_of(struct bpf_sock *sk, const struct ps_choice *choice)
{
	__u32 row = choice->homes - 1;
	struct ps_homes *of = choice->homes ? bpf_map_lookup_elem(&homes, &row) : NULL;

	return of ? of->rows[user_row(sk) & (PS_HOME_ROWS - 1)] : (struct ps_home){0};
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

/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Sockets that were there before our hooks, taken into our record: those that another version's hooks
 * served, and those that had a port of our slices before anybody's (a slice may be new, too).
 *
 * The other version's socket storage is walked for the sockets alone, whatever is in it: which port a
 * socket has, and towards whom, is read from the socket.  So its layout does not matter.  For the others
 * the kernel's own lists are walked.  A socket that our storage knows is passed by, so each walk may
 * be done again.  When a walk may have missed some, the hooks ask the kernel's socket table before they
 * give a port (is_astray()), so nobody gets that of one without a claim.
 *
 * A socket that closes while it is seeded is looked at once more; what is left is a window of a few
 * instructions between its hook and the kernel's mark.
 */
#ifndef PS_EGRESS_SEED_BPF_H
#define PS_EGRESS_SEED_BPF_H

#include "egress/socket.bpf.h"

static __always_inline void read_ends(struct sock *sk, struct ps_claim_key *ret)
{
	ret->sport = bpf_htons(BPF_CORE_READ(sk, __sk_common.skc_num));
	ret->dport = BPF_CORE_READ(sk, __sk_common.skc_dport);
	ret->protocol = BPF_CORE_READ(sk, sk_protocol);
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET) {
		ret->src = ps_ip16_v4(BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
		ret->dst = ps_ip16_v4(BPF_CORE_READ(sk, __sk_common.skc_daddr));
	} else {
		BPF_CORE_READ_INTO(&ret->src, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&ret->dst, sk, __sk_common.skc_v6_daddr);
	}
	/* As the hooks write it: an echo has no port there, and who has no peer has none. */
	if (ret->protocol == IPPROTO_ICMP || ret->protocol == IPPROTO_ICMPV6)
		ret->dport = 0;
	else if (!ret->dport)
		ret->dst = (union ps_ip16){0};
	if (ps_ip16_is_any(&ret->dst))
		ret->dst = (union ps_ip16){0};
}

static __always_inline int is_gone(struct sock *sk)
{
	unsigned long flags = BPF_CORE_READ(sk, __sk_common.skc_flags);

	return flags >> bpf_core_enum_value(enum sock_flags, SOCK_DEAD) & 1 &&
	       BPF_CORE_READ(sk, __sk_common.skc_state) == BPF_TCP_CLOSE;
}

/* Is it one that has a claim by our rules?  Services have none, nor has what a listener accepted. */
static __always_inline int wants_claim(struct ps_claim_key *flow)
{
	if (observe || !flow->sport || ps_slice_index(flow) < 0 ||
	    is_service(&flow->src, flow->sport, flow->protocol))
		return 0;
	return ps_ip16_is_zero(&flow->dst) || !held_without_peer(flow);
}

/* The claim of a socket that has none yet; NULL: none is due, or it went to another. */
static __always_inline struct ps_held *seed(struct sock *sk, struct ps_page_ask *ask)
{
	struct ps_held *held;

	read_ends(sk, &ask->grip.flow);
	/* A connection that has ended gave its port back, though its program has not closed it. */
	if (ask->grip.flow.dport && BPF_CORE_READ(sk, __sk_common.skc_state) == BPF_TCP_CLOSE)
		return NULL;
	if (!wants_claim(&ask->grip.flow) || is_gone(sk))
		return NULL;
	held = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!held || held->held || ps_claim_exactly(ask))
		return NULL;
	hold(held, &ask->grip);
	count(PS_EGRESS_SEED);
	if (!is_gone(sk))
		return held;
	let_go(held);
	return NULL;
}

SEC("iter/bpf_sk_storage_map")
int ps_seed(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct ps_page_ask ask = {0};
	struct sock *sk = ctx->sk;

	if (sk && !bpf_sk_storage_get(&sockets, sk, 0, 0))
		seed(sk, &ask);
	return 0;
}

/* What the walks of all sockets of this network namespace hand over (net/ipv4/tcp_ipv4.c, udp.c);
 * both are locked meanwhile, UDP since Linux 6.5. */
struct bpf_iter__tcp {
	void *meta;
	struct sock *sk_common; /* a struct sock_common: maybe TIME_WAIT, or a request */
};

struct bpf_iter__udp {
	void *meta;
	struct sock *udp_sk;
};

/* Its own hook ran before we came, so this must ask for the end to be told.  Linux 6.1 cannot; then
 * the port is given back by sock_release. */
static __always_inline void tell_end(struct sock *sk)
{
	int flags = tcp_callbacks(sk) | BPF_SOCK_OPS_STATE_CB_FLAG;

	bpf_setsockopt(sk, IPPROTO_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags));
}

/* Hooks of ours saw no connection end yet, or their quarantine is not ours. */
__u32 seeds_time_wait;

/* TIME_WAIT without timestamps: the kernel refuses its port, so nobody may draw it. */
static __always_inline void seed_time_wait(struct sock *sk, struct ps_page_ask *ask)
{
	struct tcp_timewait_sock *wait = (void *)sk;

	if (!seeds_time_wait || BPF_CORE_READ(wait, tw_ts_recent))
		return;
	read_ends(sk, &ask->grip.flow);
	ask->grip.flow.protocol = IPPROTO_TCP; /* there is no struct sock behind it */
	if (!wants_claim(&ask->grip.flow) || ps_claim_exactly(ask))
		return;
	ps_claim_quarantine(&ask->grip, fin_timeout_ns + PS_QUARANTINE_NS);
	count(PS_EGRESS_SEED);
}

SEC("iter/tcp")
int ps_seed_tcp(struct bpf_iter__tcp *ctx)
{
	struct ps_page_ask ask = {0};
	struct sock *sk = ctx->sk_common;
	int state;

	if (!sk)
		return 0;
	state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (state == BPF_TCP_TIME_WAIT)
		seed_time_wait(sk, &ask);
	else if (state != BPF_TCP_NEW_SYN_RECV && !bpf_sk_storage_get(&sockets, sk, 0, 0) &&
		 seed(sk, &ask) && state != BPF_TCP_LISTEN)
		tell_end(sk);
	return 0;
}

SEC("iter/udp")
int ps_seed_udp(struct bpf_iter__udp *ctx)
{
	struct ps_page_ask ask = {0};
	struct sock *sk = ctx->udp_sk;

	if (sk && !bpf_sk_storage_get(&sockets, sk, 0, 0))
		seed(sk, &ask);
	return 0;
}

#endif

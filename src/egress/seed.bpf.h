/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Sockets to which another version's hooks gave ports, taken into our record.
 *
 * The other version's socket storage is walked for the sockets alone, whatever is in it: which port a
 * socket has, and towards whom, is read from the socket.  So its layout does not matter.  A socket
 * that our storage knows is passed by, so the walk may be done again.
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

SEC("iter/bpf_sk_storage_map")
int ps_seed(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct ps_page_ask ask = {0};
	struct ps_claim_key *flow = &ask.grip.flow;
	struct sock *sk = ctx->sk;
	struct ps_held *held;

	if (!sk || bpf_sk_storage_get(&sockets, sk, 0, 0))
		return 0;
	read_ends(sk, flow);
	if (!flow->sport || place_of(&flow->src) != PS_PLACE_SHARED || is_gone(sk))
		return 0;
	held = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!held || ps_claim_exactly(&ask))
		return 0;
	hold(held, &ask.grip);
	count(PS_EGRESS_SEED);
	if (is_gone(sk))
		let_go(held);
	return 0;
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* A socket: its ends, the claim it holds, binding it, and whether another one is in its way. */
#ifndef PS_EGRESS_SOCKET_BPF_H
#define PS_EGRESS_SOCKET_BPF_H

#include "egress/call.bpf.h"

enum { IP6_MORE = 20 }; /* bytes by which an IPv6 header is longer than one of IPv4 */

/* include/net/bpf_sk_storage.h and net/core/bpf_sk_storage.c: what the walk hands over. */
struct bpf_iter__bpf_sk_storage_map {
	void *meta, *map;
	struct sock *sk; /* NULL: the walk is over */
	void *value;
};

static __always_inline int is_same(const struct ps_claim_key *a, const struct ps_claim_key *b)
{
	return ps_ip16_is_same(&a->src, &b->src) && ps_ip16_is_same(&a->dst, &b->dst) &&
	       a->sport == b->sport && a->dport == b->dport && a->protocol == b->protocol;
}

/* The address a socket is bound to; zero: none.  The reads are volatile because the compiler would
 * merge those of both families into one at a variable offset, which the verifier refuses. */
static __always_inline void source_of(struct bpf_sock *sk, union ps_ip16 *ret)
{
	if (sk->family == AF_INET6)
		*ret = (union ps_ip16){
			.words = {sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3]}};
	else
		*ret = ps_ip16_v4(*(volatile __u32 *)&sk->src_ip4);
	if (ps_ip16_is_any(ret))
		*ret = (union ps_ip16){0};
}

/* The address a socket is connected to. */
static __always_inline void peer_of(struct bpf_sock *sk, union ps_ip16 *ret)
{
	if (sk->family == AF_INET6)
		*ret = (union ps_ip16){
			.words = {sk->dst_ip6[0], sk->dst_ip6[1], sk->dst_ip6[2], sk->dst_ip6[3]}};
	else
		*ret = ps_ip16_v4(*(volatile __u32 *)&sk->dst_ip4);
}

static __always_inline union ps_ip16 user_ip6(struct bpf_sock_addr *ctx)
{
	return (union ps_ip16){
		.words = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};
}

/* Ends the claim of a socket, if it has one. */
static __always_inline void let_go(struct ps_held *held)
{
	struct ps_grip grip = held->grip;

	if (!__sync_bool_compare_and_swap(&held->held, 1, 0))
		return;
	ps_claim_drop(&grip);
	count(PS_EGRESS_RELEASE);
}

static __always_inline void hold(struct ps_held *held, const struct ps_grip *grip)
{
	held->grip = *grip;
	*(volatile __u32 *)&held->held = 1;
}

static __attribute__((noinline)) int bind_to(struct bpf_sock_addr *ctx, __u32 family,
					     const struct ps_claim_key *key)
{
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = key->sport};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = key->sport};

	if (family == AF_INET6) {
		for (int i = 0; i < 4; i++)
			in6.sin6_addr.in6_u.u6_addr32[i] = key->src.words[i];
		return bpf_bind(ctx, (struct sockaddr *)&in6, sizeof(in6));
	}
	in.sin_addr.s_addr = key->src.words[3];
	return bpf_bind(ctx, (struct sockaddr *)&in, sizeof(in));
}

/* Without it the kernel does not share a port between destinations. */
static __always_inline void allow_sharing(struct bpf_sock_addr *ctx)
{
	int on = 1;

	bpf_setsockopt(ctx, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
}

static __always_inline void lower_mss(struct bpf_sock_addr *ctx, struct bpf_sock *sk, int is_v4)
{
	int bytes = is_v4 ? mss : mss - IP6_MORE;
	__u16 own;

	if (!mss || ctx->protocol != IPPROTO_TCP)
		return;
	own = tcp_user_mss(sk);
	if (!own || own > bytes)
		bpf_setsockopt(ctx, IPPROTO_TCP, TCP_MAXSEG, &bytes, sizeof(bytes));
}

/* The verifier wants the two kinds of look-up in functions of their own. */
static __attribute__((noinline)) int tcp_is_connected(struct bpf_sock_addr *ctx,
						      struct bpf_sock_tuple *tuple, int is_v4)
{
	__u32 len = is_v4 ? sizeof(tuple->ipv4) : sizeof(tuple->ipv6);
	struct bpf_sock *sk = bpf_skc_lookup_tcp(ctx, tuple, len, CURRENT_NETNS, 0);
	int found;

	if (!sk)
		return 0;
	/* TIME_WAIT is the kernel's to judge; a listener is refused by bind. */
	found = sk->state != BPF_TCP_LISTEN && sk->state != BPF_TCP_TIME_WAIT;
	bpf_sk_release(sk);
	return found;
}

static __attribute__((noinline)) int udp_is_bound(struct bpf_sock_addr *ctx,
						  struct bpf_sock_tuple *tuple, int is_v4)
{
	__u32 len = is_v4 ? sizeof(tuple->ipv4) : sizeof(tuple->ipv6);
	struct bpf_sock *sk = bpf_sk_lookup_udp(ctx, tuple, len, CURRENT_NETNS, 0);
	int found;

	if (!sk)
		return 0;
	/* Else it is the wildcard's, refused by bind. */
	found = is_v4 ? sk->src_ip4 != 0
		      : (sk->src_ip6[0] | sk->src_ip6[1] | sk->src_ip6[2] | sk->src_ip6[3]) != 0;
	bpf_sk_release(sk);
	return found;
}

/* Set by user space when every socket of before has been seeded, and taken back when it finds a leak:
 * then is_astray() need not be asked. */
__u32 no_strays;

/* Does a socket without a claim, older than the hooks, use the port towards this peer?  The kernel
 * would refuse it after the hook (TCP), or deliver to one of the two (UDP). */
static __attribute__((noinline)) int is_astray(struct bpf_sock_addr *ctx,
					       const struct ps_claim_key *key)
{
	struct bpf_sock_tuple tuple = {.ipv6 = {.sport = key->dport, .dport = key->sport}};
	int is_v4 = ps_ip16_is_v4(&key->src);

	if (is_v4) {
		tuple.ipv4.saddr = key->dst.words[3];
		tuple.ipv4.daddr = key->src.words[3];
		tuple.ipv4.sport = key->dport;
		tuple.ipv4.dport = key->sport;
	}
	for (int i = 0; i < 4 && !is_v4; i++) {
		tuple.ipv6.saddr[i] = key->dst.words[i];
		tuple.ipv6.daddr[i] = key->src.words[i];
	}
	if (key->protocol == IPPROTO_TCP)
		return tcp_is_connected(ctx, &tuple, is_v4);
	return key->protocol == IPPROTO_UDP && udp_is_bound(ctx, &tuple, is_v4);
}

#endif

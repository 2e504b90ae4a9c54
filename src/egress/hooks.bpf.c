// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * The cgroup hooks: programs of a class get ports of this host's slices, and nobody else does.
 *
 *   bind4/6     a shared address is only for programs of a class that this host serves; port 0
 *               becomes a port held without a peer
 *   connect4/6  an unbound socket is bound to a port free towards that peer; a bound one keeps
 *               its port when it is ours and free towards the peer
 *   sendmsg4/6  datagrams without connect() are refused: the kernel has chosen their port already;
 *               but for answers of a published service, and for direct destinations
 *   sock_ops, sock_release  give the port back
 *
 * A socket has one claim at a time, in its storage (and a few more in `replies`, for datagrams to
 * direct destinations).  `held` is swapped to 0 by whoever ends it, so
 * that the two ways a TCP socket can end give its port back once.  Every hook leaves sockets of
 * other network namespaces alone; the last two act on sockets with our storage only.
 */
#include "egress/call.bpf.h"

#include <linux/in6.h>

static __always_inline int is_mapped(const __u32 ip6[4])
{
	return !ip6[0] && !ip6[1] && ip6[2] == bpf_htonl(0xffff);
}

static __always_inline int is_same(const struct ps_claim_key *a, const struct ps_claim_key *b)
{
	return a->src == b->src && a->dst == b->dst && a->sport == b->sport &&
	       a->dport == b->dport && a->protocol == b->protocol;
}

/* Ends the claim of a socket, if it has one. */
static __always_inline void let_go(struct ps_held *held)
{
	struct ps_claim_key key = held->key;

	if (!__sync_bool_compare_and_swap(&held->held, 1, 0))
		return;
	ps_claim_drop(&key);
	count(PS_EGRESS_RELEASE);
}

static __always_inline void hold(struct ps_held *held, const struct ps_claim_key *key)
{
	held->key = *key;
	*(volatile __u32 *)&held->held = 1;
}

static __always_inline int bind_to(struct bpf_sock_addr *ctx, __u32 family,
				   const struct ps_claim_key *key)
{
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = key->sport};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = key->sport};

	if (family == AF_INET6) {
		in6.sin6_addr.in6_u.u6_addr32[2] = bpf_htonl(0xffff);
		in6.sin6_addr.in6_u.u6_addr32[3] = key->src;
		return bpf_bind(ctx, (struct sockaddr *)&in6, sizeof(in6));
	}
	in.sin_addr.s_addr = key->src;
	return bpf_bind(ctx, (struct sockaddr *)&in, sizeof(in));
}

/* Without it the kernel does not share a port between destinations. */
static __always_inline void allow_sharing(struct bpf_sock_addr *ctx)
{
	int on = 1;

	bpf_setsockopt(ctx, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
}

static __always_inline void lower_mss(struct bpf_sock_addr *ctx, struct bpf_sock *sk)
{
	int bytes = mss;
	__u16 own;

	if (!mss || ctx->protocol != IPPROTO_TCP)
		return;
	own = tcp_user_mss(sk);
	if (!own || own > mss)
		bpf_setsockopt(ctx, IPPROTO_TCP, TCP_MAXSEG, &bytes, sizeof(bytes));
}

static __always_inline int deny_draw(const struct ps_claim_key *flow, int class, int error)
{
	if (error == -ENOBUFS)
		return deny(flow, class, PS_EGRESS_NO_MEMORY, ENOBUFS);
	return deny(flow, class, PS_EGRESS_EXHAUSTED, EADDRNOTAVAIL);
}

/* The verifier wants the two kinds of look-up in functions of their own. */
static __attribute__((noinline)) int tcp_is_connected(struct bpf_sock_addr *ctx,
						      struct bpf_sock_tuple *tuple)
{
	struct bpf_sock *sk = bpf_skc_lookup_tcp(ctx, tuple, sizeof(tuple->ipv4), CURRENT_NETNS, 0);
	int found;

	if (!sk)
		return 0;
	/* TIME_WAIT is the kernel's to judge; a listener is refused by bind. */
	found = sk->state != BPF_TCP_LISTEN && sk->state != BPF_TCP_TIME_WAIT;
	bpf_sk_release(sk);
	return found;
}

static __attribute__((noinline)) int udp_is_bound(struct bpf_sock_addr *ctx,
						  struct bpf_sock_tuple *tuple)
{
	struct bpf_sock *sk = bpf_sk_lookup_udp(ctx, tuple, sizeof(tuple->ipv4), CURRENT_NETNS, 0);
	int found;

	if (!sk)
		return 0;
	found = sk->src_ip4 == tuple->ipv4.daddr; /* else it is the wildcard's, refused by bind */
	bpf_sk_release(sk);
	return found;
}

/* Does a socket without a claim, older than the hooks, use the port towards this peer?  The kernel
 * would refuse it after the hook (TCP), or deliver to one of the two (UDP). */
static __always_inline int is_astray(struct bpf_sock_addr *ctx, const struct ps_claim_key *key)
{
	struct bpf_sock_tuple tuple = {.ipv4 = {key->dst, key->src, key->dport, key->sport}};

	if (key->protocol == IPPROTO_TCP)
		return tcp_is_connected(ctx, &tuple);
	return key->protocol == IPPROTO_UDP && udp_is_bound(ctx, &tuple);
}

/* A wish for a port, and for the socket to be bound to it. */
struct bind_ask {
	struct bpf_sock_addr *ctx;
	struct ps_ask ask;
	__u32 family;
	int drawn, bound; /* 0, or why not */
};

static long bind_step(__u64 nth, struct bind_ask *bind)
{
	struct ps_ask ask = bind->ask;
	int bound = -EADDRINUSE;

	/* Blocked ports come in rows: a wildcard server takes many in order. */
	if (nth && nth < FRESH_STARTS)
		ask.walk = ps_walk_start(ask.walk.kind, ask.walk.n_slices, bpf_get_prandom_u32());
	bind->drawn = ps_claim_draw(&ask);
	bind->ask = ask;
	if (bind->drawn)
		return 1;
	if (is_astray(bind->ctx, &ask.key))
		count(PS_EGRESS_STRAY);
	else
		bound = bind_to(bind->ctx, bind->family, &ask.key);
	bind->bound = bound;
	if (!bound)
		return 1;
	ps_claim_drop(&ask.key);
	return bound != -EADDRINUSE;
}

/* connect() of an unbound socket: draws a port and binds the socket to it. */
static __always_inline int connect_unbound(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
					   struct ps_claim_key *flow, int class,
					   const struct ps_choice *choice)
{
	__be32 wish = sk->src_ip4;
	struct bind_ask bind = {.ctx = ctx, .family = sk->family};
	struct ps_held *held;

	if (wish && !ps_claim_serves(choice->first, choice->n, wish, 0))
		return deny(flow, class, PS_EGRESS_REFUSED_PORT, EADDRNOTAVAIL);
	if (observe)
		return allow(PS_EGRESS_CONNECT);
	held = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!held)
		return deny(flow, class, PS_EGRESS_NO_MEMORY, ENOBUFS);
	let_go(held);
	allow_sharing(ctx);
	bind.ask = ps_ask_start(flow, wish, choice, PS_WALK_PEER);
	bpf_loop(FRESH_STARTS + PORT_COUNT, bind_step, &bind, 0);
	if (bind.drawn == -EADDRNOTAVAIL && bind.bound)
		return deny(flow, class, PS_EGRESS_BLOCKED, EADDRNOTAVAIL);
	if (bind.drawn)
		return deny_draw(flow, class, bind.drawn);
	if (bind.bound)
		return deny(&bind.ask.key, class, PS_EGRESS_REFUSED_KERNEL, EADDRNOTAVAIL);
	hold(held, &bind.ask.key);
	lower_mss(ctx, sk);
	return allow(PS_EGRESS_CONNECT);
}

/* connect() of a bound socket, which cannot be bound again: its port must do. */
static __always_inline int connect_bound(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
					 struct ps_claim_key *flow, int class,
					 const struct ps_choice *choice)
{
	__u32 port = sk->src_port;
	struct ps_held *held;
	int r;

	flow->src = sk->src_ip4;
	flow->sport = bpf_htons(port);
	if (!ps_claim_serves(choice->first, choice->n, flow->src, port))
		return deny(flow, class, PS_EGRESS_REFUSED_PORT, EADDRNOTAVAIL);
	if (observe)
		return allow(PS_EGRESS_RECONNECT);
	held = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!held)
		return deny(flow, class, PS_EGRESS_NO_MEMORY, ENOBUFS);
	if (held->held && is_same(&held->key, flow))
		return allow(PS_EGRESS_RECONNECT);
	r = ps_claim_exactly(flow);
	if (r)
		return deny_draw(flow, class, r);
	let_go(held);
	hold(held, flow);
	lower_mss(ctx, sk);
	return allow(PS_EGRESS_RECONNECT);
}

/* flow names the destination; the sum of both families' connect() once it is IPv4. */
static __always_inline int connect_to(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
				      struct ps_claim_key *flow)
{
	__u32 place = place_of(flow->dst), slot;
	struct ps_choice *choice;
	int class = class_of(sk);

	if (place == PS_PLACE_SHARED) {
		if (is_service(flow->dst, flow->dport, flow->protocol))
			return allow(PS_EGRESS_DIRECT);
		return deny(flow, class, PS_EGRESS_REFUSED_SHARED, ECONNREFUSED);
	}
	if (!has_port(ctx))
		return ALLOW;
	if (class < 0)
		return allow(PS_EGRESS_OUTSIDE);
	/* Bound to a shared address a socket uses one of our ports whatever the destination. */
	if (place == PS_PLACE_DIRECT && place_of(sk->src_ip4) != PS_PLACE_SHARED)
		return allow(PS_EGRESS_DIRECT);
	slot = class;
	choice = bpf_map_lookup_elem(&choices, &slot);
	if (!choice || !choice->n)
		return deny(flow, class, PS_EGRESS_NO_SLICE, EADDRNOTAVAIL);
	if (flow->protocol == IPPROTO_ICMP)
		flow->dport = 0;
	if (sk->src_port)
		return connect_bound(ctx, sk, flow, class, choice);
	return connect_unbound(ctx, sk, flow, class, choice);
}

static __always_inline int is_place6_direct(const __u32 ip6[4])
{
	struct ps_place6_key key = {.n_bits = 128};
	struct ps_place_value *place;

	__builtin_memcpy(key.address, ip6, sizeof(key.address));
	place = bpf_map_lookup_elem(&places6, &key);
	return place && place->kind == PS_PLACE_DIRECT;
}

/* Native IPv6: no shared addresses, so a program of a class is told to use IPv4. */
static __always_inline int send_to6(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
				    const __u32 ip6[4])
{
	struct ps_claim_key flow = {.dport = ctx->user_port, .protocol = ctx->protocol};
	int class = class_of(sk);

	if (class < 0)
		return allow(PS_EGRESS_OUTSIDE);
	if (is_place6_direct(ip6))
		return allow(PS_EGRESS_DIRECT);
	return deny(&flow, class, PS_EGRESS_REFUSED_V6, ENETUNREACH);
}

SEC("cgroup/connect4")
int ps_connect4(struct bpf_sock_addr *ctx)
{
	struct ps_claim_key flow = {
		.dst = ctx->user_ip4, .dport = ctx->user_port, .protocol = ctx->protocol};
	struct bpf_sock *sk = ctx->sk;

	if (!sk || is_foreign(ctx))
		return ALLOW;
	return connect_to(ctx, sk, &flow);
}

SEC("cgroup/connect6")
int ps_connect6(struct bpf_sock_addr *ctx)
{
	__u32 ip6[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
	struct ps_claim_key flow = {
		.dst = ip6[3], .dport = ctx->user_port, .protocol = ctx->protocol};
	struct bpf_sock *sk = ctx->sk;

	if (!sk || is_foreign(ctx))
		return ALLOW;
	if (!is_mapped(ip6))
		return send_to6(ctx, sk, ip6);
	return connect_to(ctx, sk, &flow);
}

/* This host, by whatever address: loopback and 0.0.0.0. */
static __always_inline int is_loopback(__be32 address)
{
	return !address || (address & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
}

/* Is the shared destination a socket of this very host, open to all or to this sender? */
static __always_inline int is_held_here(const struct ps_claim_key *flow)
{
	struct ps_claim_key peer = {.src = flow->dst,
				    .dst = flow->src,
				    .sport = flow->dport,
				    .dport = flow->sport,
				    .protocol = flow->protocol};

	return held_without_peer(&peer) || is_claimed(&peer);
}

/* A socket that was moved to a shared address sends from it to a direct destination too.  The
 * dispatcher delivers the answer if that peer is expected, so the socket takes a claim towards it;
 * beyond PS_REPLIES_MAX the oldest is given back. */
static __always_inline int send_expecting(struct bpf_sock *sk, const struct ps_claim_key *flow,
					  int class)
{
	struct ps_claim_key old;
	struct replies *own;
	int r;

	if (observe || is_claimed(flow))
		return ALLOW;
	own = bpf_sk_storage_get(&replies, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	r = own ? ps_claim_exactly(flow) : -ENOBUFS;
	if (r == -EADDRINUSE)
		return ALLOW; /* another thread was faster */
	if (!own || r)
		return deny(flow, class, PS_EGRESS_NO_MEMORY, ENOBUFS);
	bpf_spin_lock(&own->lock);
	old = own->keys[own->next % PS_REPLIES_MAX];
	own->keys[own->next % PS_REPLIES_MAX] = *flow;
	own->next++;
	bpf_spin_unlock(&own->lock);
	if (old.protocol)
		ps_claim_drop(&old);
	return allow(PS_EGRESS_REPLY);
}

/* The service that answers from a socket's port: *source stays, or becomes the service's address
 * where neither the socket nor the program (IP_PKTINFO) names one. */
static __always_inline int is_answer(const struct ps_claim_key *flow, __be32 *source)
{
	struct ps_claim_key key = {
		.src = flow->src, .sport = flow->sport, .protocol = flow->protocol};
	struct ps_service_value *service;

	service = n_services ? bpf_map_lookup_elem(&services, &key) : NULL;
	if (!service || !service->address)
		return 0;
	*source = service->address;
	return 1;
}

/* sendto() of a datagram socket.  *source is the source address the program or we give it, 0: the
 * kernel chooses. */
static __always_inline int send_to(struct bpf_sock *sk, struct ps_claim_key *flow, __be32 *source)
{
	__u32 place = place_of(flow->dst);
	int class = class_of(sk);

	flow->src = *source ? *source : sk->src_ip4;
	flow->sport = bpf_htons(sk->src_port);
	if (place == PS_PLACE_SHARED) {
		if (is_service(flow->dst, flow->dport, flow->protocol) || is_held_here(flow))
			return ALLOW;
		return deny(flow, class, PS_EGRESS_REFUSED_SHARED, ECONNREFUSED);
	}
	if (class < 0)
		return ALLOW;
	if (place == PS_PLACE_DIRECT) {
		if (is_loopback(flow->dst) || place_of(flow->src) != PS_PLACE_SHARED ||
		    is_service(flow->src, flow->sport, flow->protocol))
			return ALLOW;
		return send_expecting(sk, flow, class);
	}
	if (sk->dst_port && sk->dst_port == flow->dport && sk->dst_ip4 == flow->dst)
		return ALLOW;
	if (!observe && is_answer(flow, source))
		return ALLOW;
	return deny(flow, class, PS_EGRESS_REFUSED_UNCONNECTED, EDESTADDRREQ);
}

SEC("cgroup/sendmsg4")
int ps_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct ps_claim_key flow = {
		.dst = ctx->user_ip4, .dport = ctx->user_port, .protocol = ctx->protocol};
	__be32 given = ctx->msg_src_ip4, source = given;
	struct bpf_sock *sk = ctx->sk;
	int verdict;

	if (!sk || is_foreign(ctx))
		return ALLOW;
	verdict = send_to(sk, &flow, &source);
	if (source != given)
		ctx->msg_src_ip4 = source;
	return verdict;
}

SEC("cgroup/sendmsg6")
int ps_sendmsg6(struct bpf_sock_addr *ctx)
{
	__u32 ip6[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
	struct bpf_sock *sk = ctx->sk;

	if (!sk || is_foreign(ctx))
		return ALLOW;
	/* The kernel sends mapped ones as IPv4, and asks ps_sendmsg4 (net/ipv6/udp.c). */
	return is_mapped(ip6) ? ALLOW : send_to6(ctx, sk, ip6);
}

/* bind() to port 0: as the kernel would, but from our slices and held towards nobody. */
static __always_inline int bind_any(struct bpf_sock_addr *ctx, struct ps_held *held,
				    struct ps_claim_key *flow, int class,
				    const struct ps_choice *choice)
{
	struct ps_ask ask = ps_ask_start(flow, flow->src, choice, PS_WALK_PEERLESS);
	int r = ps_claim_draw(&ask);

	if (r)
		return deny_draw(flow, class, r);
	hold(held, &ask.key);
	*flow = ask.key;
	return allow(PS_EGRESS_BIND);
}

static __always_inline int bind_exactly(struct ps_held *held, const struct ps_claim_key *flow,
					int class)
{
	int r = ps_claim_exactly(flow);

	if (r == -ENOBUFS)
		return deny(flow, class, PS_EGRESS_NO_MEMORY, ENOBUFS);
	if (r)
		return deny(flow, class, PS_EGRESS_EXHAUSTED, EADDRINUSE);
	hold(held, flow);
	return allow(PS_EGRESS_BIND);
}

/* A program of a class binds a shared address, or port 0 of any (flow->src 0). */
static __always_inline int bind_ours(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
				     struct ps_claim_key *flow, int class)
{
	__u32 slot = class;
	struct ps_choice *choice = bpf_map_lookup_elem(&choices, &slot);
	struct ps_held *held;

	if (!choice || !choice->n)
		return deny(flow, class, PS_EGRESS_NO_SLICE, EADDRNOTAVAIL);
	if (flow->src && !ps_claim_serves(choice->first, choice->n, flow->src, 0))
		return deny(flow, class, PS_EGRESS_REFUSED_BIND, EADDRNOTAVAIL);
	if (!flow->sport && binds_address_only(ctx))
		return ALLOW;
	if (flow->sport &&
	    !ps_claim_serves(choice->first, choice->n, flow->src, bpf_ntohs(flow->sport)))
		return deny(flow, class, PS_EGRESS_REFUSED_BIND, EACCES);
	if (observe)
		return allow(PS_EGRESS_BIND);
	held = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!held)
		return deny(flow, class, PS_EGRESS_NO_MEMORY, ENOBUFS);
	let_go(held);
	allow_sharing(ctx);
	if (flow->sport)
		return bind_exactly(held, flow, class);
	return bind_any(ctx, held, flow, class, choice);
}

/* flow names what is bound and, on return, what shall be bound instead. */
static __always_inline int bind_socket(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
				       struct ps_claim_key *flow)
{
	int class;

	if (flow->src ? place_of(flow->src) != PS_PLACE_SHARED : !!flow->sport)
		return ALLOW;
	class = class_of(sk);
	if (flow->src && is_service(flow->src, flow->sport, flow->protocol))
		return ALLOW;
	if (class < 0 && flow->src)
		return deny(flow, class, PS_EGRESS_REFUSED_BIND, EACCES);
	if (class < 0 || sk->src_port || !has_port(ctx))
		return ALLOW;
	return bind_ours(ctx, sk, flow, class);
}

SEC("cgroup/bind4")
int ps_bind4(struct bpf_sock_addr *ctx)
{
	struct ps_claim_key flow = {
		.src = ctx->user_ip4, .sport = ctx->user_port, .protocol = ctx->protocol};
	struct bpf_sock *sk = ctx->sk;
	int verdict;

	if (!sk || is_foreign(ctx))
		return ALLOW;
	verdict = bind_socket(ctx, sk, &flow);
	ctx->user_ip4 = flow.src;
	ctx->user_port = flow.sport;
	return verdict;
}

SEC("cgroup/bind6")
int ps_bind6(struct bpf_sock_addr *ctx)
{
	__u32 ip6[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
	struct ps_claim_key flow = {
		.src = ip6[3], .sport = ctx->user_port, .protocol = ctx->protocol};
	struct bpf_sock *sk = ctx->sk;
	int any = !(ip6[0] | ip6[1] | ip6[2] | ip6[3]), verdict;

	if (!sk || is_foreign(ctx))
		return ALLOW;
	if (any ? is_ipv6_only(ctx) : !is_mapped(ip6))
		return ALLOW;
	verdict = bind_socket(ctx, sk, &flow);
	if (flow.src == ip6[3] && flow.sport == ctx->user_port)
		return verdict;
	ctx->user_ip6[2] = bpf_htonl(0xffff);
	ctx->user_ip6[3] = flow.src;
	ctx->user_port = flow.sport;
	return verdict;
}

static __always_inline void expect_nobody(struct bpf_sock *sk)
{
	struct replies *own = bpf_sk_storage_get(&replies, sk, 0, 0);

	if (!own)
		return;
	for (int i = 0; i < PS_REPLIES_MAX; i++) {
		struct ps_claim_key key = own->keys[i];

		if (key.protocol)
			ps_claim_drop(&key);
	}
}

SEC("cgroup/sock_release")
int ps_sock_release(struct bpf_sock *sk)
{
	struct ps_held *held = bpf_sk_storage_get(&sockets, sk, 0, 0);

	expect_nobody(sk);
	if (!held)
		return 1;
	/* A connection that is being closed ends in STATE_CB; a listener has none. */
	if (sk->protocol == IPPROTO_TCP && sk->state != BPF_TCP_CLOSE &&
	    sk->state != BPF_TCP_LISTEN)
		return 1;
	let_go(held);
	return 1;
}

/* How long the kernel refuses the port to that peer, since there are no timestamps; 0: not at all.
 * A socket in FIN_WAIT2 ends because the peer's FIN came, and TIME_WAIT begins; or because the
 * kernel moves an orphan to a smaller socket that waits for the FIN, and TIME_WAIT comes after. */
static __always_inline __u64 quarantine_of(struct bpf_sock *sk, __u32 old_state)
{
	if ((old_state != BPF_TCP_FIN_WAIT2 && old_state != BPF_TCP_CLOSING) ||
	    tcp_has_timestamps(sk))
		return 0;
	if (old_state == BPF_TCP_FIN_WAIT2 && !tcp_peer_is_done(sk))
		return fin_timeout_ns + PS_QUARANTINE_NS;
	return PS_QUARANTINE_NS;
}

static __always_inline void closed(struct bpf_sock *sk, struct ps_held *held, __u32 old_state)
{
	__u64 for_ns = quarantine_of(sk, old_state);
	struct ps_claim_key key = held->key;

	if (!for_ns) {
		let_go(held);
		return;
	}
	if (!__sync_bool_compare_and_swap(&held->held, 1, 0))
		return;
	ps_claim_quarantine(&key, for_ns);
	count(PS_EGRESS_QUARANTINE);
}

SEC("sockops")
int ps_sockops(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct ps_held *held;

	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB && ctx->op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	if (!sk)
		return 1;
	held = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!held || !held->held)
		return 1;
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		bpf_sock_ops_cb_flags_set(ctx,
					  ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	else if (ctx->args[1] == BPF_TCP_CLOSE)
		closed(sk, held, ctx->args[0]);
	return 1;
}

struct bpf_map;

static long sweep_step(struct bpf_map *map, struct ps_claim_key *key, struct ps_claim *claim,
		       __u64 *n_freed)
{
	__u64 until = *(volatile __u64 *)&claim->free_after_ns;

	if (!until || until > bpf_ktime_get_boot_ns())
		return 0;
	/* From here on nobody takes it over, so deleting it cannot take it from anyone. */
	if (__sync_val_compare_and_swap(&claim->free_after_ns, until, PS_CLAIM_DYING) != until)
		return 0;
	bpf_map_delete_elem(map, key);
	++*n_freed;
	return 0;
}

/* Run by user space now and then: deletes entries whose quarantine is over. */
SEC("syscall")
int ps_sweep(void *ctx)
{
	__u64 n_freed = 0;

	bpf_for_each_map_elem(&claims, sweep_step, &n_freed, 0);
	return (int)n_freed;
}

char ps_license[] SEC("license") = "GPL";

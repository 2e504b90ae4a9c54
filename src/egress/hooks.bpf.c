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
 *   sock_create  sockets that can have no port are refused (create.bpf.h)
 *   sock_ops, sock_release  give the port back
 *
 * The hooks of both families are one code over addresses of sixteen bytes (address.h); the family of
 * the destination decides which slices serve.
 *
 * A socket has one claim at a time, in its storage (and a few more in `replies`, for datagrams to
 * direct destinations).  `held` is swapped to 0 by whoever ends it, so that the two ways a TCP
 * socket can end give its port back once.  Every hook leaves sockets of other network namespaces
 * alone; the last two act on sockets with our storage only.
 *
 * Stack: 512 bytes for a chain of calls, each rounded up to 32 on Linux 6.1; the deepest, connect()
 * through ps_attempt_narrow(), has 512.
 */
#include "egress/call.bpf.h"
#include "egress/create.bpf.h"
#include "egress/draw.bpf.h"
#include "egress/repair.bpf.h"
#include "egress/seed.bpf.h"
#include "egress/socket.bpf.h"
#include "egress/tend.bpf.h"

static __always_inline int deny_draw(const struct ps_claim_key *flow, int class, int error)
{
	if (error == -ENOBUFS)
		return deny(flow, class, PS_EGRESS_NO_MEMORY, ENOBUFS);
	return deny(flow, class, PS_EGRESS_EXHAUSTED, EADDRNOTAVAIL);
}

/* A wish for a port, and for the socket to be bound to it. */
struct bind_ask {
	struct bpf_sock_addr *ctx;
	struct ps_ask ask; /* its flow is that of the call */
	__u32 family;      /* of the socket */
	int drawn, bound;  /* 0, or why not */
};

/* A service's port is nobody's to draw; one held without a peer is free towards nobody new. */
static __always_inline int is_kept(const struct ps_claim_key *flow)
{
	return is_service(&flow->src, flow->sport, flow->protocol) || held_without_peer(flow);
}

static __always_inline int bind_drawn(struct bind_ask *bind)
{
	const struct ps_claim_key *flow = &bind->ask.page.grip.flow;

	if (is_kept(flow))
		return -EADDRINUSE;
	if (PS_LOAD(no_strays) || !is_astray(bind->ctx, flow))
		return bind_to(bind->ctx, bind->family, flow);
	count(PS_EGRESS_STRAY);
	return -EADDRINUSE;
}

static long bind_step(__u64 nth, struct bind_ask *bind)
{
	bind->drawn = ps_claim_step(&bind->ask);
	if (bind->drawn)
		return bind->drawn != -EAGAIN;
	bind->bound = bind_drawn(bind);
	if (bind->bound == -EADDRINUSE) {
		ps_claim_pass(&bind->ask);
		return 0;
	}
	if (bind->bound)
		ps_claim_drop(&bind->ask.page.grip);
	return 1;
}

static __always_inline void draw_and_bind(struct bind_ask *bind)
{
	bind->drawn = -EADDRNOTAVAIL;
	if (ps_ask_is_vain(&bind->ask))
		return;
	bpf_loop(LOOPS_MAX, bind_step, bind, 0);
	if (bind->drawn == -EADDRNOTAVAIL)
		ps_ask_note(&bind->ask);
}

/* Has this claim brought the use of n_shared ports to so many per cent? */
static __always_inline int reaches(__u32 n_used, __u32 n_shared, __u32 percent)
{
	__u64 mark = (__u64)n_shared * percent;

	return n_used * 100ull >= mark && (n_used - 1) * 100ull < mark;
}

/* The pages before this one on the walk are full, so its count says how full the choice is. */
static __always_inline void watch(const struct ps_ask *ask, int class,
				  const struct ps_choice *choice)
{
	__u32 n_used = ask->n_passed + ask->page.n_used, n = choice->n_shared;

	if (ask->is_pinned || n_used * 10ull < n * 7ull)
		return;
	if (reaches(n_used, n, 100))
		tell(&ask->page.grip.flow, class, PS_EGRESS_WATERMARK_FULL);
	else if (reaches(n_used, n, 90))
		tell(&ask->page.grip.flow, class, PS_EGRESS_WATERMARK_90);
	else if (reaches(n_used, n, 70))
		tell(&ask->page.grip.flow, class, PS_EGRESS_WATERMARK_70);
}

/* connect() of an unbound socket: draws a port and binds the socket to it.  Its address may have
 * been chosen by bind(). */
static __always_inline int connect_unbound(struct bind_ask *bind, struct bpf_sock *sk, int class,
					   const struct ps_choice *choice)
{
	struct ps_claim_key *flow = &bind->ask.page.grip.flow;
	struct ps_held *held;

	if (!ps_ip16_is_zero(&flow->src) && !ps_claim_serves(flow, choice->first, choice->n))
		return deny(flow, class, PS_EGRESS_REFUSED_PORT, EADDRNOTAVAIL);
	if (observe)
		return allow(PS_EGRESS_CONNECT);
	held = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!held)
		return deny(flow, class, PS_EGRESS_NO_MEMORY, ENOBUFS);
	let_go(held);
	allow_sharing(bind->ctx);
	ps_ask_start(&bind->ask, choice, home_of(sk, choice));
	draw_and_bind(bind);
	if (bind->drawn || bind->bound)
		ps_ask_end(&bind->ask);
	if (bind->drawn == -EADDRNOTAVAIL && bind->bound)
		return deny(flow, class, PS_EGRESS_BLOCKED, EADDRNOTAVAIL);
	if (bind->drawn)
		return deny_draw(flow, class, bind->drawn);
	if (bind->bound)
		return deny(flow, class, PS_EGRESS_REFUSED_KERNEL, EADDRNOTAVAIL);
	hold(held, &bind->ask.page.grip);
	watch(&bind->ask, class, choice);
	lower_mss(bind->ctx, sk, ps_ip16_is_v4(&flow->dst));
	return allow(PS_EGRESS_CONNECT);
}

/* connect() of a bound socket, which cannot be bound again: its port must do. */
static __always_inline int connect_bound(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
					 struct ps_page_ask *ask, int class,
					 const struct ps_choice *choice)
{
	struct ps_claim_key *flow = &ask->grip.flow;
	__u32 port = sk->src_port;
	struct ps_held *held;
	int r;

	flow->sport = bpf_htons(port);
	if (ps_claim_serves(flow, choice->first, choice->n) != PS_SERVES_PORT)
		return deny(flow, class, PS_EGRESS_REFUSED_PORT, EADDRNOTAVAIL);
	if (observe)
		return allow(PS_EGRESS_RECONNECT);
	held = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!held)
		return deny(flow, class, PS_EGRESS_NO_MEMORY, ENOBUFS);
	if (held->held && is_same(&held->grip.flow, flow))
		return allow(PS_EGRESS_RECONNECT);
	r = ps_claim_exactly(ask);
	if (r)
		return deny_draw(flow, class, r);
	let_go(held);
	hold(held, &ask->grip);
	lower_mss(ctx, sk, ps_ip16_is_v4(&flow->dst));
	return allow(PS_EGRESS_RECONNECT);
}

/* bind->ask.page.grip.flow names the destination, which says the family. */
static __always_inline int connect_to(struct bind_ask *bind, struct bpf_sock *sk)
{
	struct ps_claim_key *flow = &bind->ask.page.grip.flow;
	__u32 place = place_of(&flow->dst), slot;
	struct ps_choices *choice;
	int class, is_v4 = ps_ip16_is_v4(&flow->dst);

	source_of(sk, &flow->src);
	class = class_of(sk->mark, &flow->src, &flow->dst);
	if (place == PS_PLACE_SHARED) {
		if (is_service(&flow->dst, flow->dport, flow->protocol))
			return allow(PS_EGRESS_DIRECT);
		return deny(flow, class, PS_EGRESS_REFUSED_SHARED, ECONNREFUSED);
	}
	if (!has_port(bind->ctx))
		return ALLOW;
	if (class < 0)
		return allow(PS_EGRESS_OUTSIDE);
	/* Bound to a shared address a socket uses one of our ports whatever the destination. */
	if (place == PS_PLACE_DIRECT && place_of(&flow->src) != PS_PLACE_SHARED)
		return allow(PS_EGRESS_DIRECT);
	slot = class;
	choice = bpf_map_lookup_elem(&choices, &slot);
	if (!choice || !(is_v4 ? choice->v4.n : choice->v6.n))
		return deny_family(flow, class, choice);
	if (flow->protocol == IPPROTO_ICMP || flow->protocol == IPPROTO_ICMPV6)
		flow->dport = 0;
	bind->family = sk->family;
	if (sk->src_port)
		return connect_bound(bind->ctx, sk, &bind->ask.page, class,
				     is_v4 ? &choice->v4 : &choice->v6);
	return connect_unbound(bind, sk, class, is_v4 ? &choice->v4 : &choice->v6);
}

SEC("cgroup/connect4")
int ps_connect4(struct bpf_sock_addr *ctx)
{
	struct bind_ask bind = {.ctx = ctx,
				.ask.page.grip.flow = {.dst = ps_ip16_v4(ctx->user_ip4),
						       .dport = ctx->user_port,
						       .protocol = ctx->protocol}};
	struct bpf_sock *sk = ctx->sk;

	if (!sk || is_foreign(ctx))
		return ALLOW;
	return connect_to(&bind, sk);
}

SEC("cgroup/connect6")
int ps_connect6(struct bpf_sock_addr *ctx)
{
	struct bind_ask bind = {.ctx = ctx,
				.ask.page.grip.flow = {.dst = user_ip6(ctx),
						       .dport = ctx->user_port,
						       .protocol = ctx->protocol}};
	struct bpf_sock *sk = ctx->sk;

	if (!sk || is_foreign(ctx))
		return ALLOW;
	return connect_to(&bind, sk);
}

/* This host, by whatever address: loopback, 0.0.0.0 and `::`. */
static __always_inline int is_loopback(const union ps_ip16 *ip)
{
	if (ps_ip16_is_v4(ip))
		return !ip->words[3] ||
		       (ip->words[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !(ip->words[0] | ip->words[1] | ip->words[2]) &&
	       (!ip->words[3] || ip->words[3] == bpf_htonl(1));
}

/* Is the shared destination a socket of this very host, open to all or to this sender? */
static __always_inline int is_held_here(const struct ps_claim_key *flow)
{
	struct ps_claim_key peer = {.src = flow->dst,
				    .dst = flow->src,
				    .sport = flow->dport,
				    .dport = flow->sport,
				    .protocol = flow->protocol};
	struct ps_place_value *place = place_find(&peer.src);

	peer.shift = place ? place->shift : 0;
	return ps_claim_is_held(&peer) || held_without_peer(&peer);
}

/* A socket that was moved to a shared address sends from it to a direct destination too.  The
 * dispatcher delivers the answer if that peer is expected, so the socket takes a claim towards it;
 * beyond PS_REPLIES_MAX the oldest is given back. */
static __always_inline int send_expecting(struct bpf_sock *sk, const struct ps_claim_key *flow,
					  int class)
{
	struct ps_page_ask ask = {.grip.flow = *flow};
	struct ps_place_value *place = place_find(&flow->src);
	struct replies *own;
	struct ps_grip old;
	int r;

	ask.grip.flow.shift = place ? place->shift : 0;
	if (observe || ps_claim_is_held(&ask.grip.flow))
		return ALLOW;
	own = bpf_sk_storage_get(&replies, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	r = own ? ps_claim_exactly(&ask) : -ENOBUFS;
	if (r == -EADDRINUSE)
		return ALLOW; /* another thread was faster */
	if (!own || r)
		return deny_draw(flow, class, r);
	bpf_spin_lock(&own->lock);
	old = own->grips[own->next % PS_REPLIES_MAX];
	own->grips[own->next % PS_REPLIES_MAX] = ask.grip;
	own->next++;
	bpf_spin_unlock(&own->lock);
	if (old.flow.protocol)
		ps_claim_drop(&old);
	return allow(PS_EGRESS_REPLY);
}

/* The service that answers from a socket's port: *source stays, or becomes the service's address
 * where neither the socket nor the program (IP_PKTINFO) names one. */
static __always_inline int is_answer(const struct ps_claim_key *flow, union ps_ip16 *source)
{
	struct ps_claim_key key = bare_key(flow);
	struct ps_service_value *service;

	if (ps_ip16_is_zero(&key.src) && ps_ip16_is_v4(&flow->dst))
		key.src = ps_ip16_v4(0);
	service = n_services ? bpf_map_lookup_elem(&services, &key) : NULL;
	if (!service || ps_ip16_is_zero(&service->address))
		return 0;
	*source = service->address;
	return 1;
}

static __always_inline int is_peer(struct bpf_sock *sk, const struct ps_claim_key *flow)
{
	union ps_ip16 peer;

	if (!sk->dst_port || sk->dst_port != flow->dport)
		return 0;
	peer_of(sk, &peer);
	return ps_ip16_is_same(&peer, &flow->dst);
}

/* A datagram to a direct destination: any, but one from a shared address must be awaited.  The
 * kernel refuses one whose source is of the other family. */
static __always_inline int send_direct(struct bpf_sock *sk, const struct ps_claim_key *flow,
				       int class)
{
	if (is_loopback(&flow->dst) || place_of(&flow->src) != PS_PLACE_SHARED ||
	    ps_ip16_is_v4(&flow->src) != ps_ip16_is_v4(&flow->dst) ||
	    is_service(&flow->src, flow->sport, flow->protocol))
		return ALLOW;
	return send_expecting(sk, flow, class);
}

/* A datagram to nobody in particular, without connect(). */
static __always_inline int send_unconnected(const struct ps_claim_key *flow, int class)
{
	__u32 slot = class;
	struct ps_choices *choice = bpf_map_lookup_elem(&choices, &slot);
	int is_v4 = ps_ip16_is_v4(&flow->dst);

	if (choice && !(is_v4 ? choice->v4.n : choice->v6.n) && (choice->v4.n | choice->v6.n))
		return deny_family(flow, class, choice);
	return deny(flow, class, PS_EGRESS_REFUSED_UNCONNECTED, EDESTADDRREQ);
}

/* sendto() of a datagram socket.  *source is the source address the program or we give it, zero:
 * the kernel chooses. */
static __always_inline int send_to(struct bpf_sock *sk, struct ps_claim_key *flow,
				   union ps_ip16 *source)
{
	__u32 place = place_of(&flow->dst);
	int class;

	if (ps_ip16_is_any(source))
		source_of(sk, &flow->src);
	else
		flow->src = *source;
	class = class_of(sk->mark, &flow->src, &flow->dst);
	flow->sport = bpf_htons(sk->src_port);
	if (place == PS_PLACE_SHARED) {
		if (is_service(&flow->dst, flow->dport, flow->protocol) || is_held_here(flow))
			return ALLOW;
		return deny(flow, class, PS_EGRESS_REFUSED_SHARED, ECONNREFUSED);
	}
	if (class < 0)
		return ALLOW;
	if (place == PS_PLACE_DIRECT)
		return send_direct(sk, flow, class);
	if (is_peer(sk, flow) || (!observe && is_answer(flow, source)))
		return ALLOW;
	return send_unconnected(flow, class);
}

SEC("cgroup/sendmsg4")
int ps_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct ps_claim_key flow = {.dst = ps_ip16_v4(ctx->user_ip4),
				    .dport = ctx->user_port,
				    .protocol = ctx->protocol};
	union ps_ip16 source = ps_ip16_v4(ctx->msg_src_ip4);
	struct bpf_sock *sk = ctx->sk;
	int verdict;

	if (!sk || is_foreign(ctx))
		return ALLOW;
	verdict = send_to(sk, &flow, &source);
	if (source.words[3] != ctx->msg_src_ip4)
		ctx->msg_src_ip4 = source.words[3];
	return verdict;
}

SEC("cgroup/sendmsg6")
int ps_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct ps_claim_key flow = {
		.dst = user_ip6(ctx), .dport = ctx->user_port, .protocol = ctx->protocol};
	union ps_ip16 given = {.words = {ctx->msg_src_ip6[0], ctx->msg_src_ip6[1],
					 ctx->msg_src_ip6[2], ctx->msg_src_ip6[3]}},
		      source = given;
	struct bpf_sock *sk = ctx->sk;
	int verdict;

	if (!sk || is_foreign(ctx))
		return ALLOW;
	/* The kernel sends mapped ones as IPv4, and asks ps_sendmsg4 (net/ipv6/udp.c). */
	if (ps_ip16_is_v4(&flow.dst))
		return ALLOW;
	verdict = send_to(sk, &flow, &source);
	if (!ps_ip16_is_same(&source, &given)) {
		ctx->msg_src_ip6[0] = source.words[0];
		ctx->msg_src_ip6[1] = source.words[1];
		ctx->msg_src_ip6[2] = source.words[2];
		ctx->msg_src_ip6[3] = source.words[3];
	}
	return verdict;
}

/* bind() to port 0: as the kernel would, but from an exclusive block of our slices. */
static __always_inline int bind_any(struct ps_held *held, struct ps_ask *ask, int class,
				    const struct ps_choice *choice, struct ps_home home)
{
	ps_ask_start(ask, choice, home);
	bpf_loop(LOOPS_MAX, unused_step, ask, 0);
	if (ask->error) {
		ps_ask_end(ask);
		ps_ask_start(ask, choice, home);
		bpf_loop(LOOPS_MAX, any_step, ask, 0);
	}
	if (ask->error) {
		ps_ask_end(ask);
		return deny_draw(&ask->page.grip.flow, class, ask->error);
	}
	hold(held, &ask->page.grip);
	return allow(PS_EGRESS_BIND);
}

static __always_inline int bind_exactly(struct ps_held *held, struct ps_page_ask *ask, int class)
{
	int r = ps_claim_exactly(ask);

	if (r == -ENOBUFS)
		return deny(&ask->grip.flow, class, PS_EGRESS_NO_MEMORY, ENOBUFS);
	if (r)
		return deny(&ask->grip.flow, class, PS_EGRESS_EXHAUSTED, -r);
	hold(held, &ask->grip);
	return allow(PS_EGRESS_BIND);
}

/* A program of a class binds a shared address, or port 0 of any (src zero). */
static __always_inline int bind_ours(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
				     struct ps_ask *ask, int class, const struct ps_choice *choice)
{
	struct ps_claim_key *flow = &ask->page.grip.flow;
	struct ps_held *held;
	int serves;

	serves = ps_ip16_is_zero(&flow->src) ? PS_SERVES_ADDRESS
					     : ps_claim_serves(flow, choice->first, choice->n);
	if (serves == PS_SERVES_NOTHING)
		return deny(flow, class, PS_EGRESS_REFUSED_BIND, EADDRNOTAVAIL);
	if (!flow->sport && binds_address_only(ctx))
		return ALLOW;
	if (flow->sport && serves != PS_SERVES_PORT)
		return deny(flow, class, PS_EGRESS_REFUSED_BIND, EACCES);
	if (observe)
		return allow(PS_EGRESS_BIND);
	held = bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!held)
		return deny(flow, class, PS_EGRESS_NO_MEMORY, ENOBUFS);
	let_go(held);
	allow_sharing(ctx);
	if (flow->sport)
		return bind_exactly(held, &ask->page, class);
	return bind_any(held, ask, class, choice, home_of(sk, choice));
}

/* Which addresses a socket that binds the wildcard takes: a socket of both families IPv4, where
 * the class has some. */
enum wildcard { WILDCARD_V4, WILDCARD_V6, WILDCARD_BOTH };

static __always_inline int binds_v4(const union ps_ip16 *src, enum wildcard wildcard,
				    const struct ps_choices *choice)
{
	if (!ps_ip16_is_zero(src))
		return ps_ip16_is_v4(src);
	return wildcard == WILDCARD_BOTH ? choice->v4.n != 0 : wildcard == WILDCARD_V4;
}

/* ask->page.grip.flow names what is bound and, on return, what shall be bound instead. */
static __always_inline int bind_socket(struct bpf_sock_addr *ctx, struct bpf_sock *sk,
				       struct ps_ask *ask, enum wildcard wildcard)
{
	struct ps_claim_key *flow = &ask->page.grip.flow;
	int is_any = ps_ip16_is_zero(&flow->src), class;
	const struct ps_choices *choice;
	const struct ps_choice *of;
	__u32 slot;

	if (is_any ? !!flow->sport : place_of(&flow->src) != PS_PLACE_SHARED)
		return ALLOW;
	/* The destination is not known yet: a class that names one is passed by. */
	class = class_of(sk->mark, &flow->src, &flow->dst);
	if (!is_any && is_service(&flow->src, flow->sport, flow->protocol))
		return ALLOW;
	if (class < 0 && !is_any)
		return deny(flow, class, PS_EGRESS_REFUSED_BIND, EACCES);
	if (class < 0 || sk->src_port || !has_port(ctx))
		return ALLOW;
	slot = class;
	choice = bpf_map_lookup_elem(&choices, &slot);
	if (!choice || !(choice->v4.n | choice->v6.n))
		return deny(flow, class, PS_EGRESS_NO_SLICE, EADDRNOTAVAIL);
	of = binds_v4(&flow->src, wildcard, choice) ? &choice->v4 : &choice->v6;
	if (is_any && !of->n)
		return ALLOW;
	return bind_ours(ctx, sk, ask, class, of);
}

SEC("cgroup/bind4")
int ps_bind4(struct bpf_sock_addr *ctx)
{
	struct ps_ask ask = {
		.page.grip.flow = {.sport = ctx->user_port, .protocol = ctx->protocol}};
	struct bpf_sock *sk = ctx->sk;
	int verdict;

	if (!sk || is_foreign(ctx))
		return ALLOW;
	if (ctx->user_ip4)
		ask.page.grip.flow.src = ps_ip16_v4(ctx->user_ip4);
	verdict = bind_socket(ctx, sk, &ask, WILDCARD_V4);
	ctx->user_ip4 = ask.page.grip.flow.src.words[3];
	ctx->user_port = ask.page.grip.flow.sport;
	return verdict;
}

SEC("cgroup/bind6")
int ps_bind6(struct bpf_sock_addr *ctx)
{
	struct ps_ask ask = {.page.grip.flow = {.src = user_ip6(ctx),
						.sport = ctx->user_port,
						.protocol = ctx->protocol}};
	struct bpf_sock *sk = ctx->sk;
	enum wildcard wildcard;
	int verdict;

	if (!sk || is_foreign(ctx))
		return ALLOW;
	if (ps_ip16_is_v4(&ask.page.grip.flow.src))
		wildcard = WILDCARD_V4;
	else
		wildcard = is_ipv6_only(ctx) ? WILDCARD_V6 : WILDCARD_BOTH;
	if (ps_ip16_is_any(&ask.page.grip.flow.src))
		ask.page.grip.flow.src = (union ps_ip16){0};
	verdict = bind_socket(ctx, sk, &ask, wildcard);
	if (ps_ip16_is_zero(&ask.page.grip.flow.src))
		return verdict;
	ctx->user_ip6[0] = ask.page.grip.flow.src.words[0];
	ctx->user_ip6[1] = ask.page.grip.flow.src.words[1];
	ctx->user_ip6[2] = ask.page.grip.flow.src.words[2];
	ctx->user_ip6[3] = ask.page.grip.flow.src.words[3];
	ctx->user_port = ask.page.grip.flow.sport;
	return verdict;
}

static __always_inline void expect_nobody(struct bpf_sock *sk)
{
	struct replies *own = bpf_sk_storage_get(&replies, sk, 0, 0);

	if (!own)
		return;
	for (int i = 0; i < PS_REPLIES_MAX; i++) {
		struct ps_grip grip = own->grips[i];

		if (grip.flow.protocol)
			ps_claim_drop(&grip);
	}
}

/* How long the kernel refuses the port to that peer, since there are no timestamps; 0: not at all.
 * A socket in FIN_WAIT2 ends because the peer's FIN came, and TIME_WAIT begins; or because the
 * kernel moves an orphan to a smaller socket that waits for the FIN, and TIME_WAIT comes after. */
static __always_inline __u64 quarantine_of(struct bpf_sock *sk, __u32 old_state)
{
	if ((old_state != BPF_TCP_FIN_WAIT2 && old_state != BPF_TCP_CLOSING) ||
	    tcp_has_timestamps(bpf_skc_to_tcp_sock(sk)))
		return 0;
	if (old_state == BPF_TCP_FIN_WAIT2 && !tcp_peer_is_done(sk))
		return fin_timeout_ns + PS_QUARANTINE_NS;
	return PS_QUARANTINE_NS;
}

static __always_inline void keep(struct ps_held *held, __u64 for_ns)
{
	struct ps_grip grip = held->grip;

	if (!__sync_bool_compare_and_swap(&held->held, 1, 0))
		return;
	ps_claim_quarantine(&grip, for_ns);
	count(PS_EGRESS_QUARANTINE);
}

static __always_inline void closed(struct bpf_sock *sk, struct ps_held *held, __u32 old_state)
{
	__u64 for_ns = quarantine_of(sk, old_state);

	if (for_ns)
		keep(held, for_ns);
	else
		let_go(held);
}

/* A connection that is being closed ends in STATE_CB, but for one of which we will not hear: seeded on
 * Linux 6.1, or whose SYN waits for data (TCP_FASTOPEN_CONNECT).  An orphan of the former may live on
 * for a while; the hooks see it among the kernel's sockets (is_astray()). */
static __always_inline void close_untold(struct bpf_sock *sk, struct ps_held *held)
{
	/* The context of this hook is the kernel's own socket. */
	if (sk->state == BPF_TCP_SYN_SENT || tcp_has_timestamps((void *)sk))
		let_go(held);
	else
		keep(held, fin_timeout_ns + PS_QUARANTINE_NS);
}

SEC("cgroup/sock_release")
int ps_sock_release(struct bpf_sock *sk)
{
	struct ps_held *held = bpf_sk_storage_get(&sockets, sk, 0, 0);

	if (sk->protocol != IPPROTO_TCP)
		expect_nobody(sk);
	if (!held)
		return 1;
	if (sk->protocol != IPPROTO_TCP || sk->state == BPF_TCP_CLOSE ||
	    sk->state == BPF_TCP_LISTEN)
		let_go(held);
	else if (!(tcp_callbacks(sk) & BPF_SOCK_OPS_STATE_CB_FLAG))
		close_untold(sk, held);
	return 1;
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

char ps_license[] SEC("license") = "GPL";

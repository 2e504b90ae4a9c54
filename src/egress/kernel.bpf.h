/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The few kernel fields that no helper tells, by CO-RE: only the members named here must exist.
 */
#ifndef PS_EGRESS_KERNEL_BPF_H
#define PS_EGRESS_KERNEL_BPF_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sock_common {
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned char skc_ipv6only : 1;
	unsigned long skc_flags;
	__be32 skc_daddr, skc_rcv_saddr;
	union ps_ip16 skc_v6_daddr, skc_v6_rcv_saddr; /* struct in6_addr */
	__be16 skc_dport;
	__u16 skc_num;
};
struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol;
};
enum sock_flags { SOCK_DEAD, SOCK_DONE };
struct inet_sock {
	unsigned long inet_flags; /* Linux 6.6 */
};
struct inet_sock___before_6_6 {
	__u8 bind_address_no_port : 1;
};
struct bpf_sock_addr_kern {
	struct sock *sk;
};
struct tcp_options_received {
	__u16 tstamp_ok : 1;
	__u16 user_mss;
};
struct tcp_sock {
	struct tcp_options_received rx_opt;
	__u8 bpf_sock_ops_cb_flags;
};
struct tcp_timewait_sock {
	__u32 tw_ts_recent; /* 0: no timestamps */
};
#pragma clang attribute pop

enum { INET_FLAGS_BIND_ADDRESS_NO_PORT = 18 }; /* include/net/inet_sock.h, Linux 6.6 to 6.18 */

/* The socket as an address to probe.  No helper makes one of a UDP socket over IPv4, but the
 * kernel's own context begins with it. */
static __always_inline struct sock *kernel_sock(struct bpf_sock_addr *ctx)
{
	struct sock *sk = NULL;

	if (bpf_core_field_offset(struct bpf_sock_addr_kern, sk))
		return NULL;
	if (bpf_probe_read_kernel(&sk, sizeof(sk), ctx))
		return NULL;
	return sk;
}

/* IP_BIND_ADDRESS_NO_PORT is set: bind() takes the address, connect() the port. */
static __always_inline int binds_address_only(struct bpf_sock_addr *ctx)
{
	struct inet_sock *inet = (void *)kernel_sock(ctx);
	struct inet_sock___before_6_6 *old = (void *)inet;

	if (!inet)
		return 0;
	if (bpf_core_field_exists(inet->inet_flags))
		return BPF_CORE_READ(inet, inet_flags) >> INET_FLAGS_BIND_ADDRESS_NO_PORT & 1;
	return BPF_CORE_READ_BITFIELD_PROBED(old, bind_address_no_port);
}

static __always_inline int is_ipv6_only(struct bpf_sock_addr *ctx)
{
	struct sock *sk = kernel_sock(ctx);
	struct sock_common *common = (void *)sk;

	return sk && BPF_CORE_READ_BITFIELD_PROBED(common, skc_ipv6only);
}

/* The MSS the program asked for itself, 0: none. */
static __always_inline __u16 tcp_user_mss(struct bpf_sock *sk)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);

	return tcp ? BPF_CORE_READ(tcp, rx_opt.user_mss) : 0;
}

/* This connection carries timestamps, so its TIME_WAIT does not keep the port (RFC 6191). */
static __always_inline int tcp_has_timestamps(struct tcp_sock *tcp)
{
	return tcp && BPF_CORE_READ_BITFIELD_PROBED(tcp, rx_opt.tstamp_ok);
}

/* BPF_SOCK_OPS_..._CB_FLAG that are set; of the kernel's own socket, a full one. */
static __always_inline int tcp_callbacks(void *sk)
{
	struct tcp_sock *tcp = sk;

	return BPF_CORE_READ(tcp, bpf_sock_ops_cb_flags);
}

/* The peer has ended its direction too (tcp_fin(), net/ipv4/tcp_input.c). */
static __always_inline int tcp_peer_is_done(struct bpf_sock *sk)
{
	struct sock_common *kernel = (void *)bpf_skc_to_tcp_sock(sk);

	return kernel &&
	       BPF_CORE_READ(kernel, skc_flags) >> bpf_core_enum_value(enum sock_flags, SOCK_DONE) &
		       1;
}

#endif

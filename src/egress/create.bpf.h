/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * socket(): what can never be given a port is refused when it is made, since no hook sees its packets.
 *
 * Raw sockets write their own ports, and UDP-Lite, SCTP and L2TP have none of ours: a program of a
 * class gets EACCES (socket(2): "permission to create a socket of the specified type is denied").
 * MPTCP is left: its first subflow passes connect() as TCP.  Ping sockets are left, but noted: connected
 * they are served, else the guard drops what they send.  Packet sockets do not come here; the guard is
 * for them.
 *
 * A socket has no mark and no address yet, so programs that only a mark, `from` or `to` puts into a
 * class are not known here.
 */
#ifndef PS_EGRESS_CREATE_BPF_H
#define PS_EGRESS_CREATE_BPF_H

#include "egress/call.bpf.h"
#include "egress/ping.bpf.h"

enum { PROTOCOL_MPTCP = 262 };

static __always_inline int has_slices(__u32 type, __u32 protocol)
{
	if (type == SOCK_STREAM)
		return protocol == IPPROTO_TCP || protocol == PROTOCOL_MPTCP;
	return type == SOCK_DGRAM && protocol == IPPROTO_UDP;
}

static __always_inline int is_ping(__u32 type, __u32 protocol)
{
	return type == SOCK_DGRAM && (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6);
}

static __always_inline void note_ping(struct bpf_sock *sk)
{
	struct ps_ping *ping = bpf_sk_storage_get(&pings, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!ping)
		return;
	ping->cgroup = bpf_get_current_cgroup_id();
	ping->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(ping->comm, sizeof(ping->comm));
}

SEC("cgroup/sock_create")
int ps_sock_create(struct bpf_sock *sk)
{
	__u32 type = sk->type, protocol = sk->protocol;
	struct ps_claim_key flow = {.protocol = protocol};
	int class;

	if (has_slices(type, protocol) || bpf_get_netns_cookie(sk) != netns_cookie)
		return ALLOW;
	class = class_of(sk->mark, &flow.src, &flow.dst);
	if (class < 0)
		return ALLOW;
	if (!is_ping(type, protocol))
		return deny(&flow, class, PS_EGRESS_REFUSED_RAW, EACCES);
	note_ping(sk);
	return ALLOW;
}

#endif

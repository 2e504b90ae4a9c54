/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What the dispatcher itself says in IPv6, and the headers before what it encapsulates.  RFC 8200,
 * RFC 4443.
 */
#ifndef PS_DISPATCH_STEER6_ANSWER_H
#define PS_DISPATCH_STEER6_ANSWER_H

#include "dispatch/steer-answer.h"
#include "dispatch/steer6.h"

PS_INLINE __u32 ps_sum6(const struct ps_ends *ends, __u32 len, __u8 protocol)
{
	__u32 sum = ps_be16(len) + ps_be16(protocol);

	for (int i = 0; i < 4; i++)
		sum += ps_sum32(ends->ours[i]) + ps_sum32(ends->peer[i]);
	return sum;
}

/* From our end to the peer's; len: of what follows. */
PS_INLINE void ps_write_ip6(struct ps_ip6 *ip, const struct ps_ends *ends, __u32 len, __u8 next)
{
	ip->word = ps_be32(0x60000000);
	ip->payload_len = ps_be16(len);
	ip->next = next;
	ip->hop_limit = PS_TTL;
	for (int i = 0; i < 4; i++) {
		ip->src[i] = ends->ours[i];
		ip->dst[i] = ends->peer[i];
	}
}

/* Writes PS_RST6_LEN bytes. */
PS_INLINE void ps_write_reset6(void *at, const struct ps_ends *ends, const struct ps_flow *flow,
			       const struct ps_reset *reset)
{
	struct ps_ip6 *ip = at;

	ps_write_ip6(ip, ends, sizeof(struct tcphdr), PS_PROTO_TCP);
	ps_write_rst_segment(ip + 1, flow, reset,
			     ps_sum6(ends, sizeof(struct tcphdr), PS_PROTO_TCP));
}

/* Writes PS_ICMP6_LEN bytes before the quote, which is there already; 0: it ends beyond end. */
PS_INLINE int ps_write_unreachable6(void *at, const void *end, const struct ps_ends *ends,
				    __u32 quote_len, __u16 mtu)
{
	struct ps_ip6 *ip = at;
	struct ps_icmp *icmp = (void *)(ip + 1);
	__u8 type = mtu ? PS_ICMP6_TOO_BIG : PS_ICMP6_UNREACHABLE;
	__u8 code = mtu ? 0 : PS_ICMP6_CODE_PORT;
	__u32 sum = ps_sum6(ends, sizeof(*icmp) + quote_len, PS_PROTO_ICMP6) +
		    ps_be16(type << 8 | code) + ps_be16(mtu);

	if (!ps_sum_quote(icmp + 1, end, quote_len, PS_QUOTE6_MAX, &sum))
		return 0;
	ps_write_ip6(ip, ends, sizeof(*icmp) + quote_len, PS_PROTO_ICMP6);
	*icmp = (struct ps_icmp){type, code, ps_checksum(sum), 0, ps_be16(mtu)};
	return 1;
}

/* Makes the request at `at`, of ip_len bytes without extension headers, the reply to it: exchanging the
 * addresses leaves the checksum as it was. */
PS_INLINE void ps_write_echo6(void *at, __u32 ip_len, const struct ps_ends *ends)
{
	struct ps_icmp *icmp = (void *)((struct ps_ip6 *)at + 1);
	__u32 sum = (__u16)~icmp->check + ps_be16(1 << 8); /* 128 becomes 129 */

	ps_write_ip6(at, ends, ip_len - PS_IP6_LEN, PS_PROTO_ICMP6);
	icmp->type = PS_ICMP6_ECHO_REPLY;
	icmp->check = ps_checksum(sum);
}

#endif

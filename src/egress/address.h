/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * An address of either family in map keys and records: sixteen bytes, network order, IPv4 as
 * ::ffff:a.b.c.d (RFC 4291 §2.5.5.2).  The bytes of struct ps_ip (base/ip.h), in words, because the
 * kernel side has no memcmp.
 */
#ifndef PS_EGRESS_ADDRESS_H
#define PS_EGRESS_ADDRESS_H

#include <linux/types.h>

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define PS_MAPPED_WORD 0xffff0000u
#else
#define PS_MAPPED_WORD 0x0000ffffu
#endif

union ps_ip16 {
	__u8 bytes[16];
	__be32 words[4];
};

static inline __attribute__((always_inline)) union ps_ip16 ps_ip16_v4(__be32 ip4_be)
{
	return (union ps_ip16){.words = {0, 0, PS_MAPPED_WORD, ip4_be}};
}

static inline __attribute__((always_inline)) int ps_ip16_is_v4(const union ps_ip16 *ip)
{
	return !ip->words[0] && !ip->words[1] && ip->words[2] == PS_MAPPED_WORD;
}

static inline __attribute__((always_inline)) int ps_ip16_is_same(const union ps_ip16 *a,
								 const union ps_ip16 *b)
{
	return !((a->words[0] ^ b->words[0]) | (a->words[1] ^ b->words[1]) |
		 (a->words[2] ^ b->words[2]) | (a->words[3] ^ b->words[3]));
}

/* All bits zero: `::`, which stands for "none" in claims. */
static inline __attribute__((always_inline)) int ps_ip16_is_zero(const union ps_ip16 *ip)
{
	return !(ip->words[0] | ip->words[1] | ip->words[2] | ip->words[3]);
}

/* 0.0.0.0 or `::`. */
static inline __attribute__((always_inline)) int ps_ip16_is_any(const union ps_ip16 *ip)
{
	return ps_ip16_is_zero(ip) || (ps_ip16_is_v4(ip) && !ip->words[3]);
}

#endif

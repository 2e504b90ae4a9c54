/* SPDX-License-Identifier: MIT */
/*
 * Internet addresses and prefixes of either family in one type: sixteen bytes, network order, IPv4
 * as ::ffff:a.b.c.d (RFC 4291 §2.5.5.2), so that ordering, comparing and hashing need no case split.
 */
#ifndef PS_BASE_IP_H
#define PS_BASE_IP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PS_IP_TEXT_MAX = 46,     /* INET6_ADDRSTRLEN */
	PS_IP_HOST_MAX = 48,     /* with brackets */
	PS_PREFIX_TEXT_MAX = 50, /* address, slash, three digits */
};

struct ps_ip {
	uint8_t bytes[16];
};

/* bits counts from the front of the 16 bytes: an IPv4 /24 is stored as 120. */
struct ps_prefix {
	struct ps_ip ip; /* host bits are zero */
	uint8_t bits;
};

/* The address with these four bytes; ip4_be is network order. */
struct ps_ip ps_ip_from_v4(uint32_t ip4_be);
bool ps_ip_is_v4(const struct ps_ip *ip);
/* The IPv4 address in network order; 0 for an IPv6 address. */
uint32_t ps_ip_v4_be(const struct ps_ip *ip);
/* All zero: stands for no address. */
bool ps_ip_is_none(const struct ps_ip *ip);
/* <0, 0, >0 as memcmp(); IPv4 sorts among itself numerically. */
int ps_ip_cmp(const struct ps_ip *a, const struct ps_ip *b);
/* The address `offset` places after `ip`; wraps at the end of the low 64 bits. */
struct ps_ip ps_ip_add(const struct ps_ip *ip, uint64_t offset);
/* text is dotted quad or RFC 5952; -EINVAL otherwise. */
int ps_ip_parse(const char *text, struct ps_ip *ret);
/* Writes at most PS_IP_TEXT_MAX bytes to ret and returns ret. */
const char *ps_ip_format(const struct ps_ip *ip, char ret[PS_IP_TEXT_MAX]);
/* The same for before a colon and a port: IPv6 in brackets (RFC 5952 §6). */
const char *ps_ip_format_host(const struct ps_ip *ip, char ret[PS_IP_HOST_MAX]);

/* "192.0.2.0/24", or a lone address, which is a prefix of one.
 * -EINVAL: not an address or length; -EDOM: host bits are set. */
int ps_prefix_parse(const char *text, struct ps_prefix *ret);
const char *ps_prefix_format(const struct ps_prefix *prefix, char ret[PS_PREFIX_TEXT_MAX]);
bool ps_prefix_contains(const struct ps_prefix *prefix, const struct ps_ip *ip);
bool ps_prefix_overlaps(const struct ps_prefix *a, const struct ps_prefix *b);
/* Number of addresses, at most UINT64_MAX. */
uint64_t ps_prefix_size(const struct ps_prefix *prefix);

#endif

// SPDX-License-Identifier: MIT
#include "base/ip.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t v4_head[12] = {[10] = 0xff, [11] = 0xff};

struct ps_ip ps_ip_from_v4(uint32_t ip4_be)
{
	struct ps_ip ip;

	memcpy(ip.bytes, v4_head, sizeof(v4_head));
	memcpy(ip.bytes + 12, &ip4_be, sizeof(ip4_be));
	return ip;
}

bool ps_ip_is_v4(const struct ps_ip *ip)
{
	return memcmp(ip->bytes, v4_head, sizeof(v4_head)) == 0;
}

uint32_t ps_ip_v4_be(const struct ps_ip *ip)
{
	uint32_t ip4_be = 0;

	if (ps_ip_is_v4(ip))
		memcpy(&ip4_be, ip->bytes + 12, sizeof(ip4_be));
	return ip4_be;
}

bool ps_ip_is_none(const struct ps_ip *ip)
{
	static const struct ps_ip none;

	return ps_ip_cmp(ip, &none) == 0;
}

int ps_ip_cmp(const struct ps_ip *a, const struct ps_ip *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

struct ps_ip ps_ip_add(const struct ps_ip *ip, uint64_t offset)
{
	struct ps_ip sum = *ip;
	uint64_t low;

	memcpy(&low, sum.bytes + 8, sizeof(low));
	low = htobe64(be64toh(low) + offset);
	memcpy(sum.bytes + 8, &low, sizeof(low));
	return sum;
}

int ps_ip_parse(const char *text, struct ps_ip *ret)
{
	struct in6_addr v6;
	struct in_addr v4;

	if (inet_pton(AF_INET, text, &v4) == 1) {
		*ret = ps_ip_from_v4(v4.s_addr);
		return 0;
	}
	if (inet_pton(AF_INET6, text, &v6) != 1)
		return -EINVAL;
	memcpy(ret->bytes, v6.s6_addr, sizeof(ret->bytes));
	return 0;
}

const char *ps_ip_format(const struct ps_ip *ip, char ret[PS_IP_TEXT_MAX])
{
	if (ps_ip_is_v4(ip))
		inet_ntop(AF_INET, ip->bytes + 12, ret, PS_IP_TEXT_MAX);
	else
		inet_ntop(AF_INET6, ip->bytes, ret, PS_IP_TEXT_MAX);
	return ret;
}

const char *ps_ip_format_host(const struct ps_ip *ip, char ret[PS_IP_HOST_MAX])
{
	char text[PS_IP_TEXT_MAX];

	ps_ip_format(ip, text);
	snprintf(ret, PS_IP_HOST_MAX, ps_ip_is_v4(ip) ? "%s" : "[%s]", text);
	return ret;
}

/* The address with all bits from `bits` on cleared. */
static struct ps_ip network_of(const struct ps_ip *ip, unsigned bits)
{
	struct ps_ip net = *ip;

	for (unsigned i = 0; i < sizeof(net.bytes); i++) {
		if (bits <= i * 8)
			net.bytes[i] = 0;
		else if (bits < i * 8 + 8)
			net.bytes[i] &= (uint8_t)(0xff << (i * 8 + 8 - bits));
	}
	return net;
}

static int parse_length(const char *text, unsigned max, unsigned *ret)
{
	char *end;
	unsigned long v;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	v = strtoul(text, &end, 10);
	if (*end || v > max)
		return -EINVAL;
	*ret = (unsigned)v;
	return 0;
}

int ps_prefix_parse(const char *text, struct ps_prefix *ret)
{
	const char *slash = strchr(text, '/');
	char address[PS_IP_TEXT_MAX];
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	struct ps_ip ip, net;
	unsigned skip, bits = 128;
	int r;

	if (len >= sizeof(address))
		return -EINVAL;
	memcpy(address, text, len);
	address[len] = '\0';
	r = ps_ip_parse(address, &ip);
	if (r < 0)
		return r;
	skip = ps_ip_is_v4(&ip) ? 96 : 0;
	if (slash) {
		r = parse_length(slash + 1, 128 - skip, &bits);
		if (r < 0)
			return r;
		bits += skip;
	}
	net = network_of(&ip, bits);
	if (ps_ip_cmp(&net, &ip) != 0)
		return -EDOM;
	*ret = (struct ps_prefix){net, (uint8_t)bits};
	return 0;
}

const char *ps_prefix_format(const struct ps_prefix *prefix, char ret[PS_PREFIX_TEXT_MAX])
{
	unsigned skip = ps_ip_is_v4(&prefix->ip) ? 96 : 0;
	size_t len;

	ps_ip_format(&prefix->ip, ret);
	len = strlen(ret);
	snprintf(ret + len, PS_PREFIX_TEXT_MAX - len, "/%u", prefix->bits - skip);
	return ret;
}

bool ps_prefix_contains(const struct ps_prefix *prefix, const struct ps_ip *ip)
{
	struct ps_ip net = network_of(ip, prefix->bits);

	return ps_ip_cmp(&net, &prefix->ip) == 0;
}

bool ps_prefix_overlaps(const struct ps_prefix *a, const struct ps_prefix *b)
{
	return a->bits <= b->bits ? ps_prefix_contains(a, &b->ip) : ps_prefix_contains(b, &a->ip);
}

uint64_t ps_prefix_size(const struct ps_prefix *prefix)
{
	unsigned host_bits = 128u - prefix->bits;

	return host_bits >= 64 ? UINT64_MAX : UINT64_C(1) << host_bits;
}

/* SPDX-License-Identifier: MIT */
/*
 * Packets as data: what a test row says about one, with presets for what it does not say, and the
 * frame made from it.  Checksums are right unless the row breaks them.
 */
#ifndef PS_TESTS_PACKET_H
#define PS_TESTS_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { FRAME_MAX = 4096 };
enum { ICMP = 1, TCP = 6, UDP = 17, ICMP6 = 58 };
enum { FIN = 0x01, SYN = 0x02, RST = 0x04, PSH = 0x08, ACK = 0x10 };

/* Host order. */
#define IP4(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (d))

/* An outer header. */
struct outer {
	unsigned port;     /* UDP destination, 0: none */
	uint32_t src, dst; /* presets: NEIGHBOUR, SELF */
	int udp_len_error; /* added to the UDP length */
	unsigned options;  /* bytes, a multiple of 4 */
	unsigned frag;     /* flags and offset */
	unsigned protocol; /* preset: UDP */
	bool v6;           /* IPv6, from and to 2001:db8:a:: and the last 16 bits of src and dst */
	unsigned next;     /* IPv6 next header; preset: UDP */
};

struct packet {
	unsigned vlans;             /* tags, 0 to 2 */
	unsigned type;              /* Ethernet; preset: IPv4 */
	bool multicast;             /* destination MAC */
	unsigned protocol;          /* preset: TCP */
	uint32_t src, dst;          /* presets: PEER, A */
	unsigned sport;             /* preset: 443 */
	unsigned dport;             /* and ICMP identifier */
	unsigned flags;             /* TCP; preset: ACK */
	unsigned doff;              /* TCP; preset: 5 */
	unsigned icmp, icmp_code;   /* type and code */
	unsigned embedded;          /* protocol of the packet in an ICMP error */
	uint32_t embedded_src;      /* preset: dst */
	unsigned embedded_icmp;     /* type; preset: echo */
	unsigned embedded_frag;     /* flags and offset */
	unsigned embedded_options;  /* IP, bytes, a multiple of 4 */
	unsigned embedded_cut;      /* bytes missing at the end of its quote */
	unsigned embedded_version;  /* preset: 4 */
	unsigned icmp_mtu;          /* next-hop MTU in an ICMP error */
	uint32_t embedded_dst;      /* preset: PEER */
	unsigned embedded_len;      /* preset: 128 */
	unsigned payload;           /* bytes behind the headers */
	unsigned options;           /* IP, bytes, a multiple of 4 */
	unsigned frag, id;          /* flags and offset; identification */
	unsigned version, ihl;      /* presets: 4, as options say */
	int len_error;              /* added to the IP total length */
	unsigned padding;           /* bytes behind the IP packet */
	struct outer outer, outer2; /* outer2: around outer */
	/* IPv6, from PEER6 to 2001:db8::dst6; of the above, what IPv6 has counts. */
	bool v6;
	unsigned dst6;        /* preset: 1 */
	unsigned src6;        /* from 2001:db8::src6 instead */
	bool to_underlay;     /* to 2001:db8:a:: and dst6, about a packet from there to NEIGHBOUR */
	unsigned src6_first;  /* first 16 bits of the source */
	bool src6_none;       /* from :: */
	unsigned n_ext;       /* extension headers of 8 bytes each */
	unsigned char ext[5]; /* their types */
	unsigned frag6;       /* of fragment headers: offset << 3, more: 1; identification is id */
};

/* Where the parts of a made frame are. */
struct layout {
	size_t ip, ip_len; /* innermost */
	size_t len;
};

static const uint32_t PEER = IP4(203, 0, 113, 200), A = IP4(198, 51, 100, 1),
		      SELF = IP4(192, 0, 2, 1), NEIGHBOUR = IP4(192, 0, 2, 2);
static const unsigned char from_mac[6] = {2, 0, 0, 0, 0, 0x11}, to_mac[6] = {2, 0, 0, 0, 0, 0x22};

static inline void put16(unsigned char *at, unsigned v)
{
	at[0] = (unsigned char)(v >> 8);
	at[1] = (unsigned char)v;
}

static inline void put32(unsigned char *at, uint32_t v)
{
	put16(at, v >> 16);
	put16(at + 2, v & 0xffff);
}

static inline unsigned get16(const unsigned char *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

static inline uint32_t get32(const unsigned char *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
}

/* RFC 1071, byte by byte; a block with a right checksum in it gives 0. */
static inline unsigned checksum(const unsigned char *at, size_t len, uint32_t sum)
{
	for (size_t i = 0; i < len; i++)
		sum += i & 1 ? at[i] : (uint32_t)at[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum & 0xffff;
}

static inline uint32_t pseudo(const unsigned char *ip, size_t l4_len)
{
	return get16(ip + 12) + get16(ip + 14) + get16(ip + 16) + get16(ip + 18) + ip[9] +
	       (uint32_t)l4_len;
}

static inline unsigned or_else(unsigned v, unsigned preset)
{
	return v ? v : preset;
}

/* Bytes of an IPv4 header; len: total length. */
static inline size_t put_ip(unsigned char *at, unsigned options, unsigned len, unsigned frag,
			    unsigned protocol, uint32_t src, uint32_t dst)
{
	memset(at, 0, 20);
	at[0] = (unsigned char)(0x40 | (5 + options / 4));
	put16(at + 2, len);
	put16(at + 6, frag);
	at[8] = 63;
	at[9] = (unsigned char)protocol;
	put32(at + 12, src);
	put32(at + 16, dst);
	memset(at + 20, 1, options); /* NOP */
	put16(at + 10, checksum(at, 20 + options, 0));
	return 20 + options;
}

static inline size_t put_tcp(unsigned char *at, const struct packet *p)
{
	put16(at, or_else(p->sport, 443));
	put16(at + 2, p->dport);
	put32(at + 4, 0x01020304);
	put32(at + 8, 0xfffefdfc);
	put16(at + 12, or_else(p->doff, 5) << 12 | or_else(p->flags, ACK));
	put16(at + 14, 512);
	put32(at + 16, 0);
	return 20;
}

static inline size_t put_udp(unsigned char *at, unsigned sport, unsigned dport, unsigned len)
{
	put16(at, sport);
	put16(at + 2, dport);
	put16(at + 4, len);
	put16(at + 6, 0);
	return 8;
}

/* The packet that an ICMP error is about: ours, to the peer. */
static inline size_t put_embedded(unsigned char *at, const struct packet *p)
{
	size_t n = put_ip(at, p->embedded_options, or_else(p->embedded_len, 128), p->embedded_frag,
			  p->embedded, or_else(p->embedded_src, or_else(p->dst, A)),
			  or_else(p->embedded_dst, PEER));

	at[0] = (unsigned char)((or_else(p->embedded_version, 4) << 4) |
				(5 + p->embedded_options / 4));
	memset(at + n, 0, 8);
	if (p->embedded == ICMP) {
		at[n] = (unsigned char)or_else(p->embedded_icmp, 8);
		put16(at + n + 4, p->dport);
	} else {
		put16(at + n, p->dport);
		put16(at + n + 2, or_else(p->sport, 443));
	}
	return n + 8 - p->embedded_cut;
}

static inline size_t put_icmp(unsigned char *at, const struct packet *p)
{
	memset(at, 0, 8);
	at[0] = (unsigned char)p->icmp;
	at[1] = (unsigned char)p->icmp_code;
	put16(at + 6, p->icmp_mtu);
	if (p->embedded)
		return 8 + put_embedded(at + 8, p);
	put16(at + 4, p->dport);
	return 8;
}

static inline size_t put_l4(unsigned char *at, const struct packet *p, unsigned protocol)
{
	switch (protocol) {
	case TCP:
		return put_tcp(at, p);
	case UDP:
		return put_udp(at, or_else(p->sport, 443), p->dport, 8 + p->payload);
	case ICMP:
		return put_icmp(at, p);
	default:
		memset(at, 0xaa, 20);
		return 20;
	}
}

static inline size_t put_inner(unsigned char *at, const struct packet *p)
{
	unsigned protocol = or_else(p->protocol, TCP);
	size_t head = 20 + p->options, len = head + put_l4(at + head, p, protocol);
	size_t check = protocol == TCP ? 16 : protocol == UDP ? 6 : 2;

	for (unsigned i = 0; i < p->payload; i++)
		at[len + i] = (unsigned char)(i * 7);
	len += p->payload;
	put_ip(at, p->options, (unsigned)len, p->frag, protocol, or_else(p->src, PEER),
	       or_else(p->dst, A));
	if (protocol == TCP || protocol == UDP || protocol == ICMP)
		put16(at + head + check, checksum(at + head, len - head,
						  protocol == ICMP ? 0 : pseudo(at, len - head)));
	put16(at + 4, p->id);
	put16(at + 10, 0);
	put16(at + 10, checksum(at, head, 0));
	at[0] = (unsigned char)(or_else(p->version, 4) << 4 | or_else(p->ihl, 5 + p->options / 4));
	put16(at + 2, (unsigned)((int)len + p->len_error));
	return len;
}

/* 2001:db8:high::low */
static inline void put_ip6(unsigned char at[16], unsigned high, unsigned low)
{
	memset(at, 0, 16);
	put32(at, 0x20010db8);
	put16(at + 4, high);
	put16(at + 14, low);
}

enum { UNDERLAY6 = 0xa };

/* Puts the header before *len bytes that are at `at`; returns the header's length. */
static inline size_t put_outer6(unsigned char *at, const struct outer *o, size_t *len)
{
	memmove(at + 48, at, *len);
	memset(at, 0, 40);
	at[0] = 0x60;
	put16(at + 4, (unsigned)(8 + *len));
	at[6] = (unsigned char)or_else(o->next, UDP);
	at[7] = 64;
	put_ip6(at + 8, UNDERLAY6, or_else(o->src, NEIGHBOUR) & 0xffff);
	put_ip6(at + 24, UNDERLAY6, or_else(o->dst, SELF) & 0xffff);
	put_udp(at + 40, 50000, o->port, (unsigned)(8 + (int)*len + o->udp_len_error));
	*len += 48;
	return 48;
}

static inline size_t put_outer(unsigned char *at, const struct outer *o, size_t *len)
{
	size_t head = 20 + o->options + 8;

	if (!o->port)
		return 0;
	if (o->v6)
		return put_outer6(at, o, len);
	memmove(at + head, at, *len);
	put_ip(at, o->options, (unsigned)(head + *len), o->frag, or_else(o->protocol, UDP),
	       or_else(o->src, NEIGHBOUR), or_else(o->dst, SELF));
	put_udp(at + head - 8, 50000, o->port, (unsigned)(8 + (int)*len + o->udp_len_error));
	*len += head;
	return head;
}

static inline uint32_t pseudo6(const unsigned char *ip, size_t l4_len, unsigned protocol)
{
	uint32_t sum = (uint32_t)l4_len + protocol;

	for (size_t i = 8; i < 40; i += 2)
		sum += get16(ip + i);
	return sum;
}

static inline void put_head6(unsigned char *at, const struct packet *p, unsigned next, size_t len)
{
	memset(at, 0, 8);
	at[0] = (unsigned char)(or_else(p->version, 6) << 4);
	put16(at + 4, (unsigned)((int)len + p->len_error));
	at[6] = (unsigned char)next;
	at[7] = 63;
	put_ip6(at + 8, 0xffff, 0x200);
	if (p->src6)
		put_ip6(at + 8, 0, p->src6);
	if (p->src6_first)
		put16(at + 8, p->src6_first);
	if (p->src6_none)
		memset(at + 8, 0, 16);
	put_ip6(at + 24, p->to_underlay ? UNDERLAY6 : 0, or_else(p->dst6, 1));
}

/* The packet that an ICMPv6 error is about: ours, to the peer. */
static inline size_t put_embedded6(unsigned char *at, const struct packet *p)
{
	memset(at, 0, 48);
	at[0] = (unsigned char)(or_else(p->embedded_version, 6) << 4);
	put16(at + 4, 1400);
	at[6] = (unsigned char)p->embedded;
	put_ip6(at + 8, p->to_underlay ? UNDERLAY6 : 0, p->embedded_src ? 77 : or_else(p->dst6, 1));
	put_ip6(at + 24, p->to_underlay ? UNDERLAY6 : 0xffff,
		p->to_underlay ? NEIGHBOUR & 0xffff : 0x200);
	if (p->embedded == ICMP6) {
		at[40] = (unsigned char)or_else(p->embedded_icmp, 128);
		put16(at + 44, p->dport);
	} else {
		put16(at + 40, p->dport);
		put16(at + 42, or_else(p->sport, 443));
	}
	return 48 - p->embedded_cut;
}

static inline size_t put_l4_6(unsigned char *at, const struct packet *p, unsigned protocol)
{
	if (protocol != ICMP6)
		return put_l4(at, p, protocol);
	memset(at, 0, 8);
	at[0] = (unsigned char)p->icmp;
	at[1] = (unsigned char)p->icmp_code;
	put16(at + 6, p->icmp_mtu);
	if (p->embedded)
		return 8 + put_embedded6(at + 8, p);
	put16(at + 4, p->dport);
	return 8;
}

static inline size_t put_inner6(unsigned char *at, const struct packet *p)
{
	unsigned protocol = or_else(p->protocol, TCP);
	size_t head = 40 + 8 * (size_t)p->n_ext, len, l4_len;
	size_t check = protocol == TCP ? 16 : protocol == UDP ? 6 : 2;

	memset(at + 40, 0, head - 40);
	for (size_t i = 0; i < p->n_ext; i++) {
		unsigned char *ext = at + 40 + 8 * i;

		ext[0] = (unsigned char)(i + 1 < p->n_ext ? p->ext[i + 1] : protocol);
		if (p->ext[i] == 44) {
			put16(ext + 2, p->frag6);
			put32(ext + 4, p->id);
		}
	}
	len = head + put_l4_6(at + head, p, protocol);
	for (unsigned i = 0; i < p->payload; i++)
		at[len + i] = (unsigned char)(i * 7);
	len += p->payload;
	l4_len = len - head;
	put_head6(at, p, p->n_ext ? p->ext[0] : protocol, len - 40);
	if (protocol == TCP || protocol == UDP || protocol == ICMP6)
		put16(at + head + check,
		      checksum(at + head, l4_len, pseudo6(at, l4_len, protocol)));
	return len;
}

static inline struct layout make_frame(const struct packet *p, unsigned char frame[FRAME_MAX])
{
	unsigned type = or_else(p->type, (p->outer.port ? p->outer.v6 : p->v6) ? 0x86dd : 0x0800);
	struct layout at = {.ip = 14 + 4 * (size_t)p->vlans};
	size_t len;

	memset(frame, 0, FRAME_MAX);
	memcpy(frame, to_mac, 6);
	frame[0] = (unsigned char)(frame[0] | p->multicast);
	memcpy(frame + 6, from_mac, 6);
	put16(frame + 12, p->vlans == 2 ? 0x88a8 : p->vlans ? 0x8100 : type);
	for (unsigned i = 0; i < p->vlans; i++) {
		put16(frame + 14 + 4 * i, 100 + i);
		put16(frame + 16 + 4 * i, i + 1 < p->vlans ? 0x8100 : type);
	}
	len = at.ip_len = p->v6 ? put_inner6(frame + at.ip, p) : put_inner(frame + at.ip, p);
	at.len = at.ip;
	at.ip += put_outer(frame + at.len, &p->outer, &len);
	at.ip += put_outer(frame + at.len, &p->outer2, &len);
	at.len += len + p->padding;
	return at;
}

#endif

// SPDX-License-Identifier: MIT
#include "mutate.h"

#include <string.h>

#include "base/own.h"
#include "rows.h"

enum { LEAST = 20 }; /* bytes: the kernel loses shorter ones with a VLAN tag uncounted */

/* xorshift64 */
static uint64_t draw(struct mutator *m)
{
	m->seed ^= m->seed << 13;
	m->seed ^= m->seed >> 7;
	m->seed ^= m->seed << 17;
	return m->seed;
}

static unsigned below(struct mutator *m, unsigned n)
{
	return (unsigned)((draw(m) >> 16) % n);
}

/* What rows say of host 0 and its neighbour, said of host 1 and its own. */
static uint32_t mirror(uint32_t ip4)
{
	return ip4 == SELF ? NEIGHBOUR : ip4 == NEIGHBOUR ? SELF : ip4;
}

static void mirror_outer(struct outer *o)
{
	if (!o->port)
		return;
	o->src = mirror(or_else(o->src, NEIGHBOUR));
	o->dst = mirror(or_else(o->dst, SELF));
}

static void mirror_packet(struct packet *p)
{
	p->dst = mirror(p->dst);
	p->embedded_dst = mirror(p->embedded_dst);
	p->embedded_src = mirror(p->embedded_src);
	mirror_outer(&p->outer);
	mirror_outer(&p->outer2);
}

static void remix(struct mutator *m, struct packet *p)
{
	static const uint32_t shared[] = {A,       A_DROP,   A_FAR, A_FAR_NO_HOP,
					  A_WHOLE, A_SILENT, A_FINE};
	static const unsigned protocols[] = {TCP, UDP, ICMP};

	if (below(m, 2))
		p->vlans = below(m, 3);
	if (below(m, 2))
		p->outer = (struct outer){.port = below(m, 3) ? 6077 + below(m, 5) : 0,
					  .dst = below(m, 3) ? 0 : EDGE};
	if (below(m, 2))
		p->dport = below(m, 4) ? 32768 + below(m, 8192) : below(m, 65536);
	if (!p->v6 && below(m, 2)) {
		p->dst = shared[below(m, PS_N_ELEMENTS(shared))];
		p->protocol = protocols[below(m, 3)];
	}
	if (below(m, 4) == 0)
		p->flags = below(m, 64);
	if (below(m, 4) == 0)
		p->payload = below(m, 1600);
	if (below(m, 8) == 0)
		p->multicast = true;
}

static void flip(struct mutator *m, unsigned char *at, unsigned len, unsigned most)
{
	for (unsigned i = 1 + below(m, most); i > 0; i--) {
		unsigned bit = below(m, len * 8);

		at[bit / 8] ^= (unsigned char)(1 << bit % 8);
	}
}

/* Sixteen bits, near the truth or anywhere. */
static void lie(struct mutator *m, unsigned char *at)
{
	put16(at, below(m, 2) ? get16(at) + below(m, 17) - 8 : below(m, 65536));
}

static void mutate_length(struct mutator *m, struct storm_slot *slot, struct layout at, bool v6)
{
	unsigned char *ip = slot->bytes + at.ip, *first = slot->bytes + 14;

	switch (below(m, 5)) {
	case 0:
		lie(m, ip + (v6 ? 4 : 2));
		break;
	case 1:
		lie(m, first + 2);
		break;
	case 2:
		lie(m, first + 24); /* UDP length behind an outer header */
		break;
	case 3:
		ip[0] = (unsigned char)((ip[0] & 0xf0) | below(m, 16));
		break;
	default:
		first[0] = (unsigned char)below(m, 256);
	}
}

static void mutate_addresses(struct mutator *m, unsigned char *ip, bool v6)
{
	unsigned first = v6 ? 8 : 12, len = v6 ? 16 : 4, which = below(m, 2);
	unsigned char *at = ip + first + which * len;

	if (below(m, 2))
		at[len - 1] = (unsigned char)below(m, 8);
	else
		put32(at + (v6 ? 4 * below(m, 4) : 0), (uint32_t)draw(m));
}

static void splice(struct mutator *m, struct storm_slot *slot)
{
	unsigned char other[FRAME_MAX];
	struct layout at = make_frame(&rows[below(m, PS_N_ELEMENTS(rows))].packet, other);
	unsigned cut = 14 + below(m, 60),
		 end = at.len < STORM_BYTES ? (unsigned)at.len : STORM_BYTES;

	if (cut >= end || cut >= slot->len)
		return;
	memcpy(slot->bytes + cut, other + cut, end - cut);
	slot->len = end;
}

static void noise(struct mutator *m, struct storm_slot *slot)
{
	for (unsigned i = 14; i < slot->len; i++)
		slot->bytes[i] = (unsigned char)draw(m);
}

static void mutate(struct mutator *m, enum mutation how, struct storm_slot *slot, struct layout at,
		   bool v6)
{
	unsigned char *ip = slot->bytes + at.ip;

	if (how == MUTATE_BITS)
		flip(m, slot->bytes, slot->len, 8);
	else if (how == MUTATE_HEAD_BITS)
		flip(m, slot->bytes + 12, slot->len < 90 ? slot->len - 12 : 78, 3);
	else if (how == MUTATE_CUT)
		slot->len = LEAST + below(m, slot->len - LEAST + 1);
	else if (how == MUTATE_LENGTH)
		mutate_length(m, slot, at, v6);
	else if (how == MUTATE_PORTS)
		put16(ip + (v6 ? 40 : 20) + 2 * below(m, 2), below(m, 65536));
	else if (how == MUTATE_ADDRESSES)
		mutate_addresses(m, ip, v6);
	else if (how == MUTATE_SPLICE)
		splice(m, slot);
	else if (how == MUTATE_NOISE)
		noise(m, slot);
}

static void mark(struct storm_slot *slot, unsigned number, struct layout at, const struct packet *p)
{
	unsigned char *l4 = slot->bytes + at.ip + (p->v6 ? 40 : 20 + p->options);

	slot->bytes[6] = STORM_MARK;
	slot->bytes[7] = 0;
	put32(slot->bytes + 8, number);
	if (p->v6) /* a label of 20 bits */
		put16(slot->bytes + at.ip + 2, number / 2);
	if (or_else(p->protocol, TCP) == TCP && !p->n_ext)
		put16(l4 + 10, number);
	else if (p->protocol == (p->v6 ? ICMP6 : ICMP) && p->icmp == (p->v6 ? 128u : 8u) &&
		 !p->n_ext)
		put16(l4 + 6, number);
}

static void make(struct mutator *m, const struct packet *packet, struct storm_slot *slots,
		 unsigned number)
{
	enum mutation how = below(m, 3) ? below(m, N_MUTATIONS) : MUTATE_NOTHING;
	struct storm_slot *slot = &slots[number];
	struct packet p = *packet;
	unsigned char frame[FRAME_MAX];
	struct layout at;

	m->made[how]++;
	if (how == MUTATE_REMIX)
		remix(m, &p);
	if (m->host)
		mirror_packet(&p);
	if (!p.v6)
		p.id = number / 2;
	at = make_frame(&p, frame);
	slot->len = at.len < STORM_BYTES ? (unsigned)at.len : STORM_BYTES;
	if (slot->len < 60) /* as Ethernet pads */
		slot->len = 60;
	slot->lift = below(m, 64) ? 0 : STORM_LIFT;
	memcpy(slot->bytes, frame, slot->len);
	mark(slot, number, at, &p);
	if (how != MUTATE_NOTHING)
		mutate(m, how, slot, at, p.v6);
}

void mutate_fill(struct mutator *m, struct storm_slot *slots, unsigned n)
{
	for (unsigned i = 0; i + 1 < n; i += 2) {
		const struct row *row = &rows[below(m, PS_N_ELEMENTS(rows))];
		const struct packet first = first_fragment(row);

		if (!row->after_first) {
			make(m, &row->packet, slots, i);
			row = &rows[below(m, PS_N_ELEMENTS(rows))];
		} else {
			make(m, &first, slots, i);
		}
		make(m, &row->packet, slots, i + 1);
	}
}

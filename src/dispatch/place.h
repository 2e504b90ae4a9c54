/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Where the packet belongs: another site, the host that gathers its fragments, the owner of its port,
 * this host, nobody.  Every encapsulation takes a step from those left, and what came encapsulated
 * never goes to another site, so tables that contradict each other cost packets but make no loop.
 */
#ifndef PS_DISPATCH_PLACE_H
#define PS_DISPATCH_PLACE_H

#include "dispatch/look.h"
#include "dispatch/steer-fragment.h"

PS_INLINE int ps_is_fragment(const struct ps_verdict *v)
{
	return v->form >= PS_FORM_FIRST;
}

PS_INLINE __u32 ps_send_to(struct ps_verdict *v, __u32 to, __u32 port, __u32 reason)
{
	v->to = to;
	v->goes = (__u16)port;
	v->found = reason;
	return PS_NEXT_SEND;
}

/* One step for a whole packet: any host of that site may get it, and hands it to the owner.  Two for
 * a fragment: the host that gathers, the owner. */
PS_INLINE __u32 ps_place_far(struct ps_verdict *v)
{
	if (v->came)
		return PS_REASON_DROP_OTHER_SITE;
	return ps_send_to(v, v->address.site, PS_GUE_PORT - (ps_is_fragment(v) ? 2 : 1),
			  PS_REASON_TO_SITE);
}

/* To the peer, or to this host, which is asked whether it expects the packet. */
PS_INLINE __u32 ps_place_peer(struct ps_frame *frame, struct ps_verdict *v, __u32 to, __u32 port)
{
	const struct ps_peer *peer = ps_look_peer(frame, to);

	v->to = to;
	v->host = peer->host;
	if (peer->kind == PS_PEER_SELF)
		return PS_NEXT_EXPECT;
	if (v->came == PS_GUE_PORT)
		return PS_REASON_DROP_NO_STEPS;
	return ps_send_to(v, to, port, PS_REASON_TO_HOST);
}

/* PS_NEXT_REFUSE: nobody owns the port. */
PS_INLINE __u32 ps_place_owner(struct ps_frame *frame, struct ps_verdict *v, __u32 port)
{
	int slice = ps_slice_of(&v->address, ps_be16(v->flow.our_port));
	__u8 slot = slice < 0 ? PS_OWNER_NONE : ps_look_owner(frame, &v->address, (__u32)slice);

	if (slot == PS_OWNER_NONE)
		return PS_NEXT_REFUSE;
	return ps_place_peer(frame, v, ps_peer_at(&v->address, slot), port);
}

PS_STAGE(ps_place)
{
	v->site = v->address.site;
	if (v->form == PS_FORM_PING && ps_address_flags(&v->address) & PS_ADDRESS_SILENT)
		return PS_REASON_DROP_ECHO_REQUEST;
	if (v->address.site != ps_look_config(frame)->site)
		return ps_place_far(v);
	if (v->form == PS_FORM_PING)
		return PS_NEXT_PING;
	if (ps_is_fragment(v))
		return PS_NEXT_GATHER;
	return ps_place_owner(frame, v, v->came ? v->came + 1 : PS_GUE_PORT);
}

/* What the fragments of the packet have in common; 0: the frame has changed. */
PS_INLINE int ps_read_fragment_key(struct ps_frame *frame, const struct ps_verdict *v,
				   struct ps_fragment_key *ret)
{
	const struct iphdr *ip = ps_packet_of(frame, v);
	const struct ps_ip6 *ip6 = (const void *)ip;
	const void *end = ps_frame_end(frame);

	*ret = (struct ps_fragment_key){.id = v->fragment, .version = v->is_v6 ? 6 : 4};
	if (v->is_v6) {
		if ((const void *)(ip6 + 1) > end)
			return 0;
		__builtin_memcpy(ret->src, ip6->src, sizeof(ret->src));
		__builtin_memcpy(ret->dst, ip6->dst, sizeof(ret->dst));
		return 1;
	}
	if ((const void *)(ip + 1) > end)
		return 0;
	ret->src[0] = ip->saddr;
	ret->dst[0] = ip->daddr;
	ret->protocol = ip->protocol;
	return 1;
}

/* This host gathers: a first fragment names the owner by its port, the others follow it. */
PS_INLINE __u32 ps_gather_here(struct ps_frame *frame, struct ps_verdict *v,
			       const struct ps_fragment_key *key)
{
	__s32 owner;
	__u32 next;

	if (v->form == PS_FORM_FIRST)
		return ps_place_owner(frame, v, PS_GUE_PORT);
	owner = ps_look_fragment(frame, key, ps_look_clock(frame));
	if (owner < 0)
		return PS_REASON_DROP_STRAY;
	next = ps_place_peer(frame, v, (__u32)owner, PS_GUE_PORT);
	return next == PS_NEXT_EXPECT ? PS_REASON_DELIVER : next;
}

PS_STAGE(ps_gather)
{
	const struct ps_peer *gatherer;
	struct ps_fragment_key key;
	__s32 to;

	if (!ps_read_fragment_key(frame, v, &key))
		return PS_REASON_DROP_TRUNCATED;
	if (v->came >= PS_GUE_PORT - 1) /* whoever sent it counts on this host */
		return ps_gather_here(frame, v, &key);
	to = ps_look_gatherer(frame, v->address.group, ps_fragment_hash(&key));
	if (to < 0)
		return PS_REASON_DROP_NO_HOP;
	gatherer = ps_look_peer(frame, (__u32)to);
	v->host = gatherer->host;
	if (gatherer->kind == PS_PEER_SELF)
		return ps_gather_here(frame, v, &key);
	return ps_send_to(v, (__u32)to, PS_GUE_PORT - 1, PS_REASON_TO_GATHERER);
}

/* The others of its packet will go where this first fragment went. */
PS_STAGE(ps_remember)
{
	struct ps_fragment_key key;

	if (ps_read_fragment_key(frame, v, &key))
		ps_note_fragment(frame, &key, v->to, ps_look_clock(frame));
	return 0;
}

/* By which hop, if the packet fits. */
PS_STAGE(ps_send)
{
	if (!ps_has_hop(ps_look_peer(frame, v->to)))
		return PS_REASON_DROP_NO_HOP;
	return v->ip_len > ps_room_to(frame, v->to) ? PS_NEXT_TOO_BIG : v->found;
}

/* Has this host a use for the packet?  PS_NEXT_REFUSE: none. */
PS_STAGE(ps_expect)
{
	struct ps_service_key key = {.port = v->flow.our_port, .protocol = v->flow.protocol};

	if (ps_look_claim(frame, v))
		return PS_REASON_DELIVER;
	if (v->flow.protocol != PS_PROTO_TCP && v->flow.protocol != PS_PROTO_UDP)
		return PS_NEXT_REFUSE;
	__builtin_memcpy(key.address, v->ends.ours, sizeof(key.address));
	/* A published port has no known peers; an error about TCP must be about a connection. */
	if (!(v->flow.is_icmp && v->flow.protocol == PS_PROTO_TCP) && ps_look_service(frame, &key))
		return PS_REASON_DELIVER_SERVICE;
	return ps_look_socket(frame, v) ? PS_REASON_DELIVER : PS_NEXT_REFUSE;
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The second half of splitting a packet, at tc ingress of an uplink: what the XDP program noted is
 * carried out.  A frame that arrives here whole is addressed to the next hop's MAC, so without this program the
 * stack drops it.
 *
 * The program must not write to the frame directly: the kernel would first make a frame that a capture
 * on the interface shares its own, without metadata (pskb_expand_head(), Linux 6.18).
 *
 * Not split, but dropped and counted: several segments in one skb (generic mode), and a checksum
 * that the sender left to hardware (veth): it would be computed over each piece.
 */
#ifndef PS_DISPATCH_SPLIT_BPF_H
#define PS_DISPATCH_SPLIT_BPF_H

#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "dispatch/steer-split.h"

enum { PS_CHECKSUM_PARTIAL = 3 }; /* include/linux/skbuff.h */

struct sk_buff {
	__u8 ip_summed : 2;
} __attribute__((preserve_access_index));

struct ps_split_rest {
	__u8 bytes[PS_SPLIT_REST_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ps_split_rest);
} rests SEC(".maps");

/* The kernel's own context is the buffer. */
PS_INLINE int is_unfinished(struct __sk_buff *skb)
{
	struct sk_buff *kernel = (void *)skb;

	return skb->gso_size ||
	       BPF_CORE_READ_BITFIELD_PROBED(kernel, ip_summed) == PS_CHECKSUM_PARTIAL;
}

struct ps_split_head {
	__u8 bytes[PS_SPLIT_HEAD_MAX];
} __attribute__((aligned(8)));

/* Shortens the frame to a piece of len bytes behind the head, which are there already. */
PS_INLINE int put_piece(struct __sk_buff *skb, const struct ps_split_head *whole, __u32 head_len,
			__u32 skip, __u32 len, int more)
{
	struct ps_split_head head = *whole;

	ps_split_write(head.bytes, skip, len, more);
	if (bpf_skb_change_tail(skb, head_len + len, 0))
		return -1;
	return (int)bpf_skb_store_bytes(skb, 0, head.bytes, head_len, 0);
}

/* n, of 1 to max, a power of two, as the verifier of Linux 6.1 must see it: comparing with 0 does not
 * tell it that a length is not 0. */
PS_INLINE __u32 ps_some(__u32 n, __u32 max)
{
	n--;
	ps_hide(n);
	n &= max - 1;
	return n + 1;
}

/* Sends the first piece, and leaves the other in skb. */
PS_INLINE int split(struct __sk_buff *skb, const struct ps_split_note *note)
{
	__u32 head_len = ps_some(note->head_len, PS_SPLIT_HEAD_MAX), first_len = note->first_len;
	__u32 rest_len = note->rest_len, zero = 0;
	struct ps_split_rest *rest = bpf_map_lookup_elem(&rests, &zero);
	struct ps_split_head head;

	if (!rest || !rest_len || rest_len > PS_SPLIT_REST_MAX)
		return -1;
	rest_len = ps_some(rest_len, PS_SPLIT_REST_MAX);
	__builtin_memset(&head, 0, sizeof(head));
	if (is_unfinished(skb) || bpf_skb_load_bytes(skb, 0, head.bytes, head_len) ||
	    bpf_skb_load_bytes(skb, head_len + first_len, rest->bytes, rest_len))
		return -1;
	if (put_piece(skb, &head, head_len, 0, first_len, 1) ||
	    bpf_clone_redirect(skb, note->ifindex, 0) ||
	    bpf_skb_store_bytes(skb, head_len, rest->bytes, rest_len, 0))
		return -1;
	return put_piece(skb, &head, head_len, first_len, rest_len, 0);
}

SEC("tc")
int ps_split(struct __sk_buff *skb)
{
	const struct ps_split_note *at = (void *)(long)skb->data_meta;
	struct ps_split_note note;

	if ((void *)(at + 1) > (void *)(long)skb->data || at->magic != PS_SPLIT_MAGIC)
		return TC_ACT_UNSPEC;
	note = *at;
	if (note.head_len + note.first_len + note.rest_len != skb->len)
		return TC_ACT_UNSPEC; /* on a veth, the next host may see the note of the piece */
	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		goto failed;
	if (split(skb, &note))
		goto failed;
	return (int)bpf_redirect(note.ifindex, 0);
failed:
	count(PS_REASON_DROP_SPLIT);
	return TC_ACT_SHOT;
}

#endif

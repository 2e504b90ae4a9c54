// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * The storm around the hosts: sends what user space wrote, shows user space all that comes out, and
 * is the switch between the hosts.  It knows nothing of dispatching but the MACs of next hops.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "storm.h"

char _license[] SEC("license") = "Dual MIT/GPL";

__u32 next_slot;
__u32 port_ifindex[STORM_PORTS];
struct storm_counts counts;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, STORM_SLOTS);
	__type(key, __u32);
	__type(value, struct storm_slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20);
} seen SEC(".maps");

SEC("xdp")
int storm_source(struct xdp_md *xdp)
{
	__u32 key = next_slot++ % STORM_SLOTS, len;
	struct storm_slot *slot = bpf_map_lookup_elem(&slots, &key);

	if (!slot)
		return XDP_ABORTED;
	len = slot->len;
	if (len < 14 || len > STORM_BYTES)
		return XDP_ABORTED;
	if (slot->lift && bpf_xdp_adjust_head(xdp, -(int)slot->lift))
		return XDP_ABORTED;
	if (bpf_xdp_adjust_tail(xdp, (int)len - (int)bpf_xdp_get_buff_len(xdp)))
		return XDP_ABORTED;
	if (bpf_xdp_store_bytes(xdp, 0, slot->bytes, len))
		return XDP_ABORTED;
	counts.sent++;
	return XDP_TX;
}

static struct storm_seen *record(__u32 place, __u32 len)
{
	struct storm_seen *at = bpf_ringbuf_reserve(&seen, sizeof(*at), 0);

	__sync_fetch_and_add(&counts.seen[place], 1);
	if (!at) {
		__sync_fetch_and_add(&counts.unseen, 1);
		return NULL;
	}
	at->place = place;
	at->len = len;
	at->vlan = at->pad = 0;
	return at;
}

static __u32 port_of(__u32 ifindex)
{
	for (__u32 i = 0; i < STORM_PORTS; i++)
		if (port_ifindex[i] == ifindex)
			return i;
	return 0;
}

/* By the last byte of the next hop's MAC; hosts that are not there only get counted. */
static int switch_on(struct xdp_md *xdp, __u32 from)
{
	__u8 mac[6];
	__u32 to;

	if (bpf_xdp_load_bytes(xdp, 0, mac, sizeof(mac)) || mac[0] != 2)
		return XDP_DROP;
	/* An answer goes to the MAC that its packet came from, which may be mutated to anything. */
	if (mac[1] != mac[2] || mac[1] != mac[3] || mac[1] != mac[4])
		return XDP_DROP;
	to = mac[5];
	if (to >= STORM_HOSTS || to == from)
		return XDP_DROP;
	__sync_fetch_and_add(&counts.switched[to], 1);
	return (int)bpf_redirect(port_ifindex[2 * to], 0);
}

SEC("xdp")
int storm_observe(struct xdp_md *xdp)
{
	__u32 port = port_of(xdp->ingress_ifindex);
	__u32 len = (__u32)bpf_xdp_get_buff_len(xdp);
	struct storm_seen *at = record(port, len);

	if (at) {
		if (len > STORM_SNAP)
			len = STORM_SNAP;
		if (len && bpf_xdp_load_bytes(xdp, 0, at->bytes, len))
			at->len = 0;
		bpf_ringbuf_submit(at, BPF_RB_NO_WAKEUP);
	}
	return switch_on(xdp, port / 2);
}

/* Where the stack would begin. */
static int take(struct __sk_buff *skb, __u32 host)
{
	__u32 len = skb->len;
	struct storm_seen *at = record(STORM_PORTS + host, len);

	if (at) {
		if (skb->vlan_present)
			at->vlan = bpf_ntohs((__u16)skb->vlan_proto) << 16 | skb->vlan_tci;
		if (len > STORM_SNAP)
			len = STORM_SNAP;
		if (len && bpf_skb_load_bytes(skb, 0, at->bytes, len))
			at->len = 0;
		bpf_ringbuf_submit(at, BPF_RB_NO_WAKEUP);
	}
	return TC_ACT_SHOT;
}

SEC("tc")
int storm_stack0(struct __sk_buff *skb)
{
	return take(skb, 0);
}

SEC("tc")
int storm_stack1(struct __sk_buff *skb)
{
	return take(skb, 1);
}

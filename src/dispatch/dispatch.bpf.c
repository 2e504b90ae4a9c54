// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * The return path, kernel half: where the tables and the frame of decide.h are.  Array look-ups
 * are inlined by the JIT, so a packet for another host costs one helper call, bpf_xdp_adjust_head.
 * Sizes are set by the loader; every array can be mapped into user space, which writes it there.
 */
#include <linux/bpf.h>

#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#define ps_frame xdp_md /* the type by which the verifier knows the context of a global function */

#include "dispatch/decide.h"
#include "dispatch/gatherer.h"
#include "egress/page-bits.h"

char _license[] SEC("license") = "Dual MIT/GPL";

enum { PS_TCP_LISTEN = 10 }; /* include/net/tcp_states.h */

/* Count, but pass every packet untouched. */
const volatile bool observe = false;

/* Global variables (map `bss`) are read without a look-up, so all that every packet reads is here. */
__u32 index16[65536];
struct ps_dispatch_config config;
struct ps_address near_blocks[PS_BLOCKS_NEAR * 256]; /* the first of `blocks` */
struct ps_peer peers[PS_PEERS_MAX];
struct ps_peer6 peers6[PS_PEERS_MAX];

#define PS_ARRAY(name, type_)                      \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);  \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__uint(max_entries, 1);            \
		__type(key, __u32);                \
		__type(value, type_);              \
	} name SEC(".maps")

PS_ARRAY(index6, struct ps_index6);
PS_ARRAY(blocks, struct ps_address);
PS_ARRAY(addresses, struct ps_address);
PS_ARRAY(owners, struct ps_owners);

#define PS_HASH(name, key_, value_)              \
	struct {                                 \
		__uint(type, BPF_MAP_TYPE_HASH); \
		__uint(max_entries, 1);          \
		__type(key, key_);               \
		__type(value, value_);           \
	} name SEC(".maps")

PS_HASH(services, struct ps_service_key, __u8);
PS_HASH(sources, struct ps_source_key, __u8);
PS_HASH(pages, struct ps_page_key, struct ps_narrow_page);
PS_HASH(wide_pages, struct ps_page_key, struct ps_wide_page);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PS_REASON_MAX);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PS_BUDGET_MAX);
	__type(key, __u32);
	__type(value, struct ps_budget);
} budget SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192); /* packets in flight; 1 MB */
	__type(key, struct ps_fragment_key);
	__type(value, struct ps_fragment_note);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* a page: 128 hints */
} hints SEC(".maps");

PS_INLINE void *ps_frame_data(struct ps_frame *frame)
{
	return (void *)(long)frame->data;
}

PS_INLINE void *ps_frame_end(struct ps_frame *frame)
{
	return (void *)(long)frame->data_end;
}

PS_INLINE int ps_frame_move(struct ps_frame *frame, int delta)
{
	return bpf_xdp_adjust_head(frame, delta) != 0;
}

PS_INLINE int ps_frame_cut(struct ps_frame *frame, __u32 len)
{
	int excess = (int)bpf_xdp_get_buff_len(frame) - (int)len;

	if (excess < 0)
		return -1;
	return excess > 0 && bpf_xdp_adjust_tail(frame, -excess) != 0;
}

/* Where the driver has no room for metadata it fails. */
PS_INLINE int ps_frame_note(struct ps_frame *frame, const struct ps_split_note *note)
{
	struct ps_split_note *at;

	if (bpf_xdp_adjust_meta(frame, -(int)sizeof(*at)))
		return -1;
	at = (void *)(long)frame->data_meta;
	if ((void *)(at + 1) > ps_frame_data(frame))
		return -1;
	*at = *note;
	return 0;
}

PS_INLINE int ps_frame_leave(struct ps_frame *frame, __u32 ifindex)
{
	return ps_likely(ifindex == frame->ingress_ifindex) ? XDP_TX
							    : (int)bpf_redirect(ifindex, 0);
}

/* Not static: so the verifier walks the loop once and not for every way that leads here. */
__attribute__((noinline)) int gatherer_of(__u32 group, __u32 hash)
{
	return ps_find_gatherer(NULL, group, hash);
}

PS_INLINE __s32 ps_look_gatherer(struct ps_frame *frame, __u32 group, __u32 hash)
{
	return gatherer_of(group, hash);
}

PS_INLINE __s32 ps_look_fragment(struct ps_frame *frame, const struct ps_fragment_key *key,
				 __u64 now_ns)
{
	const struct ps_fragment_note *note = bpf_map_lookup_elem(&fragments, key);

	return note && ps_fragment_is_fresh(note, now_ns) ? (__s32)note->peer : -1;
}

PS_INLINE void ps_note_fragment(struct ps_frame *frame, const struct ps_fragment_key *key,
				__u32 peer, __u64 now_ns)
{
	struct ps_fragment_note note = {now_ns, peer, 0};

	bpf_map_update_elem(&fragments, key, &note, BPF_ANY);
}

PS_INLINE void ps_frame_hint(struct ps_frame *frame, const struct ps_mtu_hint *hint)
{
	bpf_ringbuf_output(&hints, (void *)hint, sizeof(*hint), 0);
}

PS_INLINE const struct ps_dispatch_config *ps_look_config(struct ps_frame *frame)
{
	return &config;
}

PS_INLINE const struct ps_address *look_block(__u32 number, __u32 low)
{
	__u32 key = number << 8 | (low >> 8 & 255);

	ps_hide(key); /* else clang checks parts of it, which Linux 6.1 cannot follow */
	if (ps_likely(key < PS_BLOCKS_NEAR * 256))
		return &near_blocks[key];
	return bpf_map_lookup_elem(&blocks, &key);
}

/* The address with these last 16 bits, within a /16 or /112; number 0 is of none. */
PS_INLINE int find_in(__u32 number, __u32 low, struct ps_address *ret)
{
	const struct ps_address *block = look_block(number, low), *address;
	__u32 key;

	if (!block)
		return 0;
	if (ps_likely(block->row_bits & PS_BLOCK_ALIKE)) {
		*ret = ps_address_in(block, low);
		return 1;
	}
	if (!block->row)
		return 0;
	key = block->row << 8 | (low & 255);
	address = bpf_map_lookup_elem(&addresses, &key);
	if (!address || !address->bits)
		return 0;
	*ret = *address;
	return 1;
}

PS_INLINE int ps_look_address(struct ps_frame *frame, __be32 ip4_be, struct ps_address *ret)
{
	__u32 ip4 = ps_be32(ip4_be);

	return find_in(index16[ip4 >> 16], ip4, ret);
}

/* The block of the address's /112, 0: none. */
PS_INLINE __u32 block6_of(const __be32 *ip6)
{
	__u32 first = ps_index6_hash(ip6), bits = config.index6_bits & 31;

	if (!bits)
		return 0;
	for (__u32 i = 0; i < PS_INDEX6_PROBES; i++) {
		__u32 key = (first + i) & ((1u << bits) - 1);
		const struct ps_index6 *element = bpf_map_lookup_elem(&index6, &key);

		if (!element || !element->block)
			return 0;
		if (ps_index6_is(element, ip6))
			return element->block;
	}
	return 0;
}

PS_INLINE int ps_look_address6(struct ps_frame *frame, const __be32 *ip6, struct ps_address *ret)
{
	return find_in(block6_of(ip6), ps_be32(ip6[3]), ret);
}

PS_INLINE __u8 ps_look_owner(struct ps_frame *frame, const struct ps_address *address, __u32 slice)
{
	__u32 row = address->row + slice / PS_ROW_SLICES;
	const struct ps_owners *element = bpf_map_lookup_elem(&owners, &row);

	return element ? *(const volatile __u8 *)&element->slot[slice % PS_ROW_SLICES]
		       : PS_OWNER_NONE;
}

PS_INLINE const struct ps_peer *ps_look_peer(struct ps_frame *frame, __u32 i)
{
	ps_hide(i); /* else clang masks before it adds, which Linux 6.1 cannot follow */
	return &peers[i % PS_PEERS_MAX];
}

PS_INLINE const struct ps_peer6 *ps_look_peer6(struct ps_frame *frame, __u32 i)
{
	ps_hide(i); /* else clang masks before it adds, which Linux 6.1 cannot follow */
	return &peers6[i % PS_PEERS_MAX];
}

PS_INLINE int ps_look_source(struct ps_frame *frame, const struct ps_source_key *key)
{
	return bpf_map_lookup_elem(&sources, key) != NULL;
}

PS_INLINE int ps_look_service(struct ps_frame *frame, const struct ps_service_key *key)
{
	return bpf_map_lookup_elem(&services, key) != NULL;
}

PS_INLINE int ps_look_claim(struct ps_frame *frame, const struct ps_verdict *v)
{
	struct ps_claim_key flow = {.sport = v->flow.our_port,
				    .dport = v->flow.peer_port,
				    .protocol = v->flow.protocol,
				    .shift = ps_address_shift(&v->address)};
	struct ps_page_place place = {0};
	struct ps_page_key key;

	__builtin_memcpy(flow.src.words, v->ends.ours, sizeof(flow.src));
	__builtin_memcpy(flow.dst.words, v->ends.peer, sizeof(flow.dst));
	ps_place_port(&flow, &place);
	key = ps_page_key_of(&flow, place.base);
	if (place.n_words == PS_WIDE_WORDS)
		return ps_page_has(bpf_map_lookup_elem(&wide_pages, &key), PS_WIDE_WORDS,
				   place.bit);
	return ps_page_has(bpf_map_lookup_elem(&pages, &key), PS_NARROW_WORDS, place.bit);
}

PS_INLINE __u32 fill_tuple(const struct ps_verdict *v, struct bpf_sock_tuple *ret)
{
	if (!v->is_v6) {
		ret->ipv4.saddr = v->flow.peer;
		ret->ipv4.daddr = v->flow.ours;
		ret->ipv4.sport = v->flow.peer_port;
		ret->ipv4.dport = v->flow.our_port;
		return sizeof(ret->ipv4);
	}
	__builtin_memcpy(ret->ipv6.saddr, v->ends.peer, sizeof(ret->ipv6.saddr));
	__builtin_memcpy(ret->ipv6.daddr, v->ends.ours, sizeof(ret->ipv6.daddr));
	ret->ipv6.sport = v->flow.peer_port;
	ret->ipv6.dport = v->flow.our_port;
	return sizeof(ret->ipv6);
}

/* Of its own kind only: a listener is for published services.  A socket in TIME_WAIT counts. */
PS_INLINE int ps_look_socket(struct ps_frame *frame, const struct ps_verdict *v)
{
	struct bpf_sock_tuple tuple = {0};
	__u32 len = fill_tuple(v, &tuple);
	struct bpf_sock *sk;
	int found;

	if (v->flow.protocol != PS_PROTO_TCP)
		return 0;
	sk = bpf_skc_lookup_tcp(frame, &tuple, len, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	found = sk->state != PS_TCP_LISTEN;
	bpf_sk_release(sk);
	return found;
}

PS_INLINE __u64 ps_look_clock(struct ps_frame *frame)
{
	return bpf_ktime_get_boot_ns();
}

PS_INLINE int ps_look_budget(struct ps_frame *frame, enum ps_budget_kind kind, __u64 now_ns,
			     __u32 per_s)
{
	__u32 key = kind;
	struct ps_budget *mine = bpf_map_lookup_elem(&budget, &key);

	return mine && ps_budget_take(mine, now_ns, per_s);
}

PS_INLINE void count(__u32 reason)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &reason);

	if (counter)
		++*counter;
}

/* A function of its own, so that the verdict is not on the stack of the express lane. */
__attribute__((noinline)) int ps_dispatch_by_stages(struct xdp_md *xdp)
{
	struct ps_verdict verdict;
	int action = XDP_PASS;

	ps_decide(xdp, &verdict);
	if (!observe)
		action = ps_carry_out(xdp, &verdict);
	count(verdict.reason);
	return action;
}

SEC("xdp")
int ps_dispatch(struct xdp_md *xdp)
{
	struct ps_outcome outcome;

	if (ps_unlikely(observe))
		return ps_dispatch_by_stages(xdp);
	outcome = ps_express(xdp);
	if (ps_unlikely(outcome.reason == PS_UNDECIDED))
		return ps_dispatch_by_stages(xdp);
	count(outcome.reason);
	return outcome.action;
}

#include "dispatch/split.bpf.h" /* counts as the program above does */

/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Maps that the hooks and the guard share, what they look up in them, and how they tell.
 * Config maps belong to one generation; the loader sizes and fills them, then programs only read.
 */
#ifndef PS_EGRESS_MAPS_BPF_H
#define PS_EGRESS_MAPS_BPF_H

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "egress/abi.h"

enum { EVENT_EVERY_NS = 1000 * 1000 * 1000 };

const volatile __u32 n_classes;
const volatile __u32 n_services;
const volatile __u8 observe; /* count, change nothing */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PS_EGRESS_MAX);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ps_limit);
} limits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct ps_place_key);
	__type(value, struct ps_place_value);
} places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct ps_place6_key);
	__type(value, struct ps_place_value);
} places6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct ps_owned_key);
	__type(value, __u32);
} owned SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct ps_claim_key);
	__type(value, struct ps_service_value);
} services SEC(".maps");

static __always_inline void count(__u32 reason)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &reason);

	if (n)
		(*n)++;
}

static __always_inline struct ps_place_value *place_find(const union ps_ip16 *ip)
{
	if (ps_ip16_is_v4(ip)) {
		struct ps_place_key key = {32, ip->words[3]};

		return bpf_map_lookup_elem(&places, &key);
	} else {
		struct ps_place6_key key = {128, *ip};

		return bpf_map_lookup_elem(&places6, &key);
	}
}

/* enum ps_place_kind of an address. */
static __always_inline __u32 place_of(const union ps_ip16 *ip)
{
	struct ps_place_value *place = place_find(ip);

	return place ? place->kind : PS_PLACE_OTHER;
}

static __always_inline int is_service(const union ps_ip16 *ip, __be16 port, __u8 protocol)
{
	struct ps_claim_key key = {.src = *ip, .sport = port, .protocol = protocol};

	return n_services && bpf_map_lookup_elem(&services, &key);
}

/* A record to fill further and to submit; NULL when this reason and class had its turn within the
 * last second, or the buffer is full: then it is counted in the next one that is sent. */
static __always_inline struct ps_egress_event *event_reserve(const struct ps_claim_key *flow,
							     __u32 class, __u32 reason)
{
	__u32 slot = reason * (n_classes + 1) + (class < n_classes ? class : n_classes);
	struct ps_limit *limit = bpf_map_lookup_elem(&limits, &slot);
	__u64 now = bpf_ktime_get_boot_ns(), last;
	struct ps_egress_event *event;

	if (!limit)
		return NULL;
	last = limit->last_ns;
	if (now - last < EVENT_EVERY_NS ||
	    __sync_val_compare_and_swap(&limit->last_ns, last, now) != last) {
		__sync_fetch_and_add(&limit->suppressed, 1);
		return NULL;
	}
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&limit->suppressed, 1);
		return NULL;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = now;
	event->reason = reason;
	event->class = class;
	event->suppressed = __sync_lock_test_and_set(&limit->suppressed, 0);
	event->src = flow->src;
	event->dst = flow->dst;
	event->sport = flow->sport;
	event->dport = flow->dport;
	event->protocol = flow->protocol;
	return event;
}

#endif

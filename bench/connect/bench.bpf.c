// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/* Claim and release of the record of ports alone: the product's own text of it, on maps of our own. */
#include "door.h"

#include "job.h"

struct ps_record_job job SEC(".data.job");

/* A destination by number: 10.0.0.0 on. */
static __always_inline struct ps_claim_key flow_of(__u32 sink)
{
	return (struct ps_claim_key){.dst = ps_ip16_v4(bpf_htonl(0x0a000000 + sink)),
				     .dport = bpf_htons(443),
				     .protocol = IPPROTO_TCP};
}

static __always_inline __u32 pick(__u64 nth)
{
	__u64 s = job.seed;

	if (job.is_in_order)
		return (__u32)nth;
	s ^= s << 13;
	s ^= s >> 7;
	s ^= s << 17;
	job.seed = s;
	return (__u32)((s >> 32) * job.n_sinks >> 32);
}

static long turn(__u64 nth, void *unused)
{
	const struct ps_choice choice = {.n = 1, .n_shared = 1792};
	struct ps_claim_key flow = flow_of(pick(nth));
	struct ps_ask ask = {0};

	if (job.is_empty) {
		asm volatile("" ::"r"(&flow), "r"(&ask) : "memory");
		return 0;
	}
	if (door_take(&ask, &flow, &choice)) {
		job.n_failed++;
		return 0;
	}
	if (!job.is_kept)
		door_give(&ask);
	return 0;
}

SEC("tc")
int run_record(void *skb)
{
	__u64 start_ns = bpf_ktime_get_ns();

	bpf_loop(job.n, turn, NULL, 0);
	job.took_ns = bpf_ktime_get_ns() - start_ns;
	return 0;
}

char ps_license[] SEC("license") = "GPL";

// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * The programs that are measured, and the wrapper that measures them.
 *
 * The dispatcher is the product's own text, included below, entry function and all; its maps are
 * the product's, shared by user space.  Each program is a function of its own, called from a
 * wrapper that for each packet writes a pristine head, varies addresses and ports, calls the
 * function, compares the verdict and takes the head room back.  So an encapsulator never meets its
 * own output, as it does under BPF_PROG_TEST_RUN with `repeat`.
 *
 *   noop     returns XDP_PASS
 *   parse    Ethernet, IP header, conversation, flow port
 *   decide   parse and all look-ups: the way
 *   uncount  the express lane: decide and encapsulate, without the counter
 *   full     ps_dispatch()
 *   floor    parse, then the product's encapsulation to one constant host: no table, no counter
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* Also the text of the functions below: called, it would be a program and not a function. */
__attribute__((always_inline)) int ps_dispatch(struct xdp_md *xdp);

#include "dispatch/dispatch.bpf.c"

#include "job.h"

struct ps_bench_job job SEC(".data.job");
struct ps_bench_run progress SEC(".data.run");
struct ps_bench_sink sunk SEC(".data.sink");
struct ps_peer floor_peer SEC(".data.floor");

/* Keeps a constant verdict from being known to the caller. */
#define LEAVE(action)                             \
	({                                        \
		int action_ = (action);           \
		asm volatile("" : "+r"(action_)); \
		action_;                          \
	})

__attribute__((noinline)) int noop(struct xdp_md *xdp)
{
	return LEAVE(xdp ? XDP_PASS : XDP_ABORTED);
}

PS_INLINE int parse_into(struct xdp_md *xdp, struct ps_flow *flow, struct ps_way *way)
{
	const struct ethhdr *eth = ps_frame_data(xdp);
	const struct iphdr *ip = (const void *)(eth + 1);
	const void *end = ps_frame_end(xdp);

	if ((const void *)(ip + 1) > end || ps_ether_type(eth) != ps_be16(ETH_P_IP))
		return 0;
	return ps_express_read(ip, end, flow, way);
}

__attribute__((noinline)) int parse(struct xdp_md *xdp)
{
	struct ps_flow flow;
	struct ps_way way;

	if (!parse_into(xdp, &flow, &way))
		return XDP_ABORTED;
	asm volatile("" ::"r"(flow.our_port), "r"(way.envelope.ip_len), "r"(way.envelope.from));
	return XDP_PASS;
}

__attribute__((noinline)) int constant(struct xdp_md *xdp)
{
	struct ps_flow flow;
	struct ps_way way;
	__u32 ifindex;

	if (!parse_into(xdp, &flow, &way))
		return XDP_ABORTED;
	way.envelope.to = PS_GUE_PORT;
	return ps_wrap4(xdp, &floor_peer, &way.envelope, &ifindex) == PS_UNDECIDED
		       ? ps_frame_leave(xdp, ifindex)
		       : XDP_ABORTED;
}

__attribute__((noinline)) int decide(struct xdp_md *xdp)
{
	struct ps_address address;
	struct ps_flow flow;
	struct ps_way way;

	if (!parse_into(xdp, &flow, &way) || !ps_look_address(xdp, flow.ours, &address) ||
	    !ps_express_find(xdp, &address, ps_be16(flow.our_port), &way) || !ps_express_fits(&way))
		return XDP_ABORTED;
	asm volatile("" ::"r"(way.peer), "r"(way.envelope.to), "r"(way.envelope.ip_len));
	return XDP_PASS;
}

__attribute__((noinline)) int uncount(struct xdp_md *xdp)
{
	return ps_express(xdp).action;
}

__attribute__((noinline)) int full(struct xdp_md *xdp)
{
	return ps_dispatch(xdp);
}

PS_INLINE __u64 random64(void)
{
	__u64 s = progress.seed;

	s ^= s << 13;
	s ^= s >> 7;
	s ^= s << 17;
	progress.seed = s;
	return s;
}

PS_INLINE __u32 pick(__u32 first, __u32 count, __u32 random)
{
	return first + (__u32)((__u64)random * count >> 32);
}

/* Writes the next packet; 0, or -1: the frame is too short. */
PS_INLINE int rebuild(struct xdp_md *xdp)
{
	__u8 *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	__u64 random = random64();
	__u32 dst = pick(job.dst_first, job.dst_count, (__u32)random);
	__u32 src = pick(job.src_first, job.src_count, (__u32)(random >> 13));
	__u32 dport = pick(job.dport_first, job.dport_count, (__u32)(random >> 32));

	if (data + PS_BENCH_HEAD > end)
		return -1;
	for (int i = 0; i < PS_BENCH_HEAD / 8; i++)
		((ps_word *)data)[i] = ((const ps_word *)job.head)[i];
	if (job.is_v6) {
		*(__be32 *)(data + 34) = ps_be32(src);
		*(__be32 *)(data + 50) = ps_be32(dst);
		*(__be16 *)(data + 56) = ps_be16(dport);
	} else {
		*(__be32 *)(data + 26) = ps_be32(src);
		*(__be32 *)(data + 30) = ps_be32(dst);
		*(__be16 *)(data + 36) = ps_be16(dport);
	}
	return 0;
}

PS_INLINE void time_batch(void)
{
	__u64 n = progress.n++, now_ns;
	__u32 i = progress.n_batches;

	if (n % PS_BENCH_BATCH)
		return;
	now_ns = bpf_ktime_get_ns();
	if (n > PS_BENCH_WARM * PS_BENCH_BATCH && i <= PS_BENCH_BATCHES) {
		progress.batch_ns[i] = (__u32)(now_ns - progress.started_ns);
		progress.n_batches = i + 1;
	}
	progress.started_ns = now_ns;
}

/* By 64-bit arithmetic, which clang would not choose and the verifier demands. */
PS_INLINE int frame_len(struct xdp_md *xdp)
{
	void *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
	long len;

	asm volatile("%0 = %1; %0 -= %2" : "=&r"(len) : "r"(end), "r"(data));
	return (int)len;
}

PS_INLINE int turn(struct xdp_md *xdp, int (*target)(struct xdp_md *))
{
	int delta;

	time_batch();
	if (rebuild(xdp) < 0) {
		progress.n_wrong++;
		return XDP_ABORTED;
	}
	progress.n_wrong += (__u32)target(xdp) != job.action;
	delta = frame_len(xdp) - (int)job.frame_len;
	if (delta)
		bpf_xdp_adjust_head(xdp, delta);
	return XDP_PASS;
}

#define MEASURED(name, target)            \
	SEC("xdp")                        \
	int name(struct xdp_md *xdp)      \
	{                                 \
		return turn(xdp, target); \
	}

MEASURED(run_noop, noop)
MEASURED(run_parse, parse)
MEASURED(run_decide, decide)
MEASURED(run_uncount, uncount)
MEASURED(run_full, full)
MEASURED(run_floor, constant)

/* Once, for comparing what leaves. */
SEC("xdp")
int once_full(struct xdp_md *xdp)
{
	return full(xdp);
}

SEC("xdp")
int once_floor(struct xdp_md *xdp)
{
	return constant(xdp);
}

/* Live frames: made here, sent by XDP_TX of the interface the run names. */
SEC("xdp")
int live_source(struct xdp_md *xdp)
{
	return rebuild(xdp) < 0 ? XDP_ABORTED : XDP_TX;
}

SEC("xdp")
int live_tx(struct xdp_md *xdp)
{
	return XDP_TX;
}

SEC("xdp")
int live_pass(struct xdp_md *xdp)
{
	return XDP_PASS;
}

SEC("xdp")
int live_sink(struct xdp_md *xdp)
{
	if ((__u32)frame_len(xdp) == job.sunk_len)
		sunk.n++;
	else
		sunk.n_wrong++;
	return XDP_DROP;
}

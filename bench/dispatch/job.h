/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* What the benchmark's kernel half and user half share: the packet to make, and what was seen. */
#ifndef PS_BENCH_JOB_H
#define PS_BENCH_JOB_H

#include <linux/types.h>

enum {
	PS_BENCH_HEAD = 80,      /* bytes of a frame written anew for each packet */
	PS_BENCH_BATCH = 4096,   /* packets timed together */
	PS_BENCH_WARM = 48,      /* batches of one system call before those that are kept */
	PS_BENCH_BATCHES = 16,   /* kept */
	PS_BENCH_FRAME_LEN = 98, /* as ping's preset: Ethernet, 84 bytes of IP */
};

/* The packets of one run.  Addresses and ports are host order, uniform in [first, first + count). */
struct ps_bench_job {
	__u8 head[PS_BENCH_HEAD] __attribute__((aligned(8)));
	__u32 frame_len;
	__u32 is_v6;
	__u32 dst_first, dst_count; /* IPv6: the last four bytes */
	__u32 src_first, src_count;
	__u32 dport_first, dport_count;
	__u32 action;   /* every packet must get this one */
	__u32 sunk_len; /* live: every frame must arrive with this length, bytes */
};

struct ps_bench_run {
	__u64 seed, n, started_ns;
	__u64 n_wrong;
	__u32 n_batches;
	__u32 batch_ns[PS_BENCH_BATCHES + 1];
};

struct ps_bench_sink {
	__u64 n, n_wrong;
};

#endif

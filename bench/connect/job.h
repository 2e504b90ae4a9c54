/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* What the record's benchmark tells its kernel half, and hears from it. */
#ifndef PS_BENCH_CONNECT_JOB_H
#define PS_BENCH_CONNECT_JOB_H

#include <linux/types.h>

struct ps_record_job {
	__u64 seed;
	__u32 n;       /* turns */
	__u32 n_sinks; /* destinations, drawn at random; or each once, in order */
	__u32 is_in_order;
	__u32 is_kept;  /* claim only */
	__u32 is_empty; /* neither claim nor release: what the loop costs */
	__u32 n_failed; /* out */
	__u64 took_ns;  /* out */
};

#endif

/* SPDX-License-Identifier: MIT */
/* Rows of programs and packets, timed in turn. */
#ifndef PS_BENCH_MEASURE_H
#define PS_BENCH_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "world.h"

/* One line of the table. */
struct row {
	const char *name;
	const struct world *world;
	const struct bpf_program *program;
	struct ps_bench_job job;
	int reason;             /* counter that must grow by one a packet, -1: none */
	double *batch_ns;       /* a packet's share, n_batches of them; owned */
	size_t n_batches, room; /* room: batches for which there is memory */
	double min_ns, median_ns;
};

/* The head of the frame is that of an IPv4 TCP packet with these ranges. */
struct ps_bench_job job_v6(uint32_t dst_first, uint32_t dst_count, uint32_t dport_first,
			   uint32_t dport_count);
struct ps_bench_job job_v4(uint32_t dst_first, uint32_t dst_count, uint32_t dport_first,
			   uint32_t dport_count, uint32_t action);
/* Memory for so many rounds. */
int rows_init(struct row *rows, size_t n_rows, unsigned rounds);
/* Runs each row once a round, from round `first` to before `end`.  -EBADMSG: a packet got another
 * verdict than expected, which is told on stderr. */
int measure(struct row *rows, size_t n_rows, unsigned first, unsigned end, const char *pin_dir);
/* After the last round: sorts, sets min_ns and median_ns. */
void rows_finish(struct row *rows, size_t n_rows);
void row_clear(struct row *row);
/* 0: what leaves the dispatcher and the floor is equal byte for byte; -EBADMSG: not. */
int compare_with_floor(const struct world *world, const struct ps_bench_job *job);
/* The frame that the job starts from, PS_BENCH_FRAME_LEN bytes. */
void job_frame(const struct ps_bench_job *job, unsigned char *ret);
double median_of(double *values, size_t n);

#endif

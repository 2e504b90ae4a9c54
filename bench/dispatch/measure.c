// SPDX-License-Identifier: MIT
/*
 * Timing.  One system call runs PS_BENCH_WARM batches of one program, and then PS_BENCH_BATCHES that
 * are kept, timed inside BPF; the programs take turns, so that a neighbour's noise falls on all of
 * them.  The first batches of each call find cold caches, whatever ran before: a random row takes
 * 135 ns a packet in the first one and half of that in the sixteenth, when each line of its table was
 * used twice.  What is reported is the smallest and the median batch kept, for a packet.
 */
#include "measure.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "packet.h"

enum { FRAME_ROOM = 256 };

struct ps_bench_job job_v4(uint32_t dst_first, uint32_t dst_count, uint32_t dport_first,
			   uint32_t dport_count, uint32_t action)
{
	struct packet packet = {.dst = dst_first, .dport = dport_first, .payload = 44};
	unsigned char frame[FRAME_MAX];
	struct ps_bench_job job = {
		.frame_len = PS_BENCH_FRAME_LEN,
		.dst_first = dst_first,
		.dst_count = dst_count,
		.src_first = PEER,
		.src_count = 1,
		.dport_first = dport_first,
		.dport_count = dport_count,
		.action = action,
	};

	make_frame(&packet, frame);
	memcpy(job.head, frame, sizeof(job.head));
	return job;
}

/* To 2001:db8:: and those last four bytes, all sent on. */
struct ps_bench_job job_v6(uint32_t dst_first, uint32_t dst_count, uint32_t dport_first,
			   uint32_t dport_count)
{
	struct ps_bench_job job = job_v4(dst_first, dst_count, dport_first, dport_count, XDP_TX);
	struct packet packet = {.v6 = true, .dport = dport_first, .payload = 24};
	unsigned char frame[FRAME_MAX];

	job.is_v6 = 1;
	make_frame(&packet, frame);
	memcpy(job.head, frame, sizeof(job.head));
	return job;
}

void job_frame(const struct ps_bench_job *job, unsigned char *ret)
{
	memset(ret, 0, PS_BENCH_FRAME_LEN);
	memcpy(ret, job->head, sizeof(job->head));
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

double median_of(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), ascending);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

void row_clear(struct row *row)
{
	free(row->batch_ns);
	row->batch_ns = NULL;
}

static int keep(struct row *row, const struct ps_bench_run *run)
{
	if (row->n_batches + run->n_batches > row->room)
		return -EBADMSG;
	for (__u32 i = 0; i < run->n_batches; i++)
		row->batch_ns[row->n_batches++] = (double)run->batch_ns[i] / PS_BENCH_BATCH;
	return 0;
}

static uint64_t counter_of(const char *pin_dir, int reason)
{
	uint64_t counters[PS_REASON_MAX] = {0};

	if (reason < 0 || ps_dispatch_counters(pin_dir, counters) < 0)
		return 0;
	return counters[reason];
}

static int check(const struct row *row, uint64_t n, uint64_t n_wrong, uint64_t counted)
{
	if (n_wrong) {
		fprintf(stderr, "bench: %s: %lu of %lu packets got another verdict\n", row->name,
			n_wrong, n);
		return -EBADMSG;
	}
	if (row->reason >= 0 && counted != n) {
		fprintf(stderr, "bench: %s: %lu packets, but %s counted %lu\n", row->name, n,
			ps_dispatch_reason_label((enum ps_dispatch_reason)row->reason), counted);
		return -EBADMSG;
	}
	return 0;
}

static int run_once(struct row *row, unsigned round, const char *pin_dir)
{
	struct ps_bench_run *run = &row->world->skel->data_run->progress;
	uint64_t before = counter_of(pin_dir, row->reason);
	unsigned char frame[PS_BENCH_FRAME_LEN];
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = sizeof(frame),
		    .repeat = PS_BENCH_BATCH * (PS_BENCH_WARM + PS_BENCH_BATCHES) + 1);
	int r;

	row->world->skel->data_job->job = row->job;
	*run = (struct ps_bench_run){.seed = 0x853c49e6748fea9bu + round};
	job_frame(&row->job, frame);
	r = bpf_prog_test_run_opts(bpf_program__fd(row->program), &options);
	if (r < 0)
		return r;
	r = check(row, run->n, run->n_wrong, counter_of(pin_dir, row->reason) - before);
	return r < 0 ? r : keep(row, run);
}

int rows_init(struct row *rows, size_t n_rows, unsigned rounds)
{
	for (size_t i = 0; i < n_rows; i++) {
		rows[i].room = (size_t)rounds * PS_BENCH_BATCHES;
		rows[i].batch_ns = calloc(rows[i].room, sizeof(double));
		if (!rows[i].batch_ns)
			return -ENOMEM;
	}
	return 0;
}

int measure(struct row *rows, size_t n_rows, unsigned first, unsigned end, const char *pin_dir)
{
	int r = 0;

	for (unsigned round = first; r >= 0 && round < end; round++) {
		fprintf(stderr, "\rbench: round %u ", round + 1);
		for (size_t i = 0; r >= 0 && i < n_rows; i++)
			r = run_once(&rows[i], round, pin_dir);
	}
	return r < 0 ? r : 0;
}

void rows_finish(struct row *rows, size_t n_rows)
{
	for (size_t i = 0; i < n_rows; i++) {
		rows[i].median_ns = median_of(rows[i].batch_ns, rows[i].n_batches);
		rows[i].min_ns = rows[i].batch_ns[0];
	}
}

/* What leaves the program for the job's first frame; its length, or an error. */
static int leave(const struct bpf_program *program, const struct ps_bench_job *job,
		 unsigned char ret[FRAME_ROOM])
{
	unsigned char frame[PS_BENCH_FRAME_LEN];
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = sizeof(frame),
		    .data_out = ret, .data_size_out = FRAME_ROOM, .repeat = 1);
	int r;

	job_frame(job, frame);
	r = bpf_prog_test_run_opts(bpf_program__fd(program), &options);
	if (r < 0)
		return r;
	return options.retval == job->action ? (int)options.data_size_out : -EBADMSG;
}

int compare_with_floor(const struct world *world, const struct ps_bench_job *job)
{
	unsigned char ours[FRAME_ROOM], floor[FRAME_ROOM];
	int len = leave(world->skel->progs.once_full, job, ours);
	int floor_len = leave(world->skel->progs.once_floor, job, floor);

	if (len != PS_BENCH_FRAME_LEN + PS_OVERHEAD_V4 || len != floor_len ||
	    memcmp(ours, floor, (size_t)len) != 0) {
		fprintf(stderr, "bench: dispatcher and floor differ: %d and %d bytes\n", len,
			floor_len);
		return -EBADMSG;
	}
	return 0;
}

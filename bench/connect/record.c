// SPDX-License-Identifier: MIT
#include "record.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include <bpf/bpf.h>

#include "egress/abi.h"
#include "job.h"
#include "skel.h"
#include "world.h"

enum { TURNS = 1 << 16, FRAME_LEN = 64 };

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, args) : 0;
}

static int run(struct bench_connect *skel, const struct ps_record_job *job, double *ret_ns)
{
	unsigned char frame[FRAME_LEN] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = sizeof(frame),
		    .repeat = 1);
	int r;

	skel->data_job->job = *job;
	r = bpf_prog_test_run_opts(bpf_program__fd(skel->progs.run_record), &options);
	if (r < 0)
		return r;
	if (skel->data_job->job.n_failed) {
		fprintf(stderr, "bench: record: %u of %u claims failed\n",
			skel->data_job->job.n_failed, job->n);
		return -EBADMSG;
	}
	*ret_ns = (double)skel->data_job->job.took_ns / job->n;
	return 0;
}

/* One slice of 2,048 ports. */
static int add_slice(const struct bench_connect *skel)
{
	const struct ps_choice_slice slice = {.address = ps_ip16_v4(htonl(0xc6336401)),
					      .first_port = SLICE_PORTS,
					      .shift = 11,
					      .n_ports = SLICE_PORTS,
					      .n_exclusive = SLICE_PORTS / 8};
	const struct ps_lease lease = {.state = PS_LEASE_ACTIVE};
	__u32 first = 0;
	int r = bpf_map_update_elem(bpf_map__fd(skel->maps.slices), &first, &slice, BPF_ANY);

	return r < 0 ? r
		     : bpf_map_update_elem(bpf_map__fd(skel->maps.leases), &first, &lease, BPF_ANY);
}

static int least(struct bench_connect *skel, struct ps_record_job job, unsigned rounds,
		 double *ret_ns)
{
	double ns, best = 0;
	int r = 0;

	for (unsigned i = 0; r >= 0 && i < rounds; i++) {
		job.seed = 0x9e3779b97f4a7c15u + i;
		r = run(skel, &job, &ns);
		if (r >= 0 && (i == 0 || ns < best))
			best = ns;
	}
	*ret_ns = best;
	return r;
}

int record_measure(unsigned rounds, struct record_result *ret)
{
	const struct ps_record_job hot = {.n = TURNS, .n_sinks = 1};
	const struct ps_record_job random = {.n = TURNS, .n_sinks = RECORD_SINKS};
	struct ps_record_job fill = {.n = RECORD_SINKS, .is_in_order = 1, .is_kept = 1};
	struct ps_record_job empty = random;
	struct bench_connect *skel;
	double unused, hot_ns = 0, random_ns = 0, loop_ns = 0;
	int r;

	empty.is_empty = 1;
	libbpf_set_print(quiet);
	skel = bench_connect__open_and_load();
	if (!skel)
		return -errno;
	r = add_slice(skel);
	if (r >= 0)
		r = least(skel, empty, rounds, &loop_ns);
	if (r >= 0)
		r = least(skel, hot, rounds, &hot_ns);
	if (r >= 0)
		r = run(skel, &fill, &unused);
	if (r >= 0)
		r = least(skel, random, rounds, &random_ns);
	bench_connect__destroy(skel);
	if (r >= 0)
		*ret = (struct record_result){hot_ns - loop_ns, random_ns - loop_ns, loop_ns};
	return r;
}

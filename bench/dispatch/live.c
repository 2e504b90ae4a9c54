// SPDX-License-Identifier: MIT
/*
 * Live: the generator's frames (BPF_F_TEST_XDP_LIVE_FRAMES) cross a veth pair, meet the program
 * that is measured, in native mode, and come back to a program that counts and drops them.  One CPU
 * does all of that, so differences between programs look smaller than they are; the no-op row says
 * what the way itself costs.
 *
 *   namespace of the process              namespace of the machine under test
 *   live_source --XDP_TX--> g0 ========= d0: ps_dispatch, live_tx, or live_pass and ip_forward
 *                live_sink <-- g0 ========= d0
 *
 * d0 has a program in every case: without one a veth neither takes frames from XDP nor, on the
 * other end, is woken for them (lab/pass.bpf.c).
 */
#include "live.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/own.h"
#include "measure.h"

enum { N_FRAMES = 1 << 19, STALL_NS = 300 * 1000 * 1000 };

struct lab {
	int here, there; /* network namespaces */
	unsigned g0, d0;
	struct bpf_link *sink;
	const struct world *world;
	const char *pin_dir;
};

static const char *const names[] = {
	[LIVE_TX] = "no-op XDP_TX",
	[LIVE_DISPATCH] = "dispatcher, one address",
	[LIVE_RANDOM] = "dispatcher, all addresses at random",
	[LIVE_FORWARD] = "kernel ip_forward",
};

const char *live_name(enum live_path path)
{
	return names[path];
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int shell(const char *command)
{
	return system(command) == 0 ? 0 : -EIO;
}

static int enter(int ns)
{
	return setns(ns, CLONE_NEWNET) < 0 ? -errno : 0;
}

/* Both ends, addresses that packet.h's frames are made for, and the way back for ip_forward. */
static int make_links(struct lab *lab)
{
	char command[256];
	int r;

	snprintf(command, sizeof(command),
		 "ip link add d0 type veth peer name g0 netns /proc/%d/fd/%d", (int)getpid(),
		 lab->here);
	r = shell("sysctl -qw net.ipv6.conf.default.disable_ipv6=1 net.ipv4.ip_forward=1 "
		  "net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 "
		  "net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0");
	if (r >= 0)
		r = shell(command);
	if (r >= 0)
		r = shell("ip link set d0 address 02:00:00:00:00:22 up && "
			  "ip addr add 10.0.0.1/8 dev d0 && "
			  "ip neigh add 10.255.0.1 lladdr 02:00:00:00:00:11 dev d0 && "
			  "ip route add default via 10.255.0.1");
	lab->d0 = if_nametoindex("d0");
	return r < 0 ? r : enter(lab->here);
}

static int start_sink(struct lab *lab)
{
	int r = shell("ip link set g0 address 02:00:00:00:00:11 up");

	if (r < 0)
		return r;
	lab->g0 = if_nametoindex("g0");
	lab->sink = bpf_program__attach_xdp(lab->world->skel->progs.live_sink, (int)lab->g0);
	return lab->sink ? 0 : -errno;
}

static void lab_close(struct lab *lab)
{
	bpf_link__destroy(lab->sink);
	if (lab->here >= 0 && lab->there >= 0)
		(void)enter(lab->here);
	ps_fd_drop(&lab->there);
	ps_fd_drop(&lab->here);
}

static int lab_open(const struct world *world, const char *pin_dir, struct lab *ret)
{
	ps_auto(lab_close) struct lab lab = {-1, -1, 0, 0, NULL, world, pin_dir};
	int r;

	lab.here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (lab.here < 0 || shell("sysctl -qw net.ipv6.conf.default.disable_ipv6=1") < 0 ||
	    unshare(CLONE_NEWNET) < 0)
		return -errno;
	lab.there = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (lab.there < 0)
		return -errno;
	r = make_links(&lab);
	if (r >= 0)
		r = start_sink(&lab);
	for (unsigned i = 0; r >= 0 && i < HOSTS; i++) {
		struct ps_hop hop = world_hop(lab.d0);

		r = ps_dispatch_set_hop(world->dispatch, i, &hop);
	}
	if (r < 0)
		return r;
	*ret = lab;
	lab = (struct lab){-1, -1, 0, 0, NULL, NULL, NULL};
	return 0;
}

/* Runs in the other namespace; *ret_link stays NULL for the product, which pins its own. */
static int attach(const struct lab *lab, enum live_path path, struct bpf_link **ret_link)
{
	const struct bench_bpf *skel = lab->world->skel;
	enum ps_dispatch_mode mode;
	int r;

	if (path == LIVE_DISPATCH || path == LIVE_RANDOM) {
		r = ps_dispatch_attach(lab->world->dispatch, "d0", &mode, NULL);
		return r < 0 ? r : mode == PS_MODE_NATIVE ? 0 : -EOPNOTSUPP;
	}
	*ret_link = bpf_program__attach_xdp(
		path == LIVE_TX ? skel->progs.live_tx : skel->progs.live_pass, (int)lab->d0);
	return *ret_link ? 0 : -errno;
}

static int send_frames(const struct lab *lab, const struct ps_bench_job *job)
{
	unsigned char frame[PS_BENCH_FRAME_LEN];
	struct xdp_md context = {.data_end = sizeof(frame), .ingress_ifindex = lab->g0};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = sizeof(frame),
		    .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = N_FRAMES,
		    .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = 64);

	job_frame(job, frame);
	return bpf_prog_test_run_opts(bpf_program__fd(lab->world->skel->progs.live_source),
				      &options);
}

/* When the last frame arrived; the caller compares how many did. */
static uint64_t await_frames(const volatile struct ps_bench_sink *sunk)
{
	uint64_t last_ns = now_ns(), n = sunk->n + sunk->n_wrong;

	while (n < N_FRAMES && now_ns() - last_ns < STALL_NS) {
		if (sunk->n + sunk->n_wrong == n)
			continue;
		n = sunk->n + sunk->n_wrong;
		last_ns = now_ns();
	}
	return last_ns;
}

static int time_frames(const struct lab *lab, enum live_path path, double *ret_mpps)
{
	int encapsulated = path == LIVE_DISPATCH || path == LIVE_RANDOM;
	unsigned n = path == LIVE_RANDOM ? lab->world->n_addresses : 1;
	struct ps_bench_job job = job_v4(WORLD_FIRST, n, 1 << SHIFT, 65536 - (1 << SHIFT), 0);
	struct ps_bench_sink *sunk = &lab->world->skel->data_sink->sunk;
	uint64_t start_ns, end_ns;
	int r;

	job.sunk_len = PS_BENCH_FRAME_LEN + (encapsulated ? PS_OVERHEAD_V4 : 0);
	lab->world->skel->data_job->job = job;
	lab->world->skel->data_run->progress = (struct ps_bench_run){.seed = 0x853c49e6748fea9bu};
	*sunk = (struct ps_bench_sink){0};
	start_ns = now_ns();
	r = send_frames(lab, &job);
	if (r < 0)
		return r;
	end_ns = await_frames(sunk);
	if (sunk->n != N_FRAMES || sunk->n_wrong) {
		fprintf(stderr, "bench: %s: %llu of %u frames arrived, %llu wrong ones\n",
			live_name(path), sunk->n, N_FRAMES, sunk->n_wrong);
		return -EBADMSG;
	}
	*ret_mpps = (double)N_FRAMES * 1000 / (double)(end_ns - start_ns);
	return 0;
}

static int run_path(const struct lab *lab, enum live_path path, double *ret_mpps)
{
	struct bpf_link *link = NULL;
	int r = enter(lab->there), detached;

	if (r >= 0)
		r = attach(lab, path, &link);
	if (r >= 0)
		r = enter(lab->here);
	if (r >= 0)
		r = time_frames(lab, path, ret_mpps);
	detached = link ? bpf_link__destroy(link) : ps_dispatch_detach_all(lab->pin_dir);
	return r < 0 ? r : detached;
}

int live_measure(const struct world *world, const char *pin_dir, struct live_result *ret)
{
	ps_auto(lab_close) struct lab lab = {-1, -1, 0, 0, NULL, NULL, NULL};
	int r = lab_open(world, pin_dir, &lab);

	for (unsigned i = 0; r >= 0 && i < LIVE_ALTERNATIONS; i++) {
		fprintf(stderr, "\rbench: live, alternation %u of %u ", i + 1, LIVE_ALTERNATIONS);
		for (unsigned path = 0; r >= 0 && path < N_LIVE_PATHS; path++)
			r = run_path(&lab, path, &ret->mpps[path][i]);
	}
	fputc('\n', stderr);
	for (unsigned path = 0; r >= 0 && path < N_LIVE_PATHS; path++)
		ret->median_mpps[path] = median_of(ret->mpps[path], LIVE_ALTERNATIONS);
	return r;
}

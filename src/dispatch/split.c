// SPDX-License-Identifier: MIT
#include <errno.h>

#include <bpf/bpf.h>

#include "dispatch/load.h"

/* Ours among the filters of an interface; the guard of egress/ has 0x5053.  Priority 1: a filter
 * before us could end the chain. */
enum { SPLIT_HANDLE = 0x5054, SPLIT_PRIORITY = 1 };

/* The qdisc of tc's hooks may be there: the guard is at its other one. */
static int make_qdisc(unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex,
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	int r = bpf_tc_hook_create(&hook);

	return r == -EEXIST ? 0 : r;
}

static int attach_filter(int prog_fd, unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = SPLIT_HANDLE, .priority = SPLIT_PRIORITY,
		    .prog_fd = prog_fd, .flags = BPF_TC_F_REPLACE);

	return bpf_tc_attach(&hook, &opts);
}

int ps_split_attach(const struct ps_dispatch *dispatch, unsigned ifindex)
{
	libbpf_print_fn_t print = libbpf_set_print(NULL); /* it tells a qdisc that is there */
	int r = make_qdisc(ifindex);

	if (r == 0)
		r = attach_filter(bpf_program__fd(dispatch->skel->progs.ps_split), ifindex);
	libbpf_set_print(print);
	return r;
}

int ps_split_detach(unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = SPLIT_HANDLE, .priority = SPLIT_PRIORITY);
	libbpf_print_fn_t print = libbpf_set_print(NULL);
	int r = bpf_tc_detach(&hook, &opts);

	libbpf_set_print(print);
	/* EINVAL: there is no clsact qdisc; ENODEV: no such interface any more. */
	return r == -ENOENT || r == -EINVAL || r == -ENODEV ? 0 : r;
}

bool ps_split_stands(const struct ps_dispatch *dispatch, unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = SPLIT_HANDLE, .priority = SPLIT_PRIORITY);
	libbpf_print_fn_t print = libbpf_set_print(NULL);
	struct bpf_prog_info info = {0};
	__u32 len = sizeof(info);
	bool stands = bpf_tc_query(&hook, &opts) == 0 &&
		      bpf_obj_get_info_by_fd(bpf_program__fd(dispatch->skel->progs.ps_split), &info,
					     &len) == 0 &&
		      opts.prog_id == info.id;

	libbpf_set_print(print);
	return stands;
}

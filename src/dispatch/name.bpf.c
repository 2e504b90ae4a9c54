// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/* Tells the name of a program.  To ask the kernel for it by id takes CAP_SYS_ADMIN, which the agent has given away;
 * an iterator takes CAP_BPF and CAP_PERFMON. */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

struct seq_file;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct bpf_iter_meta {
	struct seq_file *seq;
};
struct bpf_prog_aux {
	__u32 id;
	char name[BPF_OBJ_NAME_LEN];
};
struct bpf_prog {
	struct bpf_prog_aux *aux;
};
struct bpf_iter__bpf_prog {
	struct bpf_iter_meta *meta;
	struct bpf_prog *prog;
};
#pragma clang attribute pop

const volatile __u32 wanted;

SEC("iter/bpf_prog")
int ps_prog_name(struct bpf_iter__bpf_prog *ctx)
{
	struct bpf_prog *prog = ctx->prog;
	char name[BPF_OBJ_NAME_LEN] = "";

	if (!prog || prog->aux->id != wanted)
		return 0;
	bpf_core_read_str(name, sizeof(name), &prog->aux->name);
	bpf_seq_write(ctx->meta->seq, name, sizeof(name));
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";

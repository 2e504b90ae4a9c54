/* SPDX-License-Identifier: MIT */
/* What tests that load programs share: the probe that decides a skip, pin folders, commands. */
#ifndef PS_TESTS_KERNEL_H
#define PS_TESTS_KERNEL_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <linux/magic.h>

enum { PIN_DIR_MAX = 64 };

/* Exit status of a shell command. */
static inline int run(const char *command)
{
	return system(command);
}

/* A program that passes every packet; -errno. */
static inline int load_trivial(const char *name)
{
	const struct bpf_insn pass[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = XDP_PASS},
		{.code = BPF_JMP | BPF_EXIT},
	};

	return bpf_prog_load(BPF_PROG_TYPE_XDP, name, "GPL", pass, 2, NULL);
}

/* Asked of a trivial program: a verifier's refusal of ours is EACCES too and must not skip. */
static inline bool may_load_bpf(void)
{
	int fd = load_trivial("probe");

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* Makes a folder on bpffs for this process. */
static inline int make_pin_dir(const char *name, char ret[PIN_DIR_MAX])
{
	struct statfs fs;

	if (statfs("/sys/fs/bpf", &fs) < 0)
		return -errno;
	if (fs.f_type != BPF_FS_MAGIC && mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL) < 0)
		return -errno;
	snprintf(ret, PIN_DIR_MAX, "/sys/fs/bpf/%s-%d", name, (int)getpid());
	return mkdir(ret, 0700) < 0 ? -errno : 0;
}

#endif

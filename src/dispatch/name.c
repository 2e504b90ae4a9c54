// SPDX-License-Identifier: MIT
#include "dispatch/name.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/own.h"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual" /* bpftool's generated header casts const away */
#include "dispatch/name.skel.h"
#pragma GCC diagnostic pop

static void clear_skel(struct ps_name_bpf **skel)
{
	ps_name_bpf__destroy(*skel);
}

static int read_name(int link_fd, char ret[BPF_OBJ_NAME_LEN])
{
	ps_auto_fd int iter = bpf_iter_create(link_fd);
	char name[BPF_OBJ_NAME_LEN];
	ssize_t n;

	if (iter < 0)
		return iter;
	n = read(iter, name, sizeof(name));
	if (n < 0)
		return -errno;
	if ((size_t)n < sizeof(name))
		return -ENOENT;
	memcpy(ret, name, sizeof(name));
	return 0;
}

int ps_program_name(__u32 id, char ret[BPF_OBJ_NAME_LEN])
{
	ps_auto(clear_skel) struct ps_name_bpf *skel = ps_name_bpf__open();
	int r;

	if (!skel)
		return -errno;
	skel->rodata->wanted = id;
	r = ps_name_bpf__load(skel);
	if (r == 0)
		r = ps_name_bpf__attach(skel);
	return r < 0 ? r : read_name(bpf_link__fd(skel->links.ps_prog_name), ret);
}

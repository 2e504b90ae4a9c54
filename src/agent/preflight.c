// SPDX-License-Identifier: MIT
#include <cap-ng.h>
#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/own.h"

static const char btf_path[] = "/sys/kernel/btf/vmlinux";
static const char bpffs_path[] = "/sys/fs/bpf";

static const struct {
	unsigned number;
	const char *name;
} needed[] = {
	{CAP_NET_ADMIN, "CAP_NET_ADMIN"},
	{CAP_BPF, "CAP_BPF"},
	{CAP_PERFMON, "CAP_PERFMON"},
};

static int check_capabilities(char **ret_why)
{
	char missing[128] = "";

	capng_get_caps_process();
	for (size_t i = 0; i < PS_N_ELEMENTS(needed); i++) {
		if (capng_have_capability(CAPNG_EFFECTIVE, needed[i].number))
			continue;
		strcat(missing, *missing ? ", " : "");
		strcat(missing, needed[i].name);
	}
	if (!*missing)
		return 0;
	return ps_say(
		ret_why, -EPERM,
		"missing capability %s: run as root, or give it with AmbientCapabilities= in the systemd unit",
		missing);
}

static int check_bpffs(char **ret_why)
{
	struct statfs fs;

	if (statfs(bpffs_path, &fs) == 0 && fs.f_type == BPF_FS_MAGIC)
		return 0;
	if (mount("bpf", bpffs_path, "bpf", 0, NULL) == 0)
		return 0;
	return ps_say(ret_why, -errno,
		      "%s is not a BPF file system and cannot be mounted: mount -t bpf bpf %s",
		      bpffs_path, bpffs_path);
}

int ps_preflight(const struct ps_agent_options *options, char **ret_why)
{
	struct statfs fs;
	int r = check_capabilities(ret_why);

	if (r < 0)
		return r;
	if (access(btf_path, R_OK) < 0)
		return ps_say(
			ret_why, -ENOTSUP,
			"this kernel has no BTF (%s): use a kernel built with CONFIG_DEBUG_INFO_BTF, such as Debian's",
			btf_path);
	if (statfs(options->cgroup_root, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC)
		return ps_say(
			ret_why, -ENOTDIR,
			"%s is not a cgroup2 folder: name one with --cgroup (see `mount -t cgroup2`)",
			options->cgroup_root);
	return check_bpffs(ret_why);
}

int ps_preflight_drop(void)
{
	capng_clear(CAPNG_SELECT_BOTH);
	for (size_t i = 0; i < PS_N_ELEMENTS(needed); i++)
		capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, needed[i].number);
	return capng_apply(CAPNG_SELECT_CAPS) < 0 ? -EPERM : 0;
}

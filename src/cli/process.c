// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/own.h"
#include "cli/cli.h"

enum { LINE = 4096 };

void ps_cli_process_clear(struct ps_process *process)
{
	ps_mem_drop(&process->cgroup);
	ps_mem_drop(&process->folder);
}

/* The rest of the first line of /proc/PID/FILE that begins with `start`; caller frees. */
static char *proc_line(unsigned pid, const char *file, const char *start)
{
	char path[64], line[LINE];
	char *rest = NULL;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%u/%s", pid, file);
	f = fopen(path, "re");
	while (f && !rest && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, start, strlen(start)) == 0)
			rest = strdup(line + strlen(start));
	}
	if (f)
		(void)fclose(f);
	return rest;
}

/* Cuts a folder within a mount down to where that is mounted. */
static void cut_to_mount(char *path)
{
	struct stat here, parent;

	while (stat(path, &here) == 0) {
		char *slash = strrchr(path, '/');
		char name = slash && slash != path ? *slash : '\0';

		if (!name)
			return;
		*slash = '\0';
		if (stat(path, &parent) < 0 || parent.st_dev != here.st_dev) {
			*slash = name;
			return;
		}
	}
}

/* The kernel's cgroup id is the inode number of the folder. */
static int find_cgroup(const char *root, const char *path, struct ps_process *ret)
{
	ps_auto_mem char *mount = strdup(root);
	size_t len = strlen(root);
	struct stat folder;

	if (!mount)
		return -ENOMEM;
	cut_to_mount(mount);
	if (asprintf(&ret->folder, "%s%s", mount, strcmp(path, "/") == 0 ? "" : path) < 0) {
		ret->folder = NULL;
		return -ENOMEM;
	}
	if (stat(ret->folder, &folder) == 0)
		ret->cgroup_id = folder.st_ino;
	if (!ps_cgroup_contains(root, ret->folder))
		return 0;
	ret->cgroup = strdup(ret->folder + len);
	return ret->cgroup ? 0 : -ENOMEM;
}

static bool is_elsewhere(unsigned pid)
{
	struct stat own, its;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%u/ns/net", pid);
	return stat(path, &its) == 0 && stat("/proc/self/ns/net", &own) == 0 &&
	       (own.st_ino != its.st_ino || own.st_dev != its.st_dev);
}

int ps_cli_process(unsigned pid, const char *root, struct ps_process *ret)
{
	ps_auto_mem char *uid = proc_line(pid, "status", "Uid:");
	ps_auto_mem char *name = proc_line(pid, "comm", "");
	ps_auto_mem char *cgroup = proc_line(pid, "cgroup", "0::");
	ps_auto(ps_cli_process_clear) struct ps_process process = {.pid = pid};

	if (!uid || !name)
		return ps_cli_fail(PS_EXIT_USE, "there is no process %u", pid);
	if (!cgroup)
		return ps_cli_fail(PS_EXIT_REFUSED, "process %u is in no cgroup of version 2", pid);
	process.uid = (uint32_t)strtoul(uid, NULL, 10);
	snprintf(process.name, sizeof(process.name), "%s", name);
	process.is_elsewhere = is_elsewhere(pid);
	if (find_cgroup(root, cgroup, &process) < 0)
		return ps_cli_fail(PS_EXIT_REFUSED, "out of memory");
	*ret = process;
	process = (struct ps_process){0};
	return PS_EXIT_DONE;
}

// SPDX-License-Identifier: MIT
#include "egress-lab.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/own.h"
#include "cgroup2.h"

enum { CLOSE_MS = 1000 };

static int run(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int run(const char *format, ...)
{
	ps_auto_mem char *command = NULL;
	va_list args;
	int r;

	va_start(args, format);
	r = vasprintf(&command, format, args);
	va_end(args);
	if (r < 0)
		return -ENOMEM;
	r = system(command);
	return r == 0 ? 0 : -EIO;
}

/* Asked of a trivial program, because a refusal of ours must fail, not skip. */
const char *lab_missing(void)
{
	const struct bpf_insn pass[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	ps_auto_fd int fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "probe", "GPL", pass, 2, NULL);

	if (fd < 0)
		return "this process may not load BPF programs";
	if (!cgroup2_root())
		return "no writable cgroup2";
	if (access("/run/netns", X_OK) < 0 && mkdir("/run/netns", 0755) < 0)
		return "no /run/netns";
	return NULL;
}

static int write_text(const char *path, const char *text)
{
	ps_auto_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return -errno;
	return 0;
}

void lab_enter(const char *cgroup_dir)
{
	char procs[300];

	snprintf(procs, sizeof(procs), "%s/cgroup.procs", cgroup_dir);
	if (write_text(procs, "0") < 0)
		abort();
}

static void find_home(struct lab *lab, const char *root)
{
	ps_auto_mem char *line = NULL;
	FILE *f = fopen("/proc/self/cgroup", "re");
	size_t cap = 0;

	snprintf(lab->home_cgroup, sizeof(lab->home_cgroup), "%s", root);
	while (f && getline(&line, &cap, f) > 0) {
		if (strncmp(line, "0::", 3) == 0) {
			line[strcspn(line, "\n")] = '\0';
			snprintf(lab->home_cgroup, sizeof(lab->home_cgroup), "%s%s", root,
				 line + 3);
		}
	}
	if (f)
		fclose(f);
}

static int make_cgroups(struct lab *lab)
{
	const char *root = cgroup2_root();
	struct stat st;

	find_home(lab, root);
	snprintf(lab->cgroup, sizeof(lab->cgroup), "%s/egress-test-%d", root, (int)getpid());
	snprintf(lab->class_dir, sizeof(lab->class_dir), "%s/class", lab->cgroup);
	snprintf(lab->plain_dir, sizeof(lab->plain_dir), "%s/plain", lab->cgroup);
	if (mkdir(lab->cgroup, 0755) < 0 || mkdir(lab->class_dir, 0755) < 0 ||
	    mkdir(lab->plain_dir, 0755) < 0 || stat(lab->class_dir, &st) < 0)
		return -errno;
	lab->class_id = st.st_ino;
	lab->class_level = 2;
	return 0;
}

/* A folder below the mount, whose root has files of the kernel's own. */
int lab_open_pins(struct lab *lab)
{
	snprintf(lab->root, sizeof(lab->root), "/tmp/egress-test-%d", (int)getpid());
	snprintf(lab->pins, sizeof(lab->pins), "%s/pins", lab->root);
	if (mkdir(lab->root, 0700) < 0 || mount("bpf", lab->root, "bpf", 0, NULL) < 0)
		return -errno;
	return mkdir(lab->pins, 0700) < 0 ? -errno : 0;
}

static int make_networks(struct lab *lab)
{
	int id = (int)getpid(), r;
	char path[64];

	r = run("set -e; a=egr%d-near b=egr%d-far; ip netns add $a; ip netns add $b;"
		"ip -n $a link add v0 type veth peer name v1 netns $b;"
		"ip -n $a link set lo up; ip -n $b link set lo up;"
		"ip -n $a addr add 10.77.0.1/24 dev v0; ip -n $a link set v0 up;"
		"for i in 2 3 4 5; do ip -n $b addr add 10.77.0.$i/24 dev v1;"
		"ip -n $b addr add 2001:db8:77::$i/64 dev v1 nodad; done;"
		"ip -n $a addr add 2001:db8:77::1/64 dev v0 nodad;"
		"ip -n $b link set v1 up; ip -n $a route add local 198.51.100.0/30 dev lo;"
		"ip -n $b route add 198.51.100.0/24 via 10.77.0.1;"
		"ip -n $a -6 route add local 2001:db8:100::/126 dev lo;"
		"ip -n $b -6 route add 2001:db8:100::/120 via 2001:db8:77::1;"
		"nsenter --net=/run/netns/$a sysctl -qw net.ipv6.ip_nonlocal_bind=1 "
		"net.ipv4.tcp_fin_timeout=" LAB_FIN_TIMEOUT_S " net.ipv4.ping_group_range='0 0'",
		id, id);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "/run/netns/egr%d-near", id);
	lab->near_ns = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/run/netns/egr%d-far", id);
	lab->far_ns = open(path, O_RDONLY | O_CLOEXEC);
	lab->home_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (lab->near_ns < 0 || lab->far_ns < 0 || lab->home_ns < 0)
		return -errno;
	return setns(lab->near_ns, CLONE_NEWNET) < 0 ? -errno : 0;
}

/* What a test left that had our pid and was killed. */
static void clear_leftovers(void)
{
	int id = (int)getpid();

	(void)run(
		"{ ip netns del egr%d-near; ip netns del egr%d-far; umount -l /tmp/egress-test-%d;"
		"rmdir /tmp/egress-test-%d; c=%s/egress-test-%d;"
		"rmdir $c/class $c/plain $c; } 2>/dev/null",
		id, id, id, id, cgroup2_root(), id);
}

int lab_open(struct lab *lab)
{
	int r;

	*lab = (struct lab){.near_ns = -1, .far_ns = -1, .home_ns = -1};
	clear_leftovers();
	r = make_cgroups(lab);
	if (!r)
		r = lab_open_pins(lab);
	return r ? r : make_networks(lab);
}

void lab_close_pins(struct lab *lab)
{
	rmdir(lab->pins);
	umount(lab->root);
	rmdir(lab->root);
}

/* Ends the children that a failed test left, which takes the kernel a moment. */
static void remove_cgroups(const struct lab *lab)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/cgroup.kill", lab->cgroup);
	(void)write_text(path, "1");
	for (int ms = 0; ms < CLOSE_MS; ms++) {
		rmdir(lab->class_dir);
		rmdir(lab->plain_dir);
		if (rmdir(lab->cgroup) == 0)
			return;
		poll(NULL, 0, 1);
	}
}

void lab_close(struct lab *lab)
{
	int id = (int)getpid();

	lab_enter(lab->home_cgroup);
	if (lab->home_ns >= 0)
		(void)setns(lab->home_ns, CLONE_NEWNET);
	ps_fd_drop(&lab->near_ns);
	ps_fd_drop(&lab->far_ns);
	ps_fd_drop(&lab->home_ns);
	(void)run("ip netns del egr%d-near; ip netns del egr%d-far", id, id);
	lab_close_pins(lab);
	remove_cgroups(lab);
}

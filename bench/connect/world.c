// SPDX-License-Identifier: MIT
#include "world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/own.h"
#include "cgroup2.h"

#define BPFFS "/sys/fs/bpf" /* one that only this process sees */

enum { LEVEL = 3, BACKLOG = 65535, CLOSE_MS = 2000, KERNEL_FIRST = 32768 };

static const char *const names[] = {
	[PLACE_PLAIN] = "plain",
	[PLACE_OUTSIDE] = "hooked/outside",
	[PLACE_SMALL] = "hooked/small",
	[PLACE_LARGE] = "hooked/large",
};

static int shell(const char *command)
{
	return system(command) == 0 ? 0 : -EIO;
}

int cgroups_make(struct cgroups *ret)
{
	const char *top = cgroup2_root();

	if (!top)
		return -ENOENT;
	snprintf(ret->root, sizeof(ret->root), "%s/bench-connect-%d", top, (int)getpid());
	snprintf(ret->hooked, sizeof(ret->hooked), "%s/hooked", ret->root);
	if (mkdir(ret->root, 0755) < 0 || mkdir(ret->hooked, 0755) < 0)
		return -errno;
	for (unsigned i = 0; i < N_PLACES; i++) {
		snprintf(ret->places[i], sizeof(ret->places[i]), "%s/%s", ret->root, names[i]);
		if (mkdir(ret->places[i], 0755) < 0)
			return -errno;
	}
	return 0;
}

void cgroups_remove(const struct cgroups *cgroups)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.kill", cgroups->root);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, "1", 1) < 0)
		fprintf(stderr, "bench: %s: %s\n", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	for (int ms = 0; ms < CLOSE_MS; ms++) {
		for (unsigned i = 0; i < N_PLACES; i++)
			rmdir(cgroups->places[i]);
		rmdir(cgroups->hooked);
		if (rmdir(cgroups->root) == 0 || errno == ENOENT)
			return;
		poll(NULL, 0, 1);
	}
	fprintf(stderr, "bench: %s is left behind\n", cgroups->root);
}

static int make_here(const struct world *world)
{
	char command[512];

	snprintf(command, sizeof(command),
		 "set -e; ip link set lo up;"
		 "ip link add c0 address 02:00:00:00:00:01 type veth"
		 " peer name c1 address 02:00:00:00:00:02 netns /proc/%d/fd/%d;"
		 "ip addr add 10.77.0.1/24 dev c0; ip link set c0 up;"
		 "for i in 2 3 4; do ip neigh add 10.77.0.$i lladdr 02:00:00:00:00:02 dev c0; done;"
		 "ip route add local 198.51.100.0/30 dev lo;"
		 "sysctl -qw net.ipv4.ip_local_port_range='%d %d'",
		 (int)getpid(), world->there, KERNEL_FIRST, KERNEL_FIRST + LARGE_PORTS - 1);
	return shell(command);
}

static int make_there(struct world *world)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(SINK_PORT)};
	int r = shell("set -e; ip link set lo up; ip link set c1 up;"
		      "for i in 2 3 4; do ip addr add 10.77.0.$i/24 dev c1; done;"
		      "ip neigh add 10.77.0.1 lladdr 02:00:00:00:00:01 dev c1;"
		      "ip route add 198.51.100.0/24 via 10.77.0.1;"
		      "sysctl -qw net.core.somaxconn=65535 net.ipv4.tcp_max_syn_backlog=65535");

	if (r < 0)
		return r;
	world->sink = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (world->sink < 0 || bind(world->sink, (struct sockaddr *)&any, sizeof(any)) < 0 ||
	    listen(world->sink, BACKLOG) < 0)
		return -errno;
	return 0;
}

static int enter(int ns)
{
	return setns(ns, CLONE_NEWNET) < 0 ? -errno : 0;
}

/* Namespaces that go with the process. */
static int make_networks(struct world *world)
{
	int r;

	if (unshare(CLONE_NEWNS | CLONE_NEWNET) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("bpf", BPFFS, "bpf", 0, NULL) < 0)
		return -errno;
	world->there = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (world->there < 0 || unshare(CLONE_NEWNET) < 0)
		return -errno;
	world->here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (world->here < 0)
		return -errno;
	r = make_here(world);
	if (r >= 0)
		r = enter(world->there);
	if (r >= 0)
		r = make_there(world);
	return r < 0 ? r : enter(world->here);
}

static void list_slices(struct ps_egress_slice slices[1 + LARGE_SLICES])
{
	struct ps_ip small = ps_ip_from_v4(htonl(0xc6336401)); /* 198.51.100.1 */
	struct ps_ip large = ps_ip_add(&small, 1);

	slices[0] = (struct ps_egress_slice){small, {SLICE_PORTS, SLICE_PORTS}, SHIFT};
	for (unsigned i = 1; i <= LARGE_SLICES; i++)
		slices[i] = (struct ps_egress_slice){
			large, {(uint16_t)(i << SHIFT), SLICE_PORTS}, SHIFT};
}

static uint64_t cgroup_id(const char *folder)
{
	struct stat st;

	return stat(folder, &st) < 0 ? 0 : st.st_ino;
}

/* The product's hooks, over its own loader. */
static int hook(const struct cgroups *cgroups, struct world *world)
{
	const struct ps_egress_cgroup folders[] = {
		{cgroup_id(cgroups->places[PLACE_SMALL]), LEVEL, PS_EGRESS_ANY, PS_EGRESS_ANY},
		{cgroup_id(cgroups->places[PLACE_LARGE]), LEVEL, PS_EGRESS_ANY, PS_EGRESS_ANY}};
	const struct ps_egress_match matches[] = {{.class = 0, .cgroup = 0},
						  {.class = 1, .cgroup = 1}};
	const struct ps_choices choices[] = {{.v4 = {0, 1}}, {.v4 = {1, LARGE_SLICES}}};
	const unsigned shift = SHIFT;
	struct ps_egress_options options = {.pin_dir = BPFFS, .cgroup_path = cgroups->hooked};
	struct ps_egress_config config = {
		.slices = world->slices,
		.n_slices = PS_N_ELEMENTS(world->slices),
		.choices = choices,
		.n_choices = PS_N_ELEMENTS(choices),
		.cgroups = folders,
		.n_cgroups = PS_N_ELEMENTS(folders),
		.matches = matches,
		.n_matches = PS_N_ELEMENTS(matches),
		.shared_shift = &shift,
		.n_shared = 1,
	};
	ps_auto_mem char *message = NULL;
	struct ps_prefix shared;
	int r = ps_prefix_parse("198.51.100.0/24", &shared);

	config.shared = &shared;
	if (r >= 0)
		r = ps_egress_load(&config, &options, &world->egress, &message);
	if (r >= 0)
		r = ps_egress_attach(world->egress, &message);
	if (r < 0)
		fprintf(stderr, "bench: hooks: %s\n", message ? message : strerror(-r));
	return r;
}

int world_open(const struct cgroups *cgroups, struct world *ret)
{
	ps_auto(world_close) struct world world = {.here = -1, .there = -1, .sink = -1};
	int r;

	list_slices(world.slices);
	r = make_networks(&world);
	if (r < 0)
		fprintf(stderr, "bench: networks: %s\n", strerror(-r));
	if (r >= 0)
		r = hook(cgroups, &world);
	if (r < 0)
		return r;
	*ret = world;
	world = (struct world){.here = -1, .there = -1, .sink = -1};
	return 0;
}

void world_close(struct world *world)
{
	if (world->egress)
		(void)ps_egress_detach_all(BPFFS);
	ps_egress_free(&world->egress);
	ps_fd_drop(&world->sink);
	ps_fd_drop(&world->there);
	ps_fd_drop(&world->here);
	*world = (struct world){.here = -1, .there = -1, .sink = -1};
}

void world_drain(const struct world *world)
{
	int fd;

	while ((fd = accept4(world->sink, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		close(fd);
}

int world_usage(const struct world *world, uint64_t *ret)
{
	uint64_t each[1 + LARGE_SLICES], sum = 0;
	int r = ps_egress_usage(BPFFS, world->slices, PS_N_ELEMENTS(each), each);

	for (size_t i = 0; r >= 0 && i < PS_N_ELEMENTS(each); i++)
		sum += each[i];
	if (r >= 0)
		*ret = sum;
	return r;
}

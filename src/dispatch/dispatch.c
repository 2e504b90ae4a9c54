// SPDX-License-Identifier: MIT
/*
 * The return path, user half.
 *
 * A generation is one loaded program with its own tables.  load.c makes one from a struct ps_table:
 * map sizes are set before loading, values are written through mmap()ed arrays before anything is
 * attached, so no packet ever meets a half-filled table.  Replacing is always: load the new one,
 * update the link under the interface to the new program, let go of the old one.  In between not
 * one packet passes undispatched, since the kernel swaps the program in one store.
 *
 * What lives where:
 *
 *   C object             struct ps_dispatch         ps_dispatch_load() .. ps_dispatch_free()
 *   link, thus program   PIN_DIR/uplink-IFNAME      ps_dispatch_attach() .. ps_dispatch_detach_all()
 *   counters             PIN_DIR/dispatch-counters  first load .. ps_dispatch_detach_all()
 *
 * Freeing the C object detaches nothing: the pinned links keep program and tables.  Counters are
 * shared by all generations.
 *
 * Live changes (next hops, freshness) are stores into mapped maps, since a map update gives no
 * promise about the order of bytes.  A hop is two words.  Changing the neighbour alone changes word
 * 0 in one store; otherwise word 1, with ifindex 0, says "unresolved" while word 0 changes, and the
 * program looks at word 1 before and after word 0 (steer.h, ps_hop_read).  So a packet leaves with
 * the old hop, the new one, or is dropped as DROP_NO_HOP for the few nanoseconds in between.
 *
 * A peer's mtu is one aligned store.  What routers say about it comes by a ring buffer of the
 * generation; who reads it judges, keeps what it believes, and tells the next generation again.
 *
 * This file must not decide anything about packets: that is decide.h, which trace.c shares.
 *
 * Standards: UDP-in-IP encapsulation as GUE variant 1 (draft-ietf-intarea-gue), RFC 9293 (RST),
 * RFC 792, RFC 1122 and RFC 1191 (ICMP), RFC 5508 and RFC 7596 (ports of ICMP), RFC 6864 (identification).
 */
#include "dispatch/dispatch.h"

#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <linux/if_link.h>

#include "base/own.h"
#include "base/say.h"
#include "dispatch/load.h"
#include "dispatch/name.h"
#include "dispatch/steer.h"

int ps_dispatch_program_fd(const struct ps_dispatch *dispatch)
{
	return bpf_program__fd(dispatch->skel->progs.ps_dispatch);
}

static char *uplink_path(const char *pin_dir, const char *ifname)
{
	char *path = ps_pin_path(pin_dir, PS_PIN_UPLINK, ifname);
	char *dot = path ? path + strlen(pin_dir) : NULL;

	while (dot && (dot = strchr(dot, '.')))
		*dot = ':';
	return path;
}

static int query_mode(unsigned ifindex, enum ps_dispatch_mode *ret)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	int r = bpf_xdp_query((int)ifindex, 0, &query);

	if (r < 0)
		return r;
	*ret = query.attach_mode == XDP_ATTACHED_SKB ? PS_MODE_GENERIC : PS_MODE_NATIVE;
	return 0;
}

/* Puts the program under the pinned link.  1: done; 0: no such link, or its interface is gone. */
static int replace(int prog_fd, unsigned ifindex, const char *path)
{
	ps_auto_fd int link_fd = bpf_obj_get(path);
	struct bpf_link_info info = {0};
	__u32 len = sizeof(info);
	int r;

	if (link_fd < 0)
		return link_fd == -ENOENT ? 0 : link_fd;
	r = bpf_obj_get_info_by_fd(link_fd, &info, &len);
	if (r < 0)
		return r;
	if (info.type == BPF_LINK_TYPE_XDP && info.xdp.ifindex == ifindex) {
		r = bpf_link_update(link_fd, prog_fd, NULL);
		return r < 0 ? r : 1;
	}
	return unlink(path) < 0 ? -errno : 0;
}

/* -EBUSY when a program is on the interface already. */
static int refuse_foreign(unsigned ifindex, const char *ifname, char **ret_message)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	int r = bpf_xdp_query((int)ifindex, 0, &query);
	char name[BPF_OBJ_NAME_LEN] = "";
	__u32 id = query.prog_id;

	if (r < 0)
		return ps_say(ret_message, r, "asking for XDP programs on %s: %s", ifname,
			      strerror(-r));
	if (!id) /* in several modes at once the kernel gives only the ids of each */
		id = query.drv_prog_id ? query.drv_prog_id : query.skb_prog_id;
	if (!id)
		return 0;
	(void)ps_program_name(id, name); /* its id must do then */
	return ps_say(ret_message, -EBUSY,
		      "XDP program '%s' (id %u) is already attached to %s: detach it first, "
		      "e.g. ip link set dev %s xdp off",
		      name, id, ifname, ifname);
}

/* Is the pinned link ours, on this very interface? */
static bool is_ours(const char *path, unsigned ifindex)
{
	ps_auto_fd int fd = bpf_obj_get(path);
	struct bpf_link_info info = {0};
	__u32 len = sizeof(info);

	return fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0 &&
	       info.type == BPF_LINK_TYPE_XDP && info.xdp.ifindex == ifindex;
}

int ps_dispatch_may_attach(const char *pin_dir, const char *ifname, char **ret_message)
{
	ps_auto_mem char *path = uplink_path(pin_dir, ifname);
	unsigned ifindex = if_nametoindex(ifname);

	if (!path)
		return -ENOMEM;
	if (!ifindex)
		return ps_say(ret_message, -ENODEV, "no interface %s on this host", ifname);
	return is_ours(path, ifindex) ? 0 : refuse_foreign(ifindex, ifname, ret_message);
}

bool ps_dispatch_stands(const struct ps_dispatch *dispatch, const char *ifname)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	struct bpf_prog_info info = {0};
	__u32 len = sizeof(info);
	unsigned ifindex = if_nametoindex(ifname);

	return ifindex && bpf_xdp_query((int)ifindex, 0, &query) == 0 &&
	       bpf_obj_get_info_by_fd(ps_dispatch_program_fd(dispatch), &info, &len) == 0 &&
	       query.prog_id == info.id && ps_split_stands(dispatch, ifindex);
}

/* A link in native mode, or in generic mode where the driver has no XDP. */
static int create_link(int prog_fd, unsigned ifindex)
{
	LIBBPF_OPTS(bpf_link_create_opts, native, .flags = XDP_FLAGS_DRV_MODE);
	LIBBPF_OPTS(bpf_link_create_opts, generic, .flags = XDP_FLAGS_SKB_MODE);
	int fd = bpf_link_create(prog_fd, (int)ifindex, BPF_XDP, &native);

	if (fd >= 0 || fd == -EPERM || fd == -EBUSY || fd == -ENODEV)
		return fd;
	return bpf_link_create(prog_fd, (int)ifindex, BPF_XDP, &generic);
}

static int attach_anew(int prog_fd, unsigned ifindex, const char *ifname, const char *path,
		       char **ret_message)
{
	ps_auto_fd int link_fd = -1;
	int r = refuse_foreign(ifindex, ifname, ret_message);

	if (r < 0)
		return r;
	link_fd = create_link(prog_fd, ifindex);
	if (link_fd < 0)
		return ps_say(ret_message, link_fd, "cannot attach the dispatcher to %s: %s",
			      ifname, strerror(-link_fd));
	r = bpf_obj_pin(link_fd, path);
	if (r < 0)
		return ps_say(ret_message, r, "cannot pin %s: %s", path, strerror(-r));
	return 0;
}

int ps_dispatch_attach(struct ps_dispatch *dispatch, const char *ifname, enum ps_dispatch_mode *ret,
		       char **ret_message)
{
	ps_auto_mem char *path = uplink_path(dispatch->pin_dir, ifname);
	int prog_fd = ps_dispatch_program_fd(dispatch), r;
	unsigned ifindex = if_nametoindex(ifname);

	if (ret_message)
		*ret_message = NULL;
	if (!path)
		return -ENOMEM;
	if (!ifindex)
		return ps_say(ret_message, -ENODEV, "no interface %s on this host", ifname);
	r = ps_split_attach(dispatch, ifindex); /* before packets that need it */
	if (r < 0)
		return ps_say(ret_message, r, "cannot attach to tc ingress of %s: %s", ifname,
			      strerror(-r));
	r = replace(prog_fd, ifindex, path);
	if (r < 0)
		return ps_say(ret_message, r, "cannot replace the dispatcher on %s (%s): %s",
			      ifname, path, strerror(-r));
	if (r == 0) {
		r = attach_anew(prog_fd, ifindex, ifname, path, ret_message);
		if (r < 0) {
			(void)ps_split_detach(ifindex);
			return r;
		}
	}
	return query_mode(ifindex, ret);
}

static int detach(const char *path)
{
	ps_auto_fd int fd = bpf_obj_get(path);
	struct bpf_link_info info = {0};
	__u32 len = sizeof(info);
	int r, split = 0;

	if (fd < 0)
		return fd;
	if (bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.xdp.ifindex)
		split = ps_split_detach(info.xdp.ifindex);
	/* At once, whoever else holds the link; one whose interface is gone has nothing to detach. */
	r = bpf_link_detach(fd);
	if (unlink(path) < 0)
		return -errno;
	return r == -EINVAL || r == 0 ? split : r;
}

static bool is_kept(const char *pin_dir, const char *path, const char *const *ifnames, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		ps_auto_mem char *kept = uplink_path(pin_dir, ifnames[i]);

		if (kept && strcmp(kept, path) == 0)
			return true;
	}
	return false;
}

int ps_dispatch_keep_only(const char *pin_dir, const char *const *ifnames, size_t n)
{
	DIR *dir = opendir(pin_dir);
	struct dirent *entry;
	int r, error = 0;

	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	while ((entry = readdir(dir))) {
		ps_auto_mem char *path = ps_pin_path(pin_dir, "", entry->d_name);

		if (strncmp(entry->d_name, PS_PIN_UPLINK, strlen(PS_PIN_UPLINK)) != 0 ||
		    (path && is_kept(pin_dir, path, ifnames, n)))
			continue;
		r = path ? detach(path) : -ENOMEM;
		error = error ? error : r;
	}
	closedir(dir);
	return error;
}

int ps_dispatch_detach_all(const char *pin_dir)
{
	ps_auto_mem char *counters = ps_pin_path(pin_dir, "", PS_PIN_COUNTERS);
	int error = ps_dispatch_keep_only(pin_dir, NULL, 0);

	if (!counters)
		return -ENOMEM;
	if (unlink(counters) < 0 && errno != ENOENT && !error)
		error = -errno;
	return error;
}

/* See the essay: never half a MAC, whatever the program reads meanwhile. */
static void publish(struct ps_hop *at, const struct ps_hop *hop)
{
	ps_word *word = (void *)at, next[2], blank[2];
	struct ps_hop unresolved = *hop;

	unresolved.ifindex = 0;
	memcpy(next, hop, sizeof(next));
	memcpy(blank, &unresolved, sizeof(blank));
	if (__atomic_load_n(&word[1], __ATOMIC_SEQ_CST) != next[1])
		__atomic_store_n(&word[1], blank[1], __ATOMIC_SEQ_CST);
	__atomic_store_n(&word[0], next[0], __ATOMIC_SEQ_CST);
	__atomic_store_n(&word[1], next[1], __ATOMIC_SEQ_CST);
}

int ps_dispatch_set_hop(struct ps_dispatch *dispatch, unsigned host, const struct ps_hop *hop)
{
	struct ps_peer *peers = dispatch->skel->bss->peers;

	if (host >= dispatch->n_hosts)
		return -ERANGE;
	for (size_t i = PS_GROUP_SIZE; i < dispatch->n_peers; i++)
		if (peers[i].is_used && peers[i].host == host)
			publish(&peers[i].hop, hop);
	return 0;
}

int ps_dispatch_set_edge_hop(struct ps_dispatch *dispatch, unsigned site, const struct ps_hop *hop)
{
	if (site >= PS_SITES_MAX)
		return -ERANGE;
	publish(&dispatch->skel->bss->peers[site].hop, hop);
	return 0;
}

int ps_dispatch_set_gateway(struct ps_dispatch *dispatch, const struct ps_hop *hop)
{
	struct ps_dispatch_config *config = &dispatch->skel->bss->config;

	publish(&config->gateway, hop);
	return 0;
}

int ps_dispatch_set_gateway6(struct ps_dispatch *dispatch, const struct ps_hop *hop)
{
	struct ps_dispatch_config *config = &dispatch->skel->bss->config;

	publish(&config->gateway6, hop);
	return 0;
}

int ps_dispatch_set_fresh(struct ps_dispatch *dispatch, uint64_t until_ns)
{
	struct ps_dispatch_config *config = &dispatch->skel->bss->config;

	__atomic_store_n(&config->fresh_until_ns, (__u64)until_ns, __ATOMIC_SEQ_CST);
	return 0;
}

int ps_dispatch_set_mtu(struct ps_dispatch *dispatch, const struct ps_ip *dst, unsigned mtu)
{
	unsigned least = ps_ip_is_v4(dst) ? PS_MTU_MIN : PS_MTU_MIN_V6, n_set = 0;
	struct ps_peer6 *peers6 = dispatch->skel->bss->peers6;
	struct ps_peer *peers = dispatch->skel->bss->peers;

	if (mtu && (mtu < least || mtu > dispatch->mtu))
		return -ERANGE;
	for (size_t i = 0; i < dispatch->n_peers; i++) {
		if (!peers[i].is_used || peers[i].kind == PS_PEER_SELF ||
		    memcmp(peers6[i].dst, dst->bytes, sizeof(dst->bytes)) != 0)
			continue;
		__atomic_store_n(peers[i].kind == PS_PEER_V6 ? &peers6[i].room : &peers[i].room,
				 ps_peer_room(peers[i].kind, mtu ? mtu : dispatch->mtu),
				 __ATOMIC_RELAXED);
		n_set++;
	}
	return n_set ? 0 : -ENOENT;
}

int ps_dispatch_hints_fd(const struct ps_dispatch *dispatch)
{
	return ring_buffer__epoll_fd(dispatch->hints);
}

int ps_dispatch_hints_read(struct ps_dispatch *dispatch, ps_dispatch_hint_fn *fn, void *arg)
{
	dispatch->take_hint = fn;
	dispatch->take_arg = arg;
	return ring_buffer__consume(dispatch->hints);
}

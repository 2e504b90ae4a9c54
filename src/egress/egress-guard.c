// SPDX-License-Identifier: MIT
#include <bpf/bpf.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/own.h"
#include "base/say.h"
#include "egress/inside.h"

/* Ours among the filters of an interface.  Priority 1: a filter before us could end the chain. */
enum { GUARD_HANDLE = 0x5053, GUARD_PRIORITY = 1 };

/* Does every packet of this interface begin with an Ethernet header? */
static int has_ethernet(unsigned ifindex, bool *ret)
{
	ps_auto_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = {0};

	if (fd < 0)
		return -errno;
	if (!if_indextoname(ifindex, ifr.ifr_name) || ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
		return -errno;
	*ret = ifr.ifr_hwaddr.sa_family == ARPHRD_ETHER ||
	       ifr.ifr_hwaddr.sa_family == ARPHRD_LOOPBACK;
	return 0;
}

static struct bpf_program *guard_program(const struct ps_egress *egress,
					 enum bpf_tc_attach_point point, bool ethernet)
{
	if (point == BPF_TC_EGRESS)
		return ethernet ? egress->guard->progs.ps_guard_out
				: egress->guard->progs.ps_guard_out_ip;
	return ethernet ? egress->guard->progs.ps_guard_in : egress->guard->progs.ps_guard_in_ip;
}

static int attach_filter(struct bpf_program *program, unsigned ifindex,
			 enum bpf_tc_attach_point point)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = GUARD_HANDLE, .priority = GUARD_PRIORITY,
		    .prog_fd = bpf_program__fd(program), .flags = BPF_TC_F_REPLACE);

	return bpf_tc_attach(&hook, &opts);
}

static int detach_filter(unsigned ifindex, enum bpf_tc_attach_point point)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = GUARD_HANDLE, .priority = GUARD_PRIORITY);
	int r = bpf_tc_detach(&hook, &opts);

	/* EINVAL: there is no clsact qdisc. */
	return r == -ENOENT || r == -EINVAL ? 0 : r;
}

/* The id of the program that stands at our place; 0: nothing does. */
static uint32_t filter_program_id(unsigned ifindex, enum bpf_tc_attach_point point)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = point);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = GUARD_HANDLE, .priority = GUARD_PRIORITY);

	return bpf_tc_query(&hook, &opts) < 0 ? 0 : opts.prog_id;
}

static bool has_filter(const struct bpf_program *program, unsigned ifindex,
		       enum bpf_tc_attach_point point)
{
	struct bpf_prog_info info = {0};
	uint32_t len = sizeof(info);

	return bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &len) == 0 &&
	       filter_program_id(ifindex, point) == info.id;
}

static int make_qdisc(unsigned ifindex, bool *ret_made)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex,
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	int r = bpf_tc_hook_create(&hook);

	*ret_made = r == 0;
	return r == -EEXIST ? 0 : r;
}

static int set_guard(struct ps_egress *egress, unsigned ifindex, bool uplink, bool *ret_made)
{
	bool ethernet;
	int r = has_ethernet(ifindex, &ethernet);

	if (!r)
		r = make_qdisc(ifindex, ret_made);
	if (!r)
		r = attach_filter(guard_program(egress, BPF_TC_EGRESS, ethernet), ifindex,
				  BPF_TC_EGRESS);
	if (r < 0)
		return r;
	if (uplink)
		return detach_filter(ifindex, BPF_TC_INGRESS);
	return attach_filter(guard_program(egress, BPF_TC_INGRESS, ethernet), ifindex,
			     BPF_TC_INGRESS);
}

int ps_egress_guard(struct ps_egress *egress, unsigned ifindex, bool uplink, bool *ret_qdisc_made,
		    char **ret_message)
{
	libbpf_print_fn_t print;
	bool made = false;
	int r;

	*ret_message = NULL;
	*ret_qdisc_made = false;
	print = libbpf_set_print(ps_egress_mute); /* it tells every qdisc that is there already */
	r = set_guard(egress, ifindex, uplink, &made);
	libbpf_set_print(print);
	*ret_qdisc_made = made;
	if (r < 0)
		return ps_say(ret_message, r, "guard at interface %u: %s", ifindex, strerror(-r));
	return 0;
}

bool ps_egress_guard_stands(struct ps_egress *egress, unsigned ifindex, bool uplink)
{
	libbpf_print_fn_t print;
	bool ethernet, stands;

	if (has_ethernet(ifindex, &ethernet) < 0)
		return false;
	print = libbpf_set_print(ps_egress_mute);
	stands = has_filter(guard_program(egress, BPF_TC_EGRESS, ethernet), ifindex,
			    BPF_TC_EGRESS) &&
		 (uplink || has_filter(guard_program(egress, BPF_TC_INGRESS, ethernet), ifindex,
				       BPF_TC_INGRESS));
	libbpf_set_print(print);
	return stands;
}

/* A qdisc that we made may carry the filters of others by now, and would take them along. */
static int remove_empty_qdisc(unsigned ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex,
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	unsigned n = 0;
	int r = ps_egress_count_filters(ifindex, &n);

	if (r < 0 || n || !ps_egress_has_qdisc(ifindex))
		return r;
	return bpf_tc_hook_destroy(&hook);
}

int ps_egress_unguard(unsigned ifindex, bool remove_qdisc)
{
	libbpf_print_fn_t print = libbpf_set_print(ps_egress_mute);
	int r = detach_filter(ifindex, BPF_TC_EGRESS);

	if (!r)
		r = detach_filter(ifindex, BPF_TC_INGRESS);
	if (!r && remove_qdisc)
		r = remove_empty_qdisc(ifindex);
	libbpf_set_print(print);
	return r;
}

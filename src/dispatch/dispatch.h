/* SPDX-License-Identifier: MIT */
/*
 * The return path, user half.  table.h builds what the kernel reads from plain arguments;
 * dispatch.c loads a generation of program and tables, swaps it under the running link, and reads
 * counters.  The essay is in dispatch.c.
 */
#ifndef PS_DISPATCH_DISPATCH_H
#define PS_DISPATCH_DISPATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ip.h"
#include "dispatch/abi.h"
#include "dispatch/table.h"

struct ps_dispatch;

struct ps_dispatch_options {
	const char *pin_dir; /* below a bpffs, exists; links, counters are pinned here */
	/* Maps of ports in use (egress/page.h), borrowed; -1: none. */
	int pages_fd, wide_pages_fd;
	bool observe; /* count, but pass every packet */
};

/* Loads one generation: program and tables, not attached.  table and options are copied from.
 * Kernel complaints come with the tail of the verifier's log in *ret_message (caller frees; set
 * only on failure, may then be NULL; pass NULL if not wanted).  Next hops, freshness
 * and reject rate are those in table (unresolved, not fresh, preset) until set below.
 * -EPERM: privileges are missing; -EINVAL: a map of ports in use is none. */
int ps_dispatch_load(const struct ps_table *table, const struct ps_dispatch_options *options,
		     struct ps_dispatch **ret, char **ret_message);
/* Closes the C object.  Pinned links and counters live on, and keep the program running. */
void ps_dispatch_free(struct ps_dispatch **dispatch);

/* How the kernel runs the program on an interface. */
enum ps_dispatch_mode { PS_MODE_NATIVE, PS_MODE_GENERIC };

/* The loaded program, for BPF_PROG_TEST_RUN; borrowed. */
int ps_dispatch_program_fd(const struct ps_dispatch *dispatch);

/* Attaches to the interface, or replaces our own program there without a gap; pins the link as
 * PIN_DIR/uplink-IFNAME (with ':' for '.', which bpffs refuses and interface names cannot have).
 * Tries native mode first.  The program that splits packets goes to tc ingress, on a clsact qdisc that
 * is made where there is none, and which detaching leaves.  -EBUSY: a program that is not ours is there; *ret_message names it.
 * -ENODEV: no such interface. */
int ps_dispatch_attach(struct ps_dispatch *dispatch, const char *ifname, enum ps_dispatch_mode *ret,
		       char **ret_message);
/* Would attaching be refused for another's program?  0: it would not.  -EBUSY as above. */
int ps_dispatch_may_attach(const char *pin_dir, const char *ifname, char **ret_message);
/* True when this generation's programs run on the interface. */
bool ps_dispatch_stands(const struct ps_dispatch *dispatch, const char *ifname);
/* Takes our program off every interface that is not among the n named, such as an uplink that a
 * plan no longer has. */
int ps_dispatch_keep_only(const char *pin_dir, const char *const *ifnames, size_t n);
/* Needs no ps_dispatch: detaches and unpins all of our links under pin_dir, and unpins the counters.
 * 0 when there is nothing; the first error, after trying all. */
int ps_dispatch_detach_all(const char *pin_dir);

/* Takes the program that splits packets off the interface's tc ingress; 0 also when there is none.
 * Part of the calls above; for whoever removes the qdisc under it. */
int ps_split_detach(unsigned ifindex);

/* Live changes, each a few aligned stores into mapped memory: no packet ever leaves with a
 * half-written address (steer.h, ps_hop_read).  One writer at a time.  -ERANGE: no such element. */
int ps_dispatch_set_hop(struct ps_dispatch *dispatch, unsigned host, const struct ps_hop *hop);
int ps_dispatch_set_edge_hop(struct ps_dispatch *dispatch, unsigned site, const struct ps_hop *hop);
/* By the default routes of IPv4 and IPv6. */
int ps_dispatch_set_gateway(struct ps_dispatch *dispatch, const struct ps_hop *hop);
int ps_dispatch_set_gateway6(struct ps_dispatch *dispatch, const struct ps_hop *hop);
/* CLOCK_BOOTTIME until which the table counts as fresh; 0: not. */
int ps_dispatch_set_fresh(struct ps_dispatch *dispatch, uint64_t until_ns);

/* Largest outer packet to the peers (hosts or edges) at this underlay address, bytes; 0: what the
 * table said at loading.  -ENOENT: no such peer; -ERANGE: below PS_MTU_MIN
 * (or its like) or above the table's. */
int ps_dispatch_set_mtu(struct ps_dispatch *dispatch, const struct ps_ip *dst, unsigned mtu);

/* What routers say about packets that this host encapsulated: forgeries are possible, so believe
 * only for a while and for peers that exist.  The descriptor is readable when some wait; borrowed. */
typedef void ps_dispatch_hint_fn(const struct ps_ip *dst, unsigned mtu, void *arg);
int ps_dispatch_hints_fd(const struct ps_dispatch *dispatch);
/* Calls fn for each and forgets them; how many. */
int ps_dispatch_hints_read(struct ps_dispatch *dispatch, ps_dispatch_hint_fn *fn, void *arg);

/* Sum over all CPUs and generations, by enum ps_dispatch_reason.  Reads the pinned map, so it works
 * without the daemon.  -ENOENT: no dispatcher was ever loaded under pin_dir. */
int ps_dispatch_counters(const char *pin_dir, uint64_t ret[PS_REASON_MAX]);
const char *ps_dispatch_reason_label(enum ps_dispatch_reason reason);
const char *ps_dispatch_reason_text(enum ps_dispatch_reason reason);

#endif

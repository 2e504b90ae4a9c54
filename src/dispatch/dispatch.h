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

#include "dispatch/abi.h"
#include "dispatch/table.h"

struct ps_dispatch;

struct ps_dispatch_options {
	const char *pin_dir; /* below a bpffs, exists; links, counters are pinned here */
	int claims_fd;       /* map of ports in use (egress/abi.h), -1: none */
	bool observe;        /* count, but pass every packet */
};

/* Loads one generation: program and tables, not attached.  table and options are copied from.
 * Kernel complaints come with the tail of the verifier's log in *ret_message (caller frees). */
int ps_dispatch_load(const struct ps_table *table, const struct ps_dispatch_options *options,
		     struct ps_dispatch **ret, char **ret_message);
/* Closes the C object.  Pinned links and counters live on, and keep the program running. */
void ps_dispatch_free(struct ps_dispatch **dispatch);

/* How the kernel runs the program on an interface. */
enum ps_dispatch_mode { PS_MODE_NATIVE, PS_MODE_GENERIC };

/* Attaches to the interface, or replaces our own program there without a gap; pins the link as
 * PIN_DIR/uplink-IFNAME.  -EBUSY: a program that is not ours is there; *ret_message names it. */
int ps_dispatch_attach(struct ps_dispatch *dispatch, const char *ifname, enum ps_dispatch_mode *ret,
		       char **ret_message);
/* Needs no ps_dispatch: unpins all of our links under pin_dir, so that the programs leave. */
int ps_dispatch_detach_all(const char *pin_dir);

/* Live changes; each is one aligned store or one map update. */
int ps_dispatch_set_hop(struct ps_dispatch *dispatch, unsigned host, const struct ps_hop *hop);
int ps_dispatch_set_edge_hop(struct ps_dispatch *dispatch, unsigned site, const struct ps_hop *hop);
int ps_dispatch_set_gateway(struct ps_dispatch *dispatch, const struct ps_hop *hop);
/* CLOCK_BOOTTIME until which the table counts as fresh; 0: not. */
int ps_dispatch_set_fresh(struct ps_dispatch *dispatch, uint64_t until_ns);

/* Sum over all CPUs and generations, by enum ps_dispatch_reason.  Reads the pinned map, so it works
 * without the daemon.  -ENOENT: no dispatcher was ever loaded under pin_dir. */
int ps_dispatch_counters(const char *pin_dir, uint64_t ret[PS_REASON_MAX]);
const char *ps_dispatch_reason_label(enum ps_dispatch_reason reason);
const char *ps_dispatch_reason_text(enum ps_dispatch_reason reason);

#endif

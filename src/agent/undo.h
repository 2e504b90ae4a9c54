/* SPDX-License-Identifier: MIT */
/*
 * What the agent changed on this host and what was there before: a journal on disk, written before
 * each change, so that `portslice detach` can restore the host without the daemon, after a kill -9
 * at any moment.  Lives in /run, as the things it describes do not survive a reboot either.
 */
#ifndef PS_AGENT_UNDO_H
#define PS_AGENT_UNDO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/net.h"

struct ps_undo;

/* path need not exist yet.  -EBADMSG: not a journal. */
int ps_undo_open(const char *path, struct ps_undo **ret);
void ps_undo_free(struct ps_undo **undo);

/* Sets /proc/sys/NAME to value; the first value met is remembered.  1: it was another; 0: it was so
 * already. */
int ps_undo_sysctl(struct ps_undo *undo, const char *name, const char *value);
/* Makes the set of our local routes exactly addresses[0..n), adding what is missing in the kernel
 * too.  The order of addresses does not matter.  Gives the number that was missing. */
int ps_undo_routes(struct ps_undo *undo, struct ps_net *net, const struct ps_ip *addresses,
		   size_t n);
/* To be called before a guard is put on the interface: remembers it, and whether its qdisc will be
 * ours (there is none yet). */
int ps_undo_guard(struct ps_undo *undo, const char *ifname, bool qdisc_made);
/* Creates the folder (parents too); remembered if it was not there. */
int ps_undo_mkdir(struct ps_undo *undo, const char *path);

/* Removes our guard from an interface; the qdisc too when it is ours. */
typedef int ps_undo_unguard_fn(unsigned ifindex, bool remove_qdisc);
/* Restores everything and begins a new journal.  Goes on after a failure; returns the first, and
 * then keeps the journal, so that it can be tried again. */
int ps_undo_all(struct ps_undo *undo, struct ps_net *net, ps_undo_unguard_fn *unguard);

#endif

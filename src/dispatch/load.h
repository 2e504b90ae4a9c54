/* SPDX-License-Identifier: MIT */
/* Shared by the loader's files only. */
#ifndef PS_DISPATCH_LOAD_H
#define PS_DISPATCH_LOAD_H

#include "dispatch/dispatch.h"
#include "dispatch/skel.h"

struct ps_dispatch {
	struct ps_dispatch_bpf *skel; /* skel->bss is written while the program runs */
	char *pin_dir;
	size_t n_hosts, n_peers;
	unsigned mtu; /* of the table */
	struct ring_buffer *hints;
	ps_dispatch_hint_fn *take_hint; /* while they are read */
	void *take_arg;
};

/* PIN_DIR/PREFIXname; NULL without memory. */
char *ps_pin_path(const char *pin_dir, const char *prefix, const char *name);
#define PS_PIN_UPLINK "uplink-"
#define PS_PIN_COUNTERS "dispatch-counters"

/* Puts the generation's tc program at the interface's ingress, or in place of an older one's. */
int ps_split_attach(const struct ps_dispatch *dispatch, unsigned ifindex);
bool ps_split_stands(const struct ps_dispatch *dispatch, unsigned ifindex);

#endif

/* SPDX-License-Identifier: MIT */
/* What the files of the egress loader share with each other, and with the packet tests. */
#ifndef PS_EGRESS_INSIDE_H
#define PS_EGRESS_INSIDE_H

#include <stdarg.h>

#include "egress/class-sets.h"
#include "egress/egress.h"
#include "egress/skel.h"

enum { PS_EGRESS_LOG_LEN = 1 << 20 };

/* Pins: the record of ports in use, whose maps only make sense together, and the others.  Versions
 * before the ledger had "claims". */
#define PS_EGRESS_RECORD_NAMES                                                                     \
	"pages", "wide-pages", "drafts", "quarantine", "turnover", "uses", "suspects", "accusing", \
		"sockets", "replies", "pings", "claims"
#define PS_EGRESS_OTHER_NAMES "egress-counters", "events"

struct ps_egress {
	struct ps_egress_hooks *hooks;
	struct ps_egress_guard *guard;
	struct ps_class_sets *sets; /* while loading */
	struct ring_buffer *ring;
	ps_egress_event_fn *event_fn; /* while ps_egress_events_read() runs */
	void *event_arg;
	char *pin_dir, *cgroup_path;
	bool attached;
	bool takes_over; /* old pins wait (egress-aside.c), and the hooks are not ours yet */
	char *log;       /* the verifier's, while loading; PS_EGRESS_LOG_LEN bytes */
};

/* For libbpf_set_print(): a library does not write to stderr. */
int ps_egress_mute(enum libbpf_print_level level, const char *format, va_list args);
/* "DIR/NAME", owned by the caller; NULL when memory is short. */
char *ps_egress_pin_path(const char *pin_dir, const char *name);
/* A file descriptor of the map pinned there, or -errno; -ESTALE: its layout is another version's, and
 * the kernel would write past our buffers. */
int ps_egress_open_pinned(const char *pin_dir, const char *name, size_t key_size,
			  size_t value_size);
/* *ret: filters of anyone on the clsact qdisc of the interface, both directions together; 0 as well
 * where there is no such qdisc.  -errno of the kernel. */
int ps_egress_count_filters(unsigned ifindex, unsigned *ret);
/* Sizes the config maps; both objects are open, not loaded. */
int ps_egress_size_maps(struct ps_egress *egress, const struct ps_egress_config *config);
/* Fills the config maps of a loaded generation. */
int ps_egress_fill_maps(struct ps_egress *egress, const struct ps_egress_config *config);
/* Sets aside the pinned map of another layout, and with one of the record all of them. */
int ps_egress_aside_move(const char *pin_dir, const char *name);
/* True when pins are set aside. */
bool ps_egress_aside_waits(const char *pin_dir);
/* Takes the sockets of the old record into ours; may be done again. */
int ps_egress_aside_seed(struct ps_egress *egress);
/* Unpins what was set aside, or puts it back in place of ours. */
int ps_egress_aside_end(const char *pin_dir, bool put_back);
/* Sets what the hooks know of the classes when they are loaded; egress->sets is there. */
void ps_egress_set_classes(struct ps_egress *egress, const struct ps_egress_config *config);
int ps_egress_fill_classes(struct ps_egress *egress, const struct ps_egress_config *config);
int ps_egress_check_classes(const struct ps_egress_config *config, char **ret_message);
/* Runs a program of type syscall; what it returned, or -errno. */
int ps_egress_run(const struct bpf_program *program, void *order, size_t size);
/* Runs an iterator program, which prints nothing, over every socket (info NULL), or every socket that
 * has an element in a map.  1: after a million the kernel drew breath, and some may have been missed. */
int ps_egress_walk(const struct bpf_program *program, union bpf_iter_link_info *info);
/* Refuses what the programs cannot serve. */
int ps_egress_check(const struct ps_egress_config *config, char **ret_message);

#endif

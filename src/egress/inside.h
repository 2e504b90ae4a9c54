/* SPDX-License-Identifier: MIT */
/* What the files of the egress loader share with each other, and with the packet tests. */
#ifndef PS_EGRESS_INSIDE_H
#define PS_EGRESS_INSIDE_H

#include <stdarg.h>

#include "egress/class-sets.h"
#include "egress/egress.h"
#include "egress/skel.h"

enum { PS_EGRESS_LOG_LEN = 1 << 20 };

struct ps_egress {
	struct ps_egress_hooks *hooks;
	struct ps_egress_guard *guard;
	struct ps_class_sets *sets; /* while loading */
	struct ring_buffer *ring;
	ps_egress_event_fn *event_fn; /* while ps_egress_events_read() runs */
	void *event_arg;
	char *pin_dir, *cgroup_path;
	char *log; /* the verifier's, while loading; PS_EGRESS_LOG_LEN bytes */
};

/* For libbpf_set_print(): a library does not write to stderr. */
int ps_egress_mute(enum libbpf_print_level level, const char *format, va_list args);
/* "DIR/NAME", owned by the caller; NULL when memory is short. */
char *ps_egress_pin_path(const char *pin_dir, const char *name);
/* A file descriptor of the object pinned there, or -errno. */
int ps_egress_open_pinned(const char *pin_dir, const char *name);
/* *ret: filters of anyone on the clsact qdisc of the interface, both directions together; 0 as well
 * where there is no such qdisc.  -errno of the kernel. */
int ps_egress_count_filters(unsigned ifindex, unsigned *ret);
/* Sizes the config maps; both objects are open, not loaded. */
int ps_egress_size_maps(struct ps_egress *egress, const struct ps_egress_config *config);
/* Fills the config maps of a loaded generation. */
int ps_egress_fill_maps(struct ps_egress *egress, const struct ps_egress_config *config);
/* Sets what the hooks know of the classes when they are loaded; egress->sets is there. */
void ps_egress_set_classes(struct ps_egress *egress, const struct ps_egress_config *config);
int ps_egress_fill_classes(struct ps_egress *egress, const struct ps_egress_config *config);
int ps_egress_check_classes(const struct ps_egress_config *config, char **ret_message);
/* Refuses what the programs cannot serve. */
int ps_egress_check(const struct ps_egress_config *config, char **ret_message);

#endif

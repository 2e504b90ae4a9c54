// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>

#include "base/own.h"
#include "egress/inside.h"

int ps_egress_pages_fd(const struct ps_egress *egress)
{
	return bpf_map__fd(egress->hooks->maps.pages);
}

int ps_egress_wide_pages_fd(const struct ps_egress *egress)
{
	return bpf_map__fd(egress->hooks->maps.wide_pages);
}

int ps_egress_events_fd(const struct ps_egress *egress)
{
	return ring_buffer__epoll_fd(egress->ring);
}

int ps_egress_events_read(struct ps_egress *egress, ps_egress_event_fn *fn, void *arg)
{
	int r;

	egress->event_fn = fn;
	egress->event_arg = arg;
	r = ring_buffer__consume(egress->ring);
	egress->event_fn = NULL;
	egress->event_arg = NULL;
	return r;
}

#define REASON_LABEL(name, label, text) label,
static const char *const labels[PS_EGRESS_MAX] = {PS_EGRESS_REASONS(REASON_LABEL)};
#undef REASON_LABEL
#define REASON_TEXT(name, label, text) text,
static const char *const texts[PS_EGRESS_MAX] = {PS_EGRESS_REASONS(REASON_TEXT)};
#undef REASON_TEXT

const char *ps_egress_reason_label(enum ps_egress_reason reason)
{
	return (unsigned)reason < PS_EGRESS_MAX ? labels[reason] : "unknown";
}

const char *ps_egress_reason_text(enum ps_egress_reason reason)
{
	return (unsigned)reason < PS_EGRESS_MAX ? texts[reason] : "unknown reason";
}

int ps_egress_counters(const char *pin_dir, uint64_t ret[PS_EGRESS_MAX])
{
	ps_auto_fd int fd = ps_egress_open_pinned(pin_dir, "egress-counters", sizeof(uint32_t),
						  sizeof(uint64_t));
	int n_cpus = libbpf_num_possible_cpus();
	ps_auto_mem uint64_t *values = n_cpus < 0 ? NULL : calloc((size_t)n_cpus, sizeof(*values));
	uint64_t sums[PS_EGRESS_MAX] = {0};

	if (fd < 0)
		return fd;
	if (!values)
		return n_cpus < 0 ? n_cpus : -ENOMEM;
	for (uint32_t reason = 0; reason < PS_EGRESS_MAX; reason++) {
		if (bpf_map_lookup_elem(fd, &reason, values) < 0)
			return -errno;
		for (int i = 0; i < n_cpus; i++)
			sums[reason] += values[i];
	}
	for (unsigned reason = 0; reason < PS_EGRESS_MAX; reason++)
		ret[reason] = sums[reason];
	return 0;
}

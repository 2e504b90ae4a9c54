// SPDX-License-Identifier: MIT
#include <errno.h>

#include <bpf/bpf.h>

#include "base/own.h"
#include "dispatch/load.h"

#define LABEL(name, label, text) [PS_REASON_##name] = label,
#define TEXT(name, label, text) [PS_REASON_##name] = text,

static const char *const labels[] = {PS_DISPATCH_REASONS(LABEL)};
static const char *const texts[] = {PS_DISPATCH_REASONS(TEXT)};

const char *ps_dispatch_reason_label(enum ps_dispatch_reason reason)
{
	return (size_t)reason < PS_REASON_MAX ? labels[reason] : "unknown";
}

const char *ps_dispatch_reason_text(enum ps_dispatch_reason reason)
{
	return (size_t)reason < PS_REASON_MAX ? texts[reason] : "reason of another version";
}

static uint64_t sum_of(const uint64_t *values, int n)
{
	uint64_t sum = 0;

	while (n-- > 0)
		sum += values[n];
	return sum;
}

int ps_dispatch_counters(const char *pin_dir, uint64_t ret[PS_REASON_MAX])
{
	ps_auto_mem char *path = ps_pin_path(pin_dir, "", PS_PIN_COUNTERS);
	int n_cpus = libbpf_num_possible_cpus();
	ps_auto_mem uint64_t *values = NULL;
	uint64_t sums[PS_REASON_MAX] = {0};
	ps_auto_fd int fd = -1;
	int r;

	if (!path)
		return -ENOMEM;
	if (n_cpus < 0)
		return n_cpus;
	fd = bpf_obj_get(path);
	if (fd < 0)
		return fd;
	values = calloc((size_t)n_cpus, sizeof(*values));
	if (!values)
		return -ENOMEM;
	for (__u32 reason = 0; reason < PS_REASON_MAX; reason++) {
		r = bpf_map_lookup_elem(fd, &reason, values);
		if (r == -ENOENT)
			break; /* an older version's counters end here */
		if (r < 0)
			return r;
		sums[reason] = sum_of(values, n_cpus);
	}
	for (size_t i = 0; i < PS_REASON_MAX; i++)
		ret[i] = sums[i];
	return 0;
}

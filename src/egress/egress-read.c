// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>

#include "base/own.h"
#include "egress/inside.h"

enum { BATCH = 4096 };

int ps_egress_claims_fd(const struct ps_egress *egress)
{
	return bpf_map__fd(egress->hooks->maps.claims);
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

/* -ESTALE: it is another version's, and the kernel would write past our buffers. */
static int open_pinned(const char *pin_dir, const char *name, size_t key_size, size_t value_size)
{
	ps_auto_mem char *path = ps_egress_pin_path(pin_dir, name);
	ps_auto_fd int fd = path ? bpf_obj_get(path) : -1;
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);

	if (!path)
		return -ENOMEM;
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return -errno;
	if (info.key_size != key_size || info.value_size != value_size)
		return -ESTALE;
	return ps_fd_move(&fd);
}

int ps_egress_counters(const char *pin_dir, uint64_t ret[PS_EGRESS_MAX])
{
	ps_auto_fd int fd =
		open_pinned(pin_dir, "egress-counters", sizeof(uint32_t), sizeof(uint64_t));
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

/* A slice with its place in the caller's array, sorted to be searched. */
struct indexed {
	struct ps_egress_slice slice;
	size_t index;
};

static int compare_indexed(const void *a, const void *b)
{
	const struct ps_egress_slice *x = &((const struct indexed *)a)->slice;
	const struct ps_egress_slice *y = &((const struct indexed *)b)->slice;

	int r = ps_ip_cmp(&x->address, &y->address);

	if (r)
		return r;
	return (x->ports.first > y->ports.first) - (x->ports.first < y->ports.first);
}

static int compare_claim(const void *key, const void *member)
{
	const struct ps_claim_key *claim = key;
	const struct ps_egress_slice *slice = &((const struct indexed *)member)->slice;
	uint16_t port = ntohs(claim->sport);

	int r = memcmp(claim->src.bytes, slice->address.bytes, sizeof(claim->src.bytes));

	if (r)
		return r;
	if (ps_range_contains(slice->ports, port))
		return 0;
	return port < slice->ports.first ? -1 : 1;
}

static struct indexed *index_slices(const struct ps_egress_slice *slices, size_t n)
{
	struct indexed *items = calloc(n ? n : 1, sizeof(*items));

	if (!items)
		return NULL;
	for (size_t i = 0; i < n; i++)
		items[i] = (struct indexed){slices[i], i};
	qsort(items, n, sizeof(*items), compare_indexed);
	return items;
}

struct batch {
	struct ps_claim_key keys[BATCH];
	struct ps_claim claims[BATCH];
};

static void tally(const struct batch *batch, uint32_t n, const struct indexed *items,
		  size_t n_items, uint64_t *ret)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct indexed *item;

		if (batch->claims[i].free_after_ns)
			continue;
		item = bsearch(&batch->keys[i], items, n_items, sizeof(*items), compare_claim);
		if (item)
			ret[item->index]++;
	}
}

static int tally_all(int fd, struct batch *batch, const struct indexed *items, size_t n_items,
		     uint64_t *ret)
{
	uint32_t cursor = 0, *from = NULL;
	int r;

	do {
		uint32_t n = BATCH;

		r = bpf_map_lookup_batch(fd, from, &cursor, batch->keys, batch->claims, &n, NULL);
		if (r < 0 && r != -ENOENT)
			return r;
		tally(batch, n, items, n_items, ret);
		from = &cursor;
	} while (!r);
	return 0;
}

int ps_egress_usage(const char *pin_dir, const struct ps_egress_slice *slices, size_t n_slices,
		    uint64_t *ret)
{
	ps_auto_fd int fd = open_pinned(pin_dir, "claims", sizeof(struct ps_claim_key),
					sizeof(struct ps_claim));
	ps_auto_mem struct indexed *items = index_slices(slices, n_slices);
	ps_auto_mem struct batch *batch = malloc(sizeof(*batch));
	ps_auto_mem uint64_t *counts = calloc(n_slices ? n_slices : 1, sizeof(*counts));
	int r;

	if (fd < 0)
		return fd;
	if (!items || !batch || !counts)
		return -ENOMEM;
	r = tally_all(fd, batch, items, n_slices, counts);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_slices; i++)
		ret[i] = counts[i];
	return 0;
}

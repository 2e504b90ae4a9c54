// SPDX-License-Identifier: MIT
/* What is in use, read from the pinned ledger while others write it. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/own.h"
#include "egress/inside.h"

enum { BATCH = 1024 };

int ps_egress_open_pinned(const char *pin_dir, const char *name, size_t key_size, size_t value_size)
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

typedef int item_fn(const void *key, const void *value, void *arg);

/* Calls fn for each element of a hash. */
static int for_each(int fd, size_t key_size, size_t value_size, item_fn *fn, void *arg)
{
	ps_auto_mem char *keys = malloc(BATCH * key_size);
	ps_auto_mem char *values = malloc(BATCH * value_size);
	uint32_t cursor = 0, *from = NULL;
	int r = 0, end;

	if (!keys || !values)
		return -ENOMEM;
	do {
		uint32_t n = BATCH;

		end = bpf_map_lookup_batch(fd, from, &cursor, keys, values, &n, NULL);
		if (end < 0 && end != -ENOENT)
			return end;
		for (uint32_t i = 0; i < n && r >= 0; i++)
			r = fn(keys + i * key_size, values + i * value_size, arg);
		from = &cursor;
	} while (!end && r >= 0);
	return r < 0 ? r : 0;
}

struct page_pass {
	ps_egress_page_fn *fn;
	void *arg;
	unsigned n_words;
};

static int pass_page(const void *key, const void *value, void *arg)
{
	const struct page_pass *pass = arg;
	const struct ps_page *page = value;

	(void)key;
	/* One that is being made or removed has nothing in use. */
	if (ps_state_life(page->state) != PS_PAGE_LIVE)
		return 0;
	return pass->fn(page, pass->n_words, pass->arg);
}

int ps_egress_pages(const char *pin_dir, ps_egress_page_fn *fn, void *arg)
{
	const struct {
		const char *name;
		unsigned n_words;
		size_t size;
	} rows[] = {{"pages", PS_NARROW_WORDS, sizeof(struct ps_narrow_page)},
		    {"wide-pages", PS_WIDE_WORDS, sizeof(struct ps_wide_page)}};
	int r = 0;

	for (size_t i = 0; !r && i < PS_N_ELEMENTS(rows); i++) {
		ps_auto_fd int fd = ps_egress_open_pinned(pin_dir, rows[i].name,
							  sizeof(struct ps_page_key), rows[i].size);
		struct page_pass pass = {fn, arg, rows[i].n_words};

		r = fd < 0 ? fd
			   : for_each(fd, sizeof(struct ps_page_key), rows[i].size, pass_page,
				      &pass);
	}
	return r;
}

struct quarantine_pass {
	ps_egress_quarantine_fn *fn;
	void *arg;
};

static int pass_quarantine(const void *key, const void *value, void *arg)
{
	const struct quarantine_pass *pass = arg;

	return pass->fn(key, value, pass->arg);
}

int ps_egress_quarantine(const char *pin_dir, ps_egress_quarantine_fn *fn, void *arg)
{
	ps_auto_fd int fd = ps_egress_open_pinned(
		pin_dir, "quarantine", sizeof(struct ps_claim_key), sizeof(struct ps_quarantine));
	struct quarantine_pass pass = {fn, arg};

	if (fd < 0)
		return fd;
	return for_each(fd, sizeof(struct ps_claim_key), sizeof(struct ps_quarantine),
			pass_quarantine, &pass);
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

/* Where a port is, to be found among slices. */
struct spot {
	const union ps_ip16 *address;
	uint16_t port;
};

static int compare_spot(const void *key, const void *member)
{
	const struct spot *spot = key;
	const struct ps_egress_slice *slice = &((const struct indexed *)member)->slice;
	int r = memcmp(spot->address->bytes, slice->address.bytes, sizeof(spot->address->bytes));

	if (r)
		return r;
	if (ps_range_contains(slice->ports, spot->port))
		return 0;
	return spot->port < slice->ports.first ? -1 : 1;
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

struct tally {
	const struct indexed *items;
	size_t n_items;
	int64_t *counts;
};

static void add(const struct tally *tally, const union ps_ip16 *address, uint16_t port, int64_t n)
{
	const struct spot spot = {address, port};
	const struct indexed *item =
		bsearch(&spot, tally->items, tally->n_items, sizeof(*item), compare_spot);

	if (item)
		tally->counts[item->index] += n;
}

/* A page is of one slice, but a peerless one of a whole address may begin below its ports. */
static int tally_page(const struct ps_page *page, unsigned n_words, void *arg)
{
	uint32_t port = page->key.base;
	uint32_t n = ps_state_count(page->state) + ps_state_apart(page->state);

	(void)n_words;
	if (page->key.shift == PS_SHIFT_WHOLE && port < PS_PORT_FIRST)
		port = PS_PORT_FIRST;
	add(arg, &page->key.ours, (uint16_t)port, n);
	return 0;
}

static int tally_quarantine(const struct ps_claim_key *flow, const struct ps_quarantine *value,
			    void *arg)
{
	(void)value;
	add(arg, &flow->src, ntohs(flow->sport), -1);
	return 0;
}

int ps_egress_usage(const char *pin_dir, const struct ps_egress_slice *slices, size_t n_slices,
		    uint64_t *ret)
{
	ps_auto_mem struct indexed *items = index_slices(slices, n_slices);
	ps_auto_mem int64_t *counts = calloc(n_slices ? n_slices : 1, sizeof(*counts));
	/* Every version has had this map; the others may not be there yet. */
	ps_auto_fd int sockets =
		ps_egress_open_pinned(pin_dir, "sockets", sizeof(int), sizeof(struct ps_held));
	struct tally tally = {items, n_slices, counts};
	int r;

	if (sockets < 0)
		return sockets;
	if (!items || !counts)
		return -ENOMEM;
	r = ps_egress_quarantine(pin_dir, tally_quarantine, &tally);
	if (!r)
		r = ps_egress_pages(pin_dir, tally_page, &tally);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_slices; i++)
		ret[i] = counts[i] < 0 ? 0 : (uint64_t)counts[i];
	return 0;
}

static int add_room(const struct ps_page *page, unsigned n_words, void *arg)
{
	struct ps_egress_room *room = arg;

	room->n_pages += n_words == PS_NARROW_WORDS;
	room->n_wide_pages += n_words == PS_WIDE_WORDS;
	room->n_claims += ps_state_count(page->state) + ps_state_apart(page->state);
	return 0;
}

static int add_quarantined(const struct ps_claim_key *flow, const struct ps_quarantine *value,
			   void *arg)
{
	(void)flow;
	(void)value;
	((struct ps_egress_room *)arg)->n_quarantined++;
	return 0;
}

/* What the kernel says a map takes, bytes; 0: it does not say. */
static uint64_t map_len(int fd)
{
	ps_auto_mem char *path = NULL;
	FILE *f = asprintf(&path, "/proc/self/fdinfo/%d", fd) < 0 ? NULL : fopen(path, "re");
	uint64_t len = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f) && sscanf(line, "memlock: %" SCNu64, &len) != 1)
		;
	if (f)
		(void)fclose(f);
	return len;
}

/* *ret_max: elements that the map may have; NULL: not asked. */
static int add_map(const char *pin_dir, const char *name, uint64_t *ret_max, uint64_t *n_bytes)
{
	ps_auto_mem char *path = ps_egress_pin_path(pin_dir, name);
	ps_auto_fd int fd = path ? bpf_obj_get(path) : -1;
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return path ? -errno : -ENOMEM;
	*n_bytes += map_len(fd);
	if (ret_max)
		*ret_max = info.max_entries;
	return 0;
}

int ps_egress_look_at_room(const char *pin_dir, struct ps_egress_room *ret)
{
	struct ps_egress_room room = {0};
	const struct {
		const char *name;
		uint64_t *ret_max;
	} rows[] = {{"pages", &room.n_pages_max}, {"wide-pages", &room.n_wide_pages_max},
		    {"quarantine", NULL},         {"drafts", NULL},
		    {"suspects", NULL},           {"accusing", NULL}};
	int r = ps_egress_pages(pin_dir, add_room, &room);

	if (!r)
		r = ps_egress_quarantine(pin_dir, add_quarantined, &room);
	for (size_t i = 0; !r && i < PS_N_ELEMENTS(rows); i++)
		r = add_map(pin_dir, rows[i].name, rows[i].ret_max, &room.n_bytes);
	if (!r)
		*ret = room;
	return r;
}

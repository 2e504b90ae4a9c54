// SPDX-License-Identifier: MIT
#include "dispatch/load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <bpf/bpf.h>

#include "base/own.h"
#include "base/say.h"
#include "egress/page-bits.h"

enum {
	PS_LOG_LEN = 1 << 22, /* verifier's log, bytes; only touched when it complains */
	PS_LOG_TAIL = 1500,   /* of it in a message */
};

char *ps_pin_path(const char *pin_dir, const char *prefix, const char *name)
{
	char *path = NULL;

	return asprintf(&path, "%s/%s%s", pin_dir, prefix, name) < 0 ? NULL : path;
}

/* An array map seen through user space's own page tables. */
struct ps_view {
	void *at; /* NULL: not mapped */
	size_t len;
};

static void view_clear(struct ps_view *view)
{
	if (view->at)
		munmap(view->at, view->len);
	*view = (struct ps_view){0};
}

static int view_open(const struct bpf_map *map, struct ps_view *ret)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t stride = (bpf_map__value_size(map) + 7) & ~(size_t)7; /* kernel/bpf/arraymap.c */
	size_t len = (bpf_map__max_entries(map) * stride + page - 1) & ~(page - 1);
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);

	if (at == MAP_FAILED)
		return -errno;
	*ret = (struct ps_view){at, len};
	return 0;
}

void ps_dispatch_free(struct ps_dispatch **dispatch)
{
	struct ps_dispatch *d = ps_move(*dispatch);

	if (!d)
		return;
	ring_buffer__free(d->hints);
	ps_dispatch_bpf__destroy(d->skel);
	free(d->pin_dir);
	free(d);
}

/* Copies n values to the front of an array map. */
static int fill(const struct bpf_map *map, const void *values, size_t n)
{
	size_t size = bpf_map__value_size(map), stride = (size + 7) & ~(size_t)7;
	ps_auto(view_clear) struct ps_view view = {0};
	int r = view_open(map, &view);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		memcpy((char *)view.at + i * stride, (const char *)values + i * size, size);
	return 0;
}

static int put(const struct bpf_map *map, const void *key)
{
	__u8 one = 1;

	return bpf_map_update_elem(bpf_map__fd(map), key, &one, BPF_ANY);
}

static int fill_sets(const struct ps_dispatch_bpf *skel, const struct ps_table *table)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < table->n_services; i++)
		r = put(skel->maps.services, &table->services[i]);
	for (size_t i = 0; r >= 0 && i < table->n_hosts; i++)
		if (!ps_ip_is_none(&table->hosts[i]))
			r = put(skel->maps.sources, &table->hosts[i]);
	return r;
}

/* The arrays of a table and the maps that hold them. */
struct array {
	struct bpf_map *map;
	const void *values;
	size_t n;
};

enum { N_ARRAYS = 4 };

static void list_arrays(const struct ps_dispatch_bpf *skel, const struct ps_table *table,
			struct array ret[N_ARRAYS])
{
	const struct array arrays[N_ARRAYS] = {
		{skel->maps.index6, table->index6,
		 table->config.index6_bits ? (size_t)1 << table->config.index6_bits : 0},
		{skel->maps.blocks, table->blocks, table->n_blocks * 256},
		{skel->maps.addresses, table->addresses, table->n_address_blocks * 256},
		{skel->maps.owners, table->owners, table->n_owners},
	};

	memcpy(ret, arrays, sizeof(arrays));
}

static int set_size(struct bpf_map *map, size_t n)
{
	return bpf_map__set_max_entries(map, n ? (__u32)n : 1);
}

static int set_sizes(const struct ps_dispatch_bpf *skel, const struct ps_table *table)
{
	struct array arrays[N_ARRAYS];
	int r = set_size(skel->maps.services, table->n_services);

	list_arrays(skel, table, arrays);
	for (size_t i = 0; r >= 0 && i < N_ARRAYS; i++)
		r = set_size(arrays[i].map, arrays[i].n);
	return r < 0 ? r : set_size(skel->maps.sources, table->n_hosts);
}

/* table.c keeps to the sizes. */
static void fill_globals(struct ps_dispatch_bpf__bss *bss, const struct ps_table *table)
{
	size_t n_near = table->n_blocks;

	memcpy(bss->index16, table->index, sizeof(bss->index16));
	memcpy(bss->near_blocks, table->blocks,
	       (n_near < PS_BLOCKS_NEAR ? n_near : PS_BLOCKS_NEAR) * 256 *
		       sizeof(bss->near_blocks[0]));
	memcpy(bss->peers, table->peers, table->n_peers * sizeof(bss->peers[0]));
	memcpy(bss->peers6, table->peers6, table->n_peers * sizeof(bss->peers6[0]));
	bss->config = table->config;
}

static int fill_all(const struct ps_dispatch_bpf *skel, const struct ps_table *table)
{
	struct array arrays[N_ARRAYS];
	int r = 0;

	fill_globals(skel->bss, table);
	list_arrays(skel, table, arrays);
	for (size_t i = 0; r >= 0 && i < N_ARRAYS; i++)
		r = fill(arrays[i].map, arrays[i].values, arrays[i].n);
	return r < 0 ? r : fill_sets(skel, table);
}

static int use_pages(struct bpf_map *map, int fd, size_t size, char **ret_message)
{
	struct bpf_map_info info = {0};
	__u32 len = sizeof(info);
	int r;

	if (fd < 0)
		return 0;
	r = bpf_obj_get_info_by_fd(fd, &info, &len);
	if (r < 0)
		return ps_say(ret_message, r, "map of ports in use: %s", strerror(-r));
	if (info.key_size != sizeof(struct ps_page_key) || info.value_size != size)
		return ps_say(ret_message, -EINVAL,
			      "map of ports in use has keys of %u and values of %u bytes, not "
			      "%zu and %zu: another version of portslice made it",
			      info.key_size, info.value_size, sizeof(struct ps_page_key), size);
	return bpf_map__reuse_fd(map, fd);
}

static int use_ledger(const struct ps_dispatch_bpf *skel, const struct ps_dispatch_options *options,
		      char **ret_message)
{
	int r = use_pages(skel->maps.pages, options->pages_fd, sizeof(struct ps_narrow_page),
			  ret_message);

	return r < 0 ? r
		     : use_pages(skel->maps.wide_pages, options->wide_pages_fd,
				 sizeof(struct ps_wide_page), ret_message);
}

/* Goes on counting where the last generation stopped; an older version's pin is too small. */
static int use_counters(const struct ps_dispatch_bpf *skel, const char *path)
{
	ps_auto_fd int fd = bpf_obj_get(path);
	struct bpf_map_info info = {0};
	__u32 len = sizeof(info);

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	if (bpf_obj_get_info_by_fd(fd, &info, &len) == 0 &&
	    info.type == BPF_MAP_TYPE_PERCPU_ARRAY && info.value_size == sizeof(__u64) &&
	    info.max_entries >= PS_REASON_MAX)
		return bpf_map__reuse_fd(skel->maps.counters, fd);
	return unlink(path) < 0 ? -errno : 0;
}

static int pin_counters(const struct ps_dispatch_bpf *skel, const char *path)
{
	int r = bpf_obj_pin(bpf_map__fd(skel->maps.counters), path);

	return r == -EEXIST ? 0 : r;
}

static int complain_load(char **ret_message, int error, const char *log)
{
	size_t len = strlen(log), skip = len > PS_LOG_TAIL ? len - PS_LOG_TAIL : 0;

	if (error == -EPERM)
		return ps_say(ret_message, error,
			      "kernel refused the dispatcher: CAP_BPF, CAP_NET_ADMIN and "
			      "CAP_PERFMON are needed (or root)");
	if (access("/sys/kernel/btf/vmlinux", R_OK) < 0)
		return ps_say(ret_message, error,
			      "kernel refused the dispatcher (%s), and it has no BTF "
			      "(/sys/kernel/btf/vmlinux): CONFIG_DEBUG_INFO_BTF is needed",
			      strerror(-error));
	if (!len)
		return ps_say(ret_message, error, "kernel refused the dispatcher: %s",
			      strerror(-error));
	return ps_say(ret_message, error, "kernel's verifier refused the dispatcher (%s):\n%s",
		      strerror(-error), log + skip);
}

/* Loads the opened program; libbpf's own talk is kept off the terminal. */
static int load_quietly(struct ps_dispatch_bpf *skel)
{
	libbpf_print_fn_t print = libbpf_set_print(NULL);
	int r = ps_dispatch_bpf__load(skel);

	libbpf_set_print(print);
	return r;
}

static int load(struct ps_dispatch *d, const struct ps_table *table,
		const struct ps_dispatch_options *options, char **ret_message)
{
	ps_auto_mem char *counters = ps_pin_path(options->pin_dir, "", PS_PIN_COUNTERS);
	ps_auto_mem char *log = calloc(1, PS_LOG_LEN);
	LIBBPF_OPTS(bpf_object_open_opts, open_options, .kernel_log_buf = log,
		    .kernel_log_size = PS_LOG_LEN);
	int r;

	if (!counters || !log)
		return -ENOMEM;
	d->skel = ps_dispatch_bpf__open_opts(&open_options);
	if (!d->skel)
		return -errno;
	d->skel->rodata->observe = options->observe;
	r = set_sizes(d->skel, table);
	if (r >= 0)
		r = use_ledger(d->skel, options, ret_message);
	if (r < 0)
		return r;
	r = use_counters(d->skel, counters);
	if (r < 0)
		return ps_say(ret_message, r, "%s: %s", counters, strerror(-r));
	r = load_quietly(d->skel);
	if (r < 0)
		return complain_load(ret_message, r, log);
	r = pin_counters(d->skel, counters);
	if (r < 0)
		return ps_say(ret_message, r, "cannot pin %s: %s", counters, strerror(-r));
	return fill_all(d->skel, table);
}

static int take_hint(void *arg, void *data, size_t len)
{
	struct ps_dispatch *d = arg;
	struct ps_mtu_hint hint;
	struct ps_ip dst;

	if (len < sizeof(hint))
		return 0;
	memcpy(&hint, data, sizeof(hint));
	memcpy(dst.bytes, hint.dst, sizeof(dst.bytes));
	d->take_hint(&dst, hint.mtu, d->take_arg);
	return 0;
}

static int open_hints(struct ps_dispatch *d)
{
	d->hints = ring_buffer__new(bpf_map__fd(d->skel->maps.hints), take_hint, d, NULL);
	return d->hints ? 0 : -errno;
}

int ps_dispatch_load(const struct ps_table *table, const struct ps_dispatch_options *options,
		     struct ps_dispatch **ret, char **ret_message)
{
	ps_auto(ps_dispatch_free) struct ps_dispatch *d = calloc(1, sizeof(*d));
	int r;

	if (ret_message)
		*ret_message = NULL;
	if (!d)
		return -ENOMEM;
	d->pin_dir = strdup(options->pin_dir);
	if (!d->pin_dir)
		return -ENOMEM;
	r = load(d, table, options, ret_message);
	if (r >= 0)
		r = open_hints(d);
	if (r < 0)
		return r;
	d->n_peers = table->n_peers;
	d->n_hosts = table->n_hosts;
	d->mtu = table->self.mtu;
	*ret = ps_move(d);
	return 0;
}

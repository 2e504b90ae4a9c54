// SPDX-License-Identifier: MIT
/*
 * The journal is one JSON object of four small tables:
 *
 *   {"sysctl": {"net/ipv4/conf/eth0/arp_ignore": "0"},   name -> value before us
 *    "routes": {"198.51.100.1": true},                   local routes that are ours
 *    "guards": {"eth0": true},                           interface -> the clsact qdisc is ours
 *    "folders": {"/sys/fs/cgroup/portslice": 2}}         folder -> order of creation
 *
 * Every change is written to disk (new file, rename) before it is made.  A journal may therefore
 * name something that was never done; undoing that must be, and is, harmless.
 */
#include "agent/undo.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "agent/sysctl.h"
#include "base/own.h"

struct ps_undo {
	char *path;
	json_t *root;
};

void ps_undo_free(struct ps_undo **undo)
{
	if (!*undo)
		return;
	json_decref((*undo)->root);
	free((*undo)->path);
	free(*undo);
	*undo = NULL;
}

static json_t *table(const struct ps_undo *undo, const char *name)
{
	return json_object_get(undo->root, name);
}

int ps_undo_open(const char *path, struct ps_undo **ret)
{
	static const char *const names[] = {"sysctl", "routes", "guards", "folders"};
	ps_auto(ps_undo_free) struct ps_undo *undo = calloc(1, sizeof(*undo));

	if (!undo)
		return -ENOMEM;
	undo->path = strdup(path);
	if (!undo->path)
		return -ENOMEM;
	undo->root = access(path, F_OK) == 0 ? json_load_file(path, 0, NULL) : json_object();
	if (!json_is_object(undo->root))
		return -EBADMSG;
	for (size_t i = 0; i < PS_N_ELEMENTS(names); i++) {
		if (table(undo, names[i]))
			continue;
		if (json_object_set_new(undo->root, names[i], json_object()) < 0)
			return -ENOMEM;
	}
	*ret = ps_move(undo);
	return 0;
}

static int save(const struct ps_undo *undo)
{
	ps_auto_mem char *fresh = NULL;

	if (asprintf(&fresh, "%s.new", undo->path) < 0) {
		fresh = NULL;
		return -ENOMEM;
	}
	if (json_dump_file(undo->root, fresh, JSON_SORT_KEYS | JSON_INDENT(1)) < 0)
		return -EIO;
	return rename(fresh, undo->path) < 0 ? -errno : 0;
}

/* Takes over the reference of `value`. */
static int note(struct ps_undo *undo, const char *name, const char *key, json_t *value)
{
	if (json_object_set_new(table(undo, name), key, value) < 0)
		return -ENOMEM;
	return save(undo);
}

int ps_undo_sysctl(struct ps_undo *undo, const char *name, const char *value)
{
	char present[256];
	int r = ps_sysctl_read(name, present, sizeof(present));

	if (r < 0)
		return r;
	if (strcmp(present, value) == 0)
		return 0;
	if (!json_object_get(table(undo, "sysctl"), name)) {
		r = note(undo, "sysctl", name, json_string(present));
		if (r < 0)
			return r;
	}
	r = ps_sysctl_write(name, value);
	return r < 0 ? r : 1;
}

static int by_ip(const void *a, const void *b)
{
	return ps_ip_cmp(a, b);
}

static int remove_route(struct ps_net *net, const char *text)
{
	struct ps_ip ip;

	return ps_ip_parse(text, &ip) < 0 ? -EBADMSG : ps_net_local_route(net, &ip, false);
}

static bool is_among(const struct ps_ip *sorted, size_t n, const struct ps_ip *ip)
{
	return n && bsearch(ip, sorted, n, sizeof(*sorted), by_ip);
}

/* Removes our routes but addresses[0..n), which is sorted. */
static int drop_other_routes(struct ps_undo *undo, struct ps_net *net,
			     const struct ps_ip *addresses, size_t n)
{
	json_t *routes = table(undo, "routes");
	bool dropped = false;
	const char *key;
	json_t *value;
	void *next;

	json_object_foreach_safe(routes, next, key, value)
	{
		struct ps_ip ip;
		int r;

		if (ps_ip_parse(key, &ip) == 0 && is_among(addresses, n, &ip))
			continue;
		r = remove_route(net, key);
		if (r < 0)
			return r;
		json_object_del(routes, key);
		dropped = true;
	}
	return dropped ? save(undo) : 0;
}

static int note_routes(struct ps_undo *undo, const struct ps_ip *addresses, size_t n)
{
	json_t *routes = table(undo, "routes");
	bool fresh = false;

	for (size_t i = 0; i < n; i++) {
		char text[PS_IP_TEXT_MAX];

		ps_ip_format(&addresses[i], text);
		if (json_object_get(routes, text))
			continue;
		if (json_object_set_new(routes, text, json_true()) < 0)
			return -ENOMEM;
		fresh = true;
	}
	return fresh ? save(undo) : 0;
}

/* How many were missing. */
static int add_routes(struct ps_net *net, const struct ps_ip *addresses, size_t n)
{
	ps_auto_mem struct ps_ip *present = NULL;
	size_t n_present;
	int added = 0, r = ps_net_local_routes(net, &present, &n_present);

	if (r < 0)
		return r;
	if (n_present)
		qsort(present, n_present, sizeof(*present), by_ip);
	for (size_t i = 0; i < n; i++) {
		if (is_among(present, n_present, &addresses[i]))
			continue;
		r = ps_net_local_route(net, &addresses[i], true);
		if (r < 0)
			return r;
		added++;
	}
	return added;
}

int ps_undo_routes(struct ps_undo *undo, struct ps_net *net, const struct ps_ip *addresses,
		   size_t n)
{
	ps_auto_mem struct ps_ip *sorted = calloc(n + 1, sizeof(*sorted));
	int added, r;

	if (!sorted)
		return -ENOMEM;
	if (n)
		memcpy(sorted, addresses, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), by_ip);
	r = note_routes(undo, sorted, n);
	if (r < 0)
		return r;
	added = add_routes(net, sorted, n);
	if (added < 0)
		return added;
	r = drop_other_routes(undo, net, sorted, n);
	return r < 0 ? r : added;
}

int ps_undo_guard(struct ps_undo *undo, const char *ifname, bool qdisc_made)
{
	const json_t *known = json_object_get(table(undo, "guards"), ifname);

	if (known && (!qdisc_made || json_is_true(known)))
		return 0;
	return note(undo, "guards", ifname, json_boolean(qdisc_made));
}

int ps_undo_mkdir(struct ps_undo *undo, const char *path)
{
	ps_auto_mem char *parent = strdup(path);
	json_t *folders = table(undo, "folders");
	char *slash;
	int r = 0;

	if (!parent)
		return -ENOMEM;
	if (access(path, F_OK) == 0)
		return 0;
	slash = strrchr(parent, '/');
	if (slash && slash != parent) {
		*slash = '\0';
		r = ps_undo_mkdir(undo, parent);
		if (r < 0)
			return r;
	}
	if (!json_object_get(folders, path)) /* else made anew after others removed it */
		r = note(undo, "folders", path,
			 json_integer((json_int_t)json_object_size(folders)));
	if (r < 0)
		return r;
	return mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

static void keep_first(int *first, int r)
{
	if (*first == 0 && r < 0)
		*first = r;
}

/* Deepest first: a folder is always noted after its parent. */
static void remove_folders(json_t *folders)
{
	for (size_t order = json_object_size(folders); order-- > 0;) {
		const char *path;
		json_t *value;

		json_object_foreach(folders, path, value)
		{
			if ((size_t)json_integer_value(value) == order)
				(void)rmdir(path); /* stays while programs live in it */
		}
	}
}

/* A qdisc of ours in which others put filters meanwhile stays, with their filters. */
static int remove_guard(const char *ifname, bool qdisc_made, ps_undo_unguard_fn *unguard)
{
	unsigned ifindex = if_nametoindex(ifname);

	return ifindex ? unguard(ifindex, qdisc_made) : 0;
}

/* The next change begins a new journal: what is there then is what is to be restored. */
static int forget(struct ps_undo *undo)
{
	const char *name;
	json_t *items;

	json_object_foreach(undo->root, name, items) json_object_clear(items);
	return unlink(undo->path) < 0 && errno != ENOENT ? -errno : 0;
}

int ps_undo_all(struct ps_undo *undo, struct ps_net *net, ps_undo_unguard_fn *unguard)
{
	const char *key;
	json_t *value;
	int first = 0;

	json_object_foreach(table(undo, "routes"), key, value)
		keep_first(&first, remove_route(net, key));
	json_object_foreach(table(undo, "guards"), key, value)
		keep_first(&first, remove_guard(key, json_is_true(value), unguard));
	json_object_foreach(table(undo, "sysctl"), key, value)
	{
		int r = ps_sysctl_write(key, json_string_value(value));

		keep_first(&first, r == -ENOENT ? 0 : r); /* the interface is gone */
	}
	remove_folders(table(undo, "folders"));
	return first == 0 ? forget(undo) : first;
}

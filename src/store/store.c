// SPDX-License-Identifier: MIT
/*
 * The store is the one thing that hosts agree through, so it is small enough to have three back
 * ends that no caller can tell apart: memory for tests, SQLite for one machine, etcd for a cluster.
 *
 * What it owns: keys (byte strings without NUL), values (any bytes), and one number, the revision,
 * which begins at 0 and grows by one with every transaction that changes something.  All writes of
 * a transaction carry its revision.  Nothing else orders events: wall clock times are kept for
 * people to read and decide nothing.
 *
 * The life of a key: it comes into being (create_revision), is written again and again (revision),
 * is deleted, and may come into being anew, with another create_revision.  Every state is kept, so
 * `history` answers who owned what when, and `changes` lets a reader that was away, for a second or
 * a month, resume from the revision it knows instead of guessing from snapshots.
 *
 * Writing is compare-and-swap: a transaction names the revisions its author has seen, and either
 * all writes happen or none.  There are no locks to hold or to forget.  A watch is a hint that wakes
 * the reader; truth is `changes` since a revision, so a lost hint costs a second and no more.
 *
 * A store may vanish: its disk fills, its file is deleted under us, a backup from last week takes
 * its place.  The first are errors of the next call, never silence; the last is seen by the
 * incarnation, a random number that a recreated or restored store does not share (design.md §5).
 *
 * This file picks the back end by URL and refuses, for all of them alike, what a caller may not ask:
 * keys that are empty, too long or written twice in a transaction, values that are too long.
 * It must not interpret keys or values, and must not print, retry or reopen by itself.
 *
 * Follows: etcd's key-value model (etcd.io, "etcd versus other key-value stores", data model:
 * revision, create_revision, mod_revision); SQLite's WAL mode (sqlite.org/wal.html).
 */
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/own.h"
#include "store/store-backend.h"

static const struct ps_store_ops *const back_ends[] = {&ps_store_memory, &ps_store_sqlite,
						       &ps_store_etcd, &ps_store_etcds};

static const struct ps_store_ops *back_end_of(const char *url)
{
	for (size_t i = 0; i < PS_N_ELEMENTS(back_ends); i++) {
		if (strncmp(url, back_ends[i]->scheme, strlen(back_ends[i]->scheme)) == 0)
			return back_ends[i];
	}
	return NULL;
}

static int open_back_end(const char *url, struct ps_store **ret, char **ret_message)
{
	const struct ps_store_ops *ops = back_end_of(url);

	return ops ? ops->open(url + strlen(ops->scheme), ret, ret_message) : -EINVAL;
}

static int open_named(const char *url, struct ps_store **ret, char **ret_message)
{
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	int r = open_back_end(url, &store, ret_message);

	if (r < 0)
		return r;
	store->url = strdup(url);
	if (!store->url)
		return -ENOMEM;
	*ret = ps_move(store);
	return 0;
}

int ps_store_open(const char *url, struct ps_store **ret, char **ret_message)
{
	ps_auto_mem char *message = NULL;
	int r = open_named(url, ret, &message);

	if (r >= 0 || !ret_message)
		return r;
	if (!message)
		(void)ps_store_error_text(r, url, &message);
	*ret_message = ps_move(message);
	return r;
}

void ps_store_close(struct ps_store **store)
{
	char *url;

	if (!*store)
		return;
	url = (*store)->url;
	(*store)->ops->close(*store);
	free(url);
	*store = NULL;
}

const char *ps_store_url(const struct ps_store *store)
{
	return store->url;
}

static const char *meaning_of(int error)
{
	static const struct {
		int error;
		const char *text;
	} rows[] = {
		{EINVAL, "names no store: write sqlite:/path/to/file or "
			 "etcd://host:port,host:port/prefix"},
		{ENOENT, "cannot be created: make its folder first"},
		{EACCES, "must be readable and writable, like its folder: "
			 "run as its owner, or correct owner and mode"},
		{EROFS, "cannot be written: its file system is read-only"},
		{EBADMSG, "is damaged: stop portsliced, move it away and restore a backup "
			  "(doc/store.md)"},
		{EPROTO, "was made by a newer portslice: upgrade portslice on this host"},
		{EBUSY, "was held by another writer for more than 5 s: find it with fuser, "
			"then try again"},
		{EIDRM, "was deleted or replaced while in use: open it again"},
		{ENOSPC, "cannot be written: its file system is full"},
		{EIO, "cannot be read or written: its disk reports an error, see dmesg"},
		{ESTALE, "changed in the meantime: read again, then write"},
	};

	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		if (rows[i].error == -error)
			return rows[i].text;
	}
	return NULL;
}

int ps_store_error_text(int error, const char *url, char **ret)
{
	const struct ps_store_ops *ops = back_end_of(url);
	const char *text = ops && ops->meaning ? ops->meaning(error) : NULL;
	const char *name = url;
	char *sentence;

	if (error != -EINVAL && strncmp(url, "sqlite:", 7) == 0)
		name += 7;
	if (!text)
		text = meaning_of(error);
	if (asprintf(&sentence, "%s %s", name, text ? text : "cannot be used: ") < 0)
		return -ENOMEM;
	if (text) {
		*ret = sentence;
		return 0;
	}
	*ret = NULL;
	if (asprintf(ret, "%s%s", sentence, strerror(-error)) < 0)
		*ret = NULL;
	free(sentence);
	return *ret ? 0 : -ENOMEM;
}

static int check_key(const char *key)
{
	size_t len = strnlen(key, PS_STORE_KEY_MAX + 1);

	if (len == 0)
		return -EINVAL;
	return len > PS_STORE_KEY_MAX ? -E2BIG : 0;
}

static int key_order(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_keys_differ(const struct ps_store_write *writes, size_t n_writes)
{
	ps_auto_mem const char **keys = NULL;

	if (n_writes < 2)
		return 0;
	keys = calloc(n_writes, sizeof(*keys));
	if (!keys)
		return -ENOMEM;
	for (size_t i = 0; i < n_writes; i++)
		keys[i] = writes[i].key;
	qsort(keys, n_writes, sizeof(*keys), key_order);
	for (size_t i = 1; i < n_writes; i++) {
		if (strcmp(keys[i - 1], keys[i]) == 0)
			return -EINVAL;
	}
	return 0;
}

static int check_txn(const struct ps_store_txn *txn)
{
	int r;

	for (size_t i = 0; i < txn->n_compares; i++) {
		r = check_key(txn->compares[i].key);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < txn->n_writes; i++) {
		r = check_key(txn->writes[i].key);
		if (r < 0)
			return r;
		if (txn->writes[i].data && txn->writes[i].len > PS_STORE_VALUE_MAX)
			return -E2BIG;
	}
	return check_keys_differ(txn->writes, txn->n_writes);
}

int ps_store_txn(struct ps_store *store, const struct ps_store_compare *compares, size_t n_compares,
		 const struct ps_store_write *writes, size_t n_writes, uint64_t *ret_revision,
		 size_t *ret_failed)
{
	struct ps_store_txn txn = {compares, n_compares, writes, n_writes};
	uint64_t revision;
	size_t failed;
	int r = check_txn(&txn);

	if (r < 0)
		return r;
	r = store->ops->txn(store, &txn, &revision, &failed);
	if (r == -ESTALE && ret_failed)
		*ret_failed = failed;
	if (r >= 0 && ret_revision)
		*ret_revision = revision;
	return r;
}

int ps_store_put(struct ps_store *store, const char *key, const char *data, size_t len,
		 uint64_t *ret_revision)
{
	struct ps_store_write write = {key, data, len};

	return ps_store_txn(store, NULL, 0, &write, 1, ret_revision, NULL);
}

int ps_store_get(struct ps_store *store, const char *key, struct ps_store_value *ret)
{
	return store->ops->get(store, key, ret);
}

int ps_store_list(struct ps_store *store, const char *prefix, struct ps_store_values *ret)
{
	return store->ops->list(store, prefix, ret);
}

int ps_store_revision(struct ps_store *store, uint64_t *ret)
{
	return store->ops->revision(store, ret);
}

int ps_store_incarnation(struct ps_store *store, uint64_t *ret)
{
	return store->ops->incarnation(store, ret);
}

int ps_store_watch_fd(struct ps_store *store)
{
	return store->ops->watch_fd(store);
}

bool ps_store_watch_clear(struct ps_store *store)
{
	return store->ops->watch_clear(store);
}

int ps_store_changes(struct ps_store *store, const char *prefix, uint64_t since,
		     struct ps_store_values *ret)
{
	return store->ops->changes(store, prefix, since, ret);
}

int ps_store_history(struct ps_store *store, const char *key, size_t max,
		     struct ps_store_values *ret)
{
	return store->ops->history(store, key, max, ret);
}

void ps_store_reconnect(struct ps_store *store)
{
	if (store->ops->reconnect)
		store->ops->reconnect(store);
}

int ps_store_value_copy(const struct ps_store_value *from, struct ps_store_value *ret)
{
	ps_auto(ps_store_value_clear) struct ps_store_value value = *from;

	value.key = strdup(from->key);
	value.data = from->data ? malloc(from->len + 1) : NULL;
	if (!value.key || (from->data && !value.data))
		return -ENOMEM;
	if (value.data) {
		memcpy(value.data, from->data, from->len);
		value.data[from->len] = '\0';
	}
	*ret = value;
	value.key = value.data = NULL;
	return 0;
}

int ps_store_values_add(struct ps_store_values *values, const struct ps_store_value *from)
{
	size_t n = values->n;
	int r;

	if ((n & (n - 1)) == 0) { /* full: sizes are powers of two */
		void *items = reallocarray(values->items, n ? 2 * n : 1, sizeof(*values->items));

		if (!items)
			return -ENOMEM;
		values->items = items;
	}
	r = ps_store_value_copy(from, &values->items[n]);
	if (r < 0)
		return r;
	values->n++;
	return 0;
}

void ps_store_value_clear(struct ps_store_value *value)
{
	free(value->key);
	free(value->data);
	*value = (struct ps_store_value){0};
}

void ps_store_values_clear(struct ps_store_values *values)
{
	for (size_t i = 0; i < values->n; i++)
		ps_store_value_clear(&values->items[i]);
	free(values->items);
	*values = (struct ps_store_values){0};
}

int ps_store_draw_incarnation(uint64_t *ret)
{
	uint64_t drawn;

	if (getrandom(&drawn, sizeof(drawn), 0) != (ssize_t)sizeof(drawn))
		return -EIO;
	drawn &= INT64_MAX; /* SQLite and JSON have signed integers */
	*ret = drawn ? drawn : 1;
	return 0;
}

int64_t ps_store_time_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

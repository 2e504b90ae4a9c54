/* SPDX-License-Identifier: MIT */
/*
 * The store: keys, values and one revision that grows with every change; transactions by
 * compare-and-swap; watches that resume from a revision; history.  One interface, several back
 * ends (memory for tests, SQLite for one machine, etcd for a cluster).  store.c holds the essay.
 */
#ifndef PS_STORE_STORE_H
#define PS_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ps_store;

enum {
	PS_STORE_KEY_MAX = 512,                /* bytes, NUL not counted */
	PS_STORE_VALUE_MAX = 16 * 1024 * 1024, /* bytes */
};

/* One state of one key.  data holds len bytes and one NUL after them; NULL when deleted. */
struct ps_store_value {
	char *key;
	char *data;
	size_t len;
	uint64_t revision;        /* of the store, when this state was written */
	uint64_t create_revision; /* when the key last came into being; 0 for a deletion */
	int64_t time_ms;          /* wall clock of the writer, milliseconds since 1970 */
};

struct ps_store_values {
	struct ps_store_value *items;
	size_t n;
};

/* Holds when the key's present revision is exactly this; 0: when the key does not exist. */
struct ps_store_compare {
	const char *key;
	uint64_t revision;
};

/* data NULL: delete the key (deleting a missing key is no error and no change). */
struct ps_store_write {
	const char *key;
	const char *data;
	size_t len;
};

/* url: "memory:" (private to this handle), "sqlite:/path/to/file" (created if missing, parent
 * folder must exist), or "etcd://host:port,host:port/prefix" and "etcds://...?ca=..." (made under
 * prefix if missing; doc/store.md has the options).  *ret_message, where given, is one sentence for the operator on failure
 * (caller frees), e.g. naming the file and the remedy.
 * -EINVAL: unknown back end; -ENOENT, -EACCES: the path; -EBADMSG: not a store, or corrupt;
 * -EPROTO: made by a newer version; -EHOSTUNREACH: no end point of etcd answered.
 * One thread uses a handle at a time; a handle does not survive fork().
 *
 * Every call below but the watch ones may also fail with -EIDRM: the store was deleted or replaced
 * under this handle, which stays useless: close it, open again, compare the incarnation;
 * -EBADMSG: damage met on the way; -EHOSTUNREACH, -EACCES: etcd did not answer or refuses (the
 * handle stays good, try again); -EBUSY, -EIO, -ENOSPC, -ENOMEM: nothing was changed, except that
 * after -EIO of a transaction only reading again tells whether it took place.
 *
 * With etcd a call waits for answers: 2 s at most when end points fail; list, history, and changes that
 * reach further back than the watch 10 s.  While all end points are known to hang, one call a second
 * waits 0.3 s and the others fail at once. */
int ps_store_open(const char *url, struct ps_store **ret, char **ret_message);
void ps_store_close(struct ps_store **store);
/* The URL as it was given to ps_store_open(); lives as long as the handle. */
const char *ps_store_url(const struct ps_store *store);
/* One sentence for the operator (caller frees) naming the store of this url, what `error`, a
 * negative errno of any call here, means, and the remedy.  -ENOMEM: no sentence. */
int ps_store_error_text(int error, const char *url, char **ret);

/* -ENOENT: no such key. */
int ps_store_get(struct ps_store *store, const char *key, struct ps_store_value *ret);
/* All keys that begin with prefix, sorted by key. */
int ps_store_list(struct ps_store *store, const char *prefix, struct ps_store_values *ret);
/* All compares hold: all writes happen at one new revision, returned in *ret_revision (may be
 * NULL).  Writing what is there already is a change; when nothing changes (no writes, or deletions
 * of missing keys only) the revision stays, and *ret_revision is the present one.
 * -ESTALE: one did not hold, nothing was written; *ret_failed (may be NULL) is the first such index.
 * -EINVAL: an empty key, or a key written twice (as etcd refuses).
 * -E2BIG: key or value too long, for etcd also the whole transaction (1.5 MiB, 128 compares or writes
 * unless its server is told otherwise, 8 MiB of JSON at most).  -EBUSY: another writer held the store for more than 5 s. */
int ps_store_txn(struct ps_store *store, const struct ps_store_compare *compares, size_t n_compares,
		 const struct ps_store_write *writes, size_t n_writes, uint64_t *ret_revision,
		 size_t *ret_failed);
/* One unconditional write. */
int ps_store_put(struct ps_store *store, const char *key, const char *data, size_t len,
		 uint64_t *ret_revision);
/* The store's present revision; 0 for an empty one.  With etcd it may grow by more than one when others
 * write to the same cluster. */
int ps_store_revision(struct ps_store *store, uint64_t *ret);
/* A random number (1 to INT64_MAX) given to the store when it was created: a restored or recreated
 * store differs.  doc/store.md says how a restored one is told apart. */
int ps_store_incarnation(struct ps_store *store, uint64_t *ret);

/* Readable when something may have changed since this was first called, by this handle or another:
 * then call ps_store_changes().  The handle keeps the descriptor.  Also poll it once a
 * second: a notification may be lost (inotify on a network file system).  -1: poll only. */
int ps_store_watch_fd(struct ps_store *store);
/* Clears the descriptor's readiness.  Call before ps_store_changes(), so no change is missed.  False:
 * it woke for business of its own (a connection to etcd being made anew) and nothing is to be read. */
bool ps_store_watch_clear(struct ps_store *store);
/* Every write and deletion under prefix after revision `since`, oldest first; those of one revision
 * in the order they were written.  Cheap when nothing happened (sqlite: 4 us).  A `since` of the
 * future gives none: compare the incarnation whenever a store is opened again.
 * When etcd has compacted what came after since: the newest state of every key that changed,
 * deletions included, without those between. */
int ps_store_changes(struct ps_store *store, const char *prefix, uint64_t since,
		     struct ps_store_values *ret);
/* States of one key, deletions and the present one included, newest first, at most max; with etcd back
 * to its last compaction. */
int ps_store_history(struct ps_store *store, const char *key, size_t max,
		     struct ps_store_values *ret);

/* Goes on at another end point, where the store has several (etcd), and uses the present one last for
 * a while: for a caller that lags behind the others.  Never waits for an answer. */
void ps_store_reconnect(struct ps_store *store);

void ps_store_value_clear(struct ps_store_value *value);
void ps_store_values_clear(struct ps_store_values *values);

#endif

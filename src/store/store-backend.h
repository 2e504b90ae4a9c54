/* SPDX-License-Identifier: MIT */
/*
 * What a back end is: a table of the calls of store.h behind a URL scheme.  store.c has checked the
 * arguments before they come here, so that all back ends refuse the same things.
 */
#ifndef PS_STORE_STORE_BACKEND_H
#define PS_STORE_STORE_BACKEND_H

#include "store/store.h"

/* First member of every back end's own struct. */
struct ps_store {
	const struct ps_store_ops *ops;
	char *url; /* owned by store.c */
};

/* Keys are not empty, are within the limits, and none is written twice. */
struct ps_store_txn {
	const struct ps_store_compare *compares;
	size_t n_compares;
	const struct ps_store_write *writes;
	size_t n_writes;
};

/* Each call is documented in store.h under its own name.  Output pointers are never NULL. */
struct ps_store_ops {
	const char *scheme; /* with its colon: "sqlite:" */
	/* place is the URL after the scheme.  *ret_message stays NULL where the sentence of
	 * ps_store_error_text() says enough. */
	int (*open)(const char *place, struct ps_store **ret, char **ret_message);
	/* What an error of this back end means and the remedy, to follow the URL in a sentence; NULL:
	 * as everywhere.  May itself be NULL. */
	const char *(*meaning)(int error);
	/* Frees the back end's struct; store->url is not its business. */
	void (*close)(struct ps_store *store);
	int (*get)(struct ps_store *store, const char *key, struct ps_store_value *ret);
	int (*list)(struct ps_store *store, const char *prefix, struct ps_store_values *ret);
	int (*txn)(struct ps_store *store, const struct ps_store_txn *txn, uint64_t *ret_revision,
		   size_t *ret_failed);
	int (*revision)(struct ps_store *store, uint64_t *ret);
	int (*incarnation)(struct ps_store *store, uint64_t *ret);
	int (*watch_fd)(struct ps_store *store);
	bool (*watch_clear)(struct ps_store *store);
	int (*changes)(struct ps_store *store, const char *prefix, uint64_t since,
		       struct ps_store_values *ret);
	int (*history)(struct ps_store *store, const char *key, size_t max,
		       struct ps_store_values *ret);
	void (*reconnect)(struct ps_store *store); /* NULL: there is one place only */
};

extern const struct ps_store_ops ps_store_memory;
extern const struct ps_store_ops ps_store_sqlite;
extern const struct ps_store_ops ps_store_etcd;
extern const struct ps_store_ops ps_store_etcds;

/* A copy of everything `from` points to. */
int ps_store_value_copy(const struct ps_store_value *from, struct ps_store_value *ret);
/* Appends a copy; values->items grows by doubling. */
int ps_store_values_add(struct ps_store_values *values, const struct ps_store_value *from);
/* Never 0, fits a signed 64-bit integer.  -EIO: the kernel gave no random bytes. */
int ps_store_draw_incarnation(uint64_t *ret);
/* Wall clock, milliseconds since 1970. */
int64_t ps_store_time_ms(void);

#endif

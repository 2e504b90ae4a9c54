/* SPDX-License-Identifier: MIT */
/*
 * The SQLite file as a file: made whole or not at all, recognised, probed, told apart from copies of
 * itself.  What is in it and how it is used is sqlite.c's.  doc/store.md shows the schema.
 */
#ifndef PS_STORE_SQLITE_FILE_H
#define PS_STORE_SQLITE_FILE_H

#include <sqlite3.h>

enum {
	PS_SQLITE_APPLICATION_ID = 0x50536c63, /* "PSlc", where file(1) looks for it */
	PS_SQLITE_FORMAT = 1,                  /* PRAGMA user_version */
	PS_SQLITE_BUSY_TIMEOUT_MS = 5000,      /* promised by ps_store_txn() */
	/* At opening, files up to this size are checked whole: 1 MiB took 11 ms, 4 MiB 44 ms. */
	PS_SQLITE_CHECK_MAX_PAGES = 256,
};

/* The connection to the store at path, made if nothing is there (mode 0600).  Errors and
 * *ret_message as ps_store_open(); *ret_message is left alone where a general sentence will do. */
int ps_sqlite_open(const char *path, sqlite3 **ret, char **ret_message);
/* Accepts NULL. */
void ps_sqlite_close(sqlite3 **db);
/* The negative errno for the connection's last error. */
int ps_sqlite_error(sqlite3 *db);
/* -EIDRM: the path no longer leads to the file that is open.  Costs one stat(2). */
int ps_sqlite_check_moved(sqlite3 *db);

#endif

// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "base/own.h"
#include "store/sqlite-file.h"
#include "store/store-backend.h"

#define STATE "h.key, h.data, h.revision, h.create_revision, h.time_ms"

enum statement {
	BEGIN,
	COMMIT,
	ROLLBACK,
	META,
	GET,
	LIST,
	PRESENT,
	APPEND,
	SET,
	UNSET,
	ADVANCE,
	CHANGES,
	HISTORY,
	N_STATEMENTS,
};

static const char *const statement_text[] = {
	[BEGIN] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
	[META] = "SELECT revision, incarnation FROM meta",
	[GET] = "SELECT " STATE " FROM kv CROSS JOIN history h ON h.id = kv.id WHERE kv.key = ?1",
	[LIST] = "SELECT " STATE " FROM kv CROSS JOIN history h ON h.id = kv.id"
		 " WHERE kv.key >= ?1 AND kv.key < ?2 ORDER BY kv.key",
	[PRESENT] = "SELECT revision, create_revision FROM kv WHERE key = ?1",
	[APPEND] = "INSERT INTO history(key, data, revision, create_revision, time_ms)"
		   " VALUES(?1, ?2, ?3, ?4, ?5)",
	[SET] = "INSERT OR REPLACE INTO kv(key, id, revision, create_revision)"
		" VALUES(?1, last_insert_rowid(), ?2, ?3)",
	[UNSET] = "DELETE FROM kv WHERE key = ?1",
	[ADVANCE] = "UPDATE meta SET revision = ?1",
	[CHANGES] =
		"SELECT " STATE " FROM history h INDEXED BY history_revision"
		" WHERE h.revision > ?3 AND h.key >= ?1 AND h.key < ?2 ORDER BY h.revision, h.id",
	[HISTORY] = "SELECT " STATE " FROM history h INDEXED BY history_key WHERE h.key = ?1"
		    " ORDER BY h.revision DESC LIMIT ?2",
};

struct sqlite {
	struct ps_store base;
	sqlite3 *db;
	sqlite3_stmt *statements[N_STATEMENTS];
	int watch_fd; /* -1 until somebody asks: inotify instances are few (128 a user) */
};

static struct sqlite *sqlite_of(struct ps_store *store)
{
	return (struct sqlite *)store;
}

static void sqlite_close(struct ps_store *store)
{
	struct sqlite *s = sqlite_of(store);

	for (size_t i = 0; i < N_STATEMENTS; i++)
		(void)sqlite3_finalize(s->statements[i]);
	ps_sqlite_close(&s->db);
	ps_fd_drop(&s->watch_fd);
	free(s);
}

static int sqlite_open(const char *place, struct ps_store **ret, char **ret_message)
{
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	struct sqlite *s;
	int r;

	if (!*place)
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->base.ops = &ps_store_sqlite;
	s->watch_fd = -1;
	store = &s->base;
	r = ps_sqlite_open(place, &s->db, ret_message);
	if (r < 0)
		return r;
	for (size_t i = 0; i < N_STATEMENTS; i++) {
		if (sqlite3_prepare_v3(s->db, statement_text[i], -1, SQLITE_PREPARE_PERSISTENT,
				       &s->statements[i], NULL) != SQLITE_OK)
			return ps_sqlite_error(s->db);
	}
	*ret = ps_move(store);
	return 0;
}

/* Ends the use of a statement: while one is under way its snapshot stays and the log grows. */
static void put_back(sqlite3_stmt **statement)
{
	(void)sqlite3_reset(*statement);
	(void)sqlite3_clear_bindings(*statement);
}

/* 1: there is a row; 0: no more. */
static int step(sqlite3_stmt *statement)
{
	int code = sqlite3_step(statement);

	if (code == SQLITE_ROW)
		return 1;
	return code == SQLITE_DONE ? 0 : ps_sqlite_error(sqlite3_db_handle(statement));
}

static int run(struct sqlite *s, enum statement which)
{
	ps_auto(put_back) sqlite3_stmt *statement = s->statements[which];
	int r = step(statement);

	return r < 0 ? r : 0;
}

/* Bound memory must outlive the use of the statement; so do all arguments of all calls here. */
static void bind_key(sqlite3_stmt *statement, int place, const char *key)
{
	sqlite3_bind_blob(statement, place, key, (int)strlen(key), SQLITE_STATIC);
}

static void bind_number(sqlite3_stmt *statement, int place, uint64_t number)
{
	sqlite3_bind_int64(statement, place, number > INT64_MAX ? INT64_MAX : (int64_t)number);
}

/* Writes what no key that begins with prefix reaches: prefix, then 0xff beyond the longest key. */
static void end_of_prefix(const char *prefix, char ret[PS_STORE_KEY_MAX + 2])
{
	size_t len = strlen(prefix);

	memset(ret, 0xff, PS_STORE_KEY_MAX + 1);
	memcpy(ret, prefix, len < PS_STORE_KEY_MAX ? len : PS_STORE_KEY_MAX);
	ret[PS_STORE_KEY_MAX + 1] = '\0';
}

/* The state in the current row, pointing into it; key is a buffer for the key and its NUL. */
static int read_state(sqlite3_stmt *statement, char key[PS_STORE_KEY_MAX + 1],
		      struct ps_store_value *ret)
{
	const void *key_bytes = sqlite3_column_blob(statement, 0);
	int key_len = sqlite3_column_bytes(statement, 0);
	bool deleted = sqlite3_column_type(statement, 1) == SQLITE_NULL;
	const void *data = sqlite3_column_blob(statement, 1);
	int len = sqlite3_column_bytes(statement, 1);

	if (!key_bytes || key_len > PS_STORE_KEY_MAX)
		return -EBADMSG;
	if (len > 0 && !data)
		return -ENOMEM;
	memcpy(key, key_bytes, (size_t)key_len);
	key[key_len] = '\0';
	*ret = (struct ps_store_value){
		.key = key,
		.len = (size_t)len,
		.revision = (uint64_t)sqlite3_column_int64(statement, 2),
		.create_revision = (uint64_t)sqlite3_column_int64(statement, 3),
		.time_ms = sqlite3_column_int64(statement, 4),
	};
	if (!deleted) /* SQLite gives NULL for an empty blob; the copy is of len bytes, none */
		ret->data = data ? (char *)(uintptr_t)data : key;
	return 0;
}

static int collect(sqlite3_stmt *statement, struct ps_store_values *ret)
{
	ps_auto(ps_store_values_clear) struct ps_store_values values = {0};
	char key[PS_STORE_KEY_MAX + 1];
	int r;

	while ((r = step(statement)) > 0) {
		struct ps_store_value state;

		r = read_state(statement, key, &state);
		if (r >= 0)
			r = ps_store_values_add(&values, &state);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	*ret = values;
	values = (struct ps_store_values){0};
	return 0;
}

static int sqlite_get(struct ps_store *store, const char *key, struct ps_store_value *ret)
{
	struct sqlite *s = sqlite_of(store);
	ps_auto(put_back) sqlite3_stmt *statement = s->statements[GET];
	char key_copy[PS_STORE_KEY_MAX + 1];
	struct ps_store_value state;
	int r = ps_sqlite_check_moved(s->db);

	if (r < 0)
		return r;
	bind_key(statement, 1, key);
	r = step(statement);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	r = read_state(statement, key_copy, &state);
	return r < 0 ? r : ps_store_value_copy(&state, ret);
}

static int sqlite_list(struct ps_store *store, const char *prefix, struct ps_store_values *ret)
{
	struct sqlite *s = sqlite_of(store);
	char end[PS_STORE_KEY_MAX + 2];
	ps_auto(put_back) sqlite3_stmt *statement = s->statements[LIST];
	int r = ps_sqlite_check_moved(s->db);

	if (r < 0)
		return r;
	end_of_prefix(prefix, end);
	bind_key(statement, 1, prefix);
	bind_key(statement, 2, end);
	return collect(statement, ret);
}

static int read_meta(struct sqlite *s, int column, uint64_t *ret)
{
	ps_auto(put_back) sqlite3_stmt *statement = s->statements[META];
	int r = ps_sqlite_check_moved(s->db);

	if (r < 0)
		return r;
	r = step(statement);
	if (r <= 0)
		return r < 0 ? r : -EBADMSG;
	*ret = (uint64_t)sqlite3_column_int64(statement, column);
	return 0;
}

static int sqlite_revision(struct ps_store *store, uint64_t *ret)
{
	return read_meta(sqlite_of(store), 0, ret);
}

static int sqlite_incarnation(struct ps_store *store, uint64_t *ret)
{
	return read_meta(sqlite_of(store), 1, ret);
}

/* Both are 0 for a key that does not exist. */
static int find_present(struct sqlite *s, const char *key, uint64_t *ret_revision,
			uint64_t *ret_create_revision)
{
	ps_auto(put_back) sqlite3_stmt *statement = s->statements[PRESENT];
	int r;

	bind_key(statement, 1, key);
	r = step(statement);
	if (r < 0)
		return r;
	*ret_revision = r ? (uint64_t)sqlite3_column_int64(statement, 0) : 0;
	*ret_create_revision = r ? (uint64_t)sqlite3_column_int64(statement, 1) : 0;
	return 0;
}

static int compare(struct sqlite *s, const struct ps_store_txn *txn, size_t *ret_failed)
{
	for (size_t i = 0; i < txn->n_compares; i++) {
		uint64_t revision, create_revision;
		int r = find_present(s, txn->compares[i].key, &revision, &create_revision);

		if (r < 0)
			return r;
		if (revision != txn->compares[i].revision) {
			*ret_failed = i;
			return -ESTALE;
		}
	}
	return 0;
}

static int append(struct sqlite *s, const struct ps_store_value *state)
{
	ps_auto(put_back) sqlite3_stmt *statement = s->statements[APPEND];
	int r;

	bind_key(statement, 1, state->key);
	sqlite3_bind_blob(statement, 2, state->data, (int)state->len, SQLITE_STATIC);
	bind_number(statement, 3, state->revision);
	bind_number(statement, 4, state->create_revision);
	sqlite3_bind_int64(statement, 5, state->time_ms);
	r = step(statement);
	return r < 0 ? r : 0;
}

/* Makes kv follow what append() has just written. */
static int point_at(struct sqlite *s, const struct ps_store_value *state)
{
	ps_auto(put_back) sqlite3_stmt *statement = s->statements[state->data ? SET : UNSET];
	int r;

	bind_key(statement, 1, state->key);
	if (state->data) {
		bind_number(statement, 2, state->revision);
		bind_number(statement, 3, state->create_revision);
	}
	r = step(statement);
	return r < 0 ? r : 0;
}

/* 1: written; 0: nothing to delete. */
static int write_one(struct sqlite *s, const struct ps_store_write *write, uint64_t revision,
		     int64_t time_ms)
{
	struct ps_store_value state = {.revision = revision, .time_ms = time_ms};
	uint64_t old, born;
	int r = find_present(s, write->key, &old, &born);

	if (r < 0)
		return r;
	if (!write->data && old == 0)
		return 0;
	state.key = (char *)(uintptr_t)write->key; /* append() and point_at() only read */
	state.data = (char *)(uintptr_t)write->data;
	if (write->data) {
		state.len = write->len;
		state.create_revision = old ? born : revision;
	}
	r = append(s, &state);
	if (r >= 0)
		r = point_at(s, &state);
	return r < 0 ? r : 1;
}

static int advance(struct sqlite *s, uint64_t revision)
{
	ps_auto(put_back) sqlite3_stmt *statement = s->statements[ADVANCE];
	int r;

	bind_number(statement, 1, revision);
	r = step(statement);
	return r < 0 ? r : 0;
}

/* Within BEGIN: 1: changed, to be committed; 0: nothing changed. */
static int transact(struct sqlite *s, const struct ps_store_txn *txn, uint64_t *ret_revision,
		    size_t *ret_failed)
{
	int64_t time_ms = ps_store_time_ms();
	uint64_t revision = 0;
	bool changed = false;
	int r = read_meta(s, 0, &revision);

	if (r >= 0)
		r = compare(s, txn, ret_failed);
	if (r < 0)
		return r;
	for (size_t i = 0; i < txn->n_writes; i++) {
		r = write_one(s, &txn->writes[i], revision + 1, time_ms);
		if (r < 0)
			return r;
		changed |= r > 0;
	}
	*ret_revision = revision + changed;
	if (!changed)
		return 0;
	r = advance(s, revision + 1);
	return r < 0 ? r : 1;
}

/* Watchers wait for this: SQLite's own writes come before the change can be seen, which appears in
 * shared memory without any event. */
static void touch(struct sqlite *s)
{
	(void)utimensat(AT_FDCWD, sqlite3_db_filename(s->db, "main"), NULL, 0);
}

static int sqlite_txn(struct ps_store *store, const struct ps_store_txn *txn,
		      uint64_t *ret_revision, size_t *ret_failed)
{
	struct sqlite *s = sqlite_of(store);
	int r = run(s, BEGIN);

	if (r < 0)
		return r;
	r = transact(s, txn, ret_revision, ret_failed);
	if (r > 0) {
		r = run(s, COMMIT);
		if (r >= 0)
			touch(s);
	}
	if (!sqlite3_get_autocommit(s->db))
		(void)run(s, ROLLBACK);
	return r;
}

/* On the file itself, not its folder: neighbours do not wake us, and unlinking or replacing the file
 * changes its link count or name, which wakes us too (inotify(7), IN_ATTRIB). */
static int sqlite_watch_fd(struct ps_store *store)
{
	struct sqlite *s = sqlite_of(store);
	ps_auto_fd int fd = -1;

	if (s->watch_fd >= 0)
		return s->watch_fd;
	fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (fd < 0 ||
	    inotify_add_watch(fd, sqlite3_db_filename(s->db, "main"), IN_ATTRIB | IN_MOVE_SELF) < 0)
		return -1;
	s->watch_fd = ps_fd_move(&fd);
	return s->watch_fd;
}

static bool sqlite_watch_clear(struct ps_store *store)
{
	bool is_news = false;
	char events[4096];

	while (read(sqlite_of(store)->watch_fd, events, sizeof(events)) > 0)
		is_news = true;
	return is_news;
}

static int sqlite_changes(struct ps_store *store, const char *prefix, uint64_t since,
			  struct ps_store_values *ret)
{
	struct sqlite *s = sqlite_of(store);
	char end[PS_STORE_KEY_MAX + 2];
	ps_auto(put_back) sqlite3_stmt *statement = s->statements[CHANGES];
	uint64_t revision;
	int r = read_meta(s, 0, &revision);

	if (r < 0)
		return r;
	if (revision <= since) {
		*ret = (struct ps_store_values){0};
		return 0;
	}
	end_of_prefix(prefix, end);
	bind_key(statement, 1, prefix);
	bind_key(statement, 2, end);
	bind_number(statement, 3, since);
	return collect(statement, ret);
}

static int sqlite_history(struct ps_store *store, const char *key, size_t max,
			  struct ps_store_values *ret)
{
	struct sqlite *s = sqlite_of(store);
	ps_auto(put_back) sqlite3_stmt *statement = s->statements[HISTORY];
	int r = ps_sqlite_check_moved(s->db);

	if (r < 0)
		return r;
	bind_key(statement, 1, key);
	bind_number(statement, 2, max);
	return collect(statement, ret);
}

const struct ps_store_ops ps_store_sqlite = {
	.scheme = "sqlite:",
	.open = sqlite_open,
	.close = sqlite_close,
	.get = sqlite_get,
	.list = sqlite_list,
	.txn = sqlite_txn,
	.revision = sqlite_revision,
	.incarnation = sqlite_incarnation,
	.watch_fd = sqlite_watch_fd,
	.watch_clear = sqlite_watch_clear,
	.changes = sqlite_changes,
	.history = sqlite_history,
};

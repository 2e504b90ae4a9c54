// SPDX-License-Identifier: MIT
#include "store/sqlite-file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/own.h"
#include "base/say.h"
#include "store/store-backend.h"

/* kv says where each key's present state lies in history, so that no value is stored twice. */
static const char schema[] = "BEGIN;"
			     "CREATE TABLE meta("
			     " one INTEGER PRIMARY KEY CHECK (one = 1),"
			     " revision INTEGER NOT NULL,"
			     " incarnation INTEGER NOT NULL,"
			     " file_inode INTEGER NOT NULL,"
			     " file_birth_ns INTEGER NOT NULL) STRICT;"
			     "CREATE TABLE history("
			     " id INTEGER PRIMARY KEY,"
			     " revision INTEGER NOT NULL,"
			     " create_revision INTEGER NOT NULL,"
			     " time_ms INTEGER NOT NULL,"
			     " key BLOB NOT NULL,"
			     " data BLOB) STRICT;"
			     "CREATE INDEX history_revision ON history(revision);"
			     "CREATE UNIQUE INDEX history_key ON history(key, revision);"
			     "CREATE TABLE kv("
			     " key BLOB PRIMARY KEY,"
			     " id INTEGER NOT NULL REFERENCES history(id),"
			     " revision INTEGER NOT NULL,"
			     " create_revision INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
			     "INSERT INTO meta VALUES(1, 0, 0, 0, 0);"
			     "COMMIT;";

int ps_sqlite_error(sqlite3 *db)
{
	static const struct {
		int code, error;
	} rows[] = {
		{SQLITE_CORRUPT, EBADMSG},  {SQLITE_NOTADB, EBADMSG},     {SQLITE_ERROR, EBADMSG},
		{SQLITE_MISMATCH, EBADMSG}, {SQLITE_CONSTRAINT, EBADMSG}, {SQLITE_BUSY, EBUSY},
		{SQLITE_LOCKED, EBUSY},     {SQLITE_PROTOCOL, EBUSY},     {SQLITE_NOMEM, ENOMEM},
		{SQLITE_FULL, ENOSPC},      {SQLITE_TOOBIG, E2BIG},       {SQLITE_PERM, EACCES},
		{SQLITE_READONLY, EACCES},  {SQLITE_AUTH, EACCES},
	};
	int code = sqlite3_extended_errcode(db), system = sqlite3_system_errno(db);

	if (code == SQLITE_READONLY_DBMOVED)
		return -EIDRM;
	if (code == SQLITE_IOERR_NOMEM)
		return -ENOMEM;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		if (rows[i].code == (code & 0xff))
			return -rows[i].error;
	}
	if ((code & 0xff) == SQLITE_CANTOPEN && system > 0)
		return -system;
	if ((code & 0xff) == SQLITE_IOERR && (system == ENOSPC || system == EDQUOT))
		return -ENOSPC;
	return -EIO;
}

int ps_sqlite_check_moved(sqlite3 *db)
{
	int moved = 0;

	if (sqlite3_file_control(db, "main", SQLITE_FCNTL_HAS_MOVED, &moved) != SQLITE_OK)
		return -EIO;
	return moved ? -EIDRM : 0;
}

void ps_sqlite_close(sqlite3 **db)
{
	(void)sqlite3_close(*db);
	*db = NULL;
}

static void finalize(sqlite3_stmt **statement)
{
	(void)sqlite3_finalize(*statement);
}

static int run(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : ps_sqlite_error(db);
}

/* The one row of sql, as integers. */
static int ask(sqlite3 *db, const char *sql, size_t n, int64_t ret[])
{
	ps_auto(finalize) sqlite3_stmt *statement = NULL;
	int code;

	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
		return ps_sqlite_error(db);
	code = sqlite3_step(statement);
	if (code != SQLITE_ROW)
		return code == SQLITE_DONE ? -EBADMSG : ps_sqlite_error(db);
	for (size_t i = 0; i < n; i++)
		ret[i] = sqlite3_column_int64(statement, (int)i);
	return 0;
}

static int connect_to(const char *path, sqlite3 **ret)
{
	ps_auto(ps_sqlite_close) sqlite3 *db = NULL;

	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) !=
	    SQLITE_OK)
		return db ? ps_sqlite_error(db) : -ENOMEM;
	sqlite3_extended_result_codes(db, 1);
	sqlite3_busy_timeout(db, PS_SQLITE_BUSY_TIMEOUT_MS);
	if (sqlite3_db_readonly(db, "main"))
		return -EACCES; /* SQLite falls back to reading when it may not write */
	*ret = ps_move(db);
	return 0;
}

static int prepare_connection(sqlite3 *db)
{
	/* The file is data, never program: no triggers, views or functions of a stranger's making. */
	sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
	sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
	return run(db,
		   "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cell_size_check=ON;");
}

/* A copy of a store is another store: its past is the same, its future is not.  The file's inode and
 * time of birth (0 where the file system keeps none) say whether this is the file that was named;
 * if not, it gets a new incarnation.  One UPDATE, so that of many openers one draws it. */
static int claim_identity(sqlite3 *db, const char *path)
{
	ps_auto(finalize) sqlite3_stmt *update = NULL;
	int64_t known[2], birth_ns = 0;
	uint64_t incarnation;
	struct statx file;
	int r = ask(db, "SELECT file_inode, file_birth_ns FROM meta", 2, known);

	if (r < 0)
		return r;
	if (statx(AT_FDCWD, path, 0, STATX_INO | STATX_BTIME, &file) < 0)
		return -errno;
	if (file.stx_mask & STATX_BTIME)
		birth_ns = (int64_t)file.stx_btime.tv_sec * 1000000000 + file.stx_btime.tv_nsec;
	if (known[0] == (int64_t)file.stx_ino && known[1] == birth_ns)
		return 0;
	r = ps_store_draw_incarnation(&incarnation);
	if (r < 0)
		return r;
	if (sqlite3_prepare_v2(
		    db,
		    "UPDATE meta SET incarnation = ?1, file_inode = ?2, file_birth_ns = ?3"
		    " WHERE file_inode <> ?2 OR file_birth_ns <> ?3",
		    -1, &update, NULL) != SQLITE_OK)
		return ps_sqlite_error(db);
	sqlite3_bind_int64(update, 1, (int64_t)incarnation);
	sqlite3_bind_int64(update, 2, (int64_t)file.stx_ino);
	sqlite3_bind_int64(update, 3, birth_ns);
	return sqlite3_step(update) == SQLITE_DONE ? 0 : ps_sqlite_error(db);
}

static int fill(const char *path)
{
	ps_auto(ps_sqlite_close) sqlite3 *db = NULL;
	char marks[80];
	int r = connect_to(path, &db);

	if (r < 0)
		return r;
	snprintf(marks, sizeof(marks), "PRAGMA application_id=%d; PRAGMA user_version=%d;",
		 PS_SQLITE_APPLICATION_ID, PS_SQLITE_FORMAT);
	r = prepare_connection(db);
	if (r >= 0)
		r = run(db, marks);
	if (r >= 0)
		r = run(db, schema);
	return r < 0 ? r : claim_identity(db, path);
}

static int sync_folder_of(const char *path)
{
	ps_auto_mem char *folder = strndup(path, (size_t)(strrchr(path, '/') - path) + 1);
	ps_auto_fd int fd = -1;

	if (!folder)
		return -ENOMEM;
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

/* Whatever SQLite could not tidy up, on a full disk for instance. */
static void remove_draft(const char *draft)
{
	static const char *const endings[] = {"-wal", "-shm", "-journal", ""};

	for (size_t i = 0; i < PS_N_ELEMENTS(endings); i++) {
		ps_auto_mem char *name = NULL;

		if (asprintf(&name, "%s%s", draft, endings[i]) < 0)
			name = NULL;
		else
			(void)unlink(name);
	}
}

/* Built under another name and linked into place whole, so that there is never half a store, an
 * empty file is always a lost one, and of two creators one wins. */
static int create(const char *path)
{
	ps_auto_mem char *draft = NULL;
	int fd, r;

	if (asprintf(&draft, "%s.new-XXXXXX", path) < 0) {
		draft = NULL;
		return -ENOMEM;
	}
	fd = mkostemp(draft, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	(void)close(fd);
	r = fill(draft);
	if (r >= 0 && link(draft, path) < 0 && errno != EEXIST)
		r = -errno;
	remove_draft(draft);
	return r < 0 ? r : sync_folder_of(path);
}

static bool is_missing(const char *path)
{
	struct stat file;

	return stat(path, &file) < 0 && errno == ENOENT;
}

/* SQLite would play a left-over log into the new file.  The log is looked at first: one that belongs
 * to a store made just now by another process comes with that store. */
static int create_if_missing(const char *path, char **ret_message)
{
	ps_auto_mem char *log = NULL;
	bool clean;

	if (asprintf(&log, "%s-wal", path) < 0) {
		log = NULL;
		return -ENOMEM;
	}
	clean = is_missing(log);
	if (!is_missing(path))
		return 0;
	if (clean)
		return create(path);
	return ps_say(ret_message, -EBADMSG,
		      "%s is gone but its log is not: put the file back, or remove %s and %s-shm "
		      "to begin with an empty store",
		      path, log, path);
}

static int check_kind(const char *path, char **ret_message)
{
	struct stat file;

	if (stat(path, &file) < 0)
		return -errno;
	if (!S_ISREG(file.st_mode))
		return ps_say(ret_message, -EBADMSG, "%s is not a file: name another path", path);
	if (file.st_size == 0)
		return ps_say(ret_message, -EBADMSG,
			      "%s is empty, a store never is: restore a backup, or remove it to "
			      "begin with an empty store",
			      path);
	return 0;
}

static int recognise(sqlite3 *db, const char *path, char **ret_message)
{
	int64_t id = 0, format = 0;
	int r = ask(db, "PRAGMA application_id", 1, &id);

	if (r >= 0)
		r = ask(db, "PRAGMA user_version", 1, &format);
	if (r < 0 && sqlite3_errcode(db) != SQLITE_NOTADB)
		return r;
	if (r < 0 || id != PS_SQLITE_APPLICATION_ID || format < 1)
		return ps_say(ret_message, -EBADMSG,
			      "%s is not a portslice store: name another path, or move it away",
			      path);
	if (format > PS_SQLITE_FORMAT)
		return ps_say(ret_message, -EPROTO,
			      "%s has format %lld, made by a newer portslice, and this one knows "
			      "%d: upgrade portslice on this host",
			      path, (long long)format, PS_SQLITE_FORMAT);
	return 0;
}

/* Both ends of the file always, every page while that is cheap. */
static int probe(sqlite3 *db)
{
	static const char ends[] =
		"SELECT (SELECT count(*) FROM meta) = 1 AND (SELECT revision FROM meta)"
		" = ifnull((SELECT max(revision) FROM history), 0)"
		" AND ifnull((SELECT revision FROM history ORDER BY id DESC LIMIT 1), 0)"
		" = ifnull((SELECT max(revision) FROM history), 0)";
	int64_t sound, n_pages;
	int r = ask(db, ends, 1, &sound);

	if (r < 0)
		return r;
	r = ask(db, "PRAGMA page_count", 1, &n_pages);
	if (r >= 0 && sound && n_pages <= PS_SQLITE_CHECK_MAX_PAGES)
		r = ask(db, "SELECT integrity_check = 'ok' FROM pragma_integrity_check(1)", 1,
			&sound);
	if (r < 0)
		return r;
	return sound ? 0 : -EBADMSG;
}

/* SQLite keeps the name it was given: an absolute one survives chdir(2), and none can be taken for
 * its special names such as ":memory:". */
static int resolve(const char *path, char **ret)
{
	ps_auto_mem char *whole = realpath(path, NULL);
	ps_auto_mem char *folder = NULL, *parent = NULL;
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	if (whole) {
		*ret = ps_move(whole);
		return 0;
	}
	if (errno != ENOENT)
		return -errno;
	if (!*name)
		return -ENOENT;
	folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	if (!folder)
		return -ENOMEM;
	parent = realpath(folder, NULL);
	if (!parent)
		return -errno;
	if (asprintf(ret, "%s/%s", parent, name) < 0) {
		*ret = NULL;
		return -ENOMEM;
	}
	return 0;
}

int ps_sqlite_open(const char *path, sqlite3 **ret, char **ret_message)
{
	ps_auto(ps_sqlite_close) sqlite3 *db = NULL;
	ps_auto_mem char *full = NULL;
	int r = resolve(path, &full);

	if (r >= 0)
		r = create_if_missing(full, ret_message);
	if (r >= 0)
		r = check_kind(full, ret_message);
	if (r >= 0)
		r = connect_to(full, &db);
	if (r >= 0)
		r = recognise(db, full, ret_message);
	if (r >= 0)
		r = prepare_connection(db);
	if (r >= 0)
		r = probe(db);
	if (r >= 0)
		r = claim_identity(db, full);
	if (r >= 0)
		r = ps_sqlite_check_moved(db);
	if (r < 0)
		return r;
	*ret = ps_move(db);
	return 0;
}

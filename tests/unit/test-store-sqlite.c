// SPDX-License-Identifier: MIT
/* What only a store in a file can suffer: strangers, damage, replacement, copies, crowds. */
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sqlite3.h>
#include <unistd.h>

#include "store-file.h"

static void put(struct ps_store *store, const char *key, const char *data)
{
	assert_int_equal(ps_store_put(store, key, data, strlen(data), NULL), 0);
}

static void make_store(const char *url, int n_keys)
{
	ps_auto(ps_store_close) struct ps_store *store = open_store(url);

	for (int i = 0; i < n_keys; i++) {
		char key[24];

		snprintf(key, sizeof(key), "key/%d", i);
		put(store, key, "a value long enough to fill a few pages of the file in no time");
	}
}

static uint64_t incarnation_of(struct ps_store *store)
{
	uint64_t incarnation;

	assert_int_equal(ps_store_incarnation(store, &incarnation), 0);
	return incarnation;
}

/* Opening fails with this error and a sentence of one line with the path and this text in it. */
static void expect_refusal(const char *path, int error, const char *text)
{
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	ps_auto_mem char *message = NULL;
	char url[PLACE_MAX + 64];

	snprintf(url, sizeof(url), "sqlite:%s", path);
	assert_int_equal(ps_store_open(url, &store, &message), error);
	assert_null(store);
	assert_non_null(message);
	assert_null(strchr(message, '\n'));
	if (!strstr(message, path) || !strstr(message, text))
		fail_msg("message is: %s", message);
}

static void run_sql(const char *path, const char *sql)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void a_store_is_for_its_owner_alone_whatever_the_umask(void **state)
{
	static const char *const endings[] = {"", "-wal", "-shm"};
	struct fixture *f = *state;
	mode_t mask = umask(0);
	ps_auto(ps_store_close) struct ps_store *store = open_store(f->url);

	umask(mask);
	put(store, "k", "v");
	for (size_t i = 0; i < PS_N_ELEMENTS(endings); i++) {
		char name[PLACE_MAX + 32];
		struct stat file;

		snprintf(name, sizeof(name), "%s%s", f->path, endings[i]);
		assert_int_equal(stat(name, &file), 0);
		assert_int_equal(file.st_mode & 07777, 0600);
	}
}

static void every_failure_to_open_names_the_path_and_the_remedy(void **state)
{
	struct fixture *f = *state;
	char path[PLACE_MAX + 32];

	snprintf(path, sizeof(path), "%s/missing/store.db", f->folder);
	expect_refusal(path, -ENOENT, "make its folder first");
	expect_refusal(f->folder, -EBADMSG, "is not a file");
	write_file(f->path, "", 0);
	expect_refusal(f->path, -EBADMSG, "is empty");
	write_file(f->path, "root:x:0:0:root:/root:/bin/bash\n", 32);
	expect_refusal(f->path, -EBADMSG, "is not a portslice store");
	assert_int_equal(unlink(f->path), 0);
	run_sql(f->path, "CREATE TABLE recipes(name); PRAGMA user_version = 7;");
	expect_refusal(f->path, -EBADMSG, "is not a portslice store");
	assert_int_equal(unlink(f->path), 0);
	make_store(f->url, 1);
	run_sql(f->path, "PRAGMA user_version = 2");
	expect_refusal(f->path, -EPROTO, "format 2");
	run_sql(f->path, "PRAGMA user_version = 1; UPDATE meta SET revision = 9");
	expect_refusal(f->path, -EBADMSG, "is damaged");
	run_sql(f->path, "UPDATE meta SET revision = 1; DROP INDEX history_key");
	expect_refusal(f->path, -EBADMSG, "is damaged");
}

static void a_file_that_was_refused_is_left_as_it_was(void **state)
{
	struct fixture *f = *state;
	ps_auto_mem char *before = NULL, *after = NULL;
	size_t len_before, len_after;

	run_sql(f->path, "CREATE TABLE recipes(name); INSERT INTO recipes VALUES('soup')");
	before = read_file(f->path, &len_before);
	expect_refusal(f->path, -EBADMSG, "is not a portslice store");
	after = read_file(f->path, &len_after);
	assert_int_equal(len_before, len_after);
	assert_memory_equal(before, after, len_before);
}

/* Runs check in a child without root's rights. */
static void run_unprivileged(struct fixture *f, void (*check)(struct fixture *f))
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		if (geteuid() == 0 &&
		    (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534)))
			_exit(2);
		check(f);
		_exit(0);
	}
	assert_int_equal(wait_for(pid), 0);
}

static void check_refused_for_access(struct fixture *f)
{
	ps_auto_mem char *message = NULL;
	struct ps_store *store;

	if (ps_store_open(f->url, &store, &message) != -EACCES || !message ||
	    !strstr(message, f->path) || !strstr(message, "owner and mode"))
		_exit(1);
}

static void a_store_that_may_not_be_read_or_written_is_eacces(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(chmod(f->folder, 0555), 0);
	run_unprivileged(f, check_refused_for_access);
	assert_int_equal(chmod(f->folder, 0777), 0);
	make_store(f->url, 1);
	assert_int_equal(chmod(f->path, 0000), 0);
	run_unprivileged(f, check_refused_for_access);
	assert_int_equal(chmod(f->path, 0444), 0);
	run_unprivileged(f, check_refused_for_access);
}

static void a_truncated_store_is_refused_at_every_length(void **state)
{
	struct fixture *f = *state;
	ps_auto_mem char *bytes = NULL;
	size_t len;

	make_store(f->url, 50);
	bytes = read_file(f->path, &len);
	for (size_t cut = 1; cut < len; cut += 1021) {
		write_file(f->path, bytes, cut);
		expect_refusal(f->path, -EBADMSG, "");
	}
}

/* Every call once; results are the caller's to judge. */
static void use_everything(struct ps_store *store, int ret[5])
{
	ps_auto(ps_store_values_clear) struct ps_store_values list = {0}, changes = {0}, past = {0};
	ps_auto(ps_store_value_clear) struct ps_store_value value = {0};

	ret[0] = ps_store_get(store, "key/7", &value);
	ret[1] = ps_store_list(store, "", &list);
	ret[2] = ps_store_changes(store, "", 0, &changes);
	ret[3] = ps_store_history(store, "key/7", 9, &past);
	ret[4] = ps_store_put(store, "key/7", "new", 3, NULL);
}

static void damage_anywhere_is_an_error_and_never_a_crash(void **state)
{
	struct fixture *f = *state;
	unsigned short seed[3] = {1, 2, 3};
	ps_auto_mem char *bytes = NULL;
	int n_found = 0;
	size_t len;

	make_store(f->url, 300);
	bytes = read_file(f->path, &len);
	for (int i = 0; i < 150; i++) {
		ps_auto(ps_store_close) struct ps_store *store = NULL;
		ps_auto_mem char *copy = malloc(len);
		size_t first = (size_t)nrand48(seed) % len, n = 1 + (size_t)nrand48(seed) % 300;
		int r, results[5] = {0};

		assert_non_null(copy);
		memcpy(copy, bytes, len);
		for (size_t at = first; at < len && at < first + n; at++)
			copy[at] = (char)nrand48(seed);
		remove_store(f->path);
		write_file(f->path, copy, len);
		r = ps_store_open(f->url, &store, NULL);
		assert_true(r == 0 || r == -EBADMSG || r == -EPROTO || r == -EIO);
		if (r == 0)
			use_everything(store, results);
		for (int j = 0; j < 5; j++)
			assert_true(results[j] == 0 || results[j] == -EBADMSG ||
				    (j == 0 && results[j] == -ENOENT));
		n_found += r < 0;
	}
	assert_true(n_found > 60); /* the rest fell into values and free space */
}

static void damage_done_while_open_is_ebadmsg(void **state)
{
	struct fixture *f = *state;
	ps_auto(ps_store_close) struct ps_store *store = open_store(f->url);
	static const char large[200000];
	int results[5];
	FILE *file;

	for (int i = 0; i < 40; i++) {
		char key[24];

		snprintf(key, sizeof(key), "key/%d", i);
		assert_int_equal(ps_store_put(store, key, large, sizeof(large), NULL), 0);
	}
	ps_store_close(&store); /* the file is now larger than what opening reads */
	store = open_store(f->url);
	file = fopen(f->path, "r+");
	assert_non_null(file);
	for (long at = 3 * 4096; fseek(file, at, SEEK_SET) == 0 && at < 1000 * 4096; at += 4096)
		fputs("garbage where a page begins", file);
	fclose(file);
	use_everything(store, results);
	assert_int_equal(results[1], -EBADMSG);
	assert_int_equal(results[2], -EBADMSG);
}

static bool is_readable(struct ps_store *store)
{
	struct pollfd poll_fd = {.fd = ps_store_watch_fd(store), .events = POLLIN};

	return poll(&poll_fd, 1, 0) == 1;
}

static void expect_useless(struct ps_store *store)
{
	uint64_t number = 77;
	int results[5];

	assert_true(is_readable(store));
	use_everything(store, results);
	for (int i = 0; i < 5; i++)
		assert_int_equal(results[i], -EIDRM);
	assert_int_equal(ps_store_revision(store, &number), -EIDRM);
	assert_int_equal(ps_store_incarnation(store, &number), -EIDRM);
	assert_int_equal(number, 77);
}

static void a_store_deleted_under_a_handle_wakes_it_and_is_reported_by_every_call(void **state)
{
	struct fixture *f = *state;
	ps_auto(ps_store_close) struct ps_store *store = open_store(f->url);

	put(store, "k", "v");
	assert_true(ps_store_watch_fd(store) >= 0);
	remove_store(f->path);
	expect_useless(store);
}

static void a_store_replaced_under_a_handle_is_reported_and_the_new_one_not_touched(void **state)
{
	struct fixture *f = *state;
	ps_auto(ps_store_close) struct ps_store *old = open_store(f->url), *new = NULL;
	uint64_t old_incarnation = incarnation_of(old);

	put(old, "k", "v");
	assert_true(ps_store_watch_fd(old) >= 0);
	remove_store(f->path);
	new = open_store(f->url);
	expect_useless(old);
	ps_store_close(&old);
	assert_int_equal(revision_of(new), 0);
	assert_int_not_equal(incarnation_of(new), old_incarnation);
	put(new, "k", "new");
	assert_int_equal(revision_of(new), 1);
}

static void a_store_moved_over_by_another_is_reported(void **state)
{
	struct fixture *f = *state;
	ps_auto(ps_store_close) struct ps_store *store = open_store(f->url);
	char other[PLACE_MAX + 32];

	assert_true(ps_store_watch_fd(store) >= 0);
	snprintf(other, sizeof(other), "sqlite:%s/other.db", f->folder);
	make_store(other, 3);
	assert_int_equal(rename(other + strlen("sqlite:"), f->path), 0);
	expect_useless(store);
}

static void a_log_without_its_store_is_not_played_into_a_new_one(void **state)
{
	struct fixture *f = *state;
	ps_auto(ps_store_close) struct ps_store *store = open_store(f->url);

	put(store, "k", "v");
	assert_int_equal(unlink(f->path), 0);
	expect_refusal(f->path, -EBADMSG, "-wal");
	ps_store_close(&store);
	expect_refusal(f->path, -EBADMSG, "-wal");
	remove_store(f->path);
	store = open_store(f->url);
	assert_int_equal(revision_of(store), 0);
}

static void a_restored_copy_keeps_the_contents_but_not_the_incarnation(void **state)
{
	struct fixture *f = *state;
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	ps_auto_mem char *bytes = NULL;
	uint64_t original, copied;
	char moved[PLACE_MAX + 48], sql[PLACE_MAX + 64];
	size_t len;

	make_store(f->url, 3);
	store = open_store(f->url);
	original = incarnation_of(store);
	snprintf(sql, sizeof(sql), "VACUUM INTO '%s/backup.db'", f->folder);
	run_sql(f->path, sql); /* as doc/store.md says, while it is in use */
	ps_store_close(&store);
	remove_store(f->path);

	snprintf(moved, sizeof(moved), "%s/backup.db", f->folder);
	bytes = read_file(moved, &len);
	write_file(f->path, bytes, len);
	store = open_store(f->url);
	copied = incarnation_of(store);
	assert_int_not_equal(copied, original);
	assert_int_equal(revision_of(store), 3);
	ps_store_close(&store);
	store = open_store(f->url);
	assert_int_equal(incarnation_of(store), copied);
	ps_store_close(&store);

	snprintf(moved, sizeof(moved), "sqlite:%s/moved.db", f->folder);
	assert_int_equal(rename(f->path, moved + strlen("sqlite:")), 0);
	store = open_store(moved);
	assert_int_equal(incarnation_of(store), copied);
}

static void a_relative_path_outlives_a_change_of_folder(void **state)
{
	struct fixture *f = *state;
	ps_auto_fd int here = open(".", O_PATH | O_CLOEXEC);
	ps_auto(ps_store_close) struct ps_store *store = NULL;

	assert_int_equal(chdir(f->folder), 0);
	store = open_store("sqlite:store.db");
	assert_int_equal(fchdir(here), 0);
	put(store, "k", "v");
	assert_int_equal(access(f->path, F_OK), 0);
	assert_true(ps_store_watch_fd(store) >= 0);
}

/* SQLite would open a database in memory under this name, and every restart would forget. */
static void a_file_named_like_sqlites_memory_is_a_file(void **state)
{
	struct fixture *f = *state;
	ps_auto_fd int here = open(".", O_PATH | O_CLOEXEC);

	assert_int_equal(chdir(f->folder), 0);
	make_store("sqlite::memory:", 1);
	assert_int_equal(access(":memory:", F_OK), 0);
	assert_int_equal(fchdir(here), 0);
}

static void open_and_report(const char *url, int go_fd, int report_fd)
{
	struct ps_store *store;
	uint64_t incarnation;
	char byte;

	if (read(go_fd, &byte, 1) != 0) /* all begin when the parent closes its end */
		_exit(2);
	if (ps_store_open(url, &store, NULL) < 0 || ps_store_incarnation(store, &incarnation) < 0 ||
	    ps_store_put(store, "k", "v", 1, NULL) < 0 ||
	    write(report_fd, &incarnation, sizeof(incarnation)) != sizeof(incarnation))
		_exit(3);
	ps_store_close(&store);
	_exit(0);
}

static void processes_that_create_at_once_agree_on_one_store(void **state)
{
	enum { N_PROCESSES = 4, N_ROUNDS = 10 };
	struct fixture *f = *state;

	for (int round = 0; round < N_ROUNDS; round++) {
		uint64_t incarnations[N_PROCESSES];
		pid_t pids[N_PROCESSES];
		int go[2], report[2];

		assert_int_equal(pipe2(go, O_CLOEXEC) | pipe2(report, O_CLOEXEC), 0);
		for (int i = 0; i < N_PROCESSES; i++) {
			pids[i] = fork();
			assert_true(pids[i] >= 0);
			if (pids[i] == 0) {
				close(go[1]);
				open_and_report(f->url, go[0], report[1]);
			}
		}
		close(go[1]);
		for (int i = 0; i < N_PROCESSES; i++)
			assert_int_equal(wait_for(pids[i]), 0);
		assert_int_equal(read(report[0], incarnations, sizeof(incarnations)),
				 sizeof(incarnations));
		for (int i = 1; i < N_PROCESSES; i++)
			assert_int_equal(incarnations[i], incarnations[0]);
		close(go[0]);
		close(report[0]);
		close(report[1]);
		remove_store(f->path);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_store_is_for_its_owner_alone_whatever_the_umask),
		T(every_failure_to_open_names_the_path_and_the_remedy),
		T(a_file_that_was_refused_is_left_as_it_was),
		T(a_store_that_may_not_be_read_or_written_is_eacces),
		T(a_truncated_store_is_refused_at_every_length),
		T(damage_anywhere_is_an_error_and_never_a_crash),
		T(damage_done_while_open_is_ebadmsg),
		T(a_store_deleted_under_a_handle_wakes_it_and_is_reported_by_every_call),
		T(a_store_replaced_under_a_handle_is_reported_and_the_new_one_not_touched),
		T(a_store_moved_over_by_another_is_reported),
		T(a_log_without_its_store_is_not_played_into_a_new_one),
		T(a_restored_copy_keeps_the_contents_but_not_the_incarnation),
		T(a_relative_path_outlives_a_change_of_folder),
		T(a_file_named_like_sqlites_memory_is_a_file),
		T(processes_that_create_at_once_agree_on_one_store),
	};

	return cmocka_run_group_tests_name("store in a file", tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* What only a store in a file can suffer. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/own.h"
#include "cm.h"
#include "store/store.h"
#include "store-place.h"

struct fixture {
	char folder[PLACE_MAX];
	char path[PLACE_MAX + 16];
	char url[PLACE_MAX + 32];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	place_make(f->folder);
	snprintf(f->path, sizeof(f->path), "%s/store.db", f->folder);
	snprintf(f->url, sizeof(f->url), "sqlite:%s", f->path);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	place_remove(f->folder);
	free(f);
	return 0;
}

static struct ps_store *open_store(const char *url)
{
	ps_auto_mem char *message = NULL;
	struct ps_store *store = NULL;

	if (ps_store_open(url, &store, &message) < 0)
		fail_msg("%s", message);
	return store;
}

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

static uint64_t revision_of(struct ps_store *store)
{
	uint64_t revision;

	assert_int_equal(ps_store_revision(store, &revision), 0);
	return revision;
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

static void *read_file(const char *path, size_t *ret_len)
{
	FILE *in = fopen(path, "r");
	struct stat file;
	void *bytes;

	assert_non_null(in);
	assert_int_equal(fstat(fileno(in), &file), 0);
	*ret_len = (size_t)file.st_size;
	bytes = malloc(*ret_len + 1);
	assert_non_null(bytes);
	assert_int_equal(fread(bytes, 1, *ret_len, in), *ret_len);
	fclose(in);
	return bytes;
}

static void write_file(const char *path, const void *bytes, size_t len)
{
	FILE *out = fopen(path, "w");

	assert_non_null(out);
	assert_int_equal(fwrite(bytes, 1, len, out), len);
	assert_int_equal(fclose(out), 0);
}

static void remove_store(const char *path)
{
	static const char *const endings[] = {"", "-wal", "-shm"};

	for (size_t i = 0; i < PS_N_ELEMENTS(endings); i++) {
		char name[PLACE_MAX + 32];

		snprintf(name, sizeof(name), "%s%s", path, endings[i]);
		assert_true(unlink(name) == 0 || errno == ENOENT);
	}
}

static void run_sql(const char *path, const char *sql)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* The child's exit code; a crash or a sanitizer's finding fails here. */
static int wait_for(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
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

/* One transaction: "a" and "b" become its revision, with enough bytes to span pages. */
static int write_pair(struct ps_store *store, uint64_t *ret_revision)
{
	char data[6000];
	uint64_t revision;
	struct ps_store_write writes[2] = {{"a", data, sizeof(data)}, {"b", data, sizeof(data)}};
	int r = ps_store_revision(store, &revision);

	if (r < 0)
		return r;
	memset(data, '.', sizeof(data));
	snprintf(data, sizeof(data), "%" PRIu64, revision + 1);
	return ps_store_txn(store, NULL, 0, writes, 2, ret_revision, NULL);
}

/* Returns the revision of a store that holds nothing but whole pairs. */
static uint64_t check_pairs(struct ps_store *store)
{
	ps_auto(ps_store_values_clear) struct ps_store_values list = {0}, changes = {0};
	uint64_t revision = revision_of(store);

	assert_int_equal(ps_store_list(store, "", &list), 0);
	assert_int_equal(list.n, revision ? 2 : 0);
	for (size_t i = 0; i < list.n; i++) {
		assert_int_equal(list.items[i].revision, revision);
		assert_int_equal(strtoull(list.items[i].data, NULL, 10), revision);
	}
	assert_int_equal(ps_store_changes(store, "", revision < 50 ? 0 : revision - 50, &changes),
			 0);
	assert_int_equal(changes.n, 2 * (revision < 50 ? revision : 50));
	return revision;
}

static void write_until_killed(const char *url, int report_fd)
{
	struct ps_store *store;
	uint64_t revision;

	if (ps_store_open(url, &store, NULL) < 0)
		_exit(2);
	while (write_pair(store, &revision) == 0) {
		if (write(report_fd, &revision, sizeof(revision)) != sizeof(revision))
			_exit(3);
	}
	_exit(4);
}

static uint64_t last_number_in(int fd)
{
	uint64_t numbers[8192];
	ssize_t len = read(fd, numbers, sizeof(numbers));

	assert_true(len >= 0 && len % (ssize_t)sizeof(numbers[0]) == 0);
	return len ? numbers[(size_t)len / sizeof(numbers[0]) - 1] : 0;
}

static void a_writer_killed_at_any_moment_leaves_whole_transactions_and_loses_none(void **state)
{
	struct fixture *f = *state;
	ps_auto(ps_store_close) struct ps_store *witness = NULL;
	unsigned short seed[3] = {4, 5, 6};
	uint64_t revision = 0;

	for (int round = 0; round < 40; round++) {
		ps_auto(ps_store_close) struct ps_store *store = NULL;
		uint64_t reported;
		int report[2], status;
		pid_t pid;

		assert_int_equal(pipe2(report, O_CLOEXEC), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0)
			write_until_killed(f->url, report[1]);
		close(report[1]);
		usleep((useconds_t)(1000 + nrand48(seed) % 30000));
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		reported = last_number_in(report[0]);
		close(report[0]);
		store = open_store(f->url);
		revision = check_pairs(store);
		assert_true(revision >= reported);
		if (round == 20) /* from here the log outlives each round */
			witness = open_store(f->url);
		if (witness)
			assert_int_equal(check_pairs(witness), revision);
	}
	assert_true(revision > 40);
}

/* What a power cut leaves: any front part of the log, or one with a rotten byte. */
static void a_log_cut_or_rotten_anywhere_leaves_whole_transactions(void **state)
{
	struct fixture *f = *state;
	ps_auto_mem char *base = NULL, *log = NULL;
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	size_t base_len, log_len;
	uint64_t last = 0;
	char log_path[PLACE_MAX + 32];

	snprintf(log_path, sizeof(log_path), "%s-wal", f->path);
	ps_store_close((struct ps_store *[]){open_store(f->url)});
	base = read_file(f->path, &base_len);
	store = open_store(f->url);
	for (int i = 0; i < 12; i++)
		assert_int_equal(write_pair(store, NULL), 0);
	log = read_file(log_path, &log_len);
	ps_store_close(&store);
	for (size_t cut = 0; cut <= log_len; cut += 5003) {
		uint64_t revision;

		for (int rotten = 0; rotten < 2; rotten++) {
			remove_store(f->path);
			write_file(f->path, base, base_len);
			if (rotten && cut < log_len)
				log[cut] ^= 1;
			write_file(log_path, log, rotten ? log_len : cut);
			if (rotten && cut < log_len)
				log[cut] ^= 1;
			store = open_store(f->url);
			revision = check_pairs(store);
			assert_int_equal(write_pair(store, NULL), 0);
			ps_store_close(&store);
			assert_true(rotten || revision >= last);
			last = rotten ? last : revision;
		}
	}
	assert_true(last >= 11);
}

static int count_files(const char *folder)
{
	struct dirent **names;
	int n = scandir(folder, &names, NULL, NULL);

	for (int i = 0; i < n; i++)
		free(names[i]);
	free(names);
	return n - 2; /* without . and .. */
}

/* In a child with a disk of its own: too small for a store, then for many pairs, then not. */
static void fill_a_disk(struct fixture *f)
{
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	uint64_t revision = 0;
	int r = 0;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", f->folder, "tmpfs", 0, "size=16k") < 0)
		_exit(77);
	if (ps_store_open(f->url, &store, NULL) != -ENOSPC || count_files(f->folder) != 0)
		_exit(7);
	if (mount(NULL, f->folder, NULL, MS_REMOUNT, "size=512k") < 0)
		_exit(5);
	if (ps_store_open(f->url, &store, NULL) < 0)
		_exit(2);
	for (int i = 0; i < 1000 && r == 0; i++)
		r = write_pair(store, &revision);
	if (r != -ENOSPC || revision < 5 || check_pairs(store) != revision)
		_exit(3);
	if (write_pair(store, NULL) != -ENOSPC || check_pairs(store) != revision)
		_exit(4);
	if (mount(NULL, f->folder, NULL, MS_REMOUNT, "size=4m") < 0)
		_exit(5);
	if (write_pair(store, NULL) < 0 || check_pairs(store) != revision + 1)
		_exit(6);
	ps_store_close(&store);
	_exit(0);
}

static void a_full_disk_is_enospc_changes_nothing_and_passes(void **state)
{
	pid_t pid = fork();
	int code;

	assert_true(pid >= 0);
	if (pid == 0) {
		if (unshare(CLONE_NEWNS) < 0)
			_exit(77);
		fill_a_disk(*state);
	}
	code = wait_for(pid);
	if (code == 77) {
		print_message("skipped: may not mount a file system of its own here\n");
		skip();
	}
	assert_int_equal(code, 0);
}

/* Waits for its 5 s beside the other tests: begun before them, judged after them. */
static pid_t waiter;
static char waiter_folder[PLACE_MAX];

static void wait_behind_another_writer(const char *url, const char *path)
{
	ps_auto_mem char *text = NULL;
	struct ps_store *store;
	struct timespec before, after;
	uint64_t revision;
	sqlite3 *db;
	int r;

	if (ps_store_open(url, &store, NULL) < 0 || sqlite3_open(path, &db) != SQLITE_OK ||
	    sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
		_exit(2);
	clock_gettime(CLOCK_MONOTONIC, &before);
	r = ps_store_put(store, "k", "v", 1, NULL);
	clock_gettime(CLOCK_MONOTONIC, &after);
	if (r != -EBUSY || after.tv_sec - before.tv_sec < 4)
		_exit(3);
	if (ps_store_revision(store, &revision) < 0 || revision != 0)
		_exit(4); /* reading does not wait for writers */
	if (ps_store_error_text(r, url, &text) < 0 || !strstr(text, "5 s"))
		_exit(5);
	if (sqlite3_close(db) != SQLITE_OK || ps_store_put(store, "k", "v", 1, NULL) < 0)
		_exit(6);
	ps_store_close(&store);
	free(ps_move(text));
	_exit(0);
}

static int start_waiter(void **state)
{
	char url[PLACE_MAX + 32];

	(void)state;
	place_make(waiter_folder);
	snprintf(url, sizeof(url), "sqlite:%s/store.db", waiter_folder);
	waiter = fork();
	if (waiter == 0)
		wait_behind_another_writer(url, url + strlen("sqlite:"));
	return waiter < 0 ? -1 : 0;
}

static void a_writer_kept_waiting_for_five_seconds_gives_up_with_ebusy(void **state)
{
	(void)state;
	assert_int_equal(wait_for(waiter), 0);
	place_remove(waiter_folder);
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
		T(a_writer_killed_at_any_moment_leaves_whole_transactions_and_loses_none),
		T(a_log_cut_or_rotten_anywhere_leaves_whole_transactions),
		T(a_full_disk_is_enospc_changes_nothing_and_passes),
		cmocka_unit_test(a_writer_kept_waiting_for_five_seconds_gives_up_with_ebusy),
	};

	return cmocka_run_group_tests_name("store in a file", tests, start_waiter, NULL);
}

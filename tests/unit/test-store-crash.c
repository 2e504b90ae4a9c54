// SPDX-License-Identifier: MIT
/* What the machine does to a store in a file: kills its writers, cuts its power, fills its disk. */
#include <dirent.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include "store-file.h"

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
		T(a_writer_killed_at_any_moment_leaves_whole_transactions_and_loses_none),
		T(a_log_cut_or_rotten_anywhere_leaves_whole_transactions),
		T(a_full_disk_is_enospc_changes_nothing_and_passes),
		cmocka_unit_test(a_writer_kept_waiting_for_five_seconds_gives_up_with_ebusy),
	};

	return cmocka_run_group_tests_name("store in a crash", tests, start_waiter, NULL);
}

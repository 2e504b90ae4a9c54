// SPDX-License-Identifier: MIT
/* The contract of store.h: one suite, run over every back end. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/own.h"
#include "cm.h"
#include "etcd-lab.h"
#include "store/store.h"
#include "store-place.h"

static struct lab lab; /* one etcd for all; each test has a prefix of its own */

static void memory_url(const char *folder, char *ret, size_t size)
{
	(void)folder;
	snprintf(ret, size, "memory:");
}

static void sqlite_url(const char *folder, char *ret, size_t size)
{
	snprintf(ret, size, "sqlite:%s/store.db", folder);
}

static void etcd_url(const char *folder, char *ret, size_t size)
{
	lab_url(&lab, 0, strrchr(folder, '/') + 1, ret, size);
}

/* A back end: how its URL is made for a fresh folder; shared: two handles of one URL, also in
 * different processes, see the same store; otherwise a store belongs to its one handle. */
struct back_end {
	const char *name;
	void (*make_url)(const char *folder, char *ret, size_t size);
	bool shared;
	size_t value_max; /* what fits */
	int n_steps;      /* compared with the naive model: a second or two */
};

static const struct back_end back_ends[] = {
	{"store contract: memory", memory_url, false, PS_STORE_VALUE_MAX, 500},
	{"store contract: sqlite", sqlite_url, true, PS_STORE_VALUE_MAX, 500},
	{"store contract: etcd", etcd_url, true, 1024 * 1024, 150},
};

static const struct back_end *back_end;

struct fixture {
	char folder[PLACE_MAX];
	char url[2 * PLACE_MAX];
	struct ps_store *store;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	place_make(f->folder);
	back_end->make_url(f->folder, f->url, sizeof(f->url));
	assert_int_equal(ps_store_open(f->url, &f->store, NULL), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	ps_store_close(&f->store);
	place_remove(f->folder);
	free(f);
	return 0;
}

static struct ps_store *store_of(void **state)
{
	return ((struct fixture *)*state)->store;
}

/* data NULL deletes. */
static uint64_t put(struct ps_store *store, const char *key, const char *data)
{
	uint64_t revision;

	assert_int_equal(ps_store_put(store, key, data, data ? strlen(data) : 0, &revision), 0);
	return revision;
}

static uint64_t revision_of(struct ps_store *store)
{
	uint64_t revision;

	assert_int_equal(ps_store_revision(store, &revision), 0);
	return revision;
}

/* "key=data@revision/create_revision" of each, with a space between; "-" for deletions. */
static void print_values(const struct ps_store_values *values, char *text, size_t size)
{
	FILE *out = fmemopen(text, size, "w");

	assert_non_null(out);
	for (size_t i = 0; i < values->n; i++) {
		const struct ps_store_value *v = &values->items[i];

		fprintf(out, "%s%s=%s@%" PRIu64 "/%" PRIu64, i ? " " : "", v->key,
			v->data ? v->data : "-", v->revision, v->create_revision);
		assert_true(v->data || v->len == 0);
		assert_true(v->time_ms > 0);
	}
	fclose(out);
}

static void expect_list(struct ps_store *store, const char *prefix, const char *expected)
{
	ps_auto(ps_store_values_clear) struct ps_store_values values = {0};
	char text[4096] = "";

	assert_int_equal(ps_store_list(store, prefix, &values), 0);
	print_values(&values, text, sizeof(text));
	assert_string_equal(text, expected);
}

static void expect_changes(struct ps_store *store, const char *prefix, uint64_t since,
			   const char *expected)
{
	ps_auto(ps_store_values_clear) struct ps_store_values values = {0};
	char text[4096] = "";

	assert_int_equal(ps_store_changes(store, prefix, since, &values), 0);
	print_values(&values, text, sizeof(text));
	assert_string_equal(text, expected);
}

static void expect_history(struct ps_store *store, const char *key, size_t max,
			   const char *expected)
{
	ps_auto(ps_store_values_clear) struct ps_store_values values = {0};
	char text[4096] = "";

	assert_int_equal(ps_store_history(store, key, max, &values), 0);
	print_values(&values, text, sizeof(text));
	assert_string_equal(text, expected);
}

static void a_new_store_is_empty_at_revision_zero(void **state)
{
	struct ps_store *store = store_of(state);

	assert_int_equal(revision_of(store), 0);
	expect_list(store, "", "");
	expect_changes(store, "", 0, "");
}

static void what_is_put_can_be_read_back(void **state)
{
	ps_auto(ps_store_value_clear) struct ps_store_value value = {0};
	struct ps_store *store = store_of(state);

	assert_int_equal(put(store, "pool/ams", "v1"), 1);
	assert_int_equal(put(store, "pool/ams", "v2"), 2);
	assert_int_equal(ps_store_get(store, "pool/ams", &value), 0);
	assert_string_equal(value.key, "pool/ams");
	assert_string_equal(value.data, "v2");
	assert_int_equal(value.len, 2);
	assert_int_equal(value.revision, 2);
	assert_int_equal(value.create_revision, 1);
	assert_true(value.time_ms > INT64_C(1600000000000));
}

static void reading_a_missing_key_is_enoent_and_leaves_the_output_alone(void **state)
{
	struct ps_store_value value = {.revision = 42};
	struct ps_store *store = store_of(state);

	assert_int_equal(ps_store_get(store, "nobody", &value), -ENOENT);
	assert_int_equal(value.revision, 42);
	put(store, "nobody", "x");
	put(store, "nobody", NULL);
	assert_int_equal(ps_store_get(store, "nobody", &value), -ENOENT);
	assert_int_equal(ps_store_get(store, "nob", &value), -ENOENT);
	assert_int_equal(ps_store_get(store, "", &value), -ENOENT);
}

static void listing_takes_prefixes_literally_and_sorts_by_byte(void **state)
{
	static const char *const keys[] = {"b",          "a/2",  "a/1",      "a",     "a0",
					   "a%",         "a_",   "ab",       "A/1",   "a/\xff",
					   "a/\xff\xff", "\xff", "\xff\xff", "a/\x01"};
	static const struct {
		const char *prefix, *found;
	} rows[] = {
		{"a/", "a/\x01=x@1/1 a/1=x@1/1 a/2=x@1/1 a/\xff=x@1/1 a/\xff\xff=x@1/1"},
		{"a%", "a%=x@1/1"},
		{"a_", "a_=x@1/1"},
		{"a/\xff", "a/\xff=x@1/1 a/\xff\xff=x@1/1"},
		{"\xff", "\xff=x@1/1 \xff\xff=x@1/1"},
		{"\xff\xff\xff", ""},
		{"A", "A/1=x@1/1"},
		{"ab", "ab=x@1/1"},
		{"abc", ""},
		{"b", "b=x@1/1"},
		{"%", ""},
		{"", "A/1=x@1/1 a=x@1/1 a%=x@1/1 a/\x01=x@1/1 a/1=x@1/1 a/2=x@1/1 a/\xff=x@1/1 "
		     "a/\xff\xff=x@1/1 a0=x@1/1 a_=x@1/1 ab=x@1/1 b=x@1/1 \xff=x@1/1 "
		     "\xff\xff=x@1/1"},
	};
	struct ps_store_write writes[PS_N_ELEMENTS(keys)];
	struct ps_store *store = store_of(state);

	for (size_t i = 0; i < PS_N_ELEMENTS(keys); i++)
		writes[i] = (struct ps_store_write){keys[i], "x", 1};
	assert_int_equal(ps_store_txn(store, NULL, 0, writes, PS_N_ELEMENTS(writes), NULL, NULL),
			 0);
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++)
		expect_list(store, rows[i].prefix, rows[i].found);
	expect_changes(store, "a/\xff", 0, "a/\xff=x@1/1 a/\xff\xff=x@1/1");
}

static void the_longest_key_is_found_by_prefix_and_longer_prefixes_find_nothing(void **state)
{
	struct ps_store *store = store_of(state);
	ps_auto(ps_store_values_clear) struct ps_store_values values = {0};
	char key[PS_STORE_KEY_MAX + 3];

	memset(key, 0xff, sizeof(key));
	key[PS_STORE_KEY_MAX] = '\0';
	put(store, key, "x");
	assert_int_equal(ps_store_list(store, "\xff", &values), 0);
	assert_int_equal(values.n, 1);
	ps_store_values_clear(&values);
	assert_int_equal(ps_store_list(store, key, &values), 0);
	assert_int_equal(values.n, 1);
	ps_store_values_clear(&values);
	memset(key, 0xff, sizeof(key));
	key[PS_STORE_KEY_MAX + 2] = '\0';
	assert_int_equal(ps_store_list(store, key, &values), 0);
	assert_int_equal(values.n, 0);
}

static void all_writes_of_a_transaction_share_one_new_revision(void **state)
{
	static const struct ps_store_write writes[] = {
		{"z", "1", 1}, {"a", "2", 1}, {"m", NULL, 0}};
	struct ps_store *store = store_of(state);
	uint64_t revision;

	put(store, "m", "0");
	assert_int_equal(ps_store_txn(store, NULL, 0, writes, 3, &revision, NULL), 0);
	assert_int_equal(revision, 2);
	assert_int_equal(revision_of(store), 2);
	expect_list(store, "", "a=2@2/2 z=1@2/2");
	expect_changes(store, "", 1, "z=1@2/2 a=2@2/2 m=-@2/0");
}

static void a_transaction_whose_compares_hold_is_done(void **state)
{
	struct ps_store_compare compares[] = {{"a", 1}, {"b", 2}, {"missing", 0}};
	struct ps_store_write write = {"a", "new", 3};
	struct ps_store *store = store_of(state);
	size_t failed = 77;
	uint64_t revision;

	put(store, "a", "1");
	put(store, "b", "2");
	assert_int_equal(ps_store_txn(store, compares, 3, &write, 1, &revision, &failed), 0);
	assert_int_equal(revision, 3);
	assert_int_equal(failed, 77);
	expect_list(store, "a", "a=new@3/1");
}

static void a_compare_that_fails_is_named_and_nothing_is_written(void **state)
{
	static const struct {
		struct ps_store_compare compares[3];
		size_t failed;
	} rows[] = {
		{{{"a", 1}, {"b", 1}, {"c", 9}}, 1}, /* b is at 3 */
		{{{"a", 0}, {"b", 3}, {"c", 0}}, 0}, /* a exists */
		{{{"a", 1}, {"b", 3}, {"c", 2}}, 2}, /* c was deleted */
		{{{"a", 1}, {"b", 4}, {"c", 0}}, 1}, /* not even the future */
	};
	static const struct ps_store_write writes[] = {{"a", "no", 2}, {"d", "no", 2}};
	struct ps_store *store = store_of(state);

	put(store, "a", "1");
	put(store, "c", "2");
	put(store, "b", "3");
	put(store, "c", NULL);
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		uint64_t revision = 77;
		size_t failed = 99;

		assert_int_equal(
			ps_store_txn(store, rows[i].compares, 3, writes, 2, &revision, &failed),
			-ESTALE);
		assert_int_equal(failed, rows[i].failed);
		assert_int_equal(revision, 77);
		assert_int_equal(ps_store_txn(store, rows[i].compares, 3, writes, 2, NULL, NULL),
				 -ESTALE);
	}
	assert_int_equal(revision_of(store), 4);
	expect_list(store, "", "a=1@1/1 b=3@3/3");
}

static void a_deleted_key_comes_back_with_another_create_revision(void **state)
{
	struct ps_store *store = store_of(state);

	put(store, "k", "1");
	put(store, "k", "2");
	assert_int_equal(put(store, "k", NULL), 3);
	expect_list(store, "", "");
	assert_int_equal(put(store, "k", "4"), 4);
	assert_int_equal(put(store, "k", "5"), 5);
	expect_list(store, "", "k=5@5/4");
}

static void a_transaction_that_changes_nothing_keeps_the_revision(void **state)
{
	static const struct ps_store_write writes[] = {{"x", NULL, 0}, {"y", NULL, 0}};
	struct ps_store_compare compare = {"k", 1};
	struct ps_store *store = store_of(state);
	uint64_t revision = 77;

	put(store, "k", "1");
	assert_int_equal(ps_store_txn(store, NULL, 0, writes, 2, &revision, NULL), 0);
	assert_int_equal(revision, 1);
	assert_int_equal(ps_store_txn(store, &compare, 1, NULL, 0, &revision, NULL), 0);
	assert_int_equal(revision, 1);
	expect_changes(store, "", 0, "k=1@1/1");
	expect_history(store, "x", 9, "");
}

static void writing_the_same_value_again_is_a_change(void **state)
{
	struct ps_store *store = store_of(state);

	put(store, "k", "1");
	assert_int_equal(put(store, "k", "1"), 2);
	expect_changes(store, "", 1, "k=1@2/1");
}

static void changes_come_in_order_with_deletions_after_a_revision(void **state)
{
	struct ps_store *store = store_of(state);

	put(store, "a/1", "x");
	put(store, "b/1", "x");
	put(store, "a/2", "y");
	put(store, "a/1", NULL);
	put(store, "a/2", "z");
	expect_changes(store, "a/", 0, "a/1=x@1/1 a/2=y@3/3 a/1=-@4/0 a/2=z@5/3");
	expect_changes(store, "a/", 3, "a/1=-@4/0 a/2=z@5/3");
	expect_changes(store, "b/", 2, "");
	expect_changes(store, "", 4, "a/2=z@5/3");
	expect_changes(store, "", 5, "");
	expect_changes(store, "", UINT64_MAX, "");
}

static void history_is_newest_first_and_bounded(void **state)
{
	struct ps_store *store = store_of(state);

	put(store, "k", "1");
	put(store, "kk", "other");
	put(store, "k", "2");
	put(store, "k", NULL);
	put(store, "k", "3");
	expect_history(store, "k", SIZE_MAX, "k=3@5/5 k=-@4/0 k=2@3/1 k=1@1/1");
	expect_history(store, "k", 2, "k=3@5/5 k=-@4/0");
	expect_history(store, "k", 0, "");
	expect_history(store, "nobody", 9, "");
}

static void keys_and_values_beyond_the_limits_are_refused(void **state)
{
	struct ps_store *store = store_of(state);
	ps_auto(ps_store_value_clear) struct ps_store_value value = {0};
	ps_auto_mem char *large = calloc(1, PS_STORE_VALUE_MAX + 1);
	struct ps_store_compare compare;
	char key[PS_STORE_KEY_MAX + 2];

	assert_non_null(large);
	large[back_end->value_max - 1] = '!';
	memset(key, 'k', sizeof(key));
	key[PS_STORE_KEY_MAX + 1] = '\0';
	compare = (struct ps_store_compare){key, 0};
	assert_int_equal(ps_store_put(store, key, "x", 1, NULL), -E2BIG);
	assert_int_equal(ps_store_txn(store, &compare, 1, NULL, 0, NULL, NULL), -E2BIG);
	assert_int_equal(ps_store_put(store, "k", large, PS_STORE_VALUE_MAX + 1, NULL), -E2BIG);
	assert_int_equal(ps_store_put(store, "", "x", 1, NULL), -EINVAL);
	assert_int_equal(revision_of(store), 0);
	key[PS_STORE_KEY_MAX] = '\0';
	assert_int_equal(ps_store_put(store, key, large, back_end->value_max, NULL), 0);
	assert_int_equal(ps_store_get(store, key, &value), 0);
	assert_int_equal(value.len, back_end->value_max);
	assert_memory_equal(value.data, large, back_end->value_max);
}

static void a_key_written_twice_in_one_transaction_is_refused(void **state)
{
	static const struct ps_store_write writes[] = {
		{"a", "1", 1}, {"b", "2", 1}, {"a", NULL, 0}};
	struct ps_store *store = store_of(state);

	assert_int_equal(ps_store_txn(store, NULL, 0, writes, 3, NULL, NULL), -EINVAL);
	assert_int_equal(revision_of(store), 0);
}

static void values_are_bytes_of_any_kind_and_an_empty_one_is_no_deletion(void **state)
{
	static const struct {
		const char *data;
		size_t len;
	} rows[] = {{"a\0b\0", 4}, {"\0", 1}, {"", 0}, {"\xff\xfe\r\n", 4}};
	struct ps_store *store = store_of(state);

	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		ps_auto(ps_store_value_clear) struct ps_store_value value = {0};

		assert_int_equal(ps_store_put(store, "k", rows[i].data, rows[i].len, NULL), 0);
		assert_int_equal(ps_store_get(store, "k", &value), 0);
		assert_int_equal(value.len, rows[i].len);
		assert_memory_equal(value.data, rows[i].data, rows[i].len);
		assert_int_equal(value.data[value.len], '\0');
		assert_int_equal(value.create_revision, 1);
	}
}

static void a_handle_knows_its_url(void **state)
{
	struct fixture *f = *state;

	assert_string_equal(ps_store_url(f->store), f->url);
}

static bool is_readable_within(struct ps_store *store, int ms)
{
	struct pollfd poll_fd = {.fd = ps_store_watch_fd(store), .events = POLLIN};

	assert_true(poll_fd.fd >= 0);
	return poll(&poll_fd, 1, ms) == 1;
}

static bool is_readable(struct ps_store *store)
{
	return is_readable_within(store, 0);
}

/* A change may take its way over a network. */
static bool becomes_readable(struct ps_store *store)
{
	return is_readable_within(store, 5000);
}

static void the_watch_becomes_readable_by_a_change_and_quiet_when_cleared(void **state)
{
	struct ps_store *store = store_of(state);

	assert_false(is_readable(store));
	put(store, "k", "1");
	assert_true(becomes_readable(store));
	assert_true(ps_store_watch_clear(store));
	assert_false(is_readable(store));
	assert_false(ps_store_watch_clear(store));
	put(store, "nobody", NULL);
	expect_list(store, "", "k=1@1/1");
	expect_changes(store, "", 0, "k=1@1/1");
	assert_false(is_readable(store));
	put(store, "k", NULL);
	assert_true(becomes_readable(store));
}

static struct ps_store *open_second(void **state)
{
	struct fixture *f = *state;
	struct ps_store *second;

	assert_int_equal(ps_store_open(f->url, &second, NULL), 0);
	return second;
}

static void two_handles_see_and_wake_each_other(void **state)
{
	ps_auto(ps_store_close) struct ps_store *second = open_second(state);
	struct ps_store *first = store_of(state);

	assert_false(is_readable(first));
	assert_false(is_readable(second));
	put(first, "k", "1");
	assert_true(becomes_readable(second));
	ps_store_watch_clear(second);
	expect_changes(second, "", 0, "k=1@1/1");
	ps_store_watch_clear(first);
	put(second, "k", "2");
	assert_true(becomes_readable(first));
	expect_changes(first, "", 1, "k=2@2/1");
}

/* Writes the numbers from 1 to n, each when the one before was acknowledged; never returns. */
static void write_when_acknowledged(const char *url, int n, int ack_fd)
{
	struct ps_store *store;
	char ack;

	if (ps_store_open(url, &store, NULL) < 0)
		_exit(2);
	for (int i = 0; i < n; i++) {
		if (ps_store_put(store, "k", "v", 1, NULL) < 0 || read(ack_fd, &ack, 1) != 1)
			_exit(3);
	}
	ps_store_close(&store);
	_exit(0);
}

/* The event must not come before the change can be read: there will be no second one. */
static void a_reader_that_trusts_the_watch_misses_no_change_of_another_process(void **state)
{
	enum { N = 300 };
	struct fixture *f = *state;
	struct pollfd watch = {.fd = ps_store_watch_fd(f->store), .events = POLLIN};
	int acks[2], status;
	pid_t pid;

	assert_int_equal(pipe(acks), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(acks[1]); /* so that it ends when we fail */
		write_when_acknowledged(f->url, N, acks[0]);
	}
	for (uint64_t seen = 0; seen < N;) {
		ps_auto(ps_store_values_clear) struct ps_store_values changes = {0};

		assert_int_equal(poll(&watch, 1, 5000), 1);
		ps_store_watch_clear(f->store);
		assert_int_equal(ps_store_changes(f->store, "k", seen, &changes), 0);
		assert_in_range(changes.n, 0, 1);
		seen += changes.n;
		if (changes.n)
			assert_int_equal(write(acks[1], "", 1), 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(acks[0]);
	close(acks[1]);
}

static uint64_t incarnation_of(struct ps_store *store)
{
	uint64_t incarnation;

	assert_int_equal(ps_store_incarnation(store, &incarnation), 0);
	return incarnation;
}

static void the_incarnation_is_stable_while_the_store_lives(void **state)
{
	struct fixture *f = *state;
	ps_auto(ps_store_close) struct ps_store *second = open_second(state);
	uint64_t incarnation = incarnation_of(f->store);

	assert_true(incarnation > 0 && incarnation <= INT64_MAX);
	put(f->store, "k", "1");
	assert_int_equal(incarnation_of(f->store), incarnation);
	assert_int_equal(incarnation_of(second), incarnation);
	ps_store_close(&f->store);
	ps_store_close(&second);
	assert_int_equal(ps_store_open(f->url, &f->store, NULL), 0);
	assert_int_equal(incarnation_of(f->store), incarnation);
	expect_list(f->store, "", "k=1@1/1");
}

static void another_store_has_another_incarnation(void **state)
{
	struct fixture *other;

	assert_int_equal(set_up((void **)&other), 0);
	assert_int_not_equal(incarnation_of(store_of(state)), incarnation_of(other->store));
	assert_int_equal(tear_down((void **)&other), 0);
}

/* Adds one to the number under "n" n_times; never returns. */
static void increment_and_exit(const char *url, int n_times)
{
	struct ps_store *store;

	if (ps_store_open(url, &store, NULL) < 0)
		_exit(2);
	for (int done = 0; done < n_times;) {
		struct ps_store_value old = {0};
		struct ps_store_compare compare = {"n", 0};
		struct ps_store_write write = {"n", NULL, 0};
		char text[24];
		int r = ps_store_get(store, "n", &old);

		if (r < 0 && r != -ENOENT)
			_exit(3);
		compare.revision = old.revision;
		snprintf(text, sizeof(text), "%d", old.data ? atoi(old.data) + 1 : 1);
		write.data = text;
		write.len = strlen(text);
		ps_store_value_clear(&old);
		r = ps_store_txn(store, &compare, 1, &write, 1, NULL, NULL);
		if (r < 0 && r != -ESTALE)
			_exit(4);
		done += r == 0;
	}
	ps_store_close(&store);
	_exit(0);
}

static void four_processes_incrementing_by_compare_and_swap_lose_nothing(void **state)
{
	enum { N_PROCESSES = 4, N_TIMES = 100 };
	struct fixture *f = *state;
	ps_auto(ps_store_value_clear) struct ps_store_value value = {0};
	pid_t pids[N_PROCESSES];

	for (int i = 0; i < N_PROCESSES; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0)
			increment_and_exit(f->url, N_TIMES);
	}
	for (int i = 0; i < N_PROCESSES; i++) {
		int status;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	assert_int_equal(ps_store_get(f->store, "n", &value), 0);
	assert_int_equal(atoi(value.data), N_PROCESSES * N_TIMES);
	assert_int_equal(value.revision, N_PROCESSES * N_TIMES);
}

/* The naive model: every state ever, in order, and nothing else. */
static const char *const model_keys[] = {"a",   "a/", "a/b",   "a/b/c",     "a0",   "ab",      "a%",
					 "a_/", "_",  "a\xff", "a\xff\xff", "\xff", "\xff\x01"};

struct model {
	struct {
		size_t key;
		char data; /* 0: deleted */
		uint64_t revision, create_revision;
	} log[4096];
	size_t n;
	uint64_t revision;
};

static long model_find(const struct model *model, size_t key)
{
	for (size_t i = model->n; i > 0; i--) {
		if (model->log[i - 1].key == key)
			return model->log[i - 1].data ? (long)i - 1 : -1;
	}
	return -1;
}

static void model_print(const struct model *model, size_t i, FILE *out)
{
	char data[2] = {model->log[i].data ? model->log[i].data : '-', '\0'};

	fprintf(out, "%s%s=%s@%" PRIu64 "/%" PRIu64, ftell(out) ? " " : "",
		model_keys[model->log[i].key], data, model->log[i].revision,
		model->log[i].create_revision);
}

static void model_check_list(const struct model *model, struct ps_store *store, const char *prefix)
{
	size_t order[PS_N_ELEMENTS(model_keys)];
	char text[4096] = "";
	FILE *out = fmemopen(text, sizeof(text), "w");

	for (size_t i = 0; i < PS_N_ELEMENTS(order); i++)
		order[i] = i;
	for (size_t i = 0; i < PS_N_ELEMENTS(order); i++) {
		for (size_t j = i + 1; j < PS_N_ELEMENTS(order); j++) {
			size_t swap = order[i];

			if (strcmp(model_keys[order[i]], model_keys[order[j]]) <= 0)
				continue;
			order[i] = order[j];
			order[j] = swap;
		}
		if (strncmp(model_keys[order[i]], prefix, strlen(prefix)) == 0 &&
		    model_find(model, order[i]) >= 0)
			model_print(model, (size_t)model_find(model, order[i]), out);
	}
	fclose(out);
	expect_list(store, prefix, text);
}

static void model_check_changes(const struct model *model, struct ps_store *store,
				const char *prefix, uint64_t since)
{
	char text[4096] = "";
	FILE *out = fmemopen(text, sizeof(text), "w");

	for (size_t i = 0; i < model->n; i++) {
		if (model->log[i].revision > since &&
		    strncmp(model_keys[model->log[i].key], prefix, strlen(prefix)) == 0)
			model_print(model, i, out);
	}
	fclose(out);
	expect_changes(store, prefix, since, text);
}

static void model_check_history(const struct model *model, struct ps_store *store, size_t key,
				size_t max)
{
	char text[4096] = "";
	FILE *out = fmemopen(text, sizeof(text), "w");

	for (size_t i = model->n, n = 0; i > 0 && n < max; i--) {
		if (model->log[i - 1].key != key)
			continue;
		model_print(model, i - 1, out);
		n++;
	}
	fclose(out);
	expect_history(store, model_keys[key], max, text);
}

static size_t draw(unsigned short seed[3], size_t below)
{
	return (size_t)nrand48(seed) % below;
}

/* One random transaction of up to three writes and one compare, done by both. */
static void model_step(struct model *model, struct ps_store *store, unsigned short seed[3])
{
	size_t first = draw(seed, PS_N_ELEMENTS(model_keys)), n_writes = draw(seed, 4);
	size_t compared = draw(seed, PS_N_ELEMENTS(model_keys)), n_before = model->n;
	long found = model_find(model, compared);
	uint64_t present = found >= 0 ? model->log[found].revision : 0, revision;
	struct ps_store_compare compare = {model_keys[compared],
					   draw(seed, 4) ? present : draw(seed, 9)};
	struct ps_store_write writes[3];
	char data[3];

	for (size_t i = 0; i < n_writes; i++) {
		size_t key = (first + i * 5) % PS_N_ELEMENTS(model_keys);
		long old = model_find(model, key);

		data[i] = draw(seed, 3) ? (char)('A' + draw(seed, 26)) : '\0';
		writes[i] = (struct ps_store_write){model_keys[key], data[i] ? &data[i] : NULL, 1};
		if (compare.revision != present || (!data[i] && old < 0))
			continue;
		model->log[model->n].key = key;
		model->log[model->n].data = data[i];
		model->log[model->n].revision = model->revision + 1;
		model->log[model->n].create_revision = !data[i]  ? 0
						       : old < 0 ? model->revision + 1
								 : model->log[old].create_revision;
		model->n++;
	}
	model->revision += model->n > n_before;
	if (compare.revision != present) {
		assert_int_equal(ps_store_txn(store, &compare, 1, writes, n_writes, NULL, NULL),
				 -ESTALE);
		return;
	}
	assert_int_equal(ps_store_txn(store, &compare, 1, writes, n_writes, &revision, NULL), 0);
	assert_int_equal(revision, model->revision);
}

static void any_sequence_of_operations_agrees_with_a_naive_model(void **state)
{
	static const char *const prefixes[] = {"",   "a",     "a/",   "a/b", "a%",
					       "a_", "a\xff", "\xff", "_"};
	const char *given = getenv("SEED");
	unsigned short seed[3] = {0x330e, (unsigned short)(given ? atoi(given) : 1), 0};
	ps_auto_mem struct model *model = calloc(1, sizeof(*model));
	struct ps_store *store = store_of(state);

	assert_non_null(model);
	print_message("seed %u (set SEED= to change)\n", seed[1]);
	for (int i = 0; i < back_end->n_steps; i++) {
		uint64_t recent = model->revision - draw(seed, model->revision < 20 ? 1 : 20);

		if (i == back_end->n_steps / 4) /* from here on the watch helps */
			(void)ps_store_watch_fd(store);
		model_step(model, store, seed);
		assert_int_equal(revision_of(store), model->revision);
		model_check_list(model, store, prefixes[draw(seed, PS_N_ELEMENTS(prefixes))]);
		model_check_changes(model, store, prefixes[draw(seed, PS_N_ELEMENTS(prefixes))],
				    recent);
		model_check_history(model, store, draw(seed, PS_N_ELEMENTS(model_keys)),
				    draw(seed, 50));
	}
}

static void a_url_of_no_back_end_is_refused_with_a_sentence(void **state)
{
	static const char *const urls[] = {"",
					   "sqlite",
					   "sqlite:",
					   "memory",
					   "memory:x",
					   "/var/lib/portslice/store.db",
					   "redis://localhost"};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(urls); i++) {
		ps_auto_mem char *message = NULL;
		struct ps_store *store = NULL;

		assert_int_equal(ps_store_open(urls[i], &store, NULL), -EINVAL);
		assert_int_equal(ps_store_open(urls[i], &store, &message), -EINVAL);
		assert_null(store);
		assert_non_null(strstr(message, urls[i]));
		assert_non_null(strstr(message, "sqlite:/path"));
	}
}

static void every_error_has_a_sentence_that_names_the_store(void **state)
{
	static const struct {
		int error;
		const char *url, *text;
	} rows[] = {
		{-EACCES, "sqlite:/a/b",
		 "/a/b must be readable and writable, like its folder: run as its owner, or correct "
		 "owner and mode"},
		{-EIDRM, "sqlite:/a/b", "/a/b was deleted or replaced while in use: open it again"},
		{-EBUSY, "sqlite:/a/b",
		 "/a/b was held by another writer for more than 5 s: find it with fuser, then try "
		 "again"},
		{-EBUSY, "etcd://h/p",
		 "etcd://h/p was changed by others again and again: try again"},
		{-ESTALE, "etcds://h", "etcds://h changed in the meantime: read again, then write"},
		{-EXFULL, "sqlite:/a/b", "/a/b cannot be used: Exchange full"},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		ps_auto_mem char *text = NULL;

		assert_int_equal(ps_store_error_text(rows[i].error, rows[i].url, &text), 0);
		assert_string_equal(text, rows[i].text);
	}
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_new_store_is_empty_at_revision_zero),
		T(what_is_put_can_be_read_back),
		T(reading_a_missing_key_is_enoent_and_leaves_the_output_alone),
		T(listing_takes_prefixes_literally_and_sorts_by_byte),
		T(the_longest_key_is_found_by_prefix_and_longer_prefixes_find_nothing),
		T(all_writes_of_a_transaction_share_one_new_revision),
		T(a_transaction_whose_compares_hold_is_done),
		T(a_compare_that_fails_is_named_and_nothing_is_written),
		T(a_deleted_key_comes_back_with_another_create_revision),
		T(a_transaction_that_changes_nothing_keeps_the_revision),
		T(writing_the_same_value_again_is_a_change),
		T(changes_come_in_order_with_deletions_after_a_revision),
		T(history_is_newest_first_and_bounded),
		T(keys_and_values_beyond_the_limits_are_refused),
		T(a_key_written_twice_in_one_transaction_is_refused),
		T(values_are_bytes_of_any_kind_and_an_empty_one_is_no_deletion),
		T(a_handle_knows_its_url),
		T(the_watch_becomes_readable_by_a_change_and_quiet_when_cleared),
		T(another_store_has_another_incarnation),
		T(any_sequence_of_operations_agrees_with_a_naive_model),
	};
	const struct CMUnitTest shared_tests[] = {
		T(two_handles_see_and_wake_each_other),
		T(a_reader_that_trusts_the_watch_misses_no_change_of_another_process),
		T(the_incarnation_is_stable_while_the_store_lives),
		T(four_processes_incrementing_by_compare_and_swap_lose_nothing),
	};
	const struct CMUnitTest general_tests[] = {
		cmocka_unit_test(a_url_of_no_back_end_is_refused_with_a_sentence),
		cmocka_unit_test(every_error_has_a_sentence_that_names_the_store),
	};
	int n_failed = cmocka_run_group_tests_name("store", general_tests, NULL, NULL);

	if (lab_has_etcd()) {
		lab_prepare(&lab, 1, "http");
		lab_start(&lab);
	} else {
		print_message("store contract: etcd: skipped, there is no /usr/bin/etcd (Debian: "
			      "etcd-server)\n");
	}
	for (size_t i = 0; i < PS_N_ELEMENTS(back_ends); i++) {
		back_end = &back_ends[i];
		if (back_end->make_url == etcd_url && !lab.n)
			continue;
		n_failed += cmocka_run_group_tests_name(back_end->name, tests, NULL, NULL);
		if (back_end->shared)
			n_failed += cmocka_run_group_tests_name(back_end->name, shared_tests, NULL,
								NULL);
	}
	if (lab.n)
		lab_stop(&lab);
	return n_failed;
}

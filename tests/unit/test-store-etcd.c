// SPDX-License-Identifier: MIT
/* What only etcd's back end can get wrong: servers that die, hang, forget or come back from a backup.
 * test-store.c has what all back ends share. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/own.h"
#include "cm.h"
#include "etcd-lab.h"
#include "store/store.h"

static struct lab three; /* servers of one cluster, for the tests that need them */

static int set_up_three(void **state)
{
	(void)state;
	lab_prepare(&three, 3, "http");
	lab_start(&three);
	return 0;
}

static int tear_down_three(void **state)
{
	(void)state;
	lab_stop(&three);
	return 0;
}

static int set_up_one(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	assert_non_null(lab);
	lab_prepare(lab, 1, "http");
	lab_start(lab);
	*state = lab;
	return 0;
}

static int tear_down_one(void **state)
{
	lab_stop(*state);
	free(*state);
	return 0;
}

static struct ps_store *open_at(const struct lab *lab, size_t first, const char *prefix)
{
	char url[256];

	lab_url(lab, first, prefix, url, sizeof(url));
	return lab_open(url);
}

/* Did a write of which no answer came take place? */
static bool stands(struct ps_store *store, const char *key, const char *data,
		   uint64_t *ret_revision)
{
	ps_auto(ps_store_value_clear) struct ps_store_value value = {0};
	int r = ps_store_get(store, key, &value);

	*ret_revision = r ? 0 : value.revision;
	return r ? !data : data && strcmp(value.data, data) == 0;
}

/* On a busy machine an answer may come too late. */
static uint64_t put(struct ps_store *store, const char *key, const char *data)
{
	size_t len = data ? strlen(data) : 0;
	uint64_t revision;
	int r = -EIO;

	for (unsigned tries = 0; r == -EIO && tries < 5; tries++) {
		r = ps_store_put(store, key, data, len, &revision);
		if (r == -EIO && stands(store, key, data, &revision))
			return revision;
	}
	assert_int_equal(r, 0);
	return revision;
}

static uint64_t incarnation_of(struct ps_store *store)
{
	uint64_t incarnation;

	assert_int_equal(ps_store_incarnation(store, &incarnation), 0);
	return incarnation;
}

/* "key=data@revision" of each; "-" for deletions. */
static void print_values(const struct ps_store_values *values, char *text, size_t size)
{
	FILE *out = fmemopen(text, size, "w");

	for (size_t i = 0; i < values->n; i++)
		fprintf(out, "%s%s=%s@%" PRIu64, i ? " " : "", values->items[i].key,
			values->items[i].data ?: "-", values->items[i].revision);
	fclose(out);
}

static void expect_changes(struct ps_store *store, uint64_t since, const char *expected)
{
	ps_auto(ps_store_values_clear) struct ps_store_values values = {0};
	char text[4096] = "";

	assert_int_equal(ps_store_changes(store, "", since, &values), 0);
	print_values(&values, text, sizeof(text));
	assert_string_equal(text, expected);
}

static bool becomes_readable(struct ps_store *store)
{
	struct pollfd poll_fd = {.fd = ps_store_watch_fd(store), .events = POLLIN};

	return poll(&poll_fd, 1, 5000) == 1;
}

enum { N_WRITERS = 3, N_AFTER = 60, N_BEFORE = 40, N_MAX = 1000 };

/* What writer w was told about its i-th write. */
struct told {
	struct {
		int result;
		uint64_t revision;
	} of[N_WRITERS][N_MAX];
	int n[N_WRITERS], n_done[N_WRITERS];
	bool has_died; /* the leader */
};

/* Writes 0, 1, 2 … under its own key without compares, so that nothing but the store itself keeps a
 * write from being done twice; never returns. */
static void write_and_exit(int w, struct told *told)
{
	struct ps_store *store = open_at(&three, (size_t)w, "failover");
	char key[8], data[16];
	int n_after = 0;

	snprintf(key, sizeof(key), "w%d", w);
	for (int i = 0; i < N_MAX && n_after < N_AFTER; i++) {
		int len = snprintf(data, sizeof(data), "%d", i);

		told->of[w][i].result =
			ps_store_put(store, key, data, (size_t)len, &told->of[w][i].revision);
		if (told->of[w][i].result == 0) {
			__atomic_add_fetch(&told->n_done[w], 1, __ATOMIC_SEQ_CST);
			n_after += __atomic_load_n(&told->has_died, __ATOMIC_SEQ_CST);
		} else {
			lab_sleep_ms(20);
		}
		told->n[w] = i + 1;
	}
	_exit(n_after == N_AFTER ? 0 : 1);
}

static void kill_leader_when_all_write(struct told *told)
{
	int leader = -1;

	for (int w = 0; w < N_WRITERS; w++) {
		while (__atomic_load_n(&told->n_done[w], __ATOMIC_SEQ_CST) < N_BEFORE)
			lab_sleep_ms(1);
	}
	while (leader < 0)
		leader = lab_leader(&three);
	lab_kill_node(&three, (size_t)leader);
	__atomic_store_n(&told->has_died, true, __ATOMIC_SEQ_CST);
}

/* Each write that was reported done stands once, at the revision that was told; one that was reported
 * not done stands nowhere; one that is unknown at most once. */
static void check_told(const struct told *told, const struct ps_store_values *changes)
{
	int n_unknown = 0, n_unknown_done = 0, n_not_done = 0;

	for (int w = 0; w < N_WRITERS; w++) {
		int seen[N_MAX] = {0};
		char key[8];

		snprintf(key, sizeof(key), "w%d", w);
		for (size_t i = 0; i < changes->n; i++) {
			const struct ps_store_value *change = &changes->items[i];
			int which = atoi(change->data);

			if (strcmp(change->key, key) != 0)
				continue;
			seen[which]++;
			if (told->of[w][which].result == 0)
				assert_int_equal(told->of[w][which].revision, change->revision);
		}
		for (int i = 0; i < told->n[w]; i++) {
			switch (told->of[w][i].result) {
			case 0:
				assert_int_equal(seen[i], 1);
				break;
			case -EHOSTUNREACH:
				assert_int_equal(seen[i], 0);
				n_not_done++;
				break;
			case -EIO:
				assert_in_range(seen[i], 0, 1);
				n_unknown++;
				n_unknown_done += seen[i];
				break;
			default:
				fail_msg("%s: %s", key, strerror(-told->of[w][i].result));
			}
		}
	}
	print_message("%zu writes stand; %d unknown, of which %d stand; %d not done\n", changes->n,
		      n_unknown, n_unknown_done, n_not_done);
}

static void no_write_is_lost_or_done_twice_when_the_leader_is_killed(void **state)
{
	struct told *told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ps_auto(ps_store_values_clear) struct ps_store_values changes = {0};
	ps_auto(ps_store_close) struct ps_store *reader = NULL;
	pid_t pids[N_WRITERS];
	int status;

	(void)state;
	for (int w = 0; w < N_WRITERS; w++) {
		pids[w] = fork();
		assert_true(pids[w] >= 0);
		if (pids[w] == 0)
			write_and_exit(w, told);
	}
	kill_leader_when_all_write(told);
	for (int w = 0; w < N_WRITERS; w++) {
		assert_int_equal(waitpid(pids[w], &status, 0), pids[w]);
		assert_int_equal(status, 0);
	}
	reader = open_at(&three, 0, "failover");
	assert_int_equal(ps_store_changes(reader, "w", 0, &changes), 0);
	check_told(told, &changes);
	munmap(told, sizeof(*told));
	for (size_t i = 0; i < three.n; i++) {
		if (!three.nodes[i].pid)
			lab_start_node(&three, i);
		lab_await_node(&three, i);
	}
}

static void stop_all(bool stopped)
{
	for (size_t i = 0; i < three.n; i++) {
		if (stopped)
			lab_freeze(&three.nodes[i]);
		else
			kill(three.nodes[i].pid, SIGCONT);
	}
}

/* A server that follows; *ret_leader leads. */
static size_t find_follower(size_t *ret_leader)
{
	int leader = -1;

	while (leader < 0)
		leader = lab_leader(&three);
	*ret_leader = (size_t)leader;
	return (*ret_leader + 1) % three.n;
}

static void a_server_that_hangs_is_left_for_another(void **state)
{
	size_t leader, follower = find_follower(&leader);
	ps_auto(ps_store_close) struct ps_store *store = open_at(&three, follower, "hang");
	ps_auto(ps_store_close) struct ps_store *other = open_at(&three, leader, "hang");
	ps_auto(ps_store_value_clear) struct ps_store_value value = {0};

	(void)state;
	put(store, "k", "1");
	assert_true(ps_store_watch_fd(store) >= 0);
	lab_freeze(&three.nodes[follower]);
	put(other, "k", "2");
	assert_int_equal(ps_store_get(store, "k", &value), 0);
	assert_string_equal(value.data, "2");
	put(store, "k", "3");
	expect_changes(store, 1, "k=2@2 k=3@3");
	ps_store_watch_clear(store);
	put(other, "k", "4");
	assert_true(becomes_readable(store));
	ps_store_watch_clear(store);
	expect_changes(store, 3, "k=4@4");
	kill(three.nodes[follower].pid, SIGCONT);
}

/* Both sides of the watch: what the handle that lost its server sees without asking anybody else. */
static void a_watch_whose_server_hangs_moves_when_there_is_something_to_tell(void **state)
{
	size_t leader, follower = find_follower(&leader);
	ps_auto(ps_store_close) struct ps_store *store = open_at(&three, follower, "move");
	ps_auto(ps_store_close) struct ps_store *other = open_at(&three, leader, "move");

	(void)state;
	assert_true(ps_store_watch_fd(store) >= 0);
	lab_freeze(&three.nodes[follower]);
	put(other, "k", "1");
	expect_changes(store, 0, "k=1@1");
	ps_store_watch_clear(store);
	put(other, "k", "2");
	assert_true(becomes_readable(store));
	kill(three.nodes[follower].pid, SIGCONT);
}

static void when_all_hang_a_call_ends_soon_and_nothing_is_sent(void **state)
{
	ps_auto(ps_store_close) struct ps_store *store = open_at(&three, 0, "dark");
	ps_auto(ps_store_values_clear) struct ps_store_values changes = {0};
	struct ps_store_value value;
	int64_t start_ms;

	(void)state;
	put(store, "k", "1");
	stop_all(true);
	start_ms = lab_now_ms();
	assert_int_equal(ps_store_get(store, "k", &value), -EHOSTUNREACH);
	assert_in_range(lab_now_ms() - start_ms, 0, 2 * PS_ETCD_CALL_MS);
	start_ms = lab_now_ms();
	for (int i = 0; i < 3; i++)
		assert_int_equal(ps_store_put(store, "k", "2", 1, NULL), -EHOSTUNREACH);
	assert_in_range(lab_now_ms() - start_ms, 0, 3 * PS_ETCD_PROBE_MS);
	stop_all(false);
	while (ps_store_put(store, "k", "3", 1, NULL) < 0)
		lab_sleep_ms(50);
	assert_int_equal(ps_store_changes(store, "", 1, &changes), 0);
	assert_in_range(changes.n, 1, SIZE_MAX);
	for (size_t i = 0; i < changes.n; i++)
		assert_string_equal(changes.items[i].data, "3");
}

static void whoever_lags_may_go_to_another_end_point(void **state)
{
	size_t leader, follower = find_follower(&leader);
	ps_auto(ps_store_close) struct ps_store *store = open_at(&three, follower, "lag");
	ps_auto(ps_store_close) struct ps_store *other = open_at(&three, leader, "lag");

	(void)state;
	assert_true(ps_store_watch_fd(store) >= 0);
	lab_freeze(&three.nodes[follower]);
	ps_store_reconnect(store);
	put(other, "k", "2");
	for (int i = 0; i < 20; i++) { /* asks nobody: the watch itself must have moved */
		ps_store_watch_clear(store);
		lab_sleep_ms(10);
	}
	put(other, "k", "3");
	assert_true(becomes_readable(store));
	kill(three.nodes[follower].pid, SIGCONT);
}

static void restart(struct lab *lab)
{
	lab_kill_node(lab, 0);
	lab_start_node(lab, 0);
}

static void a_watch_goes_on_where_it_was_when_the_server_restarts(void **state)
{
	struct lab *lab = *state;
	ps_auto(ps_store_close) struct ps_store *reader = open_at(lab, 0, "resume");
	ps_auto(ps_store_close) struct ps_store *writer = NULL;
	uint64_t seen;

	assert_true(ps_store_watch_fd(reader) >= 0);
	seen = put(reader, "k", "1");
	expect_changes(reader, 0, "k=1@1");
	restart(lab);
	writer = open_at(lab, 0, "resume");
	put(writer, "k", "2");
	put(writer, "k", NULL);
	assert_true(becomes_readable(reader));
	for (int i = 0; i < 20; i++) {
		ps_store_watch_clear(reader);
		lab_sleep_ms(20);
	}
	put(writer, "k", "4"); /* nobody has asked for changes since: it went on by itself */
	assert_true(becomes_readable(reader));
	ps_store_watch_clear(reader);
	expect_changes(reader, seen, "k=2@2 k=-@3 k=4@4");
}

static void after_a_compaction_a_reader_still_learns_what_is_newest_and_what_is_gone(void **state)
{
	struct lab *lab = *state;
	ps_auto(ps_store_close) struct ps_store *reader = open_at(lab, 0, "compact");
	ps_auto(ps_store_close) struct ps_store *writer = NULL;
	ps_auto(ps_store_values_clear) struct ps_store_values past = {0};
	const struct ps_store_write both[] = {{"z", "7", 1}, {"a", "7", 1}};
	char text[256] = "";

	assert_true(ps_store_watch_fd(reader) >= 0);
	put(reader, "gone", "1");
	put(reader, "back", "2");
	expect_changes(reader, 0, "gone=1@1 back=2@2");
	restart(lab); /* the reader does not look */
	writer = open_at(lab, 0, "compact");
	put(writer, "k", "3");
	put(writer, "gone", NULL);
	put(writer, "back", NULL);
	put(writer, "back", "6");
	assert_int_equal(ps_store_txn(writer, NULL, 0, both, 2, NULL, NULL), 0);
	put(writer, "k", "8");
	lab_compact(lab, 0);
	expect_changes(reader, 2, "gone=-@4 back=6@6 z=7@7 a=7@7 k=8@8");
	expect_changes(writer, 2, "gone=-@4 back=6@6 z=7@7 a=7@7 k=8@8");
	ps_store_watch_clear(reader);
	put(writer, "k", "9");
	assert_true(becomes_readable(reader));
	ps_store_watch_clear(reader);
	expect_changes(reader, 8, "k=9@9");
	assert_int_equal(ps_store_history(reader, "k", 9, &past), 0);
	print_values(&past, text, sizeof(text));
	assert_string_equal(text, "k=9@9 k=8@8");
}

/* Swaps the server's data for the copy, or makes the copy. */
static void copy_data(struct lab *lab, bool back)
{
	char copy[PLACE_MAX + 32];
	const char *from = back ? copy : lab->nodes[0].data, *to = back ? lab->nodes[0].data : copy;
	const char *const remove[] = {"rm", "-rf", to, NULL};
	const char *const copy_all[] = {"cp", "-a", from, to, NULL};

	snprintf(copy, sizeof(copy), "%s/copy", lab->folder);
	lab_kill_node(lab, 0);
	assert_int_equal(lab_run(remove), 0);
	assert_int_equal(lab_run(copy_all), 0);
	lab_start_node(lab, 0);
}

static void expect_lost(struct ps_store *store)
{
	struct ps_store_value value;
	int64_t until_ms = lab_now_ms() + LAB_START_S * 1000;
	int r = -EHOSTUNREACH;

	while (r == -EHOSTUNREACH && lab_now_ms() < until_ms) {
		r = ps_store_get(store, "k", &value);
		lab_sleep_ms(20);
	}
	assert_int_equal(r, -EIDRM);
	assert_int_equal(ps_store_put(store, "k", "no", 2, NULL), -EIDRM);
}

static void a_backup_under_the_same_identity_is_noticed_by_its_revision(void **state)
{
	struct lab *lab = *state;
	ps_auto(ps_store_close) struct ps_store *awake = open_at(lab, 0, "backup");
	ps_auto(ps_store_close) struct ps_store *later = NULL;
	uint64_t before = incarnation_of(awake);

	put(awake, "k", "1");
	copy_data(lab, false);
	ps_store_close(&awake);
	awake = open_at(lab, 0, "backup");
	assert_int_equal(incarnation_of(awake), before);
	put(awake, "k", "2");
	put(awake, "k", "3");
	copy_data(lab, true);
	expect_lost(awake);
	later = open_at(lab, 0, "backup");
	assert_int_not_equal(incarnation_of(later), before);
	expect_changes(later, 0, "k=1@1");
}

static void a_backup_that_has_overtaken_is_noticed_by_the_watch(void **state)
{
	struct lab *lab = *state;
	ps_auto(ps_store_close) struct ps_store *awake = NULL;
	ps_auto(ps_store_close) struct ps_store *unaware = open_at(lab, 0, "overtaken");
	uint64_t before = incarnation_of(unaware);

	put(unaware, "k", "1");
	copy_data(lab, false);
	awake = open_at(lab, 0, "overtaken");
	assert_true(ps_store_watch_fd(awake) >= 0);
	put(awake, "k", "2");
	expect_changes(awake, 1, "k=2@2");
	copy_data(lab, true);
	ps_store_close(&unaware);
	unaware = open_at(lab, 0, "overtaken");
	for (int i = 0; i < 5; i++)
		put(unaware, "k", "other");
	assert_int_equal(incarnation_of(unaware), before); /* nobody knows yet */
	for (int i = 0; i < 20; i++) {
		ps_store_watch_clear(awake);
		lab_sleep_ms(20);
	}
	expect_lost(awake);
	expect_lost(unaware);
	ps_store_close(&unaware);
	unaware = open_at(lab, 0, "overtaken");
	assert_int_not_equal(incarnation_of(unaware), before);
}

static void a_cluster_made_anew_is_another_store(void **state)
{
	struct lab *lab = *state;
	ps_auto(ps_store_close) struct ps_store *store = open_at(lab, 0, "anew");
	ps_auto(ps_store_close) struct ps_store *anew = NULL;
	const char *const remove[] = {"rm", "-rf", lab->nodes[0].data, NULL};
	uint64_t before = incarnation_of(store);

	put(store, "k", "1");
	lab_kill_node(lab, 0);
	assert_int_equal(lab_run(remove), 0);
	lab_start_node(lab, 0);
	anew = open_at(lab, 0, "anew");
	expect_lost(store);
	assert_int_not_equal(incarnation_of(anew), before);
}

/* Between client and server in a process of its own: passes bytes on; when told to, waits for the
 * server's answer to the next request and hangs up without giving it. */
static void proxy_connection(int client, int port, const int *swallow)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	ps_auto_fd int server = socket(AF_INET, SOCK_STREAM, 0);
	struct pollfd fds[] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
	char bytes[65536];

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(server, (struct sockaddr *)&address, sizeof(address)) < 0)
		return;
	while (poll(fds, 2, -1) > 0) {
		for (int i = 0; i < 2; i++) {
			ssize_t n;

			if (!fds[i].revents)
				continue;
			n = read(fds[i].fd, bytes, sizeof(bytes));
			if (n <= 0 || (i == 1 && __atomic_load_n(swallow, __ATOMIC_SEQ_CST)))
				return;
			if (write(fds[!i].fd, bytes, (size_t)n) != n)
				return;
		}
	}
}

static pid_t start_proxy(int port, const int *swallow, int *ret_port)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	ps_auto_fd int fd = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof(address);
	pid_t pid;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	*ret_port = ntohs(address.sin_port);
	pid = fork();
	assert_true(pid >= 0);
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		ps_auto_fd int client = accept(fd, NULL, NULL);

		proxy_connection(client, port, swallow);
	}
}

/* Only the answer is lost; curl would repeat such a request by itself on a connection it has used
 * before, and the proxy would let the second one through as well. */
static void a_transaction_whose_answer_is_lost_is_not_sent_again(void **state)
{
	struct lab *lab = *state;
	int *swallow = mmap(NULL, sizeof(*swallow), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	ps_auto(ps_store_value_clear) struct ps_store_value value = {0};
	int port;
	pid_t proxy = start_proxy(lab->nodes[0].client_port, swallow, &port);
	char url[128];

	snprintf(url, sizeof(url), "etcd://127.0.0.1:%d,127.0.0.1:%d/swallow", port,
		 lab->nodes[0].client_port);
	store = lab_open(url);
	put(store, "k", "1");
	*swallow = 1;
	assert_int_equal(ps_store_put(store, "k", "2", 1, NULL), -EIO);
	*swallow = 0;
	expect_changes(store, 0, "k=1@1 k=2@2");
	ps_store_reconnect(store);
	*swallow = 1;
	assert_int_equal(ps_store_get(store, "k", &value), 0);
	kill(proxy, SIGKILL);
	waitpid(proxy, NULL, 0);
	munmap(swallow, sizeof(*swallow));
}

static void a_long_list_comes_in_pages_of_one_moment(void **state)
{
	enum { N = 2500, N_EACH = 100 };
	ps_auto(ps_store_close) struct ps_store *store = open_at(*state, 0, "pages");
	ps_auto(ps_store_values_clear) struct ps_store_values values = {0};
	struct ps_store_write writes[N_EACH];
	char keys[N_EACH][16];

	for (int i = 0; i < N; i++) {
		snprintf(keys[i % N_EACH], sizeof(keys[0]), "page/%05d", i);
		writes[i % N_EACH] = (struct ps_store_write){keys[i % N_EACH], "x", 1};
		if (i % N_EACH == N_EACH - 1)
			assert_int_equal(ps_store_txn(store, NULL, 0, writes, N_EACH, NULL, NULL),
					 0);
	}
	assert_int_equal(ps_store_list(store, "page/", &values), 0);
	assert_int_equal(values.n, N);
	for (int i = 0; i < N; i++)
		assert_int_equal(atoi(values.items[i].key + 5), i);
}

static void what_one_user_of_a_handle_takes_in_wakes_the_other(void **state)
{
	ps_auto(ps_store_close) struct ps_store *reader = open_at(*state, 0, "shared");
	ps_auto(ps_store_close) struct ps_store *writer = open_at(*state, 0, "shared");
	struct pollfd poll_fd = {.fd = ps_store_watch_fd(reader), .events = POLLIN};

	assert_int_equal(poll(&poll_fd, 1, 0), 0);
	put(writer, "k", "1");
	expect_changes(reader, 0, "k=1@1");
	assert_int_equal(poll(&poll_fd, 1, 0), 1);
	ps_store_watch_clear(reader);
	assert_int_equal(poll(&poll_fd, 1, 0), 0);
	expect_changes(reader, 0, "k=1@1");
	assert_int_equal(poll(&poll_fd, 1, 0), 0);
}

static void changes_older_than_the_log_are_fetched(void **state)
{
	enum { N_TXNS = 45, N_EACH = 100 };
	ps_auto(ps_store_close) struct ps_store *store = open_at(*state, 0, "log");
	struct ps_store_write writes[N_EACH];
	char keys[N_EACH][8];

	assert_true(ps_store_watch_fd(store) >= 0);
	for (int i = 0; i < N_EACH; i++) {
		snprintf(keys[i], sizeof(keys[i]), "%d", i);
		writes[i] = (struct ps_store_write){keys[i], "x", 1};
	}
	for (int i = 0; i < N_TXNS; i++)
		assert_int_equal(ps_store_txn(store, NULL, 0, writes, N_EACH, NULL, NULL), 0);
	assert_true(N_TXNS * N_EACH > PS_ETCD_LOG_MAX);
	for (uint64_t since = N_TXNS; since-- > 0;) {
		ps_auto(ps_store_values_clear) struct ps_store_values changes = {0};

		since -= since > 3 && since < N_TXNS - 3 ? 2 : 0;
		assert_int_equal(ps_store_changes(store, "", since, &changes), 0);
		assert_int_equal(changes.n, (N_TXNS - since) * N_EACH);
		assert_int_equal(changes.items[0].revision, since + 1);
	}
}

static void what_the_server_finds_too_large_is_e2big(void **state)
{
	enum { N_WRITES = 200, MIB = 1024 * 1024 };
	ps_auto(ps_store_close) struct ps_store *store = open_at(*state, 0, "large");
	ps_auto_mem char *large = calloc(1, 16 * MIB), *text = NULL;
	struct ps_store_write writes[N_WRITES];
	char keys[N_WRITES][8];
	uint64_t revision;

	assert_int_equal(ps_store_put(store, "k", large, 2 * MIB, NULL), -E2BIG);
	assert_int_equal(ps_store_put(store, "k", large, 16 * MIB, NULL), -E2BIG);
	for (int i = 0; i < N_WRITES; i++) {
		snprintf(keys[i], sizeof(keys[i]), "%d", i);
		writes[i] = (struct ps_store_write){keys[i], "x", 1};
	}
	assert_int_equal(ps_store_txn(store, NULL, 0, writes, N_WRITES, NULL, NULL), -E2BIG);
	assert_int_equal(ps_store_revision(store, &revision), 0);
	assert_int_equal(revision, 0);
	assert_int_equal(ps_store_error_text(-E2BIG, ps_store_url(store), &text), 0);
	assert_non_null(strstr(text, "--max-request-bytes"));
}

static void stores_of_one_cluster_do_not_see_each_other(void **state)
{
	ps_auto(ps_store_close) struct ps_store *one = open_at(*state, 0, "site/a");
	ps_auto(ps_store_close) struct ps_store *two = open_at(*state, 0, "site/ab");
	uint64_t first, last;

	assert_int_not_equal(incarnation_of(one), incarnation_of(two));
	first = put(one, "k", "1");
	put(two, "k", "2");
	last = put(one, "k", "3");
	assert_true(last > first + 1); /* the other's write is a gap in the count */
	assert_int_equal(ps_store_revision(one, &first), 0);
	assert_int_equal(first, last);
	put(two, "k", "4");
	assert_int_equal(ps_store_revision(one, &first), 0);
	assert_int_equal(first, last);
}

#define ONE(name) cmocka_unit_test_setup_teardown(name, set_up_one, tear_down_one)

int main(void)
{
	const struct CMUnitTest cluster_tests[] = {
		cmocka_unit_test(no_write_is_lost_or_done_twice_when_the_leader_is_killed),
		cmocka_unit_test(a_server_that_hangs_is_left_for_another),
		cmocka_unit_test(a_watch_whose_server_hangs_moves_when_there_is_something_to_tell),
		cmocka_unit_test(when_all_hang_a_call_ends_soon_and_nothing_is_sent),
		cmocka_unit_test(whoever_lags_may_go_to_another_end_point),
	};
	const struct CMUnitTest tests[] = {
		ONE(a_watch_goes_on_where_it_was_when_the_server_restarts),
		ONE(after_a_compaction_a_reader_still_learns_what_is_newest_and_what_is_gone),
		ONE(a_backup_under_the_same_identity_is_noticed_by_its_revision),
		ONE(a_backup_that_has_overtaken_is_noticed_by_the_watch),
		ONE(a_cluster_made_anew_is_another_store),
		ONE(a_transaction_whose_answer_is_lost_is_not_sent_again),
		ONE(a_long_list_comes_in_pages_of_one_moment),
		ONE(what_one_user_of_a_handle_takes_in_wakes_the_other),
		ONE(changes_older_than_the_log_are_fetched),
		ONE(what_the_server_finds_too_large_is_e2big),
		ONE(stores_of_one_cluster_do_not_see_each_other),
	};
	int n_failed;

	if (!lab_has_etcd()) {
		print_message("skipped: there is no /usr/bin/etcd (Debian: etcd-server)\n");
		return 77;
	}
	n_failed = cmocka_run_group_tests_name("etcd, three servers", cluster_tests, set_up_three,
					       tear_down_three);
	return n_failed + cmocka_run_group_tests_name("etcd, one server", tests, NULL, NULL);
}

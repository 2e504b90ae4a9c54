// SPDX-License-Identifier: MIT
/* A version whose maps have another layout leaves sockets: the next one takes them over. */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>

#include "base/own.h"
#include "egress-fixture.h"

static void pin_of(const char *name, char ret[160])
{
	snprintf(ret, 160, "%s/%s", lab.pins, name);
}

static bool is_pinned(const char *name)
{
	char path[160];

	pin_of(name, path);
	return access(path, F_OK) == 0;
}

/* The pin becomes a map of another layout, as another version would have left; the hooks in place
 * keep theirs. */
static void make_strange(const char *name)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_NO_PREALLOC);
	int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "strange", 8, 24, 16, &opts);
	char path[160];

	pin_of(name, path);
	assert_true(fd >= 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(bpf_obj_pin(fd, path), 0);
	close(fd);
}

static bool is_strange(const char *name)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	char path[160];
	int fd;

	pin_of(name, path);
	fd = bpf_obj_get(path);
	assert_true(fd >= 0);
	assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
	close(fd);
	return info.value_size == 24;
}

enum { N_SOCKETS = 6 };

/* One of each kind: connected and bound, TCP and UDP, and a ping. */
static void open_sockets(int ret[N_SOCKETS])
{
	ret[0] = dial(SOCK_STREAM, net->far[0]);
	ret[1] = dial(SOCK_STREAM, net->far[1]);
	ret[2] = dial(SOCK_DGRAM, net->far[0]);
	ret[3] = new_socket(SOCK_STREAM);
	ret[4] = new_socket(SOCK_DGRAM);
	ret[5] = socket(net->family, SOCK_DGRAM | SOCK_CLOEXEC, net->icmp);
	assert_int_equal(try_bind(ret[3], net->shared[0], 0), 0);
	assert_int_equal(try_bind(ret[4], net->shared[0], 0), 0);
	assert_int_equal(try_connect(ret[5], net->far[0], 7), 0);
	assert_int_equal(n_claims(), N_SOCKETS);
}

struct list {
	struct ps_claim_key *flows;
	size_t n;
};

static int add_flows(const struct ps_page *page, unsigned n_words, void *arg)
{
	const uint64_t *words = (const uint64_t *)(page + 1);
	struct list *list = arg;

	for (unsigned i = 0; i < n_words * 64; i++)
		if (words[i / 64] >> i % 64 & 1 && list->n <= N_SOCKETS)
			list->flows[list->n++] = (struct ps_claim_key){
				.src = page->key.ours,
				.dst = page->key.peer,
				.sport = htons((uint16_t)(page->key.base + i)),
				.dport = page->key.peer_port,
				.protocol = page->key.protocol,
				.shift = page->key.shift,
			};
	return 0;
}

/* Every claim there is, to compare the records of two versions. */
static size_t list_claims(struct ps_claim_key ret[N_SOCKETS + 1])
{
	struct list list = {ret, 0};

	assert_int_equal(ps_egress_pages(lab.pins, add_flows, &list), 0);
	return list.n;
}

static void assert_same_claims(const struct ps_claim_key *a, const struct ps_claim_key *b, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bool found = false;

		for (size_t j = 0; j < n; j++)
			found |= memcmp(&a[i], &b[j], sizeof(a[i])) == 0;
		assert_true(found);
	}
}

static void every_socket_keeps_its_claim_and_gives_it_back(void **state)
{
	struct ps_claim_key before[N_SOCKETS + 1], after[N_SOCKETS + 1];
	int fds[N_SOCKETS], more[LAB_PORTS], n = 0;

	(void)state;
	open_sockets(fds);
	assert_int_equal(list_claims(before), N_SOCKETS);
	make_strange("pages");
	start();
	assert_int_equal(list_claims(after), N_SOCKETS);
	assert_same_claims(before, after, N_SOCKETS);
	assert_int_equal(counter(PS_EGRESS_SEED), N_SOCKETS);
	assert_false(is_strange("pages"));
	assert_false(is_pinned("old-pages") || is_pinned("old-sockets"));
	while (n < LAB_PORTS && (more[n] = dial(SOCK_STREAM, net->far[0])) >= 0)
		n++;
	assert_int_equal(n, LAB_SHARED - 1); /* one is connected there */
	close_all(more, (size_t)n);
	close_all(fds, N_SOCKETS);
	wait_for_claims(0);
}

static void a_generation_that_never_attached_puts_the_old_pins_back(void **state)
{
	ps_auto(ps_egress_free) struct ps_egress *next = NULL;
	ps_auto_mem char *message = NULL;
	int fds[N_SOCKETS];
	uint64_t used;

	(void)state;
	open_sockets(fds);
	make_strange("pages");
	assert_int_equal(ps_egress_usage(lab.pins, slice(0), 1, &used), -ESTALE);
	assert_int_equal(ps_egress_load(&plan.config, &plan.options, &next, &message), 0);
	assert_true(ps_egress_takes_over(next));
	assert_true(is_pinned("old-sockets"));
	ps_egress_free(&next);
	assert_false(is_pinned("old-sockets"));
	assert_true(is_strange("pages"));
	start(); /* and another time it succeeds */
	assert_int_equal(n_claims(), N_SOCKETS);
	close_all(fds, N_SOCKETS);
	wait_for_claims(0);
}

/* As a version before the ledger leaves them: a record by other names. */
static void make_ancient(void)
{
	static const char *const names[] = {"wide-pages", "drafts", "quarantine", "pings"};
	char from[160], to[160];

	pin_of("pages", from);
	pin_of("claims", to);
	assert_int_equal(rename(from, to), 0);
	for (size_t i = 0; i < PS_N_ELEMENTS(names); i++) {
		pin_of(names[i], from);
		assert_int_equal(unlink(from), 0);
	}
	make_strange("replies");
}

static void a_version_before_the_ledger_leaves_no_pin_of_its_own(void **state)
{
	ps_auto(ps_egress_free) struct ps_egress *next = NULL;
	ps_auto_mem char *message = NULL;
	int fds[N_SOCKETS];

	(void)state;
	open_sockets(fds);
	make_ancient();
	assert_int_equal(ps_egress_load(&plan.config, &plan.options, &next, &message), 0);
	assert_true(is_pinned("old-claims") && is_pinned("pages") && !is_pinned("claims"));
	ps_egress_free(&next); /* puts them back, and takes its own away */
	assert_true(is_pinned("claims") && is_strange("replies") && !is_pinned("pages"));
	start();
	assert_int_equal(n_claims(), N_SOCKETS);
	assert_false(is_pinned("claims") || is_pinned("old-claims") || is_strange("replies"));
	close_all(fds, N_SOCKETS);
	wait_for_claims(0);
}

/* As by a daemon that was killed between load and attach. */
static void what_was_set_aside_is_taken_over_by_the_next(void **state)
{
	struct ps_egress *lost;
	ps_auto_mem char *message = NULL;
	int fds[N_SOCKETS];

	(void)state;
	open_sockets(fds);
	make_strange("pages");
	if (fork() == 0) {
		_exit(ps_egress_load(&plan.config, &plan.options, &lost, &message) != 0);
	}
	assert_int_equal(waitpid(-1, NULL, 0) > 0, 1);
	assert_true(is_pinned("old-sockets"));
	start();
	assert_int_equal(n_claims(), N_SOCKETS);
	assert_false(is_pinned("old-sockets"));
	close_all(fds, N_SOCKETS);
	wait_for_claims(0);
}

static void a_map_beside_the_record_is_replaced_alone(void **state)
{
	int fds[N_SOCKETS];

	(void)state;
	open_sockets(fds);
	make_strange("egress-counters");
	start();
	assert_false(is_strange("egress-counters") || is_pinned("old-egress-counters"));
	assert_int_equal(counter(PS_EGRESS_SEED), 0);
	assert_int_equal(n_claims(), N_SOCKETS);
	close_all(fds, N_SOCKETS);
	wait_for_claims(0);
}

static void detach_removes_the_pins_of_a_version_before_the_ledger(void **state)
{
	uint64_t used;

	(void)state;
	make_ancient();
	make_strange("sockets");
	assert_int_equal(ps_egress_usage(lab.pins, slice(0), 1, &used), -ESTALE);
	assert_int_equal(ps_egress_detach_all(lab.pins), 0);
	assert_false(is_pinned("claims") || is_pinned("sockets"));
}

static void detach_removes_what_was_set_aside(void **state)
{
	ps_auto(ps_egress_free) struct ps_egress *next = NULL;
	ps_auto_mem char *message = NULL;

	(void)state;
	make_strange("sockets");
	assert_int_equal(ps_egress_load(&plan.config, &plan.options, &next, &message), 0);
	assert_true(is_pinned("old-sockets"));
	assert_int_equal(ps_egress_detach_all(lab.pins), 0);
	assert_false(is_pinned("old-sockets") || is_pinned("sockets"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FACT(every_socket_keeps_its_claim_and_gives_it_back),
		FACT(a_generation_that_never_attached_puts_the_old_pins_back),
		FACT(a_version_before_the_ledger_leaves_no_pin_of_its_own),
		FACT(what_was_set_aside_is_taken_over_by_the_next),
		FACT_V4(a_map_beside_the_record_is_replaced_alone),
		FACT_V4(detach_removes_the_pins_of_a_version_before_the_ledger),
		FACT_V4(detach_removes_what_was_set_aside),
	};

	return RUN_FACTS(tests);
}

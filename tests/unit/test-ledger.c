// SPDX-License-Identifier: MIT
/*
 * The ledger's protocol under brute force: threads claim and release ports of a few pages while
 * another removes every page that is empty, over a map that uses elements again at once, as the
 * kernel's does.  A shadow table of owners is the judge.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "base/range.h"
#include "cm.h"

static void stall(void);
#define PS_LEDGER_WINDOW() stall()
#include "egress/ledger.h"
#include "ledger-naive.h"

enum {
	N_KEYS = 4,
	N_ELEMENTS = 4,
	N_PORTS = 4, /* drawn of each page; one more is claimed exactly */
	N_THREADS = 3,
	N_ROUNDS = 100000,
	N_HELD = 4,
	TRIES = 10, /* of the control: threads may hardly meet on a busy machine */
};

/* A map of pages: elements are used again at once, and looked up without a lock. */
static struct ps_narrow_page elements[N_ELEMENTS];
static struct ps_draft drafts[PS_DRAFTS_MAX];
static _Atomic(struct ps_narrow_page *) places[N_KEYS];
static struct ps_narrow_page *spare[N_ELEMENTS];
static unsigned n_spare;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread unsigned seed;

static unsigned draw(void)
{
	return (unsigned)rand_r(&seed);
}

static void stall(void)
{
	if (draw() % 8 == 0)
		sched_yield();
}

static struct ps_page *ps_page_find(__u32 n_words, const struct ps_page_key *key)
{
	struct ps_narrow_page *found =
		atomic_load_explicit(&places[key->peer.words[3]], memory_order_acquire);

	(void)n_words;
	return found ? &found->head : NULL;
}

/* As the kernel: word by word into an element that others may still look at. */
static void copy(struct ps_narrow_page *to, const struct ps_page *from)
{
	const __u64 *source = (const __u64 *)from;
	__u64 *target = (__u64 *)to;

	for (size_t i = 0; i < sizeof(*to) / sizeof(__u64); i++) {
		__atomic_store_n(&target[i], source[i], __ATOMIC_RELAXED);
		if (draw() % 64 == 0)
			sched_yield();
	}
}

static int ps_page_insert(__u32 n_words, const struct ps_page_key *key,
			  const struct ps_page *template)
{
	unsigned i = key->peer.words[3];
	int r = 0;

	(void)n_words;
	pthread_mutex_lock(&lock);
	if (atomic_load(&places[i])) {
		r = -EEXIST;
	} else if (!n_spare) {
		r = -E2BIG;
	} else {
		struct ps_narrow_page *element = spare[--n_spare];

		copy(element, template);
		atomic_store_explicit(&places[i], element, memory_order_release);
	}
	pthread_mutex_unlock(&lock);
	return r;
}

static void ps_page_delete(__u32 n_words, const struct ps_page_key *key)
{
	unsigned i = key->peer.words[3];
	struct ps_narrow_page *element;

	(void)n_words;
	pthread_mutex_lock(&lock);
	element = atomic_load(&places[i]);
	if (element) {
		atomic_store(&places[i], NULL);
		spare[n_spare++] = element;
	}
	pthread_mutex_unlock(&lock);
}

static void ps_ledger_undone(void)
{
}

static struct ps_draft *ps_draft_at(__u32 i)
{
	return &drafts[i];
}

/* The judge, and what it saw. */
static atomic_int owners[N_KEYS][64 * PS_NARROW_WORDS];
static atomic_ulong n_doubles, n_lost, n_claims, n_full, n_taken, n_kills, n_short;
static atomic_bool over;
static bool is_naive;

static struct ps_page_ask ask_for(unsigned key)
{
	struct ps_page_ask ask = {.how = PS_CLAIM_ANY};
	/* Not on a word's edge. */
	struct ps_page_draw range = {
		.first = 60, .end = 60 + N_PORTS, .n = N_PORTS, .hole = PS_NO_HOLE};

	ask.grip.flow.dst.words[3] = key;
	ask.place.draw = range;
	ask.place.n_words = PS_NARROW_WORDS;
	ask.place.bit = draw() % 256;
	if (draw() % 4 == 0) {
		ask.how = PS_CLAIM_EXACTLY;
		ask.place.bit = 60 + draw() % (N_PORTS + 1);
	}
	return ask;
}

static int claim(struct ps_page_ask *ask)
{
	int r;

	do {
		r = is_naive ? naive_attempt(ask, PS_NARROW_WORDS)
			     : ps_ledger_attempt(ask, PS_NARROW_WORDS);
		if (r == PS_CLAIM_NO_PAGE)
			r = ps_ledger_make(ask, draw(), PS_NARROW_WORDS);
		else if (r != PS_CLAIM_AGAIN && r != PS_CLAIM_LEAVING)
			return r;
		else
			sched_yield();
	} while (r != PS_CLAIM_SHORT);
	return r;
}

static void give_back(const struct ps_page_ask *ask)
{
	atomic_store(&owners[ask->grip.flow.dst.words[3]][ask->place.bit], 0);
	if (ps_ledger_drop(&ask->grip, &ask->place, PS_NARROW_WORDS))
		n_lost++;
}

static void note(const struct ps_page_ask *ask, int thread)
{
	int none = 0;

	n_claims++;
	if (!atomic_compare_exchange_strong(&owners[ask->grip.flow.dst.words[3]][ask->place.bit],
					    &none, thread))
		n_doubles++;
}

static void *user(void *arg)
{
	struct ps_page_ask held[N_HELD];
	unsigned n = 0;

	seed = (unsigned)(uintptr_t)arg;
	for (unsigned i = 0; i < N_ROUNDS; i++) {
		int r;

		if (n == N_HELD || (n && draw() % 2)) {
			give_back(&held[--n]);
			continue;
		}
		held[n] = ask_for(draw() % N_KEYS);
		r = claim(&held[n]);
		if (!r)
			note(&held[n++], (int)(uintptr_t)arg);
		n_full += r == PS_CLAIM_FULL;
		n_taken += r == PS_CLAIM_TAKEN;
		n_short += r == PS_CLAIM_SHORT;
	}
	while (n)
		give_back(&held[--n]);
	return NULL;
}

static void *killer(void *arg)
{
	seed = (unsigned)(uintptr_t)arg;
	while (!atomic_load(&over)) {
		struct ps_narrow_page *page = &elements[draw() % N_ELEMENTS];

		n_kills += (unsigned)(is_naive ? naive_kill(&page->head, PS_NARROW_WORDS)
					       : ps_ledger_kill(&page->head, 1, PS_NARROW_WORDS));
		sched_yield();
	}
	return NULL;
}

static unsigned n_left(void)
{
	unsigned n = 0;

	for (size_t i = 0; i < N_KEYS; i++) {
		const struct ps_narrow_page *page = atomic_load(&places[i]);

		for (size_t w = 0; page && w < PS_NARROW_WORDS; w++)
			n += page->words[w] != 0;
		n += page && page->head.state & PS_STATE_PERMITS;
	}
	return n;
}

static void run(bool naively)
{
	pthread_t users[N_THREADS], sweeper;

	is_naive = naively;
	n_doubles = n_lost = n_claims = n_full = n_taken = n_kills = n_short = 0;
	over = false;
	memset(owners, 0, sizeof(owners));
	memset(elements, 0, sizeof(elements));
	memset(places, 0, sizeof(places));
	n_spare = 0;
	for (size_t i = 0; i < N_ELEMENTS; i++)
		spare[n_spare++] = &elements[i];
	assert_int_equal(pthread_create(&sweeper, NULL, killer, (void *)99), 0);
	for (uintptr_t i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&users[i], NULL, user, (void *)(i + 1)), 0);
	for (size_t i = 0; i < N_THREADS; i++)
		pthread_join(users[i], NULL);
	atomic_store(&over, true);
	pthread_join(sweeper, NULL);
	printf("%s: %lu claims, %lu kills, %lu full, %lu taken, %lu without room, %lu doubles, "
	       "%lu lost, %u pages with bits left\n",
	       naively ? "naive" : "ledger", n_claims, n_kills, n_full, n_taken, n_short, n_doubles,
	       n_lost, n_left());
}

static void no_port_is_given_twice_and_none_is_lost(void **state)
{
	(void)state;
	run(false);
	assert_true(n_claims > N_ROUNDS);
	assert_true(n_kills > 100);
	assert_true(n_taken > 0);
	assert_true(n_full > 0);
	assert_int_equal(n_doubles, 0);
	assert_int_equal(n_lost, 0);
	assert_int_equal(n_left(), 0);
}

static void the_naive_way_fails_this_very_test(void **state)
{
	unsigned long bad = 0;

	(void)state;
	for (unsigned i = 0; i < TRIES && !bad; i++) {
		run(true);
		bad = n_doubles + n_lost + n_left();
	}
	assert_true(bad > 0);
}

/* Marks [60, 60 + n) of page `key` as far as they can be claimed. */
static unsigned fill(unsigned key)
{
	struct ps_page_ask ask;
	unsigned n = 0;

	for (;; n++) {
		ask = ask_for(key);
		ask.how = PS_CLAIM_ANY;
		if (claim(&ask))
			return n;
		assert_in_range(ask.place.bit, 60, 60 + N_PORTS - 1);
		assert_int_equal(ask.n_used, n + 1);
	}
}

static void full_is_what_the_count_says(void **state)
{
	struct ps_page_ask ask;

	(void)state;
	run(false);
	assert_int_equal(fill(0), N_PORTS);
	ask = ask_for(0);
	ask.how = PS_CLAIM_EXACTLY;
	ask.place.bit = 60 + N_PORTS;
	assert_int_equal(claim(&ask), 0); /* counted apart */
	assert_int_equal(claim(&ask), PS_CLAIM_TAKEN);
	ask.grip.gen++;
	assert_int_equal(ps_ledger_drop(&ask.grip, &ask.place, PS_NARROW_WORDS), -ESTALE);
	ask.grip.gen--;
	assert_int_equal(ps_ledger_drop(&ask.grip, &ask.place, PS_NARROW_WORDS), 0);
	assert_int_equal(ps_ledger_drop(&ask.grip, &ask.place, PS_NARROW_WORDS), -EALREADY);
	ask.place.bit = 63;
	assert_int_equal(ps_ledger_drop(&ask.grip, &ask.place, PS_NARROW_WORDS), 0);
	ask.how = PS_CLAIM_ONWARD;
	ask.place.bit = 64;
	assert_int_equal(claim(&ask), PS_CLAIM_FULL);
	ask.place.bit = 61;
	assert_int_equal(claim(&ask), 0);
	assert_int_equal(ask.place.bit, 63);
}

static void only_an_empty_page_that_was_idle_is_removed(void **state)
{
	struct ps_page_ask ask;
	struct ps_page_key key;
	struct ps_page *page;

	(void)state;
	run(false);
	ask = ask_for(1);
	assert_int_equal(claim(&ask), 0);
	key = ps_page_key_of(&ask.grip.flow, ask.place.base);
	page = ps_page_find(PS_NARROW_WORDS, &key);
	assert_int_equal(ps_ledger_kill(page, 1, PS_NARROW_WORDS), 0);
	assert_int_equal(ps_ledger_drop(&ask.grip, &ask.place, PS_NARROW_WORDS), 0);
	assert_int_equal(ps_ledger_kill(page, 0, PS_NARROW_WORDS), 0); /* used since */
	assert_int_equal(ps_ledger_kill(page, 0, PS_NARROW_WORDS), 1);
	assert_null(ps_page_find(PS_NARROW_WORDS, &key));
	assert_int_equal(ps_ledger_kill(page, 1, PS_NARROW_WORDS), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_port_is_given_twice_and_none_is_lost),
		cmocka_unit_test(the_naive_way_fails_this_very_test),
		cmocka_unit_test(full_is_what_the_count_says),
		cmocka_unit_test(only_an_empty_page_that_was_idle_is_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/own.h"
#include "store/store-backend.h"

/* log holds every state ever written, oldest first; present the places in log of those that stand,
 * sorted by key. */
struct memory {
	struct ps_store base;
	struct ps_store_value *log;
	size_t n_log;
	size_t *present;
	size_t n_present;
	uint64_t revision;
	uint64_t incarnation;
	int event_fd;
};

static struct memory *memory_of(struct ps_store *store)
{
	return (struct memory *)store;
}

static void memory_close(struct ps_store *store)
{
	struct memory *m = memory_of(store);
	struct ps_store_values log = {m->log, m->n_log};

	ps_store_values_clear(&log);
	free(m->present);
	ps_fd_drop(&m->event_fd);
	free(m);
}

static int memory_open(const char *place, struct ps_store **ret, char **ret_message)
{
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	struct memory *m;
	int r;

	(void)ret_message;
	if (*place)
		return -EINVAL;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->base.ops = &ps_store_memory;
	m->event_fd = -1;
	store = &m->base;
	r = ps_store_draw_incarnation(&m->incarnation);
	if (r < 0)
		return r;
	m->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (m->event_fd < 0)
		return -errno;
	*ret = ps_move(store);
	return 0;
}

/* The first place in present whose key is not less than key. */
static size_t lower_bound(const struct memory *m, const char *key)
{
	size_t low = 0, high = m->n_present;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(m->log[m->present[middle]].key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static const struct ps_store_value *find(const struct memory *m, const char *key)
{
	size_t at = lower_bound(m, key);

	if (at == m->n_present || strcmp(m->log[m->present[at]].key, key) != 0)
		return NULL;
	return &m->log[m->present[at]];
}

static bool has_prefix(const char *key, const char *prefix)
{
	return strncmp(key, prefix, strlen(prefix)) == 0;
}

static int memory_get(struct ps_store *store, const char *key, struct ps_store_value *ret)
{
	const struct ps_store_value *value = find(memory_of(store), key);

	return value ? ps_store_value_copy(value, ret) : -ENOENT;
}

static int memory_list(struct ps_store *store, const char *prefix, struct ps_store_values *ret)
{
	ps_auto(ps_store_values_clear) struct ps_store_values values = {0};
	struct memory *m = memory_of(store);

	for (size_t i = lower_bound(m, prefix); i < m->n_present; i++) {
		const struct ps_store_value *value = &m->log[m->present[i]];
		int r;

		if (!has_prefix(value->key, prefix))
			break;
		r = ps_store_values_add(&values, value);
		if (r < 0)
			return r;
	}
	*ret = values;
	values = (struct ps_store_values){0};
	return 0;
}

static int compare(const struct memory *m, const struct ps_store_txn *txn, size_t *ret_failed)
{
	for (size_t i = 0; i < txn->n_compares; i++) {
		const struct ps_store_value *value = find(m, txn->compares[i].key);

		if ((value ? value->revision : 0) != txn->compares[i].revision) {
			*ret_failed = i;
			return -ESTALE;
		}
	}
	return 0;
}

/* Room for every write, so that what follows cannot fail half way. */
static int reserve(struct memory *m, size_t n_more)
{
	void *log = reallocarray(m->log, m->n_log + n_more, sizeof(*m->log));
	void *present;

	if (!log)
		return -ENOMEM;
	m->log = log;
	present = reallocarray(m->present, m->n_present + n_more, sizeof(*m->present));
	if (!present)
		return -ENOMEM;
	m->present = present;
	return 0;
}

/* New states as they will stand in the log; deletions of missing keys are left out. */
static int prepare(const struct memory *m, const struct ps_store_txn *txn,
		   struct ps_store_values *ret)
{
	int64_t time_ms = ps_store_time_ms();

	for (size_t i = 0; i < txn->n_writes; i++) {
		const struct ps_store_write *write = &txn->writes[i];
		const struct ps_store_value *old = find(m, write->key);
		struct ps_store_value state = {.revision = m->revision + 1, .time_ms = time_ms};
		int r;

		if (!old && !write->data)
			continue;
		/* ps_store_values_add() copies and does not write through these. */
		state.key = (char *)(uintptr_t)write->key;
		state.data = (char *)(uintptr_t)write->data;
		if (write->data) {
			state.len = write->len;
			state.create_revision = old ? old->create_revision : state.revision;
		}
		r = ps_store_values_add(ret, &state);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Takes over what state points to. */
static void apply(struct memory *m, struct ps_store_value *state)
{
	size_t at = lower_bound(m, state->key);
	bool exists = at < m->n_present && strcmp(m->log[m->present[at]].key, state->key) == 0;
	size_t *place = m->present + at;

	if (!state->data) {
		m->n_present--;
		memmove(place, place + 1, (m->n_present - at) * sizeof(*place));
	} else {
		if (!exists) {
			memmove(place + 1, place, (m->n_present - at) * sizeof(*place));
			m->n_present++;
		}
		*place = m->n_log;
	}
	m->log[m->n_log++] = *state;
	*state = (struct ps_store_value){0};
}

static int memory_txn(struct ps_store *store, const struct ps_store_txn *txn,
		      uint64_t *ret_revision, size_t *ret_failed)
{
	ps_auto(ps_store_values_clear) struct ps_store_values states = {0};
	struct memory *m = memory_of(store);
	int r = compare(m, txn, ret_failed);

	if (r < 0)
		return r;
	r = prepare(m, txn, &states);
	if (r < 0)
		return r;
	if (states.n > 0) {
		r = reserve(m, states.n);
		if (r < 0)
			return r;
		for (size_t i = 0; i < states.n; i++)
			apply(m, &states.items[i]);
		m->revision++;
		(void)eventfd_write(m->event_fd, 1);
	}
	*ret_revision = m->revision;
	return 0;
}

static int memory_revision(struct ps_store *store, uint64_t *ret)
{
	*ret = memory_of(store)->revision;
	return 0;
}

static int memory_incarnation(struct ps_store *store, uint64_t *ret)
{
	*ret = memory_of(store)->incarnation;
	return 0;
}

static int memory_watch_fd(struct ps_store *store)
{
	return memory_of(store)->event_fd;
}

static bool memory_watch_clear(struct ps_store *store)
{
	eventfd_t count;

	return eventfd_read(memory_of(store)->event_fd, &count) == 0;
}

static int memory_changes(struct ps_store *store, const char *prefix, uint64_t since,
			  struct ps_store_values *ret)
{
	ps_auto(ps_store_values_clear) struct ps_store_values values = {0};
	struct memory *m = memory_of(store);
	size_t first = m->n_log;

	while (first > 0 && m->log[first - 1].revision > since)
		first--;
	for (size_t i = first; i < m->n_log; i++) {
		int r = 0;

		if (has_prefix(m->log[i].key, prefix))
			r = ps_store_values_add(&values, &m->log[i]);
		if (r < 0)
			return r;
	}
	*ret = values;
	values = (struct ps_store_values){0};
	return 0;
}

static int memory_history(struct ps_store *store, const char *key, size_t max,
			  struct ps_store_values *ret)
{
	ps_auto(ps_store_values_clear) struct ps_store_values values = {0};
	struct memory *m = memory_of(store);

	for (size_t i = m->n_log; i > 0 && values.n < max; i--) {
		int r = 0;

		if (strcmp(m->log[i - 1].key, key) == 0)
			r = ps_store_values_add(&values, &m->log[i - 1]);
		if (r < 0)
			return r;
	}
	*ret = values;
	values = (struct ps_store_values){0};
	return 0;
}

const struct ps_store_ops ps_store_memory = {
	.scheme = "memory:",
	.open = memory_open,
	.close = memory_close,
	.get = memory_get,
	.list = memory_list,
	.txn = memory_txn,
	.revision = memory_revision,
	.incarnation = memory_incarnation,
	.watch_fd = memory_watch_fd,
	.watch_clear = memory_watch_clear,
	.changes = memory_changes,
	.history = memory_history,
};

// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "store/etcd.h"

static void stream_drop(struct ps_etcd_stream *stream)
{
	free(stream->line);
}

static void easy_drop(CURL **easy)
{
	curl_easy_cleanup(*easy);
}

static void headers_drop(struct curl_slist **headers)
{
	curl_slist_free_all(*headers);
}

/* One watch from the past, ended when revision `stream->until` has come: every state between. */
static int run_stream(struct ps_etcd *e, struct ps_etcd_stream *stream)
{
	ps_auto_json json_t *request = ps_etcd_stream_request(stream);
	ps_auto_mem char *body = request ? json_dumps(request, JSON_COMPACT) : NULL;
	ps_auto(headers_drop) struct curl_slist *headers = NULL;
	ps_auto(easy_drop) CURL *easy = NULL;
	int r = body ? ps_etcd_wire_stream(e->wire, &easy, &headers) : -ENOMEM;

	if (r < 0)
		return r;
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, ps_etcd_stream_write);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, stream);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)PS_ETCD_CALL_MS);
	(void)curl_easy_perform(easy); /* ended by us, or without what was wanted */
	switch (stream->state) {
	case PS_ETCD_STREAM_COMPACTED:
		return -ERANGE;
	case PS_ETCD_STREAM_RESTORED:
		e->is_gone = true;
		return -EIDRM;
	case PS_ETCD_STREAM_FAILED:
		return -ENOMEM;
	default:
		return stream->log->seen >= stream->until ? 0 : -EHOSTUNREACH;
	}
}

static int replay(struct ps_etcd *e, uint64_t since, uint64_t until, struct ps_etcd_log *log)
{
	int r = -EHOSTUNREACH;

	for (size_t i = 0; r == -EHOSTUNREACH && i < e->config.n_endpoints + 1; i++) {
		ps_auto(stream_drop) struct ps_etcd_stream stream = {
			.config = &e->config,
			.log = log,
			.origin = e->origin,
			.meta_revision = e->meta_revision,
			.until = until,
		};

		ps_etcd_log_clear(log);
		log->from = log->seen = since;
		r = run_stream(e, &stream);
		if (r == -EHOSTUNREACH && stream.state == PS_ETCD_STREAM_REFUSED)
			ps_etcd_wire_forget_token(e->wire);
		else if (r == -EHOSTUNREACH)
			ps_etcd_wire_elsewhere(e->wire, true);
		if (ps_etcd_wire_left_ms(e->wire) == 0)
			break;
	}
	return r;
}

static int state_order(const void *a, const void *b)
{
	const struct ps_etcd_state *x = a, *y = b;

	if (x->value.revision != y->value.revision)
		return x->value.revision < y->value.revision ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

static json_t *newest_request(const struct ps_etcd *e, uint64_t since)
{
	static const enum ps_etcd_branch both[] = {PS_ETCD_DATA, PS_ETCD_TOMBSTONE};
	ps_auto_json json_t *ops = json_array();

	for (size_t i = 0; i < PS_N_ELEMENTS(both); i++) {
		json_t *range = ps_etcd_range(e, both[i], "", true, false);

		if (json_object_set_new(json_object_get(range, "request_range"), "min_mod_revision",
					ps_etcd_number_json(since + e->origin + 1)) != 0 ||
		    json_array_append_new(ops, range) != 0)
			return NULL;
	}
	return json_incref(ops);
}

static int key_order(const void *a, const void *b)
{
	const struct ps_etcd_state *x = a, *y = b;

	return strcmp(x->value.key, y->value.key);
}

/* A tombstone outlives the return of its key; then the key's own state is the newer. */
static bool is_outlived(const struct ps_etcd_state *states, size_t n_data,
			const struct ps_etcd_state *tombstone)
{
	const struct ps_etcd_state *data = NULL;

	if (n_data > 0) /* as etcd gave them: sorted by key */
		data = bsearch(tombstone, states, n_data, sizeof(*states), key_order);
	return data && data->value.revision > tombstone->value.revision;
}

static int collect(const struct ps_etcd *e, const json_t *answers, struct ps_etcd_state *states,
		   size_t *n)
{
	for (size_t branch = 0; branch < 2; branch++) {
		const json_t *kvs = ps_etcd_kvs(answers, branch);
		size_t n_data = branch ? *n : 0;

		for (size_t i = 0; i < json_array_size(kvs); i++) {
			struct ps_etcd_state *state = &states[*n];
			int r = ps_etcd_state_parse(&e->config, json_array_get(kvs, i), state);

			if (r <= 0)
				return r < 0 ? r : -EBADMSG;
			ps_etcd_state_settle(e, state);
			if (is_outlived(states, n_data, state))
				ps_store_value_clear(&state->value);
			else
				++*n;
		}
	}
	return 0;
}

/* The newest state of every key that changed after since, deletions included: what is left of the past
 * after a compaction.  Appended to log, which has then seen all there is. */
static int add_newest(struct ps_etcd *e, uint64_t since, struct ps_etcd_log *log)
{
	ps_auto_json json_t *answer = NULL;
	ps_auto_mem struct ps_etcd_state *states = NULL;
	json_t *answers;
	size_t n = 0;
	int r = ps_etcd_read(e, newest_request(e, since), &answer, &answers);

	if (r < 0)
		return r;
	states = calloc(json_array_size(ps_etcd_kvs(answers, 0)) +
				json_array_size(ps_etcd_kvs(answers, 1)) + 1,
			sizeof(*states));
	if (!states)
		return -ENOMEM;
	r = collect(e, answers, states, &n);
	qsort(states, n, sizeof(*states), state_order);
	for (size_t i = 0; i < n; i++) {
		if (r >= 0)
			r = ps_etcd_log_push(log, &states[i].value);
		ps_store_value_clear(&states[i].value);
	}
	if (r < 0)
		return r;
	log->seen = ps_etcd_revision_of(e, e->highest);
	log->seen_hash = 0;
	return 0;
}

/* Where the stream was to go on is compacted: what is missing is fetched, then it goes on. */
static int mend_watch(struct ps_etcd *e)
{
	struct ps_etcd_log *log = ps_etcd_watch_log(e->watch);
	int r;

	if (ps_etcd_watch_state(e->watch) != PS_ETCD_STREAM_COMPACTED)
		return 0;
	r = add_newest(e, log->seen, log);
	if (r >= 0)
		ps_etcd_watch_restart(e->watch);
	return r;
}

/* True when the watch's log has all changes after since up to until.  A watch that is silent although
 * there is something to tell has a server that hangs, or was cut off from the others. */
static bool watch_has(struct ps_etcd *e, uint64_t since, uint64_t until)
{
	if (!e->watch || since < ps_etcd_watch_log(e->watch)->from)
		return false;
	if (ps_etcd_watch_reach(e->watch, until, PS_ETCD_CATCH_UP_MS))
		return true;
	if (mend_watch(e) >= 0 && ps_etcd_watch_log(e->watch)->seen >= until)
		return true;
	ps_etcd_wire_elsewhere(e->wire, true);
	ps_etcd_watch_restart(e->watch);
	return false;
}

int ps_etcd_changes(struct ps_store *store, const char *prefix, uint64_t since,
		    struct ps_store_values *ret)
{
	struct ps_etcd *e = (struct ps_etcd *)store;
	ps_auto(ps_etcd_log_clear) struct ps_etcd_log log = {0};
	uint64_t until;
	int r = ps_etcd_revision(store, &until);

	if (r < 0)
		return r;
	if (until <= since) {
		*ret = (struct ps_store_values){0};
		return 0;
	}
	if (watch_has(e, since, until))
		return ps_etcd_log_select(ps_etcd_watch_log(e->watch), prefix, since, ret);
	r = ps_etcd_begin(e, PS_ETCD_LONG_MS);
	if (r >= 0)
		r = replay(e, since, until, &log);
	if (r == -ERANGE) {
		ps_etcd_log_clear(&log);
		r = add_newest(e, since, &log);
	}
	return r < 0 ? r : ps_etcd_log_select(&log, prefix, since, ret);
}

/* The state of key at etcd's `revision` (0: now): of value and tombstone the newer.  0: none. */
static int state_at(struct ps_etcd *e, const char *key, uint64_t revision,
		    struct ps_etcd_state *ret)
{
	ps_auto_json json_t *answer = NULL;
	json_t *answers, *ops;
	size_t newer;
	int r;

	ops = json_pack("[o, o]", ps_etcd_range(e, PS_ETCD_DATA, key, false, false),
			ps_etcd_range(e, PS_ETCD_TOMBSTONE, key, false, false));
	for (size_t i = 0; i < json_array_size(ops); i++)
		json_object_set_new(json_object_get(json_array_get(ops, i), "request_range"),
				    "revision", ps_etcd_number_json(revision));
	r = ps_etcd_read(e, ops, &answer, &answers);
	if (r < 0)
		return r;
	newer = ps_etcd_mod_revision(answers, 1) > ps_etcd_mod_revision(answers, 0);
	if (!ps_etcd_mod_revision(answers, newer))
		return 0;
	return ps_etcd_state_parse(&e->config, json_array_get(ps_etcd_kvs(answers, newer), 0), ret);
}

int ps_etcd_history(struct ps_store *store, const char *key, size_t max,
		    struct ps_store_values *ret)
{
	struct ps_etcd *e = (struct ps_etcd *)store;
	ps_auto(ps_etcd_log_clear) struct ps_etcd_log log = {0};
	uint64_t revision = 0;
	int r = ps_etcd_begin(e, PS_ETCD_LONG_MS);

	while (r >= 0 && log.n < max) {
		struct ps_etcd_state state;

		r = state_at(e, key, revision, &state);
		if (r <= 0)
			break;
		revision = state.value.revision - 1; /* PREFIX/meta stands before: not 0 */
		ps_etcd_state_settle(e, &state);
		r = ps_etcd_log_push(&log, &state.value);
		ps_store_value_clear(&state.value);
	}
	if (r < 0 && r != -ERANGE) /* compacted: no more is known */
		return r;
	*ret = (struct ps_store_values){ps_move(log.items), log.n};
	log.n = 0;
	return 0;
}

void ps_etcd_reconnect(struct ps_store *store)
{
	struct ps_etcd *e = (struct ps_etcd *)store;

	ps_etcd_wire_elsewhere(e->wire, true);
	if (e->watch)
		ps_etcd_watch_restart(e->watch);
}

bool ps_etcd_watch_take(struct ps_store *store)
{
	struct ps_etcd *e = (struct ps_etcd *)store;
	bool is_news;

	if (!e->watch)
		return false;
	is_news = ps_etcd_watch_clear(e->watch);
	if (ps_etcd_watch_state(e->watch) == PS_ETCD_STREAM_COMPACTED &&
	    ps_etcd_begin(e, PS_ETCD_CALL_MS) >= 0)
		(void)mend_watch(e); /* else the next call tries again */
	return is_news;
}

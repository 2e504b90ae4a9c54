// SPDX-License-Identifier: MIT
/*
 * etcd as a store: 3.4 and later, over its JSON gateway.
 *
 * Under the URL's prefix stand four kinds of keys.  PREFIX/meta is written once, when the store is
 * made, and says so; etcd's revision of that moment is our 0, so that ours begin there whatever the
 * cluster held before.  PREFIX/d/KEY holds the values.  A deletion removes it and writes PREFIX/t/KEY,
 * a tombstone, in the same transaction: so deletions carry a time, and are still known when etcd has
 * compacted the moment they happened.  PREFIX/head is written by every transaction that changes
 * something: its revision is the store's, in one cheap read, also when others write to the same
 * cluster (then ours has gaps).  Values stand behind a line "TIME_MS INDEX\n" for people and for order.
 *
 * Every request is one transaction that compares PREFIX/meta with what this handle knows, reads
 * included: no answer ever comes from, and no write ever goes into, another store than the one that was
 * opened.  The incarnation is the random number in PREFIX/meta mixed with etcd's cluster id, so that a
 * backup restored under a new --initial-cluster-token is another one.  One restored under the old
 * identity is noticed by whoever was awake: etcd's revision has gone back, or the stream of changes,
 * which is resumed at the last revision seen and not behind it, does not begin with what was written
 * then.  Who notices draws a new incarnation; all other handles then fail as well (-EIDRM).
 *
 * Requests go to one end point until it fails.  What only reads is then asked elsewhere; a transaction
 * that may have arrived is not (-EIO), and curl is kept from repeating it (etcd-wire.c).  An end point
 * that hung is asked last for a while, so that a dead store costs the caller PS_ETCD_PROBE_MS at a time.
 *
 * The watch is one endless answer of etcd, read in the caller's event loop through one descriptor; it
 * fills a log from which changes are served.  What the log does not reach is fetched.
 *
 * It must not start threads, hold locks in etcd, use its leases (design.md §5: ownership is kept by
 * records and store time), or believe anything that came without a revision.
 *
 * Follows: etcd.io "API reference" (KV, Watch, Auth), "gRPC gateway", "Disaster recovery"; rpc.proto.
 */
#include "store/etcd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/own.h"
#include "base/say.h"

static struct ps_etcd *etcd_of(struct ps_store *store)
{
	return (struct ps_etcd *)store;
}

static void etcd_close(struct ps_store *store)
{
	struct ps_etcd *e = etcd_of(store);

	ps_etcd_watch_free(&e->watch);
	ps_etcd_wire_free(&e->wire);
	ps_etcd_config_clear(&e->config);
	free(e->meta_text);
	free(e);
	curl_global_cleanup();
}

/* splitmix64, https://prng.di.unimi.it/splitmix64.c: another cluster, another number. */
static uint64_t mix(uint64_t drawn, uint64_t cluster_id)
{
	uint64_t z = cluster_id + UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	z = (drawn ^ z ^ z >> 31) & INT64_MAX;
	return z ? z : 1;
}

static json_t *meta_value(uint64_t drawn)
{
	char text[64];
	int len =
		snprintf(text, sizeof(text), "portslice store %d %" PRIu64, PS_ETCD_FORMAT, drawn);

	return ps_etcd_value(ps_store_time_ms(), 0, text, (size_t)len);
}

static int read_meta_text(struct ps_etcd *e, const char *text, char **ret_message)
{
	int format, end = 0;
	int64_t time_ms;
	uint64_t drawn;

	if (sscanf(text, "%" SCNd64 " 0\nportslice store %d %n", &time_ms, &format, &end) != 2 ||
	    !end)
		return ps_say(ret_message, -EBADMSG,
			      "%s/meta at %s is not portslice's: name another prefix",
			      e->config.prefix, e->config.endpoints[0]);
	if (format > PS_ETCD_FORMAT)
		return ps_say(ret_message, -EPROTO,
			      "%s/meta has format %d, made by a newer portslice, and this one "
			      "knows %d: upgrade portslice on this host",
			      e->config.prefix, format, PS_ETCD_FORMAT);
	if (sscanf(text + end, "%" SCNu64, &drawn) != 1)
		return -EBADMSG;
	e->incarnation = mix(drawn, e->cluster_id);
	return 0;
}

static int read_meta(struct ps_etcd *e, const json_t *kv, char **ret_message)
{
	ps_auto_mem char *text = NULL;
	size_t len;
	int r = ps_etcd_bytes(kv, "value", &text, &len);

	if (r < 0)
		return r;
	e->origin = ps_etcd_number(kv, "create_revision");
	e->meta_revision = ps_etcd_number(kv, "mod_revision");
	r = read_meta_text(e, text, ret_message);
	if (r < 0)
		return r;
	free(e->meta_text);
	e->meta_text = ps_move(text);
	return 0;
}

static json_t *put_meta(struct ps_etcd *e)
{
	uint64_t drawn;

	if (ps_store_draw_incarnation(&drawn) < 0)
		return NULL;
	return json_pack("{s:{s:o, s:o}}", "request_put", "key",
			 ps_etcd_key(&e->config, PS_ETCD_META, "", false), "value",
			 meta_value(drawn));
}

/* Writes PREFIX/meta if its revision is still this one (0: if it is missing), and reads it. */
static int write_meta(struct ps_etcd *e, uint64_t revision, json_t **ret)
{
	json_t *range = ps_etcd_range(e, PS_ETCD_META, "", false, false);
	ps_auto_json json_t *body = json_pack(
		"{s:[{s:s, s:s, s:o, s:o}], s:[o, O], s:[o]}", "compare", "target", "MOD", "result",
		"EQUAL", "key", ps_etcd_key(&e->config, PS_ETCD_META, "", false), "mod_revision",
		ps_etcd_number_json(revision), "success", put_meta(e), range, "failure", range);

	return body ? ps_etcd_wire_post(e->wire, "/v3/kv/txn", body, true, ret) : -ENOMEM;
}

static void note_header(struct ps_etcd *e, const json_t *answer)
{
	const json_t *header = json_object_get(answer, "header");

	e->cluster_id = ps_etcd_number(header, "cluster_id");
	e->highest = ps_etcd_number(header, "revision");
}

/* Reading alone first: who may only read must be able to open. */
static int load_meta(struct ps_etcd *e, char **ret_message)
{
	ps_auto_json json_t *answer = NULL, *written = NULL;
	ps_auto_json json_t *body =
		json_pack("{s:[o]}", "success", ps_etcd_range(e, PS_ETCD_META, "", false, false));
	const json_t *kvs, *answers;
	int r = body ? ps_etcd_wire_post(e->wire, "/v3/kv/txn", body, true, &answer) : -ENOMEM;

	if (r < 0)
		return r;
	note_header(e, answer);
	kvs = ps_etcd_kvs(json_object_get(answer, "responses"), 0);
	if (!json_array_size(kvs)) {
		r = write_meta(e, 0, &written);
		if (r < 0)
			return r;
		note_header(e, written);
		answers = json_object_get(written, "responses");
		kvs = ps_etcd_kvs(answers, json_array_size(answers) - 1);
	}
	return json_array_size(kvs) ? read_meta(e, json_array_get(kvs, 0), ret_message) : -EBADMSG;
}

static const char *meaning(int error)
{
	static const struct {
		int error;
		const char *text;
	} rows[] = {
		{EHOSTUNREACH, "does not answer: look whether etcd runs, has a leader (etcdctl "
			       "endpoint status), can be reached from this host and accepts its "
			       "certificate"},
		{EIO, "did not answer a transaction that may have arrived: read again to see"},
		{EACCES, "refuses this host: look at user=, password-file=, ca=, cert= and key= "
			 "(the certificate must carry no common name, doc/store.md)"},
		{EBADMSG, "is damaged or not portslice's: stop portsliced and restore a backup "
			  "(doc/store.md)"},
		{EPROTO, "does not speak etcd's JSON API, or the store was made by a newer "
			 "portslice: etcd must be 3.4 or later, with its gateway on"},
		{EIDRM, "was restored or made anew while in use: open it again"},
		{ENOSPC, "has reached its quota: compact and defragment it, then etcdctl alarm "
			 "disarm"},
		{E2BIG, "refuses a request of this size: start etcd with a larger "
			"--max-request-bytes (its default is 1.5 MiB) or --max-txn-ops"},
		{EBUSY, "was changed by others again and again: try again"},
	};

	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		if (rows[i].error == -error)
			return rows[i].text;
	}
	return NULL;
}

static void explain(const struct ps_etcd *e, int error, char **ret_message)
{
	const char *trouble = ps_etcd_wire_trouble(e->wire), *text = meaning(error);

	if (trouble && text && !*ret_message)
		ps_say(ret_message, 0, "etcd %s (%s)", text, trouble);
}

static int open_named(const struct ps_store_ops *ops, const char *place, struct ps_store **ret,
		      char **ret_message)
{
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	struct ps_etcd *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return -ENOMEM;
	e->base.ops = ops;
	(void)curl_global_init(CURL_GLOBAL_DEFAULT);
	store = &e->base;
	r = ps_etcd_config_parse(place, ops == &ps_store_etcds, &e->config, ret_message);
	if (r >= 0)
		r = ps_etcd_wire_open(&e->config, &e->wire);
	if (r < 0)
		return r;
	ps_etcd_wire_begin(e->wire, PS_ETCD_CALL_MS);
	r = load_meta(e, ret_message);
	if (r < 0) {
		explain(e, r, ret_message);
		return r;
	}
	*ret = ps_move(store);
	return 0;
}

static int etcd_open(const char *place, struct ps_store **ret, char **ret_message)
{
	return open_named(&ps_store_etcd, place, ret, ret_message);
}

static int etcds_open(const char *place, struct ps_store **ret, char **ret_message)
{
	return open_named(&ps_store_etcds, place, ret, ret_message);
}

/* Gives the restored store an incarnation of its own, so that all others learn of it too. */
static int mark_restored(struct ps_etcd *e)
{
	ps_auto_json json_t *answer = NULL;
	int r = write_meta(e, e->meta_revision, &answer);

	if (r < 0)
		return r; /* stays to be done */
	e->is_restored = false;
	e->is_gone = true;
	return -EIDRM;
}

int ps_etcd_begin(struct ps_etcd *e, int64_t ms)
{
	ps_etcd_wire_begin(e->wire, ms);
	if (e->watch && ps_etcd_watch_state(e->watch) == PS_ETCD_STREAM_RESTORED)
		e->is_restored = true;
	if (e->is_gone)
		return -EIDRM;
	return e->is_restored ? mark_restored(e) : 0;
}

static int check_header(struct ps_etcd *e, const json_t *answer)
{
	const json_t *header = json_object_get(answer, "header");
	uint64_t revision = ps_etcd_number(header, "revision");

	if (ps_etcd_number(header, "cluster_id") != e->cluster_id) {
		e->is_gone = true; /* its incarnation is another one already */
		return -EIDRM;
	}
	if (revision < e->highest) {
		e->is_restored = true;
		return mark_restored(e);
	}
	e->highest = revision;
	return 0;
}

json_t *ps_etcd_range(const struct ps_etcd *e, enum ps_etcd_branch branch, const char *key,
		      bool is_prefix, bool keys_only)
{
	ps_auto_json json_t *range =
		json_pack("{s:o, s:b}", "key", ps_etcd_key(&e->config, branch, key, false),
			  "keys_only", keys_only);

	if (!range)
		return NULL;
	if (is_prefix && json_object_set_new(range, "range_end",
					     ps_etcd_key(&e->config, branch, key, true)) != 0)
		return NULL;
	return json_pack("{s:O}", "request_range", range);
}

const json_t *ps_etcd_kvs(const json_t *answers, size_t i)
{
	return json_object_get(json_object_get(json_array_get(answers, i), "response_range"),
			       "kvs");
}

uint64_t ps_etcd_mod_revision(const json_t *answers, size_t i)
{
	return ps_etcd_number(json_array_get(ps_etcd_kvs(answers, i), 0), "mod_revision");
}

void ps_etcd_state_settle(const struct ps_etcd *e, struct ps_etcd_state *state)
{
	state->value.revision = ps_etcd_revision_of(e, state->value.revision);
	state->value.create_revision = ps_etcd_revision_of(e, state->value.create_revision);
}

/* Puts the check of PREFIX/meta into a transaction. */
static int guard(struct ps_etcd *e, json_t *txn)
{
	json_t *compares = json_object_get(txn, "compare");
	json_t *failures = json_object_get(txn, "failure");
	json_t *compare = json_pack("{s:s, s:s, s:o, s:o}", "target", "MOD", "result", "EQUAL",
				    "key", ps_etcd_key(&e->config, PS_ETCD_META, "", false),
				    "mod_revision", ps_etcd_number_json(e->meta_revision));

	if (json_array_insert_new(compares, 0, compare) != 0 ||
	    json_array_insert_new(failures, 0, ps_etcd_range(e, PS_ETCD_META, "", false, true)) !=
		    0)
		return -ENOMEM;
	return 0;
}

int ps_etcd_ask(struct ps_etcd *e, json_t *txn, bool may_repeat, json_t **ret)
{
	ps_auto_json json_t *body = txn, *answer = NULL;
	int r = body ? guard(e, body) : -ENOMEM;

	if (r >= 0)
		r = ps_etcd_wire_post(e->wire, "/v3/kv/txn", body, may_repeat, &answer);
	if (r >= 0)
		r = check_header(e, answer);
	if (r < 0)
		return r;
	r = json_is_true(json_object_get(answer, "succeeded"));
	if (!r &&
	    ps_etcd_mod_revision(json_object_get(answer, "responses"), 0) != e->meta_revision) {
		e->is_gone = true;
		return -EIDRM;
	}
	*ret = ps_move(answer);
	return r;
}

int ps_etcd_read(struct ps_etcd *e, json_t *ops, json_t **ret, json_t **ret_answers)
{
	json_t *txn =
		ops ? json_pack("{s:[], s:o, s:[]}", "compare", "success", ops, "failure") : NULL;
	int r = ps_etcd_ask(e, txn, true, ret);

	if (r < 0)
		return r;
	*ret_answers = json_object_get(*ret, "responses");
	return 0;
}

int ps_etcd_revision(struct ps_store *store, uint64_t *ret)
{
	struct ps_etcd *e = etcd_of(store);
	ps_auto_json json_t *answer = NULL;
	json_t *answers;
	int r = ps_etcd_begin(e, PS_ETCD_CALL_MS);

	if (r >= 0)
		r = ps_etcd_read(e,
				 json_pack("[o]", ps_etcd_range(e, PS_ETCD_HEAD, "", false, true)),
				 &answer, &answers);
	if (r < 0)
		return r;
	*ret = ps_etcd_revision_of(e, ps_etcd_mod_revision(answers, 0));
	return 0;
}

static int etcd_incarnation(struct ps_store *store, uint64_t *ret)
{
	uint64_t revision;
	int r = ps_etcd_revision(store, &revision); /* is it still this store? */

	if (r < 0)
		return r;
	*ret = etcd_of(store)->incarnation;
	return 0;
}

static int etcd_get(struct ps_store *store, const char *key, struct ps_store_value *ret)
{
	struct ps_etcd *e = etcd_of(store);
	ps_auto_json json_t *answer = NULL;
	struct ps_etcd_state state;
	const json_t *kv;
	json_t *answers;
	int r = ps_etcd_begin(e, PS_ETCD_CALL_MS);

	if (r >= 0)
		r = ps_etcd_read(
			e, json_pack("[o]", ps_etcd_range(e, PS_ETCD_DATA, key, false, false)),
			&answer, &answers);
	if (r < 0)
		return r;
	kv = json_array_get(ps_etcd_kvs(answers, 0), 0);
	if (!kv)
		return -ENOENT;
	r = ps_etcd_state_parse(&e->config, kv, &state);
	if (r <= 0)
		return r < 0 ? r : -EBADMSG;
	ps_etcd_state_settle(e, &state);
	*ret = state.value;
	return 0;
}

/* What comes under prefix from the key `after` on (NULL: the first), at etcd's `revision` (0: now). */
static json_t *page_request(const struct ps_etcd *e, const char *prefix, const char *after,
			    uint64_t revision)
{
	ps_auto_json json_t *range = ps_etcd_range(e, PS_ETCD_DATA, prefix, true, false);
	json_t *fields = json_object_get(range, "request_range");

	if (!range ||
	    json_object_set_new(fields, "limit", ps_etcd_number_json(PS_ETCD_PAGE_KEYS)) != 0 ||
	    json_object_set_new(fields, "revision", ps_etcd_number_json(revision)) != 0)
		return NULL;
	if (after && json_object_set_new(fields, "key",
					 ps_etcd_key_after(&e->config, PS_ETCD_DATA, after)) != 0)
		return NULL;
	return json_pack("[O]", range);
}

static int add_page(const struct ps_etcd *e, const json_t *kvs, struct ps_etcd_log *log)
{
	for (size_t i = 0; i < json_array_size(kvs); i++) {
		struct ps_etcd_state state;
		int r = ps_etcd_state_parse(&e->config, json_array_get(kvs, i), &state);

		if (r <= 0)
			return r < 0 ? r : -EBADMSG;
		ps_etcd_state_settle(e, &state);
		r = ps_etcd_log_push(log, &state.value);
		ps_store_value_clear(&state.value);
		if (r < 0)
			return r;
	}
	return 0;
}

static int list_pages(struct ps_etcd *e, const char *prefix, struct ps_etcd_log *log)
{
	uint64_t revision = 0;

	for (;;) {
		const char *after = log->n ? log->items[log->n - 1].key : NULL;
		ps_auto_json json_t *answer = NULL;
		json_t *answers;
		int r = ps_etcd_read(e, page_request(e, prefix, after, revision), &answer,
				     &answers);

		if (r >= 0)
			r = add_page(e, ps_etcd_kvs(answers, 0), log);
		if (r < 0)
			return r;
		if (!json_is_true(json_object_get(
			    json_object_get(json_array_get(answers, 0), "response_range"), "more")))
			return 0;
		if (revision == 0)
			revision = e->highest;
	}
}

static int etcd_list(struct ps_store *store, const char *prefix, struct ps_store_values *ret)
{
	struct ps_etcd *e = etcd_of(store);
	int r = ps_etcd_begin(e, PS_ETCD_LONG_MS);

	while (r >= 0) {
		ps_auto(ps_etcd_log_clear) struct ps_etcd_log log = {0};

		r = list_pages(e, prefix, &log);
		if (r == -ERANGE) { /* compacted between two pages: from the start */
			r = 0;
			continue;
		}
		if (r < 0)
			return r;
		*ret = (struct ps_store_values){ps_move(log.items), log.n};
		log.n = 0;
		return 0;
	}
	return r;
}

static int etcd_watch_fd(struct ps_store *store)
{
	struct ps_etcd *e = etcd_of(store);
	struct ps_etcd_stream stream = {
		.config = &e->config, .origin = e->origin, .meta_revision = e->meta_revision};

	if (!e->watch &&
	    ps_etcd_watch_open(e->wire, &stream, e->highest - e->origin, &e->watch) < 0)
		return -1;
	return ps_etcd_watch_fd(e->watch);
}

#define PS_ETCD_CALLS                                                                             \
	.close = etcd_close, .meaning = meaning, .get = etcd_get, .list = etcd_list,              \
	.txn = ps_etcd_txn, .revision = ps_etcd_revision, .incarnation = etcd_incarnation,        \
	.watch_fd = etcd_watch_fd, .watch_clear = ps_etcd_watch_take, .changes = ps_etcd_changes, \
	.history = ps_etcd_history, .reconnect = ps_etcd_reconnect

const struct ps_store_ops ps_store_etcd = {.scheme = "etcd:", .open = etcd_open, PS_ETCD_CALLS};

/* By TLS. */
const struct ps_store_ops ps_store_etcds = {.scheme = "etcds:", .open = etcds_open, PS_ETCD_CALLS};

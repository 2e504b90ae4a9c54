/* SPDX-License-Identifier: MIT */
/*
 * The parts of the etcd back end.  etcd.c holds the essay; each part has a file of its own:
 *   etcd-url.c    which end points, which prefix, which credentials
 *   etcd-kv.c     keys, values and numbers as they stand in etcd's JSON
 *   etcd-wire.c   one request, one answer: end points, time limits, tokens, what an error means
 *   etcd-stream.c the stream of changes and the log it fills;  etcd-watch.c: its connection
 *   etcd-txn.c    transactions;  etcd-past.c: changes and history;  etcd.c: the rest
 */
#ifndef PS_STORE_ETCD_H
#define PS_STORE_ETCD_H

#include <curl/curl.h>
#include <jansson.h>

#include "store/store-backend.h"

enum {
	PS_ETCD_CONNECT_MS = 250, /* to reach an end point */
	PS_ETCD_READ_MS = 700,    /* for one end point to answer a read, then another is asked */
	PS_ETCD_CALL_MS = 2000,   /* for one request, whatever is tried: an election takes 1-2 s */
	PS_ETCD_PROBE_MS = 300,   /* the same while every end point is known to hang ... */
	PS_ETCD_PROBE_EVERY_MS = 1000, /* ... and so long nothing is tried after that */
	PS_ETCD_CATCH_UP_MS = 250, /* for the watch to bring what the store has, then it is moved */
	PS_ETCD_LONG_MS = 10000, /* for calls of many requests: list, history, changes long past */
	PS_ETCD_SUSPECT_MS = 5000,             /* how long an end point that hung is asked last */
	PS_ETCD_REQUEST_MAX = 8 * 1024 * 1024, /* 22 MiB took etcd up to 2 s, only to refuse them */
	PS_ETCD_PAGE_KEYS = 1000,              /* of one answer to list */
	PS_ETCD_LOG_MAX = 4096, /* changes kept for ps_store_changes(); else they are fetched */
	PS_ETCD_LOG_BYTES_MAX = 16 * 1024 * 1024,
	PS_ETCD_FORMAT = 1, /* of the key PREFIX/meta */
};

#define ps_auto_json ps_auto(ps_json_drop)

static inline void ps_json_drop(json_t **json)
{
	json_decref(*json);
}

/* CLOCK_BOOTTIME, milliseconds. */
int64_t ps_etcd_now_ms(void);

/* What the URL says.  prefix begins with '/' and does not end with one; the rest may be NULL. */
struct ps_etcd_config {
	char **endpoints; /* "https://host:port" */
	size_t n_endpoints;
	char *prefix;
	char *ca, *cert, *key; /* paths of PEM files */
	char *user, *password_file;
};

/* place: "//host:port,.../prefix?ca=...".  -EINVAL with *ret_message. */
int ps_etcd_config_parse(const char *place, bool is_tls, struct ps_etcd_config *ret,
			 char **ret_message);
void ps_etcd_config_clear(struct ps_etcd_config *config);

/* Where a key of the store stands: PREFIX/meta, PREFIX/head, PREFIX/d/KEY, PREFIX/t/KEY. */
enum ps_etcd_branch { PS_ETCD_META, PS_ETCD_HEAD, PS_ETCD_DATA, PS_ETCD_TOMBSTONE };

/* The JSON string (base64) of a key in etcd; `end`: of the first key behind all that begin so. */
json_t *ps_etcd_key(const struct ps_etcd_config *config, enum ps_etcd_branch branch,
		    const char *key, bool end);
/* The same of the first possible key after this one. */
json_t *ps_etcd_key_after(const struct ps_etcd_config *config, enum ps_etcd_branch branch,
			  const char *key);
/* The range of everything under PREFIX/, set in request as "key" and "range_end". */
int ps_etcd_key_all(const struct ps_etcd_config *config, json_t *request);
/* The JSON string of a value: "TIME_MS INDEX\n" and the bytes; index: place in its transaction. */
json_t *ps_etcd_value(int64_t time_ms, size_t index, const char *data, size_t len);
/* A 64-bit number, which JSON has as a string and leaves out when 0. */
uint64_t ps_etcd_number(const json_t *object, const char *name);
json_t *ps_etcd_number_json(uint64_t number);
/* The bytes of a base64 string and a NUL; caller frees.  Missing: an empty string. */
int ps_etcd_bytes(const json_t *object, const char *name, char **ret, size_t *ret_len);

struct ps_etcd_state {
	struct ps_store_value value; /* revisions are etcd's */
	enum ps_etcd_branch branch;
	unsigned index; /* within its transaction */
};

/* One "kv" of etcd.  0: of a key that is no business of the store's (skip it); 1: *ret is set, and for
 * PS_ETCD_META and PS_ETCD_HEAD only value.revision, .data and .len are. */
int ps_etcd_state_parse(const struct ps_etcd_config *config, const json_t *kv,
			struct ps_etcd_state *ret);

/* One connection for requests, kept open between them. */
struct ps_etcd_wire;

int ps_etcd_wire_open(const struct ps_etcd_config *config, struct ps_etcd_wire **ret);
void ps_etcd_wire_free(struct ps_etcd_wire **wire);
/* The requests until the next call of this end after ms at the latest, all together. */
void ps_etcd_wire_begin(struct ps_etcd_wire *wire, int64_t ms);
/* Milliseconds that are left since ps_etcd_wire_begin(); 0: none. */
int64_t ps_etcd_wire_left_ms(const struct ps_etcd_wire *wire);
/* Sends body, gets the answer.  may_repeat: harmless when done twice, so that another end point may be
 * asked when one hangs.
 * -EHOSTUNREACH: no end point answered in time; nothing was changed.  -EIO: a request that may not be
 * repeated was sent and no answer came.  -ERANGE: the revision is compacted.  -EACCES, -E2BIG, -ENOSPC,
 * -EBADMSG, -EPROTO as store.h. */
int ps_etcd_wire_post(struct ps_etcd_wire *wire, const char *path, const json_t *body,
		      bool may_repeat, json_t **ret);
/* What the last failure was, in words; NULL: nothing to add. */
const char *ps_etcd_wire_trouble(const struct ps_etcd_wire *wire);
/* Asks another end point next; and this one, when it hangs, last for a while. */
void ps_etcd_wire_elsewhere(struct ps_etcd_wire *wire, bool hangs);
/* An easy handle set up for a stream of watch events from the present end point, with token; *headers
 * must live as long as the transfer.  Blocks when a token must be had first. */
int ps_etcd_wire_stream(struct ps_etcd_wire *wire, CURL **ret, struct curl_slist **ret_headers);
void ps_etcd_wire_forget_token(struct ps_etcd_wire *wire);

/* Changes in order, revisions already the store's. */
struct ps_etcd_log {
	struct ps_store_value *items;
	size_t n, capacity, bytes;
	uint64_t from;      /* all changes after this revision ... */
	uint64_t seen;      /* ... up to this one are in items */
	uint64_t seen_hash; /* of what was written at `seen`; 0: not known */
};

void ps_etcd_log_clear(struct ps_etcd_log *log);
/* Takes over what value points to. */
int ps_etcd_log_push(struct ps_etcd_log *log, struct ps_store_value *value);
/* Drops the older half when there are too many. */
void ps_etcd_log_trim(struct ps_etcd_log *log);
/* Copies of those under prefix after since. */
int ps_etcd_log_select(const struct ps_etcd_log *log, const char *prefix, uint64_t since,
		       struct ps_store_values *ret);

enum ps_etcd_stream_state {
	PS_ETCD_STREAM_WAITING, /* for the server to say that the watch stands */
	PS_ETCD_STREAM_FLOWING,
	PS_ETCD_STREAM_REFUSED,   /* the server ended it: a token that expired, a lost leader */
	PS_ETCD_STREAM_COMPACTED, /* what it was to begin with is gone */
	PS_ETCD_STREAM_RESTORED,  /* the past is another one: restored from a backup */
	PS_ETCD_STREAM_FAILED,    /* no memory, or not etcd's JSON */
};

/* The lines of one watch request, taken into a log.  resumes: the log has `seen` already, and the
 * stream begins with it once more to compare. */
struct ps_etcd_stream {
	const struct ps_etcd_config *config;
	struct ps_etcd_log *log;
	uint64_t origin, meta_revision;
	enum ps_etcd_stream_state state;
	bool resumes;
	uint64_t until; /* the transfer ends when this revision was seen; 0: never */
	char *line;
	size_t len, capacity;
};

/* The body that asks for all changes after log->seen. */
json_t *ps_etcd_stream_request(struct ps_etcd_stream *stream);
/* CURLOPT_WRITEFUNCTION, with the stream as its data. */
size_t ps_etcd_stream_write(char *bytes, size_t size, size_t n, void *arg);

struct ps_etcd_watch;

/* A watch of all changes after `seen`; waits until it stands, at most PS_ETCD_READ_MS. */
int ps_etcd_watch_open(struct ps_etcd_wire *wire, const struct ps_etcd_stream *stream,
		       uint64_t seen, struct ps_etcd_watch **ret);
void ps_etcd_watch_free(struct ps_etcd_watch **watch);
int ps_etcd_watch_fd(const struct ps_etcd_watch *watch);
/* Clears the descriptor and takes in what has come; true: something has, or somebody else did. */
bool ps_etcd_watch_clear(struct ps_etcd_watch *watch);
/* Takes in until `revision` has come, at most wait_ms; the descriptor stays readable.  True: it has. */
bool ps_etcd_watch_reach(struct ps_etcd_watch *watch, uint64_t revision, int64_t wait_ms);
/* Goes on at the wire's present end point. */
void ps_etcd_watch_restart(struct ps_etcd_watch *watch);
struct ps_etcd_log *ps_etcd_watch_log(struct ps_etcd_watch *watch);
/* PS_ETCD_STREAM_COMPACTED and _RESTORED stand until the caller has dealt with them. */
enum ps_etcd_stream_state ps_etcd_watch_state(const struct ps_etcd_watch *watch);

struct ps_etcd {
	struct ps_store base;
	struct ps_etcd_config config;
	struct ps_etcd_wire *wire;
	struct ps_etcd_watch *watch; /* NULL until somebody asks for its descriptor */
	uint64_t cluster_id, incarnation;
	uint64_t origin;        /* etcd's revision at which the store was made: our 0 */
	uint64_t meta_revision; /* etcd's, of PREFIX/meta as this handle knows it */
	uint64_t highest;       /* etcd's, of all answers */
	char *meta_text;
	bool is_gone;     /* another store stands in its place */
	bool is_restored; /* the same, and its new incarnation is still to be drawn */
};

/* Begins a call of at most ms; -EIDRM, or what kept a restored store from being marked. */
int ps_etcd_begin(struct ps_etcd *e, int64_t ms);
/* Sends a transaction {compare, success, failure} (taken over); the compare of PREFIX/meta is put in
 * front of "compare", its range in front of "failure".  1: success, 0: failure branch; *ret is the whole
 * answer.  -EIDRM: the store is another one. */
int ps_etcd_ask(struct ps_etcd *e, json_t *txn, bool may_repeat, json_t **ret);
/* The same for reading: ops (taken over) all at one revision; *ret_answers is their array, borrowed from
 * *ret. */
int ps_etcd_read(struct ps_etcd *e, json_t *ops, json_t **ret, json_t **ret_answers);
/* A range request of one key, or with is_prefix of all that begin so. */
json_t *ps_etcd_range(const struct ps_etcd *e, enum ps_etcd_branch branch, const char *key,
		      bool is_prefix, bool keys_only);
/* The kvs of the i-th answer; NULL: none. */
const json_t *ps_etcd_kvs(const json_t *answers, size_t i);
/* etcd's mod_revision of the i-th answer's only key, 0: missing. */
uint64_t ps_etcd_mod_revision(const json_t *answers, size_t i);
/* The store's revision from etcd's. */
static inline uint64_t ps_etcd_revision_of(const struct ps_etcd *e, uint64_t etcd_revision)
{
	return etcd_revision > e->origin ? etcd_revision - e->origin : 0;
}
/* Turns etcd's revisions into the store's. */
void ps_etcd_state_settle(const struct ps_etcd *e, struct ps_etcd_state *state);

int ps_etcd_txn(struct ps_store *store, const struct ps_store_txn *txn, uint64_t *ret_revision,
		size_t *ret_failed);
int ps_etcd_revision(struct ps_store *store, uint64_t *ret);
int ps_etcd_changes(struct ps_store *store, const char *prefix, uint64_t since,
		    struct ps_store_values *ret);
int ps_etcd_history(struct ps_store *store, const char *key, size_t max,
		    struct ps_store_values *ret);
void ps_etcd_reconnect(struct ps_store *store);
/* ps_store_watch_clear(). */
bool ps_etcd_watch_take(struct ps_store *store);

#endif

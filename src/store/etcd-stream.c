// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "base/own.h"
#include "store/etcd.h"

void ps_etcd_log_clear(struct ps_etcd_log *log)
{
	for (size_t i = 0; i < log->n; i++)
		ps_store_value_clear(&log->items[i]);
	free(log->items);
	*log = (struct ps_etcd_log){0};
}

int ps_etcd_log_push(struct ps_etcd_log *log, struct ps_store_value *value)
{
	if (log->n == log->capacity) {
		size_t capacity = log->capacity ? 2 * log->capacity : 64;
		void *items = reallocarray(log->items, capacity, sizeof(*log->items));

		if (!items)
			return -ENOMEM;
		log->items = items;
		log->capacity = capacity;
	}
	log->bytes += value->len;
	log->items[log->n++] = *value;
	*value = (struct ps_store_value){0};
	return 0;
}

void ps_etcd_log_trim(struct ps_etcd_log *log)
{
	size_t n = 0, bytes = log->bytes;

	if (log->n <= PS_ETCD_LOG_MAX && bytes <= PS_ETCD_LOG_BYTES_MAX)
		return;
	while (n < log->n &&
	       (log->n - n > PS_ETCD_LOG_MAX / 2 || bytes > PS_ETCD_LOG_BYTES_MAX / 2)) {
		bytes -= log->items[n].len;
		log->from = log->items[n].revision;
		ps_store_value_clear(&log->items[n++]);
	}
	log->n -= n;
	log->bytes = bytes;
	memmove(log->items, log->items + n, log->n * sizeof(*log->items));
}

int ps_etcd_log_select(const struct ps_etcd_log *log, const char *prefix, uint64_t since,
		       struct ps_store_values *ret)
{
	ps_auto(ps_store_values_clear) struct ps_store_values values = {0};
	size_t first = log->n;

	while (first > 0 && log->items[first - 1].revision > since)
		first--;
	for (size_t i = first; i < log->n; i++) {
		int r = 0;

		if (strncmp(log->items[i].key, prefix, strlen(prefix)) == 0)
			r = ps_store_values_add(&values, &log->items[i]);
		if (r < 0)
			return r;
	}
	*ret = values;
	values = (struct ps_store_values){0};
	return 0;
}

json_t *ps_etcd_stream_request(struct ps_etcd_stream *stream)
{
	const struct ps_etcd_log *log = stream->log;
	ps_auto_json json_t *create = json_object();

	stream->resumes = log->seen_hash != 0;
	if (!create || ps_etcd_key_all(stream->config, create) < 0)
		return NULL;
	if (json_object_set_new(create, "start_revision",
				ps_etcd_number_json(stream->origin + log->seen +
						    (stream->resumes ? 0 : 1))) != 0)
		return NULL;
	return json_pack("{s:O}", "create_request", create);
}

/* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv. */
static uint64_t hash(uint64_t sum, const char *text)
{
	for (; *text; text++)
		sum = (sum ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return sum;
}

/* What the events of one revision, [*first, ...), wrote; *first becomes the place behind them. */
static uint64_t hash_of_revision(const json_t *events, size_t *first, uint64_t *ret_revision)
{
	uint64_t sum = UINT64_C(0xcbf29ce484222325);
	const json_t *event;
	size_t i = *first;

	*ret_revision =
		ps_etcd_number(json_object_get(json_array_get(events, i), "kv"), "mod_revision");
	while ((event = json_array_get(events, i))) {
		const json_t *kv = json_object_get(event, "kv");

		if (ps_etcd_number(kv, "mod_revision") != *ret_revision)
			break;
		sum = hash(sum, json_string_value(json_object_get(kv, "key")) ?: "");
		sum = hash(sum, json_string_value(json_object_get(kv, "value")) ?: "");
		i++;
	}
	*first = i;
	return sum ? sum : 1;
}

static int take_event(struct ps_etcd_stream *stream, const json_t *event)
{
	const char *type = json_string_value(json_object_get(event, "type"));
	struct ps_etcd_state state;
	int r;

	if (type && strcmp(type, "DELETE") == 0)
		return 0; /* its tombstone is an event of the same revision */
	r = ps_etcd_state_parse(stream->config, json_object_get(event, "kv"), &state);
	if (r <= 0)
		return r;
	if (state.branch == PS_ETCD_META && state.value.revision != stream->meta_revision)
		stream->state = PS_ETCD_STREAM_RESTORED;
	if (state.branch == PS_ETCD_DATA || state.branch == PS_ETCD_TOMBSTONE) {
		state.value.revision -= stream->origin;
		if (state.value.create_revision)
			state.value.create_revision -= stream->origin;
		r = ps_etcd_log_push(stream->log, &state.value);
	}
	ps_store_value_clear(&state.value);
	return r;
}

/* Whole revisions, oldest first. */
static int take_events(struct ps_etcd_stream *stream, const json_t *events)
{
	struct ps_etcd_log *log = stream->log;
	size_t i = 0, n = json_array_size(events);

	while (i < n) {
		size_t first = i;
		uint64_t revision, sum = hash_of_revision(events, &i, &revision);

		revision -= stream->origin;
		if (stream->resumes) {
			stream->resumes = false;
			if (revision != log->seen || sum != log->seen_hash) {
				stream->state = PS_ETCD_STREAM_RESTORED;
				return 0;
			}
			continue;
		}
		for (; first < i; first++) {
			int r = take_event(stream, json_array_get(events, first));

			if (r < 0)
				return r;
		}
		log->seen = revision;
		log->seen_hash = sum;
	}
	return 0;
}

static int take_result(struct ps_etcd_stream *stream, const json_t *result)
{
	if (json_is_true(json_object_get(result, "canceled"))) {
		stream->state = ps_etcd_number(result, "compact_revision")
					? PS_ETCD_STREAM_COMPACTED
					: PS_ETCD_STREAM_REFUSED;
		return 0;
	}
	if (json_is_true(json_object_get(result, "created")))
		stream->state = PS_ETCD_STREAM_FLOWING;
	return take_events(stream, json_object_get(result, "events"));
}

static int take_line(struct ps_etcd_stream *stream)
{
	ps_auto_json json_t *line = json_loadb(stream->line, stream->len, JSON_ALLOW_NUL, NULL);
	const json_t *result = json_object_get(line, "result");

	if (!line)
		return -EBADMSG;
	if (!result) { /* {"error": ...}: the gateway's own end of the stream */
		stream->state = PS_ETCD_STREAM_REFUSED;
		return 0;
	}
	return take_result(stream, result);
}

static int append(struct ps_etcd_stream *stream, const char *bytes, size_t len)
{
	if (len == 0)
		return 0;
	if (stream->len + len > stream->capacity) {
		size_t capacity = 2 * stream->capacity + len;
		void *line = realloc(stream->line, capacity);

		if (!line)
			return -ENOMEM;
		stream->line = line;
		stream->capacity = capacity;
	}
	memcpy(stream->line + stream->len, bytes, len);
	stream->len += len;
	return 0;
}

/* True while more is wanted. */
static bool is_open(const struct ps_etcd_stream *stream)
{
	if (stream->until && stream->log->seen >= stream->until)
		return false;
	return stream->state == PS_ETCD_STREAM_WAITING || stream->state == PS_ETCD_STREAM_FLOWING;
}

size_t ps_etcd_stream_write(char *bytes, size_t size, size_t n, void *arg)
{
	struct ps_etcd_stream *stream = arg;
	const char *at = bytes, *end = bytes + size * n, *newline;
	int r = 0;

	while (r >= 0 && is_open(stream) && (newline = memchr(at, '\n', (size_t)(end - at)))) {
		r = append(stream, at, (size_t)(newline - at));
		if (r >= 0 && stream->len > 0)
			r = take_line(stream);
		stream->len = 0;
		at = newline + 1;
	}
	if (r >= 0 && is_open(stream))
		r = append(stream, at, (size_t)(end - at));
	if (r < 0)
		stream->state = PS_ETCD_STREAM_FAILED;
	return is_open(stream) ? size * n : 0; /* 0 ends the transfer */
}

// SPDX-License-Identifier: MIT
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/own.h"
#include "store/etcd.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char *const branches[] = {
	[PS_ETCD_META] = "/meta",
	[PS_ETCD_HEAD] = "/head",
	[PS_ETCD_DATA] = "/d/",
	[PS_ETCD_TOMBSTONE] = "/t/",
};

int64_t ps_etcd_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* RFC 4648 §4. */
static json_t *encode(const char *bytes, size_t len)
{
	ps_auto_mem char *text = malloc((len + 2) / 3 * 4 + 1);
	char *out = text;

	if (!text)
		return NULL;
	for (size_t i = 0; i < len; i += 3) {
		size_t n = len - i < 3 ? len - i : 3;
		uint32_t bits = (uint32_t)(unsigned char)bytes[i] << 16;

		if (n > 1)
			bits |= (uint32_t)(unsigned char)bytes[i + 1] << 8;
		if (n > 2)
			bits |= (unsigned char)bytes[i + 2];
		*out++ = digits[bits >> 18];
		*out++ = digits[bits >> 12 & 63];
		*out++ = n > 1 ? digits[bits >> 6 & 63] : '=';
		*out++ = n > 2 ? digits[bits & 63] : '=';
	}
	return json_stringn_nocheck(text, (size_t)(out - text));
}

static int digit_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+')
		return 62;
	return c == '/' ? 63 : -1;
}

/* out has room for len / 4 * 3 bytes. */
static int decode(const char *text, size_t len, char *out, size_t *ret_len)
{
	uint32_t bits = 0;
	size_t n = 0;

	if (len % 4)
		return -EBADMSG;
	while (len > 0 && text[len - 1] == '=')
		len--;
	for (size_t i = 0; i < len; i++) {
		int digit = digit_of(text[i]);

		if (digit < 0)
			return -EBADMSG;
		bits = bits << 6 | (uint32_t)digit;
		if (i % 4)
			out[n++] = (char)(bits >> (6 - 2 * (i % 4)));
	}
	*ret_len = n;
	return 0;
}

int ps_etcd_bytes(const json_t *object, const char *name, char **ret, size_t *ret_len)
{
	const json_t *string = json_object_get(object, name);
	size_t len = string ? json_string_length(string) : 0;
	ps_auto_mem char *bytes = malloc(len / 4 * 3 + 1);
	int r;

	if (!bytes)
		return -ENOMEM;
	r = decode(string ? json_string_value(string) : "", len, bytes, ret_len);
	if (r < 0)
		return r;
	bytes[*ret_len] = '\0';
	*ret = ps_move(bytes);
	return 0;
}

uint64_t ps_etcd_number(const json_t *object, const char *name)
{
	const json_t *number = json_object_get(object, name);

	if (json_is_string(number))
		return strtoull(json_string_value(number), NULL, 10);
	return json_is_integer(number) ? (uint64_t)json_integer_value(number) : 0;
}

json_t *ps_etcd_number_json(uint64_t number)
{
	return json_sprintf("%" PRIu64, number < INT64_MAX ? number : INT64_MAX);
}

static char *full_key(const struct ps_etcd_config *config, enum ps_etcd_branch branch,
		      const char *key, size_t *ret_len)
{
	char *text;
	int len = asprintf(&text, "%s%s%s", config->prefix, branches[branch], key);

	if (len < 0)
		return NULL;
	*ret_len = (size_t)len;
	return text;
}

/* Turns a prefix into the first key behind all that begin with it; a branch ends with '/', so there is
 * always a byte to count up. */
static size_t count_up(char *key, size_t len)
{
	while (len > 0 && (unsigned char)key[len - 1] == 0xff)
		len--;
	if (len > 0)
		key[len - 1]++;
	return len;
}

json_t *ps_etcd_key(const struct ps_etcd_config *config, enum ps_etcd_branch branch,
		    const char *key, bool end)
{
	size_t len = 0;
	ps_auto_mem char *text = full_key(config, branch, key, &len);

	if (!text)
		return NULL;
	return encode(text, end ? count_up(text, len) : len);
}

json_t *ps_etcd_key_after(const struct ps_etcd_config *config, enum ps_etcd_branch branch,
			  const char *key)
{
	size_t len = 0;
	ps_auto_mem char *text = full_key(config, branch, key, &len);

	return text ? encode(text, len + 1) : NULL; /* with its NUL */
}

int ps_etcd_key_all(const struct ps_etcd_config *config, json_t *request)
{
	ps_auto_mem char *text = NULL;
	int len = asprintf(&text, "%s/", config->prefix), r;

	if (len < 0) {
		text = NULL;
		return -ENOMEM;
	}
	r = json_object_set_new(request, "key", encode(text, (size_t)len));
	if (r == 0)
		r = json_object_set_new(request, "range_end",
					encode(text, count_up(text, (size_t)len)));
	return r == 0 ? 0 : -ENOMEM;
}

json_t *ps_etcd_value(int64_t time_ms, size_t index, const char *data, size_t len)
{
	ps_auto_mem char *bytes = malloc(len + 64);
	int head;

	if (!bytes)
		return NULL;
	head = snprintf(bytes, 64, "%" PRId64 " %zu\n", time_ms, index);
	if (len > 0)
		memcpy(bytes + head, data, len);
	return encode(bytes, (size_t)head + len);
}

/* Which branch a key of etcd is in; *ret_key points behind it. */
static int branch_of(const struct ps_etcd_config *config, char *key, enum ps_etcd_branch *ret,
		     char **ret_key)
{
	size_t len = strlen(config->prefix);

	if (strncmp(key, config->prefix, len) != 0)
		return -ENOENT;
	for (size_t i = 0; i < PS_N_ELEMENTS(branches); i++) {
		size_t branch_len = strlen(branches[i]);
		bool is_one_key = i == PS_ETCD_META || i == PS_ETCD_HEAD;

		if (strncmp(key + len, branches[i], branch_len) == 0 &&
		    (!is_one_key || !key[len + branch_len])) {
			*ret = i;
			*ret_key = key + len + branch_len;
			return 0;
		}
	}
	return -ENOENT;
}

/* Reads "TIME_MS INDEX\n" off the front of data. */
static int open_envelope(struct ps_etcd_state *state)
{
	struct ps_store_value *value = &state->value;
	char *newline = memchr(value->data, '\n', value->len < 64 ? value->len : 64);
	int end = 0;
	size_t head;

	if (!newline ||
	    sscanf(value->data, "%" SCNd64 " %u%n", &value->time_ms, &state->index, &end) != 2 ||
	    value->data + end != newline)
		return -EBADMSG;
	head = (size_t)end + 1;
	value->len -= head;
	memmove(value->data, newline + 1, value->len + 1);
	return 0;
}

static int fill_state(char *key, struct ps_etcd_state *state)
{
	int r = open_envelope(state);

	if (r < 0)
		return r;
	state->value.key = strdup(key);
	if (!state->value.key)
		return -ENOMEM;
	if (state->branch == PS_ETCD_DATA)
		return 0;
	free(state->value.data);
	state->value.data = NULL;
	state->value.len = 0;
	state->value.create_revision = 0;
	return 0;
}

int ps_etcd_state_parse(const struct ps_etcd_config *config, const json_t *kv,
			struct ps_etcd_state *ret)
{
	struct ps_etcd_state state = {0};
	ps_auto_mem char *full = NULL;
	size_t full_len;
	char *key;
	int r = ps_etcd_bytes(kv, "key", &full, &full_len);

	if (r < 0)
		return r;
	if (strlen(full) != full_len || branch_of(config, full, &state.branch, &key) < 0)
		return 0;
	r = ps_etcd_bytes(kv, "value", &state.value.data, &state.value.len);
	if (r < 0)
		return r;
	state.value.revision = ps_etcd_number(kv, "mod_revision");
	state.value.create_revision = ps_etcd_number(kv, "create_revision");
	if (state.branch == PS_ETCD_DATA || state.branch == PS_ETCD_TOMBSTONE)
		r = fill_state(key, &state);
	if (r < 0) {
		ps_store_value_clear(&state.value);
		return r;
	}
	*ret = state;
	return 1;
}

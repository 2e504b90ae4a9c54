// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <time.h>

#include "base/own.h"
#include "base/say.h"
#include "store/etcd.h"

struct ps_etcd_wire {
	const struct ps_etcd_config *config;
	CURL *easy;
	int64_t *suspect_until_ms; /* for each end point */
	size_t at;                 /* the end point in use */
	int64_t next_probe_ms;     /* while all are under suspicion */
	int64_t deadline_ms;
	char *token;
	char *trouble;
	char curl_text[CURL_ERROR_SIZE];
};

enum verdict {
	DONE,      /* error says how */
	ELSEWHERE, /* not done for sure: another end point may be asked */
	REFUSED,   /* the same, and at once: nobody listens */
	WAIT,      /* the same, after a moment: an election */
	LOGIN,     /* the same, with a new token */
	UNKNOWN,   /* it may have been done, or may yet be */
};

/* One try at one end point. */
struct attempt {
	const char *path;
	char *body;
	size_t len, given; /* bytes that curl has taken */
	char *answer;
	size_t n_answer, capacity;
	long status; /* of HTTP */
	enum verdict verdict;
	int error;
	bool hung;
	json_t *json;
};

static void attempt_clear(struct attempt *attempt)
{
	free(attempt->body);
	free(attempt->answer);
	json_decref(attempt->json);
}

static void free_headers(struct curl_slist **headers)
{
	curl_slist_free_all(*headers);
}

void ps_etcd_wire_free(struct ps_etcd_wire **wire)
{
	if (!*wire)
		return;
	curl_easy_cleanup((*wire)->easy);
	free((*wire)->suspect_until_ms);
	free((*wire)->token);
	free((*wire)->trouble);
	free(*wire);
	*wire = NULL;
}

int ps_etcd_wire_open(const struct ps_etcd_config *config, struct ps_etcd_wire **ret)
{
	ps_auto(ps_etcd_wire_free) struct ps_etcd_wire *wire = calloc(1, sizeof(*wire));

	if (!wire)
		return -ENOMEM;
	wire->config = config;
	wire->easy = curl_easy_init();
	wire->suspect_until_ms = calloc(config->n_endpoints, sizeof(*wire->suspect_until_ms));
	if (!wire->easy || !wire->suspect_until_ms)
		return -ENOMEM;
	*ret = ps_move(wire);
	return 0;
}

static bool is_suspect(const struct ps_etcd_wire *wire, size_t endpoint)
{
	return wire->suspect_until_ms[endpoint] > ps_etcd_now_ms();
}

static bool all_suspect(const struct ps_etcd_wire *wire)
{
	for (size_t i = 0; i < wire->config->n_endpoints; i++) {
		if (!is_suspect(wire, i))
			return false;
	}
	return true;
}

/* Another one, if possible one that is not under suspicion. */
static void move_on(struct ps_etcd_wire *wire)
{
	size_t n = wire->config->n_endpoints;

	for (size_t i = 1; i < n; i++) {
		size_t next = (wire->at + i) % n;

		if (is_suspect(wire, next))
			continue;
		wire->at = next;
		return;
	}
	wire->at = (wire->at + 1) % n;
}

void ps_etcd_wire_elsewhere(struct ps_etcd_wire *wire, bool hangs)
{
	if (hangs)
		wire->suspect_until_ms[wire->at] = ps_etcd_now_ms() + PS_ETCD_SUSPECT_MS;
	move_on(wire);
}

void ps_etcd_wire_begin(struct ps_etcd_wire *wire, int64_t ms)
{
	wire->deadline_ms = ps_etcd_now_ms() + ms;
}

int64_t ps_etcd_wire_left_ms(const struct ps_etcd_wire *wire)
{
	int64_t left = wire->deadline_ms - ps_etcd_now_ms();

	return left > 0 ? left : 0;
}

const char *ps_etcd_wire_trouble(const struct ps_etcd_wire *wire)
{
	return wire->trouble;
}

static void note_trouble(struct ps_etcd_wire *wire, const char *text)
{
	free(wire->trouble);
	ps_say(&wire->trouble, 0, "%s: %s", wire->config->endpoints[wire->at], text);
}

/* "Authorization: TOKEN"; and a server without a leader is to say so at once instead of hanging
 * (clientv3.WithRequireLeader, which the gateway passes on under this name). */
static int make_headers(const struct ps_etcd_wire *wire, struct curl_slist **ret)
{
	ps_auto(free_headers) struct curl_slist *headers = NULL;
	ps_auto_mem char *authorization = NULL;
	const char *lines[] = {"Content-Type: application/json",
			       "Expect:", "Grpc-Metadata-hasleader: true", NULL};

	if (wire->token) {
		ps_say(&authorization, 0, "Authorization: %s", wire->token);
		if (!authorization)
			return -ENOMEM;
		lines[3] = authorization;
	}
	for (size_t i = 0; i < PS_N_ELEMENTS(lines) && lines[i]; i++) {
		struct curl_slist *more = curl_slist_append(headers, lines[i]);

		if (!more)
			return -ENOMEM;
		headers = more;
	}
	*ret = ps_move(headers);
	return 0;
}

/* So that a stream whose peer has vanished without a word ends after 3 s (tcp(7), RFC 5482). */
static int set_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	unsigned timeout_ms = 3000;

	(void)arg, (void)purpose;
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
	return CURL_SOCKOPT_OK;
}

static void set_credentials(const struct ps_etcd_config *config, CURL *easy)
{
	if (config->ca)
		curl_easy_setopt(easy, CURLOPT_CAINFO, config->ca);
	if (config->cert) {
		curl_easy_setopt(easy, CURLOPT_SSLCERT, config->cert);
		curl_easy_setopt(easy, CURLOPT_SSLKEY, config->key);
	}
}

static int set_common(const struct ps_etcd_wire *wire, CURL *easy, const char *path,
		      struct curl_slist *headers)
{
	ps_auto_mem char *url = NULL;

	ps_say(&url, 0, "%s%s", wire->config->endpoints[wire->at], path);
	if (!url || curl_easy_setopt(easy, CURLOPT_URL, url) != CURLE_OK)
		return -ENOMEM;
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* not the environment's */
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_POST, 1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)PS_ETCD_CONNECT_MS);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, set_socket);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 2L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 1L);
	set_credentials(wire->config, easy);
	return 0;
}

/* curl sends a request again by itself when a reused connection breaks before the answer: then a
 * transaction might be done twice.  It cannot when the body comes from here and goes out but once. */
static size_t give_body(char *buffer, size_t size, size_t n, void *arg)
{
	struct attempt *attempt = arg;
	size_t len = attempt->len - attempt->given;

	if (len > size * n)
		len = size * n;
	memcpy(buffer, attempt->body + attempt->given, len);
	attempt->given += len;
	return len;
}

static size_t take_answer(char *bytes, size_t size, size_t n, void *arg)
{
	struct attempt *attempt = arg;
	size_t len = size * n;

	if (attempt->n_answer + len > attempt->capacity) {
		size_t capacity = 2 * attempt->capacity + len;
		void *answer = realloc(attempt->answer, capacity);

		if (!answer)
			return 0;
		attempt->answer = answer;
		attempt->capacity = capacity;
	}
	memcpy(attempt->answer + attempt->n_answer, bytes, len);
	attempt->n_answer += len;
	return len;
}

static void judge(struct attempt *attempt, enum verdict verdict, int error)
{
	attempt->verdict = verdict;
	attempt->error = error;
}

/* No answer of HTTP: what curl met. */
static void judge_silence(struct ps_etcd_wire *wire, struct attempt *attempt, CURLcode code)
{
	note_trouble(wire, *wire->curl_text ? wire->curl_text : curl_easy_strerror(code));
	attempt->hung = code == CURLE_OPERATION_TIMEDOUT;
	switch (code) {
	case CURLE_OUT_OF_MEMORY:
		judge(attempt, DONE, -ENOMEM);
		return;
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_PEER_FAILED_VERIFICATION:
		judge(attempt, DONE, -EACCES);
		return;
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
		judge(attempt, REFUSED, -EHOSTUNREACH);
		return;
	default:
		judge(attempt, attempt->given ? UNKNOWN : ELSEWHERE, -EHOSTUNREACH);
	}
}

/* What etcd's words mean; by google.rpc.Code (Status.Code) and text, first match.  etcd 3.4
 * api/v3rpc/rpctypes/error.go, auth/store.go, gRPC's own messages. */
static const struct {
	int code;
	const char *text;
	enum verdict verdict;
	int error;
} meanings[] = {
	{16, "", LOGIN, -EACCES},
	{3, "revision of auth store is old", LOGIN, -EACCES},
	{3, "user name is empty", DONE, -EACCES},
	{3, "authentication failed", DONE, -EACCES},
	{7, "", DONE, -EACCES},
	{9, "authentication is not enabled", DONE, -EACCES},
	{3, "CommonName of client", DONE, -EACCES},
	{3, "too large", DONE, -E2BIG},
	{3, "too many operations", DONE, -E2BIG},
	{8, "larger than max", DONE, -E2BIG},
	{8, "space exceeded", DONE, -ENOSPC},
	{8, "too many requests", WAIT, -EBUSY},
	{11, "compacted", DONE, -ERANGE},
	{15, "", DONE, -EBADMSG},
	{14, "corrupt", DONE, -EBADMSG},
	{14, "no leader", WAIT, -EHOSTUNREACH},
};

static void judge_words(struct ps_etcd_wire *wire, struct attempt *attempt)
{
	const char *text = json_string_value(json_object_get(attempt->json, "error"));
	int code = (int)ps_etcd_number(attempt->json, "code");

	if (!text) { /* not etcd's JSON: the gateway's own words */
		text = attempt->answer ? attempt->answer : "";
		code = strstr(text, "CommonName") ? 3 : 0;
	}
	note_trouble(wire, text);
	for (size_t i = 0; i < PS_N_ELEMENTS(meanings); i++) {
		if (meanings[i].code == code && strstr(text, meanings[i].text)) {
			judge(attempt, meanings[i].verdict, meanings[i].error);
			return;
		}
	}
	if (attempt->status >= 400 && attempt->status < 500)
		judge(attempt, DONE, -EPROTO);
	else
		judge(attempt, UNKNOWN, -EHOSTUNREACH);
}

static void judge_answer(struct ps_etcd_wire *wire, struct attempt *attempt)
{
	if (take_answer("", 1, 1, attempt) == 0) { /* a NUL for reading it as text */
		judge(attempt, UNKNOWN, -ENOMEM);
		return;
	}
	curl_easy_getinfo(wire->easy, CURLINFO_RESPONSE_CODE, &attempt->status);
	attempt->json = json_loads(attempt->answer, JSON_ALLOW_NUL, NULL);
	if (attempt->status != 200) {
		judge_words(wire, attempt);
		return;
	}
	if (json_is_object(attempt->json))
		judge(attempt, DONE, 0);
	else
		judge(attempt, UNKNOWN, -EPROTO);
}

static int set_request(struct ps_etcd_wire *wire, struct attempt *attempt,
		       struct curl_slist *headers)
{
	int r = set_common(wire, wire->easy, attempt->path, headers);

	curl_easy_setopt(wire->easy, CURLOPT_ERRORBUFFER, wire->curl_text);
	curl_easy_setopt(wire->easy, CURLOPT_READFUNCTION, give_body);
	curl_easy_setopt(wire->easy, CURLOPT_READDATA, attempt);
	curl_easy_setopt(wire->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)attempt->len);
	curl_easy_setopt(wire->easy, CURLOPT_WRITEFUNCTION, take_answer);
	curl_easy_setopt(wire->easy, CURLOPT_WRITEDATA, attempt);
	return r;
}

static int try_once(struct ps_etcd_wire *wire, struct attempt *attempt, int64_t limit_ms)
{
	ps_auto(free_headers) struct curl_slist *headers = NULL;
	int r = make_headers(wire, &headers);
	CURLcode code;

	if (r < 0)
		return r;
	curl_easy_reset(wire->easy); /* keeps the connections */
	r = set_request(wire, attempt, headers);
	if (r < 0)
		return r;
	*wire->curl_text = '\0';
	curl_easy_setopt(wire->easy, CURLOPT_TIMEOUT_MS, (long)limit_ms);
	code = curl_easy_perform(wire->easy);
	if (code == CURLE_OK)
		judge_answer(wire, attempt);
	else
		judge_silence(wire, attempt, code);
	return 0;
}

static int load_password(const struct ps_etcd_config *config, char ret[256])
{
	FILE *in = fopen(config->password_file, "re");
	bool is_read;

	if (!in)
		return -errno;
	is_read = fgets(ret, 256, in) != NULL;
	(void)fclose(in);
	if (!is_read)
		return -EACCES;
	ret[strcspn(ret, "\r\n")] = '\0';
	return 0;
}

static int post(struct ps_etcd_wire *wire, const char *path, const json_t *body, bool may_repeat,
		json_t **ret);

/* Gets a token for the user.  No transaction is under way here, so it may be tried anywhere. */
static int log_in(struct ps_etcd_wire *wire)
{
	ps_auto_json json_t *body = NULL, *answer = NULL;
	char password[256];
	int r = load_password(wire->config, password);

	if (r < 0) {
		free(wire->trouble);
		return ps_say(&wire->trouble, -EACCES, "%s: %s", wire->config->password_file,
			      strerror(-r));
	}
	body = json_pack("{s:s, s:s}", "name", wire->config->user, "password", password);
	explicit_bzero(password, sizeof(password));
	if (!body)
		return -EACCES; /* not UTF-8 */
	r = post(wire, "/v3/auth/authenticate", body, true, &answer);
	if (r < 0)
		return r;
	wire->token = strdup(json_string_value(json_object_get(answer, "token")) ?: "");
	return wire->token ? 0 : -ENOMEM;
}

void ps_etcd_wire_forget_token(struct ps_etcd_wire *wire)
{
	free(wire->token);
	wire->token = NULL;
}

/* Prepares for another try.  A negative errno: there is none. */
static int recover(struct ps_etcd_wire *wire, const struct attempt *attempt, bool may_repeat,
		   size_t *n_refused)
{
	const struct timespec moment = {0, 20 * 1000 * 1000};

	if (attempt->verdict != LOGIN && attempt->verdict != REFUSED)
		nanosleep(&moment, NULL);
	switch (attempt->verdict) {
	case LOGIN:
		if (!wire->token)
			return attempt->error;
		ps_etcd_wire_forget_token(wire);
		return log_in(wire);
	case WAIT:
		move_on(wire);
		return 0;
	case REFUSED: /* costs nothing to ask again */
		move_on(wire);
		return ++*n_refused < wire->config->n_endpoints ? 0 : attempt->error;
	default:
		*n_refused =
			0; /* one listens, so it is worth asking again until the time is over */
		ps_etcd_wire_elsewhere(wire, attempt->hung);
		return attempt->verdict == UNKNOWN && !may_repeat ? -EIO : 0;
	}
}

static int64_t limit_of(const struct ps_etcd_wire *wire, bool may_repeat, int64_t until_ms)
{
	int64_t left = until_ms - ps_etcd_now_ms();

	return may_repeat && wire->config->n_endpoints > 1 && left > PS_ETCD_READ_MS
		       ? PS_ETCD_READ_MS
		       : left;
}

static int post(struct ps_etcd_wire *wire, const char *path, const json_t *body, bool may_repeat,
		json_t **ret)
{
	bool is_probe = all_suspect(wire);
	int64_t now_ms = ps_etcd_now_ms(),
		until_ms = now_ms + (is_probe ? PS_ETCD_PROBE_MS : PS_ETCD_CALL_MS);
	size_t n_refused = 0;
	int r;

	if (is_probe && now_ms < wire->next_probe_ms)
		return -EHOSTUNREACH;
	if (is_probe)
		wire->next_probe_ms = until_ms + PS_ETCD_PROBE_EVERY_MS;
	if (until_ms > wire->deadline_ms)
		until_ms = wire->deadline_ms;
	for (;;) {
		ps_auto(attempt_clear) struct attempt attempt = {.path = path};
		int64_t limit_ms = limit_of(wire, may_repeat, until_ms);

		if (limit_ms <= 0)
			return -EHOSTUNREACH;
		attempt.body = json_dumps(body, JSON_COMPACT);
		if (!attempt.body)
			return -ENOMEM;
		attempt.len = strlen(attempt.body);
		if (attempt.len > PS_ETCD_REQUEST_MAX)
			return -E2BIG;
		r = try_once(wire, &attempt, limit_ms);
		if (r >= 0 && attempt.verdict == DONE) {
			wire->suspect_until_ms[wire->at] = 0;
			if (attempt.error == 0)
				*ret = ps_move(attempt.json);
			return attempt.error;
		}
		if (r >= 0)
			r = recover(wire, &attempt, may_repeat, &n_refused);
		if (r < 0)
			return r;
	}
}

/* What must not be repeated is not sent into the dark: while all end points are under suspicion, a
 * read goes ahead and finds one that answers. */
static int find_answering(struct ps_etcd_wire *wire)
{
	ps_auto_json json_t *body =
		json_pack("{s:o}", "key", ps_etcd_key(wire->config, PS_ETCD_META, "", false));
	ps_auto_json json_t *answer = NULL;

	return body ? post(wire, "/v3/kv/range", body, true, &answer) : -ENOMEM;
}

int ps_etcd_wire_post(struct ps_etcd_wire *wire, const char *path, const json_t *body,
		      bool may_repeat, json_t **ret)
{
	int r = 0;

	if (wire->config->user && !wire->token)
		r = log_in(wire);
	if (r >= 0 && !may_repeat && all_suspect(wire))
		r = find_answering(wire);
	return r < 0 ? r : post(wire, path, body, may_repeat, ret);
}

int ps_etcd_wire_stream(struct ps_etcd_wire *wire, CURL **ret, struct curl_slist **ret_headers)
{
	ps_auto(free_headers) struct curl_slist *headers = NULL;
	CURL *easy;
	int r = 0;

	if (wire->config->user && !wire->token) {
		if (ps_etcd_wire_left_ms(wire) == 0)
			ps_etcd_wire_begin(wire, PS_ETCD_PROBE_MS);
		r = log_in(wire);
	}
	if (r >= 0)
		r = make_headers(wire, &headers);
	if (r < 0)
		return r;
	easy = curl_easy_init();
	if (!easy)
		return -ENOMEM;
	r = set_common(wire, easy, "/v3/watch", headers);
	if (r < 0) {
		curl_easy_cleanup(easy);
		return r;
	}
	curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
	*ret = easy;
	*ret_headers = ps_move(headers);
	return 0;
}

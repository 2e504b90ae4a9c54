// SPDX-License-Identifier: MIT
/* Who may speak to etcd: the URL, TLS with client certificates, user and password. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "cm.h"
#include "etcd-lab.h"
#include "store/etcd.h"
#include "store/store.h"

static void a_url_says_where_and_how(void **state)
{
	static const struct {
		const char *place;
		bool is_tls;
		const char *endpoints[3], *prefix, *ca, *user;
	} rows[] = {
		{"//a", false, {"http://a:2379"}, "/portslice", NULL, NULL},
		{"//a:1,b,[2001:db8::1],[::1]:2/x/y/",
		 false,
		 {"http://a:1", "http://b:2379", "http://[2001:db8::1]:2379"},
		 "/x/y",
		 NULL,
		 NULL},
		{"//a/", true, {"https://a:2379"}, "/portslice", NULL, NULL},
		{"//a?ca=/etc/ca.pem&user=ams&password-file=/etc/p",
		 true,
		 {"https://a:2379"},
		 "/portslice",
		 "/etc/ca.pem",
		 "ams"},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		ps_auto(ps_etcd_config_clear) struct ps_etcd_config config = {0};

		assert_int_equal(ps_etcd_config_parse(rows[i].place, rows[i].is_tls, &config, NULL),
				 0);
		for (size_t k = 0; k < 3 && rows[i].endpoints[k]; k++)
			assert_string_equal(config.endpoints[k], rows[i].endpoints[k]);
		assert_string_equal(config.prefix, rows[i].prefix);
		assert_string_equal(config.ca ?: "", rows[i].ca ?: "");
		assert_string_equal(config.user ?: "", rows[i].user ?: "");
	}
}

static void a_url_that_is_not_understood_is_refused_with_the_remedy(void **state)
{
	static const struct {
		const char *url, *sentence;
	} rows[] = {
		{"etcd:", "write etcd://host:port"},
		{"etcds:x", "write etcds://host:port"},
		{"etcd://", "is no end point"},
		{"etcd://a,,b", "is no end point"},
		{"etcd://user@a", "is no end point"},
		{"etcd://a/p?color=blue", "option \"color\" is unknown"},
		{"etcd://a/p?ca=/x", "etcds: also ca="},
		{"etcds://a/p?ca=/x&ca=/y", "given twice"},
		{"etcds://a/p?ca=", "empty"},
		{"etcds://a/p?cert=/x", "cert= and key= belong together"},
		{"etcd://a/p?user=x", "user= and password-file= belong together"},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		ps_auto_mem char *message = NULL;
		struct ps_store *store = NULL;

		assert_int_equal(ps_store_open(rows[i].url, &store, NULL), -EINVAL);
		assert_int_equal(ps_store_open(rows[i].url, &store, &message), -EINVAL);
		if (!strstr(message, rows[i].sentence))
			fail_msg("%s: %s", rows[i].url, message);
	}
}

static void expect_refusal(const char *url, int error, const char *sentence)
{
	ps_auto_mem char *message = NULL;
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	int r = ps_store_open(url, &store, &message);

	if (r != error || !strstr(message ?: "", sentence))
		fail_msg("%s: %s: %s", url, strerror(-r), message ?: "(nothing)");
}

static void an_etcd_that_does_not_run_is_named(void **state)
{
	char url[64];
	int port;

	(void)state;
	lab_draw_ports(1, &port);
	snprintf(url, sizeof(url), "etcd://127.0.0.1:%d/x", port);
	expect_refusal(url, -EHOSTUNREACH, "Failed to connect");
	expect_refusal(url, -EHOSTUNREACH, "look whether etcd runs");
	expect_refusal("etcd://127.0.0.1.nowhere.invalid", -EHOSTUNREACH, "resolve");
}

static int set_up(void **state)
{
	*state = calloc(1, sizeof(struct lab));
	return *state ? 0 : -1;
}

static int tear_down(void **state)
{
	lab_stop(*state);
	free(*state);
	return 0;
}

/* NAME.pem and NAME.key in the lab's folder, signed by ca. */
static void make_certificate(const struct lab *lab, const char *name, const char *subject,
			     bool is_signed)
{
	char key[PLACE_MAX + 32], pem[PLACE_MAX + 32], ca[PLACE_MAX + 32], ca_key[PLACE_MAX + 32];
	const char *arguments[] = {"openssl",
				   "req",
				   "-x509",
				   "-newkey",
				   "ec",
				   "-pkeyopt",
				   "ec_paramgen_curve:prime256v1",
				   "-nodes",
				   "-days",
				   "2",
				   "-keyout",
				   key,
				   "-out",
				   pem,
				   "-subj",
				   subject,
				   "-addext",
				   "subjectAltName=IP:127.0.0.1",
				   is_signed ? "-CA" : NULL,
				   ca,
				   "-CAkey",
				   ca_key,
				   "-addext",
				   "basicConstraints=CA:false",
				   NULL};

	snprintf(key, sizeof(key), "%s/%s.key", lab->folder, name);
	snprintf(pem, sizeof(pem), "%s/%s.pem", lab->folder, name);
	snprintf(ca, sizeof(ca), "%s/ca.pem", lab->folder);
	snprintf(ca_key, sizeof(ca_key), "%s/ca.key", lab->folder);
	assert_int_equal(lab_run(arguments), 0);
}

/* etcds://127.0.0.1:PORT/tls?ca=CA.pem&cert=NAME.pem&key=NAME.key; name NULL: no certificate. */
static void tls_url(const struct lab *lab, const char *ca, const char *name, char *ret, size_t size)
{
	int len = snprintf(ret, size, "etcds://127.0.0.1:%d/tls?ca=%s/%s.pem",
			   lab->nodes[0].client_port, lab->folder, ca);

	if (name)
		snprintf(ret + len, size - (size_t)len, "&cert=%s/%s.pem&key=%s/%s.key",
			 lab->folder, name, lab->folder, name);
}

static void do_auth(const struct lab *lab, const char *path, json_t *body)
{
	ps_auto_json json_t *answer = lab_post(lab, 0, path, body);

	assert_non_null(answer);
}

/* root, and a user "ams" who may read and write what begins with /auth/. */
static void enable_auth(const struct lab *lab)
{
	do_auth(lab, "/v3/auth/user/add", json_pack("{s:s, s:s}", "name", "root", "password", "r"));
	do_auth(lab, "/v3/auth/role/add", json_pack("{s:s}", "name", "root"));
	do_auth(lab, "/v3/auth/user/grant",
		json_pack("{s:s, s:s}", "user", "root", "role", "root"));
	do_auth(lab, "/v3/auth/user/add", json_pack("{s:s, s:s}", "name", "ams", "password", "a"));
	do_auth(lab, "/v3/auth/role/add", json_pack("{s:s}", "name", "site"));
	do_auth(lab, "/v3/auth/role/grant",
		json_pack("{s:s, s:{s:s, s:s, s:s}}", "name", "site", "perm", "permType",
			  "READWRITE", "key", "L2F1dGgv", "range_end", "L2F1dGgw"));
	do_auth(lab, "/v3/auth/user/grant", json_pack("{s:s, s:s}", "user", "ams", "role", "site"));
	do_auth(lab, "/v3/auth/enable", json_object());
}

static void over_tls_both_sides_show_certificates(void **state)
{
	struct lab *lab = *state;
	char pem[PLACE_MAX + 32], key[PLACE_MAX + 32], ca[PLACE_MAX + 32], url[4 * PLACE_MAX];
	const char *const options[] = {"--cert-file",       pem, "--key-file",         key,
				       "--trusted-ca-file", ca,  "--client-cert-auth", NULL};
	ps_auto(ps_store_close) struct ps_store *store = NULL;

	lab_prepare(lab, 1, "https");
	make_certificate(lab, "ca", "/O=ca", false);
	make_certificate(lab, "stranger", "/O=stranger", false);
	make_certificate(lab, "server", "/O=server", true);
	make_certificate(lab, "host", "/O=portslice", true);
	make_certificate(lab, "named", "/O=portslice/CN=ams1", true);
	snprintf(pem, sizeof(pem), "%s/server.pem", lab->folder);
	snprintf(key, sizeof(key), "%s/server.key", lab->folder);
	snprintf(ca, sizeof(ca), "%s/ca.pem", lab->folder);
	lab->options = options;
	lab_start(lab);
	tls_url(lab, "ca", "host", url, sizeof(url));
	store = lab_open(url);
	assert_true(ps_store_watch_fd(store) >= 0);
	assert_int_equal(ps_store_put(store, "k", "v", 1, NULL), 0);
	tls_url(lab, "ca", NULL, url, sizeof(url));
	expect_refusal(url, -EHOSTUNREACH, "accepts its certificate");
	tls_url(lab, "ca", "stranger", url, sizeof(url));
	expect_refusal(url, -EHOSTUNREACH, "accepts its certificate");
	tls_url(lab, "stranger", "host", url, sizeof(url));
	expect_refusal(url, -EACCES, "certificate");
	tls_url(lab, "ca", "missing", url, sizeof(url));
	expect_refusal(url, -EACCES, "certificate");
	tls_url(lab, "ca", "host", url, sizeof(url));
	snprintf(lab->query, sizeof(lab->query), "%s", strchr(url, '?'));
	enable_auth(lab);
	tls_url(lab, "ca", "host", url, sizeof(url));
	expect_refusal(url, -EACCES, "user name is empty");
	tls_url(lab, "ca", "named", url, sizeof(url));
	expect_refusal(url, -EACCES, "CommonName of client");
	expect_refusal(url, -EACCES, "must carry no common name");
	snprintf(url, sizeof(url), "etcd://127.0.0.1:%d/tls", lab->nodes[0].client_port);
	expect_refusal(url, -EHOSTUNREACH, "Empty reply");
}

static void auth_url(const struct lab *lab, const char *prefix, const char *file, char *ret,
		     size_t size)
{
	snprintf(ret, size, "etcd://127.0.0.1:%d/%s?user=ams&password-file=%s/%s",
		 lab->nodes[0].client_port, prefix, lab->folder, file);
}

static void write_line(const struct lab *lab, const char *name, const char *line)
{
	char path[PLACE_MAX + 32];
	FILE *out;

	snprintf(path, sizeof(path), "%s/%s", lab->folder, name);
	out = fopen(path, "w");
	assert_non_null(out);
	fputs(line, out);
	fclose(out);
}

/* Retried until the server that was killed is back. */
static int put_when_back(struct ps_store *store, const char *data)
{
	int64_t until_ms = lab_now_ms() + LAB_START_S * 1000;
	int r;

	do {
		r = ps_store_put(store, "k", data, strlen(data), NULL);
		lab_sleep_ms(20);
	} while (r == -EHOSTUNREACH && lab_now_ms() < until_ms);
	return r;
}

static void a_user_has_a_token_that_is_renewed_when_it_is_lost(void **state)
{
	static const char *const options[] = {"--bcrypt-cost", "4", "--auth-token-ttl", "1", NULL};
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	ps_auto(ps_store_values_clear) struct ps_store_values values = {0};
	struct lab *lab = *state;
	char url[3 * PLACE_MAX];

	lab_prepare(lab, 1, "http");
	lab->options = options;
	lab_start(lab);
	write_line(lab, "password", "a\n");
	write_line(lab, "wrong", "b\n");
	auth_url(lab, "auth", "password", url, sizeof(url));
	expect_refusal(url, -EACCES, "authentication is not enabled");
	enable_auth(lab);
	store = lab_open(url);
	assert_true(ps_store_watch_fd(store) >= 0);
	assert_int_equal(ps_store_put(store, "k", "1", 1, NULL), 0);
	lab_sleep_ms(2500); /* the token's life, and how often etcd looks */
	assert_int_equal(ps_store_put(store, "k", "2", 1, NULL), 0);
	lab_kill_node(lab, 0);
	lab_start_node(lab, 0);
	assert_int_equal(put_when_back(store, "3"), 0);
	assert_int_equal(ps_store_changes(store, "", 0, &values), 0);
	assert_int_equal(values.n, 3);
	auth_url(lab, "auth", "wrong", url, sizeof(url));
	expect_refusal(url, -EACCES, "authentication failed");
	auth_url(lab, "auth", "missing", url, sizeof(url));
	expect_refusal(url, -EACCES, "No such file");
	auth_url(lab, "elsewhere", "password", url, sizeof(url));
	expect_refusal(url, -EACCES, "permission denied");
	snprintf(url, sizeof(url), "etcd://127.0.0.1:%d/auth", lab->nodes[0].client_port);
	expect_refusal(url, -EACCES, "user name is empty");
}

int main(void)
{
	const struct CMUnitTest url_tests[] = {
		cmocka_unit_test(a_url_says_where_and_how),
		cmocka_unit_test(a_url_that_is_not_understood_is_refused_with_the_remedy),
		cmocka_unit_test(an_etcd_that_does_not_run_is_named),
	};
	const struct CMUnitTest server_tests[] = {
		cmocka_unit_test_setup_teardown(over_tls_both_sides_show_certificates, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(a_user_has_a_token_that_is_renewed_when_it_is_lost,
						set_up, tear_down),
	};
	int n_failed = cmocka_run_group_tests_name("etcd, URLs", url_tests, NULL, NULL);

	if (!lab_has_etcd()) {
		print_message("skipped: there is no /usr/bin/etcd (Debian: etcd-server)\n");
		return n_failed ? n_failed : 77;
	}
	return n_failed + cmocka_run_group_tests_name("etcd, access", server_tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* etcd servers of our own on loopback: free ports, a folder in memory, gone with the test. */
#ifndef PS_TESTS_ETCD_LAB_H
#define PS_TESTS_ETCD_LAB_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/own.h"
#include "base/say.h"
#include "cm.h"
#include "store/etcd.h"
#include "store-place.h"
#include "store/store.h"

enum { LAB_NODES_MAX = 3, LAB_START_S = 30 };

struct lab_node {
	pid_t pid; /* 0: does not run */
	char name[8], data[PLACE_MAX + 16], client[64], peer[64];
	int client_port;
};

struct lab {
	char folder[PLACE_MAX];
	char cluster[256], token[32];
	const char *const *options; /* more of etcd's, NULL at the end; NULL: none */
	const char *scheme;         /* of the clients' URLs: "http" */
	char query[4 * PLACE_MAX];  /* how lab_post() shows itself: "?ca=…" */
	struct lab_node nodes[LAB_NODES_MAX];
	size_t n;
};

static inline bool lab_has_etcd(void)
{
	return access("/usr/bin/etcd", X_OK) == 0;
}

static inline void lab_sleep_ms(long ms)
{
	const struct timespec span = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&span, NULL);
}

static inline int64_t lab_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Ports nobody listens on, drawn together so that they differ. */
static inline void lab_draw_ports(size_t n, int ret[])
{
	int fds[2 * LAB_NODES_MAX];

	for (size_t i = 0; i < n; i++) {
		struct sockaddr_in address = {.sin_family = AF_INET};
		socklen_t len = sizeof(address);

		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(bind(fds[i], (struct sockaddr *)&address, len), 0);
		assert_int_equal(getsockname(fds[i], (struct sockaddr *)&address, &len), 0);
		ret[i] = ntohs(address.sin_port);
	}
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

/* In the child.  What etcd says is in FOLDER/NAME.log. */
static inline void lab_exec(const struct lab *lab, const struct lab_node *node)
{
	const char *arguments[48] = {"etcd",
				     "--name",
				     node->name,
				     "--data-dir",
				     node->data,
				     "--listen-client-urls",
				     node->client,
				     "--advertise-client-urls",
				     node->client,
				     "--listen-peer-urls",
				     node->peer,
				     "--initial-advertise-peer-urls",
				     node->peer,
				     "--initial-cluster",
				     lab->cluster,
				     "--initial-cluster-token",
				     lab->token,
				     "--heartbeat-interval",
				     lab->n > 1 ? "100" : "10",
				     "--election-timeout",
				     lab->n > 1 ? "1000" : "100",
				     "--logger",
				     "zap"};
	char log[PLACE_MAX + 32];
	size_t n = 23;
	int fd;

	for (size_t i = 0; lab->options && lab->options[i]; i++)
		arguments[n++] = lab->options[i];
	snprintf(log, sizeof(log), "%s/%s.log", lab->folder, node->name);
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(fd, 1);
	dup2(fd, 2);
	execv("/usr/bin/etcd", (char **)(uintptr_t)arguments);
	_exit(127);
}

/* Returns when none of its threads runs any more. */
static inline void lab_freeze(const struct lab_node *node)
{
	kill(node->pid, SIGSTOP);
	waitpid(node->pid, NULL, WUNTRACED);
}

static inline void lab_start_node(struct lab *lab, size_t i)
{
	struct lab_node *node = &lab->nodes[i];

	assert_int_equal(node->pid, 0);
	node->pid = fork();
	assert_true(node->pid >= 0);
	if (node->pid == 0)
		lab_exec(lab, node);
}

/* kill -9, and wait until its ports are free. */
static inline void lab_kill_node(struct lab *lab, size_t i)
{
	struct lab_node *node = &lab->nodes[i];

	if (!node->pid)
		return;
	kill(node->pid, SIGKILL);
	waitpid(node->pid, NULL, 0);
	node->pid = 0;
}

/* n servers that know each other; nothing runs yet. */
static inline void lab_prepare(struct lab *lab, size_t n, const char *scheme)
{
	int ports[2 * LAB_NODES_MAX];

	*lab = (struct lab){.n = n, .scheme = scheme, .token = "lab"};
	/* etcd waits for the disk with every change */
	place_make_in(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", lab->folder);
	lab_draw_ports(2 * n, ports);
	for (size_t i = 0; i < n; i++) {
		struct lab_node *node = &lab->nodes[i];
		size_t len = strlen(lab->cluster);

		node->client_port = ports[2 * i];
		snprintf(node->name, sizeof(node->name), "n%zu", i);
		snprintf(node->data, sizeof(node->data), "%.*s/n%u", PLACE_MAX - 1, lab->folder,
			 (unsigned)i);
		snprintf(node->client, sizeof(node->client), "%s://127.0.0.1:%d", scheme,
			 ports[2 * i]);
		snprintf(node->peer, sizeof(node->peer), "http://127.0.0.1:%d", ports[2 * i + 1]);
		snprintf(lab->cluster + len, sizeof(lab->cluster) - len, "%s%s=%s", i ? "," : "",
			 node->name, node->peer);
	}
}

/* etcd[s]://127.0.0.1:PORT,.../PREFIX; first: the node that is asked first. */
static inline void lab_url(const struct lab *lab, size_t first, const char *prefix, char *ret,
			   size_t size)
{
	int len = snprintf(ret, size, "%s//", strcmp(lab->scheme, "http") ? "etcds:" : "etcd:");

	for (size_t i = 0; i < lab->n; i++)
		len += snprintf(ret + len, size - (size_t)len, "%s127.0.0.1:%d", i ? "," : "",
				lab->nodes[(first + i) % lab->n].client_port);
	snprintf(ret + len, size - (size_t)len, "/%s", prefix);
}

/* Opens as soon as the servers answer. */
static inline struct ps_store *lab_open(const char *url)
{
	int64_t until_ms = lab_now_ms() + LAB_START_S * 1000;
	struct ps_store *store = NULL;

	for (;;) {
		ps_auto_mem char *message = NULL;
		int r = ps_store_open(url, &store, &message);

		if (r == 0)
			return store;
		if (r != -EHOSTUNREACH || lab_now_ms() > until_ms)
			fail_msg("%s: %s", url, message);
		lab_sleep_ms(50);
	}
}

static inline void lab_start(struct lab *lab)
{
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	char url[256];

	for (size_t i = 0; i < lab->n; i++)
		lab_start_node(lab, i);
	lab_url(lab, 0, "started", url, sizeof(url));
	if (strcmp(lab->scheme, "http") == 0)
		store = lab_open(url);
}

static inline void lab_stop(struct lab *lab)
{
	for (size_t i = 0; i < lab->n; i++)
		lab_kill_node(lab, i);
	place_remove(lab->folder);
}

/* One request of etcd's JSON API to node i, without the store's guards; its answer, or NULL. */
static inline json_t *lab_post(const struct lab *lab, size_t i, const char *path, json_t *body)
{
	ps_auto(ps_etcd_config_clear) struct ps_etcd_config config = {0};
	ps_auto(ps_etcd_wire_free) struct ps_etcd_wire *wire = NULL;
	ps_auto_json json_t *owned = body;
	json_t *answer = NULL;
	ps_auto_mem char *place = NULL;

	ps_say(&place, 0, "//127.0.0.1:%d/%s", lab->nodes[i].client_port, lab->query);
	assert_non_null(place);
	assert_int_equal(
		ps_etcd_config_parse(place, strcmp(lab->scheme, "http") != 0, &config, NULL), 0);
	assert_int_equal(ps_etcd_wire_open(&config, &wire), 0);
	ps_etcd_wire_begin(wire, PS_ETCD_CALL_MS);
	return ps_etcd_wire_post(wire, path, owned, true, &answer) < 0 ? NULL : answer;
}

/* Forgets all states that are not present any more. */
static inline void lab_compact(const struct lab *lab, size_t i)
{
	ps_auto_json json_t *present =
		lab_post(lab, i, "/v3/kv/range", json_pack("{s:s}", "key", "eA=="));
	ps_auto_json json_t *done = NULL;

	assert_non_null(present);
	done = lab_post(lab, i, "/v3/kv/compaction",
			json_pack("{s:O}", "revision",
				  json_object_get(json_object_get(present, "header"), "revision")));
	assert_non_null(done);
}

/* Waits until node i answers and knows who leads. */
static inline void lab_await_node(const struct lab *lab, size_t i)
{
	int64_t until_ms = lab_now_ms() + LAB_START_S * 1000;
	bool is_ready = false;

	while (!is_ready) {
		ps_auto_json json_t *status =
			lab_post(lab, i, "/v3/maintenance/status", json_object());

		is_ready = json_object_get(status, "leader") != NULL;
		if (!is_ready && lab_now_ms() > until_ms)
			fail_msg("%s does not start", lab->nodes[i].name);
		lab_sleep_ms(20);
	}
}

/* The node that leads; -1: none says so. */
static inline int lab_leader(const struct lab *lab)
{
	for (size_t i = 0; i < lab->n; i++) {
		ps_auto_json json_t *status =
			lab_post(lab, i, "/v3/maintenance/status", json_object());
		const char *leader = json_string_value(json_object_get(status, "leader"));
		const char *self = json_string_value(
			json_object_get(json_object_get(status, "header"), "member_id"));

		if (leader && self && strcmp(leader, self) == 0)
			return (int)i;
	}
	return -1;
}

/* Runs a program with its output thrown away; returns its exit code. */
static inline int lab_run(const char *const *arguments)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		int fd = open("/dev/null", O_RDWR);

		dup2(fd, 1);
		dup2(fd, 2);
		execvp(arguments[0], (char **)(uintptr_t)arguments);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#endif

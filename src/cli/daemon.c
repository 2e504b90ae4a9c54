// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "base/own.h"
#include "cli/cli.h"
#include "cli/firewall.h"

/* What others on this host do to packets from the addresses of the plan in force. */
static void add_findings(const struct ps_cli *cli, json_t *status)
{
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;

	if (json_object_get(status, "digest") && ps_cli_plan(cli, NULL, &plan) == PS_EXIT_DONE)
		json_object_set_new(status, "masquerade", ps_cli_firewall_findings(plan));
}

static int run_status(const struct ps_cli *cli, int argc, char **argv)
{
	json_t *status = NULL, *value;
	const char *key;
	int r;

	(void)argv;
	if (argc > 1)
		return ps_cli_fail(PS_EXIT_USE, "expected no argument");
	r = ps_cli_ask_status(cli, &status);
	if (r != PS_EXIT_DONE)
		return r;
	add_findings(cli, status);
	if (cli->json)
		return ps_cli_print_json(status);
	json_object_foreach(status, key, value)
	{
		ps_auto_mem char *text = NULL;

		if (json_is_null(value))
			continue;
		text = json_is_string(value) ? strdup(json_string_value(value))
					     : json_dumps(value, JSON_ENCODE_ANY);
		printf("%-14s %s\n", key, text ? text : "?");
	}
	json_decref(status);
	return PS_EXIT_DONE;
}

static void print_event(const struct ps_cli *cli, const json_t *event)
{
	ps_auto_mem char *text = NULL;

	if (cli->json)
		text = json_dumps(event, JSON_COMPACT);
	if (cli->json)
		puts(text ? text : "{}");
	else
		printf("%s %-18s %s\n", json_string_value(json_object_get(event, "time")),
		       json_string_value(json_object_get(event, "kind")),
		       json_string_value(json_object_get(event, "text")));
	fflush(stdout);
}

static int stream_events(const struct ps_cli *cli, int fd)
{
	ps_auto_mem char *line = NULL;
	size_t size = 0;
	FILE *in = fdopen(fd, "r");

	while (in && getline(&line, &size, in) > 0) {
		json_t *reply = json_loads(line, 0, NULL);
		const json_t *event = json_object_get(reply, "ok");

		if (event)
			print_event(cli, event);
		json_decref(reply);
		if (!event)
			break;
	}
	if (in)
		fclose(in);
	return PS_EXIT_DONE;
}

static int run_events(const struct ps_cli *cli, int argc, char **argv)
{
	ps_auto_mem char *path = ps_cli_socket_path(cli->instance);
	bool follow = argc == 2 && (strcmp(argv[1], "-f") == 0 || strcmp(argv[1], "--follow") == 0);
	ps_auto_mem char *text = NULL;
	int fd;

	if (argc > 1 && !follow)
		return ps_cli_fail(PS_EXIT_USE, "expected nothing, or -f to follow");
	fd = path ? ps_cli_connect(path) : -ENOMEM;
	if (fd < 0)
		return ps_cli_fail(PS_EXIT_UNREACHABLE, "no portsliced answers at %s: %s", path,
				   strerror(-fd));
	if (asprintf(&text, "{\"verb\":\"events\",\"follow\":%s}\n", follow ? "true" : "false") <
		    0 ||
	    write(fd, text, strlen(text)) < 0)
		return ps_cli_fail(PS_EXIT_UNREACHABLE, "the daemon hung up");
	return stream_events(cli, fd);
}

/* Leaks are findings: the exit code says so. */
static int run_sweep(const struct ps_cli *cli, int argc, char **argv)
{
	json_t *reply = NULL;
	long long claims, freed, unsent;
	int r;

	(void)argv;
	if (argc > 1)
		return ps_cli_fail(PS_EXIT_USE, "expected no argument");
	r = ps_cli_ask(cli, json_pack("{s:s}", "verb", "sweep"), &reply);
	if (r != PS_EXIT_DONE)
		return r;
	claims = json_integer_value(json_object_get(reply, "claims"));
	freed = json_integer_value(json_object_get(reply, "freed"));
	unsent = json_integer_value(json_object_get(reply, "unsent"));
	if (cli->json)
		(void)ps_cli_print_json(json_incref(reply));
	else
		printf("%lld ports in use; by no socket, given back: %lld; by sockets whose connect() "
		       "failed before it sent, until they close: %lld\n",
		       claims, freed, unsent);
	json_decref(reply);
	return freed ? PS_EXIT_FINDINGS : PS_EXIT_DONE;
}

static int run_attach(const struct ps_cli *cli, int argc, char **argv)
{
	json_t *reply = NULL;
	int r;

	(void)argv;
	if (argc > 1)
		return ps_cli_fail(PS_EXIT_USE, "expected no argument");
	r = ps_cli_ask(cli, json_pack("{s:s}", "verb", "attach"), &reply);
	json_decref(reply);
	if (r == PS_EXIT_DONE && !cli->json)
		puts("attached");
	return r;
}

/* The daemon's binary stands beside ours, in sbin or in the build tree. */
static int detach_without_daemon(const struct ps_cli *cli)
{
	static const char *const places[] = {"../agent/portsliced", "../sbin/portsliced"};
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n < 0)
		return ps_cli_fail(PS_EXIT_REFUSED, "cannot find portsliced");
	self[n] = '\0';
	slash = strrchr(self, '/');
	*slash = '\0';
	for (size_t i = 0; i < PS_N_ELEMENTS(places); i++) {
		ps_auto_mem char *path = NULL;

		if (asprintf(&path, "%s/%s", self, places[i]) >= 0)
			execl(path, path, "--detach", "--instance", cli->instance, NULL);
	}
	execlp("portsliced", "portsliced", "--detach", "--instance", cli->instance, NULL);
	return ps_cli_fail(PS_EXIT_REFUSED, "cannot find portsliced: %s", strerror(errno));
}

static int run_detach(const struct ps_cli *cli, int argc, char **argv)
{
	ps_auto_mem char *path = ps_cli_socket_path(cli->instance);
	int fd = path ? ps_cli_connect(path) : -ENOMEM;
	json_t *reply = NULL;
	int r;

	(void)argv;
	if (argc > 1)
		return ps_cli_fail(PS_EXIT_USE, "expected no argument");
	if (fd < 0)
		return detach_without_daemon(cli);
	ps_fd_drop(&fd);
	r = ps_cli_ask(cli, json_pack("{s:s}", "verb", "detach"), &reply);
	json_decref(reply);
	if (r == PS_EXIT_DONE && !cli->json)
		puts("detached");
	return r;
}

const struct ps_verb ps_verbs_daemon[] = {
	{NULL, "status", "", "Show what the daemon does, follows and misses", NULL, run_status},
	{NULL, "events", "[-f]", "Show what happened; -f goes on as it happens", NULL, run_events},
	{NULL, "sweep", "", "Look for ports in use by no socket now, and give them back",
	 "The daemon does so once a minute. Exit code 3: there were some; `events` names them.\n",
	 run_sweep},
	{NULL, "attach", "", "Put the plan of the store in force again after `detach`", NULL,
	 run_attach},
	{NULL, "detach", "", "Take programs, routes and settings off this host",
	 "Works with or without a running daemon. Sysctls, routes and guards are put back as\n"
	 "they were. Connections from shared addresses end.\n",
	 run_detach},
	{0},
};

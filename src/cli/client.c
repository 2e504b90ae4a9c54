// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/own.h"
#include "cli/cli.h"

enum { PATIENCE_S = 20 };

char *ps_cli_socket_path(const char *instance)
{
	char *path = NULL;

	return asprintf(&path, "/run/portslice/%s/control.sock", instance) < 0 ? NULL : path;
}

int ps_cli_connect(const char *socket_path)
{
	struct sockaddr_un there = {.sun_family = AF_UNIX};
	ps_auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(socket_path) >= sizeof(there.sun_path))
		return -ENAMETOOLONG;
	strcpy(there.sun_path, socket_path);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&there, sizeof(there)) < 0)
		return -errno;
	return ps_fd_move(&fd);
}

static int send_line(int fd, json_t *request)
{
	ps_auto_mem char *text = json_dumps(request, JSON_COMPACT);
	size_t len = text ? strlen(text) : 0, sent = 0;

	json_decref(request);
	if (!text)
		return -ENOMEM;
	text[len++] = '\n'; /* in place of the NUL */
	while (sent < len) {
		ssize_t n = send(fd, text + sent, len - sent, MSG_NOSIGNAL);

		if (n < 0)
			return -errno;
		sent += (size_t)n;
	}
	return 0;
}

/* A daemon that hangs must not hang us. */
static void limit_patience(int fd)
{
	static const struct timeval patience = {.tv_sec = PATIENCE_S};

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

json_t *ps_cli_exchange(int fd, json_t *request)
{
	ps_auto_mem char *line = NULL;
	size_t size = 0;
	json_t *reply;
	FILE *in;
	int copy;

	limit_patience(fd);
	if (send_line(fd, request) < 0)
		return NULL;
	copy = dup(fd);
	in = copy < 0 ? NULL : fdopen(copy, "r");
	if (!in)
		return NULL;
	reply = getline(&line, &size, in) < 0 ? NULL : json_loads(line, 0, NULL);
	fclose(in);
	return reply;
}

int ps_cli_ask(const struct ps_cli *cli, json_t *request, json_t **ret)
{
	ps_auto_mem char *path = ps_cli_socket_path(cli->instance);
	ps_auto_fd int fd = path ? ps_cli_connect(path) : -ENOMEM;
	json_t *reply, *ok;

	if (fd < 0) {
		json_decref(request);
		return ps_cli_fail(
			PS_EXIT_UNREACHABLE,
			"no portsliced answers at %s (%s): start it, or name another --instance",
			path ? path : "?", strerror(-fd));
	}
	reply = ps_cli_exchange(fd, request);
	ok = json_object_get(reply, "ok");
	if (ok) {
		*ret = json_incref(ok);
		json_decref(reply);
		return PS_EXIT_DONE;
	}
	if (!reply)
		return ps_cli_fail(PS_EXIT_UNREACHABLE, "portsliced at %s hung up or hangs", path);
	ps_cli_fail(0, "%s",
		    json_is_string(json_object_get(reply, "error"))
			    ? json_string_value(json_object_get(reply, "error"))
			    : "the daemon's answer is not understood");
	json_decref(reply);
	return PS_EXIT_REFUSED;
}

int ps_cli_ask_status(const struct ps_cli *cli, json_t **ret)
{
	return ps_cli_ask(cli, json_pack("{s:s}", "verb", "status"), ret);
}

// SPDX-License-Identifier: MIT
/*
 * The control socket: one JSON object a line in, one a line out.
 *
 *   {"verb": "status"}                        -> {"ok": {...}}
 *   {"verb": "judge", "text": "version: 1.."} -> {"error": "slice ... is in use by lhr2"}
 *   {"verb": "events", "follow": true}        -> {"ok": {...}} for each event, until hang-up
 *
 * Anybody on the machine may read; verbs that change something ask for uid 0 or the daemon's own
 * (SO_PEERCRED), who may also send long requests and be many.  Nothing here ever blocks the loop: a
 * client is served one request at a time, and not heard again before it has taken the answer, so
 * one that does not read holds one answer; a follower that does not read is cut off.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "agent/agent.h"
#include "agent/log.h"
#include "base/own.h"

enum {
	REQUEST_MAX = 40 * 1024 * 1024, /* a plan as a JSON string */
	REQUEST_MAX_OTHERS = 64 * 1024, /* of anybody but root */
	BACKLOG_MAX = 1024 * 1024,      /* events that a follower has not taken yet, bytes */
	CLIENTS_MAX = 64,               /* beyond, only root's; far from RLIMIT_NOFILE's 1024 */
	READ_SIZE = 65536,
};

struct client {
	struct ps_control *control;
	struct client *next;
	sd_event_source *source;
	int fd;
	bool trusted, following;
	char *in, *out;
	size_t n_in, n_searched; /* bytes read; of them known to hold no newline */
	size_t n_out, n_sent;
};

struct ps_control {
	struct ps_agent *agent;
	sd_event_source *source;
	char *path;
	struct client *clients;
	unsigned n_clients;
};

static void drop_client(struct client *client)
{
	struct client **at = &client->control->clients;

	while (*at != client)
		at = &(*at)->next;
	*at = client->next;
	client->control->n_clients--;
	sd_event_source_disable_unref(client->source);
	ps_fd_drop(&client->fd);
	free(client->in);
	free(client->out);
	free(client);
}

void ps_control_close(struct ps_control **control)
{
	if (!*control)
		return;
	while ((*control)->clients)
		drop_client((*control)->clients);
	sd_event_source_disable_unref((*control)->source);
	if ((*control)->path)
		(void)unlink((*control)->path);
	free((*control)->path);
	free(*control);
	*control = NULL;
}

/* Takes over the reference. */
static void answer(struct client *client, const char *key, json_t *value)
{
	json_t *line = json_pack("{s:o}", key, value ? value : json_null());
	ps_auto_mem char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;
	char *out;

	json_decref(line);
	if (!text)
		return;
	out = realloc(client->out, client->n_out + len + 1);
	if (!out)
		return;
	memcpy(out + client->n_out, text, len);
	out[client->n_out + len] = '\n';
	client->out = out;
	client->n_out += len + 1;
	sd_event_source_set_io_events(client->source, EPOLLOUT);
}

void ps_control_publish(struct ps_control *control, const json_t *event)
{
	for (struct client *client = control->clients; client; client = client->next) {
		if (!client->following)
			continue;
		if (client->n_out - client->n_sent > BACKLOG_MAX)
			(void)shutdown(client->fd, SHUT_RDWR); /* on_client() then drops it */
		else
			answer(client, "ok", json_deep_copy(event));
	}
}

static void verb_status(struct client *client, const json_t *request)
{
	(void)request;
	answer(client, "ok", ps_agent_status(client->control->agent));
}

static void verb_plan(struct client *client, const json_t *request)
{
	const struct ps_active *active = client->control->agent->active;

	(void)request;
	if (!active)
		answer(client, "error", json_string("no plan is in force"));
	else
		answer(client, "ok",
		       json_pack("{s:s, s:o}", "text", active->text, "plan",
				 ps_plan_json(active->plan)));
}

static void verb_counters(struct client *client, const json_t *request)
{
	(void)request;
	answer(client, "ok", ps_agent_counters(client->control->agent));
}

static void verb_usage(struct client *client, const json_t *request)
{
	(void)request;
	answer(client, "ok", ps_agent_usage(client->control->agent));
}

static void verb_events(struct client *client, const json_t *request)
{
	const json_t *recent = ps_events_recent(client->control->agent->events);
	size_t i;
	json_t *event;

	json_array_foreach(recent, i, event) answer(client, "ok", json_deep_copy(event));
	client->following = json_is_true(json_object_get(request, "follow"));
	if (!client->following)
		answer(client, "end", json_true());
}

/* The outcome of a verb that gives 0 or a negative errno and a reason; frees `why`. */
static void answer_outcome(struct client *client, int r, char *why)
{
	if (r < 0)
		answer(client, "error", json_string(why ? why : strerror(-r)));
	else
		answer(client, "ok", json_true());
	free(why);
}

static void verb_judge(struct client *client, const json_t *request)
{
	const json_t *text = json_object_get(request, "text");
	char *why = NULL;
	int r = -EINVAL;

	if (json_is_string(text))
		r = ps_agent_judge(client->control->agent, json_string_value(text),
				   json_string_length(text), &why);
	answer_outcome(client, r, why);
}

static void verb_class(struct client *client, const json_t *request)
{
	struct ps_agent *agent = client->control->agent;
	const char *name = json_string_value(json_object_get(request, "name"));
	ps_auto_mem char *path = NULL;

	if (!agent->active || !name || ps_plan_find_class(agent->active->plan, name) < 0) {
		answer(client, "error", json_string("no such class in the plan in force"));
		return;
	}
	path = ps_agent_class_cgroup(agent, name);
	answer(client, "ok", json_string(path ? path : ""));
}

static void verb_sweep(struct client *client, const json_t *request)
{
	struct ps_repair repair;
	int r = ps_agent_repair(client->control->agent, &repair);

	(void)request;
	if (r < 0)
		answer(client, "error",
		       json_string(r == -ENOENT ? "no hooks of this daemon are in place"
						: strerror(-r)));
	else
		answer(client, "ok",
		       json_pack("{s:I, s:I, s:I}", "claims", (json_int_t)repair.n_claims, "freed",
				 (json_int_t)repair.n_freed, "unsent",
				 (json_int_t)repair.n_unsent));
}

static void verb_detach(struct client *client, const json_t *request)
{
	struct ps_agent *agent = client->control->agent;
	int r;

	(void)request;
	agent->detached = true;
	agent->egress_source = sd_event_source_disable_unref(agent->egress_source);
	agent->hints_source = sd_event_source_disable_unref(agent->hints_source);
	ps_active_free(&agent->active);
	r = ps_agent_detach(agent->pin_dir, agent->run_dir, agent->undo, agent->net);
	ps_events_add(agent->events, "detached", NULL, "detached by the operator");
	answer_outcome(client, r, NULL);
}

static void verb_attach(struct client *client, const json_t *request)
{
	struct ps_agent *agent = client->control->agent;

	(void)request;
	agent->detached = false;
	ps_agent_forget(agent);
	ps_agent_follow(agent);
	if (agent->active)
		answer_outcome(client, 0, NULL);
	else
		answer_outcome(client, -ENOENT,
			       strdup(agent->refusal         ? agent->refusal
				      : agent->store_trouble ? agent->store_trouble
							     : "the store holds no plan"));
}

static const struct {
	const char *name;
	void (*run)(struct client *client, const json_t *request);
	bool changes;
} verbs[] = {
	{"status", verb_status, false},     {"plan", verb_plan, false},
	{"counters", verb_counters, false}, {"usage", verb_usage, false},
	{"events", verb_events, false},     {"judge", verb_judge, false},
	{"class", verb_class, false},       {"detach", verb_detach, true},
	{"attach", verb_attach, true},      {"sweep", verb_sweep, true},
};

static void serve(struct client *client, const char *line, size_t len)
{
	json_t *request = json_loadb(line, len, 0, NULL);
	const char *name = json_string_value(json_object_get(request, "verb"));

	for (size_t i = 0; name && i < PS_N_ELEMENTS(verbs); i++) {
		if (strcmp(verbs[i].name, name) != 0)
			continue;
		if (verbs[i].changes && !client->trusted)
			answer(client, "error", json_string("not permitted: run as root"));
		else
			verbs[i].run(client, request);
		json_decref(request);
		return;
	}
	answer(client, "error", json_string("request is not understood"));
	json_decref(request);
}

/* False when the client is to be dropped. */
static bool take_input(struct client *client)
{
	size_t max = client->trusted ? REQUEST_MAX : REQUEST_MAX_OTHERS;
	char *in = realloc(client->in, client->n_in + READ_SIZE);
	ssize_t n;

	if (!in || client->n_in > max)
		return false;
	client->in = in;
	n = read(client->fd, in + client->n_in, READ_SIZE);
	if (n <= 0)
		return n < 0 && errno == EAGAIN;
	client->n_in += (size_t)n;
	return true;
}

/* True when a whole request is there; it ends before *ret_end. */
static bool find_request(struct client *client, const char **ret_end)
{
	size_t from = client->n_searched;

	*ret_end =
		client->n_in > from ? memchr(client->in + from, '\n', client->n_in - from) : NULL;
	client->n_searched = *ret_end ? from : client->n_in;
	return *ret_end != NULL;
}

static void serve_next(struct client *client)
{
	const char *end;
	size_t len;

	if (!find_request(client, &end))
		return;
	len = (size_t)(end - client->in);
	serve(client, client->in, len);
	client->n_in -= len + 1;
	client->n_searched = 0;
	memmove(client->in, client->in + len + 1, client->n_in);
}

static bool give_output(struct client *client)
{
	ssize_t n = send(client->fd, client->out + client->n_sent, client->n_out - client->n_sent,
			 MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN;
	client->n_sent += (size_t)n;
	if (client->n_sent == client->n_out) {
		free(client->out);
		client->out = NULL;
		client->n_out = client->n_sent = 0;
	}
	return true;
}

static int on_client(sd_event_source *source, int fd, uint32_t mask, void *arg)
{
	struct client *client = arg;
	const char *end;
	bool keep = true;

	(void)fd;
	if (mask & EPOLLIN)
		keep = take_input(client);
	else if (mask & (EPOLLHUP | EPOLLERR))
		keep = false;
	if (keep && !client->n_out)
		serve_next(client);
	if (keep && client->n_out)
		keep = give_output(client);
	if (!keep)
		drop_client(client);
	else
		sd_event_source_set_io_events(
			source, client->n_out || find_request(client, &end) ? EPOLLOUT : EPOLLIN);
	return 0;
}

static bool trusted_peer(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return false;
	return peer.uid == 0 || peer.uid == geteuid();
}

static bool is_welcome(const struct client *client)
{
	return client->trusted || client->control->n_clients < CLIENTS_MAX;
}

static int on_connection(sd_event_source *source, int fd, uint32_t mask, void *arg)
{
	struct ps_control *control = arg;
	struct client *client = calloc(1, sizeof(*client));

	(void)source, (void)mask;
	if (!client)
		return 0;
	client->control = control;
	client->fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	client->trusted = client->fd >= 0 && trusted_peer(client->fd);
	if (client->fd < 0 || !is_welcome(client) ||
	    sd_event_add_io(control->agent->loop, &client->source, client->fd, EPOLLIN, on_client,
			    client) < 0) {
		ps_fd_drop(&client->fd);
		free(client);
		return 0;
	}
	control->n_clients++;
	client->next = control->clients;
	control->clients = client;
	return 0;
}

static int listen_at(const char *path)
{
	ps_auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un here = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(here.sun_path))
		return -ENAMETOOLONG;
	strcpy(here.sun_path, path);
	(void)unlink(path); /* the lock says that no other agent lives */
	if (fd < 0 || bind(fd, (const struct sockaddr *)&here, sizeof(here)) < 0 ||
	    chmod(path, 0666) < 0 || listen(fd, SOMAXCONN) < 0)
		return -errno;
	return ps_fd_move(&fd);
}

int ps_control_open(struct ps_agent *agent, struct ps_control **ret)
{
	ps_auto(ps_control_close) struct ps_control *control = calloc(1, sizeof(*control));
	ps_auto_fd int fd = -1;
	int r;

	if (!control)
		return -ENOMEM;
	control->agent = agent;
	if (asprintf(&control->path, "%s/control.sock", agent->run_dir) < 0) {
		control->path = NULL;
		return -ENOMEM;
	}
	fd = listen_at(control->path);
	if (fd < 0)
		return fd;
	r = sd_event_add_io(agent->loop, &control->source, fd, EPOLLIN, on_connection, control);
	if (r < 0)
		return r;
	sd_event_source_set_io_fd_own(control->source, true);
	(void)ps_fd_move(&fd);
	*ret = ps_move(control);
	return 0;
}

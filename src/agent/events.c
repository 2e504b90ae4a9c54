// SPDX-License-Identifier: MIT
#include "agent/events.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agent/log.h"
#include "base/own.h"
#include "egress/egress.h"

struct ps_events {
	json_t *recent; /* array, oldest first */
	ps_events_fn *subscriber;
	void *arg;
};

void ps_events_free(struct ps_events **events)
{
	if (!*events)
		return;
	json_decref((*events)->recent);
	free(*events);
	*events = NULL;
}

int ps_events_new(ps_events_fn *subscriber, void *arg, struct ps_events **ret)
{
	ps_auto(ps_events_free) struct ps_events *events = calloc(1, sizeof(*events));

	if (!events)
		return -ENOMEM;
	events->recent = json_array();
	if (!events->recent)
		return -ENOMEM;
	events->subscriber = subscriber;
	events->arg = arg;
	*ret = ps_move(events);
	return 0;
}

const json_t *ps_events_recent(const struct ps_events *events)
{
	return events->recent;
}

/* RFC 3339 in UTC, milliseconds. */
static void format_now(char *ret, size_t size)
{
	struct timespec now;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = strftime(ret, size, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(ret + n, size - n, ".%03ldZ", now.tv_nsec / 1000000);
}

static void publish(struct ps_events *events, json_t *event)
{
	if (json_array_size(events->recent) >= PS_EVENTS_KEPT)
		json_array_remove(events->recent, 0);
	events->subscriber(event, events->arg);
	json_array_append_new(events->recent, event);
}

void ps_events_add(struct ps_events *events, const char *kind, json_t *more, const char *format,
		   ...)
{
	char when[64], text[1024];
	json_t *event;
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	format_now(when, sizeof(when));
	event = json_pack("{s:s, s:s, s:s}", "time", when, "kind", kind, "text", text);
	if (event && more)
		json_object_update_missing(event, more);
	json_decref(more);
	if (!event)
		return;
	ps_log(LOG_WARNING, "%s", text);
	publish(events, event);
}

static const char *advice_for(enum ps_egress_reason reason)
{
	switch (reason) {
	case PS_EGRESS_EXHAUSTED:
		return "give this host another slice of the pool, or spread the load over more hosts";
	case PS_EGRESS_NO_SLICE:
		return "deal this host a slice of a pool that serves the class (portslice plan deal)";
	case PS_EGRESS_NO_MEMORY:
		return "close connections: the table of ports in use is full";
	case PS_EGRESS_REFUSED_PORT:
		return "let the program connect without binding, or bind an address and port of this host's slices";
	case PS_EGRESS_REFUSED_SHARED:
		return "publish the port as a service, or connect to the host's own address";
	case PS_EGRESS_REFUSED_BIND:
		return "run the program in a class (portslice run), and bind within this host's slices";
	case PS_EGRESS_REFUSED_UNCONNECTED:
		return "connect the socket before sending, or list the destination under `direct`";
	case PS_EGRESS_REFUSED_V6:
		return "use IPv4, or list the destination under `direct`";
	default:
		return "find the program that sends with a shared address by other means than its sockets";
	}
}

static const char *protocol_name(uint8_t protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return "tcp";
	case IPPROTO_UDP:
		return "udp";
	case IPPROTO_ICMP:
		return "icmp";
	default:
		return "other";
	}
}

static void format_endpoint(uint32_t ip4_be, uint16_t port_be, char *ret, size_t size)
{
	char text[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &ip4_be, text, sizeof(text));
	snprintf(ret, size, "%s:%u", text, ntohs(port_be));
}

/* A program chooses its own name: nothing but printable ASCII goes into logs and JSON. */
static void copy_name(const char comm[PS_COMM_LEN], char ret[PS_COMM_LEN + 1])
{
	for (size_t i = 0; i < PS_COMM_LEN && comm[i]; i++)
		ret[i] = comm[i] < ' ' || comm[i] > '~' ? '?' : comm[i];
}

static const char *pool_of(const struct ps_plan *plan, unsigned self, unsigned class)
{
	int pool = class < plan->n_classes ? ps_plan_class_pool(plan, class, self) : PS_PLAN_NONE;

	return pool == PS_PLAN_NONE ? "none" : plan->pools[pool].name;
}

void ps_events_add_egress(struct ps_events *events, const struct ps_plan *plan, unsigned self,
			  const struct ps_egress_event *record)
{
	const char *class =
		record->class < plan->n_classes ? plan->classes[record->class].name : "none";
	const char *pool = pool_of(plan, self, record->class);
	char source[32], destination[32], comm[PS_COMM_LEN + 1] = {0};
	const char *advice = advice_for(record->reason);
	json_t *more;

	copy_name(record->comm, comm);
	format_endpoint(record->src, record->sport, source, sizeof(source));
	format_endpoint(record->dst, record->dport, destination, sizeof(destination));
	more = json_pack("{s:s, s:s, s:i, s:I, s:s, s:s, s:s, s:s, s:s, s:i, s:s}", "host",
			 plan->hosts[self].name, "program", comm, "pid", (int)record->pid, "cgroup",
			 (json_int_t)record->cgroup, "class", class, "pool", pool, "source", source,
			 "destination", destination, "protocol", protocol_name(record->protocol),
			 "suppressed", (int)record->suppressed, "advice", advice);
	ps_events_add(events, ps_egress_reason_label(record->reason), more,
		      "%s (pid %u) %s to %s, class %s, pool %s: %s; %s", *comm ? comm : "kernel",
		      record->pid, protocol_name(record->protocol), destination, class, pool,
		      ps_egress_reason_text(record->reason), advice);
}

// SPDX-License-Identifier: MIT
#include "agent/events.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agent/compile.h"
#include "agent/log.h"
#include "base/own.h"
#include "egress/egress.h"

enum { ENDPOINT_TEXT_MAX = PS_IP_TEXT_MAX + 9 }; /* brackets, colon, port */

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
	case PS_EGRESS_REFUSED_RAW:
		return "run the program outside of every class, or let it use TCP, connected UDP or a connected ping socket";
	case PS_EGRESS_REFUSED_PING:
		return "connect the ping socket before sending, or list the destination under `direct`";
	case PS_EGRESS_REFUSED_V4:
		return "use IPv6, give the class's tags to a pool with IPv4 addresses, or list the destination under `direct`";
	case PS_EGRESS_GUARD_NEIGHBOUR:
		return "remove the shared address from interfaces and neighbour proxies: it needs a local route only";
	case PS_EGRESS_REFUSED_V6:
		return "use IPv4, give the class's tags to a pool with IPv6 addresses, or list the destination under `direct`";
	default:
		return "find the program that sends with a shared address by other means than its sockets";
	}
}

const char *ps_protocol_name(uint8_t protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return "tcp";
	case IPPROTO_UDP:
		return "udp";
	case IPPROTO_ICMP:
		return "icmp";
	case IPPROTO_ICMPV6:
		return "icmp6";
	default:
		return "other";
	}
}

/* "198.51.100.1:443", "[2001:db8::1]:443"; an address that is not known is of the record's family. */
static void format_endpoint(const union ps_ip16 *ip16, uint16_t port_be, bool v4,
			    char ret[ENDPOINT_TEXT_MAX])
{
	struct ps_ip ip = ps_ip_from_v4(0);
	char text[PS_IP_TEXT_MAX];

	if (!v4 || !ps_ip16_is_zero(ip16))
		memcpy(ip.bytes, ip16->bytes, sizeof(ip.bytes));
	snprintf(ret, ENDPOINT_TEXT_MAX, ps_ip_is_v4(&ip) ? "%s:%u" : "[%s]:%u",
		 ps_ip_format(&ip, text), ntohs(port_be));
}

/* A program chooses its own name: nothing but printable ASCII goes into logs and JSON. */
static void copy_name(const char comm[PS_COMM_LEN], char ret[PS_COMM_LEN + 1])
{
	for (size_t i = 0; i < PS_COMM_LEN && comm[i]; i++)
		ret[i] = comm[i] < ' ' || comm[i] > '~' ? '?' : comm[i];
}

/* The record's family: that of its source, or of its destination where there is none yet. */
static bool is_v4(const struct ps_egress_event *record)
{
	return ps_ip16_is_v4(&record->src) ||
	       (ps_ip16_is_zero(&record->src) && ps_ip16_is_v4(&record->dst));
}

static const char *pool_of(const struct ps_plan *plan, unsigned self, unsigned class, bool v4)
{
	int pool = class < plan->n_classes ? ps_compile_class_pool(plan, class, self, v4)
					   : PS_PLAN_NONE;

	return pool == PS_PLAN_NONE ? "none" : plan->pools[pool].name;
}

void ps_events_add_egress(struct ps_events *events, const struct ps_plan *plan, unsigned self,
			  const struct ps_egress_event *record)
{
	const char *class =
		record->class < plan->n_classes ? plan->classes[record->class].name : "none";
	const char *pool = pool_of(plan, self, record->class, is_v4(record));
	char source[ENDPOINT_TEXT_MAX], destination[ENDPOINT_TEXT_MAX], comm[PS_COMM_LEN + 1] = {0};
	const char *advice = advice_for(record->reason);
	json_t *more;

	copy_name(record->comm, comm);
	format_endpoint(&record->src, record->sport, is_v4(record), source);
	format_endpoint(&record->dst, record->dport, is_v4(record), destination);
	more = json_pack("{s:s, s:s, s:i, s:I, s:s, s:s, s:s, s:s, s:s, s:i, s:s}", "host",
			 plan->hosts[self].name, "program", comm, "pid", (int)record->pid, "cgroup",
			 (json_int_t)record->cgroup, "class", class, "pool", pool, "source", source,
			 "destination", destination, "protocol", ps_protocol_name(record->protocol),
			 "suppressed", (int)record->suppressed, "advice", advice);
	ps_events_add(events, ps_egress_reason_label(record->reason), more,
		      "%s (pid %u) %s to %s, class %s, pool %s: %s; %s", *comm ? comm : "kernel",
		      record->pid, ps_protocol_name(record->protocol), destination, class, pool,
		      ps_egress_reason_text(record->reason), advice);
}

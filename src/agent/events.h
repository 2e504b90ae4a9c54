/* SPDX-License-Identifier: MIT */
/*
 * What happened that a person should know, newest kept in memory, each one JSON object:
 * {"time", "kind", "text", ...}.  Subscribers get every new one.
 */
#ifndef PS_AGENT_EVENTS_H
#define PS_AGENT_EVENTS_H

#include <jansson.h>

#include "egress/abi.h"
#include "plan/plan.h"

struct ps_events;

enum { PS_EVENTS_KEPT = 256 };

typedef void ps_events_fn(const json_t *event, void *arg);

int ps_events_new(ps_events_fn *subscriber, void *arg, struct ps_events **ret);
void ps_events_free(struct ps_events **events);

/* Adds {"time": now, "kind": kind, "text": ...} and the fields of `more` (may be NULL; the
 * reference is taken over). */
void ps_events_add(struct ps_events *events, const char *kind, json_t *more, const char *format,
		   ...) __attribute__((format(printf, 4, 5)));
/* Adds a record of the hooks or the guard, with names from the plan. */
void ps_events_add_egress(struct ps_events *events, const struct ps_plan *plan, unsigned self,
			  const struct ps_egress_event *record);
/* "tcp", "icmp6", "other". */
const char *ps_protocol_name(uint8_t protocol);
/* Oldest first; a borrowed array. */
const json_t *ps_events_recent(const struct ps_events *events);

#endif

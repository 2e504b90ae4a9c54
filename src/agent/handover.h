/* SPDX-License-Identifier: MIT */
/*
 * Slices that change hands without a store that could order it: the old holder lets go first, the
 * new one takes after it, and everybody sends packets to the old one until then.
 */
#ifndef PS_AGENT_HANDOVER_H
#define PS_AGENT_HANDOVER_H

#include "agent/agent.h"

/* A slice that the plan gives away while its holder still runs the plan before. */
struct ps_hold {
	struct ps_ip address;
	struct ps_range ports;
	char *holder; /* host name */
};

void ps_holds_free(struct ps_hold *holds, size_t n);

/* Which slices of `fresh` must stay with their holders for now, seen from this host: those that
 * change hands against the plan in force, and those still held back there.  They are noted in
 * fresh->holds and given back to their holders in fresh->plan. */
int ps_handover_hold(struct ps_agent *agent, struct ps_active *fresh);
/* True when a slice held back may be taken by now. */
bool ps_handover_due(const struct ps_agent *agent);
/* Stops the hooks from using the slices that this host gives away, waits until no connect() is
 * under way, and looks again whether they are in use: then -EBUSY, and the hooks go on as before. */
int ps_handover_let_go(struct ps_agent *agent, const struct ps_active *fresh, char **ret_why);

#endif

/* SPDX-License-Identifier: MIT */
/* Keeps the dispatcher's ready-made Ethernet headers true to the kernel's routes and neighbours. */
#ifndef PS_AGENT_HOPS_H
#define PS_AGENT_HOPS_H

#include "agent/net.h"
#include "dispatch/dispatch.h"
#include "plan/plan.h"

/* Resolves every host of the own site, every other site's edge and the gateway of each family
 * (without a default route: the way to another site), and writes what is known into the dispatcher; what is not
 * resolved is written as such.  Returns how many are not, or a negative errno. */
int ps_hops_refresh(struct ps_net *net, const struct ps_plan *plan, unsigned self,
		    struct ps_dispatch *dispatch);

#endif

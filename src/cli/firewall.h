/* SPDX-License-Identifier: MIT */
#ifndef PS_CLI_FIREWALL_H
#define PS_CLI_FIREWALL_H

#include <jansson.h>

#include "plan/plan.h"

/* Rules of this network namespace that would rewrite the source of packets from the plan's shared
 * addresses: an array of {family, table, chain, handle, kind, covers, text, recipe}, `covers` the
 * shared prefixes and `recipe` the command that excludes them; or a string that says why nobody
 * looked.  Runs nft(8).  A new reference, NULL when memory is short. */
json_t *ps_cli_firewall_findings(const struct ps_plan *plan);
/* The same of what `nft -j list ruleset` says. */
json_t *ps_cli_firewall_judge(const struct ps_plan *plan, const json_t *ruleset);

#endif

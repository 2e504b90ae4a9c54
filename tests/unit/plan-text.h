/* SPDX-License-Identifier: MIT */
/* Plans for tests: from text, from files, and from a seed. */
#ifndef PS_TESTS_PLAN_TEXT_H
#define PS_TESTS_PLAN_TEXT_H

#include <stdio.h>
#include <string.h>

#include "base/own.h"
#include "cm.h"
#include "plan/plan.h"

#define PLAN_HEAD                                                      \
	"version: 1\n"                                                 \
	"sites:\n"                                                     \
	"  LHR: { edge: 10.1.255.1 }\n"                                \
	"  CDG: { edge: 10.2.255.1 }\n"                                \
	"hosts:\n"                                                     \
	"  lhr1: { site: LHR, underlay: 10.1.1.1, uplinks: [eth0] }\n" \
	"  lhr2: { site: LHR, underlay: 10.1.2.1, uplinks: [eth0] }\n" \
	"  cdg1: { site: CDG, underlay: 10.2.1.1, uplinks: [eth0] }\n"
#define PLAN_POOLS                                          \
	"pools:\n"                                          \
	"  gb:\n"                                           \
	"    tags: { country: GB, trust: trusted }\n"       \
	"    addresses:\n"                                  \
	"      - { prefix: 198.51.100.0/26, site: LHR }\n"  \
	"      - { prefix: 198.51.100.64/26, site: CDG }\n" \
	"  own: { slice: whole, addresses: [ { prefix: 203.0.113.0/30, site: LHR } ] }\n"
#define PLAN_TEXT PLAN_HEAD PLAN_POOLS /* 15 lines */

static inline void plan_print(const struct ps_diags *diags)
{
	for (size_t i = 0; i < diags->n; i++)
		print_message("%s:%u:%u: %s\n", diags->items[i].file, diags->items[i].line,
			      diags->items[i].column, diags->items[i].text);
}

static inline struct ps_plan *plan_from_with(const char *text,
					     int (*parse)(const char *, size_t, const char *,
							  struct ps_diags *, struct ps_plan **))
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	struct ps_plan *plan = NULL;
	int r = parse(text, strlen(text), "test.yaml", &diags, &plan);

	plan_print(&diags);
	assert_int_equal(r, 0);
	return plan;
}

static inline struct ps_plan *plan_from(const char *text)
{
	return plan_from_with(text, ps_plan_parse);
}

static inline struct ps_plan *plan_undealt(const char *text)
{
	return plan_from_with(text, ps_plan_parse_undealt);
}

static inline struct ps_ip plan_ip(const char *text)
{
	struct ps_ip ip;

	assert_int_equal(ps_ip_parse(text, &ip), 0);
	return ip;
}

static inline const char *plan_owner(const struct ps_plan *plan, const char *address, uint16_t port)
{
	struct ps_ip ip = plan_ip(address);
	const struct ps_grant *grant = ps_plan_who(plan, &ip, port);

	return grant ? plan->hosts[grant->host].name : "nobody";
}

#endif

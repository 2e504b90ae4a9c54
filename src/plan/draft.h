/* SPDX-License-Identifier: MIT */
/*
 * What a plan file says, before anybody asks whether it makes sense: every value with the place it
 * stands at.  Text is borrowed from the YAML document, which the draft owns.  plan-parse.c fills it,
 * plan-check.c turns it into a plan.  Private to this folder.
 */
#ifndef PS_PLAN_DRAFT_H
#define PS_PLAN_DRAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plan/plan.h"
#include "plan/yaml-walk.h"

struct draft_tag {
	struct ps_text_at key, value;
};

struct draft_site {
	struct ps_text_at name;
	struct ps_ip_at edge;
};

struct draft_host {
	struct ps_text_at name, site;
	struct ps_ip_at underlay;
	struct ps_list uplinks; /* struct ps_text_at */
	struct ps_text_at underlay_interface;
	struct ps_number_at mtu, ledger_mib;
};

struct draft_block {
	struct ps_text_at item; /* only its place is used */
	struct ps_prefix_at prefix, address;
	struct ps_text_at site;
};

struct draft_pool {
	struct ps_text_at name;
	struct ps_list tags; /* struct draft_tag */
	struct ps_number_at shift, unowned, echo;
	struct ps_list blocks; /* struct draft_block */
};

struct draft_match {
	struct ps_text_at cgroup;
	struct ps_number_at mark;
	struct ps_span_at uid;
	struct ps_prefix_at from, to;
};

struct draft_class {
	struct ps_text_at name;
	struct draft_match match;
	struct ps_list tags; /* struct draft_tag */
};

struct draft_service {
	struct ps_text_at name;
	struct ps_ip_at address;
	struct ps_number_at port, protocol;
	struct ps_text_at host;
};

/* One host's slices of one address: "3-4,7". */
struct draft_holding {
	struct ps_text_at host, slices;
};

struct draft_dealt {
	struct ps_text_at address;
	struct ps_list holdings; /* struct draft_holding */
};

struct draft_plan {
	struct ps_number_at version;
	struct ps_list sites, hosts, pools, classes, services;
	struct ps_list direct; /* struct ps_prefix_at */
	struct ps_list slices; /* struct draft_dealt */
};

/* Reads the shape of the document at w into ret: keys, types, ranges.  Findings go to w. */
void ps_draft_read(struct ps_walk *w, struct draft_plan *ret);
void ps_draft_clear(struct draft_plan *draft);

/* Asks what the draft means and builds the plan; w->findings tells whether it may be used.
 * undealt: a service may lie in a slice that nobody holds yet. */
void ps_draft_check(struct ps_walk *w, const struct draft_plan *draft, bool undealt,
		    struct ps_plan *plan);

#endif

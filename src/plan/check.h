/* SPDX-License-Identifier: MIT */
/* One check of one draft, in the steps of plan-check*.c.  Private to this folder. */
#ifndef PS_PLAN_CHECK_H
#define PS_PLAN_CHECK_H

#include <limits.h>

#include "base/own.h"
#include "plan/draft.h"
#include "plan/index.h"

/* An index that names nothing: the file's name for it was a finding already. */
enum { PS_NOWHERE = INT_MAX };

/* A block of the file with its place there. */
struct ps_span {
	struct ps_prefix prefix;
	struct ps_spot at;
	unsigned pool;
};

struct ps_check {
	struct ps_walk *w;
	const struct draft_plan *draft;
	struct ps_plan *plan;
	bool undealt;
	struct ps_span *spans;
	size_t n_spans;
};

/* Index of the element that text names, or PS_NOWHERE with a finding (none for an absent text). */
unsigned ps_check_name(struct ps_check *c, enum ps_kind kind, const struct ps_text_at *text);
/* A copy of text; NULL stays NULL. */
char *ps_check_copy(struct ps_check *c, const char *text);

void ps_check_index(struct ps_check *c, enum ps_kind kind);
/* That packets can be sent to and from the address, and by this version. */
void ps_check_unicast(struct ps_check *c, struct ps_spot at, const char *what,
		      const struct ps_ip *ip);
void ps_check_tags(struct ps_check *c, const struct ps_list *draft, struct ps_tags *ret);

void ps_check_sites(struct ps_check *c);
void ps_check_hosts(struct ps_check *c);
void ps_check_pools(struct ps_check *c);
void ps_check_overlaps(struct ps_check *c);
void ps_check_underlay(struct ps_check *c);
void ps_check_mtus(struct ps_check *c);
void ps_check_classes(struct ps_check *c);
void ps_check_direct(struct ps_check *c);
void ps_check_slices(struct ps_check *c);
void ps_check_services(struct ps_check *c);
/* That every host has, or can be dealt, a slice of every pool at its site. */
void ps_check_capacity(struct ps_check *c);

#endif

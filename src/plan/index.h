/* SPDX-License-Identifier: MIT */
/* Orders by which a plan is searched.  Private to this folder. */
#ifndef PS_PLAN_INDEX_H
#define PS_PLAN_INDEX_H

#include "plan/plan.h"

enum ps_kind { PS_KIND_SITE, PS_KIND_HOST, PS_KIND_POOL, PS_KIND_CLASS, PS_KIND_COUNT };

/* One block of one pool. */
struct ps_index_block {
	struct ps_prefix prefix;
	struct ps_place place;
};

struct ps_plan_index {
	unsigned *by_name[PS_KIND_COUNT]; /* element numbers */
	struct ps_index_block *blocks;    /* sorted by address */
	size_t n_blocks;
};

/* Both -ENOMEM; the index of the plan exists. */
int ps_index_names(struct ps_plan *plan, enum ps_kind kind);
int ps_index_blocks(struct ps_plan *plan);
size_t ps_index_count(const struct ps_plan *plan, enum ps_kind kind);
const char *ps_index_name(const struct ps_plan *plan, enum ps_kind kind, unsigned i);
int ps_index_find(const struct ps_plan *plan, enum ps_kind kind, const char *name);

/* qsort() orders: grants by address and slice, services by address, port and protocol. */
int ps_grant_order(const void *a, const void *b);
int ps_service_order(const void *a, const void *b);
/* The grant of (address, slice) among n sorted ones, or NULL. */
const struct ps_grant *ps_grant_find(const struct ps_grant *grants, size_t n,
				     const struct ps_ip *address, unsigned slice);

#endif

// SPDX-License-Identifier: MIT
#include "plan/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

size_t ps_index_count(const struct ps_plan *plan, enum ps_kind kind)
{
	switch (kind) {
	case PS_KIND_SITE:
		return plan->n_sites;
	case PS_KIND_HOST:
		return plan->n_hosts;
	case PS_KIND_POOL:
		return plan->n_pools;
	default:
		return plan->n_classes;
	}
}

const char *ps_index_name(const struct ps_plan *plan, enum ps_kind kind, unsigned i)
{
	switch (kind) {
	case PS_KIND_SITE:
		return plan->sites[i].name;
	case PS_KIND_HOST:
		return plan->hosts[i].name;
	case PS_KIND_POOL:
		return plan->pools[i].name;
	default:
		return plan->classes[i].name;
	}
}

/* What is being sorted, for name_order(). */
struct names {
	const struct ps_plan *plan;
	enum ps_kind kind;
};

static int name_order(const void *a, const void *b, void *context)
{
	const unsigned *x = a, *y = b;
	const struct names *names = context;
	int r = strcmp(ps_index_name(names->plan, names->kind, *x),
		       ps_index_name(names->plan, names->kind, *y));

	return r ? r : (*x > *y) - (*x < *y);
}

int ps_index_names(struct ps_plan *plan, enum ps_kind kind)
{
	size_t n = ps_index_count(plan, kind);
	unsigned *order = calloc(n ? n : 1, sizeof(*order));
	struct names names = {plan, kind};

	if (!order)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++)
		order[i] = i;
	qsort_r(order, n, sizeof(*order), name_order, &names);
	free(plan->index->by_name[kind]);
	plan->index->by_name[kind] = order;
	return 0;
}

int ps_index_find(const struct ps_plan *plan, enum ps_kind kind, const char *name)
{
	const unsigned *order = plan->index->by_name[kind];
	size_t low = 0, high = ps_index_count(plan, kind);

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int r = strcmp(ps_index_name(plan, kind, order[middle]), name);

		if (r == 0)
			return (int)order[middle];
		if (r < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return PS_PLAN_NONE;
}

static int block_order(const void *a, const void *b)
{
	const struct ps_index_block *x = a, *y = b;
	int r = ps_ip_cmp(&x->prefix.ip, &y->prefix.ip);

	return r ? r : x->prefix.bits - y->prefix.bits;
}

int ps_index_blocks(struct ps_plan *plan)
{
	struct ps_index_block *blocks;
	size_t n = 0;

	for (size_t i = 0; i < plan->n_pools; i++)
		n += plan->pools[i].n_blocks;
	blocks = calloc(n ? n : 1, sizeof(*blocks));
	if (!blocks)
		return -ENOMEM;
	n = 0;
	for (unsigned i = 0; i < plan->n_pools; i++) {
		const struct ps_pool *pool = &plan->pools[i];

		for (size_t k = 0; k < pool->n_blocks; k++)
			blocks[n++] = (struct ps_index_block){pool->blocks[k].prefix,
							      {i, pool->blocks[k].site}};
	}
	qsort(blocks, n, sizeof(*blocks), block_order);
	free(plan->index->blocks);
	plan->index->blocks = blocks;
	plan->index->n_blocks = n;
	return 0;
}

int ps_grant_order(const void *a, const void *b)
{
	const struct ps_grant *x = a, *y = b;
	int r = ps_ip_cmp(&x->address, &y->address);

	return r ? r : (x->slice > y->slice) - (x->slice < y->slice);
}

int ps_service_order(const void *a, const void *b)
{
	const struct ps_service *x = a, *y = b;
	int r = ps_ip_cmp(&x->address, &y->address);

	if (r)
		return r;
	return x->port != y->port ? x->port - y->port : x->protocol - y->protocol;
}

const struct ps_grant *ps_grant_find(const struct ps_grant *grants, size_t n,
				     const struct ps_ip *address, unsigned slice)
{
	const struct ps_grant key = {.address = *address, .slice = slice};

	return n ? bsearch(&key, grants, n, sizeof(key), ps_grant_order) : NULL;
}

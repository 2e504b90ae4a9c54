// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plan/check.h"

/* The block's prefix, however it is written; NULL with a finding if it has none or two. */
static const struct ps_prefix_at *block_prefix(struct ps_check *c, const struct draft_block *draft)
{
	bool prefix = draft->prefix.at.line, address = draft->address.at.line;

	if (prefix == address) {
		ps_walk_find(c->w, draft->item.at,
			     "a block of addresses needs either `prefix` or `address`");
		return NULL;
	}
	if (draft->prefix.set)
		return &draft->prefix;
	if (draft->address.set && draft->address.prefix.bits == 128)
		return &draft->address;
	if (draft->address.set)
		ps_walk_find(c->w, draft->address.at,
			     "`address` is one address: use `prefix` for a network");
	return NULL;
}

static void read_block(struct ps_check *c, const struct draft_block *draft, unsigned pool)
{
	const struct ps_prefix_at *prefix = block_prefix(c, draft);
	unsigned site = ps_check_name(c, PS_KIND_SITE, &draft->site);
	struct ps_pool *p = &c->plan->pools[pool];

	if (!prefix)
		return;
	ps_check_unicast(c, prefix->at, "shared addresses", &prefix->prefix.ip);
	p->blocks[p->n_blocks++] = (struct ps_block){prefix->prefix, site};
	c->spans[c->n_spans++] = (struct ps_span){prefix->prefix, prefix->at, pool};
}

static void read_pool(struct ps_check *c, const struct draft_pool *draft, unsigned pool)
{
	struct ps_pool *p = &c->plan->pools[pool];
	const struct draft_block *blocks = draft->blocks.items;

	p->shift = draft->shift.set ? (unsigned)draft->shift.value : PS_SHIFT_DEFAULT;
	p->unowned = draft->unowned.set ? (enum ps_unowned)draft->unowned.value : PS_UNOWNED_REJECT;
	p->echo = draft->echo.set ? (enum ps_echo)draft->echo.value : PS_ECHO_ANSWER;
	ps_check_tags(c, &draft->tags, &p->tags);
	p->blocks = ps_walk_alloc(c->w, draft->blocks.n, sizeof(*p->blocks));
	for (size_t i = 0; p->blocks && i < draft->blocks.n; i++)
		read_block(c, &blocks[i], pool);
	if (draft->blocks.at.line && draft->blocks.n == 0)
		ps_walk_find(c->w, draft->blocks.at,
			     "pool \"%s\" has no addresses: give it at least one",
			     ps_quote(p->name).text);
}

static size_t count_blocks(const struct draft_plan *draft)
{
	const struct draft_pool *pools = draft->pools.items;
	size_t n = 0;

	for (size_t i = 0; i < draft->pools.n; i++)
		n += pools[i].blocks.n;
	return n;
}

void ps_check_pools(struct ps_check *c)
{
	const struct draft_pool *draft = c->draft->pools.items;
	struct ps_plan *plan = c->plan;

	plan->pools = ps_walk_alloc(c->w, c->draft->pools.n, sizeof(*plan->pools));
	c->spans = ps_walk_alloc(c->w, count_blocks(c->draft), sizeof(*c->spans));
	for (unsigned i = 0; c->spans && i < c->draft->pools.n; i++) {
		plan->pools[i].name = ps_check_copy(c, draft[i].name.text);
		if (!plan->pools[i].name)
			return;
		plan->n_pools++;
		read_pool(c, &draft[i], i);
	}
	ps_check_index(c, PS_KIND_POOL);
	if (ps_index_blocks(plan) < 0)
		c->w->error = -ENOMEM;
}

static int by_prefix(const void *a, const void *b)
{
	const struct ps_span *x = a, *y = b;
	int r = ps_ip_cmp(&x->prefix.ip, &y->prefix.ip);

	if (r)
		return r;
	if (x->prefix.bits != y->prefix.bits)
		return x->prefix.bits - y->prefix.bits;
	return x->at.line != y->at.line
		       ? (x->at.line > y->at.line) - (x->at.line < y->at.line)
		       : (x->at.column > y->at.column) - (x->at.column < y->at.column);
}

static bool stands_before(const struct ps_span *a, const struct ps_span *b)
{
	return a->at.line != b->at.line ? a->at.line < b->at.line : a->at.column < b->at.column;
}

static void find_overlap(struct ps_check *c, const struct ps_span *a, const struct ps_span *b)
{
	const struct ps_span *first = stands_before(a, b) ? a : b;
	const struct ps_span *second = first == a ? b : a;
	char x[PS_PREFIX_TEXT_MAX], y[PS_PREFIX_TEXT_MAX];

	ps_walk_find(c->w, second->at,
		     "%s overlaps %s of pool \"%s\" on line %u: an address belongs to one pool",
		     ps_prefix_format(&second->prefix, x), ps_prefix_format(&first->prefix, y),
		     ps_quote(c->plan->pools[first->pool].name).text, first->at.line);
}

static void check_total(struct ps_check *c)
{
	uint64_t total = 0;

	for (size_t i = 0; i < c->n_spans; i++) {
		uint64_t size = ps_prefix_size(&c->spans[i].prefix);

		if (total <= PS_PLAN_ADDRESSES_MAX && size > PS_PLAN_ADDRESSES_MAX - total)
			ps_walk_find(c->w, c->spans[i].at,
				     "with this prefix the plan has more than %d addresses, the "
				     "most that are supported",
				     PS_PLAN_ADDRESSES_MAX);
		total = size > UINT64_MAX - total ? UINT64_MAX : total + size;
	}
}

/* Prefixes are disjoint or nested, so the widest so far is the only one a next can lie in. */
void ps_check_overlaps(struct ps_check *c)
{
	const struct ps_span *wide = c->spans;

	check_total(c);
	qsort(c->spans, c->n_spans, sizeof(*c->spans), by_prefix);
	for (size_t i = 1; i < c->n_spans; i++) {
		if (ps_prefix_overlaps(&wide->prefix, &c->spans[i].prefix))
			find_overlap(c, wide, &c->spans[i]);
		else
			wide = &c->spans[i];
	}
}

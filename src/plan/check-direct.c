// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "plan/check.h"

static int by_network(const void *a, const void *b)
{
	const struct ps_prefix_at *const *x = a, *const *y = b;
	int r = ps_ip_cmp(&(*x)->prefix.ip, &(*y)->prefix.ip);

	if (r)
		return r;
	r = (*x)->prefix.bits - (*y)->prefix.bits;
	return r ? r : (*x > *y) - (*x < *y);
}

/* The block around an address, NULL: none.  Spans are sorted, and disjoint unless that was found. */
static const struct ps_span *span_around(const struct ps_check *c, const struct ps_ip *ip)
{
	size_t first = 0, end = c->n_spans;

	while (first < end) {
		size_t middle = first + (end - first) / 2;

		if (ps_ip_cmp(&c->spans[middle].prefix.ip, ip) <= 0)
			first = middle + 1;
		else
			end = middle;
	}
	return first && ps_prefix_contains(&c->spans[first - 1].prefix, ip) ? &c->spans[first - 1]
									    : NULL;
}

/* A direct network among shared addresses would hide them from the guard.  One around them is well:
 * the longer prefix decides. */
static void check_not_shared(struct ps_check *c, const struct ps_prefix_at *direct)
{
	const struct ps_span *span = span_around(c, &direct->prefix.ip);
	char text[PS_PREFIX_TEXT_MAX], shared[PS_PREFIX_TEXT_MAX];

	if (!span || direct->prefix.bits < span->prefix.bits)
		return;
	ps_walk_find(c->w, direct->at,
		     "direct network %s lies within the shared addresses %s of pool \"%s\" on line "
		     "%u: remove it, or give one that is not shared",
		     ps_prefix_format(&direct->prefix, text),
		     ps_prefix_format(&span->prefix, shared),
		     ps_quote(c->plan->pools[span->pool].name).text, span->at.line);
}

/* The network of so many bits that a prefix lies in. */
static struct ps_prefix network_of(struct ps_prefix prefix, unsigned bits)
{
	for (unsigned bit = bits; bit < prefix.bits; bit++)
		prefix.ip.bytes[bit / 8] &= (uint8_t)~(0x80 >> bit % 8);
	prefix.bits = (uint8_t)bits;
	return prefix;
}

/* The direct network around a prefix, NULL: none.  sorted by_network(). */
static const struct ps_prefix_at *direct_around(const struct ps_prefix_at **sorted, size_t n,
						const struct ps_prefix *prefix)
{
	unsigned least = ps_ip_is_v4(&prefix->ip) && prefix->bits >= 96 ? 96 : 0;

	for (unsigned bits = prefix->bits + 1u; bits-- > least;) {
		struct ps_prefix wanted = network_of(*prefix, bits);

		for (size_t low = 0, high = n; low < high;) {
			size_t middle = low + (high - low) / 2;
			const struct ps_prefix *at = &sorted[middle]->prefix;
			int r = ps_ip_cmp(&at->ip, &wanted.ip);

			r = r ? r : at->bits - wanted.bits;
			if (r == 0)
				return sorted[middle];
			low = r < 0 ? middle + 1 : low;
			high = r < 0 ? high : middle;
		}
	}
	return NULL;
}

/* That a connection to what a class's `to` names may leave with a shared address at all. */
static void check_target(struct ps_check *c, const struct ps_prefix_at *to,
			 const struct ps_prefix_at **sorted, size_t n)
{
	const struct ps_span *span = span_around(c, &to->prefix.ip);
	const struct ps_prefix_at *direct = direct_around(sorted, n, &to->prefix);
	char text[PS_PREFIX_TEXT_MAX];

	ps_prefix_format(&to->prefix, text);
	if (span && to->prefix.bits >= span->prefix.bits)
		ps_walk_find(c->w, to->at,
			     "%s lies within the shared addresses on line %u, to which nothing "
			     "connects: name other destinations",
			     text, span->at.line);
	else if (direct)
		ps_walk_find(c->w, to->at,
			     "%s lies within the direct network on line %u, so no class serves it: "
			     "remove one of the two",
			     text, direct->at.line);
}

static void check_targets(struct ps_check *c, const struct ps_prefix_at **sorted, size_t n)
{
	const struct draft_class *classes = c->draft->classes.items;

	for (size_t i = 0; i < c->draft->classes.n; i++) {
		if (classes[i].match.to.set)
			check_target(c, &classes[i].match.to, sorted, n);
	}
}

void ps_check_direct(struct ps_check *c)
{
	const struct ps_prefix_at *draft = c->draft->direct.items;
	size_t n = c->draft->direct.n;
	ps_auto_mem const struct ps_prefix_at **sorted = ps_walk_alloc(c->w, n, sizeof(void *));
	struct ps_plan *plan = c->plan;

	plan->direct = ps_walk_alloc(c->w, n, sizeof(*plan->direct));
	for (size_t i = 0; plan->direct && i < n; i++) {
		if (!draft[i].set)
			continue;
		sorted[plan->n_direct] = &draft[i];
		plan->direct[plan->n_direct++] = draft[i].prefix;
	}
	if (c->w->error)
		return;
	qsort(sorted, plan->n_direct, sizeof(*sorted), by_network);
	for (size_t i = 0; i < plan->n_direct; i++)
		check_not_shared(c, sorted[i]);
	for (size_t i = 1; i < plan->n_direct; i++) {
		if (sorted[i]->prefix.bits == sorted[i - 1]->prefix.bits &&
		    ps_ip_cmp(&sorted[i]->prefix.ip, &sorted[i - 1]->prefix.ip) == 0)
			ps_walk_find(c->w, sorted[i]->at,
				     "this network is already on line %u: remove one",
				     sorted[i - 1]->at.line);
	}
	check_targets(c, sorted, plan->n_direct);
}

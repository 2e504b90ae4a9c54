// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plan/check.h"

void ps_check_tags(struct ps_check *c, const struct ps_list *draft, struct ps_tags *ret)
{
	const struct draft_tag *tags = draft->items;

	ret->items = ps_walk_alloc(c->w, draft->n, sizeof(*ret->items));
	for (size_t i = 0; ret->items && i < draft->n; i++) {
		struct ps_tag *tag = &ret->items[ret->n++];

		*tag = (struct ps_tag){ps_check_copy(c, tags[i].key.text),
				       ps_check_copy(c, tags[i].value.text)};
		if (!ps_name_valid(tags[i].key.text))
			ps_walk_find(c->w, tags[i].key.at,
				     "bad tag \"%s\": use 1 to %d characters of A-Z a-z 0-9 . _ -",
				     ps_quote(tags[i].key.text).text, PS_NAME_MAX);
		if (strlen(tags[i].value.text) > PS_NAME_MAX)
			ps_walk_find(c->w, tags[i].value.at,
				     "tag value \"%s\" is too long: at most %d bytes",
				     ps_quote(tags[i].value.text).text, PS_NAME_MAX);
		if (c->w->error)
			return;
	}
}

/* An absolute path below the root, each part with a name. */
static bool cgroup_valid(const char *path)
{
	size_t len;

	if (*path != '/')
		return false;
	for (const char *slash = path; *slash; slash += 1 + len) {
		len = strcspn(slash + 1, "/");
		if (len == 0 || (len <= 2 && strncmp(slash + 1, "..", len) == 0))
			return false;
	}
	return true;
}

static void check_cgroup(struct ps_check *c, const struct ps_text_at *cgroup)
{
	if (cgroup->text && !cgroup_valid(cgroup->text))
		ps_walk_find(c->w, cgroup->at,
			     "`cgroup` is \"%s\": it must be a path like /proxies/gb",
			     ps_quote(cgroup->text).text);
}

/* The first tag that no pool has, or NULL. */
static const struct ps_tag *lonely_tag(const struct ps_plan *plan, const struct ps_tags *tags)
{
	for (size_t i = 0; i < tags->n; i++) {
		struct ps_tags one = {&tags->items[i], 1};
		size_t k = 0;

		while (k < plan->n_pools && !ps_tags_cover(&plan->pools[k].tags, &one))
			k++;
		if (k == plan->n_pools)
			return &tags->items[i];
	}
	return NULL;
}

static void check_served(struct ps_check *c, const struct ps_class *class, struct ps_spot at)
{
	const struct ps_tag *tag;

	for (size_t i = 0; i < c->plan->n_pools; i++) {
		if (ps_tags_cover(&c->plan->pools[i].tags, &class->tags))
			return;
	}
	tag = lonely_tag(c->plan, &class->tags);
	if (tag)
		ps_walk_find(c->w, at, "class \"%s\" matches no pool: none has the tag %s: %s",
			     ps_quote(class->name).text, ps_quote(tag->key).text,
			     ps_quote(tag->value).text);
	else
		ps_walk_find(c->w, at, "class \"%s\" matches no pool: none has all of its tags",
			     ps_quote(class->name).text);
}

static void read_class(struct ps_check *c, const struct draft_class *draft, struct ps_class *class)
{
	class->cgroup = ps_check_copy(c, draft->match.cgroup.text);
	class->has_mark = draft->match.mark.set;
	class->mark = (uint32_t)draft->match.mark.value;
	check_cgroup(c, &draft->match.cgroup);
	ps_check_tags(c, &draft->tags, &class->tags);
	if (!c->w->error && c->draft->pools.at.line)
		check_served(c, class, draft->name.at);
}

static int match_order(const struct draft_class *x, const struct draft_class *y)
{
	const char *xc = x->match.cgroup.text, *yc = y->match.cgroup.text;
	int r = strcmp(xc ? xc : "", yc ? yc : "");

	if (r)
		return r;
	if (x->match.mark.set != y->match.mark.set)
		return x->match.mark.set - y->match.mark.set;
	return (x->match.mark.value > y->match.mark.value) -
	       (x->match.mark.value < y->match.mark.value);
}

static int by_match(const void *a, const void *b)
{
	const struct draft_class *const *x = a, *const *y = b;
	int r = match_order(*x, *y);

	return r ? r : (*x > *y) - (*x < *y);
}

static int by_name(const void *a, const void *b)
{
	const struct draft_class *const *x = a, *const *y = b;
	int r = strcmp((*x)->name.text ? (*x)->name.text : "",
		       (*y)->name.text ? (*y)->name.text : "");

	return r ? r : (*x > *y) - (*x < *y);
}

static void check_twins(struct ps_check *c, const struct draft_class **sorted, size_t n)
{
	qsort(sorted, n, sizeof(*sorted), by_match);
	for (size_t i = 1; i < n; i++) {
		const struct draft_match *match = &sorted[i]->match;

		if ((match->cgroup.text || match->mark.set) &&
		    match_order(sorted[i - 1], sorted[i]) == 0)
			ps_walk_find(c->w, sorted[i]->name.at,
				     "the same match as the class on line %u: change one, only the "
				     "first would ever serve",
				     sorted[i - 1]->name.at.line);
	}
	qsort(sorted, n, sizeof(*sorted), by_name);
	for (size_t i = 1; i < n; i++) {
		if (sorted[i]->name.text && sorted[i - 1]->name.text &&
		    strcmp(sorted[i]->name.text, sorted[i - 1]->name.text) == 0)
			ps_walk_find(c->w, sorted[i]->name.at,
				     "class \"%s\" is already on line %u: rename one",
				     ps_quote(sorted[i]->name.text).text,
				     sorted[i - 1]->name.at.line);
	}
}

void ps_check_classes(struct ps_check *c)
{
	const struct draft_class *draft = c->draft->classes.items;
	size_t n = c->draft->classes.n;
	ps_auto_mem const struct draft_class **sorted = ps_walk_alloc(c->w, n, sizeof(void *));
	struct ps_plan *plan = c->plan;

	plan->classes = ps_walk_alloc(c->w, n, sizeof(*plan->classes));
	for (size_t i = 0; plan->classes && i < n; i++) {
		const char *name = draft[i].name.text;

		sorted[i] = &draft[i];
		plan->classes[i].name = ps_check_copy(c, name ? name : "");
		if (!plan->classes[i].name)
			return;
		plan->n_classes++;
		read_class(c, &draft[i], &plan->classes[i]);
	}
	if (c->w->error)
		return;
	check_twins(c, sorted, n);
	ps_check_index(c, PS_KIND_CLASS);
}

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
}

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

/* An address that a pool of the class has and its `from` names. */
static bool has_source(const struct ps_plan *plan, const struct ps_class *class)
{
	for (size_t i = 0; i < plan->n_pools; i++) {
		const struct ps_pool *pool = &plan->pools[i];

		if (!ps_tags_cover(&pool->tags, &class->tags))
			continue;
		for (size_t k = 0; k < pool->n_blocks; k++) {
			if (ps_prefix_overlaps(&pool->blocks[k].prefix, &class->match.from))
				return true;
		}
	}
	return false;
}

static void check_from(struct ps_check *c, const struct ps_class *class, struct ps_spot at)
{
	char text[PS_PREFIX_TEXT_MAX];

	if (class->match.has_from && !has_source(c->plan, class))
		ps_walk_find(c->w, at,
			     "class \"%s\" takes the source %s, which no pool with its tags has: "
			     "name shared addresses of such a pool",
			     ps_quote(class->name).text,
			     ps_prefix_format(&class->match.from, text));
}

static void read_match(struct ps_check *c, const struct draft_match *draft, struct ps_match *match)
{
	*match = (struct ps_match){
		.cgroup = ps_check_copy(c, draft->cgroup.text),
		.has_mark = draft->mark.set,
		.mark = (uint32_t)draft->mark.value,
		.has_uid = draft->uid.set,
		.first_uid = draft->uid.set ? (uint32_t)draft->uid.first : 0,
		.last_uid = draft->uid.set ? (uint32_t)draft->uid.last : 0,
		.has_from = draft->from.set,
		.from = draft->from.prefix,
		.has_to = draft->to.set,
		.to = draft->to.prefix,
	};
	check_cgroup(c, &draft->cgroup);
}

static void read_class(struct ps_check *c, const struct draft_class *draft, struct ps_class *class)
{
	read_match(c, &draft->match, &class->match);
	ps_check_tags(c, &draft->tags, &class->tags);
	if (c->w->error || !c->draft->pools.at.line)
		return;
	check_served(c, class, draft->name.at);
	check_from(c, class, draft->match.from.at);
}

/* The first class before i that takes whatever i would, or i. */
static size_t shadow_of(const struct ps_plan *plan, size_t i)
{
	size_t k = 0;

	while (k < i && !(ps_match_any(&plan->classes[k].match) &&
			  ps_match_covers(&plan->classes[k].match, &plan->classes[i].match)))
		k++;
	return k;
}

static void check_shadows(struct ps_check *c, const struct draft_class *draft)
{
	const struct ps_class *classes = c->plan->classes;

	for (size_t i = 0; i < c->plan->n_classes; i++) {
		size_t k = ps_match_any(&classes[i].match) ? shadow_of(c->plan, i) : i;

		if (k == i)
			continue;
		if (ps_match_covers(&classes[i].match, &classes[k].match))
			ps_walk_find(c->w, draft[i].name.at,
				     "the same match as the class on line %u: change one, only the "
				     "first would ever serve",
				     draft[k].name.at.line);
		else
			ps_walk_find(c->w, draft[i].name.at,
				     "the class on line %u comes first and takes all that this one "
				     "matches: put this one before it",
				     draft[k].name.at.line);
	}
}

static int by_name(const void *a, const void *b)
{
	const struct draft_class *const *x = a, *const *y = b;
	int r = strcmp((*x)->name.text ? (*x)->name.text : "",
		       (*y)->name.text ? (*y)->name.text : "");

	return r ? r : (*x > *y) - (*x < *y);
}

static void check_names(struct ps_check *c, const struct draft_class **sorted, size_t n)
{
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
	check_names(c, sorted, n);
	if (n <= PS_PLAN_CLASSES_MAX) /* else that is what to correct first */
		check_shadows(c, draft);
	ps_check_index(c, PS_KIND_CLASS);
}

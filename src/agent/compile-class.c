// SPDX-License-Identifier: MIT
/* The classes' half of compile.h: cgroups by where they lie, and what each class asks for. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/compile.h"
#include "base/own.h"

static const char run_folder[] = "/" PS_COMPILE_CGROUPS;

int ps_compile_run_class(const struct ps_plan *plan, const char *cgroup)
{
	ps_auto_mem char *name = NULL;

	if (!ps_cgroup_contains(run_folder, cgroup) || strlen(cgroup) == strlen(run_folder))
		return PS_PLAN_NONE;
	cgroup += strlen(run_folder) + 1;
	name = strndup(cgroup, strcspn(cgroup, "/"));
	return name ? ps_plan_find_class(plan, name) : PS_PLAN_NONE;
}

/* Paths of the cgroups, one block, as long as they are sorted out. */
struct paths {
	char **items;
	size_t n;
};

static void paths_clear(struct paths *paths)
{
	for (size_t i = 0; i < paths->n; i++)
		free(paths->items[i]);
	free(paths->items);
}

/* The index of the cgroup; the same one may be named by several classes. */
static int add_cgroup(struct ps_compile_egress *egress, struct paths *paths, const char *path,
		      const struct ps_compile_cgroup *found)
{
	size_t i = 0;

	while (i < paths->n && strcmp(paths->items[i], path) != 0)
		i++;
	if (i < paths->n)
		return (int)i;
	paths->items[i] = strdup(path);
	if (!paths->items[i])
		return -ENOMEM;
	paths->n++;
	egress->cgroups[i] = (struct ps_egress_cgroup){.id = found->id,
						       .level = found->level,
						       .parent = PS_EGRESS_ANY,
						       .run = PS_EGRESS_ANY};
	return (int)i;
}

static int add_run(struct ps_compile_egress *egress, struct paths *paths, const char *name,
		   const struct ps_compile_cgroup *found, unsigned class)
{
	ps_auto_mem char *path = NULL;
	int i;

	if (asprintf(&path, "%s/%s", run_folder, name) < 0)
		return -ENOMEM;
	i = add_cgroup(egress, paths, path, found);
	if (i >= 0)
		egress->cgroups[i].run = (int)class;
	return i < 0 ? i : 0;
}

static int add_match(struct ps_compile_egress *egress, struct paths *paths,
		     const struct ps_match *match, const struct ps_compile_cgroup *found,
		     unsigned class)
{
	int cgroup =
		match->cgroup ? add_cgroup(egress, paths, match->cgroup, found) : PS_EGRESS_ANY;

	if (match->cgroup && cgroup < 0)
		return cgroup;
	egress->matches[egress->config.n_matches++] = (struct ps_egress_match){
		.class = class,
		.cgroup = cgroup,
		.has_mark = match->has_mark,
		.has_uid = match->has_uid,
		.has_from = match->has_from,
		.has_to = match->has_to,
		.mark = match->mark,
		.first_uid = match->first_uid,
		.last_uid = match->last_uid,
		.from = match->from,
		.to = match->to,
	};
	return 0;
}

/* The longest path around that of i. */
static int parent_of(const struct paths *paths, size_t i)
{
	size_t len = 0;
	int parent = PS_EGRESS_ANY;

	for (size_t k = 0; k < paths->n; k++) {
		if (k == i || !ps_cgroup_contains(paths->items[k], paths->items[i]) ||
		    strlen(paths->items[k]) <= len)
			continue;
		len = strlen(paths->items[k]);
		parent = (int)k;
	}
	return parent;
}

int ps_compile_matches(struct ps_compile_egress *egress, const struct ps_plan *plan,
		       const struct ps_compile_cgroup *own, const struct ps_compile_cgroup *named)
{
	ps_auto(paths_clear) struct paths paths = {
		calloc(2 * plan->n_classes + 1, sizeof(*paths.items)), 0};
	int r = paths.items ? 0 : -ENOMEM;

	for (unsigned i = 0; r == 0 && i < plan->n_classes; i++) {
		const struct ps_class *class = &plan->classes[i];

		r = add_run(egress, &paths, class->name, &own[i], i);
		if (r == 0 && ps_match_any(&class->match))
			r = add_match(egress, &paths, &class->match, &named[i], i);
	}
	for (size_t i = 0; i < paths.n; i++)
		egress->cgroups[i].parent = parent_of(&paths, i);
	egress->config.n_cgroups = paths.n;
	return r;
}

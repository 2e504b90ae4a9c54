// SPDX-License-Identifier: MIT
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>

#include "base/own.h"
#include "cli/cli.h"

/* What the caller wants of a class. */
struct wish {
	struct ps_tags tags;
	const char *name;
	bool has_mark;
	uint32_t mark;
};

static void clear_wish(struct wish *wish)
{
	free(wish->tags.items);
}

static int take_mark(const char *text, struct wish *wish)
{
	wish->has_mark = true;
	return ps_cli_parse_mark(text, &wish->mark);
}

static int parse_wish(int argc, char **argv, struct wish *wish)
{
	static const struct option longs[] = {{"tag", required_argument, NULL, 't'},
					      {"mark", required_argument, NULL, 'm'},
					      {"class", required_argument, NULL, 'c'},
					      {NULL, 0, NULL, 0}};
	int option, r = PS_EXIT_DONE;

	optind = 0;
	while (r == PS_EXIT_DONE &&
	       (option = getopt_long(argc, argv, "+t:m:c:", longs, NULL)) != -1) {
		if (option == 't')
			r = ps_cli_parse_tag(optarg, &wish->tags);
		else if (option == 'm')
			r = take_mark(optarg, wish);
		else if (option == 'c')
			wish->name = optarg;
		else
			r = PS_EXIT_USE;
	}
	if (r == PS_EXIT_DONE && optind >= argc)
		r = ps_cli_fail(PS_EXIT_USE, "expected a command after `--`");
	return r;
}

static bool suits(const struct ps_plan *plan, unsigned class, unsigned host,
		  const struct wish *wish)
{
	const struct ps_class *candidate = &plan->classes[class];
	int pool = ps_plan_class_pool(plan, class, host);

	if (wish->name && strcmp(candidate->name, wish->name) != 0)
		return false;
	if (wish->has_mark && (!candidate->match.has_mark || candidate->match.mark != wish->mark))
		return false;
	return pool != PS_PLAN_NONE && ps_tags_cover(&plan->pools[pool].tags, &wish->tags);
}

static int say_classes(const struct ps_plan *plan, unsigned host)
{
	ps_cli_fail(0, "no class of the plan suits; on this host there are:");
	for (unsigned i = 0; i < plan->n_classes; i++) {
		int pool = ps_plan_class_pool(plan, i, host);
		const struct ps_tags *tags = pool == PS_PLAN_NONE ? NULL : &plan->pools[pool].tags;

		fprintf(stderr, "  class %s", plan->classes[i].name);
		if (plan->classes[i].match.has_mark)
			fprintf(stderr, ", mark %u", plan->classes[i].match.mark);
		for (size_t j = 0; tags && j < tags->n; j++)
			fprintf(stderr, ", %s=%s", tags->items[j].key, tags->items[j].value);
		fputs(tags ? "\n" : ", no slice here\n", stderr);
	}
	return PS_EXIT_USE;
}

static int choose_class(const struct ps_cli *cli, const struct wish *wish, char **ret_name)
{
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	unsigned host = 0;
	int r = ps_cli_plan(cli, NULL, &plan);

	if (r == PS_EXIT_DONE)
		r = ps_cli_self(cli, plan, &host, NULL);
	if (r != PS_EXIT_DONE)
		return r;
	for (unsigned i = 0; i < plan->n_classes; i++) {
		if (!suits(plan, i, host, wish))
			continue;
		*ret_name = strdup(plan->classes[i].name);
		return *ret_name ? PS_EXIT_DONE : ps_cli_fail(PS_EXIT_REFUSED, "out of memory");
	}
	return say_classes(plan, host);
}

static int enter_cgroup(const char *folder)
{
	ps_auto_mem char *path = NULL;
	ps_auto_fd int fd = -1;

	if (asprintf(&path, "%s/cgroup.procs", folder) < 0)
		return ps_cli_fail(PS_EXIT_REFUSED, "out of memory");
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) < 0)
		return ps_cli_fail(PS_EXIT_REFUSED, "cannot enter cgroup %s: %s", folder,
				   strerror(errno));
	return PS_EXIT_DONE;
}

static int run_run(const struct ps_cli *cli, int argc, char **argv)
{
	ps_auto(clear_wish) struct wish wish = {0};
	ps_auto_mem char *class = NULL;
	json_t *folder = NULL;
	int r = parse_wish(argc, argv, &wish);

	if (r == PS_EXIT_DONE)
		r = choose_class(cli, &wish, &class);
	if (r == PS_EXIT_DONE)
		r = ps_cli_ask(cli, json_pack("{s:s, s:s}", "verb", "class", "name", class),
			       &folder);
	if (r == PS_EXIT_DONE)
		r = enter_cgroup(json_string_value(folder));
	json_decref(folder);
	if (r != PS_EXIT_DONE)
		return r;
	execvp(argv[optind], argv + optind);
	return ps_cli_fail(PS_EXIT_USE, "cannot run %s: %s", argv[optind], strerror(errno));
}

const struct ps_verb ps_verbs_run[] = {
	{NULL, "run", "[--tag K=V]... [--mark N] [--class NAME] -- COMMAND...",
	 "Run a program in the class that gives it these tags",
	 "The program and its children connect from this host's slices of the pool that\n"
	 "serves the class. Without a choice the first class of the plan is taken.\n",
	 run_run},
	{0},
};

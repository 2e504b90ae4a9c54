// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/own.h"
#include "cli/cli.h"

static int need(int argc, int n, const char *what)
{
	if (argc == n + 1)
		return PS_EXIT_DONE;
	return ps_cli_fail(PS_EXIT_USE, "expected %s", what);
}

static int run_check(const struct ps_cli *cli, int argc, char **argv)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	ps_auto_mem char *text = NULL;
	size_t len;
	int r = need(argc, 1, "one plan file");

	if (r == PS_EXIT_DONE)
		r = ps_cli_read_file(argv[1], &text, &len);
	if (r != PS_EXIT_DONE)
		return r;
	r = ps_plan_parse(text, len, argv[1], &diags, &plan);
	if (r < 0 || cli->json)
		ps_cli_print_findings(&diags, cli->json);
	if (r < 0)
		return PS_EXIT_USE;
	if (!cli->json)
		printf("%s: good: %zu sites, %zu hosts, %zu pools, %zu classes, %zu slices dealt\n",
		       argv[1], plan->n_sites, plan->n_hosts, plan->n_pools, plan->n_classes,
		       plan->n_grants);
	return PS_EXIT_DONE;
}

/* A new file in the old one's place, with its mode: whole or not at all. */
static int replace_file(const char *file, const char *text)
{
	ps_auto_mem char *fresh = NULL;
	struct stat old;
	FILE *out;
	int failed;

	if (asprintf(&fresh, "%s.new", file) < 0) {
		fresh = NULL;
		return -ENOMEM;
	}
	if (stat(file, &old) < 0)
		return -errno;
	out = fopen(fresh, "we");
	if (!out)
		return -errno;
	failed = fputs(text, out) < 0 || fflush(out) != 0 || fsync(fileno(out)) < 0 ||
		 fchmod(fileno(out), old.st_mode & 07777) < 0;
	failed |= fclose(out) != 0;
	if (failed || rename(fresh, file) < 0)
		return -errno;
	return 0;
}

static int deal(const char *file, const char *text, size_t len, char **ret, size_t *ret_n)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	int r;

	if (ps_plan_parse_undealt(text, len, file, &diags, &plan) < 0) {
		ps_cli_print_findings(&diags, false);
		return PS_EXIT_USE;
	}
	r = ps_plan_deal(plan, ret_n);
	if (r == 0)
		r = ps_plan_deal_text(text, len, plan, ret);
	if (r < 0)
		return ps_cli_fail(PS_EXIT_USE, "%s: cannot deal: %s", file, strerror(-r));
	return PS_EXIT_DONE;
}

static int run_deal(const struct ps_cli *cli, int argc, char **argv)
{
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	ps_auto_mem char *text = NULL;
	ps_auto_mem char *dealt = NULL;
	size_t len, n;
	int r = need(argc, 1, "one plan file (- for standard input)");

	if (r == PS_EXIT_DONE)
		r = ps_cli_read_file(argv[1], &text, &len);
	if (r == PS_EXIT_DONE)
		r = deal(argv[1], text, len, &dealt, &n);
	if (r == PS_EXIT_DONE)
		r = ps_cli_parse(dealt, strlen(dealt), argv[1], &plan);
	if (r != PS_EXIT_DONE)
		return r;
	if (strcmp(argv[1], "-") == 0)
		return fputs(dealt, stdout) < 0 ? PS_EXIT_REFUSED : PS_EXIT_DONE;
	r = replace_file(argv[1], dealt);
	if (r < 0)
		return ps_cli_fail(PS_EXIT_REFUSED, "cannot write %s: %s", argv[1], strerror(-r));
	if (cli->json)
		return ps_cli_print_json(json_pack("{s:I, s:I}", "dealt", (json_int_t)n, "slices",
						   (json_int_t)plan->n_grants));
	printf("%s: %zu slices dealt, %zu in all\n", argv[1], n, plan->n_grants);
	return PS_EXIT_DONE;
}

static json_t *grant_row(const struct ps_plan *plan, const struct ps_grant *grant)
{
	const struct ps_pool *pool = &plan->pools[grant->pool];
	const struct ps_host *host = &plan->hosts[grant->host];
	struct ps_range ports = ps_slice_range(grant->slice, pool->shift);
	char address[PS_IP_TEXT_MAX], range[32];

	snprintf(range, sizeof(range), "%u-%u", ports.first, ports.first + ports.count - 1);
	return json_pack("{s:s, s:i, s:s, s:s, s:s, s:s}", "address",
			 ps_ip_format(&grant->address, address), "slice", (int)grant->slice,
			 "ports", range, "host", host->name, "site", plan->sites[host->site].name,
			 "pool", pool->name);
}

static int run_show(const struct ps_cli *cli, int argc, char **argv)
{
	static const struct ps_column columns[] = {{"address", "ADDRESS"}, {"slice", "SLICE"},
						   {"ports", "PORTS"},     {"host", "HOST"},
						   {"site", "SITE"},       {"pool", "POOL"}};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	json_t *rows;
	int r;

	if (argc > 2)
		return ps_cli_fail(PS_EXIT_USE, "expected at most one plan file");
	r = ps_cli_plan(cli, argc > 1 ? argv[1] : NULL, &plan);
	if (r != PS_EXIT_DONE)
		return r;
	if (cli->json)
		return ps_cli_print_json(ps_plan_json(plan));
	rows = json_array();
	for (size_t i = 0; i < plan->n_grants; i++)
		json_array_append_new(rows, grant_row(plan, &plan->grants[i]));
	r = ps_cli_print_rows(cli, rows, columns, PS_N_ELEMENTS(columns));
	if (!plan->n_grants)
		fprintf(stderr, "no slice is dealt yet: run `portslice plan deal FILE`\n");
	return r;
}

/* The lines of a difference as a JSON array. */
static json_t *lines_json(char *text)
{
	json_t *list = json_array();

	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		json_array_append_new(list, json_string(line));
	return list;
}

static int run_diff(const struct ps_cli *cli, int argc, char **argv)
{
	ps_auto(ps_plan_free) struct ps_plan *old = NULL;
	ps_auto(ps_plan_free) struct ps_plan *new = NULL;
	ps_auto_mem char *text = NULL;
	int r;

	if (argc < 2 || argc > 3)
		return ps_cli_fail(PS_EXIT_USE, "expected [OLD] NEW");
	r = ps_cli_plan(cli, argc > 2 ? argv[1] : NULL, &old);
	if (r == PS_EXIT_DONE)
		r = ps_cli_plan(cli, argv[argc - 1], &new);
	if (r != PS_EXIT_DONE)
		return r;
	if (ps_plan_diff(old, new, &text) < 0)
		return ps_cli_fail(PS_EXIT_REFUSED, "out of memory");
	if (cli->json)
		return ps_cli_print_json(lines_json(text));
	fputs(text, stdout);
	return PS_EXIT_DONE;
}

const struct ps_verb ps_verbs_plan[] = {
	{"plan", "check", "FILE", "Say what is wrong in a plan, and where", NULL, run_check},
	{"plan", "deal", "FILE", "Write every host's slices into the plan",
	 "Each host gets at least one slice of each pool that has addresses at its site.\n"
	 "Slices that are held stay where they are; the rest stays free for new hosts.\n"
	 "Only the `slices:` section of the file changes. With - the plan is read from\n"
	 "standard input and written to standard output.\n",
	 run_deal},
	{"plan", "show", "[FILE]", "Show who owns which slice (of the plan in force, or of FILE)",
	 NULL, run_show},
	{"plan", "diff", "[OLD] NEW", "Show what NEW would change (against the plan in force)",
	 NULL, run_diff},
	{0},
};

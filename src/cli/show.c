// SPDX-License-Identifier: MIT
/* The plane as the daemon has it: one verb for each noun of the plan. */
#include <string.h>

#include "base/own.h"
#include "cli/cli.h"

/* "country=GB trust=trusted" */
static json_t *tags_text(const struct ps_tags *tags)
{
	ps_auto_mem char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return json_null();
	for (size_t i = 0; i < tags->n; i++)
		fprintf(out, "%s%s=%s", i ? " " : "", tags->items[i].key, tags->items[i].value);
	fclose(out);
	return json_string(text);
}

static json_t *ip_text(const struct ps_ip *ip)
{
	char text[PS_IP_TEXT_MAX];

	return json_string(ps_ip_format(ip, text));
}

static int plan_for(const struct ps_cli *cli, int argc, char **argv, struct ps_plan **ret)
{
	if (argc > 2)
		return ps_cli_fail(PS_EXIT_USE, "expected at most one plan file");
	return ps_cli_plan(cli, argc > 1 ? argv[1] : NULL, ret);
}

static int show_sites(const struct ps_cli *cli, int argc, char **argv)
{
	static const struct ps_column columns[] = {
		{"site", "SITE"}, {"edge", "EDGE"}, {"hosts", "HOSTS"}};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	json_t *rows = json_array();
	int r = plan_for(cli, argc, argv, &plan);

	for (size_t i = 0; r == PS_EXIT_DONE && i < plan->n_sites; i++) {
		int hosts = 0;

		for (size_t j = 0; j < plan->n_hosts; j++)
			hosts += plan->hosts[j].site == i;
		json_array_append_new(
			rows, json_pack("{s:s, s:o, s:i}", "site", plan->sites[i].name, "edge",
					plan->sites[i].has_edge ? ip_text(&plan->sites[i].edge)
								: json_null(),
					"hosts", hosts));
	}
	return r == PS_EXIT_DONE ? ps_cli_print_rows(cli, rows, columns, PS_N_ELEMENTS(columns))
				 : r;
}

/* What the daemon heard from the host: "agrees", "differs", "silent", "here". */
static const char *heard(const json_t *status, const char *host)
{
	size_t i;
	json_t *peer;

	if (!status)
		return NULL;
	json_array_foreach(
		json_object_get(status, "peers"), i,
		peer) if (strcmp(json_string_value(json_object_get(peer, "name")), host) ==
			  0) return json_string_value(json_object_get(peer, "plan"));
	return "here";
}

static int slices_of(const struct ps_plan *plan, size_t host)
{
	int n = 0;

	for (size_t i = 0; i < plan->n_grants; i++)
		n += plan->grants[i].host == host;
	return n;
}

static int show_hosts(const struct ps_cli *cli, int argc, char **argv)
{
	static const struct ps_column columns[] = {{"host", "HOST"},         {"site", "SITE"},
						   {"underlay", "UNDERLAY"}, {"mtu", "MTU"},
						   {"slices", "SLICES"},     {"plan", "PLAN"}};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	json_t *rows = json_array(), *status = NULL;
	int r = plan_for(cli, argc, argv, &plan);

	if (r == PS_EXIT_DONE && argc == 1)
		r = ps_cli_ask_status(cli, &status);
	for (size_t i = 0; r == PS_EXIT_DONE && i < plan->n_hosts; i++) {
		const struct ps_host *host = &plan->hosts[i];

		json_array_append_new(
			rows, json_pack("{s:s, s:s, s:o, s:i, s:i, s:s?}", "host", host->name,
					"site", plan->sites[host->site].name, "underlay",
					ip_text(&host->underlay), "mtu", (int)host->mtu, "slices",
					slices_of(plan, i), "plan", heard(status, host->name)));
	}
	json_decref(status);
	return r == PS_EXIT_DONE ? ps_cli_print_rows(cli, rows, columns, PS_N_ELEMENTS(columns))
				 : r;
}

static json_t *pool_row(const struct ps_plan *plan, size_t index)
{
	const struct ps_pool *pool = &plan->pools[index];
	uint64_t n_addresses = 0, n_slices;
	json_int_t dealt = 0;

	for (size_t i = 0; i < pool->n_blocks; i++)
		n_addresses += ps_prefix_size(&pool->blocks[i].prefix);
	for (size_t i = 0; i < plan->n_grants; i++)
		dealt += plan->grants[i].pool == index;
	n_slices = n_addresses * (ps_slice_count(pool->shift) - ps_slice_first(pool->shift));
	return json_pack("{s:s, s:o, s:o, s:s, s:s, s:I, s:I, s:I}", "pool", pool->name, "tags",
			 tags_text(&pool->tags), "slice",
			 pool->shift == PS_SHIFT_WHOLE ? json_string("whole")
						       : json_integer(1 << pool->shift),
			 "unowned", pool->unowned == PS_UNOWNED_DROP ? "drop" : "reject", "echo",
			 pool->echo == PS_ECHO_DROP ? "drop" : "answer", "addresses",
			 (json_int_t)n_addresses, "slices", (json_int_t)n_slices, "dealt", dealt);
}

static int show_pools(const struct ps_cli *cli, int argc, char **argv)
{
	static const struct ps_column columns[] = {{"pool", "POOL"},     {"tags", "TAGS"},
						   {"slice", "SLICE"},   {"unowned", "UNOWNED"},
						   {"echo", "ECHO"},     {"addresses", "ADDRESSES"},
						   {"slices", "SLICES"}, {"dealt", "DEALT"}};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	json_t *rows = json_array();
	int r = plan_for(cli, argc, argv, &plan);

	for (size_t i = 0; r == PS_EXIT_DONE && i < plan->n_pools; i++)
		json_array_append_new(rows, pool_row(plan, i));
	return r == PS_EXIT_DONE ? ps_cli_print_rows(cli, rows, columns, PS_N_ELEMENTS(columns))
				 : r;
}

static int show_classes(const struct ps_cli *cli, int argc, char **argv)
{
	static const struct ps_column columns[] = {
		{"class", "CLASS"}, {"cgroup", "CGROUP"}, {"mark", "MARK"}, {"uid", "UID"},
		{"from", "FROM"},   {"to", "TO"},         {"tags", "TAGS"}};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	json_t *rows = json_array();
	int r = plan_for(cli, argc, argv, &plan);

	for (size_t i = 0; r == PS_EXIT_DONE && i < plan->n_classes; i++) {
		const struct ps_class *class = &plan->classes[i];

		json_t *row = ps_match_json(&class->match);

		json_object_set_new(row, "class", json_string(class->name));
		json_object_set_new(row, "tags", tags_text(&class->tags));
		json_array_append_new(rows, row);
	}
	return r == PS_EXIT_DONE ? ps_cli_print_rows(cli, rows, columns, PS_N_ELEMENTS(columns))
				 : r;
}

static int show_addresses(const struct ps_cli *cli, int argc, char **argv)
{
	static const struct ps_column columns[] = {
		{"prefix", "PREFIX"}, {"site", "SITE"}, {"pool", "POOL"}, {"tags", "TAGS"}};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	json_t *rows = json_array();
	int r = plan_for(cli, argc, argv, &plan);

	for (size_t i = 0; r == PS_EXIT_DONE && i < plan->n_pools; i++) {
		for (size_t j = 0; j < plan->pools[i].n_blocks; j++) {
			const struct ps_block *block = &plan->pools[i].blocks[j];
			char prefix[PS_PREFIX_TEXT_MAX];

			json_array_append_new(rows,
					      json_pack("{s:s, s:s, s:s, s:o}", "prefix",
							ps_prefix_format(&block->prefix, prefix),
							"site", plan->sites[block->site].name,
							"pool", plan->pools[i].name, "tags",
							tags_text(&plan->pools[i].tags)));
		}
	}
	return r == PS_EXIT_DONE ? ps_cli_print_rows(cli, rows, columns, PS_N_ELEMENTS(columns))
				 : r;
}

/* This host's slices with what is in use; of all hosts: `plan show`. */
static int show_slices(const struct ps_cli *cli, int argc, char **argv)
{
	static const struct ps_column columns[] = {{"address", "ADDRESS"},
						   {"first_port", "FIRST PORT"},
						   {"ports", "PORTS"},
						   {"claims", "IN USE"}};
	json_t *rows = NULL;
	int r;

	(void)argv;
	if (argc > 1)
		return ps_cli_fail(PS_EXIT_USE, "expected no argument");
	r = ps_cli_ask(cli, json_pack("{s:s}", "verb", "usage"), &rows);
	return r == PS_EXIT_DONE ? ps_cli_print_rows(cli, rows, columns, PS_N_ELEMENTS(columns))
				 : r;
}

static json_t *without_zeros(json_t *rows)
{
	json_t *kept = json_array();
	size_t i;
	json_t *row;

	json_array_foreach(rows, i, row) if (json_integer_value(json_object_get(row, "packets")))
		json_array_append(kept, row);
	json_decref(rows);
	return kept;
}

static int show_counters(const struct ps_cli *cli, int argc, char **argv)
{
	static const struct ps_column columns[] = {{"part", "PART"},
						   {"reason", "REASON"},
						   {"packets", "COUNT"},
						   {"meaning", "MEANING"}};
	bool all = argc == 2 && strcmp(argv[1], "all") == 0;
	json_t *rows = NULL;
	int r;

	if (argc > 1 && !all)
		return ps_cli_fail(PS_EXIT_USE, "expected nothing, or `all` to see zeros too");
	r = ps_cli_ask(cli, json_pack("{s:s}", "verb", "counters"), &rows);
	if (r != PS_EXIT_DONE)
		return r;
	if (!all && !cli->json)
		rows = without_zeros(rows);
	return ps_cli_print_rows(cli, rows, columns, PS_N_ELEMENTS(columns));
}

static int show_plane(const struct ps_cli *cli, int argc, char **argv)
{
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	const char *force = getenv("PORTSLICE_COLOR");
	int r = plan_for(cli, argc, argv, &plan);

	if (r != PS_EXIT_DONE)
		return r;
	if (cli->json)
		return ps_cli_print_json(ps_plan_json(plan));
	ps_cli_draw_plane(plan, force ? *force == '1' : isatty(STDOUT_FILENO), stdout);
	return PS_EXIT_DONE;
}

static int show_uplinks(const struct ps_cli *cli, int argc, char **argv)
{
	static const struct ps_column columns[] = {
		{"name", "UPLINK"}, {"present", "PRESENT"}, {"xdp", "XDP"},  {"lro", "LRO"},
		{"kind", "KIND"},   {"master", "MASTER"},   {"note", "NOTE"}};
	json_t *status = NULL, *rows;
	int r;

	(void)argv;
	if (argc > 1)
		return ps_cli_fail(PS_EXIT_USE, "expected no argument");
	r = ps_cli_ask_status(cli, &status);
	if (r != PS_EXIT_DONE)
		return r;
	rows = json_incref(json_object_get(status, "uplinks"));
	json_decref(status);
	return ps_cli_print_rows(cli, rows, columns, PS_N_ELEMENTS(columns));
}

const struct ps_verb ps_verbs_show[] = {
	{"show", "sites", "[FILE]", "List the sites", NULL, show_sites},
	{"show", "hosts", "[FILE]", "List the hosts, and whether they run the same plan", NULL,
	 show_hosts},
	{"show", "pools", "[FILE]", "List the pools with their tags and free slices", NULL,
	 show_pools},
	{"show", "classes", "[FILE]", "List the classes of traffic", NULL, show_classes},
	{"show", "addresses", "[FILE]", "List the shared addresses and the site they are at", NULL,
	 show_addresses},
	{"show", "uplinks", "",
	 "List this host's uplinks, how the dispatcher runs there, and what is odd",
	 "XDP is `native` or `generic` (slower). LRO, and bonds of which an uplink is only a port,\n"
	 "spoil the dispatcher's view; NOTE says what to do.\n",
	 show_uplinks},
	{"show", "slices", "", "List this host's slices and how many ports are in use", NULL,
	 show_slices},
	{"show", "claims", "", "List every port in use: by whose address, towards whom",
	 "Read from the kernel, with or without a running daemon. STATE is `held`, or `quarantine`:\n"
	 "kept for a TIME_WAIT. PEER is empty where a socket holds the port towards everybody.\n",
	 ps_cli_show_claims},
	{"show", "counters", "[all]", "Count packets and calls by what was done, and why", NULL,
	 show_counters},
	{"show", "plane", "[FILE]", "Draw the port plane: addresses by slices, by owner",
	 "Colours are used on a terminal; PORTSLICE_COLOR=1 or 0 decides otherwise.\n", show_plane},
	{0},
};

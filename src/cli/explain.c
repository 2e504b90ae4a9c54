// SPDX-License-Identifier: MIT
/*
 * `portslice explain`: which class, pool, address and slices would serve a connection, and why.
 *
 * The program is looked up in /proc as the hooks would see it, the plan is the one in force, and the
 * questions are asked in the order in which the connect hook asks them: is the call seen at all, is
 * the destination a shared address, is it reached directly, which class is the first that matches,
 * has its pool slices here, and in which order are they tried.  What a program did before (a port it
 * bound, say) and how full the slices are is not known here; `portslice events` tells of real calls.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <string.h>

#include "agent/compile.h"
#include "base/own.h"
#include "cli/cli.h"
#include "egress/choose.h"
#include "egress/page.h"

struct question {
	unsigned pid;
	uint32_t mark;
	struct ps_ip from, to;
	uint16_t port;
	bool has_pid, has_from, has_to;
};

/* What is known, and the answer as it comes together. */
struct scene {
	const struct question *q;
	struct ps_plan *plan;
	unsigned host;
	struct ps_process process;
	struct ps_call call;
	int class, pool; /* PS_PLAN_NONE: none */
	json_t *tried, *slices;
	char why[256];
};

static void clear_scene(struct scene *scene)
{
	json_decref(scene->tried);
	json_decref(scene->slices);
	ps_cli_process_clear(&scene->process);
	ps_plan_free(&scene->plan);
}

static int parse_pid(const char *text, struct question *q)
{
	char *end;
	unsigned long pid = strtoul(text, &end, 10);

	if (*end || end == text || pid == 0 || pid > INT32_MAX)
		return ps_cli_fail(PS_EXIT_USE, "`%s` is not a process id", text);
	q->pid = (unsigned)pid;
	q->has_pid = true;
	return PS_EXIT_DONE;
}

static int parse_from(const char *text, struct question *q)
{
	if (ps_ip_parse(text, &q->from) < 0)
		return ps_cli_fail(PS_EXIT_USE, "`%s` is not an address like 198.51.100.1", text);
	q->has_from = true;
	return PS_EXIT_DONE;
}

static int parse_question(int argc, char **argv, struct question *q)
{
	static const struct option longs[] = {{"pid", required_argument, NULL, 'p'},
					      {"to", required_argument, NULL, 't'},
					      {"mark", required_argument, NULL, 'm'},
					      {"from", required_argument, NULL, 'f'},
					      {NULL, 0, NULL, 0}};
	int option, r = PS_EXIT_DONE;

	optind = 0;
	while (r == PS_EXIT_DONE && (option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (option == 'p')
			r = parse_pid(optarg, q);
		else if (option == 't')
			r = ps_cli_parse_endpoint(optarg, &q->to, &q->port);
		else if (option == 'm')
			r = ps_cli_parse_mark(optarg, &q->mark);
		else if (option == 'f')
			r = parse_from(optarg, q);
		else
			r = PS_EXIT_USE;
		q->has_to |= option == 't';
	}
	if (r == PS_EXIT_DONE && (optind < argc || !q->has_pid || !q->has_to))
		r = ps_cli_fail(PS_EXIT_USE, "expected --pid N and --to ADDRESS:PORT");
	return r;
}

/* Why a class is not taken. */
static const char *reason_of(enum ps_match_reason reason)
{
	static const char *const words[] = {
		[PS_MATCH_HOLDS] = "all that it asks for holds",
		[PS_MATCH_NOTHING] = "it matches on nothing: only `portslice run` leads to it",
		[PS_MATCH_CGROUP] = "the program is in another cgroup",
		[PS_MATCH_MARK] = "the socket has another mark",
		[PS_MATCH_UID] = "the program has another uid",
		[PS_MATCH_FROM] = "the socket asks for no such source",
		[PS_MATCH_TO] = "the destination is another",
	};

	return words[reason];
}

static void try_classes(struct scene *scene)
{
	const struct ps_plan *plan = scene->plan;
	int run = ps_compile_run_class(plan, scene->call.cgroup);

	if (run != PS_PLAN_NONE)
		json_array_append_new(scene->tried,
				      json_pack("{s:s, s:b, s:s}", "class", plan->classes[run].name,
						"match", true, "why",
						"`portslice run` started the program in it"));
	scene->class = run;
	for (size_t i = 0; i < plan->n_classes && scene->class == PS_PLAN_NONE; i++) {
		enum ps_match_reason reason = ps_match_judge(&plan->classes[i].match, &scene->call);

		json_array_append_new(scene->tried,
				      json_pack("{s:s, s:b, s:s}", "class", plan->classes[i].name,
						"match", reason == PS_MATCH_HOLDS, "why",
						reason_of(reason)));
		if (reason == PS_MATCH_HOLDS)
			scene->class = (int)i;
	}
}

/* The slices of a choice in the order of the walk, those of other addresses than one asked for left
 * out. */
static void list_slices(struct scene *scene, const struct ps_compile_egress *egress,
			const struct ps_choice *choice)
{
	__u32 row = ps_home_row(scene->q->mark, scene->process.cgroup_id, scene->process.uid);
	struct ps_home home =
		choice->homes ? egress->homes[choice->homes - 1].rows[row] : (struct ps_home){0};
	struct ps_claim_key flow = {.dst = ps_ip16(&scene->q->to),
				    .dport = htons(scene->q->port),
				    .protocol = IPPROTO_TCP};
	struct ps_walk walk = ps_walk_start(choice->n, home, ps_peer_hash(&flow));

	for (; !ps_walk_over(&walk); ps_walk_skip_slice(&walk)) {
		const struct ps_egress_slice *slice =
			&egress->slices[choice->first + ps_walk_slice(&walk)];
		char text[PS_IP_TEXT_MAX];

		if (scene->call.from && ps_ip_cmp(scene->call.from, &slice->address) != 0)
			continue;
		json_array_append_new(scene->slices,
				      json_pack("{s:s, s:i, s:i}", "address",
						ps_ip_format(&slice->address, text), "first_port",
						(int)slice->ports.first, "ports",
						(int)slice->ports.count));
	}
}

static int find_slices(struct scene *scene)
{
	const struct ps_plan *plan = scene->plan;
	ps_auto(ps_compile_egress_free) struct ps_compile_egress *egress = NULL;
	ps_auto_mem struct ps_compile_cgroup *none = calloc(plan->n_classes + 1, sizeof(*none));
	bool is_v4 = ps_ip_is_v4(&scene->q->to);
	const struct ps_choices *choices;

	if (!none || ps_compile_egress_new(plan, scene->host, none, none, &egress) < 0)
		return ps_cli_fail(PS_EXIT_REFUSED, "out of memory");
	choices = &egress->choices[scene->class];
	scene->pool = ps_compile_class_pool(plan, (unsigned)scene->class, scene->host, is_v4);
	list_slices(scene, egress, is_v4 ? &choices->v4 : &choices->v6);
	return PS_EXIT_DONE;
}

static bool is_direct(const struct scene *scene)
{
	const struct ps_plan *plan = scene->plan;
	struct ps_prefix prefix;

	for (size_t i = 0; i < PS_ALWAYS_DIRECT; i++) {
		if (ps_prefix_parse(ps_always_direct[i], &prefix) == 0 &&
		    ps_match_prefix(&prefix, &scene->q->to))
			return true;
	}
	for (size_t i = 0; i < plan->n_direct; i++) {
		if (ps_match_prefix(&plan->direct[i], &scene->q->to))
			return true;
	}
	for (size_t i = 0; i < plan->n_hosts; i++) {
		if (ps_ip_cmp(&plan->hosts[i].underlay, &scene->q->to) == 0)
			return true;
	}
	for (size_t i = 0; i < plan->n_sites; i++) {
		if (plan->sites[i].has_edge && ps_ip_cmp(&plan->sites[i].edge, &scene->q->to) == 0)
			return true;
	}
	return false;
}

static bool is_own_service(const struct scene *scene)
{
	static const uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP};

	for (size_t i = 0; i < PS_N_ELEMENTS(protocols); i++) {
		const struct ps_service *service =
			ps_plan_service(scene->plan, &scene->q->to, scene->q->port, protocols[i]);

		if (service && service->host == scene->host)
			return true;
	}
	return false;
}

static const char *conclude(struct scene *scene, const char *verdict, const char *why)
{
	snprintf(scene->why, sizeof(scene->why), "%s", why);
	return verdict;
}

/* Whether anybody asks for the class at all; NULL: yes. */
static const char *judge_place(struct scene *scene)
{
	struct ps_place place;
	bool from_shared =
		scene->call.from && ps_plan_locate(scene->plan, scene->call.from, &place) == 0;

	if (!scene->process.cgroup)
		return conclude(scene, "unseen", "its cgroup is not below the hooks' root");
	if (scene->process.is_elsewhere)
		return conclude(scene, "unseen", "it is in another network namespace");
	if (ps_plan_locate(scene->plan, &scene->q->to, &place) == 0)
		return is_own_service(scene)
			       ? conclude(scene, "direct", "a service of this host is there")
			       : conclude(scene, "refused",
					  "the destination is a shared address: ECONNREFUSED");
	if (is_direct(scene) && !from_shared)
		return conclude(scene, "direct",
				"the destination is reached with the host's own address");
	return NULL;
}

static const char *judge_class(struct scene *scene)
{
	const char *family = ps_ip_is_v4(&scene->q->to) ? "IPv4" : "IPv6";

	if (scene->class == PS_PLAN_NONE && scene->call.from)
		return conclude(
			scene, "outside",
			"no class matches: it keeps its source, unless that is shared: EACCES");
	if (scene->class == PS_PLAN_NONE)
		return conclude(scene, "outside", "no class matches: the host's own address");
	if (scene->pool == PS_PLAN_NONE) {
		snprintf(scene->why, sizeof(scene->why),
			 "no pool with the class's tags has a slice of %s on this host: %s", family,
			 ps_plan_class_pool(scene->plan, (unsigned)scene->class, scene->host) ==
					 PS_PLAN_NONE
				 ? "EADDRNOTAVAIL"
				 : "ENETUNREACH");
		return "refused";
	}
	if (json_array_size(scene->slices) == 0)
		return conclude(scene, "refused",
				"the class has no slice of the source asked for: EADDRNOTAVAIL");
	return conclude(scene, "served", "");
}

static json_t *scene_json(const struct scene *scene, const char *verdict)
{
	const struct ps_plan *plan = scene->plan;
	char to[PS_IP_HOST_MAX], from[PS_IP_TEXT_MAX];
	const json_t *first = json_array_get(scene->slices, 0);
	json_t *value = json_pack(
		"{s:s, s:i, s:I, s:s, s:I, s:o, s:o, s:s, s:s, s:s?, s:s?, s:s?, s:O, s:O}",
		"program", scene->process.name, "pid", (int)scene->process.pid, "uid",
		(json_int_t)scene->process.uid, "cgroup", scene->process.folder, "mark",
		(json_int_t)scene->q->mark, "from",
		scene->call.from ? json_string(ps_ip_format(scene->call.from, from)) : json_null(),
		"to", json_sprintf("%s:%u", ps_ip_format_host(&scene->q->to, to), scene->q->port),
		"verdict", verdict, "why", scene->why, "class",
		scene->class == PS_PLAN_NONE ? NULL : plan->classes[scene->class].name, "pool",
		scene->pool == PS_PLAN_NONE ? NULL : plan->pools[scene->pool].name, "address",
		json_string_value(json_object_get(first, "address")), "slices", scene->slices,
		"tried", scene->tried);

	return value;
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "none";
}

static void print_words(const json_t *said, const char *verdict)
{
	const json_t *tried = json_object_get(said, "tried");
	const json_t *slices = json_object_get(said, "slices");
	size_t i;
	json_t *row;

	printf("%s (pid %lld, uid %lld) in %s, mark %lld, from %s, to %s\n",
	       text_of(said, "program"), json_integer_value(json_object_get(said, "pid")),
	       json_integer_value(json_object_get(said, "uid")), text_of(said, "cgroup"),
	       json_integer_value(json_object_get(said, "mark")), text_of(said, "from"),
	       text_of(said, "to"));
	json_array_foreach(tried, i, row) printf(
		"class %s: %s, %s\n", text_of(row, "class"),
		json_is_true(json_object_get(row, "match")) ? "yes" : "no", text_of(row, "why"));
	if (strcmp(verdict, "served") != 0) {
		printf("%s: %s\n", verdict, text_of(said, "why"));
		return;
	}
	printf("served: class %s, pool %s, address %s; slices in the order they are tried:\n",
	       text_of(said, "class"), text_of(said, "pool"), text_of(said, "address"));
	json_array_foreach(slices, i, row)
	{
		long long first = json_integer_value(json_object_get(row, "first_port"));

		printf("  %s ports %lld-%lld\n", text_of(row, "address"), first,
		       first + json_integer_value(json_object_get(row, "ports")) - 1);
	}
}

static int answer(const struct ps_cli *cli, const struct scene *scene, const char *verdict)
{
	json_t *said = scene_json(scene, verdict);

	if (!said)
		return ps_cli_fail(PS_EXIT_REFUSED, "out of memory");
	if (cli->json) {
		ps_cli_print_json(said);
	} else {
		print_words(said, verdict);
		json_decref(said);
	}
	return strcmp(verdict, "refused") == 0 ? PS_EXIT_FINDINGS : PS_EXIT_DONE;
}

static int look(const struct ps_cli *cli, struct scene *scene)
{
	ps_auto_mem char *root = NULL;
	int r = ps_cli_plan(cli, NULL, &scene->plan);

	if (r == PS_EXIT_DONE)
		r = ps_cli_self(cli, scene->plan, &scene->host, &root);
	if (r == PS_EXIT_DONE)
		r = ps_cli_process(scene->q->pid, root, &scene->process);
	scene->call = (struct ps_call){
		.cgroup = scene->process.cgroup,
		.mark = scene->q->mark,
		.uid = scene->process.uid,
		.from = scene->q->has_from ? &scene->q->from : NULL,
		.to = &scene->q->to,
	};
	return r;
}

static int run_explain(const struct ps_cli *cli, int argc, char **argv)
{
	struct question q = {0};
	ps_auto(clear_scene) struct scene scene = {.q = &q,
						   .class = PS_PLAN_NONE,
						   .pool = PS_PLAN_NONE,
						   .tried = json_array(),
						   .slices = json_array()};
	const char *verdict;
	int r = parse_question(argc, argv, &q);

	if (r == PS_EXIT_DONE)
		r = look(cli, &scene);
	if (r != PS_EXIT_DONE)
		return r;
	verdict = judge_place(&scene);
	if (!verdict) {
		try_classes(&scene);
		if (scene.class != PS_PLAN_NONE)
			r = find_slices(&scene);
		if (r != PS_EXIT_DONE)
			return r;
		verdict = judge_class(&scene);
	}
	return answer(cli, &scene, verdict);
}

const struct ps_verb ps_verbs_explain[] = {
	{NULL, "explain", "--pid N --to ADDRESS:PORT [--mark M] [--from ADDRESS]",
	 "Say which class, pool, address and slices would serve a connection, and why",
	 "--from is the source that the program binds or asks for, --mark its socket's mark.\n"
	 "Ends with 3 when the connection would be refused.\n",
	 run_explain},
	{0},
};

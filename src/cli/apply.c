// SPDX-License-Identifier: MIT
/*
 * Applying a plan: check the file, show the difference to the store's plan, ask every agent of this
 * machine that follows the store whether it would refuse, write with compare-and-swap, and wait
 * until those agents say that the plan is in force.  Nothing is written when anything before fails.
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/own.h"
#include "cli/cli.h"

enum { WAIT_S = 15, WAIT_STEP_MS = 50, HISTORY_MAX = 1000 };

static const char plan_key[] = "plan";

/* Every agent here that follows the store. */
struct followers {
	char **instances;
	size_t n;
};

static void clear_followers(struct followers *followers)
{
	for (size_t i = 0; i < followers->n; i++)
		free(followers->instances[i]);
	free(followers->instances);
}

static json_t *ask_instance(const char *instance, json_t *request)
{
	ps_auto_mem char *path = ps_cli_socket_path(instance);
	ps_auto_fd int fd = path ? ps_cli_connect(path) : -ENOMEM;

	if (fd < 0) {
		json_decref(request);
		return NULL;
	}
	return ps_cli_exchange(fd, request);
}

static json_t *status_of(const char *instance)
{
	return ask_instance(instance, json_pack("{s:s}", "verb", "status"));
}

struct home {
	const char *url;
	uint64_t incarnation;
};

/* By the store's own number, since one file may be named in many ways; by its name while the agent
 * cannot read it. */
static bool follows(const char *instance, const struct home *home)
{
	json_t *reply = status_of(instance);
	const json_t *status = json_object_get(reply, "ok");
	const json_t *of = json_object_get(status, "store_incarnation");
	const char *url = json_string_value(json_object_get(status, "store"));
	const char *state = json_string_value(json_object_get(status, "state"));
	bool same = of ? (uint64_t)json_integer_value(of) == home->incarnation
		       : url && strcmp(url, home->url) == 0;
	bool yes = same && strcmp(state, "detached") != 0;

	json_decref(reply);
	return yes;
}

static int find_followers(const struct home *home, struct followers *ret)
{
	DIR *folder = opendir("/run/portslice");
	struct dirent *entry;

	while (folder && (entry = readdir(folder))) {
		char **grown;

		if (entry->d_name[0] == '.' || !follows(entry->d_name, home))
			continue;
		grown = reallocarray(ret->instances, ret->n + 1, sizeof(*grown));
		if (!grown)
			break;
		ret->instances = grown;
		grown[ret->n] = strdup(entry->d_name);
		if (grown[ret->n])
			ret->n++;
	}
	if (folder)
		closedir(folder);
	return PS_EXIT_DONE;
}

static int judge(const struct followers *followers, const char *text)
{
	int code = PS_EXIT_DONE;

	for (size_t i = 0; i < followers->n; i++) {
		json_t *reply =
			ask_instance(followers->instances[i],
				     json_pack("{s:s, s:s}", "verb", "judge", "text", text));
		const char *why = json_string_value(json_object_get(reply, "error"));

		if (why)
			code = ps_cli_fail(PS_EXIT_REFUSED, "%s refuses: %s",
					   followers->instances[i], why);
		json_decref(reply);
	}
	return code;
}

/* A state of one store; revisions of a store made anew begin again. */
struct written {
	uint64_t incarnation, revision;
};

/* 1: in force, 0: not yet, -1: refused, which is said. */
static int settled(const char *instance, const struct written *written)
{
	json_t *reply = status_of(instance);
	const json_t *status = json_object_get(reply, "ok");
	const char *refusal = json_string_value(json_object_get(status, "refusal"));
	json_int_t at = json_integer_value(json_object_get(status, "revision"));
	json_int_t of = json_integer_value(json_object_get(status, "incarnation"));
	json_int_t refused = json_integer_value(json_object_get(status, "refused_revision"));
	size_t n_waiting = json_array_size(json_object_get(status, "waiting"));
	bool ours = (uint64_t)of == written->incarnation;
	int r = ours && (uint64_t)at >= written->revision && !n_waiting;

	if (!r && refusal && (uint64_t)refused >= written->revision) {
		ps_cli_fail(0, "%s refused revision %" PRIu64 ": %s", instance, written->revision,
			    refusal);
		r = -1;
	}
	json_decref(reply);
	return r;
}

static int await_one(const char *instance, const struct written *written)
{
	for (int waited_ms = 0; waited_ms < WAIT_S * 1000; waited_ms += WAIT_STEP_MS) {
		int r = settled(instance, written);

		if (r)
			return r > 0 ? PS_EXIT_DONE : PS_EXIT_REFUSED;
		nanosleep(&(struct timespec){.tv_nsec = WAIT_STEP_MS * 1000000L}, NULL);
	}
	return ps_cli_fail(PS_EXIT_REFUSED, "%s has not taken up revision %" PRIu64 " within %d s",
			   instance, written->revision, WAIT_S);
}

static int await(const struct followers *followers, const struct written *written)
{
	int code = PS_EXIT_DONE;

	for (size_t i = 0; i < followers->n; i++) {
		int r = await_one(followers->instances[i], written);

		if (r != PS_EXIT_DONE)
			code = r;
	}
	return code;
}

static int report(const struct ps_cli *cli, const char *diff, uint64_t revision, bool dry,
		  const struct followers *followers)
{
	if (cli->json)
		return ps_cli_print_json(
			json_pack("{s:s, s:o, s:I}", "diff", diff, "revision",
				  dry ? json_null() : json_integer((json_int_t)revision), "agents",
				  (json_int_t)followers->n));
	if (dry)
		puts("nothing written (--dry-run)");
	else if (followers->n)
		printf("applied as revision %" PRIu64 "; in force at %zu agents of this machine\n",
		       revision, followers->n);
	else
		printf("applied as revision %" PRIu64
		       "; no agent of this machine follows this store\n",
		       revision);
	return PS_EXIT_DONE;
}

/* The store's plan now; an empty text and revision 0 when there is none. */
static int present_plan(struct ps_store *store, struct ps_store_value *ret)
{
	int r = ps_store_get(store, plan_key, ret);

	if (r == 0 || r == -ENOENT)
		return PS_EXIT_DONE;
	return ps_cli_fail(PS_EXIT_REFUSED, "cannot read the store: %s", strerror(-r));
}

static int difference(const struct ps_store_value *present, const struct ps_plan *new, char **ret)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	ps_auto(ps_plan_free) struct ps_plan *old = NULL;

	if (present->data)
		(void)ps_plan_parse(present->data, present->len, "store", &diags, &old);
	if (ps_plan_diff(old, new, ret) < 0)
		return ps_cli_fail(PS_EXIT_REFUSED, "out of memory");
	return PS_EXIT_DONE;
}

static int write_plan(struct ps_store *store, const struct ps_store_value *present,
		      const char *text, size_t len, struct written *ret)
{
	struct ps_store_compare unchanged = {plan_key, present->revision};
	struct ps_store_write write = {plan_key, text, len};
	int r = ps_store_txn(store, &unchanged, 1, &write, 1, &ret->revision, NULL);

	if (r == -ESTALE)
		return ps_cli_fail(
			PS_EXIT_REFUSED,
			"somebody else applied a plan just now: look at it and try again");
	if (r < 0)
		return ps_cli_fail(PS_EXIT_REFUSED, "cannot write the store: %s", strerror(-r));
	return PS_EXIT_DONE;
}

static int apply_text(const struct ps_cli *cli, struct ps_store *store, const char *file,
		      const char *text, size_t len, bool dry)
{
	ps_auto(ps_store_value_clear) struct ps_store_value present = {0};
	ps_auto(clear_followers) struct followers followers = {0};
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	ps_auto_mem char *diff = NULL;
	struct written written = {0};
	int r = ps_cli_parse(text, len, file, &plan);

	if (r == PS_EXIT_DONE && ps_store_incarnation(store, &written.incarnation) < 0)
		r = ps_cli_fail(PS_EXIT_REFUSED, "cannot read the store");
	if (r == PS_EXIT_DONE)
		r = present_plan(store, &present);
	if (r == PS_EXIT_DONE)
		r = difference(&present, plan, &diff);
	if (r == PS_EXIT_DONE && !cli->json)
		fputs(*diff ? diff : "no difference\n", stdout);
	if (r == PS_EXIT_DONE)
		r = find_followers(&(struct home){cli->store_url, written.incarnation}, &followers);
	if (r == PS_EXIT_DONE)
		r = judge(&followers, text);
	if (r == PS_EXIT_DONE && !dry)
		r = write_plan(store, &present, text, len, &written);
	if (r == PS_EXIT_DONE && !dry)
		r = await(&followers, &written);
	return r == PS_EXIT_DONE ? report(cli, diff, written.revision, dry, &followers) : r;
}

static int parse_dry_run(int argc, char **argv, bool *ret_dry)
{
	static const struct option longs[] = {{"dry-run", no_argument, NULL, 'n'},
					      {NULL, 0, NULL, 0}};
	int option;

	optind = 0;
	while ((option = getopt_long(argc, argv, "n", longs, NULL)) != -1) {
		if (option != 'n')
			return PS_EXIT_USE;
		*ret_dry = true;
	}
	return PS_EXIT_DONE;
}

static int run_apply(const struct ps_cli *cli, int argc, char **argv)
{
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	ps_auto_mem char *text = NULL;
	bool dry = false;
	size_t len;
	int r = parse_dry_run(argc, argv, &dry);

	if (r == PS_EXIT_DONE && argc - optind != 1)
		r = ps_cli_fail(PS_EXIT_USE, "expected one plan file");
	if (r == PS_EXIT_DONE)
		r = ps_cli_read_file(argv[optind], &text, &len);
	if (r == PS_EXIT_DONE)
		r = ps_cli_open_store(cli, &store);
	if (r != PS_EXIT_DONE)
		return r;
	return apply_text(cli, store, argv[optind], text, len, dry);
}

/* The newest state with revision `wanted`; 0: the one before the present. */
static const struct ps_store_value *choose(const struct ps_store_values *past, uint64_t wanted)
{
	for (size_t i = 0; i < past->n; i++) {
		if (!past->items[i].data)
			continue;
		if (wanted ? past->items[i].revision == wanted : i > 0)
			return &past->items[i];
	}
	return NULL;
}

static int parse_revision(const char *text, uint64_t *ret)
{
	char *end;

	*ret = strtoull(text, &end, 10);
	if (*end || !*ret)
		return ps_cli_fail(PS_EXIT_USE, "`%s` is not a revision: see `plan history`", text);
	return PS_EXIT_DONE;
}

static int open_history(const struct ps_cli *cli, struct ps_store **ret_store,
			struct ps_store_values *ret)
{
	int r = ps_cli_open_store(cli, ret_store);

	if (r != PS_EXIT_DONE)
		return r;
	r = ps_store_history(*ret_store, plan_key, HISTORY_MAX, ret);
	return r < 0 ? ps_cli_fail(PS_EXIT_REFUSED, "cannot read the history: %s", strerror(-r))
		     : PS_EXIT_DONE;
}

static int run_rollback(const struct ps_cli *cli, int argc, char **argv)
{
	ps_auto(ps_store_values_clear) struct ps_store_values past = {0};
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	const struct ps_store_value *value;
	uint64_t wanted = 0;
	bool dry = false;
	char name[64];
	int r = parse_dry_run(argc, argv, &dry);

	if (r == PS_EXIT_DONE && argc > optind)
		r = parse_revision(argv[optind], &wanted);
	if (r == PS_EXIT_DONE)
		r = open_history(cli, &store, &past);
	if (r != PS_EXIT_DONE)
		return r;
	value = choose(&past, wanted);
	if (!value)
		return ps_cli_fail(
			PS_EXIT_USE,
			"the store holds no such earlier plan: see `portslice plan history`");
	snprintf(name, sizeof(name), "revision %" PRIu64, value->revision);
	return apply_text(cli, store, name, value->data, value->len, dry);
}

static int run_history(const struct ps_cli *cli, int argc, char **argv)
{
	static const struct ps_column columns[] = {
		{"revision", "REVISION"}, {"time", "TIME"}, {"bytes", "BYTES"}};
	ps_auto(ps_store_values_clear) struct ps_store_values past = {0};
	ps_auto(ps_store_close) struct ps_store *store = NULL;
	json_t *rows;
	int r;

	(void)argv;
	if (argc > 1)
		return ps_cli_fail(PS_EXIT_USE, "expected no argument");
	r = open_history(cli, &store, &past);
	if (r != PS_EXIT_DONE)
		return r;
	rows = json_array();
	for (size_t i = 0; i < past.n; i++) {
		time_t when = past.items[i].time_ms / 1000;
		char text[32];
		struct tm tm;

		gmtime_r(&when, &tm);
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
		json_array_append_new(rows,
				      json_pack("{s:I, s:s, s:I}", "revision",
						(json_int_t)past.items[i].revision, "time", text,
						"bytes", (json_int_t)past.items[i].len));
	}
	return ps_cli_print_rows(cli, rows, columns, PS_N_ELEMENTS(columns));
}

const struct ps_verb ps_verbs_apply[] = {
	{"plan", "apply", "[--dry-run] FILE", "Put a plan into the store, whole or not at all",
	 "The file is checked, the difference shown, and every agent of this machine that\n"
	 "follows the store is asked whether it would refuse: a slice in use does not change\n"
	 "its owner. Then the plan is written, and the command waits until it is in force.\n",
	 run_apply},
	{"plan", "rollback", "[--dry-run] [REVISION]",
	 "Apply an earlier plan again (the one before)", NULL, run_rollback},
	{"plan", "history", "", "List the plans that the store holds", NULL, run_history},
	{0},
};

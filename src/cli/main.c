// SPDX-License-Identifier: MIT
/*
 * portslice: nouns and verbs, as in iproute2.
 *
 * Every verb is a row of a table (struct ps_verb) in the file that holds its code, so that usage,
 * help and dispatch cannot drift apart.  Verbs about files work alone; verbs about this host ask
 * the daemon over its control socket; verbs about the plan's home open the store.
 *
 * Options that all verbs share (--instance, --store, --json, --help) may stand anywhere before
 * `--`; they are taken out first, and the verb reads the rest with getopt.
 *
 * Exit codes (design.md §6): 0 done, 1 wrong use or configuration, 2 refused by kernel or daemon,
 * 3 findings, 4 daemon not reachable.
 */
#include <stdio.h>
#include <string.h>

#include "base/own.h"
#include "cli/cli.h"

static const struct ps_verb *const groups[] = {
	ps_verbs_plan, ps_verbs_apply,   ps_verbs_show,    ps_verbs_who,    ps_verbs_trace,
	ps_verbs_run,  ps_verbs_explain, ps_verbs_exhaust, ps_verbs_daemon, ps_verbs_lab};

static const char shared_help[] =
	"Options of all verbs:\n"
	"  --instance NAME   which daemon to talk to (PORTSLICE_INSTANCE; default: default)\n"
	"  --store URL       the plan's home (PORTSLICE_STORE; default:\n"
	"                    sqlite:/var/lib/portslice/store.db)\n"
	"  --json            machine-readable output\n"
	"  -h, --help        help for a verb\n"
	"\n"
	"Exit codes: 0 done, 1 wrong use or configuration, 2 refused by kernel or daemon,\n"
	"3 findings, 4 daemon not reachable.\n";

static void print_name(const struct ps_verb *verb, FILE *out)
{
	fprintf(out, "%s%s%s", verb->noun ? verb->noun : "", verb->noun ? " " : "", verb->name);
}

static void print_overview(const char *noun, FILE *out)
{
	fputs("usage: portslice [NOUN] VERB [ARGUMENTS]\n\n", out);
	for (size_t g = 0; g < PS_N_ELEMENTS(groups); g++) {
		for (const struct ps_verb *verb = groups[g]; verb->name; verb++) {
			char name[64];

			if (noun && (!verb->noun || strcmp(verb->noun, noun) != 0))
				continue;
			snprintf(name, sizeof(name), "%s%s%s", verb->noun ? verb->noun : "",
				 verb->noun ? " " : "", verb->name);
			fprintf(out, "  %-16s %s\n", name, verb->summary);
		}
	}
	fprintf(out, "\n%s", shared_help);
}

static void print_help(const struct ps_verb *verb)
{
	fputs("usage: portslice ", stdout);
	print_name(verb, stdout);
	printf(" %s\n%s.\n", verb->arguments, verb->summary);
	if (verb->help)
		printf("\n%s", verb->help);
	printf("\n%s", shared_help);
}

/* Takes the shared options out of argv; everything after `--` is left alone. */
static int take_shared(struct ps_cli *cli, int *argc, char **argv, bool *help)
{
	int kept = 1;

	for (int i = 1; i < *argc; i++) {
		const char **value = NULL;

		if (strcmp(argv[i], "--") == 0) {
			while (i < *argc)
				argv[kept++] = argv[i++];
			break;
		}
		if (strcmp(argv[i], "--json") == 0)
			cli->json = true;
		else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			*help = true;
		else if (strcmp(argv[i], "--instance") == 0)
			value = &cli->instance;
		else if (strcmp(argv[i], "--store") == 0)
			value = &cli->store_url;
		else
			argv[kept++] = argv[i];
		if (value && i + 1 == *argc)
			return ps_cli_fail(PS_EXIT_USE, "%s needs a value", argv[i]);
		if (value)
			*value = argv[++i];
	}
	*argc = kept;
	argv[kept] = NULL;
	return PS_EXIT_DONE;
}

/* Sets *ret_words to how many arguments name the verb. */
static const struct ps_verb *find_verb(int argc, char **argv, int *ret_words)
{
	for (size_t g = 0; g < PS_N_ELEMENTS(groups); g++) {
		for (const struct ps_verb *verb = groups[g]; verb->name; verb++) {
			int words = verb->noun ? 2 : 1;

			if (argc <= words || strcmp(argv[words], verb->name) != 0 ||
			    (verb->noun && strcmp(argv[1], verb->noun) != 0))
				continue;
			*ret_words = words;
			return verb;
		}
	}
	return NULL;
}

static int unknown(int argc, char **argv, bool help)
{
	if (help || argc < 2 || strcmp(argv[1], "help") == 0) {
		print_overview(argc > 1 && strcmp(argv[1], "help") != 0 ? argv[1] : NULL,
			       argc < 2 && !help ? stderr : stdout);
		return argc < 2 && !help ? PS_EXIT_USE : PS_EXIT_DONE;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
		puts("portslice " PS_VERSION);
		return PS_EXIT_DONE;
	}
	return ps_cli_fail(PS_EXIT_USE, "no verb `%s%s%s`: see `portslice help`", argv[1],
			   argc > 2 ? " " : "", argc > 2 ? argv[2] : "");
}

int main(int argc, char **argv)
{
	const char *instance = getenv("PORTSLICE_INSTANCE"), *store = getenv("PORTSLICE_STORE");
	struct ps_cli cli = {
		.instance = instance ? instance : "default",
		.store_url = store ? store : "sqlite:/var/lib/portslice/store.db",
	};
	const struct ps_verb *verb;
	bool help = false;
	int words, r;

	r = take_shared(&cli, &argc, argv, &help);
	if (r != PS_EXIT_DONE)
		return r;
	verb = find_verb(argc, argv, &words);
	if (!verb)
		return unknown(argc, argv, help);
	if (help) {
		print_help(verb);
		return PS_EXIT_DONE;
	}
	return verb->run(&cli, argc - words, argv + words);
}

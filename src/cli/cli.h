/* SPDX-License-Identifier: MIT */
/* What all verbs of the command line share; private to this folder.  main.c has the essay. */
#ifndef PS_CLI_CLI_H
#define PS_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <jansson.h>

#include "plan/plan.h"
#include "store/store.h"

enum ps_exit {
	PS_EXIT_DONE,
	PS_EXIT_USE,     /* wrong use or configuration */
	PS_EXIT_REFUSED, /* by kernel or daemon */
	PS_EXIT_FINDINGS,
	PS_EXIT_UNREACHABLE, /* no daemon */
};

struct ps_cli {
	const char *instance;  /* --instance, PORTSLICE_INSTANCE */
	const char *store_url; /* --store, PORTSLICE_STORE */
	bool json;
};

/* One verb: `portslice NOUN NAME ...`, or `portslice NAME ...` where noun is NULL. */
struct ps_verb {
	const char *noun, *name;
	const char *arguments; /* for the usage line */
	const char *summary;   /* one line for the overview */
	const char *help;      /* the rest of `--help`; may be NULL */
	int (*run)(const struct ps_cli *cli, int argc, char **argv); /* gives enum ps_exit */
};

/* One array for each file of verbs; the last element has no name. */
extern const struct ps_verb ps_verbs_plan[], ps_verbs_apply[], ps_verbs_show[], ps_verbs_who[],
	ps_verbs_trace[], ps_verbs_run[], ps_verbs_explain[], ps_verbs_exhaust[], ps_verbs_daemon[],
	ps_verbs_lab[];

/* Says "portslice: ..." on standard error and gives `code` back. */
int ps_cli_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* client.c: one request to the daemon of the instance, or of `socket_path` where given.  Gives
 * PS_EXIT_DONE and *ret (the "ok" value, a new reference), or says what is wrong. */
int ps_cli_ask(const struct ps_cli *cli, json_t *request, json_t **ret);
/* What it says of itself. */
int ps_cli_ask_status(const struct ps_cli *cli, json_t **ret);
/* Connects; -errno. */
int ps_cli_connect(const char *socket_path);
/* Sends the request (its reference is taken over) and reads one line; NULL on a broken line. */
json_t *ps_cli_exchange(int fd, json_t *request);
/* Caller frees. */
char *ps_cli_socket_path(const char *instance);

/* source.c: where plans come from.  file NULL: the daemon's plan in force.  Findings go to standard
 * error.  All give enum ps_exit. */
int ps_cli_plan(const struct ps_cli *cli, const char *file, struct ps_plan **ret);
int ps_cli_read_file(const char *file, char **ret, size_t *ret_len);
int ps_cli_parse(const char *text, size_t len, const char *file, struct ps_plan **ret);
void ps_cli_print_findings(const struct ps_diags *diags, bool json);
int ps_cli_open_store(const struct ps_cli *cli, struct ps_store **ret);

/* "198.51.100.7:2048" or "[2001:db8::7]:2048": gives enum ps_exit. */
int ps_cli_parse_endpoint(const char *text, struct ps_ip *ret_ip, uint16_t *ret_port);

int ps_cli_parse_mark(const char *text, uint32_t *ret);
/* This host's index in the plan in force, as the daemon says, and where its hooks stand; the caller
 * frees *ret_cgroup_root, which may be NULL: not asked for. */
int ps_cli_self(const struct ps_cli *cli, const struct ps_plan *plan, unsigned *ret_host,
		char **ret_cgroup_root);

/* process.c: what the hooks would see of a running program. */
struct ps_process {
	unsigned pid;
	uint32_t uid;       /* real */
	uint64_t cgroup_id; /* 0: its folder cannot be seen from here */
	char *cgroup;       /* below the hooks' root, "" for that itself; NULL: outside */
	char *folder;       /* of the cgroup, absolute */
	char name[16];
	bool is_elsewhere; /* in a network namespace that is not this command's */
};
/* root: the hooks' cgroup folder.  Gives enum ps_exit. */
int ps_cli_process(unsigned pid, const char *root, struct ps_process *ret);
void ps_cli_process_clear(struct ps_process *process);

/* table.c: an array of flat objects as JSON, or as a table of the named columns. */
struct ps_column {
	const char *key, *title;
};
/* Takes over the reference of rows; gives enum ps_exit. */
int ps_cli_print_rows(const struct ps_cli *cli, json_t *rows, const struct ps_column *columns,
		      size_t n_columns);
/* Takes over the reference. */
int ps_cli_print_json(json_t *value);

/* show-claims.c: the verb `show claims`. */
int ps_cli_show_claims(const struct ps_cli *cli, int argc, char **argv);

/* plane.c: the port plane, addresses by slices, coloured by owner. */
void ps_cli_draw_plane(const struct ps_plan *plan, bool colour, FILE *out);

/* "key=value" texts as tags; borrowed from texts, items is the caller's to free. */
int ps_cli_parse_tag(char *text, struct ps_tags *tags);

#endif

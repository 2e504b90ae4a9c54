// SPDX-License-Identifier: MIT
/* The lab is a Python program; these verbs hand over to it. */
#include <errno.h>
#include <string.h>

#include "base/own.h"
#include "cli/cli.h"

static char *lab_script(void)
{
	char self[4096], *path = NULL;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return NULL;
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	if (asprintf(&path, "%s/../../../lab/lab.py", self) < 0)
		return NULL;
	if (access(path, R_OK) == 0)
		return path; /* in the source tree */
	free(path);
	return asprintf(&path, "%s/lab/lab.py", PS_LIBDIR) < 0 ? NULL : path;
}

static int hand_over(const struct ps_cli *cli, int argc, char **argv)
{
	ps_auto_mem char *script = lab_script();
	ps_auto_mem char **args = calloc((size_t)argc + 5, sizeof(*args));
	char python[] = "/usr/bin/python3", json[] = "--json";
	size_t n = 0;

	if (!script || !args)
		return ps_cli_fail(PS_EXIT_REFUSED, "out of memory");
	args[n++] = python;
	args[n++] = script;
	args[n++] = argv[0];
	if (cli->json)
		args[n++] = json;
	for (int i = 1; i < argc; i++)
		args[n++] = argv[i];
	execv(python, args);
	return ps_cli_fail(PS_EXIT_REFUSED, "cannot run %s: %s", script, strerror(errno));
}

const struct ps_verb ps_verbs_lab[] = {
	{"lab", "up", "[--name NAME] [--topology FILE]", "Bring up a lab of network namespaces",
	 NULL, hand_over},
	{"lab", "down", "[--name NAME]", "Take the lab down; nothing stays", NULL, hand_over},
	{"lab", "exec", "[--name NAME] NODE -- COMMAND...", "Run a program on a node of the lab",
	 NULL, hand_over},
	{"lab", "status", "[--name NAME]", "Show nodes, routes and agents of the lab", NULL,
	 hand_over},
	{0},
};

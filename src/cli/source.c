// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "base/own.h"
#include "cli/cli.h"

int ps_cli_read_file(const char *file, char **ret, size_t *ret_len)
{
	ps_auto_mem char *text = NULL;
	size_t size = 0;
	FILE *in = strcmp(file, "-") == 0 ? stdin : fopen(file, "re");
	ssize_t n;

	if (!in)
		return ps_cli_fail(PS_EXIT_USE, "cannot read %s: %s", file, strerror(errno));
	errno = 0;
	n = getdelim(&text, &size, '\0', in);
	if (in != stdin)
		fclose(in);
	if (n < 0 && errno)
		return ps_cli_fail(PS_EXIT_USE, "cannot read %s: %s", file, strerror(errno));
	if (n < 0) {
		n = 0;
		free(text);
		text = strdup("");
	}
	*ret = ps_move(text);
	*ret_len = (size_t)n;
	return PS_EXIT_DONE;
}

static json_t *findings_json(const struct ps_diags *diags)
{
	json_t *list = json_array();

	for (size_t i = 0; i < diags->n; i++)
		json_array_append_new(
			list, json_pack("{s:s, s:i, s:i, s:s}", "file", diags->items[i].file,
					"line", (int)diags->items[i].line, "column",
					(int)diags->items[i].column, "text", diags->items[i].text));
	return list;
}

void ps_cli_print_findings(const struct ps_diags *diags, bool json)
{
	if (json) {
		ps_cli_print_json(findings_json(diags));
		return;
	}
	for (size_t i = 0; i < diags->n; i++)
		fprintf(stderr, "%s:%u:%u: %s\n", diags->items[i].file, diags->items[i].line,
			diags->items[i].column, diags->items[i].text);
}

int ps_cli_parse(const char *text, size_t len, const char *file, struct ps_plan **ret)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};

	if (ps_plan_parse(text, len, file, &diags, ret) == 0)
		return PS_EXIT_DONE;
	ps_cli_print_findings(&diags, false);
	return PS_EXIT_USE;
}

static int plan_of_daemon(const struct ps_cli *cli, struct ps_plan **ret)
{
	json_t *reply = NULL, *text;
	int r = ps_cli_ask(cli, json_pack("{s:s}", "verb", "plan"), &reply);

	if (r != PS_EXIT_DONE)
		return r;
	text = json_object_get(reply, "text");
	r = ps_cli_parse(json_string_value(text), json_string_length(text), "plan in force", ret);
	json_decref(reply);
	return r;
}

int ps_cli_plan(const struct ps_cli *cli, const char *file, struct ps_plan **ret)
{
	ps_auto_mem char *text = NULL;
	size_t len;
	int r;

	if (!file)
		return plan_of_daemon(cli, ret);
	r = ps_cli_read_file(file, &text, &len);
	return r == PS_EXIT_DONE ? ps_cli_parse(text, len, file, ret) : r;
}

int ps_cli_open_store(const struct ps_cli *cli, struct ps_store **ret)
{
	ps_auto_mem char *message = NULL;
	int r = ps_store_open(cli->store_url, ret, &message);

	if (r < 0)
		return ps_cli_fail(PS_EXIT_REFUSED, "store %s: %s", cli->store_url,
				   message ? message : strerror(-r));
	return PS_EXIT_DONE;
}

/* IPv6 in brackets, else one could not tell its end from the port (RFC 5952 §6). */
static bool read_endpoint(const char *text, struct ps_ip *ret_ip, uint16_t *ret_port)
{
	const char *colon = strrchr(text, ':');
	char address[PS_IP_HOST_MAX];
	size_t len = colon ? (size_t)(colon - text) : 0;
	bool is_bracketed = len > 1 && text[0] == '[' && colon[-1] == ']';
	unsigned long port;
	char *end;

	if (is_bracketed) {
		text++;
		len -= 2;
	}
	if (len == 0 || len >= sizeof(address))
		return false;
	memcpy(address, text, len);
	address[len] = '\0';
	port = strtoul(colon + 1, &end, 10);
	if (*end || end == colon + 1 || port > 65535 || ps_ip_parse(address, ret_ip) < 0 ||
	    ps_ip_is_v4(ret_ip) == is_bracketed)
		return false;
	*ret_port = (uint16_t)port;
	return true;
}

int ps_cli_parse_endpoint(const char *text, struct ps_ip *ret_ip, uint16_t *ret_port)
{
	if (read_endpoint(text, ret_ip, ret_port))
		return PS_EXIT_DONE;
	return ps_cli_fail(
		PS_EXIT_USE,
		"`%s` is not ADDRESS:PORT, as in 198.51.100.1:2048 or [2001:db8::1]:2048", text);
}

int ps_cli_parse_tag(char *text, struct ps_tags *tags)
{
	char *equals = strchr(text, '=');
	struct ps_tag *items;

	if (!equals || equals == text)
		return ps_cli_fail(PS_EXIT_USE, "`%s` is not KEY=VALUE, as in country=GB", text);
	items = reallocarray(tags->items, tags->n + 1, sizeof(*items));
	if (!items)
		return ps_cli_fail(PS_EXIT_REFUSED, "out of memory");
	*equals = '\0';
	items[tags->n++] = (struct ps_tag){text, equals + 1};
	tags->items = items;
	return PS_EXIT_DONE;
}

int ps_cli_parse_mark(const char *text, uint32_t *ret)
{
	char *end;
	unsigned long mark = strtoul(text, &end, 0);

	if (*end || end == text || mark > UINT32_MAX)
		return ps_cli_fail(PS_EXIT_USE, "`%s` is not a socket mark", text);
	*ret = (uint32_t)mark;
	return PS_EXIT_DONE;
}

int ps_cli_self(const struct ps_cli *cli, const struct ps_plan *plan, unsigned *ret_host,
		char **ret_cgroup_root)
{
	json_t *status = NULL;
	char *root = NULL;
	int host, r = ps_cli_ask(cli, json_pack("{s:s}", "verb", "status"), &status);

	if (r != PS_EXIT_DONE)
		return r;
	host = ps_plan_find_host(plan, json_string_value(json_object_get(status, "host")));
	if (ret_cgroup_root)
		root = strdup(json_string_value(json_object_get(status, "cgroup_root")));
	json_decref(status);
	if (host == PS_PLAN_NONE || (ret_cgroup_root && !root)) {
		free(root);
		return ps_cli_fail(PS_EXIT_REFUSED,
				   host == PS_PLAN_NONE ? "this host is not in the plan in force"
							: "out of memory");
	}
	*ret_host = (unsigned)host;
	if (ret_cgroup_root)
		*ret_cgroup_root = root;
	return PS_EXIT_DONE;
}

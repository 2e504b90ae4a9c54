// SPDX-License-Identifier: MIT
/*
 * `portslice exhaust`: the load that uses source ports up, on purpose and within bounds.
 *
 * It opens N connections that nobody need answer, holds them, and says how many the kernel let
 * through, from how many ports, and what the others were told.  A connection counts as through when
 * connect() has given it a port: whether the target answers is told apart.  The preset is the load
 * that the project's sources exhaust a host with: 2 x 255 connections to targets that stay silent
 * (facts.md PX-6).
 *
 *   exhaust.c       the verb: what is asked, and whether it may be
 *   exhaust-load.c  opening, holding, trying again
 *   exhaust-tell.c  the report
 *
 * Anybody can do harm with a tool like this, so it is bounded three ways: number, rate and time have
 * a most; what it opens it closes with a reset, so that no port stays in TIME_WAIT; and without --yes
 * it goes to nobody: to addresses for documentation (RFC 5737, RFC 3849) and measuring (RFC 2544),
 * to this host itself, and to the network of the lab that swallows everything.  Private addresses
 * may be an operator's own servers, so they need --yes like any other.
 */
#include "cli/exhaust.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <string.h>

#include "base/own.h"
#include "cli/cli.h"

enum { PORT_PRESET = 80 };

static const char *const harmless[] = {
	"127.0.0.0/8",   "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15",
	"100.96.0.0/20", "::1",          "2001:db8::/32",
};

static void clear_options(struct ps_exhaust_options *options)
{
	free(options->targets);
}

static bool is_harmless(const struct ps_prefix *prefix)
{
	for (size_t i = 0; i < PS_N_ELEMENTS(harmless); i++) {
		struct ps_prefix known;

		if (ps_prefix_parse(harmless[i], &known) == 0 && known.bits <= prefix->bits &&
		    ps_prefix_contains(&known, &prefix->ip))
			return true;
	}
	return false;
}

/* Splits "PREFIX:PORT", "[PREFIX]:PORT" or either alone; text is cut.  *ret_port stays where there is
 * none. */
static bool split_target(char *text, char **ret_prefix, uint16_t *ret_port)
{
	char *colon = strrchr(text, ':'), *end;
	unsigned long port;

	*ret_prefix = text;
	if (text[0] == '[') {
		char *bracket = strchr(text, ']');

		if (!bracket || (bracket[1] && bracket + 1 != colon))
			return false;
		colon = bracket[1] ? colon : NULL;
		*bracket = '\0';
		*ret_prefix = text + 1;
	} else if (colon && strchr(text, ':') != colon) {
		return true; /* bare IPv6 */
	}
	if (!colon)
		return true;
	*colon = '\0';
	errno = 0;
	port = strtoul(colon + 1, &end, 10);
	*ret_port = (uint16_t)port;
	return *end == '\0' && end != colon + 1 && port > 0 && port <= UINT16_MAX;
}

static int add_target(const char *text, struct ps_exhaust_options *options)
{
	struct ps_exhaust_target target = {.port = PORT_PRESET}, *targets;
	ps_auto_mem char *copy = strdup(text);
	char *prefix;

	if (!copy || !split_target(copy, &prefix, &target.port) ||
	    ps_prefix_parse(prefix, &target.prefix) < 0)
		return ps_cli_fail(PS_EXIT_USE,
				   "`%s` is not a target, as in 192.0.2.1:80, 192.0.2.0/24:80 or "
				   "[2001:db8::1]:80",
				   text);
	targets = reallocarray(options->targets, options->n_targets + 1, sizeof(*targets));
	if (!targets)
		return ps_cli_fail(PS_EXIT_REFUSED, "out of memory");
	targets[options->n_targets++] = target;
	options->targets = targets;
	return PS_EXIT_DONE;
}

static int parse_number(const char *text, const char *what, unsigned most, unsigned *ret)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || end == text || *text == '-' || n < 1 || n > most)
		return ps_cli_fail(PS_EXIT_USE, "`%s` is not a %s: from 1 to %u", text, what, most);
	*ret = (unsigned)n;
	return PS_EXIT_DONE;
}

static int parse_bind(const char *text, struct ps_exhaust_options *options)
{
	options->binds_first = true;
	if (!text) {
		options->binds_any = true;
		return PS_EXIT_DONE;
	}
	if (ps_ip_parse(text, &options->bind_ip) < 0)
		return ps_cli_fail(PS_EXIT_USE, "`%s` is not an address to bind", text);
	return PS_EXIT_DONE;
}

static int parse_option(int option, struct ps_exhaust_options *options)
{
	switch (option) {
	case 't':
		return add_target(optarg, options);
	case 'n':
		return parse_number(optarg, "number of connections", PS_EXHAUST_CONNECTIONS_MAX,
				    &options->n_connections);
	case 'r':
		return parse_number(optarg, "rate a second", PS_EXHAUST_RATE_MAX, &options->rate);
	case 'o':
		return parse_number(optarg, "time in seconds", PS_EXHAUST_HOLD_MAX_S,
				    &options->hold_s);
	case 'b':
		return parse_bind(optarg, options);
	case 'p':
		options->binds_no_port = true;
		return PS_EXIT_DONE;
	case 'u':
		options->is_udp = true;
		return PS_EXIT_DONE;
	case 'a':
		options->is_retrying = true;
		return PS_EXIT_DONE;
	case 'y':
		options->is_confirmed = true;
		return PS_EXIT_DONE;
	default:
		return PS_EXIT_USE;
	}
}

static int parse_options(int argc, char **argv, struct ps_exhaust_options *options)
{
	static const struct option longs[] = {{"to", required_argument, NULL, 't'},
					      {"connections", required_argument, NULL, 'n'},
					      {"rate", required_argument, NULL, 'r'},
					      {"hold", required_argument, NULL, 'o'},
					      {"bind-first", optional_argument, NULL, 'b'},
					      {"no-port", no_argument, NULL, 'p'},
					      {"udp", no_argument, NULL, 'u'},
					      {"retry", no_argument, NULL, 'a'},
					      {"yes", no_argument, NULL, 'y'},
					      {NULL, 0, NULL, 0}};
	int option, r = PS_EXIT_DONE;

	optind = 0;
	while (r == PS_EXIT_DONE && (option = getopt_long(argc, argv, "n:", longs, NULL)) != -1)
		r = parse_option(option, options);
	if (r == PS_EXIT_DONE && optind < argc)
		return ps_cli_fail(PS_EXIT_USE, "`%s` is too much: targets come with --to",
				   argv[optind]);
	return r;
}

/* Do all that is asked fit together? */
static int check_options(const struct ps_exhaust_options *options)
{
	char text[PS_PREFIX_TEXT_MAX];

	if (!options->n_targets)
		return ps_cli_fail(PS_EXIT_USE, "expected --to ADDRESS:PORT");
	if (options->binds_no_port && (!options->binds_first || options->binds_any))
		return ps_cli_fail(PS_EXIT_USE, "--no-port wants --bind-first=ADDRESS");
	for (size_t i = 0; i < options->n_targets; i++) {
		const struct ps_prefix *prefix = &options->targets[i].prefix;

		ps_prefix_format(prefix, text);
		if (!options->is_confirmed && !is_harmless(prefix))
			return ps_cli_fail(PS_EXIT_USE,
					   "%s may be somebody's: say --yes if it is yours and may "
					   "get %u connections",
					   text, options->n_connections);
		if (options->binds_first && !options->binds_any &&
		    ps_ip_is_v4(&options->bind_ip) != ps_ip_is_v4(&prefix->ip))
			return ps_cli_fail(PS_EXIT_USE,
					   "%s and the address to bind are of different families",
					   text);
	}
	return PS_EXIT_DONE;
}

static int run_exhaust(const struct ps_cli *cli, int argc, char **argv)
{
	ps_auto(clear_options) struct ps_exhaust_options options = {
		.n_connections = PS_EXHAUST_CONNECTIONS,
		.rate = PS_EXHAUST_RATE,
		.hold_s = PS_EXHAUST_HOLD_S,
	};
	ps_auto(ps_exhaust_clear) struct ps_exhaust_load load = {0};
	int r = parse_options(argc, argv, &options);

	if (r == PS_EXIT_DONE)
		r = check_options(&options);
	if (r != PS_EXIT_DONE)
		return r;
	r = ps_exhaust_run(&options, &load);
	if (r == -EMFILE)
		return ps_cli_fail(PS_EXIT_REFUSED,
				   "this process may not have %u sockets: raise the limit of open "
				   "files (ulimit -n), or run several",
				   options.n_connections);
	if (r < 0)
		return ps_cli_fail(PS_EXIT_REFUSED, "cannot run the load: %s", strerror(-r));
	return ps_exhaust_tell(&load, cli->json);
}

const struct ps_verb ps_verbs_exhaust[] = {
	{NULL, "exhaust", "--to TARGET[:PORT]... [OPTIONS]",
	 "Use source ports up on purpose, within bounds, and say what happened",
	 "Opens connections that nobody need answer, holds them, closes them with a reset and\n"
	 "reports: how many got a port, from which ports, what the others were told, how long\n"
	 "each call took. Run it in a class: portslice run -- portslice exhaust ...\n"
	 "\n"
	 "  --to TARGET[:PORT]    ADDRESS or PREFIX (each address of it is a target of its own;\n"
	 "                        targets take turns), [ADDRESS] for IPv6; port 80 if none\n"
	 "  -n, --connections N   how many (510; at most 65536)\n"
	 "  --rate N              a second (1000; at most 20000)\n"
	 "  --hold SECONDS        after the last one is opened (10; at most 600)\n"
	 "  --bind-first[=ADDRESS]  bind(ADDRESS:0) before connect(), without ADDRESS bind(0:0)\n"
	 "  --no-port             with IP_BIND_ADDRESS_NO_PORT\n"
	 "  --udp                 connected UDP sockets; nothing is sent\n"
	 "  --retry               while holding, try what was refused again each second\n"
	 "  --yes                 targets that may be somebody's: all but addresses for\n"
	 "                        documentation and measuring, this host, and the lab's\n"
	 "                        100.96.0.0/20\n"
	 "\n"
	 "Exit code 3 when a connection got no port.\n",
	 run_exhaust},
	{0},
};

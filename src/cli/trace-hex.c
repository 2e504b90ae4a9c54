// SPDX-License-Identifier: MIT
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "cli/trace-hex.h"

enum { ETHER_LEN = 14 };

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10 : -1;
}

static bool is_separator(char c)
{
	return isspace((unsigned char)c) || c == ':';
}

/* "line 3, " where there is more than one. */
static const char *place(unsigned line, char text[32])
{
	text[0] = '\0';
	if (line)
		snprintf(text, 32, "line %u, ", line);
	return text;
}

int ps_cli_parse_hex(const char *text, unsigned line, unsigned char **ret, size_t *ret_len)
{
	ps_auto_mem unsigned char *bytes = calloc(strlen(text) / 2 + 1, 1);
	char where[32];
	size_t n = 0;

	place(line, where);
	if (!bytes)
		return ps_cli_fail(PS_EXIT_REFUSED, "%s", strerror(ENOMEM));
	for (const char *at = text; *at; at++) {
		int digit = digit_of(*at);

		if (is_separator(*at))
			continue;
		if (digit < 0)
			return ps_cli_fail(PS_EXIT_USE,
					   "--hex: %scolumn %zu: `%c` is no hex digit; expected an "
					   "Ethernet frame, as in 0200…0800 4500…",
					   where, (size_t)(at - text) + 1, *at);
		bytes[n / 2] = (unsigned char)(bytes[n / 2] << 4 | digit);
		n++;
	}
	if (n % 2)
		return ps_cli_fail(PS_EXIT_USE, "--hex: %s%zu digits: a byte has two", where, n);
	if (n / 2 < ETHER_LEN)
		return ps_cli_fail(PS_EXIT_USE,
				   "--hex: %s%zu bytes are no Ethernet frame, which begins with "
				   "the 14 of its header",
				   where, n / 2);
	*ret = ps_move(bytes);
	*ret_len = n / 2;
	return PS_EXIT_DONE;
}

static bool is_blank(const char *line)
{
	while (isspace((unsigned char)*line))
		line++;
	return !*line || *line == '#';
}

static int take(const char *text, unsigned line, ps_cli_frame_fn *fn, void *arg)
{
	ps_auto_mem unsigned char *frame = NULL;
	size_t len;
	int r = ps_cli_parse_hex(text, line, &frame, &len);

	return r == PS_EXIT_DONE ? fn(frame, len, arg) : r;
}

int ps_cli_each_hex(const char *text, ps_cli_frame_fn *fn, void *arg)
{
	ps_auto_mem char *line = NULL;
	size_t size = 0;
	unsigned number = 0, n = 0;
	int r = PS_EXIT_DONE;

	if (strcmp(text, "-") != 0)
		return take(text, 0, fn, arg);
	while (r == PS_EXIT_DONE && getline(&line, &size, stdin) >= 0) {
		number++;
		if (is_blank(line))
			continue;
		n++;
		r = take(line, number, fn, arg);
	}
	if (r == PS_EXIT_DONE && !n)
		return ps_cli_fail(PS_EXIT_USE, "--hex: no frame on standard input; expected one "
						"a line, in hex");
	return r;
}

// SPDX-License-Identifier: MIT
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/own.h"
#include "cli/cli.h"

int ps_cli_fail(int code, const char *format, ...)
{
	va_list args;

	fputs("portslice: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return code;
}

int ps_cli_print_json(json_t *value)
{
	int failed = json_dumpf(value, stdout, JSON_INDENT(2));

	putchar('\n');
	json_decref(value);
	return failed ? PS_EXIT_REFUSED : PS_EXIT_DONE;
}

/* The value as a person reads it; caller frees. */
static char *cell(const json_t *value)
{
	char *text = NULL;

	if (!value || json_is_null(value))
		return strdup("-");
	if (json_is_string(value))
		return strdup(json_string_value(value));
	if (json_is_boolean(value))
		return strdup(json_is_true(value) ? "yes" : "no");
	text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
	return text ? text : strdup("?");
}

static void measure(const json_t *rows, const struct ps_column *columns, size_t n, int *widths)
{
	for (size_t c = 0; c < n; c++) {
		size_t i;
		json_t *row;

		widths[c] = (int)strlen(columns[c].title);
		json_array_foreach(rows, i, row)
		{
			ps_auto_mem char *text = cell(json_object_get(row, columns[c].key));
			int len = text ? (int)strlen(text) : 0;

			if (len > widths[c])
				widths[c] = len;
		}
	}
}

static void print_cell(const char *text, int width, bool last)
{
	printf("%-*s%s", last ? 0 : width, text, last ? "\n" : "  ");
}

int ps_cli_print_rows(const struct ps_cli *cli, json_t *rows, const struct ps_column *columns,
		      size_t n_columns)
{
	ps_auto_mem int *widths = calloc(n_columns, sizeof(*widths));
	size_t i;
	json_t *row;

	if (cli->json)
		return ps_cli_print_json(rows);
	if (!widths)
		return ps_cli_fail(PS_EXIT_REFUSED, "out of memory");
	measure(rows, columns, n_columns, widths);
	for (size_t c = 0; c < n_columns; c++)
		print_cell(columns[c].title, widths[c], c + 1 == n_columns);
	json_array_foreach(rows, i, row)
	{
		for (size_t c = 0; c < n_columns; c++) {
			ps_auto_mem char *text = cell(json_object_get(row, columns[c].key));

			print_cell(text ? text : "", widths[c], c + 1 == n_columns);
		}
	}
	json_decref(rows);
	return PS_EXIT_DONE;
}

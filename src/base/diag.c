// SPDX-License-Identifier: MIT
#include "base/diag.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/own.h"

int ps_diags_add(struct ps_diags *diags, int error, const char *file, unsigned line,
		 unsigned column, const char *format, ...)
{
	ps_auto_mem char *name = strdup(file ? file : "");
	ps_auto_mem char *text = NULL;
	struct ps_diag *items;
	va_list args;
	int r;

	va_start(args, format);
	r = vasprintf(&text, format, args);
	va_end(args);
	if (r < 0) {
		text = NULL; /* indeterminate after failure */
		return -ENOMEM;
	}
	items = reallocarray(diags->items, diags->n + 1, sizeof(*items));
	if (!items || !name) {
		if (items)
			diags->items = items;
		return -ENOMEM;
	}
	items[diags->n++] = (struct ps_diag){ps_move(name), line, column, ps_move(text)};
	diags->items = items;
	return error;
}

void ps_diags_clear(struct ps_diags *diags)
{
	for (size_t i = 0; i < diags->n; i++) {
		free(diags->items[i].file);
		free(diags->items[i].text);
	}
	free(diags->items);
	*diags = (struct ps_diags){0};
}

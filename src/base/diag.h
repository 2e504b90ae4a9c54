/* SPDX-License-Identifier: MIT */
/*
 * What is wrong with a user's input, and what would be right.  Code that judges input fills these
 * and never prints; agent/ and cli/ do the talking (conventions.md, errors 4).
 */
#ifndef PS_BASE_DIAG_H
#define PS_BASE_DIAG_H

#include <stddef.h>

/* One finding.  line and column count from 1; 0 means the file as a whole. */
struct ps_diag {
	char *file; /* owned */
	unsigned line, column;
	char *text; /* owned; one sentence: what is wrong, what would be right */
};

/* A growing list of findings, in the order found.  Initialise with {0}. */
struct ps_diags {
	struct ps_diag *items;
	size_t n;
};

/* Appends one finding.  Returns `error` (a negative errno) so that callers can return it at once;
 * -ENOMEM when there is no room even for that. */
int ps_diags_add(struct ps_diags *diags, int error, const char *file, unsigned line,
		 unsigned column, const char *format, ...) __attribute__((format(printf, 6, 7)));
void ps_diags_clear(struct ps_diags *diags);

#endif

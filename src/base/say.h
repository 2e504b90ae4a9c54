/* SPDX-License-Identifier: MIT */
/* A sentence for the operator beside an error, for code that may not print. */
#ifndef PS_BASE_SAY_H
#define PS_BASE_SAY_H

/* Sets *ret_text to the formatted text, owned by the caller, or to NULL when memory is short; what
 * it pointed to before is not freed.  ret_text NULL: nobody wants to know.  Returns `error`, so that
 * callers can return it at once. */
int ps_say(char **ret_text, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif

// SPDX-License-Identifier: MIT
#include "base/say.h"

#include <stdarg.h>
#include <stdio.h>

int ps_say(char **ret_text, int error, const char *format, ...)
{
	char *text = NULL;
	va_list args;

	if (!ret_text)
		return error;
	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	*ret_text = text;
	return error;
}

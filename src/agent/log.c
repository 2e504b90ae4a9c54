// SPDX-License-Identifier: MIT
#include "agent/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

void ps_log(int level, const char *format, ...)
{
	char line[2048];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "portsliced: %s\n", line);
	else
		fprintf(stderr, "<%d>portsliced: %s\n", level, line);
}

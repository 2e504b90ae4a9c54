/* SPDX-License-Identifier: MIT */
/* Frames as hex text: one a line, blanks and colons between digits as one likes. */
#ifndef PS_CLI_TRACE_HEX_H
#define PS_CLI_TRACE_HEX_H

#include <stddef.h>

#include "cli/cli.h"

/* Gives enum ps_exit. */
typedef int ps_cli_frame_fn(const unsigned char *frame, size_t len, void *arg);

/* One frame; line is for messages, 0: there is but one.  At least an Ethernet header; the caller frees
 * *ret.  Says what is wrong, where; gives enum ps_exit. */
int ps_cli_parse_hex(const char *text, unsigned line, unsigned char **ret, size_t *ret_len);
/* Calls fn for the frame in text, or for each line of standard input if text is "-" (empty lines and
 * those that begin with # are skipped) until it gives other than PS_EXIT_DONE, which is given back. */
int ps_cli_each_hex(const char *text, ps_cli_frame_fn *fn, void *arg);

#endif

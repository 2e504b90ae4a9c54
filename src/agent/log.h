/* SPDX-License-Identifier: MIT */
/* One line to standard error for each message, with the level prefix that journald understands. */
#ifndef PS_AGENT_LOG_H
#define PS_AGENT_LOG_H

#include <syslog.h>

/* level is LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO or LOG_DEBUG. */
void ps_log(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

/* SPDX-License-Identifier: MIT */
/* Settings under /proc/sys, of the network namespace we are in. */
#ifndef PS_AGENT_SYSCTL_H
#define PS_AGENT_SYSCTL_H

#include <stddef.h>

/* name is a path like "net/ipv6/ip_nonlocal_bind".  The value has no newline.  -ENOENT: the kernel,
 * or the interface, is not there. */
int ps_sysctl_read(const char *name, char *ret, size_t size);
int ps_sysctl_write(const char *name, const char *value);

#endif

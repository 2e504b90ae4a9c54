/* SPDX-License-Identifier: MIT */
#ifndef PS_TESTS_CGROUP2_H
#define PS_TESTS_CGROUP2_H

#include <stddef.h>
#include <unistd.h>

/* Where the cgroup2 tree is that we may write to; NULL: nowhere. */
static inline const char *cgroup2_root(void)
{
	if (access("/sys/fs/cgroup/unified/cgroup.procs", W_OK) == 0)
		return "/sys/fs/cgroup/unified";
	return access("/sys/fs/cgroup/cgroup.procs", W_OK) == 0 ? "/sys/fs/cgroup" : NULL;
}

#endif

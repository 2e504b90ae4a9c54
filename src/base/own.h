/* SPDX-License-Identifier: MIT */
/*
 * Ownership of memory and descriptors.  Every owning local carries one of these attributes and an
 * initial value; ps_move() and ps_fd_move() are the only ways out of a scope.
 */
#ifndef PS_BASE_OWN_H
#define PS_BASE_OWN_H

#include <stdlib.h>
#include <unistd.h>

#define ps_auto(fn) __attribute__((cleanup(fn)))
#define ps_auto_fd ps_auto(ps_fd_drop)
#define ps_auto_mem ps_auto(ps_mem_drop)

#define PS_N_ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))

static inline void ps_mem_drop(void *p)
{
	free(*(void **)p);
}

static inline void ps_fd_drop(const int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static inline int ps_fd_move(int *fd)
{
	int v = *fd;

	*fd = -1;
	return v;
}

#define ps_move(p)                         \
	({                                 \
		__typeof__(p) ps_v_ = (p); \
		(p) = NULL;                \
		ps_v_;                     \
	})

#endif

/* SPDX-License-Identifier: MIT */
/* A fresh folder for one test, removed with everything in it. */
#ifndef PS_TESTS_STORE_PLACE_H
#define PS_TESTS_STORE_PLACE_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "cm.h"

enum { PLACE_MAX = 128 };

static inline void place_make_in(const char *parent, char ret[PLACE_MAX])
{
	snprintf(ret, PLACE_MAX, "%s/portslice-store-XXXXXX", parent);
	assert_non_null(mkdtemp(ret));
}

static inline void place_make(char ret[PLACE_MAX])
{
	place_make_in(getenv("TMPDIR") ?: "/tmp", ret);
}

static inline int place_remove_one(const char *path, const struct stat *file, int kind,
				   struct FTW *at)
{
	(void)file, (void)kind, (void)at;
	return remove(path);
}

static inline void place_remove(const char *folder)
{
	assert_int_equal(nftw(folder, place_remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

#endif

/* SPDX-License-Identifier: MIT */
/* Packets a second over a veth pair. */
#ifndef PS_BENCH_LIVE_H
#define PS_BENCH_LIVE_H

#include "world.h"

enum live_path { LIVE_TX, LIVE_DISPATCH, LIVE_RANDOM, LIVE_FORWARD, N_LIVE_PATHS };

enum { LIVE_ALTERNATIONS = 10 };

struct live_result {
	double mpps[N_LIVE_PATHS][LIVE_ALTERNATIONS]; /* sorted */
	double median_mpps[N_LIVE_PATHS];
};

/* Makes two network namespaces that end with the process.  Uses up the world's hops.
 * -EBADMSG: frames were lost or arrived otherwise than expected, told on stderr. */
int live_measure(const struct world *world, const char *pin_dir, struct live_result *ret);
const char *live_name(enum live_path path);

#endif

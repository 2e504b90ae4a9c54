/* SPDX-License-Identifier: MIT */
/* bpftool's generated header casts const away. */
#ifndef PS_BENCH_SKEL_H
#define PS_BENCH_SKEL_H

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual"
#include "bench.skel.h"
#pragma GCC diagnostic pop

#endif

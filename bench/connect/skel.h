/* SPDX-License-Identifier: MIT */
/* bpftool's generated header casts const away. */
#ifndef PS_BENCH_CONNECT_SKEL_H
#define PS_BENCH_CONNECT_SKEL_H

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual"
#include "bench-connect.skel.h"
#pragma GCC diagnostic pop

#endif

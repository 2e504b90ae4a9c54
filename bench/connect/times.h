/* SPDX-License-Identifier: MIT */
/* Many times of one kind. */
#ifndef PS_BENCH_CONNECT_TIMES_H
#define PS_BENCH_CONNECT_TIMES_H

#include <stddef.h>
#include <stdint.h>

struct times {
	uint32_t *ns; /* owned */
	size_t n, size;
};

int times_add(struct times *times, const uint32_t *ns, size_t n);
/* Sorts; 0 where there are none. */
double times_percentile_us(struct times *times, unsigned percent);
void times_clear(struct times *times);

#endif

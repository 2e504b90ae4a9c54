/* SPDX-License-Identifier: MIT */
/* The life of one process of the crew. */
#ifndef PS_BENCH_CONNECT_WORKER_H
#define PS_BENCH_CONNECT_WORKER_H

#include "crew.h"

/* Obeys orders from the line until it is closed. */
void worker_run(const struct cgroups *cgroups, struct crew_board *board, unsigned worker, int line);

#endif

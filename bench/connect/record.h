/* SPDX-License-Identifier: MIT */
/* Claim and release of the record of ports alone, inside BPF. */
#ifndef PS_BENCH_CONNECT_RECORD_H
#define PS_BENCH_CONNECT_RECORD_H

enum { RECORD_SINKS = 65536 };

/* ns of one claim and its release, the smallest of the rounds; the loop's own cost is subtracted. */
struct record_result {
	double hot_ns;    /* one destination */
	double random_ns; /* RECORD_SINKS at random, each of which holds one more port */
	double loop_ns;
};

int record_measure(unsigned rounds, struct record_result *ret);

#endif

/* SPDX-License-Identifier: MIT */
/* What connect() costs, and whether it is exact. */
#ifndef PS_BENCH_CONNECT_MEASURE_H
#define PS_BENCH_CONNECT_MEASURE_H

#include "crew.h"
#include "times.h"

/* connect() and close() at low fill, in turns. */
struct pairs {
	struct times plain, outside, classed;
};

/* connect() towards one destination as it fills. */
enum part { PART_LOW, PART_HALF, PART_HIGH, PART_LAST, PART_FULL, N_PARTS };

struct fill {
	const char *name;
	enum place place;
	unsigned n_ports; /* nominal */
	unsigned n_used; /* connections that were made before the first refusal; of the last pass */
	struct times parts[N_PARTS];
};

/* Counts that should be 0. */
struct faults {
	unsigned spurious;   /* refusals while ports were free */
	unsigned duplicates; /* live connections with the same ends */
	uint64_t leaked;     /* differences of record and sockets */
	unsigned n_connects; /* of the churn */
	unsigned n_died;     /* connections reset by the peer while held: no fault of ours */
};

int measure_pairs(const struct crew *crew, const struct world *world, unsigned rounds,
		  struct pairs *ret);
/* One more pass: empty to full, then refusals; only the record's differences add to faults. */
int measure_fill(const struct crew *crew, const struct world *world, struct fill *fill,
		 struct faults *faults);
/* Four processes at once against the small slice, of which n_usable ports may be shared. */
int measure_faults(const struct crew *crew, const struct world *world, unsigned n_usable,
		   struct faults *faults);
void pairs_clear(struct pairs *pairs);
void fill_clear(struct fill *fill);

#endif

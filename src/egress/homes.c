// SPDX-License-Identifier: MIT
#include "egress/homes.h"

/* The finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
static uint64_t mix(uint64_t hash)
{
	hash += 0x9e3779b97f4a7c15;
	hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9;
	hash = (hash ^ hash >> 27) * 0x94d049bb133111eb;
	return hash ^ hash >> 31;
}

static uint64_t seed_of(const struct ps_ip *address)
{
	uint64_t halves[2];

	memcpy(halves, address->bytes, sizeof(halves));
	return mix(mix(halves[0]) ^ halves[1]);
}

/* Slices from slices[0] on of its address. */
static size_t run_of(const struct ps_egress_slice *slices, size_t n)
{
	size_t i = 1;

	while (i < n && ps_ip_cmp(&slices[i].address, &slices[0].address) == 0)
		i++;
	return i;
}

bool ps_homes_fill(const struct ps_egress_slice *slices, size_t n, struct ps_homes *ret)
{
	uint64_t best[PS_HOME_ROWS] = {0};
	size_t n_run;

	if (n == 0 || run_of(slices, n) == n)
		return false;
	for (size_t at = 0; at < n; at += n_run) {
		uint64_t seed = seed_of(&slices[at].address);

		n_run = run_of(slices + at, n - at);
		for (size_t row = 0; row < PS_HOME_ROWS; row++) {
			uint64_t weight = mix(seed + row);

			if (at && weight <= best[row])
				continue;
			best[row] = weight;
			ret->rows[row] = (struct ps_home){(uint16_t)at, (uint16_t)n_run};
		}
	}
	return true;
}

/* SPDX-License-Identifier: MIT */
/*
 * Port ranges and slices.  One range type, half open, everywhere; a slice is an aligned block of
 * 1 << shift ports, so its index is port >> shift (design.md §2).
 */
#ifndef PS_BASE_RANGE_H
#define PS_BASE_RANGE_H

#include <stdbool.h>
#include <stdint.h>

/* Ports [first, first + count), host order.  count is 32 bits wide: 65,536 does not fit in 16. */
struct ps_range {
	uint16_t first;
	uint32_t count;
};

enum {
	PS_SHIFT_MIN = 7,      /* 128 ports */
	PS_SHIFT_MAX = 14,     /* 16,384 ports */
	PS_SHIFT_DEFAULT = 11, /* 2,048 ports: 31 servers an address (facts.md SU-3) */
	PS_SHIFT_WHOLE = 16,   /* `slice: whole`: the address belongs to one host */
	PS_PORT_FIRST = 1024,  /* ports below are never leased (facts.md SU-3) */
	PS_PORT_COUNT = 65536,
};

static inline bool ps_range_contains(struct ps_range range, uint16_t port)
{
	return port >= range.first && (uint32_t)(port - range.first) < range.count;
}

/* How many slices an address has, the unusable ones below PS_PORT_FIRST included. */
static inline unsigned ps_slice_count(unsigned shift)
{
	return PS_PORT_COUNT >> shift;
}

/* The first slice that may be leased: it touches no port below 1,024, or is the whole address. */
static inline unsigned ps_slice_first(unsigned shift)
{
	if (shift == PS_SHIFT_WHOLE)
		return 0;
	return (PS_PORT_FIRST + (1u << shift) - 1) >> shift;
}

/* The ports a holder of the slice may use; a whole address starts at 1,024. */
static inline struct ps_range ps_slice_range(unsigned slice, unsigned shift)
{
	if (shift == PS_SHIFT_WHOLE)
		return (struct ps_range){PS_PORT_FIRST, PS_PORT_COUNT - PS_PORT_FIRST};
	return (struct ps_range){(uint16_t)(slice << shift), 1u << shift};
}

#endif

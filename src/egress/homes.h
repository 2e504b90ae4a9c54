/* SPDX-License-Identifier: MIT */
/* Which of a pool's addresses with equal standing each user is given first.  Pure. */
#ifndef PS_EGRESS_HOMES_H
#define PS_EGRESS_HOMES_H

#include "egress/egress.h"

/* Fills *ret for a choice of n slices (at most PS_CHOICE_SLICES_MAX), those of one address side by
 * side: each row takes one of the addresses by rendezvous hashing, so that an address that comes or
 * goes moves only the users that it wins or loses.  False, and *ret untouched, when there are less
 * than two addresses.  Cost: 1,024 hashes an address. */
bool ps_homes_fill(const struct ps_egress_slice *slices, size_t n, struct ps_homes *ret);

#endif

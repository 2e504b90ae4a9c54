/* SPDX-License-Identifier: MIT */
/*
 * An address moves from one site to another.  The authority for an address is the store of the site
 * it is at; a move is a chain of compare-and-swaps, each of which follows from what the sites' stores
 * say, so that anybody may carry on where another left off, and doing a step twice does nothing.
 *
 *   origin: here --begin--> leaving --(no slice of it is held)--> moved
 *   every other site: its copy becomes moved
 *   target: moved --(every site's dispatchers have confirmed)--> here
 *
 * Each step raises the epoch or copies it; of two records the one with the higher epoch is right.
 */
#ifndef PS_LEASE_MOVE_H
#define PS_LEASE_MOVE_H

#include "lease/lease.h"

/* What one site's store says about the address. */
struct ps_move_site {
	struct ps_address_record record;
	uint64_t revision;
	bool is_confirmed; /* every dispatcher registered there has confirmed `revision` */
	bool is_unheld;    /* no slice is granted, active, draining or in quarantine there, seen at
			    * `revision` or later */
};

/* Writes `record` into the store of `site` if its record still has `revision`. */
struct ps_move_step {
	uint16_t site;
	uint64_t revision;
	struct ps_address_record record;
};

/* The first step, in the store of the site the address is at.  -EBUSY: it is on its way already, or
 * drained; -EALREADY: it is there; -EREMOTE: that store is not the authority. */
int ps_move_begin(const struct ps_move_site *site, uint16_t number, uint16_t target,
		  struct ps_move_step *ret);
/* Back, while slices still drain.  -EBUSY: too late, move it back instead; -EALREADY: not moving. */
int ps_move_cancel(const struct ps_move_site *site, uint16_t number, struct ps_move_step *ret);
/* Onto `target` although the site it was at does not answer: for a site that is dead, all of whose
 * leases and quarantines are over.  The caller has made the operator say so. */
void ps_move_force(const struct ps_move_site *sites, size_t n_sites, uint16_t target,
		   struct ps_move_step *ret);
/* The next step, sites by number; false: nothing to do now.  A site that cannot be read has revision
 * 0 and is waited for. */
bool ps_move_next(const struct ps_move_site *sites, size_t n_sites, struct ps_move_step *ret);
/* Whether a core's site may be told `is_unheld`, `is_confirmed` for this address. */
bool ps_move_is_unheld(const struct ps_lease_core *core, uint32_t address);
bool ps_move_is_confirmed(const struct ps_lease_core *core, uint32_t address);

#endif

// SPDX-License-Identifier: MIT
#include "lease/move.h"

#include <errno.h>

#include "lease/core.h"

static void fill(struct ps_move_step *ret, uint16_t number, const struct ps_move_site *site)
{
	ret->site = number;
	ret->revision = site->revision;
	ret->record = site->record;
}

int ps_move_begin(const struct ps_move_site *site, uint16_t number, uint16_t target,
		  struct ps_move_step *ret)
{
	const struct ps_address_record *record = &site->record;

	if (!site->revision || record->site != number)
		return -EREMOTE;
	if (record->phase != PS_ADDRESS_HERE || record->is_drained)
		return -EBUSY;
	if (target == number)
		return -EALREADY;
	fill(ret, number, site);
	ret->record.phase = PS_ADDRESS_LEAVING;
	ret->record.target = target;
	ret->record.epoch++;
	return 0;
}

int ps_move_cancel(const struct ps_move_site *site, uint16_t number, struct ps_move_step *ret)
{
	const struct ps_address_record *record = &site->record;

	if (record->phase == PS_ADDRESS_MOVED || record->site != number)
		return -EBUSY;
	if (record->phase != PS_ADDRESS_LEAVING)
		return -EALREADY;
	fill(ret, number, site);
	ret->record.phase = PS_ADDRESS_HERE;
	ret->record.target = number;
	ret->record.epoch++;
	return 0;
}

static size_t newest(const struct ps_move_site *sites, size_t n_sites)
{
	size_t found = 0;

	for (size_t i = 1; i < n_sites; i++)
		if (sites[i].record.epoch > sites[found].record.epoch)
			found = i;
	return found;
}

void ps_move_force(const struct ps_move_site *sites, size_t n_sites, uint16_t target,
		   struct ps_move_step *ret)
{
	uint32_t epoch = sites[newest(sites, n_sites)].record.epoch;

	fill(ret, target, &sites[target]);
	/* Past whatever the dead site may have begun and not told: leaving, moved, here. */
	ret->record = (struct ps_address_record){
		.epoch = epoch + 3, .site = target, .target = target, .phase = PS_ADDRESS_HERE};
}

static bool has_left(const struct ps_move_site *sites, size_t n_sites, size_t from,
		     struct ps_move_step *ret)
{
	const struct ps_move_site *origin = &sites[from];

	if (origin->record.target >= n_sites || !origin->is_unheld)
		return false;
	fill(ret, (uint16_t)from, origin);
	ret->record.phase = PS_ADDRESS_MOVED;
	ret->record.site = origin->record.target;
	ret->record.epoch++;
	return true;
}

/* A site that has not heard the newest yet; is_all tells whether the rest has, dispatchers too. */
static bool copy(const struct ps_move_site *sites, size_t n_sites, size_t from,
		 struct ps_move_step *ret, bool *is_all)
{
	*is_all = true;
	for (size_t i = 0; i < n_sites; i++) {
		if (!sites[i].revision || !sites[i].is_confirmed)
			*is_all = false;
		if (!sites[i].revision || sites[i].record.epoch >= sites[from].record.epoch)
			continue;
		fill(ret, (uint16_t)i, &sites[i]);
		ret->record = sites[from].record;
		return true;
	}
	return false;
}

bool ps_move_next(const struct ps_move_site *sites, size_t n_sites, struct ps_move_step *ret)
{
	size_t from = newest(sites, n_sites);
	const struct ps_address_record *record = &sites[from].record;
	bool is_all;

	if (!sites[from].revision || record->site >= n_sites)
		return false;
	/* Only the authority itself says what has left it. */
	if (record->phase == PS_ADDRESS_LEAVING)
		return record->site == from && has_left(sites, n_sites, from, ret);
	if (copy(sites, n_sites, from, ret, &is_all))
		return true;
	if (record->phase != PS_ADDRESS_MOVED || !PS_GUARD(SITE, is_all))
		return false;
	fill(ret, record->site, &sites[record->site]);
	ret->record.phase = PS_ADDRESS_HERE;
	ret->record.epoch++;
	return true;
}

bool ps_move_is_unheld(const struct ps_lease_core *core, uint32_t address)
{
	if (!ps_lease_is_settled(core) || core->revision < core->addresses[address].revision)
		return false;
	for (size_t i = 0; i < core->n_slots; i++) {
		unsigned state = core->slots[i].record.state;

		if (core->slots[i].address == address && state != PS_SLICE_FREE &&
		    state != PS_SLICE_FREE_NEW)
			return false;
	}
	return true;
}

bool ps_move_is_confirmed(const struct ps_lease_core *core, uint32_t address)
{
	return ps_lease_is_settled(core) && core->addresses[address].revision &&
	       ps_view_all_confirmed(core, core->addresses[address].revision);
}

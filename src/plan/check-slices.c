// SPDX-License-Identifier: MIT
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plan/check.h"

/* Slices of one address, as the file deals them. */
struct dealing {
	struct ps_check *c;
	struct ps_ip address;
	struct ps_place place;
	unsigned shift;
	const struct draft_holding *owners[PS_PORT_COUNT >> PS_SHIFT_MIN];
	size_t room; /* elements of c->plan->grants */
};

static const char *skip_space(const char *p)
{
	while (*p == ' ' || *p == '\t')
		p++;
	return p;
}

/* A number of at most five digits. */
static bool take_number(const char **p, unsigned *ret)
{
	const char *start = skip_space(*p);
	unsigned v = 0;

	for (*p = start; isdigit((unsigned char)**p) && *p - start < 5; ++*p)
		v = v * 10 + (unsigned)(**p - '0');
	if (*p == start || isdigit((unsigned char)**p))
		return false;
	*p = skip_space(*p);
	*ret = v;
	return true;
}

/* "3" or "3-7" up to a comma or the end. */
static bool take_range(const char **p, unsigned *first, unsigned *last)
{
	if (!take_number(p, first))
		return false;
	*last = *first;
	if (**p == '-') {
		++*p;
		if (!take_number(p, last) || *last < *first)
			return false;
	}
	if (**p == ',')
		++*p;
	else if (**p)
		return false;
	return true;
}

static bool in_reach(struct dealing *d, const struct draft_holding *holding, unsigned first,
		     unsigned last)
{
	unsigned low = ps_slice_first(d->shift), count = ps_slice_count(d->shift);
	char text[PS_IP_TEXT_MAX];

	if (first >= low && last < count)
		return true;
	ps_ip_format(&d->address, text);
	if (d->shift == PS_SHIFT_WHOLE)
		ps_walk_find(d->c->w, holding->slices.at,
			     "slice %u of %s: a whole address has only slice 0", last, text);
	else
		ps_walk_find(d->c->w, holding->slices.at,
			     "slice %u of %s: its slices that can be leased are %u to %u",
			     first < low ? first : last, text, low, count - 1);
	return false;
}

static void deal_range(struct dealing *d, const struct draft_holding *holding, unsigned first,
		       unsigned last)
{
	char text[PS_IP_TEXT_MAX];

	for (unsigned slice = first; slice <= last; slice++) {
		const struct draft_holding *other = d->owners[slice];

		if (other) {
			ps_walk_find(d->c->w, holding->slices.at,
				     "slice %u of %s is dealt twice, also to \"%s\" on line %u: a "
				     "slice has one owner",
				     slice, ps_ip_format(&d->address, text),
				     ps_quote(other->host.text).text, other->slices.at.line);
			return;
		}
		d->owners[slice] = holding;
	}
}

static void deal_holding(struct dealing *d, const struct draft_holding *holding)
{
	unsigned host = ps_check_name(d->c, PS_KIND_HOST, &holding->host);
	const char *p = holding->slices.text;
	unsigned first, last;

	if (host != PS_NOWHERE && d->place.site != PS_NOWHERE &&
	    d->c->plan->hosts[host].site != PS_NOWHERE &&
	    d->c->plan->hosts[host].site != d->place.site)
		ps_walk_find(d->c->w, holding->host.at,
			     "host \"%s\" is not at site \"%s\", where this address is",
			     ps_quote(holding->host.text).text,
			     ps_quote(d->c->plan->sites[d->place.site].name).text);
	do {
		if (!take_range(&p, &first, &last)) {
			ps_walk_find(d->c->w, holding->slices.at,
				     "\"%s\" is not a list of slices like \"3-4,7\"",
				     ps_quote(holding->slices.text).text);
			return;
		}
		if (!in_reach(d, holding, first, last))
			return;
		deal_range(d, holding, first, last);
	} while (*p);
}

static bool make_room(struct dealing *d)
{
	struct ps_plan *plan = d->c->plan;
	size_t room = d->room ? 2 * d->room : 64;
	struct ps_grant *grants;

	if (plan->n_grants < d->room)
		return true;
	grants = reallocarray(plan->grants, room, sizeof(*grants));
	if (!grants) {
		d->c->w->error = -ENOMEM;
		return false;
	}
	plan->grants = grants;
	d->room = room;
	return true;
}

static void grant_owned(struct dealing *d)
{
	struct ps_plan *plan = d->c->plan;

	for (unsigned slice = 0; slice < PS_N_ELEMENTS(d->owners); slice++) {
		int host;

		if (!d->owners[slice])
			continue;
		host = ps_plan_find_host(plan, d->owners[slice]->host.text);
		if (host == PS_PLAN_NONE)
			continue;
		if (plan->n_grants >= PS_PLAN_GRANTS_MAX || !make_room(d))
			return;
		plan->grants[plan->n_grants++] =
			(struct ps_grant){d->address, slice, (unsigned)host, d->place.pool};
	}
}

static void deal_address(struct dealing *d, const struct draft_dealt *dealt)
{
	const struct draft_holding *holdings = dealt->holdings.items;

	if (ps_ip_parse(dealt->address.text, &d->address) < 0) {
		ps_walk_find(d->c->w, dealt->address.at,
			     "\"%s\" is not an address: slices stand below one like 192.0.2.1",
			     ps_quote(dealt->address.text).text);
		return;
	}
	if (ps_plan_locate(d->c->plan, &d->address, &d->place) < 0) {
		ps_walk_find(d->c->w, dealt->address.at,
			     "%s is not a shared address: no pool has it",
			     ps_quote(dealt->address.text).text);
		return;
	}
	d->shift = d->c->plan->pools[d->place.pool].shift;
	memset(d->owners, 0, sizeof(d->owners));
	for (size_t i = 0; i < dealt->holdings.n; i++)
		deal_holding(d, &holdings[i]);
	grant_owned(d);
}

/* An address of `slices` with its place there. */
struct key {
	struct ps_ip ip;
	struct ps_spot at;
};

static int by_ip(const void *a, const void *b)
{
	const struct key *x = a, *y = b;
	int r = ps_ip_cmp(&x->ip, &y->ip);

	return r ? r : (x->at.line > y->at.line) - (x->at.line < y->at.line);
}

/* Keys of a mapping differ, but IPv6 addresses have many spellings. */
static void check_spellings(struct ps_check *c)
{
	const struct draft_dealt *draft = c->draft->slices.items;
	ps_auto_mem struct key *keys = ps_walk_alloc(c->w, c->draft->slices.n, sizeof(struct key));
	char text[PS_IP_TEXT_MAX];
	size_t n = 0;

	for (size_t i = 0; keys && i < c->draft->slices.n; i++) {
		keys[n].at = draft[i].address.at;
		n += ps_ip_parse(draft[i].address.text, &keys[n].ip) == 0;
	}
	if (n)
		qsort(keys, n, sizeof(*keys), by_ip);
	for (size_t i = 1; i < n; i++) {
		if (ps_ip_cmp(&keys[i - 1].ip, &keys[i].ip) == 0)
			ps_walk_find(c->w, keys[i].at,
				     "%s is already on line %u in another spelling: remove one",
				     ps_ip_format(&keys[i].ip, text), keys[i - 1].at.line);
	}
}

void ps_check_slices(struct ps_check *c)
{
	const struct draft_dealt *draft = c->draft->slices.items;
	struct dealing d = {.c = c};

	check_spellings(c);
	for (size_t i = 0; i < c->draft->slices.n && !c->w->error; i++)
		deal_address(&d, &draft[i]);
	if (c->plan->n_grants >= PS_PLAN_GRANTS_MAX)
		ps_walk_find(c->w, c->draft->slices.at,
			     "more than %d slices are dealt: make them larger",
			     PS_PLAN_GRANTS_MAX - 1);
	if (c->plan->n_grants)
		qsort(c->plan->grants, c->plan->n_grants, sizeof(*c->plan->grants), ps_grant_order);
}

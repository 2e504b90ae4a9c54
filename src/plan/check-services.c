// SPDX-License-Identifier: MIT
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "plan/check.h"

/* A service of the file and what it became. */
struct published {
	const struct draft_service *draft;
	struct ps_service service;
	struct ps_place place;
	unsigned slice;
	bool sound; /* it lies in a slice that its host may hold */
};

static void check_owner(struct ps_check *c, const struct published *p)
{
	const struct draft_service *draft = p->draft;
	const struct ps_grant *grant =
		ps_grant_find(c->plan->grants, c->plan->n_grants, &draft->address.ip, p->slice);
	char ip[PS_IP_TEXT_MAX];

	ps_ip_format(&draft->address.ip, ip);
	if (grant && grant->host != p->service.host)
		ps_walk_find(c->w, draft->port.at,
			     "port %u of %s lies in slice %u, which \"%s\" holds: publish it there "
			     "or choose a port of \"%s\"",
			     p->service.port, ip, p->slice,
			     ps_quote(c->plan->hosts[grant->host].name).text,
			     ps_quote(draft->host.text).text);
	else if (!grant && !c->undealt)
		ps_walk_find(c->w, draft->port.at,
			     "port %u lies in slice %u of %s, which nobody holds: run `portslice "
			     "plan deal` first, or give \"%s\" the slice %u of %s",
			     p->service.port, p->slice, ip, ps_quote(draft->host.text).text,
			     p->slice, ip);
}

/* True when the address and the port can be published at all. */
static bool check_place(struct ps_check *c, struct published *p)
{
	const struct draft_service *draft = p->draft;
	char ip[PS_IP_TEXT_MAX];
	unsigned shift, first;

	ps_ip_format(&draft->address.ip, ip);
	if (ps_plan_locate(c->plan, &draft->address.ip, &p->place) < 0) {
		ps_walk_find(c->w, draft->address.at, "%s is not a shared address: no pool has it",
			     ip);
		return false;
	}
	shift = c->plan->pools[p->place.pool].shift;
	first = shift == PS_SHIFT_WHOLE ? PS_PORT_FIRST : ps_slice_first(shift) << shift;
	p->slice = (unsigned)p->service.port >> shift;
	if (draft->port.set && p->service.port < first) {
		ps_walk_find(c->w, draft->port.at,
			     "port %u of %s can belong to nobody: use one from %u to 65535",
			     p->service.port, ip, first);
		return false;
	}
	return true;
}

static void check_service(struct ps_check *c, struct published *p)
{
	const struct draft_service *draft = p->draft;
	bool placed = draft->address.set && check_place(c, p);
	unsigned host = p->service.host, site;

	if (!placed || host == PS_NOWHERE || !draft->port.set)
		return;
	site = c->plan->hosts[host].site;
	if (site == PS_NOWHERE || p->place.site == PS_NOWHERE)
		return;
	if (site == p->place.site) {
		p->sound = true;
		check_owner(c, p);
	} else {
		ps_walk_find(c->w, draft->host.at,
			     "host \"%s\" is not at site \"%s\", where the address is",
			     ps_quote(draft->host.text).text,
			     ps_quote(c->plan->sites[p->place.site].name).text);
	}
}

static void read_service(struct ps_check *c, const struct draft_service *draft,
			 struct published *ret)
{
	*ret = (struct published){
		.draft = draft,
		.service = {.address = draft->address.ip,
			    .port = (uint16_t)draft->port.value,
			    .protocol = (uint8_t)draft->protocol.value,
			    .host = ps_check_name(c, PS_KIND_HOST, &draft->host)},
	};
	check_service(c, ret);
}

static int by_address(const void *a, const void *b)
{
	const struct published *x = a, *y = b;
	int r = ps_service_order(&x->service, &y->service);

	return r ? r : (x->draft > y->draft) - (x->draft < y->draft);
}

static void check_neighbours(struct ps_check *c, const struct published *first,
			     const struct published *second)
{
	unsigned line = first->draft->port.at.line;
	char ip[PS_IP_TEXT_MAX];

	if (!first->draft->address.set || !second->draft->port.set || !second->draft->protocol.set)
		return;
	ps_ip_format(&second->service.address, ip);
	if (ps_service_order(&first->service, &second->service) == 0)
		ps_walk_find(c->w, second->draft->port.at,
			     "%s port %u of %s is already published on line %u: choose another",
			     second->service.protocol == IPPROTO_TCP ? "tcp" : "udp",
			     second->service.port, ip, line);
	else if (c->undealt && first->sound && second->sound && first->slice == second->slice &&
		 ps_ip_cmp(&first->service.address, &second->service.address) == 0 &&
		 first->service.host != second->service.host)
		ps_walk_find(
			c->w, second->draft->port.at,
			"port %u lies in slice %u of %s like the service on line %u, which has "
			"another host: a slice has one owner",
			second->service.port, second->slice, ip, line);
}

static int by_service_name(const void *a, const void *b)
{
	const struct published *x = a, *y = b;
	int r = strcmp(x->service.name, y->service.name);

	return r ? r : (x->draft > y->draft) - (x->draft < y->draft);
}

static void check_names(struct ps_check *c, struct published *all, size_t n)
{
	qsort(all, n, sizeof(*all), by_service_name);
	for (size_t i = 1; i < n; i++) {
		if (all[i].draft->name.text &&
		    strcmp(all[i - 1].service.name, all[i].service.name) == 0)
			ps_walk_find(c->w, all[i].draft->name.at,
				     "service \"%s\" is already on line %u: rename one",
				     ps_quote(all[i].service.name).text,
				     all[i - 1].draft->name.at.line);
	}
}

void ps_check_services(struct ps_check *c)
{
	const struct draft_service *draft = c->draft->services.items;
	size_t n = c->draft->services.n;
	ps_auto_mem struct published *all = ps_walk_alloc(c->w, n, sizeof(struct published));
	struct ps_plan *plan = c->plan;

	plan->services = ps_walk_alloc(c->w, n, sizeof(*plan->services));
	for (size_t i = 0; plan->services && i < n; i++) {
		const char *name = draft[i].name.text;

		read_service(c, &draft[i], &all[i]);
		all[i].service.name = ps_check_copy(c, name ? name : "");
		if (!all[i].service.name)
			return;
		plan->services[plan->n_services++] = all[i].service;
	}
	if (c->w->error || n == 0)
		return;
	check_names(c, all, n);
	qsort(all, n, sizeof(*all), by_address);
	for (size_t i = 1; i < n; i++)
		check_neighbours(c, &all[i - 1], &all[i]);
	qsort(plan->services, n, sizeof(*plan->services), ps_service_order);
}

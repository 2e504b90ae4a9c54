// SPDX-License-Identifier: MIT
#include <stdlib.h>

#include "plan/check.h"

/* One unicast address of the plan. */
struct node {
	struct ps_ip ip;
	struct ps_spot at;
	bool is_edge;
	const char *name;
};

static int by_ip(const void *a, const void *b)
{
	const struct node *x = a, *y = b;
	int r = ps_ip_cmp(&x->ip, &y->ip);

	if (r)
		return r;
	if (x->is_edge != y->is_edge)
		return x->is_edge - y->is_edge;
	return (x->at.line > y->at.line) - (x->at.line < y->at.line);
}

static size_t gather_nodes(const struct ps_check *c, struct node *nodes)
{
	const struct draft_site *sites = c->draft->sites.items;
	const struct draft_host *hosts = c->draft->hosts.items;
	size_t n = 0;

	for (size_t i = 0; i < c->draft->sites.n; i++) {
		if (sites[i].edge.set)
			nodes[n++] = (struct node){sites[i].edge.ip, sites[i].edge.at, true,
						   sites[i].name.text};
	}
	for (size_t i = 0; i < c->draft->hosts.n; i++) {
		if (hosts[i].underlay.set)
			nodes[n++] = (struct node){hosts[i].underlay.ip, hosts[i].underlay.at,
						   false, hosts[i].name.text};
	}
	return n;
}

/* Nodes in the order of the file: the first says which family the underlay has. */
static void check_families(struct ps_check *c, const struct node *nodes, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		bool is_v4 = ps_ip_is_v4(&nodes[i].ip);

		if (is_v4 == ps_ip_is_v4(&nodes[0].ip))
			continue;
		ps_walk_find(c->w, nodes[i].at,
			     "this %s address is %s, that of \"%s\" on line %u is %s: give all "
			     "underlay and edge addresses of a plan one family",
			     nodes[i].is_edge ? "edge" : "underlay", is_v4 ? "IPv4" : "IPv6",
			     ps_quote(nodes[0].name).text, nodes[0].at.line,
			     is_v4 ? "IPv6" : "IPv4");
	}
}

static void check_unshared(struct ps_check *c, const struct node *node)
{
	const char *what = node->is_edge ? "edge" : "underlay";
	char text[PS_IP_TEXT_MAX];
	struct ps_place place;

	if (ps_plan_locate(c->plan, &node->ip, &place) == 0)
		ps_walk_find(c->w, node->at,
			     "%s address %s lies among the shared addresses of pool \"%s\": give "
			     "one that is not shared",
			     what, ps_ip_format(&node->ip, text),
			     ps_quote(c->plan->pools[place.pool].name).text);
}

void ps_check_underlay(struct ps_check *c)
{
	ps_auto_mem struct node *nodes =
		ps_walk_alloc(c->w, c->draft->sites.n + c->draft->hosts.n, sizeof(struct node));
	char text[PS_IP_TEXT_MAX];
	size_t n;

	if (!nodes)
		return;
	n = gather_nodes(c, nodes);
	check_families(c, nodes, n);
	qsort(nodes, n, sizeof(*nodes), by_ip);
	for (size_t i = 0; i < n; i++) {
		check_unshared(c, &nodes[i]);
		if (i > 0 && nodes[i].is_edge == nodes[i - 1].is_edge &&
		    ps_ip_cmp(&nodes[i].ip, &nodes[i - 1].ip) == 0)
			ps_walk_find(c->w, nodes[i].at,
				     "%s address %s is that of \"%s\" on line %u too: each needs "
				     "its own",
				     nodes[i].is_edge ? "edge" : "underlay",
				     ps_ip_format(&nodes[i].ip, text),
				     ps_quote(nodes[i - 1].name).text, nodes[i - 1].at.line);
	}
}

static bool shares_v6(const struct ps_plan *plan)
{
	for (size_t i = 0; i < plan->index->n_blocks; i++)
		if (!ps_ip_is_v4(&plan->index->blocks[i].prefix.ip))
			return true;
	return false;
}

/* Senders need not believe in less than 1,280 bytes of IPv6, and its routers make no fragments. */
void ps_check_mtus(struct ps_check *c)
{
	const struct draft_host *draft = c->draft->hosts.items;
	bool over_v6 = c->plan->n_hosts && draft[0].underlay.set && ps_plan_is_over_v6(c->plan);
	unsigned least = PS_PLAN_IP6_MTU_MIN + (over_v6 ? PS_PLAN_OUTER_V6 : PS_PLAN_OUTER_V4);

	if (!over_v6 && !shares_v6(c->plan))
		return;
	for (size_t i = 0; i < c->plan->n_hosts; i++) {
		if (c->plan->hosts[i].mtu < least)
			ps_walk_find(c->w, draft[i].mtu.at,
				     "`mtu` is %u: %u bytes of IPv6 must fit, encapsulated, so it "
				     "must be at least %u",
				     c->plan->hosts[i].mtu, PS_PLAN_IP6_MTU_MIN, least);
	}
}

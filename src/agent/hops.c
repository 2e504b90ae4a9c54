// SPDX-License-Identifier: MIT
#include "agent/hops.h"

#include <string.h>

#include "base/own.h"

/* Addresses that only the default route covers on any sensible host: TEST-NET-1 (RFC 5737) and the
 * newer prefix for documentation (RFC 9637). */
static const char somewhere[] = "192.0.2.1", somewhere6[] = "3fff::1";

struct resolver {
	struct ps_net *net;
	struct ps_net_link *links;
	size_t n_links;
	unsigned oif; /* interface of the underlay, 0: any */
	int n_unresolved;
};

static const struct ps_net_link *link_by_index(const struct resolver *resolver, unsigned ifindex)
{
	for (size_t i = 0; i < resolver->n_links; i++)
		if (resolver->links[i].ifindex == ifindex)
			return &resolver->links[i];
	return NULL;
}

/* The neighbour's MAC address; where it is unknown or old the kernel is asked to resolve it, since
 * packets that the dispatcher sends pass its neighbour table by. */
static int find_mac(struct resolver *resolver, const struct ps_net_route *route, uint8_t ret_mac[6])
{
	int r = ps_net_neighbour(resolver->net, route->ifindex, &route->next, ret_mac);

	if (r != 0)
		(void)ps_net_solicit(resolver->net, route->ifindex, &route->next);
	return r < 0 ? r : 0;
}

/* An empty hop (ifindex 0) where the route or the neighbour is not known. */
static struct ps_hop resolve(struct resolver *resolver, const struct ps_ip *dst, unsigned oif)
{
	const struct ps_net_link *link;
	struct ps_net_route route;
	struct ps_hop hop = {0};

	if (ps_net_route(resolver->net, dst, oif, &route) < 0 ||
	    find_mac(resolver, &route, hop.dst_mac) < 0) {
		resolver->n_unresolved++;
		return (struct ps_hop){0};
	}
	link = link_by_index(resolver, route.ifindex);
	if (!link)
		return (struct ps_hop){0};
	memcpy(hop.src_mac, link->mac, sizeof(hop.src_mac));
	hop.ifindex = route.ifindex;
	return hop;
}

static int refresh_hosts(struct resolver *resolver, const struct ps_plan *plan, unsigned self,
			 struct ps_dispatch *dispatch)
{
	for (unsigned i = 0; i < plan->n_hosts; i++) {
		struct ps_hop hop;
		int r;

		if (i == self || plan->hosts[i].site != plan->hosts[self].site)
			continue;
		hop = resolve(resolver, &plan->hosts[i].underlay, resolver->oif);
		r = ps_dispatch_set_hop(dispatch, i, &hop);
		if (r < 0)
			return r;
	}
	return 0;
}

static int refresh_edges(struct resolver *resolver, const struct ps_plan *plan, unsigned self,
			 struct ps_dispatch *dispatch)
{
	for (unsigned i = 0; i < plan->n_sites; i++) {
		struct ps_hop hop;
		int r;

		if (i == plan->hosts[self].site || !plan->sites[i].has_edge)
			continue;
		hop = resolve(resolver, &plan->sites[i].edge, resolver->oif);
		r = ps_dispatch_set_edge_hop(dispatch, i, &hop);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Where answers to packets that another site sent here leave: by the default route of their family.
 * Routers that tell hosts every route give them no default one: then by the way to the other sites,
 * which is the same router's, whatever family the underlay has. */
static struct ps_hop resolve_gateway(struct resolver *resolver, const struct ps_plan *plan,
				     unsigned self, const char *beyond)
{
	struct ps_hop hop = {0};
	struct ps_ip dst;

	if (ps_ip_parse(beyond, &dst) == 0)
		hop = resolve(resolver, &dst, 0);
	for (unsigned i = 0; i < plan->n_sites && !hop.ifindex; i++)
		if (i != plan->hosts[self].site && plan->sites[i].has_edge)
			hop = resolve(resolver, &plan->sites[i].edge, 0);
	return hop;
}

static int refresh_gateways(struct resolver *resolver, const struct ps_plan *plan, unsigned self,
			    struct ps_dispatch *dispatch)
{
	struct ps_hop hop = resolve_gateway(resolver, plan, self, somewhere);
	int r = ps_dispatch_set_gateway(dispatch, &hop);

	if (r < 0)
		return r;
	hop = resolve_gateway(resolver, plan, self, somewhere6);
	return ps_dispatch_set_gateway6(dispatch, &hop);
}

int ps_hops_refresh(struct ps_net *net, const struct ps_plan *plan, unsigned self,
		    struct ps_dispatch *dispatch)
{
	ps_auto_mem struct ps_net_link *links = NULL;
	struct resolver resolver = {.net = net};
	int r = ps_net_links(net, &links, &resolver.n_links);

	if (r < 0)
		return r;
	resolver.links = links;
	if (plan->hosts[self].underlay_interface)
		resolver.oif = if_nametoindex(plan->hosts[self].underlay_interface);
	r = refresh_gateways(&resolver, plan, self, dispatch);
	if (r == 0)
		r = refresh_hosts(&resolver, plan, self, dispatch);
	if (r == 0)
		r = refresh_edges(&resolver, plan, self, dispatch);
	return r < 0 ? r : resolver.n_unresolved;
}

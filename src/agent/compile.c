// SPDX-License-Identifier: MIT
#include "agent/compile.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "base/own.h"

enum {
	HEADERS_V4 = 40,      /* IPv4 and TCP header without options, bytes */
	REJECTS_PER_S = 1000, /* per CPU: about 100 kbit/s, enough to end honest half-open peers */
};

static int add_block(struct ps_table *table, const struct ps_pool *pool,
		     const struct ps_block *block)
{
	uint64_t n = ps_prefix_size(&block->prefix);

	for (uint64_t i = 0; i < n; i++) {
		struct ps_ip ip = ps_ip_add(&block->prefix.ip, i);
		struct ps_table_address address = {
			.ip = ip,
			.site = block->site,
			.shift = pool->shift,
			.drop = pool->unowned == PS_UNOWNED_DROP,
			.silent = pool->echo == PS_ECHO_DROP,
		};
		int r = ps_table_add_address(table, &address);

		if (r < 0)
			return r;
	}
	return 0;
}

static int add_addresses(struct ps_table *table, const struct ps_plan *plan)
{
	for (size_t i = 0; i < plan->n_pools; i++) {
		for (size_t j = 0; j < plan->pools[i].n_blocks; j++) {
			int r = add_block(table, &plan->pools[i], &plan->pools[i].blocks[j]);

			if (r < 0)
				return r;
		}
	}
	return 0;
}

static int add_owners(struct ps_table *table, const struct ps_plan *plan, unsigned site)
{
	for (size_t i = 0; i < plan->n_grants; i++) {
		const struct ps_grant *grant = &plan->grants[i];
		int r;

		if (plan->hosts[grant->host].site != site)
			continue;
		r = ps_table_set_owner(table, &grant->address, grant->slice, grant->host);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_peers(struct ps_table *table, const struct ps_plan *plan)
{
	int r = 0;

	for (size_t i = 0; i < plan->n_hosts && r == 0; i++)
		r = ps_table_set_host(table, (unsigned)i, &plan->hosts[i].underlay);
	for (size_t i = 0; i < plan->n_sites && r == 0; i++)
		if (plan->sites[i].has_edge)
			r = ps_table_set_site(table, (unsigned)i, &plan->sites[i].edge);
	return r;
}

static int add_services(struct ps_table *table, const struct ps_plan *plan, unsigned self)
{
	for (size_t i = 0; i < plan->n_services; i++) {
		const struct ps_service *service = &plan->services[i];
		int r;

		if (service->host != self)
			continue;
		r = ps_table_add_service(table, &service->address, service->port,
					 service->protocol);
		if (r < 0)
			return r;
	}
	return 0;
}

int ps_compile_table(const struct ps_plan *plan, unsigned self, struct ps_table **ret)
{
	ps_auto(ps_table_free) struct ps_table *table = NULL;
	const struct ps_host *host = &plan->hosts[self];
	const struct ps_site *site = &plan->sites[host->site];
	struct ps_table_self who = {
		.underlay = host->underlay,
		.edge = site->has_edge ? site->edge : (struct ps_ip){{0}},
		.site = host->site,
		.host = self,
		.mtu = host->mtu,
	};
	int r = ps_table_new(&who, &table);

	if (r == 0)
		r = add_peers(table, plan);
	if (r == 0)
		r = add_addresses(table, plan);
	if (r == 0)
		r = add_owners(table, plan, host->site);
	if (r == 0)
		r = add_services(table, plan, self);
	if (r < 0)
		return r;
	table->config.reject_per_s = REJECTS_PER_S;
	*ret = ps_move(table);
	return 0;
}

static struct ps_egress_slice slice_of(const struct ps_plan *plan, const struct ps_grant *grant)
{
	unsigned shift = plan->pools[grant->pool].shift;

	return (struct ps_egress_slice){
		.ip4_be = ps_ip_v4_be(&grant->address),
		.ports = ps_slice_range(grant->slice, shift),
		.shift = shift,
	};
}

int ps_compile_slices(const struct ps_plan *plan, unsigned self, struct ps_egress_slice **ret,
		      size_t *ret_n)
{
	struct ps_egress_slice *slices = calloc(plan->n_grants + 1, sizeof(*slices));
	size_t n = 0;

	if (!slices)
		return -ENOMEM;
	for (size_t i = 0; i < plan->n_grants; i++)
		if (plan->grants[i].host == self)
			slices[n++] = slice_of(plan, &plan->grants[i]);
	*ret = slices;
	*ret_n = n;
	return 0;
}

int ps_compile_addresses(const struct ps_plan *plan, unsigned self, uint32_t **ret_be,
			 size_t *ret_n)
{
	ps_auto_mem struct ps_egress_slice *slices = NULL;
	ps_auto_mem uint32_t *addresses = NULL;
	size_t n_slices, n = 0;
	int r = ps_compile_slices(plan, self, &slices, &n_slices);

	if (r < 0)
		return r;
	addresses = calloc(n_slices + 1, sizeof(*addresses));
	if (!addresses)
		return -ENOMEM;
	for (size_t i = 0; i < n_slices; i++)
		if (n == 0 || addresses[n - 1] != slices[i].ip4_be)
			addresses[n++] = slices[i].ip4_be; /* grants are sorted by address */
	*ret_be = ps_move(addresses);
	*ret_n = n;
	return 0;
}

void ps_compile_egress_free(struct ps_compile_egress **egress)
{
	if (!*egress)
		return;
	free((*egress)->slices);
	free((*egress)->choices);
	free((*egress)->matches);
	free((*egress)->direct);
	free((*egress)->shared);
	free((*egress)->shared_shift);
	free((*egress)->services);
	free(*egress);
	*egress = NULL;
}

static size_t count_blocks(const struct ps_plan *plan)
{
	size_t n = 0;

	for (size_t i = 0; i < plan->n_pools; i++)
		n += plan->pools[i].n_blocks;
	return n;
}

/* Room for the largest each array can become; slices are stored once for each pool. */
static int make_room(struct ps_compile_egress *egress, const struct ps_plan *plan)
{
	size_t n_blocks = count_blocks(plan);

	egress->slices = calloc(plan->n_grants + 1, sizeof(*egress->slices));
	egress->choices = calloc(plan->n_classes + 1, sizeof(*egress->choices));
	egress->matches = calloc(2 * plan->n_classes + 1, sizeof(*egress->matches));
	egress->direct =
		calloc(plan->n_direct + plan->n_hosts + plan->n_sites + 1, sizeof(*egress->direct));
	egress->shared = calloc(n_blocks + 1, sizeof(*egress->shared));
	egress->shared_shift = calloc(n_blocks + 1, sizeof(*egress->shared_shift));
	egress->services = calloc(plan->n_services + 1, sizeof(*egress->services));
	if (!egress->slices || !egress->choices || !egress->matches || !egress->direct ||
	    !egress->shared || !egress->shared_shift || !egress->services)
		return -ENOMEM;
	return 0;
}

/* Slices sorted by pool, so that each class's choice is one run. */
static int fill_choices(struct ps_compile_egress *egress, const struct ps_plan *plan, unsigned self)
{
	ps_auto_mem struct ps_choice *by_pool = calloc(plan->n_pools + 1, sizeof(*by_pool));
	size_t n = 0;

	if (!by_pool)
		return -ENOMEM;
	for (size_t pool = 0; pool < plan->n_pools; pool++) {
		by_pool[pool].first = (uint32_t)n;
		for (size_t i = 0; i < plan->n_grants; i++)
			if (plan->grants[i].host == self && plan->grants[i].pool == pool)
				egress->slices[n++] = slice_of(plan, &plan->grants[i]);
		by_pool[pool].n = (uint32_t)n - by_pool[pool].first;
	}
	for (size_t class = 0; class < plan->n_classes; class ++) {
		int pool = ps_plan_class_pool(plan, (unsigned)class, self);

		if (pool != PS_PLAN_NONE)
			egress->choices[class] = by_pool[pool];
	}
	egress->config.n_slices = n;
	egress->config.n_choices = plan->n_classes;
	return 0;
}

static void fill_matches(struct ps_compile_egress *egress, const struct ps_plan *plan,
			 const struct ps_compile_cgroup *own, const struct ps_compile_cgroup *named)
{
	size_t n = 0;

	for (size_t i = 0; i < plan->n_classes; i++) {
		const struct ps_class *class = &plan->classes[i];

		if (own[i].id)
			egress->matches[n++] = (struct ps_egress_match){
				.cgroup = own[i].id, .level = own[i].level, .class = (unsigned)i};
		if (class->cgroup ? named[i].id != 0 : class->has_mark)
			egress->matches[n++] = (struct ps_egress_match){.cgroup = named[i].id,
									.level = named[i].level,
									.has_mark = class->has_mark,
									.mark = class->mark,
									.class = (unsigned)i};
	}
	egress->config.n_matches = n;
}

/* The hosts and edges themselves are never reached through a shared address. */
static void fill_direct(struct ps_compile_egress *egress, const struct ps_plan *plan)
{
	size_t n = plan->n_direct;

	if (n)
		memcpy(egress->direct, plan->direct, n * sizeof(*plan->direct));
	for (size_t i = 0; i < plan->n_hosts; i++)
		egress->direct[n++] = (struct ps_prefix){plan->hosts[i].underlay, 128};
	for (size_t i = 0; i < plan->n_sites; i++)
		if (plan->sites[i].has_edge)
			egress->direct[n++] = (struct ps_prefix){plan->sites[i].edge, 128};
	egress->config.n_direct = n;
}

static void fill_shared(struct ps_compile_egress *egress, const struct ps_plan *plan)
{
	size_t n = 0;

	for (size_t i = 0; i < plan->n_pools; i++) {
		for (size_t j = 0; j < plan->pools[i].n_blocks; j++) {
			egress->shared[n] = plan->pools[i].blocks[j].prefix;
			egress->shared_shift[n++] = plan->pools[i].shift;
		}
	}
	egress->config.n_shared = n;
}

static void fill_services(struct ps_compile_egress *egress, const struct ps_plan *plan,
			  unsigned self)
{
	size_t n = 0;

	for (size_t i = 0; i < plan->n_services; i++) {
		const struct ps_service *service = &plan->services[i];

		if (service->host == self)
			egress->services[n++] =
				(struct ps_claim_key){.src = ps_ip_v4_be(&service->address),
						      .sport = htons(service->port),
						      .protocol = service->protocol};
	}
	egress->config.n_services = n;
}

int ps_compile_egress_new(const struct ps_plan *plan, unsigned self,
			  const struct ps_compile_cgroup *own,
			  const struct ps_compile_cgroup *named, struct ps_compile_egress **ret)
{
	ps_auto(ps_compile_egress_free) struct ps_compile_egress *egress =
		calloc(1, sizeof(*egress));
	int r = egress ? make_room(egress, plan) : -ENOMEM;

	if (r == 0)
		r = fill_choices(egress, plan, self);
	if (r < 0)
		return r;
	fill_matches(egress, plan, own, named);
	fill_direct(egress, plan);
	fill_shared(egress, plan);
	fill_services(egress, plan, self);
	egress->config.slices = egress->slices;
	egress->config.choices = egress->choices;
	egress->config.matches = egress->matches;
	egress->config.direct = egress->direct;
	egress->config.shared = egress->shared;
	egress->config.shared_shift = egress->shared_shift;
	egress->config.services = egress->services;
	egress->config.mss = (uint16_t)(plan->hosts[self].mtu - PS_OVERHEAD_V4 - HEADERS_V4);
	*ret = ps_move(egress);
	return 0;
}

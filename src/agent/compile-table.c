// SPDX-License-Identifier: MIT
/* The return path's half of compile.h. */
#include <errno.h>
#include <errno.h>
#include <stdlib.h>

#include "agent/compile.h"
#include "base/own.h"

enum { REJECTS_PER_S = 1000 }; /* per CPU: about 100 kbit/s, enough to end honest half-open peers */

static int add_block(struct ps_table *table, const struct ps_pool *pool,
		     const struct ps_block *block)
{
	uint64_t n = ps_prefix_size(&block->prefix);

	for (uint64_t i = 0; i < n; i++) {
		struct ps_table_address address = {
			.ip = ps_ip_add(&block->prefix.ip, i),
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
		.edge = site->edge, /* all zero: none */
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

int ps_compile_addresses(const struct ps_plan *plan, unsigned self, struct ps_ip **ret,
			 size_t *ret_n)
{
	struct ps_ip *addresses = calloc(plan->n_grants + 1, sizeof(*addresses));
	size_t n = 0;

	if (!addresses)
		return -ENOMEM;
	for (size_t i = 0; i < plan->n_grants; i++) {
		const struct ps_grant *grant = &plan->grants[i];

		/* Grants are sorted by address. */
		if (grant->host == self &&
		    (n == 0 || ps_ip_cmp(&addresses[n - 1], &grant->address) != 0))
			addresses[n++] = grant->address;
	}
	*ret = addresses;
	*ret_n = n;
	return 0;
}

// SPDX-License-Identifier: MIT
#include "agent/compile.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "base/own.h"
#include "egress/homes.h"

enum { HEADERS_V4 = 40 };  /* IPv4 and TCP header without options, bytes */
enum { PAGES_A_WIDE = 8 }; /* of the ledger: narrow ones to each wide one */

static struct ps_egress_slice slice_of(const struct ps_plan *plan, const struct ps_grant *grant)
{
	unsigned shift = plan->pools[grant->pool].shift;

	return (struct ps_egress_slice){
		.address = grant->address,
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

void ps_compile_egress_free(struct ps_compile_egress **egress)
{
	if (!*egress)
		return;
	free((*egress)->slices);
	free((*egress)->choices);
	free((*egress)->cgroups);
	free((*egress)->matches);
	free((*egress)->homes);
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
	egress->cgroups = calloc(2 * plan->n_classes + 1, sizeof(*egress->cgroups));
	egress->matches = calloc(plan->n_classes + 1, sizeof(*egress->matches));
	egress->homes = calloc(2 * plan->n_pools + 1, sizeof(*egress->homes));
	egress->direct =
		calloc(plan->n_direct + plan->n_hosts + plan->n_sites + 1, sizeof(*egress->direct));
	egress->shared = calloc(n_blocks + 1, sizeof(*egress->shared));
	egress->shared_shift = calloc(n_blocks + 1, sizeof(*egress->shared_shift));
	egress->services = calloc(plan->n_services + 1, sizeof(*egress->services));
	if (!egress->slices || !egress->choices || !egress->cgroups || !egress->matches ||
	    !egress->homes || !egress->direct || !egress->shared || !egress->shared_shift ||
	    !egress->services)
		return -ENOMEM;
	return 0;
}

int ps_compile_class_pool(const struct ps_plan *plan, unsigned class, unsigned self, bool is_v4)
{
	unsigned best = (unsigned)plan->n_pools;

	for (size_t i = 0; i < plan->n_grants; i++) {
		const struct ps_grant *grant = &plan->grants[i];

		if (grant->host == self && grant->pool < best &&
		    ps_ip_is_v4(&grant->address) == is_v4 &&
		    ps_plan_class_takes(plan, class, grant))
			best = grant->pool;
	}
	return best < plan->n_pools ? (int)best : PS_PLAN_NONE;
}

/* Appends this host's slices of one pool and family. */
static struct ps_choice add_slices(struct ps_compile_egress *egress, const struct ps_plan *plan,
				   unsigned self, unsigned pool, bool is_v4)
{
	size_t first = egress->config.n_slices, n;
	struct ps_choice choice = {.first = (uint32_t)first};

	for (size_t i = 0; i < plan->n_grants; i++) {
		const struct ps_grant *grant = &plan->grants[i];

		if (grant->host == self && grant->pool == pool &&
		    ps_ip_is_v4(&grant->address) == is_v4)
			egress->slices[egress->config.n_slices++] = slice_of(plan, grant);
	}
	n = egress->config.n_slices - first;
	choice.n = (uint32_t)n;
	if (ps_homes_fill(egress->slices + first, n, &egress->homes[egress->config.n_homes]))
		choice.homes = (uint32_t)++egress->config.n_homes;
	return choice;
}

/* Slices sorted by pool and family, so that each class's choice is a run for each family. */
static int fill_choices(struct ps_compile_egress *egress, const struct ps_plan *plan, unsigned self)
{
	ps_auto_mem struct ps_choices *by_pool = calloc(plan->n_pools + 1, sizeof(*by_pool));

	if (!by_pool)
		return -ENOMEM;
	for (unsigned pool = 0; pool < plan->n_pools; pool++) {
		by_pool[pool].v4 = add_slices(egress, plan, self, pool, true);
		by_pool[pool].v6 = add_slices(egress, plan, self, pool, false);
	}
	for (unsigned class = 0; class < plan->n_classes; class ++) {
		int v4 = ps_compile_class_pool(plan, class, self, true);
		int v6 = ps_compile_class_pool(plan, class, self, false);

		if (v4 != PS_PLAN_NONE)
			egress->choices[class].v4 = by_pool[v4].v4;
		if (v6 != PS_PLAN_NONE)
			egress->choices[class].v6 = by_pool[v6].v6;
	}
	egress->config.n_choices = plan->n_classes;
	return 0;
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
				(struct ps_claim_key){.src = ps_ip16(&service->address),
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
	if (r == 0)
		r = ps_compile_matches(egress, plan, own, named);
	if (r < 0)
		return r;
	fill_direct(egress, plan);
	fill_shared(egress, plan);
	fill_services(egress, plan, self);
	egress->config.slices = egress->slices;
	egress->config.choices = egress->choices;
	egress->config.cgroups = egress->cgroups;
	egress->config.matches = egress->matches;
	egress->config.homes = egress->homes;
	egress->config.direct = egress->direct;
	egress->config.shared = egress->shared;
	egress->config.shared_shift = egress->shared_shift;
	egress->config.services = egress->services;
	egress->config.mss =
		(uint16_t)(plan->hosts[self].mtu - ps_plan_outer_len(plan) - HEADERS_V4);
	*ret = ps_move(egress);
	return 0;
}

/* What a preallocated hash takes, bytes: 48 an element beside key and value, and 16 a bucket, of which
 * there is a power of two (kernel/bpf/hashtab.c, Linux 6.1 and 6.18). */
static uint64_t hash_len(uint64_t n, size_t value_len)
{
	uint64_t n_buckets = 1;

	while (n_buckets < n)
		n_buckets *= 2;
	return n * (48 + sizeof(struct ps_page_key) + value_len) + n_buckets * 16;
}

void ps_compile_memory(unsigned mib, struct ps_egress_options *options)
{
	uint64_t len = (uint64_t)mib << 20, n = len / sizeof(struct ps_wide_page);

	while (hash_len(n * PAGES_A_WIDE, sizeof(struct ps_narrow_page)) +
		       hash_len(n, sizeof(struct ps_wide_page)) >
	       len)
		n--;
	options->n_wide_pages = (uint32_t)n;
	options->n_pages = (uint32_t)n * PAGES_A_WIDE;
}

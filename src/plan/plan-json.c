// SPDX-License-Identifier: MIT
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <sha2.h>

#include "base/own.h"
#include "plan/index.h"
#include "plan/json.h"

static void json_drop(json_t **json)
{
	json_decref(*json);
}

static json_t *tags_json(const struct ps_tags *tags)
{
	json_t *json = json_object();

	for (size_t i = 0; i < tags->n; i++) {
		if (json_object_set_new(json, tags->items[i].key,
					json_string(tags->items[i].value)) < 0) {
			json_decref(json);
			return NULL;
		}
	}
	return json;
}

static json_t *ip_json(const struct ps_ip *ip)
{
	char text[PS_IP_TEXT_MAX];

	return json_string(ps_ip_format(ip, text));
}

static json_t *prefix_json(const struct ps_prefix *prefix)
{
	char text[PS_PREFIX_TEXT_MAX];

	return json_string(ps_prefix_format(prefix, text));
}

static json_t *site_json(const struct ps_plan *plan, unsigned i)
{
	const struct ps_site *site = &plan->sites[i];

	return json_pack("{s:s, s:o}", "name", site->name, "edge",
			 site->has_edge ? ip_json(&site->edge) : json_null());
}

static json_t *host_json(const struct ps_plan *plan, unsigned i)
{
	const struct ps_host *host = &plan->hosts[i];
	json_t *uplinks = json_array();

	for (size_t k = 0; k < host->n_uplinks; k++) {
		if (json_array_append_new(uplinks, json_string(host->uplinks[k])) < 0) {
			json_decref(uplinks);
			return NULL;
		}
	}
	return json_pack("{s:s, s:s, s:o, s:o, s:s?, s:i, s:i}", "name", host->name, "site",
			 plan->sites[host->site].name, "underlay", ip_json(&host->underlay),
			 "uplinks", uplinks, "underlay_interface", host->underlay_interface, "mtu",
			 (int)host->mtu, "ledger_mib", (int)host->ledger_mib);
}

static int by_prefix(const void *a, const void *b)
{
	const struct ps_block *x = a, *y = b;

	return ps_ip_cmp(&x->prefix.ip, &y->prefix.ip);
}

static json_t *blocks_json(const struct ps_plan *plan, const struct ps_pool *pool)
{
	ps_auto_mem struct ps_block *blocks = calloc(pool->n_blocks + 1, sizeof(*blocks));
	ps_auto(json_drop) json_t *json = json_array();

	if (!blocks || !json)
		return NULL;
	memcpy(blocks, pool->blocks, pool->n_blocks * sizeof(*blocks));
	qsort(blocks, pool->n_blocks, sizeof(*blocks), by_prefix);
	for (size_t i = 0; i < pool->n_blocks; i++) {
		json_t *block = json_pack("{s:o, s:s}", "prefix", prefix_json(&blocks[i].prefix),
					  "site", plan->sites[blocks[i].site].name);

		if (json_array_append_new(json, block) < 0)
			return NULL;
	}
	return ps_move(json);
}

static json_t *pool_json(const struct ps_plan *plan, unsigned i)
{
	const struct ps_pool *pool = &plan->pools[i];
	json_t *slice = pool->shift == PS_SHIFT_WHOLE ? json_string("whole")
						      : json_integer(1 << pool->shift);

	return json_pack("{s:s, s:o, s:o, s:s, s:s, s:o}", "name", pool->name, "tags",
			 tags_json(&pool->tags), "slice", slice, "unowned",
			 pool->unowned == PS_UNOWNED_DROP ? "drop" : "reject", "echo",
			 pool->echo == PS_ECHO_DROP ? "drop" : "answer", "addresses",
			 blocks_json(plan, pool));
}

static json_t *uid_json(const struct ps_match *match)
{
	if (!match->has_uid)
		return json_null();
	if (match->first_uid == match->last_uid)
		return json_integer(match->first_uid);
	return json_sprintf("%u-%u", match->first_uid, match->last_uid);
}

json_t *ps_match_json(const struct ps_match *match)
{
	return json_pack("{s:s?, s:o, s:o, s:o, s:o}", "cgroup", match->cgroup, "mark",
			 match->has_mark ? json_integer(match->mark) : json_null(), "uid",
			 uid_json(match), "from",
			 match->has_from ? prefix_json(&match->from) : json_null(), "to",
			 match->has_to ? prefix_json(&match->to) : json_null());
}

static json_t *class_json(const struct ps_plan *plan, unsigned i)
{
	const struct ps_class *class = &plan->classes[i];

	return json_pack("{s:s, s:o, s:o}", "name", class->name, "match",
			 ps_match_json(&class->match), "tags", tags_json(&class->tags));
}

static json_t *service_json(const struct ps_plan *plan, const struct ps_service *service)
{
	return json_pack("{s:s, s:o, s:i, s:s, s:s}", "name", service->name, "address",
			 ip_json(&service->address), "port", (int)service->port, "protocol",
			 service->protocol == IPPROTO_TCP ? "tcp" : "udp", "host",
			 plan->hosts[service->host].name);
}

static json_t *grant_json(const struct ps_plan *plan, const struct ps_grant *grant)
{
	const struct ps_pool *pool = &plan->pools[grant->pool];
	struct ps_range ports = ps_slice_range(grant->slice, pool->shift);

	return json_pack("{s:o, s:i, s:i, s:i, s:s, s:s}", "address", ip_json(&grant->address),
			 "slice", (int)grant->slice, "first", (int)ports.first, "count",
			 (int)ports.count, "host", plan->hosts[grant->host].name, "pool",
			 pool->name);
}

typedef json_t *element_fn(const struct ps_plan *plan, unsigned i);

static json_t *elements_json(const struct ps_plan *plan, enum ps_kind kind, bool by_name,
			     element_fn *element)
{
	ps_auto(json_drop) json_t *json = json_array();

	for (unsigned i = 0; i < ps_index_count(plan, kind); i++) {
		unsigned which = by_name ? plan->index->by_name[kind][i] : i;

		if (json_array_append_new(json, element(plan, which)) < 0)
			return NULL;
	}
	return ps_move(json);
}

static json_t *services_json(const struct ps_plan *plan)
{
	ps_auto(json_drop) json_t *json = json_array();

	for (size_t i = 0; i < plan->n_services; i++) {
		if (json_array_append_new(json, service_json(plan, &plan->services[i])) < 0)
			return NULL;
	}
	return ps_move(json);
}

static int by_network(const void *a, const void *b)
{
	const struct ps_prefix *x = a, *y = b;
	int r = ps_ip_cmp(&x->ip, &y->ip);

	return r ? r : x->bits - y->bits;
}

static json_t *direct_json(const struct ps_plan *plan)
{
	ps_auto_mem struct ps_prefix *direct = calloc(plan->n_direct + 1, sizeof(*direct));
	ps_auto(json_drop) json_t *json = json_array();

	if (!direct || !json)
		return NULL;
	if (plan->n_direct)
		memcpy(direct, plan->direct, plan->n_direct * sizeof(*direct));
	qsort(direct, plan->n_direct, sizeof(*direct), by_network);
	for (size_t i = 0; i < plan->n_direct; i++) {
		if (json_array_append_new(json, prefix_json(&direct[i])) < 0)
			return NULL;
	}
	return ps_move(json);
}

json_t *ps_plan_frame_json(const struct ps_plan *plan)
{
	return json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "version", PS_PLAN_VERSION, "sites",
			 elements_json(plan, PS_KIND_SITE, true, site_json), "hosts",
			 elements_json(plan, PS_KIND_HOST, true, host_json), "pools",
			 elements_json(plan, PS_KIND_POOL, false, pool_json), "classes",
			 elements_json(plan, PS_KIND_CLASS, false, class_json), "direct",
			 direct_json(plan), "services", services_json(plan));
}

json_t *ps_plan_json(const struct ps_plan *plan)
{
	ps_auto(json_drop) json_t *json = ps_plan_frame_json(plan);
	ps_auto(json_drop) json_t *slices = json_array();

	for (size_t i = 0; i < plan->n_grants; i++) {
		if (json_array_append_new(slices, grant_json(plan, &plan->grants[i])) < 0)
			return NULL;
	}
	if (json_object_set(json, "slices", slices) < 0)
		return NULL;
	return ps_move(json);
}

static int feed(const char *buffer, size_t size, void *context)
{
	SHA256Update(context, (const uint8_t *)buffer, size);
	return 0;
}

int ps_plan_digest(const struct ps_plan *plan, uint8_t ret[PS_PLAN_DIGEST_LEN])
{
	ps_auto(json_drop) json_t *json = ps_plan_json(plan);
	SHA2_CTX hash;

	if (!json)
		return -ENOMEM;
	SHA256Init(&hash);
	if (json_dump_callback(json, feed, &hash, JSON_COMPACT | JSON_SORT_KEYS) < 0)
		return -ENOMEM;
	SHA256Final(ret, &hash);
	return 0;
}

// SPDX-License-Identifier: MIT
#include <netinet/in.h>
#include <string.h>

#include "base/own.h"
#include "cli/cli.h"

static json_t *tags_json(const struct ps_tags *tags)
{
	json_t *object = json_object();

	for (size_t i = 0; i < tags->n; i++)
		json_object_set_new(object, tags->items[i].key, json_string(tags->items[i].value));
	return object;
}

static json_t *owner_json(const struct ps_plan *plan, const struct ps_ip *ip, uint16_t port,
			  const struct ps_place *place)
{
	const struct ps_grant *grant = ps_plan_who(plan, ip, port);
	const struct ps_pool *pool = &plan->pools[place->pool];
	const struct ps_service *service = ps_plan_service(plan, ip, port, IPPROTO_TCP);
	unsigned slice = pool->shift == PS_SHIFT_WHOLE ? 0 : port >> pool->shift;
	struct ps_range ports = ps_slice_range(slice, pool->shift);
	char address[PS_IP_TEXT_MAX], range[32];

	if (!service)
		service = ps_plan_service(plan, ip, port, IPPROTO_UDP);
	snprintf(range, sizeof(range), "%u-%u", ports.first, ports.first + ports.count - 1);
	return json_pack("{s:s, s:i, s:s?, s:i, s:s, s:s, s:s, s:o, s:s?}", "address",
			 ps_ip_format(ip, address), "port", (int)port, "host",
			 grant ? plan->hosts[grant->host].name : NULL, "slice", (int)slice, "ports",
			 range, "site", plan->sites[place->site].name, "pool", pool->name, "tags",
			 tags_json(&pool->tags), "service", service ? service->name : NULL);
}

static int print_owner(const struct ps_cli *cli, json_t *owner)
{
	const char *host = json_string_value(json_object_get(owner, "host"));

	if (cli->json)
		return ps_cli_print_json(owner);
	printf("%s: slice %lld (ports %s) of %s at %s, pool %s\n", host ? host : "nobody",
	       json_integer_value(json_object_get(owner, "slice")),
	       json_string_value(json_object_get(owner, "ports")),
	       json_string_value(json_object_get(owner, "address")),
	       json_string_value(json_object_get(owner, "site")),
	       json_string_value(json_object_get(owner, "pool")));
	json_decref(owner);
	return PS_EXIT_DONE;
}

static int run_who(const struct ps_cli *cli, int argc, char **argv)
{
	ps_auto(ps_plan_free) struct ps_plan *plan = NULL;
	struct ps_place place;
	struct ps_ip ip;
	uint16_t port;
	int r;

	if (argc < 2 || argc > 3)
		return ps_cli_fail(PS_EXIT_USE, "expected ADDRESS:PORT [FILE]");
	r = ps_cli_parse_endpoint(argv[1], &ip, &port);
	if (r == PS_EXIT_DONE)
		r = ps_cli_plan(cli, argc > 2 ? argv[2] : NULL, &plan);
	if (r != PS_EXIT_DONE)
		return r;
	if (ps_plan_locate(plan, &ip, &place) < 0)
		return ps_cli_fail(PS_EXIT_USE, "%s is not a shared address of the plan", argv[1]);
	return print_owner(cli, owner_json(plan, &ip, port, &place));
}

const struct ps_verb ps_verbs_who[] = {
	{NULL, "who", "ADDRESS:PORT [FILE]", "Say which host owns a port of a shared address", NULL,
	 run_who},
	{0},
};

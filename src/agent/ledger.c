// SPDX-License-Identifier: MIT
/* The ledger of ports in use, tended: quarantines end, empty pages go, leaks are repaired. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/log.h"
#include "base/own.h"

/* Leaks of one repair that have an event each. */
enum { LEAKS_TOLD = 10 };

struct leaks {
	struct ps_agent *agent;
	unsigned n;
};

static void format_port(const union ps_ip16 *ip16, uint16_t port_be, char ret[PS_IP_TEXT_MAX + 9])
{
	struct ps_ip ip;
	char text[PS_IP_TEXT_MAX];

	memcpy(ip.bytes, ip16->bytes, sizeof(ip.bytes));
	sprintf(ret, ps_ip_is_v4(&ip) ? "%s:%u" : "[%s]:%u", ps_ip_format(&ip, text),
		ntohs(port_be));
}

static const char *pool_at(const struct ps_plan *plan, const union ps_ip16 *ip16)
{
	struct ps_place place;
	struct ps_ip ip;

	memcpy(ip.bytes, ip16->bytes, sizeof(ip.bytes));
	return ps_plan_locate(plan, &ip, &place) < 0 ? "none" : plan->pools[place.pool].name;
}

static void tell_leak(const struct ps_claim_key *flow, void *arg)
{
	char source[PS_IP_TEXT_MAX + 9], destination[PS_IP_TEXT_MAX + 9] = "nobody";
	struct leaks *leaks = arg;
	const char *pool = pool_at(leaks->agent->active->plan, &flow->src),
		   *protocol = ps_protocol_name(flow->protocol);

	if (leaks->n++ >= LEAKS_TOLD)
		return;
	format_port(&flow->src, flow->sport, source);
	if (!ps_ip16_is_zero(&flow->dst))
		format_port(&flow->dst, flow->dport, destination);
	ps_events_add(leaks->agent->events, "leak",
		      json_pack("{s:s, s:s, s:s, s:s}", "source", source, "destination",
				destination, "protocol", protocol, "pool", pool),
		      "%s %s towards %s, pool %s: in use by no socket, given back", protocol,
		      source, destination, pool);
}

int ps_agent_repair(struct ps_agent *agent, struct ps_repair *ret)
{
	struct leaks leaks = {.agent = agent};
	int r;

	if (!agent->active || agent->options.observe || agent->options.without_hooks)
		return -ENOENT;
	r = ps_egress_repair(agent->active->egress, tell_leak, &leaks, ret);
	if (leaks.n > LEAKS_TOLD)
		ps_events_add(agent->events, "leak", NULL,
			      "%u more ports were in use by no socket, and were given back",
			      leaks.n - LEAKS_TOLD);
	agent->n_leaks += leaks.n;
	if (r < 0)
		return r;
	agent->repaired = *ret;
	agent->repaired_ms = ps_agent_now_ms();
	return 0;
}

void ps_agent_tend_ledger(struct ps_agent *agent)
{
	uint64_t n, counters[PS_EGRESS_MAX] = {0};
	struct ps_repair repair;
	bool is_urgent;
	int r = 0;

	(void)ps_egress_counters(agent->pin_dir, counters);
	is_urgent = counters[PS_EGRESS_NO_MEMORY] != agent->n_no_memory;
	agent->n_no_memory = counters[PS_EGRESS_NO_MEMORY];
	if (agent->ticks % PS_THAW_TICKS == 0)
		(void)ps_egress_thaw(agent->active->egress, &n);
	if (is_urgent || agent->ticks % PS_SWEEP_TICKS == 0)
		(void)ps_egress_sweep(agent->active->egress, is_urgent, &n);
	if (agent->ticks % PS_REPAIR_TICKS == PS_REPAIR_TICKS / 2)
		r = ps_agent_repair(agent, &repair);
	if (r < 0 && r != -ENOENT)
		ps_log(LOG_ERR, "ledger: the sweep for leaks failed: %s", strerror(-r));
}

static json_t *room(const struct ps_egress_room *room, unsigned mib)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "claims",
			 (json_int_t)room->n_claims, "quarantined", (json_int_t)room->n_quarantined,
			 "pages", (json_int_t)room->n_pages, "pages_max",
			 (json_int_t)room->n_pages_max, "wide_pages",
			 (json_int_t)room->n_wide_pages, "wide_pages_max",
			 (json_int_t)room->n_wide_pages_max, "bytes", (json_int_t)room->n_bytes,
			 "memory_mib", (int)mib);
}

json_t *ps_agent_ledger(const struct ps_agent *agent)
{
	const struct ps_active *active = agent->active;
	struct ps_egress_room used;
	json_t *ledger;

	if (!active || ps_egress_look_at_room(agent->pin_dir, &used) < 0)
		return json_null();
	ledger = room(&used, active->plan->hosts[active->self].ledger_mib);
	json_object_set_new(ledger, "leaks_repaired", json_integer((json_int_t)agent->n_leaks));
	if (!agent->repaired_ms)
		return ledger;
	json_object_set_new(ledger, "unsent", json_integer((json_int_t)agent->repaired.n_unsent));
	json_object_set_new(ledger, "swept_ms_ago",
			    json_integer((json_int_t)(ps_agent_now_ms() - agent->repaired_ms)));
	return ledger;
}

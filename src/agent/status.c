// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/uplink.h"
#include "agent/handover.h"
#include "base/own.h"

static json_t *text_or_null(const char *text)
{
	return text[0] ? json_string(text) : json_null();
}

static json_t *uplink(const struct ps_agent *agent, const struct ps_uplink *uplink)
{
	const char *mode = uplink->mode == PS_MODE_NATIVE ? "native" : "generic";
	struct ps_uplink_facts facts = {0};
	char note[PS_UPLINK_NOTE_MAX];

	if (agent->options.without_dispatch)
		mode = "none";
	(void)ps_uplink_look(agent->net, uplink->name, &facts); /* else as if it were not there */
	return json_pack("{s:s, s:b, s:s, s:b, s:o, s:o, s:o, s:o}", "name", uplink->name,
			 "present", uplink->ifindex != 0, "xdp", mode, "lro", facts.lro, "kind",
			 text_or_null(facts.kind), "master", text_or_null(facts.master),
			 "master_kind", text_or_null(facts.master_kind), "note",
			 text_or_null(ps_uplink_note(uplink->name, &facts, uplink->mode, note)));
}

static json_t *uplinks(const struct ps_agent *agent)
{
	const struct ps_active *active = agent->active;
	json_t *list = json_array();

	for (size_t i = 0; active && i < active->n_uplinks; i++)
		json_array_append_new(list, uplink(agent, &active->uplinks[i]));
	return list;
}

static json_t *peers(const struct ps_agent *agent)
{
	static const char *const states[] = {"silent", "agrees", "differs"};
	json_t *list = json_array();
	struct ps_peer_view peer;

	for (size_t i = 0;
	     agent->active && ps_peers_view(agent->peers, i, ps_agent_now_ms(), &peer); i++) {
		json_t *age = peer.age_ms == UINT64_MAX ? json_null()
							: json_integer((json_int_t)peer.age_ms);

		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:o, s:I, s:I}", "name", peer.name,
						"plan", states[peer.state], "heard_ms_ago", age,
						"revision", (json_int_t)peer.revision,
						"slices_in_use", (json_int_t)peer.n_slices));
	}
	return list;
}

/* Slices that the plan gives to others than their holders, who have not let go yet. */
static json_t *waiting(const struct ps_agent *agent)
{
	const struct ps_active *active = agent->active;
	json_t *list = json_array();

	for (size_t i = 0; active && i < active->n_holds; i++) {
		char address[PS_IP_TEXT_MAX];

		json_array_append_new(list,
				      json_pack("{s:s, s:i, s:s}", "address",
						ps_ip_format(&active->holds[i].address, address),
						"first_port", active->holds[i].ports.first,
						"holder", active->holds[i].holder));
	}
	return list;
}

/* What ICMP taught about paths. */
static json_t *learned_mtus(const struct ps_agent *agent)
{
	json_t *list = json_array();
	struct ps_ip dst;
	unsigned mtu;

	for (size_t i = 0; ps_mtus_get(agent->mtus, i, &dst, &mtu) == 0; i++) {
		char address[PS_IP_TEXT_MAX];

		json_array_append_new(list,
				      json_pack("{s:s, s:i}", "to", ps_ip_format(&dst, address),
						"mtu", (int)mtu));
	}
	return list;
}

static void format_digest(const uint8_t digest[PS_PLAN_DIGEST_LEN],
			  char ret[2 * PS_PLAN_DIGEST_LEN + 1])
{
	for (size_t i = 0; i < PS_PLAN_DIGEST_LEN; i++)
		sprintf(ret + 2 * i, "%02x", digest[i]);
}

static const char *state_name(const struct ps_agent *agent)
{
	if (agent->detached)
		return "detached";
	if (!agent->active)
		return "waiting";
	return agent->options.observe ? "observing" : "attached";
}

json_t *ps_agent_status(struct ps_agent *agent)
{
	uint64_t incarnation;
	json_t *status = json_pack(
		"{s:s, s:s, s:s, s:s, s:s, s:s, s:s?, s:s?, s:I, s:s?, s:o, s:o, s:o}", "version",
		PS_VERSION, "instance", agent->options.instance, "host", agent->options.host,
		"state", state_name(agent), "store", agent->options.store_url, "cgroup_root",
		agent->options.cgroup_root, "store_trouble", agent->store_trouble, "refusal",
		agent->refusal, "refused_revision",
		(json_int_t)(agent->refusal ? agent->refused_revision : 0), "host_trouble",
		agent->host_trouble, "uplinks", uplinks(agent), "peers", peers(agent), "waiting",
		waiting(agent));

	if (status && agent->store && ps_store_incarnation(agent->store, &incarnation) == 0)
		json_object_set_new(status, "store_incarnation",
				    json_integer((json_int_t)incarnation));
	if (status && agent->active) {
		char digest[2 * PS_PLAN_DIGEST_LEN + 1];

		format_digest(agent->active->digest, digest);
		json_object_set_new(status, "revision",
				    json_integer((json_int_t)agent->active->revision));
		json_object_set_new(status, "digest", json_string(digest));
		json_object_set_new(status, "incarnation",
				    json_integer((json_int_t)agent->incarnation));
		json_object_set_new(status, "learned_mtus", learned_mtus(agent));
		json_object_set_new(status, "ledger", ps_agent_ledger(agent));
	}
	return status;
}

static json_t *counter(const char *part, const char *label, const char *text, uint64_t n)
{
	return json_pack("{s:s, s:s, s:I, s:s}", "part", part, "reason", label, "packets",
			 (json_int_t)n, "meaning", text);
}

json_t *ps_agent_counters(struct ps_agent *agent)
{
	uint64_t dispatch[PS_REASON_MAX] = {0}, egress[PS_EGRESS_MAX] = {0};
	json_t *list = json_array();

	(void)ps_dispatch_counters(agent->pin_dir, dispatch); /* not attached yet: all zero */
	(void)ps_egress_counters(agent->pin_dir, egress);
	for (unsigned i = 0; i < PS_REASON_MAX; i++)
		json_array_append_new(list, counter("dispatch", ps_dispatch_reason_label(i),
						    ps_dispatch_reason_text(i), dispatch[i]));
	for (unsigned i = 0; i < PS_EGRESS_MAX; i++)
		json_array_append_new(list, counter("egress", ps_egress_reason_label(i),
						    ps_egress_reason_text(i), egress[i]));
	return list;
}

json_t *ps_agent_usage(struct ps_agent *agent)
{
	const struct ps_active *active = agent->active;
	ps_auto_mem uint64_t *used = NULL;
	json_t *list = json_array();

	if (!active)
		return list;
	used = calloc(active->n_slices + 1, sizeof(*used));
	if (!used || ps_egress_usage(agent->pin_dir, active->slices, active->n_slices, used) < 0)
		return list;
	for (size_t i = 0; i < active->n_slices; i++) {
		char address[PS_IP_TEXT_MAX];

		ps_ip_format(&active->slices[i].address, address);
		json_array_append_new(list,
				      json_pack("{s:s, s:i, s:I, s:I}", "address", address,
						"first_port", active->slices[i].ports.first,
						"ports", (json_int_t)active->slices[i].ports.count,
						"claims", (json_int_t)used[i]));
	}
	return list;
}

// SPDX-License-Identifier: MIT
/*
 * Rules of this host's firewall that rewrite sources, such as Docker's `masquerade`.
 *
 * Masquerade and snat come after the socket has its port: a packet from a shared address would leave
 * with the host's own address, or with a port that is not ours, and getsockname() would lie.  nft
 * lists the rules of nftables and of iptables-nft as JSON; we read which sources each one takes.
 *
 *   covers   the rule can meet a shared address: matches on the source that exclude all shared
 *            prefixes, or an incoming interface (local programs have none), say that it cannot
 *   shield   `ip saddr PREFIX return` (or accept) at the head of a postrouting chain: the recipe that
 *            we give, so that the finding goes away when it has been followed
 *
 * What we cannot read (sets by name, targets of iptables) counts as covering.  Where nft is missing
 * or refused, we say that nothing was checked.
 */
#include "cli/firewall.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/own.h"

/* Addresses, both ends included; of one family. */
struct span {
	struct ps_ip first, last;
};

struct judge {
	const struct ps_plan *plan;
	const json_t *rules; /* of nft: {"rule": ...}, {"chain": ...} and others, in order */
	bool *shielded;      /* by block of the plan, for the table at hand */
	size_t n_blocks;
};

static struct span span_of(const struct ps_prefix *prefix)
{
	struct span span = {prefix->ip, prefix->ip};

	for (unsigned bit = prefix->bits; bit < 128; bit++)
		span.last.bytes[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
	return span;
}

static bool is_within(const struct span *a, const struct span *b)
{
	return memcmp(b->first.bytes, a->first.bytes, 16) <= 0 &&
	       memcmp(a->last.bytes, b->last.bytes, 16) <= 0;
}

static bool meets(const struct span *a, const struct span *b)
{
	return memcmp(a->first.bytes, b->last.bytes, 16) <= 0 &&
	       memcmp(b->first.bytes, a->last.bytes, 16) <= 0;
}

static const char *text_of(const json_t *value)
{
	const char *text = json_string_value(value);

	return text ? text : "";
}

/* "10.0.0.1", {"prefix": ...} or {"range": [...]}; false: a name, or something newer. */
static bool read_span(const json_t *value, struct span *ret)
{
	const json_t *prefix = json_object_get(value, "prefix"),
		     *range = json_object_get(value, "range");
	char text[PS_PREFIX_TEXT_MAX];
	struct ps_prefix parsed;

	if (range)
		return !ps_ip_parse(text_of(json_array_get(range, 0)), &ret->first) &&
		       !ps_ip_parse(text_of(json_array_get(range, 1)), &ret->last);
	if (prefix) {
		snprintf(text, sizeof(text), "%s/%d", text_of(json_object_get(prefix, "addr")),
			 (int)json_integer_value(json_object_get(prefix, "len")));
		if (ps_prefix_parse(text, &parsed) < 0)
			return false;
		*ret = span_of(&parsed);
		return true;
	}
	if (ps_ip_parse(text_of(value), &ret->first) < 0)
		return false;
	ret->last = ret->first;
	return true;
}

enum relation { APART, PARTLY, WITHIN };

/* How the shared addresses lie to what a match names; unknown names: PARTLY. */
static enum relation relate(const struct span *shared, const json_t *right)
{
	const json_t *set = json_object_get(right, "set");
	enum relation found = APART;
	struct span span;

	for (size_t i = 0; i < (set ? json_array_size(set) : 1); i++) {
		if (!read_span(set ? json_array_get(set, i) : right, &span))
			found = found == WITHIN ? WITHIN : PARTLY;
		else if (is_within(shared, &span))
			return WITHIN;
		else if (meets(shared, &span))
			found = PARTLY;
	}
	return found;
}

static bool is_source(const json_t *left)
{
	return strcmp(text_of(json_object_get(json_object_get(left, "payload"), "field")),
		      "saddr") == 0;
}

/* Can a packet of a local program from these addresses pass the match? */
static bool match_lets_pass(const json_t *match, const struct span *shared, bool v4)
{
	const json_t *left = json_object_get(match, "left"),
		     *right = json_object_get(match, "right");
	const char *protocol =
		text_of(json_object_get(json_object_get(left, "payload"), "protocol"));
	const char *key = text_of(json_object_get(json_object_get(left, "meta"), "key"));
	bool differs = strcmp(text_of(json_object_get(match, "op")), "!=") == 0;

	if (strcmp(key, "iif") == 0 || strcmp(key, "iifname") == 0)
		return differs;
	if ((strcmp(protocol, "ip") == 0 && !v4) || (strcmp(protocol, "ip6") == 0 && v4))
		return false;
	if (!is_source(left))
		return true;
	return differs ? relate(shared, right) != WITHIN : relate(shared, right) != APART;
}

static bool rule_lets_pass(const json_t *rule, const struct span *shared, bool v4)
{
	const char *family = text_of(json_object_get(rule, "family"));
	const json_t *expressions = json_object_get(rule, "expr");

	if ((strcmp(family, "ip") == 0 && !v4) || (strcmp(family, "ip6") == 0 && v4))
		return false;
	for (size_t i = 0; i < json_array_size(expressions); i++) {
		const json_t *match = json_object_get(json_array_get(expressions, i), "match");

		if (match && !match_lets_pass(match, shared, v4))
			return false;
	}
	return true;
}

static const struct ps_prefix *block_of(const struct ps_plan *plan, size_t nth)
{
	for (size_t i = 0; i < plan->n_pools; i++) {
		if (nth < plan->pools[i].n_blocks)
			return &plan->pools[i].blocks[nth].prefix;
		nth -= plan->pools[i].n_blocks;
	}
	return NULL;
}

static bool is_same_place(const json_t *a, const json_t *b, const char *key)
{
	return strcmp(text_of(json_object_get(a, key)), text_of(json_object_get(b, key))) == 0;
}

static bool is_same_table(const json_t *a, const json_t *b)
{
	return is_same_place(a, b, "family") && is_same_place(a, b, "table");
}

/* The source match of a rule that is nothing but `saddr ... return` or accept; NULL: another. */
static const json_t *shield_of(const json_t *rule)
{
	const json_t *expressions = json_object_get(rule, "expr"), *match = NULL;
	bool ends = false;

	for (size_t i = 0; i < json_array_size(expressions); i++) {
		const json_t *one = json_array_get(expressions, i),
			     *found = json_object_get(one, "match");

		ends |= json_object_get(one, "return") || json_object_get(one, "accept");
		if (!found)
			continue;
		if (match || !is_source(json_object_get(found, "left")) ||
		    strcmp(text_of(json_object_get(found, "op")), "==") != 0)
			return NULL;
		match = found;
	}
	return ends ? match : NULL;
}

static void note_shield(const struct judge *judge, const json_t *match)
{
	for (size_t i = 0; i < judge->n_blocks; i++) {
		struct span shared = span_of(block_of(judge->plan, i));

		if (relate(&shared, json_object_get(match, "right")) == WITHIN)
			judge->shielded[i] = true;
	}
}

static bool is_postrouting(const struct judge *judge, const json_t *rule)
{
	for (size_t i = 0; i < json_array_size(judge->rules); i++) {
		const json_t *chain = json_object_get(json_array_get(judge->rules, i), "chain");

		if (chain && is_same_table(chain, rule) &&
		    strcmp(text_of(json_object_get(chain, "name")),
			   text_of(json_object_get(rule, "chain"))) == 0)
			return strcmp(text_of(json_object_get(chain, "hook")), "postrouting") == 0;
	}
	return false;
}

/* What stands at the head of the postrouting chains of the rule's table. */
static void find_shields(const struct judge *judge, const json_t *of)
{
	const json_t *ended = NULL;

	memset(judge->shielded, 0, judge->n_blocks);
	for (size_t i = 0; i < json_array_size(judge->rules); i++) {
		const json_t *rule = json_object_get(json_array_get(judge->rules, i), "rule");
		const json_t *match;

		if (!rule || !is_same_table(rule, of) || !is_postrouting(judge, rule) ||
		    (ended && is_same_place(ended, rule, "chain")))
			continue;
		match = shield_of(rule);
		if (match)
			note_shield(judge, match);
		else
			ended = rule;
	}
}

/* "masquerade", "snat", or "iptables" for a target that nft cannot read; NULL: none of them. */
static const char *kind_of(const struct judge *judge, const json_t *rule)
{
	const json_t *expressions = json_object_get(rule, "expr");

	for (size_t i = 0; i < json_array_size(expressions); i++) {
		const json_t *one = json_array_get(expressions, i);

		if (json_object_get(one, "masquerade"))
			return "masquerade";
		if (json_object_get(one, "snat"))
			return "snat";
		if (json_object_get(one, "xt") && is_postrouting(judge, rule) &&
		    strcmp(text_of(json_object_get(rule, "table")), "nat") == 0)
			return "iptables";
	}
	return NULL;
}

/* The shared prefixes that the rule can meet, as nft takes them: "A, B"; caller frees. */
static char *covered(const struct judge *judge, const json_t *rule, bool v4)
{
	char text[PS_PREFIX_TEXT_MAX], *list = NULL;
	size_t size;
	FILE *out = open_memstream(&list, &size);

	if (!out)
		return NULL;
	find_shields(judge, rule);
	for (size_t i = 0; i < judge->n_blocks; i++) {
		const struct ps_prefix *prefix = block_of(judge->plan, i);
		struct span shared = span_of(prefix);

		if (ps_ip_is_v4(&prefix->ip) == v4 && !judge->shielded[i] &&
		    rule_lets_pass(rule, &shared, v4))
			fprintf(out, "%s%s", ftell(out) ? ", " : "",
				ps_prefix_format(prefix, text));
	}
	fclose(out);
	return list;
}

static const char *base_chain(const struct judge *judge, const json_t *rule)
{
	for (size_t i = 0; i < json_array_size(judge->rules); i++) {
		const json_t *chain = json_object_get(json_array_get(judge->rules, i), "chain");

		if (chain && is_same_table(chain, rule) &&
		    strcmp(text_of(json_object_get(chain, "hook")), "postrouting") == 0)
			return text_of(json_object_get(chain, "name"));
	}
	return text_of(json_object_get(rule, "chain"));
}

static void add_finding(const struct judge *judge, const json_t *rule, const char *kind, bool v4,
			json_t *list)
{
	ps_auto_mem char *prefixes = covered(judge, rule, v4);
	ps_auto_mem char *recipe = NULL;
	const char *family = text_of(json_object_get(rule, "family")),
		   *table = text_of(json_object_get(rule, "table"));

	if (!prefixes || !*prefixes ||
	    asprintf(&recipe, "nft insert rule %s %s %s %s saddr '{ %s }' return", family, table,
		     base_chain(judge, rule), v4 ? "ip" : "ip6", prefixes) < 0)
		return;
	json_array_append_new(
		list, json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:s}", "family", family,
				"table", table, "chain", text_of(json_object_get(rule, "chain")),
				"handle", json_integer_value(json_object_get(rule, "handle")),
				"kind", kind, "covers", prefixes, "text",
				"this rule rewrites the source of packets from shared addresses",
				"recipe", recipe));
}

/* All that nft says, or NULL. */
static json_t *list_rules(void)
{
	FILE *nft = popen("exec nft -j list ruleset 2>/dev/null", "re");
	json_t *all = nft ? json_loadf(nft, 0, NULL) : NULL;
	int status = nft ? pclose(nft) : -1;

	if (status != 0) {
		json_decref(all);
		return NULL;
	}
	return all;
}

json_t *ps_cli_firewall_judge(const struct ps_plan *plan, const json_t *ruleset)
{
	struct judge judge = {.plan = plan, .rules = json_object_get(ruleset, "nftables")};
	ps_auto_mem bool *shielded = NULL;
	json_t *list = json_array();

	for (size_t i = 0; i < plan->n_pools; i++)
		judge.n_blocks += plan->pools[i].n_blocks;
	judge.shielded = shielded = calloc(judge.n_blocks + 1, sizeof(*shielded));
	for (size_t i = 0; shielded && i < json_array_size(judge.rules); i++) {
		const json_t *rule = json_object_get(json_array_get(judge.rules, i), "rule");
		const char *kind = rule ? kind_of(&judge, rule) : NULL;

		if (!kind)
			continue;
		add_finding(&judge, rule, kind, true, list);
		add_finding(&judge, rule, kind, false, list);
	}
	return list;
}

json_t *ps_cli_firewall_findings(const struct ps_plan *plan)
{
	json_t *ruleset = list_rules(), *list;

	if (!ruleset)
		return json_string("not checked: `nft -j list ruleset` failed");
	list = ps_cli_firewall_judge(plan, ruleset);
	json_decref(ruleset);
	return list;
}

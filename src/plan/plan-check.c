// SPDX-License-Identifier: MIT
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "plan/check.h"

static const char *const kind_words[PS_KIND_COUNT] = {"site", "host", "pool", "class"};

char *ps_check_copy(struct ps_check *c, const char *text)
{
	char *copy = text ? strdup(text) : NULL;

	if (text && !copy)
		c->w->error = -ENOMEM;
	return copy;
}

unsigned ps_check_name(struct ps_check *c, enum ps_kind kind, const struct ps_text_at *text)
{
	struct ps_guess guess = {.wanted = text->text};
	int i;

	if (!text->text)
		return PS_NOWHERE;
	i = ps_index_find(c->plan, kind, text->text);
	if (i != PS_PLAN_NONE)
		return (unsigned)i;
	for (unsigned k = 0;
	     c->w->findings < PS_WALK_SUGGESTIONS_MAX && k < ps_index_count(c->plan, kind); k++)
		ps_guess_offer(&guess, ps_index_name(c->plan, kind, k));
	if (guess.best)
		ps_walk_find(c->w, text->at, "unknown %s \"%s\": did you mean \"%s\"?",
			     kind_words[kind], ps_quote(text->text).text,
			     ps_quote(guess.best).text);
	else
		ps_walk_find(c->w, text->at, "unknown %s \"%s\": name one of the plan's %ss",
			     kind_words[kind], ps_quote(text->text).text, kind_words[kind]);
	return PS_NOWHERE;
}

void ps_check_index(struct ps_check *c, enum ps_kind kind)
{
	if (ps_index_names(c->plan, kind) < 0)
		c->w->error = -ENOMEM;
}

static bool is_unicast4(uint8_t first)
{
	return first != 0 && first != 127 && first < 224;
}

/* Link-local addresses are those of one link only; 0000::/8 has the unspecified address, loopback
 * and those that stand for IPv4 (RFC 4291 §2). */
static bool is_unicast6(const uint8_t *bytes)
{
	return bytes[0] != 0 && bytes[0] != 0xff &&
	       !(bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80);
}

void ps_check_unicast(struct ps_check *c, struct ps_spot at, const char *what,
		      const struct ps_ip *ip)
{
	char text[PS_IP_TEXT_MAX];

	if (ps_ip_is_v4(ip) ? !is_unicast4(ip->bytes[12]) : !is_unicast6(ip->bytes))
		ps_walk_find(c->w, at, "%s is not among unicast addresses: %s must be",
			     ps_ip_format(ip, text), what);
}

void ps_check_sites(struct ps_check *c)
{
	const struct draft_site *draft = c->draft->sites.items;
	struct ps_plan *plan = c->plan;

	plan->sites = ps_walk_alloc(c->w, c->draft->sites.n, sizeof(*plan->sites));
	for (size_t i = 0; plan->sites && i < c->draft->sites.n; i++) {
		struct ps_site *site = &plan->sites[plan->n_sites];

		*site = (struct ps_site){ps_check_copy(c, draft[i].name.text), draft[i].edge.ip,
					 draft[i].edge.set};
		if (!site->name)
			return;
		plan->n_sites++;
		if (site->has_edge)
			ps_check_unicast(c, draft[i].edge.at, "edge addresses", &site->edge);
		else if (c->draft->sites.n > 1 && !draft[i].edge.at.line)
			ps_walk_find(c->w, draft[i].name.at,
				     "site \"%s\" needs an `edge`, the address by which the other "
				     "sites reach it",
				     ps_quote(site->name).text);
	}
	ps_check_index(c, PS_KIND_SITE);
}

static void check_interface(struct ps_check *c, const struct ps_text_at *name)
{
	if (!name->text)
		return;
	if (strlen(name->text) >= IFNAMSIZ || strpbrk(name->text, "/: \t\n"))
		ps_walk_find(c->w, name->at,
			     "\"%s\" cannot be an interface: names have up to %d characters and "
			     "no space, slash or colon",
			     ps_quote(name->text).text, IFNAMSIZ - 1);
}

static void read_uplinks(struct ps_check *c, const struct draft_host *draft, struct ps_host *host)
{
	const struct ps_text_at *names = draft->uplinks.items;

	host->uplinks = ps_walk_alloc(c->w, draft->uplinks.n, sizeof(*host->uplinks));
	for (size_t i = 0; host->uplinks && i < draft->uplinks.n; i++) {
		if (!names[i].text)
			continue;
		check_interface(c, &names[i]);
		for (size_t k = 0; k < host->n_uplinks && k < PS_PLAN_UPLINKS_MAX; k++) {
			if (strcmp(host->uplinks[k], names[i].text) == 0)
				ps_walk_find(c->w, names[i].at,
					     "uplink \"%s\" is named twice: remove one",
					     ps_quote(names[i].text).text);
		}
		host->uplinks[host->n_uplinks] = ps_check_copy(c, names[i].text);
		if (!host->uplinks[host->n_uplinks])
			return;
		host->n_uplinks++;
	}
	if (draft->uplinks.at.line && draft->uplinks.n == 0)
		ps_walk_find(c->w, draft->uplinks.at,
			     "`uplinks` is empty: name the interfaces on which packets for shared "
			     "addresses arrive");
}

static void read_host(struct ps_check *c, const struct draft_host *draft, struct ps_host *host)
{
	host->site = ps_check_name(c, PS_KIND_SITE, &draft->site);
	host->underlay = draft->underlay.ip;
	if (draft->underlay.set)
		ps_check_unicast(c, draft->underlay.at, "underlay addresses", &host->underlay);
	read_uplinks(c, draft, host);
	check_interface(c, &draft->underlay_interface);
	host->underlay_interface = ps_check_copy(c, draft->underlay_interface.text);
	host->mtu = draft->mtu.set ? (unsigned)draft->mtu.value : PS_PLAN_MTU_DEFAULT;
	host->ledger_mib = draft->ledger_mib.set ? (unsigned)draft->ledger_mib.value
						 : PS_PLAN_LEDGER_DEFAULT_MIB;
}

static void check_crowds(struct ps_check *c)
{
	const struct draft_site *draft = c->draft->sites.items;
	ps_auto_mem size_t *hosts = ps_walk_alloc(c->w, c->plan->n_sites, sizeof(size_t));

	for (size_t i = 0; hosts && i < c->plan->n_hosts; i++) {
		if (c->plan->hosts[i].site != PS_NOWHERE)
			hosts[c->plan->hosts[i].site]++;
	}
	for (size_t i = 0; hosts && i < c->plan->n_sites; i++) {
		if (hosts[i] > PS_PLAN_SITE_HOSTS_MAX)
			ps_walk_find(c->w, draft[i].name.at,
				     "site \"%s\" has %zu hosts: at most %d are supported",
				     ps_quote(draft[i].name.text).text, hosts[i],
				     PS_PLAN_SITE_HOSTS_MAX);
	}
}

void ps_check_hosts(struct ps_check *c)
{
	const struct draft_host *draft = c->draft->hosts.items;
	struct ps_plan *plan = c->plan;

	plan->hosts = ps_walk_alloc(c->w, c->draft->hosts.n, sizeof(*plan->hosts));
	for (size_t i = 0; plan->hosts && i < c->draft->hosts.n; i++) {
		plan->hosts[i].name = ps_check_copy(c, draft[i].name.text);
		if (!plan->hosts[i].name)
			return;
		plan->n_hosts++;
		read_host(c, &draft[i], &plan->hosts[i]);
	}
	ps_check_index(c, PS_KIND_HOST);
	check_crowds(c);
}

void ps_draft_check(struct ps_walk *w, const struct draft_plan *draft, bool undealt,
		    struct ps_plan *plan)
{
	static void (*const steps[])(struct ps_check *c) = {
		ps_check_sites,    ps_check_hosts,    ps_check_pools,    ps_check_overlaps,
		ps_check_underlay, ps_check_mtus,     ps_check_classes,  ps_check_direct,
		ps_check_slices,   ps_check_services, ps_check_capacity,
	};
	struct ps_check c = {.w = w, .draft = draft, .plan = plan, .undealt = undealt};

	for (size_t i = 0; i < PS_N_ELEMENTS(steps) && !w->error; i++)
		steps[i](&c);
	free(c.spans);
}

// SPDX-License-Identifier: MIT
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "plan/draft.h"
#include "plan/index.h"

#define FIELD(type, member, reader, ...) \
	{.key = #member, .read = (reader), .offset = offsetof(type, member), __VA_ARGS__}

static void read_shift(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node,
		       void *ret)
{
	static const struct ps_word sizes[] = {
		{"128", 7},   {"256", 8},    {"512", 9},
		{"1024", 10}, {"2048", 11},  {"4096", 12},
		{"8192", 13}, {"16384", 14}, {"whole", PS_SHIFT_WHOLE},
		{NULL, 0},
	};
	const struct ps_field words = {.key = field->key, .of = sizes};

	ps_read_word(w, &words, node, ret);
}

static const struct ps_word unowned_words[] = {
	{"reject", PS_UNOWNED_REJECT},
	{"drop", PS_UNOWNED_DROP},
	{NULL, 0},
};

static const struct ps_word echo_words[] = {
	{"answer", PS_ECHO_ANSWER},
	{"drop", PS_ECHO_DROP},
	{NULL, 0},
};

static const struct ps_word protocol_words[] = {
	{"tcp", IPPROTO_TCP},
	{"udp", IPPROTO_UDP},
	{NULL, 0},
};

static const struct ps_field site_fields[] = {
	FIELD(struct draft_site, edge, ps_read_ip),
};

static const struct ps_field host_fields[] = {
	FIELD(struct draft_host, site, ps_read_text, .required = true),
	FIELD(struct draft_host, underlay, ps_read_ip, .required = true),
	FIELD(struct draft_host, uplinks, ps_read_texts, .required = true,
	      .max = PS_PLAN_UPLINKS_MAX),
	FIELD(struct draft_host, underlay_interface, ps_read_text),
	FIELD(struct draft_host, mtu, ps_read_number, .min = PS_PLAN_MTU_MIN,
	      .max = PS_PLAN_MTU_MAX),
	FIELD(struct draft_host, ledger_mib, ps_read_number, .min = PS_PLAN_LEDGER_MIN_MIB,
	      .max = PS_PLAN_LEDGER_MAX_MIB),
};

static const struct ps_field block_fields[] = {
	FIELD(struct draft_block, prefix, ps_read_prefix),
	FIELD(struct draft_block, address, ps_read_prefix),
	FIELD(struct draft_block, site, ps_read_text, .required = true),
};

#define SECTION(noun, type, fields_, max_, plain) \
	{.what = (noun),                          \
	 .size = sizeof(type),                    \
	 .fields = (fields_),                     \
	 .n_fields = PS_N_ELEMENTS(fields_),      \
	 .max = (max_),                           \
	 .plain_keys = (plain)}

static const struct ps_section block_section = SECTION("block of addresses", struct draft_block,
						       block_fields, PS_PLAN_ADDRESSES_MAX, false);

static const struct ps_field pool_fields[] = {
	FIELD(struct draft_pool, tags, ps_read_pairs, .max = PS_PLAN_TAGS_MAX),
	{.key = "slice", .read = read_shift, .offset = offsetof(struct draft_pool, shift)},
	FIELD(struct draft_pool, unowned, ps_read_word, .of = unowned_words),
	FIELD(struct draft_pool, echo, ps_read_word, .of = echo_words),
	{.key = "addresses",
	 .read = ps_read_items,
	 .offset = offsetof(struct draft_pool, blocks),
	 .required = true,
	 .of = &block_section},
};

static const struct ps_field match_fields[] = {
	FIELD(struct draft_match, cgroup, ps_read_text),
	FIELD(struct draft_match, mark, ps_read_number, .max = UINT32_MAX),
	FIELD(struct draft_match, uid, ps_read_span, .max = PS_PLAN_UID_MAX,
	      .of = " (`id -u NAME` tells a user's)"),
	FIELD(struct draft_match, from, ps_read_prefix),
	FIELD(struct draft_match, to, ps_read_prefix),
};

static const struct ps_section match_section =
	SECTION("match", struct draft_match, match_fields, 1, false);

static const struct ps_field class_fields[] = {
	FIELD(struct draft_class, name, ps_read_name, .required = true),
	FIELD(struct draft_class, match, ps_read_map, .of = &match_section),
	FIELD(struct draft_class, tags, ps_read_pairs, .required = true, .max = PS_PLAN_TAGS_MAX),
};

static const struct ps_field service_fields[] = {
	FIELD(struct draft_service, name, ps_read_name, .required = true),
	FIELD(struct draft_service, address, ps_read_ip, .required = true),
	FIELD(struct draft_service, port, ps_read_number, .required = true, .min = 1, .max = 65535),
	FIELD(struct draft_service, protocol, ps_read_word, .required = true, .of = protocol_words),
	FIELD(struct draft_service, host, ps_read_text, .required = true),
};

static const struct ps_section site_section =
	SECTION("site", struct draft_site, site_fields, PS_PLAN_SITES_MAX, true);
static const struct ps_section host_section =
	SECTION("host", struct draft_host, host_fields, PS_PLAN_HOSTS_MAX, true);
static const struct ps_section pool_section =
	SECTION("pool", struct draft_pool, pool_fields, PS_PLAN_POOLS_MAX, true);
static const struct ps_section class_section =
	SECTION("class", struct draft_class, class_fields, PS_PLAN_CLASSES_MAX, false);
static const struct ps_section service_section =
	SECTION("service", struct draft_service, service_fields, PS_PLAN_ADDRESSES_MAX, false);

/* The keys of an address's entry are hosts, so it is read whole. */
static const struct ps_field holdings_field =
	FIELD(struct draft_dealt, holdings, ps_read_pairs, .max = PS_PLAN_SITE_HOSTS_MAX);
static const struct ps_section dealt_section = {.what = "address",
						.size = sizeof(struct draft_dealt),
						.value = &holdings_field,
						.max = PS_PLAN_ADDRESSES_MAX};

static const struct ps_field plan_fields[] = {
	FIELD(struct draft_plan, version, ps_read_number, .required = true, .min = PS_PLAN_VERSION,
	      .max = PS_PLAN_VERSION),
	FIELD(struct draft_plan, sites, ps_read_named, .required = true, .of = &site_section),
	FIELD(struct draft_plan, hosts, ps_read_named, .required = true, .of = &host_section),
	FIELD(struct draft_plan, pools, ps_read_named, .required = true, .of = &pool_section),
	FIELD(struct draft_plan, classes, ps_read_items, .of = &class_section),
	FIELD(struct draft_plan, direct, ps_read_prefixes),
	FIELD(struct draft_plan, services, ps_read_items, .of = &service_section),
	FIELD(struct draft_plan, slices, ps_read_named, .of = &dealt_section),
};

static const struct ps_section plan_section =
	SECTION("plan", struct draft_plan, plan_fields, 1, false);

static void list_clear(struct ps_list *list)
{
	free(list->items);
}

void ps_draft_clear(struct draft_plan *draft)
{
	for (size_t i = 0; i < draft->hosts.n; i++)
		list_clear(&((struct draft_host *)draft->hosts.items)[i].uplinks);
	for (size_t i = 0; i < draft->pools.n; i++) {
		list_clear(&((struct draft_pool *)draft->pools.items)[i].tags);
		list_clear(&((struct draft_pool *)draft->pools.items)[i].blocks);
	}
	for (size_t i = 0; i < draft->classes.n; i++)
		list_clear(&((struct draft_class *)draft->classes.items)[i].tags);
	for (size_t i = 0; i < draft->slices.n; i++)
		list_clear(&((struct draft_dealt *)draft->slices.items)[i].holdings);
	list_clear(&draft->sites);
	list_clear(&draft->hosts);
	list_clear(&draft->pools);
	list_clear(&draft->classes);
	list_clear(&draft->direct);
	list_clear(&draft->services);
	list_clear(&draft->slices);
}

void ps_draft_read(struct ps_walk *w, struct draft_plan *ret)
{
	if (w->root)
		ps_walk_map(w, &plan_section, w->root, ret);
}

static int parse(struct ps_walk *w, bool undealt, struct ps_plan **ret)
{
	ps_auto(ps_draft_clear) struct draft_plan draft = {0};
	ps_auto(ps_plan_free) struct ps_plan *plan = calloc(1, sizeof(*plan));

	if (!plan)
		return -ENOMEM;
	plan->index = calloc(1, sizeof(*plan->index));
	if (!plan->index)
		return -ENOMEM;
	ps_draft_read(w, &draft);
	if (w->root && !w->error)
		ps_draft_check(w, &draft, undealt, plan);
	ps_walk_sort(w);
	if (w->error || w->findings)
		return w->error ? w->error : -EINVAL;
	*ret = ps_move(plan);
	return 0;
}

static int parse_text(const char *text, size_t len, const char *file, struct ps_diags *diags,
		      bool undealt, struct ps_plan **ret)
{
	ps_auto(ps_walk_close) struct ps_walk w = {.file = file, .diags = diags};

	ps_walk_open(&w, text, len);
	return parse(&w, undealt, ret);
}

int ps_plan_parse(const char *text, size_t len, const char *file, struct ps_diags *diags,
		  struct ps_plan **ret)
{
	return parse_text(text, len, file, diags, false, ret);
}

int ps_plan_parse_undealt(const char *text, size_t len, const char *file, struct ps_diags *diags,
			  struct ps_plan **ret)
{
	return parse_text(text, len, file, diags, true, ret);
}

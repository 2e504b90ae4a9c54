// SPDX-License-Identifier: MIT
#include "plan/yaml-walk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/own.h"

/* A key and its value; text is NULL for a pair that is to be skipped. */
struct pair {
	const char *text;
	struct ps_spot at;
	yaml_node_t *value;
};

struct pairs {
	struct pair *items;
	size_t n;
};

static void pairs_clear(struct pairs *pairs)
{
	free(pairs->items);
}

static bool may_visit(struct ps_walk *w, const yaml_node_t *node)
{
	if (w->error || w->visits == 0)
		return false;
	if (--w->visits == 0)
		ps_walk_find(w, ps_walk_spot(node),
			     "aliases make this file %d times as long: write the values out",
			     PS_WALK_VISITS_PER_NODE);
	return w->visits > 0;
}

static const char *kind_of(const yaml_node_t *node)
{
	switch (node->type) {
	case YAML_SCALAR_NODE:
		return "text";
	case YAML_SEQUENCE_NODE:
		return "a list";
	default:
		return "a mapping";
	}
}

/* A key without anything after the colon. */
static bool is_blank(const yaml_node_t *node)
{
	return node->type == YAML_SCALAR_NODE && node->data.scalar.length == 0 &&
	       node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

/* True when node is such a collection; a blank is an empty one. */
static bool enter(struct ps_walk *w, yaml_node_t *node, yaml_node_type_t type, const char *what)
{
	if (!may_visit(w, node))
		return false;
	if (node->type == type || is_blank(node))
		return true;
	ps_walk_find(w, ps_walk_spot(node), "`%s` must be a %s, not %s", ps_quote(what).text,
		     type == YAML_MAPPING_NODE ? "mapping (key: value)" : "list ([a, b] or - a)",
		     kind_of(node));
	return false;
}

/* The text of a scalar, or NULL with a finding. */
static const char *scalar(struct ps_walk *w, const char *what, yaml_node_t *node)
{
	const char *text;

	if (!may_visit(w, node))
		return NULL;
	if (node->type != YAML_SCALAR_NODE) {
		ps_walk_find(w, ps_walk_spot(node), "`%s` must be one value, not %s",
			     ps_quote(what).text, kind_of(node));
		return NULL;
	}
	text = (const char *)node->data.scalar.value;
	if (strlen(text) == node->data.scalar.length && *text)
		return text;
	ps_walk_find(w, ps_walk_spot(node), "`%s` %s", ps_quote(what).text,
		     *text ? "has a NUL character in it: remove it"
			   : "is empty: give it a value or remove it");
	return NULL;
}

static int by_text_then_place(const void *a, const void *b)
{
	const struct pair *const *x = a, *const *y = b;
	int r = strcmp((*x)->text, (*y)->text);

	return r ? r : (*x > *y) - (*x < *y);
}

/* The first of several pairs with one key stays. */
static void drop_duplicates(struct ps_walk *w, struct pairs *pairs)
{
	ps_auto_mem struct pair **sorted = ps_walk_alloc(w, pairs->n, sizeof(struct pair *));
	const struct pair *first;

	if (!sorted || pairs->n < 2)
		return;
	for (size_t i = 0; i < pairs->n; i++)
		sorted[i] = &pairs->items[i];
	qsort(sorted, pairs->n, sizeof(*sorted), by_text_then_place);
	first = sorted[0];
	for (size_t i = 1; i < pairs->n; i++) {
		if (strcmp(first->text, sorted[i]->text) != 0) {
			first = sorted[i];
			continue;
		}
		ps_walk_find(w, sorted[i]->at,
			     "duplicate key \"%s\": it is already on line %u, remove one",
			     ps_quote(first->text).text, first->at.line);
		sorted[i]->value = NULL;
	}
}

/* The pairs of a mapping in the order of the file, each key once; false: it is no mapping. */
static bool pairs_read(struct ps_walk *w, const char *what, yaml_node_t *node, struct pairs *ret)
{
	yaml_node_pair_t *p;

	if (!enter(w, node, YAML_MAPPING_NODE, what))
		return false;
	if (is_blank(node))
		return true;
	p = node->data.mapping.pairs.start;
	ret->items =
		ps_walk_alloc(w, (size_t)(node->data.mapping.pairs.top - p), sizeof(*ret->items));
	for (; ret->items && p < node->data.mapping.pairs.top; p++) {
		yaml_node_t *key = yaml_document_get_node(&w->doc, p->key);
		const char *text = scalar(w, "key", key);

		if (text)
			ret->items[ret->n++] = (struct pair){
				text, ps_walk_spot(key), yaml_document_get_node(&w->doc, p->value)};
	}
	if (ret->items)
		drop_duplicates(w, ret);
	return ret->items != NULL;
}

static const struct ps_field *field_find(struct ps_walk *w, const struct ps_section *section,
					 const struct pair *pair)
{
	struct ps_guess guess = {.wanted = pair->text};
	ps_auto_mem char *hint = NULL;

	for (size_t i = 0; i < section->n_fields; i++) {
		if (strcmp(section->fields[i].key, pair->text) == 0)
			return &section->fields[i];
		ps_guess_offer(&guess, section->fields[i].key);
	}
	if (guess.best)
		ps_walk_find(w, pair->at, "unknown key \"%s\" in a %s: did you mean \"%s\"?",
			     ps_quote(pair->text).text, section->what, guess.best);
	else
		ps_walk_find(w, pair->at, "unknown key \"%s\" in a %s: remove it",
			     ps_quote(pair->text).text, section->what);
	return NULL;
}

void ps_walk_map(struct ps_walk *w, const struct ps_section *section, yaml_node_t *node, void *ret)
{
	ps_auto(pairs_clear) struct pairs pairs = {0};
	uint64_t seen = 0;

	if (!pairs_read(w, section->what, node, &pairs))
		return;
	for (size_t i = 0; i < pairs.n; i++) {
		const struct ps_field *field;

		field = pairs.items[i].value ? field_find(w, section, &pairs.items[i]) : NULL;
		if (!field)
			continue;
		seen |= UINT64_C(1) << (field - section->fields);
		field->read(w, field, pairs.items[i].value, (char *)ret + field->offset);
	}
	for (size_t i = 0; i < section->n_fields; i++) {
		if (section->fields[i].required && !(seen & UINT64_C(1) << i))
			ps_walk_find(w, ps_walk_spot(node), "a %s needs the key \"%s\": add it",
				     section->what, section->fields[i].key);
	}
}

void ps_read_map(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret)
{
	ps_walk_map(w, field->of, node, ret);
}

static void check_name(struct ps_walk *w, struct ps_spot at, const char *name)
{
	if (!ps_name_valid(name))
		ps_walk_find(w, at, "bad name \"%s\": use 1 to %d characters of A-Z a-z 0-9 . _ -",
			     ps_quote(name).text, PS_NAME_MAX);
}

void ps_read_text(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret)
{
	*(struct ps_text_at *)ret =
		(struct ps_text_at){scalar(w, field->key, node), ps_walk_spot(node)};
}

void ps_read_name(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret)
{
	struct ps_text_at *name = ret;

	ps_read_text(w, field, node, ret);
	if (name->text)
		check_name(w, name->at, name->text);
}

/* Decimal, or hexadecimal with 0x; no sign, no space. */
static bool number_of(const char *text, uint64_t *ret)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	const char *digits = text + (hex ? 2 : 0);
	char *end;

	if (!*digits ||
	    strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789") != strlen(digits))
		return false;
	errno = 0;
	*ret = strtoull(digits, &end, hex ? 16 : 10);
	return errno == 0;
}

void ps_read_number(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret)
{
	const char *text = scalar(w, field->key, node);
	struct ps_number_at *number = ret;

	number->at = ps_walk_spot(node);
	if (!text)
		return;
	number->set = number_of(text, &number->value) && number->value >= field->min &&
		      number->value <= field->max;
	if (number->set)
		return;
	if (field->min == field->max)
		ps_walk_find(w, number->at, "`%s` is \"%s\": it must be %llu", field->key,
			     ps_quote(text).text, (unsigned long long)field->min);
	else
		ps_walk_find(w, number->at, "`%s` is \"%s\": it must be a number from %llu to %llu",
			     field->key, ps_quote(text).text, (unsigned long long)field->min,
			     (unsigned long long)field->max);
}

/* "1000", or "1000-1999" in *text, which is cut in two. */
static bool span_of(char *text, struct ps_span_at *ret)
{
	char *dash = strchr(text, '-');

	if (dash)
		*dash = '\0';
	return number_of(text, &ret->first) && number_of(dash ? dash + 1 : text, &ret->last);
}

void ps_read_span(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret)
{
	const char *text = scalar(w, field->key, node);
	ps_auto_mem char *copy = text ? strdup(text) : NULL;
	struct ps_span_at *span = ret;

	span->at = ps_walk_spot(node);
	if (!copy) {
		w->error = text ? -ENOMEM : w->error;
		return;
	}
	if (!span_of(copy, span) || span->first < field->min || span->last > field->max)
		ps_walk_find(w, span->at,
			     "`%s` is \"%s\": it must be a number from %llu to %llu, or a range "
			     "like 1000-1999%s",
			     field->key, ps_quote(text).text, (unsigned long long)field->min,
			     (unsigned long long)field->max, (const char *)field->of);
	else if (span->last < span->first)
		ps_walk_find(w, span->at, "`%s` is \"%s\", which is empty: write %llu-%llu",
			     field->key, ps_quote(text).text, (unsigned long long)span->last,
			     (unsigned long long)span->first);
	else
		span->set = true;
}

static void find_bad_word(struct ps_walk *w, const struct ps_field *field, struct ps_spot at,
			  const char *text)
{
	ps_auto_mem char *words = NULL;
	size_t size;
	FILE *f = open_memstream(&words, &size);

	if (!f) {
		w->error = -ENOMEM;
		return;
	}
	for (const struct ps_word *word = field->of; word->text; word++)
		(void)fprintf(f, "%s%s", word == field->of ? "" : ", ", word->text);
	if (fclose(f) != 0)
		w->error = -ENOMEM;
	else
		ps_walk_find(w, at, "`%s` is \"%s\": it must be one of %s", field->key,
			     ps_quote(text).text, words);
}

void ps_read_word(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret)
{
	const char *text = scalar(w, field->key, node);
	struct ps_spot at = ps_walk_spot(node);

	if (!text)
		return;
	for (const struct ps_word *word = field->of; word->text; word++) {
		if (strcmp(word->text, text) == 0) {
			*(struct ps_number_at *)ret = (struct ps_number_at){word->value, true, at};
			return;
		}
	}
	find_bad_word(w, field, at, text);
}

void ps_read_ip(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret)
{
	const char *text = scalar(w, field->key, node);
	struct ps_ip_at *ip = ret;

	ip->at = ps_walk_spot(node);
	if (!text)
		return;
	ip->set = ps_ip_parse(text, &ip->ip) == 0;
	if (!ip->set)
		ps_walk_find(w, ip->at, "`%s` is \"%s\": it must be an address like 192.0.2.1",
			     field->key, ps_quote(text).text);
}

/* The network in which a prefix with host bits lies, as text; false when text is no prefix. */
static bool network_text(const char *text, char ret[PS_PREFIX_TEXT_MAX])
{
	const char *slash = strchr(text, '/');
	char address[PS_IP_TEXT_MAX] = {0};
	struct ps_prefix net = {0};
	unsigned bits;

	if (!slash || (size_t)(slash - text) >= sizeof(address))
		return false;
	memcpy(address, text, (size_t)(slash - text));
	if (ps_ip_parse(address, &net.ip) < 0)
		return false;
	bits = (unsigned)strtoul(slash + 1, NULL, 10) + (ps_ip_is_v4(&net.ip) ? 96 : 0);
	net.bits = (uint8_t)bits;
	for (unsigned bit = bits; bit < 128; bit++)
		net.ip.bytes[bit / 8] &= (uint8_t)~(0x80 >> bit % 8);
	ps_prefix_format(&net, ret);
	return true;
}

void ps_read_prefix(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret)
{
	const char *text = scalar(w, field->key, node);
	struct ps_prefix_at *prefix = ret;
	char net[PS_PREFIX_TEXT_MAX];
	int r;

	prefix->at = ps_walk_spot(node);
	if (!text)
		return;
	r = ps_prefix_parse(text, &prefix->prefix);
	prefix->set = r == 0;
	if (r == -EDOM && network_text(text, net))
		ps_walk_find(w, prefix->at,
			     "`%s` is %s, which has host bits set: the network is %s", field->key,
			     ps_quote(text).text, net);
	else if (r < 0)
		ps_walk_find(w, prefix->at, "`%s` is \"%s\": it must be a prefix like 192.0.2.0/24",
			     field->key, ps_quote(text).text);
}

static void check_count(struct ps_walk *w, const yaml_node_t *node, const char *what, size_t n,
			size_t max)
{
	if (n > max)
		ps_walk_find(w, ps_walk_spot(node),
			     "%zu entries in `%s`: at most %zu are supported", n, what, max);
}

static void item_read(struct ps_walk *w, const struct ps_section *section, yaml_node_t *node,
		      void *item)
{
	const struct ps_field *value = section->value;

	if (value)
		value->read(w, value, node, (char *)item + value->offset);
	else
		ps_walk_map(w, section, node, item);
}

void ps_read_named(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret)
{
	const struct ps_section *section = field->of;
	ps_auto(pairs_clear) struct pairs pairs = {0};
	struct ps_list *list = ret;

	list->at = ps_walk_spot(node);
	(void)pairs_read(w, field->key, node, &pairs);
	check_count(w, node, field->key, pairs.n, section->max);
	list->items = ps_walk_alloc(w, pairs.n, section->size);
	for (size_t i = 0; list->items && i < pairs.n; i++) {
		struct ps_text_at *item = (void *)((char *)list->items + list->n * section->size);

		if (!pairs.items[i].value)
			continue;
		list->n++;
		if (section->plain_keys)
			check_name(w, pairs.items[i].at, pairs.items[i].text);
		*item = (struct ps_text_at){pairs.items[i].text, pairs.items[i].at};
		item_read(w, section, pairs.items[i].value, item);
	}
}

/* The nodes of a list; *ret_n is how many. */
static yaml_node_item_t *list_enter(struct ps_walk *w, const char *what, yaml_node_t *node,
				    size_t *ret_n)
{
	if (!enter(w, node, YAML_SEQUENCE_NODE, what) || is_blank(node))
		return NULL;
	*ret_n = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
	return node->data.sequence.items.start;
}

/* One item of a list. */
typedef void item_fn(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret);

static void list_read(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node,
		      size_t size, item_fn *read, struct ps_list *ret)
{
	size_t n = 0;
	yaml_node_item_t *nodes = list_enter(w, field->key, node, &n);

	ret->at = ps_walk_spot(node);
	ret->items = ps_walk_alloc(w, n, size);
	for (size_t i = 0; ret->items && i < n; i++)
		read(w, field, yaml_document_get_node(&w->doc, nodes[i]),
		     (char *)ret->items + ret->n++ * size);
}

static void read_item(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret)
{
	((struct ps_text_at *)ret)->at = ps_walk_spot(node);
	ps_walk_map(w, field->of, node, ret);
}

void ps_read_items(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret)
{
	const struct ps_section *section = field->of;
	struct ps_list *list = ret;

	list_read(w, field, node, section->size, read_item, list);
	check_count(w, node, field->key, list->n, section->max);
}

void ps_read_texts(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret)
{
	struct ps_list *list = ret;

	list_read(w, field, node, sizeof(struct ps_text_at), ps_read_text, list);
	check_count(w, node, field->key, list->n, field->max);
}

void ps_read_prefixes(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret)
{
	list_read(w, field, node, sizeof(struct ps_prefix_at), ps_read_prefix, ret);
}

void ps_read_pairs(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node, void *ret)
{
	ps_auto(pairs_clear) struct pairs pairs = {0};
	struct ps_list *list = ret;

	list->at = ps_walk_spot(node);
	(void)pairs_read(w, field->key, node, &pairs);
	check_count(w, node, field->key, pairs.n, field->max);
	list->items = ps_walk_alloc(w, pairs.n, 2 * sizeof(struct ps_text_at));
	for (size_t i = 0; list->items && i < pairs.n; i++) {
		struct ps_text_at *item = (struct ps_text_at *)list->items + 2 * list->n;

		if (!pairs.items[i].value)
			continue;
		item[0] = (struct ps_text_at){pairs.items[i].text, pairs.items[i].at};
		item[1].at = ps_walk_spot(pairs.items[i].value);
		item[1].text = scalar(w, pairs.items[i].text, pairs.items[i].value);
		list->n += item[1].text != NULL;
	}
}

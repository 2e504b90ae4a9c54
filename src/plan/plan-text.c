// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "plan/index.h"
#include "plan/yaml-walk.h"

/* A file that is being rewritten; offsets are bytes of text. */
struct rewrite {
	const char *text;
	size_t len;
	const struct ps_plan *plan;
	const char *eol; /* as the file ends its lines */
	unsigned indent; /* of the top-level keys, characters */
	FILE *out;
};

static size_t offset_of(const struct rewrite *rw, yaml_mark_t mark)
{
	return ps_walk_offset(rw->text, rw->len, mark.index);
}

static size_t line_start(const struct rewrite *rw, size_t offset)
{
	while (offset > 0 && rw->text[offset - 1] != '\n')
		offset--;
	return offset;
}

static size_t next_line(const struct rewrite *rw, size_t offset)
{
	while (offset < rw->len && rw->text[offset] != '\n')
		offset++;
	return offset < rw->len ? offset + 1 : offset;
}

/* The end of the last line before `offset` that is neither blank nor a comment, not before `low`. */
static size_t content_end(const struct rewrite *rw, size_t low, size_t offset)
{
	while (offset > low) {
		size_t start = line_start(rw, offset - 1);
		size_t first = start;

		while (first < offset && strchr(" \t", rw->text[first]))
			first++;
		if (start < low || (first < offset && !strchr("#\r\n", rw->text[first])))
			break;
		offset = start;
	}
	return offset;
}

static void copy(const struct rewrite *rw, size_t from, size_t to)
{
	(void)fwrite(rw->text + from, 1, to - from, rw->out);
}

static int by_owner(const void *a, const void *b)
{
	const struct ps_grant *x = a, *y = b;

	if (x->host != y->host)
		return x->host < y->host ? -1 : 1;
	return (x->slice > y->slice) - (x->slice < y->slice);
}

/* `lhr1: 1` or `lhr1: "3-4,7"` for the sorted grants of one host at one address. */
static void print_holding(const struct rewrite *rw, const struct ps_grant *grants, size_t n)
{
	const char *name = rw->plan->hosts[grants[0].host].name;
	const char *name_quote = strchr("-.", name[0]) ? "\"" : "", *quote = n > 1 ? "\"" : "";
	size_t end;

	(void)fprintf(rw->out, "%s%s%s: %s", name_quote, name, name_quote, quote);
	for (size_t i = 0; i < n; i = end) {
		for (end = i + 1; end < n && grants[end].slice == grants[end - 1].slice + 1;)
			end++;
		(void)fprintf(rw->out, "%s%u", i ? "," : "", grants[i].slice);
		if (end - i > 1)
			(void)fprintf(rw->out, "-%u", grants[end - 1].slice);
	}
	(void)fputs(quote, rw->out);
}

/* `198.51.100.1: { lhr1: 1, lhr2: 2 }` for the grants of one address, sorted by owner.  IPv6 in
 * quotes: readers of YAML differ about plain text that begins or ends in colons. */
static void print_address(const struct rewrite *rw, const struct ps_grant *grants, size_t n)
{
	const char *quote = ps_ip_is_v4(&grants[0].address) ? "" : "\"";
	char ip[PS_IP_TEXT_MAX];
	size_t end;

	ps_ip_format(&grants[0].address, ip);
	(void)fprintf(rw->out, "%s%s%s: { ", quote, ip, quote);
	for (size_t i = 0; i < n; i = end) {
		for (end = i; end < n && grants[end].host == grants[i].host;)
			end++;
		(void)fputs(i ? ", " : "", rw->out);
		print_holding(rw, &grants[i], end - i);
	}
	(void)fputs(" }", rw->out);
}

/* Every address with `before` and `after` around it, and `between` two of them. */
static int print_grants(const struct rewrite *rw, const char *before, const char *after,
			const char *between)
{
	size_t n = rw->plan->n_grants, end;
	ps_auto_mem struct ps_grant *grants = calloc(n + 1, sizeof(*grants));

	if (!grants)
		return -ENOMEM;
	if (n)
		memcpy(grants, rw->plan->grants, n * sizeof(*grants));
	for (size_t i = 0; i < n; i = end) {
		for (end = i; end < n && ps_ip_cmp(&grants[end].address, &grants[i].address) == 0;)
			end++;
		qsort(&grants[i], end - i, sizeof(*grants), by_owner);
		(void)fprintf(rw->out, "%s%*s", i ? between : "", (int)rw->indent, "");
		(void)fputs(before, rw->out);
		print_address(rw, &grants[i], end - i);
		(void)fputs(after, rw->out);
	}
	return 0;
}

static int print_block(const struct rewrite *rw)
{
	return print_grants(rw, "  ", rw->eol, "");
}

static int print_flow(const struct rewrite *rw)
{
	int r;

	(void)fputs("{ ", rw->out);
	r = print_grants(rw, "", "", ", ");
	(void)fputs(" }", rw->out);
	return r;
}

/* Lines [from, to) become the grants, one line for each address. */
static int replace_lines(const struct rewrite *rw, size_t from, size_t to)
{
	int r;

	copy(rw, 0, from);
	if (from > 0 && rw->text[from - 1] != '\n')
		(void)fputs(rw->eol, rw->out);
	r = print_block(rw);
	copy(rw, to, rw->len);
	return r;
}

/* `slices: {}  # why` keeps the comment and gets its grants on the lines below. */
static int replace_inline(const struct rewrite *rw, const yaml_node_t *value)
{
	size_t from = offset_of(rw, value->start_mark), to = offset_of(rw, value->end_mark);
	size_t rest = next_line(rw, to);
	int r;

	while (from > 0 && from < to && strchr(" \t", rw->text[from - 1]))
		from--;
	copy(rw, 0, from);
	copy(rw, to, rest);
	if (rest > 0 && rw->text[rest - 1] != '\n')
		(void)fputs(rw->eol, rw->out);
	r = print_block(rw);
	copy(rw, rest, rw->len);
	return r;
}

static int replace_flow(const struct rewrite *rw, const yaml_node_t *value)
{
	int r;

	copy(rw, 0, offset_of(rw, value->start_mark));
	r = print_flow(rw);
	copy(rw, offset_of(rw, value->end_mark), rw->len);
	return r;
}

static bool is_block(const yaml_node_t *node)
{
	return node->type == YAML_MAPPING_NODE &&
	       node->data.mapping.style != YAML_FLOW_MAPPING_STYLE;
}

static int replace_block(const struct rewrite *rw, yaml_document_t *doc, const yaml_node_t *value,
			 size_t next_key)
{
	const yaml_node_t *first =
		yaml_document_get_node(doc, value->data.mapping.pairs.start->key);
	size_t from = line_start(rw, offset_of(rw, first->start_mark));

	return replace_lines(rw, from, content_end(rw, from, next_key));
}

static int append_block(const struct rewrite *rw, const yaml_node_t *root)
{
	size_t at = offset_of(rw, root->end_mark);
	int r;

	copy(rw, 0, at);
	if (at > 0 && rw->text[at - 1] != '\n')
		(void)fputs(rw->eol, rw->out);
	(void)fprintf(rw->out, "%s%*sslices:%s", rw->eol, (int)rw->indent, "", rw->eol);
	r = print_block(rw);
	copy(rw, at, rw->len);
	return r;
}

/* Before the closing brace of a file in flow style, after a comma if there is none yet. */
static int append_flow(const struct rewrite *rw, const yaml_node_t *root, bool comma)
{
	size_t brace = offset_of(rw, root->end_mark) - 1;
	int r;

	copy(rw, 0, brace);
	(void)fputs(comma ? ", slices: " : "slices: ", rw->out);
	r = print_flow(rw);
	copy(rw, brace, rw->len);
	return r;
}

/* The value of the top-level `slices`, NULL if there is none; *ret_next is where the key after it
 * begins, or the end of the document. */
static const yaml_node_t *find_slices(const struct rewrite *rw, yaml_document_t *doc,
				      const yaml_node_t *root, size_t *ret_next)
{
	const yaml_node_pair_t *pair = root->data.mapping.pairs.start;

	*ret_next = offset_of(rw, root->end_mark);
	for (; pair < root->data.mapping.pairs.top; pair++) {
		const yaml_node_t *key = yaml_document_get_node(doc, pair->key);

		if (key->type != YAML_SCALAR_NODE ||
		    strcmp((const char *)key->data.scalar.value, "slices") != 0)
			continue;
		if (pair + 1 < root->data.mapping.pairs.top)
			*ret_next = line_start(
				rw,
				offset_of(rw,
					  yaml_document_get_node(doc, pair[1].key)->start_mark));
		return yaml_document_get_node(doc, pair->value);
	}
	return NULL;
}

static int rewrite(struct rewrite *rw, yaml_document_t *doc, bool comma)
{
	const yaml_node_t *root = yaml_document_get_root_node(doc), *value;
	size_t next;

	if (root->type != YAML_MAPPING_NODE)
		return -EINVAL;
	value = find_slices(rw, doc, root, &next);
	if (!is_block(root))
		return value ? replace_flow(rw, value) : append_flow(rw, root, comma);
	rw->indent = (unsigned)root->start_mark.column;
	if (!value)
		return append_block(rw, root);
	if (is_block(value))
		return replace_block(rw, doc, value, next);
	return replace_inline(rw, value);
}

/* That the text says exactly what plan means. */
static bool means(const char *text, const struct ps_plan *plan)
{
	uint8_t wanted[PS_PLAN_DIGEST_LEN], got[PS_PLAN_DIGEST_LEN];
	ps_auto(ps_plan_free) struct ps_plan *back = NULL;
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};

	return ps_plan_parse(text, strlen(text), "", &diags, &back) == 0 &&
	       ps_plan_digest(back, got) == 0 && ps_plan_digest(plan, wanted) == 0 &&
	       memcmp(got, wanted, sizeof(got)) == 0;
}

static int attempt(struct rewrite *rw, yaml_document_t *doc, bool comma, char **ret)
{
	ps_auto_mem char *text = NULL;
	size_t size;
	int r;

	rw->out = open_memstream(&text, &size);
	if (!rw->out)
		return -ENOMEM;
	r = rewrite(rw, doc, comma);
	if (fclose(rw->out) != 0)
		return -ENOMEM;
	if (r < 0)
		return r;
	if (!means(text, rw->plan))
		return -EINVAL;
	*ret = ps_move(text);
	return 0;
}

int ps_plan_deal_text(const char *text, size_t len, const struct ps_plan *plan, char **ret)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	ps_auto(ps_walk_close) struct ps_walk w = {.file = "", .diags = &diags};
	struct rewrite rw = {.text = text, .len = len, .plan = plan, .eol = "\n"};
	const char *newline = memchr(text, '\n', len);
	int r;

	ps_walk_open(&w, text, len);
	if (w.error || w.findings)
		return w.error ? w.error : -EINVAL;
	if (newline && newline > text && newline[-1] == '\r')
		rw.eol = "\r\n";
	r = attempt(&rw, &w.doc, true, ret);
	/* A file in flow style may end in a comma already. */
	return r == -EINVAL ? attempt(&rw, &w.doc, false, ret) : r;
}

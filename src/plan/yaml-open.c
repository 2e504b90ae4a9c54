// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/own.h"
#include "plan/yaml-walk.h"

void ps_walk_find(struct ps_walk *w, struct ps_spot at, const char *format, ...)
{
	ps_auto_mem char *text = NULL;
	va_list args;
	int r;

	if (w->error || w->findings > PS_WALK_FINDINGS_MAX)
		return;
	va_start(args, format);
	r = vasprintf(&text, format, args);
	va_end(args);
	if (r < 0) {
		text = NULL; /* indeterminate after failure */
		w->error = -ENOMEM;
		return;
	}
	if (w->findings == PS_WALK_FINDINGS_MAX)
		r = ps_diags_add(w->diags, 0, w->file, 0, 0,
				 "more than %d findings: correct these first",
				 PS_WALK_FINDINGS_MAX);
	else
		r = ps_diags_add(w->diags, 0, w->file, at.line, at.column, "%s", text);
	if (r < 0)
		w->error = r;
	else
		w->findings++;
}

void *ps_walk_alloc(struct ps_walk *w, size_t n, size_t size)
{
	void *p = w->error ? NULL : calloc(n ? n : 1, size);

	if (!p)
		w->error = -ENOMEM;
	return p;
}

static struct ps_spot spot_of(yaml_mark_t mark)
{
	return (struct ps_spot){(unsigned)mark.line + 1, (unsigned)mark.column + 1};
}

struct ps_spot ps_walk_spot(const yaml_node_t *node)
{
	return spot_of(node->start_mark);
}

size_t ps_walk_offset(const char *text, size_t len, size_t characters)
{
	size_t i = 0;

	for (; i < len; i++) {
		bool starts = ((unsigned char)text[i] & 0xc0) != 0x80;

		if (starts && characters-- == 0)
			break;
	}
	return i;
}

static struct ps_spot spot_of_byte(const char *text, size_t offset)
{
	struct ps_spot at = {1, 1};

	for (size_t i = 0; i < offset; i++) {
		at.column++;
		if (text[i] == '\n')
			at = (struct ps_spot){at.line + 1, 1};
	}
	return at;
}

static void find_syntax(struct ps_walk *w, const yaml_parser_t *parser, const char *text,
			size_t len)
{
	size_t offset = ps_walk_offset(text, len, parser->problem_mark.index);

	if (parser->error == YAML_MEMORY_ERROR)
		w->error = -ENOMEM;
	else if (parser->error == YAML_READER_ERROR)
		ps_walk_find(w, spot_of_byte(text, parser->problem_offset),
			     "not YAML: %s: use UTF-8 text", parser->problem);
	else if (offset < len && text[offset] == '\t')
		ps_walk_find(w, spot_of(parser->problem_mark),
			     "not YAML: a tab: indent with spaces");
	else
		ps_walk_find(w, spot_of(parser->problem_mark), "not YAML: %s%s%s", parser->problem,
			     parser->context ? " " : "", parser->context ? parser->context : "");
}

static void start(yaml_parser_t *parser, const char *text, size_t len)
{
	yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(parser, (const unsigned char *)text, len);
}

/* How many levels a token adds. */
static int nesting_of(yaml_token_type_t type)
{
	switch (type) {
	case YAML_BLOCK_SEQUENCE_START_TOKEN:
	case YAML_BLOCK_MAPPING_START_TOKEN:
	case YAML_FLOW_SEQUENCE_START_TOKEN:
	case YAML_FLOW_MAPPING_START_TOKEN:
		return 1;
	case YAML_BLOCK_END_TOKEN:
	case YAML_FLOW_SEQUENCE_END_TOKEN:
	case YAML_FLOW_MAPPING_END_TOKEN:
		return -1;
	default:
		return 0;
	}
}

/* libyaml compares every anchor with all before it, and 0.2.5 looks at every open bracket for every
 * token: too many of either are a way to hang it, so they are counted token by token first. */
static bool is_tame(struct ps_walk *w, yaml_parser_t *parser)
{
	unsigned anchors = 0;
	int depth = 0;
	bool more = true;

	while (more) {
		yaml_token_t token;

		if (!yaml_parser_scan(parser, &token))
			return true; /* loading will say what is wrong */
		anchors += token.type == YAML_ANCHOR_TOKEN;
		depth += nesting_of(token.type);
		if (anchors > PS_WALK_ANCHORS_MAX || depth > PS_WALK_DEPTH_MAX) {
			ps_walk_find(
				w, spot_of(token.start_mark),
				depth > PS_WALK_DEPTH_MAX
					? "nested more than %d deep: a plan never is"
					: "more than %d anchors (`&name`): write the values out",
				depth > PS_WALK_DEPTH_MAX ? PS_WALK_DEPTH_MAX
							  : PS_WALK_ANCHORS_MAX);
			more = false;
		}
		more = more && token.type != YAML_STREAM_END_TOKEN;
		yaml_token_delete(&token);
	}
	return anchors <= PS_WALK_ANCHORS_MAX && depth <= PS_WALK_DEPTH_MAX;
}

static bool check_tame(struct ps_walk *w, const char *text, size_t len)
{
	yaml_parser_t parser;
	bool tame;

	if (!yaml_parser_initialize(&parser)) {
		w->error = -ENOMEM;
		return false;
	}
	start(&parser, text, len);
	tame = is_tame(w, &parser);
	yaml_parser_delete(&parser);
	return tame;
}

/* A stream may hold several documents; a plan is the only one in its file. */
static void refuse_second(struct ps_walk *w, yaml_parser_t *parser, const char *text, size_t len)
{
	yaml_document_t second;
	yaml_node_t *root;

	if (!yaml_parser_load(parser, &second)) {
		find_syntax(w, parser, text, len);
		return;
	}
	root = yaml_document_get_root_node(&second);
	if (root)
		ps_walk_find(w, ps_walk_spot(root),
			     "a second YAML document: a plan is one document, remove the `---`");
	yaml_document_delete(&second);
}

static void load(struct ps_walk *w, yaml_parser_t *parser, const char *text, size_t len)
{
	start(parser, text, len);
	if (!yaml_parser_load(parser, &w->doc)) {
		find_syntax(w, parser, text, len);
		return;
	}
	w->has_doc = true;
	w->root = yaml_document_get_root_node(&w->doc);
	w->visits = PS_WALK_VISITS_PER_NODE * (size_t)(w->doc.nodes.top - w->doc.nodes.start);
	if (w->root)
		refuse_second(w, parser, text, len);
	else
		ps_walk_find(w, (struct ps_spot){0, 0},
			     "the file is empty: a plan starts with `version: %d`", 1);
}

void ps_walk_open(struct ps_walk *w, const char *text, size_t len)
{
	yaml_parser_t parser;

	if (len > PS_WALK_TEXT_MAX) {
		ps_walk_find(w, (struct ps_spot){0, 0},
			     "the file has %zu bytes: at most %d are read", len, PS_WALK_TEXT_MAX);
		return;
	}
	if (!check_tame(w, text, len))
		return;
	if (!yaml_parser_initialize(&parser)) {
		w->error = -ENOMEM;
		return;
	}
	load(w, &parser, text, len);
	yaml_parser_delete(&parser);
}

void ps_walk_close(struct ps_walk *w)
{
	if (w->has_doc)
		yaml_document_delete(&w->doc);
	w->has_doc = false;
}

static int by_place(const void *a, const void *b)
{
	const struct ps_diag *x = a, *y = b;
	/* The file as a whole (line 0) comes last: it is the "more than" line or alone. */
	unsigned xl = x->line - 1, yl = y->line - 1;

	if (xl != yl)
		return xl < yl ? -1 : 1;
	if (x->column != y->column)
		return x->column < y->column ? -1 : 1;
	return strcmp(x->text, y->text);
}

void ps_walk_sort(struct ps_walk *w)
{
	if (w->findings > 1)
		qsort(w->diags->items + w->diags->n - w->findings, w->findings,
		      sizeof(*w->diags->items), by_place);
}

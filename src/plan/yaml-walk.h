/* SPDX-License-Identifier: MIT */
/*
 * Walking a YAML document by a table of fields, each with its type, and saying precisely what is
 * wrong where.  Knows nothing of plans.  Private to this folder.
 */
#ifndef PS_PLAN_YAML_WALK_H
#define PS_PLAN_YAML_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <yaml.h>

#include "base/diag.h"
#include "base/ip.h"

enum {
	PS_WALK_TEXT_MAX = 8 << 20,    /* bytes of a file; 65,536 addresses dealt to 31 hosts fit */
	PS_WALK_ANCHORS_MAX = 1000,    /* libyaml looks them up one by one */
	PS_WALK_DEPTH_MAX = 32,        /* a plan needs 6 */
	PS_WALK_FINDINGS_MAX = 1000,   /* more do not help anybody */
	PS_WALK_SUGGESTIONS_MAX = 100, /* findings that get a costly "did you mean" */
	PS_WALK_VISITS_PER_NODE = 16,  /* aliases may repeat a file this often */
	PS_NAME_MAX = 63,
};

/* Both count from 1. */
struct ps_spot {
	unsigned line, column;
};

struct ps_text_at {
	const char *text; /* borrowed from the document; NULL: the key is not there */
	struct ps_spot at;
};

struct ps_number_at {
	uint64_t value;
	bool set;
	struct ps_spot at;
};

/* From first to last. */
struct ps_span_at {
	uint64_t first, last;
	bool set;
	struct ps_spot at;
};

struct ps_ip_at {
	struct ps_ip ip;
	bool set;
	struct ps_spot at;
};

struct ps_prefix_at {
	struct ps_prefix prefix;
	bool set;
	struct ps_spot at;
};

/* items is one heap block. */
struct ps_list {
	void *items;
	size_t n;
	struct ps_spot at;
};

/* One walk over one document. */
struct ps_walk {
	yaml_document_t doc;
	bool has_doc;
	yaml_node_t *root;
	const char *file;
	struct ps_diags *diags;
	size_t findings; /* of this walk */
	size_t visits;   /* left */
	int error;       /* -ENOMEM once memory ran out; everything after is void */
};

struct ps_field;
typedef void ps_read_fn(struct ps_walk *w, const struct ps_field *field, yaml_node_t *node,
			void *ret);

/* One key of a mapping: where its value goes and what it may be. */
struct ps_field {
	const char *key;
	ps_read_fn *read;
	size_t offset;
	bool required;
	uint64_t min, max; /* of a number */
	const void *
		of; /* what read needs to know more: a struct ps_section, a list of words, a hint */
};

/* A mapping by name, or a list, of like items.  The first member of an item is a ps_text_at: its
 * name for a mapping, only its place for a list. */
struct ps_section {
	const char *what; /* "host" */
	size_t size;      /* bytes of one item */
	const struct ps_field *fields;
	size_t n_fields;
	size_t max;                   /* items */
	bool plain_keys;              /* keys are names: PS_NAME_MAX characters of A-Za-z0-9._- */
	const struct ps_field *value; /* NULL: an item is a mapping of fields; else read whole */
};

struct ps_word {
	const char *text;
	uint64_t value;
};

/* The document of text.  Whatever is wrong becomes a finding; w->root is NULL then. */
void ps_walk_open(struct ps_walk *w, const char *text, size_t len);
void ps_walk_close(struct ps_walk *w);
/* Puts this walk's findings in the order of the file. */
void ps_walk_sort(struct ps_walk *w);

void ps_walk_find(struct ps_walk *w, struct ps_spot at, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* calloc() that remembers failure in w->error. */
void *ps_walk_alloc(struct ps_walk *w, size_t n, size_t size);
struct ps_spot ps_walk_spot(const yaml_node_t *node);
/* Byte offset in text of a mark, whose own index counts characters. */
size_t ps_walk_offset(const char *text, size_t len, size_t characters);

/* Reads the fields of a mapping into ret, which is zeroed. */
void ps_walk_map(struct ps_walk *w, const struct ps_section *section, yaml_node_t *node, void *ret);

ps_read_fn ps_read_text, ps_read_name, ps_read_number, ps_read_span, ps_read_word, ps_read_ip,
	ps_read_prefix;
ps_read_fn ps_read_map;      /* of: section; ret: the struct */
ps_read_fn ps_read_named;    /* of: section; ret: struct ps_list of items by name */
ps_read_fn ps_read_items;    /* of: section; ret: struct ps_list of items */
ps_read_fn ps_read_texts;    /* ret: struct ps_list of struct ps_text_at; max: how many */
ps_read_fn ps_read_pairs;    /* ret: struct ps_list of two struct ps_text_at: key, value */
ps_read_fn ps_read_prefixes; /* ret: struct ps_list of struct ps_prefix_at */

/* Text from a file, safe to print: control characters as '?', long text cut. */
struct ps_quote {
	char text[80];
};
struct ps_quote ps_quote(const char *text);

/* ": did you mean \"x\"?" for the candidate nearest to a word, if one is near. */
struct ps_guess {
	const char *wanted;
	const char *best; /* NULL: none is near */
	unsigned distance;
};
void ps_guess_offer(struct ps_guess *guess, const char *candidate);
bool ps_name_valid(const char *name);

#endif

// SPDX-License-Identifier: MIT
#include <errno.h>

#include "base/own.h"
#include "store/etcd.h"

/* Which of the deletions meet a key: read before, compared within the transaction, so that deleting
 * what is not there stays no change. */
static int find_present(struct ps_etcd *e, const struct ps_store_txn *txn, bool *present)
{
	ps_auto_json json_t *answer = NULL, *ops = json_array();
	json_t *answers;
	size_t n = 0;
	int r;

	for (size_t i = 0; i < txn->n_writes; i++) {
		if (txn->writes[i].data)
			continue;
		if (json_array_append_new(ops, ps_etcd_range(e, PS_ETCD_DATA, txn->writes[i].key,
							     false, true)) != 0)
			return -ENOMEM;
	}
	if (json_array_size(ops) == 0)
		return 0;
	r = ps_etcd_read(e, json_incref(ops), &answer, &answers);
	if (r < 0)
		return r;
	for (size_t i = 0; i < txn->n_writes; i++) {
		if (!txn->writes[i].data)
			present[i] = ps_etcd_mod_revision(answers, n++) != 0;
	}
	return 0;
}

static json_t *compare_json(const struct ps_etcd *e, const char *key, const char *result,
			    uint64_t etcd_revision)
{
	return json_pack("{s:s, s:s, s:o, s:o}", "target", "MOD", "result", result, "key",
			 ps_etcd_key(&e->config, PS_ETCD_DATA, key, false), "mod_revision",
			 ps_etcd_number_json(etcd_revision));
}

/* etcd's revision for ours; what cannot be counted up to holds for no key. */
static uint64_t etcd_revision_of(const struct ps_etcd *e, uint64_t revision)
{
	if (revision == 0)
		return 0;
	return revision < INT64_MAX - e->origin ? revision + e->origin : INT64_MAX;
}

static json_t *compares_json(const struct ps_etcd *e, const struct ps_store_txn *txn,
			     const bool *present)
{
	ps_auto_json json_t *array = json_array();

	for (size_t i = 0; i < txn->n_compares; i++) {
		const struct ps_store_compare *compare = &txn->compares[i];

		if (json_array_append_new(
			    array, compare_json(e, compare->key, "EQUAL",
						etcd_revision_of(e, compare->revision))) != 0)
			return NULL;
	}
	for (size_t i = 0; i < txn->n_writes; i++) {
		const struct ps_store_write *write = &txn->writes[i];

		if (!write->data &&
		    json_array_append_new(
			    array,
			    compare_json(e, write->key, present[i] ? "GREATER" : "EQUAL", 0)) != 0)
			return NULL;
	}
	return json_incref(array);
}

static json_t *put_json(const struct ps_etcd *e, enum ps_etcd_branch branch, const char *key,
			json_t *value)
{
	return json_pack("{s:{s:o, s:o}}", "request_put", "key",
			 ps_etcd_key(&e->config, branch, key, false), "value", value);
}

/* Appends what one write is in etcd; i: its place in the transaction. */
static int add_write(const struct ps_etcd *e, const struct ps_store_write *write, size_t i,
		     json_t *ops)
{
	int64_t time_ms = ps_store_time_ms();
	json_t *key;

	if (write->data)
		return json_array_append_new(
			ops, put_json(e, PS_ETCD_DATA, write->key,
				      ps_etcd_value(time_ms, i, write->data, write->len)));
	key = ps_etcd_key(&e->config, PS_ETCD_DATA, write->key, false);
	if (json_array_append_new(ops,
				  json_pack("{s:{s:o}}", "request_delete_range", "key", key)) != 0)
		return -ENOMEM;
	return json_array_append_new(ops, put_json(e, PS_ETCD_TOMBSTONE, write->key,
						   ps_etcd_value(time_ms, i, NULL, 0)));
}

/* All writes and PREFIX/head; or, when nothing is to be done, a look at PREFIX/head. */
static json_t *writes_json(const struct ps_etcd *e, const struct ps_store_txn *txn,
			   const bool *present)
{
	ps_auto_json json_t *ops = json_array();
	json_t *head;

	for (size_t i = 0; i < txn->n_writes; i++) {
		if ((txn->writes[i].data || present[i]) &&
		    add_write(e, &txn->writes[i], i, ops) != 0)
			return NULL;
	}
	head = json_array_size(ops) > 0 ? put_json(e, PS_ETCD_HEAD, "", json_string(""))
					: ps_etcd_range(e, PS_ETCD_HEAD, "", false, true);
	return json_array_append_new(ops, head) == 0 ? json_incref(ops) : NULL;
}

static json_t *looks_json(const struct ps_etcd *e, const struct ps_store_txn *txn)
{
	ps_auto_json json_t *ops = json_array();

	for (size_t i = 0; i < txn->n_compares; i++) {
		if (json_array_append_new(ops, ps_etcd_range(e, PS_ETCD_DATA, txn->compares[i].key,
							     false, true)) != 0)
			return NULL;
	}
	return json_incref(ops);
}

/* -ESTALE, or 0 when all hold: then a deleted key came or went in between, and it is to be tried
 * again.  The first answer is PREFIX/meta's. */
static int find_failed(const struct ps_etcd *e, const struct ps_store_txn *txn,
		       const json_t *answers, size_t *ret_failed)
{
	for (size_t i = 0; i < txn->n_compares; i++) {
		if (ps_etcd_mod_revision(answers, i + 1) !=
		    etcd_revision_of(e, txn->compares[i].revision)) {
			*ret_failed = i;
			return -ESTALE;
		}
	}
	return 0;
}

/* 1: done; 0: to be tried again. */
static int try_txn(struct ps_etcd *e, const struct ps_store_txn *txn, bool *present,
		   uint64_t *ret_revision, size_t *ret_failed)
{
	ps_auto_json json_t *answer = NULL;
	const json_t *answers, *ops;
	json_t *body;
	bool is_read;
	int r = find_present(e, txn, present);

	if (r < 0)
		return r;
	body = json_pack("{s:o, s:o, s:o}", "compare", compares_json(e, txn, present), "success",
			 writes_json(e, txn, present), "failure", looks_json(e, txn));
	ops = json_object_get(body, "success");
	is_read = json_array_size(ops) == 1; /* a look at PREFIX/head */
	r = ps_etcd_ask(e, body, is_read, &answer);
	if (r < 0)
		return r;
	answers = json_object_get(answer, "responses");
	if (r == 0)
		return find_failed(e, txn, answers, ret_failed);
	*ret_revision =
		ps_etcd_revision_of(e, is_read ? ps_etcd_mod_revision(answers, 0) : e->highest);
	return 1;
}

int ps_etcd_txn(struct ps_store *store, const struct ps_store_txn *txn, uint64_t *ret_revision,
		size_t *ret_failed)
{
	struct ps_etcd *e = (struct ps_etcd *)store;
	ps_auto_mem bool *present = calloc(txn->n_writes + 1, sizeof(*present));
	int r;

	if (!present)
		return -ENOMEM;
	r = ps_etcd_begin(e, PS_ETCD_CALL_MS);
	if (r < 0)
		return r;
	do {
		r = try_txn(e, txn, present, ret_revision, ret_failed);
	} while (r == 0 && ps_etcd_wire_left_ms(e->wire) > 0);
	if (r == 0)
		return -EBUSY;
	return r < 0 ? r : 0;
}

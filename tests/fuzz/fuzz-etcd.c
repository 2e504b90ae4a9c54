// SPDX-License-Identifier: MIT
/* What comes down the watch is etcd's word, or that of whoever answers in its place: any bytes, cut
 * anywhere.  The first byte says how long the pieces are. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "store/etcd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_log(const struct ps_etcd_log *log)
{
	size_t bytes = 0;

	for (size_t i = 0; i < log->n; i++) {
		const struct ps_store_value *value = &log->items[i];

		if (!value->key || (!value->data && (value->len || value->create_revision)) ||
		    (value->data && value->data[value->len] != '\0'))
			abort();
		bytes += value->len;
	}
	if (bytes != log->bytes)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char prefix[] = "/p";
	struct ps_etcd_config config = {.prefix = prefix};
	ps_auto(ps_etcd_log_clear) struct ps_etcd_log log = {.seen = 1};
	struct ps_etcd_stream stream = {
		.config = &config, .log = &log, .origin = 2, .meta_revision = 2, .until = 100};
	size_t piece = len ? (size_t)data[0] + 1 : 1;

	for (size_t at = 1; at < len; at += piece) {
		size_t n = len - at < piece ? len - at : piece;
		ps_auto_mem char *bytes = malloc(n); /* heap, so that reading past it is seen */

		if (!bytes)
			break;
		memcpy(bytes, data + at, n);
		if (ps_etcd_stream_write(bytes, 1, n, &stream) != n)
			break;
		check_log(&log);
	}
	check_log(&log);
	free(stream.line);
	return 0;
}

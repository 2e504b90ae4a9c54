// SPDX-License-Identifier: MIT
/*
 * The packet table as lines of JSON, for tests that run other programs on it (test_trace.py): each
 * frame in hex, and what ps_trace_packet() makes of it in the row's own world.
 *
 * `portslice trace` takes every next hop as resolved, by an interface without a name, and its answers
 * as never too many; so does this.  That the kernel's program does the same with the row's tables is
 * test-dispatch.c's business.
 */
#include <stdio.h>

#include "base/own.h"
#include "dispatch/dispatch.h"
#include "rows.h"

static const char *const actions[] = {[PS_TRACE_PASS] = "pass",
				      [PS_TRACE_TX] = "send",
				      [PS_TRACE_REDIRECT] = "send",
				      [PS_TRACE_SPLIT] = "send",
				      [PS_TRACE_DROP] = "drop"};

static void resolve_all(struct ps_table *table)
{
	const struct ps_hop hop = {.ifindex = HERE};

	for (size_t i = 0; i < table->n_peers; i++)
		table->peers[i].hop = hop;
	table->config.gateway = table->config.gateway6 = hop;
}

static void print_hex(const char *key, const unsigned char *bytes, size_t len)
{
	printf(", \"%s\": \"", key);
	for (size_t i = 0; i < len; i++)
		printf("%02x", bytes[i]);
	putchar('"');
}

static int print_frame(const struct ps_table *table, const struct row *row,
		       const struct packet *packet, struct ps_trace_memory *memory)
{
	struct ps_trace_options options = options_of(row, memory);
	ps_auto(ps_trace_result_clear) struct ps_trace_result result = {0};
	unsigned char frame[FRAME_MAX];
	struct layout at = make_frame(packet, frame);
	bool is_own = packet == &row->packet;
	int r = ps_trace_packet(table, frame, at.len, &options, &result);

	if (r < 0)
		return r;
	printf("{\"sentence\": \"%s\", \"world\": %u, \"v6\": %s, \"known\": %s, \"row\": \"%s\", "
	       "\"reason\": \"%s\", \"action\": \"%s\"",
	       row->sentence, row->world, row->packet.v6 ? "true" : "false",
	       row->known ? "true" : "false",
	       ps_dispatch_reason_label(is_own ? row->reason : result.reason),
	       ps_dispatch_reason_label(result.reason), actions[result.action]);
	print_hex("frame", frame, at.len);
	if (result.action != PS_TRACE_PASS && result.action != PS_TRACE_DROP)
		print_hex("leaves", result.frame, result.len);
	if (result.second)
		print_hex("second", result.second, result.second_len);
	puts("}");
	return 0;
}

int main(void)
{
	static struct ps_trace_memory memories[2]; /* trace is asked twice: known or not */
	ps_auto(ps_table_free) struct ps_table *table = NULL;
	int r = make_world(USUAL, &table);

	if (r != 0)
		return 1;
	resolve_all(table);
	for (size_t i = 0; i < PS_N_ELEMENTS(rows) && r >= 0; i++) {
		struct ps_trace_memory *memory = &memories[rows[i].known];
		const struct packet first = first_fragment(&rows[i]);

		if (rows[i].after_first)
			r = print_frame(table, &rows[i], &first, memory);
		if (r >= 0)
			r = print_frame(table, &rows[i], &rows[i].packet, memory);
	}
	return r < 0;
}

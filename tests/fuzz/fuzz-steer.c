// SPDX-License-Identifier: MIT
/*
 * Any frame through the dispatcher's decision, in the world of the packet table.  Input: one byte
 * of options (known, stale, little head room, after a first fragment), then the frame.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "rows.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const struct ps_table *world(void)
{
	static struct ps_table *table;

	if (!table && make_world(USUAL, &table) != 0)
		abort();
	return table;
}

/* What leaves by encapsulation holds the whole packet and never claims more than the frame has. */
static void judge(const struct ps_trace_result *r)
{
	if (r->action == PS_TRACE_DROP || r->reason == PS_REASON_NOT_OURS)
		return;
	if (r->len < 14 + 20)
		abort();
	if (r->action == PS_TRACE_PASS)
		return;
	for (size_t l2 = 14; l2 <= 22; l2 += 4) {
		if (get16(r->frame + l2 - 2) == 0x86dd) {
			if (r->len < l2 + 40 || get16(r->frame + l2 + 4) > r->len - l2 - 40)
				abort();
			return;
		}
		if (get16(r->frame + l2 - 2) == 0x0800) {
			if (get16(r->frame + l2 + 2) > r->len - l2 ||
			    checksum(r->frame + l2, 20, 0) != 0)
				abort();
			return;
		}
	}
	abort();
}

/* The express lane does what the stages do. */
static void compare(const uint8_t *frame, size_t len, const struct ps_trace_options *options,
		    const struct ps_trace_result *fast)
{
	struct ps_trace_options slowly = *options;
	struct ps_trace_result slow;

	slowly.no_express = true;
	if (ps_trace_packet(world(), frame, len, &slowly, &slow) < 0)
		return;
	if (slow.reason != fast->reason || slow.action != fast->action || slow.len != fast->len ||
	    slow.host != fast->host || memcmp(slow.frame, fast->frame, fast->len) != 0)
		abort();
	ps_trace_result_clear(&slow);
}

/* The frame as if it were a first fragment. */
static int run_first(const uint8_t *frame, size_t len, const struct ps_trace_options *options)
{
	uint8_t first[FRAME_MAX];
	struct ps_trace_result result;

	if (len < 14 + 20 || len > sizeof(first))
		return -1;
	memcpy(first, frame, len);
	put16(first + 14 + 6, 0x2000);
	if (ps_trace_packet(world(), first, len, options, &result) < 0)
		return -1;
	judge(&result);
	ps_trace_result_clear(&result);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct ps_trace_options options = {.ifindex = HERE, .now_ns = 1};
	struct ps_trace_memory memory = {0};
	struct ps_trace_result result;

	if (len < 1)
		return 0;
	options.expected = data[0] & 1;
	options.now_ns = data[0] & 2 ? UINT64_MAX : 1;
	options.headroom = data[0] & 4 ? 16 : PS_TRACE_HEADROOM;
	options.memory = &memory;
	if (data[0] & 8 && run_first(data + 1, len - 1, &options) < 0)
		return 0;
	if (ps_trace_packet(world(), data + 1, len - 1, &options, &result) < 0)
		return 0;
	judge(&result);
	compare(data + 1, len - 1, &options, &result);
	ps_trace_result_clear(&result);
	return 0;
}

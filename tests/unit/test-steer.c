// SPDX-License-Identifier: MIT
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/own.h"
#include "check.h"
#include "dispatch/steer-fragment.h"
#include "dispatch/steer.h"
#include "dispatch/trace.h"

static struct ps_table *worlds[N_WORLDS];

static int make_worlds(void **state)
{
	(void)state;
	for (unsigned i = 0; i < N_WORLDS; i++)
		if (make_world(i, &worlds[i]) != 0)
			return -1;
	return 0;
}

static int drop_worlds(void **state)
{
	(void)state;
	for (unsigned i = 0; i < N_WORLDS; i++)
		ps_table_free(&worlds[i]);
	return 0;
}

static void trace_first(const struct row *row, const struct ps_trace_options *options)
{
	const struct packet first = first_fragment(row);
	ps_auto(ps_trace_result_clear) struct ps_trace_result result = {0};
	unsigned char in[FRAME_MAX];
	struct layout at = make_frame(&first, in);

	if (row->after_first)
		assert_int_equal(ps_trace_packet(worlds[row->world], in, at.len, options, &result),
				 0);
}

static void every_row_goes_where_its_sentence_says(void **state)
{
	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		const struct row *row = &rows[i];
		struct ps_trace_memory memory = {0};
		struct ps_trace_options options = options_of(row, &memory);
		unsigned char in[FRAME_MAX];
		struct layout at = make_frame(&row->packet, in);
		ps_auto(ps_trace_result_clear) struct ps_trace_result result = {0};

		trace_first(row, &options);
		assert_int_equal(ps_trace_packet(worlds[row->world], in, at.len, &options, &result),
				 0);
		if (result.reason != row->reason || result.action != row->action)
			fail_msg("%s: reason %u, action %u", row->sentence, result.reason,
				 result.action);
		check_result(row, in, at, &result);
	}
}

/* For want of head room, and of a splitter (test-split.c). */
static void every_reason_but_two_has_a_row(void **state)
{
	bool seen[PS_REASON_MAX] = {[PS_REASON_DROP_ROOM] = true, [PS_REASON_DROP_SPLIT] = true};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++)
		seen[rows[i].reason] = true;
	for (size_t i = 0; i < PS_REASON_MAX; i++)
		if (!seen[i])
			fail_msg("no row for reason %zu", i);
}

/* The frame cut at every length; the trace copies it to a block of that length for the sanitizer.
 * Frames that carry padding or a wrong length can be cut without harm. */
static void a_truncated_packet_is_never_forwarded(void **state)
{
	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		const struct row *row = &rows[i];
		struct ps_trace_memory memory = {0};
		struct ps_trace_options options = options_of(row, &memory);
		unsigned char in[FRAME_MAX];
		struct layout at = make_frame(&row->packet, in);

		for (size_t len = 0; len < at.len - row->packet.padding; len++) {
			ps_auto(ps_trace_result_clear) struct ps_trace_result result = {0};

			assert_int_equal(
				ps_trace_packet(worlds[row->world], in, len, &options, &result), 0);
			if (result.reason == PS_REASON_NOT_OURS)
				assert_int_equal(result.action, PS_TRACE_PASS);
			else if (row->packet.len_error >= 0)
				assert_int_equal(result.action, PS_TRACE_DROP);
		}
	}
}

static void a_frame_that_cannot_grow_is_dropped_for_want_of_room(void **state)
{
	const struct packet to_host = {.dport = FIRST}, refused = {.dport = FREE, .protocol = UDP};
	const struct packet *packets[] = {&to_host, &refused};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(packets); i++) {
		struct ps_trace_options options = {.ifindex = HERE, .headroom = 24};
		ps_auto(ps_trace_result_clear) struct ps_trace_result result = {0};
		unsigned char in[FRAME_MAX];
		struct layout at = make_frame(packets[i], in);

		assert_int_equal(ps_trace_packet(worlds[USUAL], in, at.len, &options, &result), 0);
		assert_int_equal(result.reason, PS_REASON_DROP_ROOM);
		assert_int_equal(result.action, PS_TRACE_DROP);
	}
}

static void a_trace_names_owner_and_site(void **state)
{
	const struct packet packet = {.dport = SECOND}, far = {.dst = A_FAR};
	struct ps_trace_options options = {.ifindex = HERE, .headroom = PS_TRACE_HEADROOM};
	struct ps_trace_result result;
	unsigned char in[FRAME_MAX];
	struct layout at = make_frame(&packet, in);

	(void)state;
	assert_int_equal(ps_trace_packet(worlds[USUAL], in, at.len, &options, &result), 0);
	assert_int_equal(result.host, 2);
	assert_int_equal(result.site, 0);
	assert_int_equal(result.ifindex, ELSEWHERE);
	ps_trace_result_clear(&result);
	at = make_frame(&far, in);
	assert_int_equal(ps_trace_packet(worlds[USUAL], in, at.len, &options, &result), 0);
	assert_int_equal(result.host, -1);
	assert_int_equal(result.site, 1);
	ps_trace_result_clear(&result);
	assert_int_equal(
		ps_trace_packet(worlds[USUAL], in, PS_TRACE_FRAME_MAX + 1, &options, &result),
		-EMSGSIZE);
}

static void outer_source_ports_spread_over_the_dynamic_range(void **state)
{
	unsigned used[64] = {0};

	(void)state;
	for (unsigned port = 0; port < 16384; port++) {
		struct ps_flow flow = {htonl(A),    htonl(PEER), htons(32768 + port % 2048),
				       htons(port), TCP,         0};
		unsigned outer = ps_flow_port(&flow);

		assert_in_range(outer, 49152, 65535);
		used[(outer - 49152) / 256]++;
	}
	for (size_t i = 0; i < PS_N_ELEMENTS(used); i++)
		assert_in_range(used[i], 128, 512); /* 256 expected */
}

static void a_budget_allows_a_burst_of_one_second_and_then_its_rate(void **state)
{
	struct ps_budget budget = {0};
	uint64_t now_ns = 7000000000;
	unsigned n = 0;

	(void)state;
	while (ps_budget_take(&budget, now_ns, 100))
		n++;
	assert_int_equal(n, 100);
	for (n = 0; n < 100; n++) {
		now_ns += 10000000;
		assert_true(ps_budget_take(&budget, now_ns, 100));
		assert_false(ps_budget_take(&budget, now_ns, 100));
	}
	now_ns += 3600 * UINT64_C(1000000000);
	for (n = 0; ps_budget_take(&budget, now_ns, 100); n++)
		;
	assert_int_equal(n, 100);
	assert_false(ps_budget_take(&budget, now_ns + UINT64_C(1000000000) * 9, 0));
}

/* Against the plain byte-wise sum, for random headers and all lengths. */
static void the_outer_checksum_made_from_the_partial_sum_is_right(void **state)
{
	(void)state;
	srand(1);
	for (unsigned len = 20; len < 65536 - 28; len += 97) {
		struct ps_peer peer = {.src = (uint32_t)rand() * 3u, .dst = (uint32_t)rand() * 5u};
		unsigned char *at = malloc(28);

		assert_non_null(at);
		peer.csum = ps_outer_sum(peer.src, peer.dst);
		ps_write_outer(at, &peer, len, 50000, 6080);
		assert_int_equal(checksum(at, 20, 0), 0);
		assert_int_equal(get16(at + 2), len + 28);
		free(at);
	}
}

static void answers_have_right_checksums_for_all_values(void **state)
{
	(void)state;
	srand(2);
	for (unsigned i = 0; i < 2000; i++) {
		struct ps_flow flow = {(uint32_t)rand() * 3u,
				       (uint32_t)rand() * 5u,
				       (uint16_t)rand(),
				       (uint16_t)rand(),
				       TCP,
				       0};
		struct ps_reset reset = {(uint32_t)rand() * 3u, (uint32_t)rand() * 3u, i & 1};
		unsigned char *rst = malloc(40), *icmp = malloc(28 + 28 + i % 11 * 4);
		unsigned quote = 28 + i % 11 * 4;
		uint16_t mtu = i & 2 ? (uint16_t)rand() : 0;

		assert_non_null(rst);
		assert_non_null(icmp);
		ps_write_reset(rst, &flow, &reset);
		assert_int_equal(checksum(rst, 20, 0), 0);
		assert_int_equal(checksum(rst + 20, 20, pseudo(rst, 20)), 0);
		for (unsigned k = 0; k < quote; k++)
			icmp[28 + k] = (unsigned char)rand();
		assert_true(ps_write_unreachable(icmp, icmp + 28 + quote, &flow, quote, mtu));
		assert_int_equal(checksum(icmp, 20, 0), 0);
		assert_int_equal(checksum(icmp + 20, 8 + quote, 0), 0);
		assert_int_equal(get32(icmp + 24), mtu);
		assert_false(ps_write_unreachable(icmp, icmp + 28 + quote - 4, &flow, quote, mtu));
		free(rst);
		free(icmp);
	}
}

static void a_note_about_a_first_fragment_ends_after_30_seconds(void **state)
{
	const struct row row = {
		.packet = {.protocol = UDP, .payload = 8, .frag = 0x0010, .id = 9, .dport = FIRST},
		.after_first = true};
	struct ps_trace_memory memory = {0};
	struct ps_trace_options options = options_of(&row, &memory);
	uint64_t start_ns = options.now_ns;
	unsigned char in[FRAME_MAX];
	struct layout at = make_frame(&row.packet, in);

	(void)state;
	trace_first(&row, &options);
	for (unsigned i = 0; i < 2; i++) {
		ps_auto(ps_trace_result_clear) struct ps_trace_result result = {0};

		options.now_ns = start_ns + UINT64_C(30000000000) - 1 + i;
		assert_int_equal(ps_trace_packet(worlds[USUAL], in, at.len, &options, &result), 0);
		assert_int_equal(result.reason, i ? PS_REASON_DROP_STRAY : PS_REASON_TO_HOST);
	}
}

/* Routers that hash ports must not split them again. */
static void all_fragments_of_a_packet_leave_by_one_outer_port(void **state)
{
	struct packet packet = {.protocol = UDP, .payload = 8, .id = 2, .dport = FIRST};
	struct ps_trace_options options = {.ifindex = HERE, .headroom = PS_TRACE_HEADROOM};
	unsigned port = 0;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		ps_auto(ps_trace_result_clear) struct ps_trace_result result = {0};
		unsigned char in[FRAME_MAX];
		struct layout at;

		packet.frag = i == 2 ? 0x0010 : 0x2000 | i * 8;
		at = make_frame(&packet, in);
		assert_int_equal(ps_trace_packet(worlds[USUAL], in, at.len, &options, &result), 0);
		assert_int_equal(result.reason, PS_REASON_TO_GATHERER);
		assert_true(i == 0 || get16(result.frame + 34) == port);
		port = get16(result.frame + 34);
	}
}

enum { N_GATHERERS = 8 };

static unsigned gatherer(unsigned id, unsigned without)
{
	struct ps_fragment_key key = {{htonl(PEER)}, {htonl(A)}, htons((uint16_t)id), UDP, 4, 0};
	uint32_t best_score = 0;
	unsigned best = 0;

	for (unsigned host = 0; host < N_GATHERERS; host++) {
		uint32_t score = ps_rendezvous_score(ps_fragment_hash(&key), htonl(SELF + host));

		if (host != without && score > best_score) {
			best_score = score;
			best = host;
		}
	}
	return best;
}

static void gathering_is_shared_evenly(void **state)
{
	unsigned n[N_GATHERERS] = {0};

	(void)state;
	for (unsigned id = 0; id < 65536; id++)
		n[gatherer(id, N_GATHERERS)]++;
	for (unsigned host = 0; host < N_GATHERERS; host++)
		assert_in_range(n[host], 8192 - 400, 8192 + 400); /* 4 sigma are 339 */
}

static void a_host_that_leaves_takes_only_its_own_fragments_along(void **state)
{
	(void)state;
	for (unsigned id = 0; id < 65536; id++) {
		unsigned before = gatherer(id, N_GATHERERS);

		if (before != 3)
			assert_int_equal(gatherer(id, 3), before);
	}
}

/* One line of the table of reasons in doc/dispatch.md. */
struct doc_row {
	const char *label, *text;
};

#define DOC_ROW(name, label, text) {label, text},

static void the_manual_lists_every_reason_in_order(void **state)
{
	static const struct doc_row reasons[] = {PS_DISPATCH_REASONS(DOC_ROW)};
	FILE *file = fopen(PS_SOURCE_DIR "/doc/dispatch.md", "r");
	char line[512], expected[512];
	size_t n = 0;

	(void)state;
	assert_non_null(file);
	while (n < PS_N_ELEMENTS(reasons) && fgets(line, sizeof(line), file)) {
		snprintf(expected, sizeof(expected), "| %zu | `%s` | %s |\n", n, reasons[n].label,
			 reasons[n].text);
		n += strcmp(line, expected) == 0;
	}
	fclose(file);
	if (n < PS_N_ELEMENTS(reasons))
		fail_msg("doc/dispatch.md lacks: %s", expected);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_row_goes_where_its_sentence_says),
		cmocka_unit_test(every_reason_but_two_has_a_row),
		cmocka_unit_test(a_truncated_packet_is_never_forwarded),
		cmocka_unit_test(a_frame_that_cannot_grow_is_dropped_for_want_of_room),
		cmocka_unit_test(a_trace_names_owner_and_site),
		cmocka_unit_test(outer_source_ports_spread_over_the_dynamic_range),
		cmocka_unit_test(a_budget_allows_a_burst_of_one_second_and_then_its_rate),
		cmocka_unit_test(the_outer_checksum_made_from_the_partial_sum_is_right),
		cmocka_unit_test(a_note_about_a_first_fragment_ends_after_30_seconds),
		cmocka_unit_test(all_fragments_of_a_packet_leave_by_one_outer_port),
		cmocka_unit_test(gathering_is_shared_evenly),
		cmocka_unit_test(a_host_that_leaves_takes_only_its_own_fragments_along),
		cmocka_unit_test(the_manual_lists_every_reason_in_order),
		cmocka_unit_test(answers_have_right_checksums_for_all_values),
	};

	return cmocka_run_group_tests(tests, make_worlds, drop_worlds);
}

// SPDX-License-Identifier: MIT
/*
 * Every row of rows.h through the kernel's program (BPF_PROG_TEST_RUN) and through
 * ps_trace_packet(): same verdict, same bytes, and what the row says.  In a network namespace of
 * its own, with a real listener and a real connection for the socket look-up.
 */
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include <bpf/bpf.h>

#include "claims.h"
#include "base/own.h"
#include "check.h"
#include "dispatch/dispatch.h"
#include "kernel.h"

static struct ps_table *tables[N_WORLDS];
static struct ps_dispatch *kernels[N_WORLDS];
static char pin_dir[PIN_DIR_MAX];
static struct claims claims = {-1, -1};

static int add_claim(uint8_t protocol, unsigned peer_port)
{
	struct ps_claim_key key = {.src = ps_ip16_v4(htonl(A)),
				   .dst = ps_ip16_v4(htonl(PEER)),
				   .sport = htons(OWN),
				   .dport = htons((uint16_t)peer_port),
				   .protocol = protocol,
				   .shift = 11};

	return claims_add(&claims, &key);
}

/* The conversation that rows know: [2001:db8::1]:OWN6 with the peer's port. */
static int add_claim6(uint8_t protocol, unsigned peer_port)
{
	struct ps_claim_key key = {.sport = htons(OWN6),
				   .dport = htons((uint16_t)peer_port),
				   .protocol = protocol,
				   .shift = 11};

	if (inet_pton(AF_INET6, "2001:db8::1", key.src.bytes) != 1 ||
	    inet_pton(AF_INET6, "2001:db8:ffff::200", key.dst.bytes) != 1)
		return -1;
	return claims_add(&claims, &key);
}

static int make_claims(void)
{
	int r = claims_open(&claims);

	if (r < 0)
		return r;
	return add_claim(TCP, 443) | add_claim(UDP, 443) | add_claim(ICMP, 0) |
	       add_claim6(UDP, 443) | add_claim6(ICMP6, 0);
}

static int load_world(enum world_kind kind, bool observe, struct ps_dispatch **ret)
{
	struct ps_dispatch_options options = {pin_dir, claims.pages_fd, claims.wide_pages_fd,
					      observe};
	ps_auto_mem char *message = NULL;
	int r = ps_dispatch_load(tables[kind], &options, ret, &message);

	if (r < 0)
		print_error("load: %d %s\n", r, message ? message : "");
	return r;
}

static int set_up(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNET) < 0 || run("ip link set lo up") ||
	    run("ip addr add "
		"198.51.100.1/32 dev lo") ||
	    run("ip addr add 2001:db8::1/128 dev lo nodad"))
		return -1;
	if (make_pin_dir("dispatch-test", pin_dir) < 0 || make_claims() != 0)
		return -1;
	for (unsigned i = 0; i < N_WORLDS; i++)
		if (make_world(i, &tables[i]) != 0 || load_world(i, false, &kernels[i]) < 0)
			return -1;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	for (unsigned i = 0; i < N_WORLDS; i++) {
		ps_dispatch_free(&kernels[i]);
		ps_table_free(&tables[i]);
	}
	claims_close(&claims);
	if (ps_dispatch_detach_all(pin_dir) < 0)
		return -1;
	return rmdir(pin_dir);
}

static struct ps_trace_memory memories[N_WORLDS];

static enum ps_trace_action test_run(const struct ps_dispatch *kernel, const void *in, size_t len,
				     unsigned char out[FRAME_MAX], size_t *ret_len)
{
	static const enum ps_trace_action actions[] = {[XDP_DROP] = PS_TRACE_DROP,
						       [XDP_PASS] = PS_TRACE_PASS,
						       [XDP_TX] = PS_TRACE_TX,
						       [XDP_REDIRECT] = PS_TRACE_REDIRECT};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in, .data_size_in = (__u32)len,
		    .data_out = out, .data_size_out = FRAME_MAX, .repeat = 1);

	assert_int_equal(bpf_prog_test_run_opts(ps_dispatch_program_fd(kernel), &opts), 0);
	assert_in_range(opts.retval, XDP_DROP, XDP_REDIRECT);
	*ret_len = opts.data_size_out;
	return actions[opts.retval];
}

/* Which reason was counted since before; exactly one must have been. */
static unsigned counted_since(const uint64_t before[PS_REASON_MAX])
{
	uint64_t now[PS_REASON_MAX];
	unsigned reason = PS_REASON_MAX, n = 0;

	assert_int_equal(ps_dispatch_counters(pin_dir, now), 0);
	for (unsigned i = 0; i < PS_REASON_MAX; i++) {
		n += (unsigned)(now[i] - before[i]);
		if (now[i] != before[i])
			reason = i;
	}
	assert_int_equal(n, 1);
	return reason;
}

static void take_hint(const struct ps_ip *dst, unsigned mtu, void *arg)
{
	struct ps_mtu_hint *hint = arg;

	memcpy(hint->dst, dst->bytes, sizeof(hint->dst));
	hint->mtu = mtu;
}

static void check_hint(const struct ps_mtu_hint *expected, enum world_kind world)
{
	struct ps_mtu_hint hint = {0};

	assert_int_equal(ps_dispatch_hints_read(kernels[world], take_hint, &hint),
			 expected->mtu != 0);
	assert_memory_equal(&hint, expected, sizeof(hint));
}

/* The frame through both; returns the reason. */
static unsigned run_both(const struct row *row, const unsigned char *in, size_t len,
			 unsigned char out[FRAME_MAX], size_t *ret_len)
{
	struct ps_trace_options options = options_of(row, &memories[row->world]);
	ps_auto(ps_trace_result_clear) struct ps_trace_result trace = {0};
	uint64_t before[PS_REASON_MAX];
	enum ps_trace_action action;
	unsigned reason;

	assert_int_equal(ps_dispatch_counters(pin_dir, before), 0);
	action = test_run(kernels[row->world], in, len, out, ret_len);
	reason = counted_since(before);
	assert_int_equal(ps_trace_packet(tables[row->world], in, len, &options, &trace), 0);
	if (trace.reason == PS_REASON_SPLIT && reason == PS_REASON_SPLIT) {
		assert_int_equal(action, PS_TRACE_PASS); /* the program at tc does the rest */
		return reason;
	}
	if (trace.reason != reason || trace.action != action || trace.len != *ret_len)
		fail_msg("%s (%zu bytes): kernel %s, action %u, %zu bytes; trace %s, %u, %zu",
			 row->sentence, len, ps_dispatch_reason_label(reason), action, *ret_len,
			 ps_dispatch_reason_label(trace.reason), trace.action, trace.len);
	assert_memory_equal(trace.frame, out, trace.len);
	check_hint(&trace.hint, row->world);
	return reason;
}

static void run_first(const struct row *row)
{
	const struct packet first = first_fragment(row);
	unsigned char in[FRAME_MAX], out[FRAME_MAX];
	struct layout at = make_frame(&first, in);
	size_t len;

	if (row->after_first)
		run_both(row, in, at.len, out, &len);
}

static void every_row_goes_where_its_sentence_says(void **state)
{
	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		unsigned char in[FRAME_MAX], out[FRAME_MAX];
		struct layout at = make_frame(&rows[i].packet, in);
		unsigned reason;
		size_t len;

		run_first(&rows[i]);
		reason = run_both(&rows[i], in, at.len, out, &len);

		if (reason != rows[i].reason)
			fail_msg("%s: %s", rows[i].sentence, ps_dispatch_reason_label(reason));
		if (reason == PS_REASON_SPLIT)
			check_noted(&rows[i], in, at, out, len);
		else
			check_output(&rows[i], in, at, out, len);
	}
}

/* The row with IPv6 between hosts; false: that would not be the same row. */
static bool make_over6(const struct row *row, struct row *ret)
{
	const struct outer *outer = &row->packet.outer;

	if (row->world != USUAL || row->packet.frag & 0x3fff || row->packet.frag6 ||
	    row->packet.payload >= 1380 || outer->v6)
		return false;
	if (outer->options || outer->frag || outer->protocol || row->packet.outer2.port ||
	    row->packet.dst == SELF || row->packet.dst == EDGE)
		return false;
	*ret = *row;
	ret->world = OVER6;
	ret->packet.outer.v6 = true;
	return true;
}

static void over_ipv6_every_row_goes_the_same_way(void **state)
{
	unsigned n = 0;

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		unsigned char in[FRAME_MAX], out[FRAME_MAX];
		struct layout at;
		struct row row;
		unsigned reason;
		size_t len;

		if (!make_over6(&rows[i], &row))
			continue;
		at = make_frame(&row.packet, in);
		reason = run_both(&row, in, at.len, out, &len);
		if (reason != row.reason)
			fail_msg("over IPv6, %s: %s", row.sentence,
				 ps_dispatch_reason_label(reason));
		check_output(&row, in, at, out, len);
		n++;
	}
	assert_true(n > PS_N_ELEMENTS(rows) / 2);
}

/* The express lane is a short cut, not another way. */
static void express_and_stages_do_the_same(void **state)
{
	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		ps_auto(ps_trace_result_clear) struct ps_trace_result fast = {0}, slow = {0};
		struct ps_trace_options options = options_of(&rows[i], NULL);
		unsigned char in[FRAME_MAX];
		struct layout at = make_frame(&rows[i].packet, in);

		assert_int_equal(
			ps_trace_packet(tables[rows[i].world], in, at.len, &options, &fast), 0);
		options.no_express = true;
		assert_int_equal(
			ps_trace_packet(tables[rows[i].world], in, at.len, &options, &slow), 0);
		assert_int_equal(fast.reason, slow.reason);
		assert_int_equal(fast.action, slow.action);
		assert_int_equal(fast.site, slow.site);
		assert_int_equal(fast.host, slow.host);
		assert_int_equal(fast.len, slow.len);
		assert_memory_equal(fast.frame, slow.frame, fast.len);
	}
}

static void kernel_and_trace_agree_on_every_truncation(void **state)
{
	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		unsigned char in[FRAME_MAX], out[FRAME_MAX];
		struct layout at = make_frame(&rows[i].packet, in);
		size_t len, most = at.len < 200 ? at.len : 200;

		for (size_t cut = 14; cut < most; cut++) /* the kernel wants an Ethernet header */
			run_both(&rows[i], in, cut, out, &len);
	}
}

static void observing_counts_and_passes_every_packet_untouched(void **state)
{
	ps_auto(ps_dispatch_free) struct ps_dispatch *kernel = NULL;

	(void)state;
	assert_int_equal(load_world(USUAL, true, &kernel), 0);
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		unsigned char in[FRAME_MAX], out[FRAME_MAX];
		struct layout at = make_frame(&rows[i].packet, in);
		uint64_t before[PS_REASON_MAX];
		size_t len;

		if (rows[i].world != USUAL || rows[i].after_first)
			continue;
		assert_int_equal(ps_dispatch_counters(pin_dir, before), 0);
		assert_int_equal(test_run(kernel, in, at.len, out, &len), PS_TRACE_PASS);
		assert_int_equal(counted_since(before), rows[i].reason);
		assert_int_equal(len, at.len);
		assert_memory_equal(in, out, len);
	}
}

static int tcp_socket(uint32_t ip4, unsigned port)
{
	struct sockaddr_in at = {AF_INET, htons((uint16_t)port), {htonl(ip4)}, {0}};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

static unsigned verdict_on(const struct packet *packet)
{
	unsigned char in[FRAME_MAX], out[FRAME_MAX];
	struct layout at = make_frame(packet, in);
	uint64_t before[PS_REASON_MAX];
	size_t len;

	assert_int_equal(ps_dispatch_counters(pin_dir, before), 0);
	test_run(kernels[USUAL], in, at.len, out, &len);
	return counted_since(before);
}

static void a_listener_does_not_open_a_port_but_a_connection_and_its_time_wait_do(void **state)
{
	const struct sockaddr_in there = {AF_INET, htons(40000), {htonl(INADDR_LOOPBACK)}, {0}};
	const uint32_t loopback = INADDR_LOOPBACK;
	const struct packet packet = {.src = loopback, .sport = 40000, .dport = 33300};
	const struct packet syn = {.dport = 33400, .flags = SYN};
	const struct packet error = {.protocol = ICMP, .icmp = 3, .embedded = TCP, .dport = 33300};
	const struct packet other = {.src = loopback, .sport = 40001, .dport = 33300};
	ps_auto_fd int server = tcp_socket(INADDR_LOOPBACK, 40000), accepted = -1, listener = -1;
	int client = tcp_socket(A, 33300);

	(void)state;
	listener = tcp_socket(A, 33400);
	assert_int_equal(listen(listener, 8), 0);
	assert_int_equal(verdict_on(&syn), PS_REASON_REJECT_TCP);
	assert_int_equal(verdict_on(&packet), PS_REASON_DROP_REJECT_NEVER); /* from 127.0.0.1 */
	assert_int_equal(listen(server, 8), 0);
	assert_int_equal(connect(client, (const struct sockaddr *)&there, sizeof(there)), 0);
	accepted = accept(server, NULL, NULL);
	assert_true(accepted >= 0);
	assert_int_equal(verdict_on(&packet), PS_REASON_DELIVER);
	assert_int_equal(verdict_on(&other), PS_REASON_DROP_REJECT_NEVER);
	assert_int_equal(verdict_on(&error), PS_REASON_DROP_REJECT_NEVER); /* about PEER */
	close(client); /* first, so that its end waits in TIME_WAIT */
	close(ps_fd_move(&accepted));
	assert_int_equal(verdict_on(&packet), PS_REASON_DELIVER);
}

static void a_hop_set_while_running_is_used_by_the_next_packet(void **state)
{
	const struct packet packet = {.dport = NO_HOP}, far = {.dst = A_FAR_NO_HOP};
	const struct ps_hop none = {0}, hop = hop_by(HERE);

	(void)state;
	assert_int_equal(verdict_on(&packet), PS_REASON_DROP_NO_HOP);
	assert_int_equal(ps_dispatch_set_hop(kernels[USUAL], 3, &hop), 0);
	assert_int_equal(verdict_on(&packet), PS_REASON_TO_HOST);
	assert_int_equal(ps_dispatch_set_hop(kernels[USUAL], 3, &none), 0);
	assert_int_equal(verdict_on(&packet), PS_REASON_DROP_NO_HOP);
	assert_int_equal(ps_dispatch_set_edge_hop(kernels[USUAL], 2, &hop), 0);
	assert_int_equal(verdict_on(&far), PS_REASON_TO_SITE);
	assert_int_equal(ps_dispatch_set_edge_hop(kernels[USUAL], 2, &none), 0);
	assert_int_equal(verdict_on(&far), PS_REASON_DROP_NO_HOP);
	assert_int_equal(ps_dispatch_set_hop(kernels[USUAL], 4096, &hop), -ERANGE);
}

static void freshness_and_gateway_change_while_running(void **state)
{
	const struct packet refused = {.dport = FREE, .outer = {6079}};
	const struct ps_hop none = {0}, hop = hop_by(HERE);
	struct timespec now;

	(void)state;
	clock_gettime(CLOCK_BOOTTIME, &now);
	assert_int_equal(ps_dispatch_set_fresh(kernels[USUAL], (uint64_t)now.tv_sec * 1000000000),
			 0);
	assert_int_equal(verdict_on(&refused), PS_REASON_DROP_REJECT_STALE);
	assert_int_equal(
		ps_dispatch_set_fresh(kernels[USUAL], ((uint64_t)now.tv_sec + 60) * 1000000000), 0);
	assert_int_equal(verdict_on(&refused), PS_REASON_REJECT_TCP);
	assert_int_equal(ps_dispatch_set_gateway(kernels[USUAL], &none), 0);
	assert_int_equal(verdict_on(&refused), PS_REASON_DROP_NO_HOP);
	assert_int_equal(ps_dispatch_set_gateway(kernels[USUAL], &hop), 0);
}

static void a_map_of_another_shape_is_refused_as_ledger(void **state)
{
	ps_auto_fd int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "dispatch_t", 4, 8, 1, NULL);
	struct ps_dispatch_options options = {pin_dir, fd, -1, false};
	ps_auto_mem char *message = NULL;
	struct ps_dispatch *kernel = NULL;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ps_dispatch_load(tables[USUAL], &options, &kernel, &message), -EINVAL);
	assert_null(kernel);
	assert_non_null(strstr(message, "keys of 4"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_row_goes_where_its_sentence_says),
		cmocka_unit_test(over_ipv6_every_row_goes_the_same_way),
		cmocka_unit_test(express_and_stages_do_the_same),
		cmocka_unit_test(kernel_and_trace_agree_on_every_truncation),
		cmocka_unit_test(observing_counts_and_passes_every_packet_untouched),
		cmocka_unit_test(
			a_listener_does_not_open_a_port_but_a_connection_and_its_time_wait_do),
		cmocka_unit_test(a_hop_set_while_running_is_used_by_the_next_packet),
		cmocka_unit_test(freshness_and_gateway_change_while_running),
		cmocka_unit_test(a_map_of_another_shape_is_refused_as_ledger),
	};

	if (!may_load_bpf()) {
		puts("skip: this process may not load BPF programs");
		return 77;
	}
	return cmocka_run_group_tests(tests, set_up, tear_down);
}

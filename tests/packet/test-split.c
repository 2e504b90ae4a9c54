// SPDX-License-Identifier: MIT
/*
 * Packets sent in two pieces: both programs on real interfaces, what leaves compared with the trace.
 * In a network namespace of its own:   test -- wire0 <-> up0 (uplink), other0 <-> far0 -- test
 */
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/own.h"
#include "check.h"
#include "dispatch/dispatch.h"
#include "kernel.h"

enum { WAIT_MS = 2000 };

static char pin_dir[PIN_DIR_MAX];
static struct ps_table *table;
static struct ps_dispatch *kernel;
static enum world_kind world;
static int wire = -1, far = -1;

/* Everything that arrives there, and what this test sends from there. */
static int open_packets(const char *ifname)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(0x0003), /* ETH_P_ALL */
				 .sll_ifindex = (int)if_nametoindex(ifname)};
	struct timeval wait = {WAIT_MS / 1000, WAIT_MS % 1000 * 1000};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0 ||
	    bind(fd, (const struct sockaddr *)&at, sizeof(at)) < 0)
		return -1;
	return fd;
}

static int make_links(void)
{
	return run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.all.disable_ipv6=1") |
	       run("ip link set lo up") |
	       run("ip link add up0 mtu 3400 type veth peer name wire0 mtu 3400") |
	       run("ip link add other0 type veth peer name far0") | run("ip link set up0 up") |
	       run("ip link set wire0 up") | run("ip link set other0 up") |
	       run("ip link set far0 up");
}

static int make_table(enum world_kind kind)
{
	const struct ps_hop here = hop_by(if_nametoindex("up0")),
			    elsewhere = hop_by(if_nametoindex("other0"));
	int r = make_world(kind, &table);

	if (r < 0)
		return r;
	ps_table_set_hop(table, 1, &here);
	ps_table_set_hop(table, 2, &elsewhere);
	ps_table_set_edge_hop(table, 1, &here);
	return 0;
}

static int set_up(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNET) < 0 || make_links() != 0 ||
	    make_pin_dir("dispatch-split", pin_dir) < 0)
		return -1;
	wire = open_packets("wire0");
	far = open_packets("far0");
	return wire < 0 || far < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	close(wire);
	close(far);
	return rmdir(pin_dir);
}

static int load_world(enum world_kind kind)
{
	struct ps_dispatch_options options = {
		.pin_dir = pin_dir, .pages_fd = -1, .wide_pages_fd = -1};
	ps_auto_mem char *message = NULL;
	int r = make_table(kind);

	if (r >= 0)
		r = ps_dispatch_load(table, &options, &kernel, &message);
	if (r < 0)
		print_error("load: %s\n", message ? message : "");
	world = kind;
	return r;
}

static int load(void **state)
{
	(void)state;
	return load_world(USUAL);
}

static int load_over6(void **state)
{
	(void)state;
	return load_world(OVER6);
}

static int leave(void **state)
{
	(void)state;
	ps_dispatch_free(&kernel);
	ps_table_free(&table);
	return ps_dispatch_detach_all(pin_dir);
}

static void attach(const char *ifname)
{
	enum ps_dispatch_mode mode;

	assert_int_equal(ps_dispatch_attach(kernel, ifname, &mode, NULL), 0);
}

static uint64_t counter(enum ps_dispatch_reason reason)
{
	uint64_t counters[PS_REASON_MAX];

	assert_int_equal(ps_dispatch_counters(pin_dir, counters), 0);
	return counters[reason];
}

/* Until so many more than `before` were counted. */
static void await(enum ps_dispatch_reason reason, uint64_t expected)
{
	for (int i = 0; i < WAIT_MS && counter(reason) != expected; i++)
		usleep(1000);
	assert_int_equal(counter(reason), expected);
}

static void send_frame(int fd, const struct virtio_net_hdr *header, const unsigned char *frame,
		       size_t len)
{
	unsigned char message[sizeof(*header) + FRAME_MAX];

	memcpy(message, header, sizeof(*header));
	memcpy(message + sizeof(*header), frame, len);
	assert_int_equal(send(fd, message, sizeof(*header) + len, 0), sizeof(*header) + len);
}

/* The next frame that came in there, 0: none for a while. */
static size_t receive(int fd, unsigned char frame[FRAME_MAX])
{
	unsigned char message[sizeof(struct virtio_net_hdr) + FRAME_MAX];
	struct sockaddr_ll from = {.sll_pkttype = PACKET_OUTGOING};
	ssize_t n = 0;

	while (n >= 0 && from.sll_pkttype == PACKET_OUTGOING) {
		socklen_t len = sizeof(from);

		n = recvfrom(fd, message, sizeof(message), 0, (struct sockaddr *)&from, &len);
	}
	if (n < 0)
		return 0;
	memcpy(frame, message + sizeof(struct virtio_net_hdr),
	       (size_t)n - sizeof(struct virtio_net_hdr));
	return (size_t)n - sizeof(struct virtio_net_hdr);
}

static void expect_frame(const char *sentence, int fd, const unsigned char *expected, size_t len)
{
	unsigned char frame[FRAME_MAX];
	size_t n = receive(fd, frame);

	if (n != len || memcmp(frame, expected, len) != 0)
		fail_msg("%s: %zu bytes left, or others, instead of %zu", sentence, n, len);
}

static void trace(const struct row *row, const unsigned char *in, size_t len,
		  struct ps_trace_memory *memory, struct ps_trace_result *ret)
{
	struct ps_trace_options options = options_of(row, memory);

	options.ifindex = if_nametoindex("up0");
	assert_int_equal(ps_trace_packet(table, in, len, &options, ret), 0);
}

/* Through the kernel and through the trace; checks every byte that leaves. */
static void send_row(const struct row *row, const struct packet *packet,
		     struct ps_trace_memory *memory, bool is_row)
{
	ps_auto(ps_trace_result_clear) struct ps_trace_result result = {0};
	const struct virtio_net_hdr none = {0};
	unsigned char in[FRAME_MAX];
	struct layout at = make_frame(packet, in);
	int out;

	trace(row, in, at.len, memory, &result);
	assert_int_equal(result.reason, PS_REASON_SPLIT);
	out = result.ifindex == if_nametoindex("up0") ? wire : far;
	send_frame(wire, &none, in, at.len);
	expect_frame(row->sentence, out, result.frame, result.len);
	expect_frame(row->sentence, out, result.second, result.second_len);
	if (is_row)
		check_pieces(row, in, at, &result);
}

static void every_row_in_two_pieces_leaves_so_first_piece_first(void **state)
{
	struct ps_trace_memory memory = {0};
	uint64_t before = counter(PS_REASON_DROP_SPLIT);
	ps_auto_fd int capture = open_packets("up0"); /* shares the frames between both programs */
	unsigned n = 0;

	(void)state;
	assert_true(capture >= 0);
	attach("up0");
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		const struct packet first = first_fragment(&rows[i]);

		if (rows[i].reason != PS_REASON_SPLIT || rows[i].world != world)
			continue;
		if (rows[i].after_first)
			send_row(&rows[i], &first, &memory, false);
		send_row(&rows[i], &rows[i].packet, &memory, true);
		n++;
	}
	assert_true(n >= (world == OVER6 ? 3 : 10));
	assert_int_equal(counter(PS_REASON_DROP_SPLIT), before);
}

static const struct row large = {"a large packet",
				 {.protocol = UDP, .dport = FIRST, .payload = 1472}};

/* The sender's hardware would fill it in, over what is then only a piece. */
static void a_checksum_that_is_not_there_yet_is_dropped_and_counted(void **state)
{
	const struct virtio_net_hdr partial = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 14 + 20, .csum_offset = 6};
	uint64_t before = counter(PS_REASON_DROP_SPLIT), split = counter(PS_REASON_SPLIT);
	const struct virtio_net_hdr none = {0};
	ps_auto(ps_trace_result_clear) struct ps_trace_result result = {0};
	unsigned char in[FRAME_MAX];
	struct layout at = make_frame(&large.packet, in);

	(void)state;
	attach("up0");
	send_frame(wire, &partial, in, at.len);
	await(PS_REASON_DROP_SPLIT, before + 1);
	assert_int_equal(counter(PS_REASON_SPLIT), split + 1);
	trace(&large, in, at.len, NULL, &result); /* and nothing of it left before the next one */
	send_frame(wire, &none, in, at.len);
	expect_frame("the next", wire, result.frame, result.len);
	expect_frame("the next", wire, result.second, result.second_len);
}

/* Loopback has no XDP of its own, and makes large segments. */
static void generic_mode_splits_packets_but_not_segments(void **state)
{
	const struct packet segments = {.dport = FIRST, .payload = 1472};
	const struct virtio_net_hdr gso = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					   .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
					   .gso_size = 1000,
					   .hdr_len = 14 + 40,
					   .csum_start = 14 + 20,
					   .csum_offset = 16};
	const struct virtio_net_hdr none = {0};
	ps_auto(ps_trace_result_clear) struct ps_trace_result result = {0};
	uint64_t before = counter(PS_REASON_DROP_SPLIT);
	ps_auto_fd int lo = open_packets("lo");
	unsigned char in[FRAME_MAX];
	struct layout at = make_frame(&large.packet, in);

	(void)state;
	attach("lo");
	trace(&large, in, at.len, NULL, &result);
	send_frame(lo, &none, in, at.len);
	expect_frame("by loopback", wire, result.frame, result.len);
	expect_frame("by loopback", wire, result.second, result.second_len);
	at = make_frame(&segments, in);
	send_frame(lo, &gso, in, at.len);
	await(PS_REASON_DROP_SPLIT, before + 1);
}

/* Where the driver leaves none, as where there is none left. */
static void without_room_for_metadata_a_packet_is_dropped_as_too_big(void **state)
{
	enum { TAKEN = 216 }; /* of 256 bytes of head room, 40 are the kernel's own */
	const struct packet packet = {
		.protocol = UDP, .payload = 1472, .dport = FIRST, .outer = {6079}};
	unsigned char in[TAKEN + FRAME_MAX] = {0}, out[TAKEN + FRAME_MAX];
	struct layout at = make_frame(&packet, in + TAKEN);
	struct xdp_md context = {.data = TAKEN, .data_end = TAKEN + (__u32)at.len};
	uint64_t before = counter(PS_REASON_DROP_TOO_BIG);
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in, .data_size_in = context.data_end,
		    .data_out = out, .data_size_out = sizeof(out), .ctx_in = &context,
		    .ctx_size_in = sizeof(context), .repeat = 1);

	int r = bpf_prog_test_run_opts(ps_dispatch_program_fd(kernel), &opts);

	(void)state;
	if (r == -EINVAL) /* Linux 6.1 lets a test run have 32 bytes of metadata at most */
		skip();
	assert_int_equal(r, 0);
	assert_int_equal(opts.retval, XDP_DROP);
	assert_int_equal(counter(PS_REASON_DROP_TOO_BIG), before + 1);
}

static bool has_filter(const char *ifname)
{
	char command[80];

	snprintf(command, sizeof(command), "tc filter show dev %s ingress | grep -q ps_split",
		 ifname);
	return run(command) == 0;
}

static void the_splitter_stands_with_the_dispatcher_and_leaves_with_it(void **state)
{
	(void)state;
	attach("up0");
	assert_true(has_filter("up0"));
	assert_true(ps_dispatch_stands(kernel, "up0"));
	assert_int_equal(run("tc filter del dev up0 ingress"), 0);
	assert_false(ps_dispatch_stands(kernel, "up0"));
	attach("up0");
	assert_true(ps_dispatch_stands(kernel, "up0"));
	assert_int_equal(run("tc qdisc del dev up0 clsact"), 0);
	assert_false(ps_dispatch_stands(kernel, "up0"));
	attach("up0");
	assert_int_equal(ps_dispatch_detach_all(pin_dir), 0);
	assert_false(has_filter("up0"));
	assert_int_equal(ps_split_detach(if_nametoindex("up0")), 0);
	assert_int_equal(run("tc qdisc del dev up0 clsact"), 0);
	assert_int_equal(ps_split_detach(if_nametoindex("up0")), 0);
}

static void a_refused_dispatcher_leaves_no_splitter(void **state)
{
	ps_auto_fd int fd = load_trivial("xdp_foo");
	int ifindex = (int)if_nametoindex("up0");
	enum ps_dispatch_mode mode;

	(void)state;
	assert_int_equal(bpf_xdp_attach(ifindex, fd, 0, NULL), 0);
	assert_int_equal(ps_dispatch_attach(kernel, "up0", &mode, NULL), -EBUSY);
	assert_false(has_filter("up0"));
	assert_int_equal(bpf_xdp_detach(ifindex, 0, NULL), 0);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, load, leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(every_row_in_two_pieces_leaves_so_first_piece_first),
		cmocka_unit_test_setup_teardown(every_row_in_two_pieces_leaves_so_first_piece_first,
						load_over6, leave),
		EACH(a_checksum_that_is_not_there_yet_is_dropped_and_counted),
		EACH(generic_mode_splits_packets_but_not_segments),
		EACH(without_room_for_metadata_a_packet_is_dropped_as_too_big),
		EACH(the_splitter_stands_with_the_dispatcher_and_leaves_with_it),
		EACH(a_refused_dispatcher_leaves_no_splitter),
	};

	if (!may_load_bpf()) {
		puts("skip: this process may not load BPF programs");
		return 77;
	}
	return cmocka_run_group_tests(tests, set_up, tear_down);
}

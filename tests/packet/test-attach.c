// SPDX-License-Identifier: MIT
/* Loading, attaching, replacing and leaving, on a veth pair in a network namespace of its own. */
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <bpf/libbpf.h>
#include <linux/if_link.h>

#include "base/own.h"
#include "check.h"
#include "dispatch/dispatch.h"
#include "kernel.h"

static char pin_dir[PIN_DIR_MAX];
static struct ps_table *table;

static int set_up(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNET) < 0)
		return -1;
	if (run("ip link set lo up") || run("ip link add up0 type veth peer name up0.7"))
		return -1;
	if (make_pin_dir("dispatch-attach", pin_dir) < 0)
		return -1;
	return make_world(USUAL, &table);
}

static int tear_down(void **state)
{
	(void)state;
	ps_table_free(&table);
	if (ps_dispatch_detach_all(pin_dir) < 0)
		return -1;
	return rmdir(pin_dir);
}

static int detach(void **state)
{
	(void)state;
	return ps_dispatch_detach_all(pin_dir);
}

static struct ps_dispatch *load(void)
{
	struct ps_dispatch_options options = {
		.pin_dir = pin_dir, .pages_fd = -1, .wide_pages_fd = -1};
	ps_auto_mem char *message = NULL;
	struct ps_dispatch *kernel = NULL;

	if (ps_dispatch_load(table, &options, &kernel, &message) < 0)
		fail_msg("load: %s", message ? message : "");
	return kernel;
}

static unsigned program_on(const char *ifname)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);

	assert_int_equal(bpf_xdp_query((int)if_nametoindex(ifname), 0, &query), 0);
	return query.prog_id;
}

static unsigned program_of(const struct ps_dispatch *kernel)
{
	struct bpf_prog_info info = {0};
	__u32 len = sizeof(info);

	assert_int_equal(bpf_obj_get_info_by_fd(ps_dispatch_program_fd(kernel), &info, &len), 0);
	return info.id;
}

static unsigned pinned_link(const char *name)
{
	char path[PIN_DIR_MAX + 32];
	struct bpf_link_info info = {0};
	__u32 len = sizeof(info);
	ps_auto_fd int fd = -1;

	snprintf(path, sizeof(path), "%s/%s", pin_dir, name);
	fd = bpf_obj_get(path);
	if (fd < 0)
		return 0;
	assert_int_equal(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
	return info.id;
}

static void a_second_generation_replaces_the_first_under_the_same_link(void **state)
{
	ps_auto(ps_dispatch_free) struct ps_dispatch *first = load(), *second = load();
	enum ps_dispatch_mode mode = PS_MODE_GENERIC;
	unsigned link;

	(void)state;
	assert_int_equal(ps_dispatch_attach(first, "up0", &mode, NULL), 0);
	assert_int_equal(mode, PS_MODE_NATIVE); /* veth has XDP */
	assert_int_equal(program_on("up0"), program_of(first));
	link = pinned_link("uplink-up0");
	assert_int_not_equal(link, 0);
	ps_dispatch_free(&first);
	assert_int_equal(ps_dispatch_attach(second, "up0", &mode, NULL), 0);
	assert_int_equal(program_on("up0"), program_of(second));
	assert_int_equal(pinned_link("uplink-up0"), link);
	ps_dispatch_free(&second);
	assert_int_not_equal(program_on("up0"), 0); /* the pin keeps it */
}

static void an_interface_without_native_xdp_runs_it_generically(void **state)
{
	ps_auto(ps_dispatch_free) struct ps_dispatch *kernel = load();
	enum ps_dispatch_mode mode = PS_MODE_NATIVE;

	(void)state;
	assert_int_equal(ps_dispatch_attach(kernel, "lo", &mode, NULL), 0);
	assert_int_equal(mode, PS_MODE_GENERIC);
	assert_int_equal(ps_dispatch_attach(kernel, "lo", &mode, NULL), 0);
	assert_int_equal(mode, PS_MODE_GENERIC);
}

static void a_dot_in_an_interface_name_is_a_colon_in_its_pin(void **state)
{
	ps_auto(ps_dispatch_free) struct ps_dispatch *kernel = load();
	enum ps_dispatch_mode mode;

	(void)state;
	assert_int_equal(ps_dispatch_attach(kernel, "up0.7", &mode, NULL), 0);
	assert_int_not_equal(pinned_link("uplink-up0:7"), 0);
}

static void a_foreign_program_is_left_alone_and_named(void **state)
{
	ps_auto(ps_dispatch_free) struct ps_dispatch *kernel = load();
	ps_auto_mem char *message = NULL;
	enum ps_dispatch_mode mode;
	ps_auto_fd int fd = load_trivial("xdp_foo");
	int ifindex = (int)if_nametoindex("up0");
	char expected[160];
	unsigned id;

	(void)state;
	assert_int_equal(bpf_xdp_attach(ifindex, fd, 0, NULL), 0);
	id = program_on("up0");
	assert_int_equal(ps_dispatch_attach(kernel, "up0", &mode, &message), -EBUSY);
	snprintf(expected, sizeof(expected),
		 "XDP program 'xdp_foo' (id %u) is already attached to up0: detach it first, "
		 "e.g. ip link set dev up0 xdp off",
		 id);
	assert_string_equal(message, expected);
	assert_int_equal(program_on("up0"), id);
	assert_int_equal(pinned_link("uplink-up0"), 0);
	assert_int_equal(bpf_xdp_detach(ifindex, 0, NULL), 0);
}

static void an_interface_made_anew_under_its_old_name_is_attached_anew(void **state)
{
	ps_auto(ps_dispatch_free) struct ps_dispatch *kernel = load();
	enum ps_dispatch_mode mode;
	unsigned link;

	(void)state;
	assert_int_equal(run("ip link add again0 type veth peer name again1"), 0);
	assert_int_equal(ps_dispatch_attach(kernel, "again0", &mode, NULL), 0);
	link = pinned_link("uplink-again0");
	assert_int_equal(run("ip link del again0"), 0);
	assert_int_equal(run("ip link add again0 type veth peer name again1"), 0);
	assert_int_equal(ps_dispatch_attach(kernel, "again0", &mode, NULL), 0);
	assert_int_not_equal(pinned_link("uplink-again0"), link);
	assert_int_equal(program_on("again0"), program_of(kernel));
	assert_int_equal(run("ip link del again0"), 0);
}

static void an_interface_that_is_not_there_is_said_so(void **state)
{
	ps_auto(ps_dispatch_free) struct ps_dispatch *kernel = load();
	ps_auto_mem char *message = NULL;
	enum ps_dispatch_mode mode;

	(void)state;
	assert_int_equal(ps_dispatch_attach(kernel, "up9", &mode, &message), -ENODEV);
	assert_string_equal(message, "no interface up9 on this host");
}

static void detaching_leaves_nothing_even_while_a_generation_is_open(void **state)
{
	ps_auto(ps_dispatch_free) struct ps_dispatch *kernel = load();
	uint64_t counters[PS_REASON_MAX];
	enum ps_dispatch_mode mode;

	(void)state;
	assert_int_equal(ps_dispatch_attach(kernel, "up0", &mode, NULL), 0);
	assert_int_equal(ps_dispatch_attach(kernel, "up0.7", &mode, NULL), 0);
	assert_int_equal(ps_dispatch_counters(pin_dir, counters), 0);
	assert_int_equal(ps_dispatch_detach_all(pin_dir), 0);
	assert_int_equal(program_on("up0"), 0);
	assert_int_equal(program_on("up0.7"), 0);
	assert_int_equal(rmdir(pin_dir), 0); /* empty */
	assert_int_equal(ps_dispatch_counters(pin_dir, counters), -ENOENT);
	assert_int_equal(ps_dispatch_detach_all(pin_dir), 0); /* nothing to do */
	assert_int_equal(mkdir(pin_dir, 0700), 0);
}

static void an_older_versions_counters_are_replaced(void **state)
{
	ps_auto_fd int old = bpf_map_create(BPF_MAP_TYPE_PERCPU_ARRAY, "counters", 4, 8,
					    PS_REASON_MAX - 3, NULL);
	char path[PIN_DIR_MAX + 32];
	uint64_t counters[PS_REASON_MAX] = {[PS_REASON_MAX - 1] = 77};
	struct ps_dispatch *kernel;

	(void)state;
	snprintf(path, sizeof(path), "%s/dispatch-counters", pin_dir);
	assert_int_equal(bpf_obj_pin(old, path), 0);
	assert_int_equal(ps_dispatch_counters(pin_dir, counters), 0);
	assert_int_equal(counters[PS_REASON_MAX - 1], 0);
	kernel = load();
	ps_dispatch_free(&kernel);
	close(old);
	old = bpf_obj_get(path);
	assert_int_equal(bpf_map_lookup_elem(old, &(__u32){PS_REASON_MAX - 1}, (uint64_t[1024]){0}),
			 0);
}

/* 256 /24s, each address with a row of 32 slices: the size design.md §3 speaks of. */
static void tables_of_65536_addresses_reach_the_kernel_whole(void **state)
{
	const struct ps_table_self self = {ps_ip_from_v4(htonl(SELF)), ps_ip_from_v4(htonl(EDGE)),
					   0, 0, 1500};
	const struct ps_ip neighbour = ps_ip_from_v4(htonl(NEIGHBOUR));
	const struct ps_hop here = hop_by(HERE);
	struct ps_dispatch_options options = {
		.pin_dir = pin_dir, .pages_fd = -1, .wide_pages_fd = -1};
	ps_auto(ps_table_free) struct ps_table *big = NULL;
	ps_auto(ps_dispatch_free) struct ps_dispatch *kernel = NULL;
	struct timespec start, end;

	(void)state;
	assert_int_equal(ps_table_new(&self, &big), 0);
	assert_int_equal(ps_table_set_host(big, 1, &neighbour), 0);
	for (uint32_t i = 0; i < 65536; i++) {
		assert_int_equal(add_address(big, IP4(100, 64, 0, 0) + i, 0, 11, false), 0);
		assert_int_equal(set_owner(big, IP4(100, 64, 0, 0) + i, 1 + i % 31, 1), 0);
	}
	ps_table_set_hop(big, 1, &here);
	clock_gettime(CLOCK_MONOTONIC, &start);
	assert_int_equal(ps_dispatch_load(big, &options, &kernel, NULL), 0);
	clock_gettime(CLOCK_MONOTONIC, &end);
	print_message("loaded in %ld ms\n",
		      (end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000);
	for (uint32_t i = 0; i < 65536; i += 4099) {
		const struct packet packet = {.dst = IP4(100, 64, 0, 0) + i,
					      .dport = (1 + i % 31) << 11};
		unsigned char in[FRAME_MAX], out[FRAME_MAX];
		struct layout at = make_frame(&packet, in);
		LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in, .data_size_in = (__u32)at.len,
			    .data_out = out, .data_size_out = sizeof(out), .repeat = 1);

		assert_int_equal(bpf_prog_test_run_opts(ps_dispatch_program_fd(kernel), &opts), 0);
		assert_int_equal(opts.retval, XDP_TX);
		assert_int_equal(get32(out + 30), NEIGHBOUR);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(
			a_second_generation_replaces_the_first_under_the_same_link, detach),
		cmocka_unit_test_teardown(an_interface_without_native_xdp_runs_it_generically,
					  detach),
		cmocka_unit_test_teardown(a_dot_in_an_interface_name_is_a_colon_in_its_pin, detach),
		cmocka_unit_test(a_foreign_program_is_left_alone_and_named),
		cmocka_unit_test_teardown(
			an_interface_made_anew_under_its_old_name_is_attached_anew, detach),
		cmocka_unit_test(an_interface_that_is_not_there_is_said_so),
		cmocka_unit_test(detaching_leaves_nothing_even_while_a_generation_is_open),
		cmocka_unit_test_teardown(an_older_versions_counters_are_replaced, detach),
		cmocka_unit_test(tables_of_65536_addresses_reach_the_kernel_whole),
	};

	if (!may_load_bpf()) {
		puts("skip: this process may not load BPF programs");
		return 77;
	}
	return cmocka_run_group_tests(tests, set_up, tear_down);
}

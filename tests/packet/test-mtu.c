// SPDX-License-Identifier: MIT
/* Path MTUs set while the program runs, and what the agent remembers of them. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>

#include <bpf/bpf.h>

#include "agent/mtu.h"
#include "base/own.h"
#include "check.h"
#include "kernel.h"

static struct ps_table *table;
static char pin_dir[PIN_DIR_MAX];

static int set_up(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNET) < 0 || make_pin_dir("mtu-test", pin_dir) < 0)
		return -1;
	return make_world(USUAL, &table);
}

static int tear_down(void **state)
{
	(void)state;
	ps_table_free(&table);
	return ps_dispatch_detach_all(pin_dir) < 0 ? -1 : rmdir(pin_dir);
}

static struct ps_dispatch *load(void)
{
	struct ps_dispatch_options options = {
		.pin_dir = pin_dir, .pages_fd = -1, .wide_pages_fd = -1};
	struct ps_dispatch *dispatch = NULL;

	assert_int_equal(ps_dispatch_load(table, &options, &dispatch, NULL), 0);
	return dispatch;
}

static struct ps_ip ip_of(uint32_t ip4)
{
	return ps_ip_from_v4(htonl(ip4));
}

/* The MTU told to who sends too much by this frame's way; 0: it was sent on. */
static unsigned told(const struct ps_dispatch *dispatch, const struct packet *packet)
{
	unsigned char in[FRAME_MAX], out[FRAME_MAX];
	struct layout at = make_frame(packet, in);
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in, .data_size_in = (__u32)at.len,
		    .data_out = out, .data_size_out = FRAME_MAX, .repeat = 1);

	assert_int_equal(bpf_prog_test_run_opts(ps_dispatch_program_fd(dispatch), &opts), 0);
	assert_int_equal(opts.retval, XDP_TX);
	if (out[23] != ICMP)
		return 0;
	assert_int_equal(get16(out + 34), 3 << 8 | 4);
	return get16(out + 40);
}

static const struct packet to_host = {.dport = FIRST, .frag = 0x4000, .payload = 1300},
			   to_site = {.dst = A_FAR, .frag = 0x4000, .payload = 1300};

static void a_lowered_mtu_is_told_and_put_back(void **state)
{
	ps_auto(ps_dispatch_free) struct ps_dispatch *dispatch = load();
	struct ps_ip neighbour = ip_of(NEIGHBOUR), edge = ip_of(EDGE_FAR), none = ip_of(STRANGER),
		     self = ip_of(SELF);

	(void)state;
	assert_int_equal(told(dispatch, &to_host), 0);
	assert_int_equal(ps_dispatch_set_mtu(dispatch, &neighbour, 1300), 0);
	assert_int_equal(told(dispatch, &to_host), 1300 - 28);
	assert_int_equal(told(dispatch, &to_site), 0);
	assert_int_equal(ps_dispatch_set_mtu(dispatch, &edge, 604), 0);
	assert_int_equal(told(dispatch, &to_site), 576);
	assert_int_equal(ps_dispatch_set_mtu(dispatch, &neighbour, 0), 0);
	assert_int_equal(told(dispatch, &to_host), 0);
	assert_int_equal(ps_dispatch_set_mtu(dispatch, &neighbour, 603), -ERANGE);
	assert_int_equal(ps_dispatch_set_mtu(dispatch, &neighbour, 1501), -ERANGE);
	assert_int_equal(ps_dispatch_set_mtu(dispatch, &none, 1300), -ENOENT);
	assert_int_equal(ps_dispatch_set_mtu(dispatch, &self, 1300), -ENOENT);
}

static void what_was_learned_outlives_a_generation_and_ends_in_time(void **state)
{
	ps_auto(ps_dispatch_free) struct ps_dispatch *old = load(), *new = load();
	ps_auto(ps_mtus_free) struct ps_mtus *mtus = NULL;
	struct ps_ip neighbour = ip_of(NEIGHBOUR), none = ip_of(STRANGER), dst;
	unsigned mtu;

	(void)state;
	assert_int_equal(ps_mtus_new(&mtus), 0);
	assert_int_equal(ps_mtus_learn(mtus, old, &neighbour, 1300, 5), 1);
	assert_int_equal(ps_mtus_learn(mtus, old, &neighbour, 1320, 6), 0);
	assert_int_equal(ps_mtus_learn(mtus, old, &neighbour, 1280, 7), 1);
	assert_int_equal(ps_mtus_learn(mtus, old, &none, 1280, 7), -ENOENT);
	assert_int_equal(told(new, &to_host), 0);
	ps_mtus_apply(mtus, new);
	assert_int_equal(told(new, &to_host), 1280 - 28);
	assert_int_equal(ps_mtus_get(mtus, 0, &dst, &mtu), 0);
	assert_int_equal(ps_ip_cmp(&dst, &neighbour), 0);
	assert_int_equal(mtu, 1280);
	assert_int_equal(ps_mtus_get(mtus, 1, &dst, &mtu), -ENOENT);
	assert_int_equal(ps_mtus_expire(mtus, new, 6 + PS_MTU_MS), 0);
	assert_int_equal(ps_mtus_expire(mtus, new, 7 + PS_MTU_MS), 1);
	assert_int_equal(told(new, &to_host), 0);
	assert_int_equal(ps_mtus_get(mtus, 0, &dst, &mtu), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lowered_mtu_is_told_and_put_back),
		cmocka_unit_test(what_was_learned_outlives_a_generation_and_ends_in_time),
	};

	if (!may_load_bpf()) {
		puts("skipped: may not load BPF programs");
		return 77;
	}
	return cmocka_run_group_tests(tests, set_up, tear_down);
}

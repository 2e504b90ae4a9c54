// SPDX-License-Identifier: MIT
/* Two agents' ears and mouths, in a network namespace of our own; skipped where we may not make one. */
#include <arpa/inet.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/peers.h"
#include "base/own.h"
#include "cm.h"

enum { NOW_MS = 1000000 };

static const char text[] = "version: 1\n"
			   "sites: { A: }\n"
			   "hosts:\n"
			   "  a1: { site: A, underlay: 192.0.2.1, uplinks: [lo] }\n"
			   "  a2: { site: A, underlay: 192.0.2.2, uplinks: [lo] }\n"
			   "  a3: { site: A, underlay: 192.0.2.3, uplinks: [lo] }\n"
			   "pools:\n"
			   "  p: { addresses: [ { address: 198.51.100.1, site: A } ] }\n";

struct scene {
	struct ps_plan *plan;
	struct ps_peers *one, *two;
};

static const uint8_t digest[PS_PLAN_DIGEST_LEN] = {1}, other[PS_PLAN_DIGEST_LEN] = {2};

static int setup(void **state)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	struct scene *scene = calloc(1, sizeof(*scene));

	*state = scene;
	if (ps_plan_parse(text, strlen(text), "plan", &diags, &scene->plan) < 0 ||
	    ps_peers_new(&scene->one) < 0 || ps_peers_new(&scene->two) < 0)
		return -1;
	return ps_peers_set_plan(scene->one, scene->plan, 0, digest, 7) < 0 ||
	       ps_peers_set_plan(scene->two, scene->plan, 1, digest, 7) < 0;
}

static int teardown(void **state)
{
	struct scene *scene = *state;

	ps_peers_free(&scene->one);
	ps_peers_free(&scene->two);
	ps_plan_free(&scene->plan);
	free(scene);
	return 0;
}

/* What host a1 knows of its peer number i (a2, then a3). */
static struct ps_peer_view view(const struct scene *scene, size_t i, uint64_t now_ms)
{
	struct ps_peer_view peer = {0};

	assert_true(ps_peers_view(scene->one, i, now_ms, &peer));
	return peer;
}

static void a_peer_is_silent_until_heard_and_again_when_it_falls_silent(void **state)
{
	struct scene *scene = *state;

	assert_int_equal(view(scene, 0, NOW_MS).state, PS_PEER_SILENT);
	assert_true(view(scene, 0, NOW_MS).age_ms == UINT64_MAX);
	ps_peers_send(scene->two, NULL, 0);
	ps_peers_receive(scene->one, NOW_MS);
	assert_int_equal(view(scene, 0, NOW_MS).state, PS_PEER_AGREES);
	assert_int_equal(view(scene, 1, NOW_MS).state, PS_PEER_SILENT);
	assert_int_equal(view(scene, 0, NOW_MS + PS_PEER_HEARD_MS - 1).state, PS_PEER_AGREES);
	assert_int_equal(view(scene, 0, NOW_MS + PS_PEER_HEARD_MS).state, PS_PEER_SILENT);
	assert_string_equal(view(scene, 0, NOW_MS).name, "a2");
	assert_int_equal(view(scene, 0, NOW_MS).revision, 7);
}

static void another_digest_is_a_difference(void **state)
{
	struct scene *scene = *state;

	assert_int_equal(ps_peers_set_plan(scene->two, scene->plan, 1, other, 8), 0);
	ps_peers_send(scene->two, NULL, 0);
	ps_peers_receive(scene->one, NOW_MS);
	assert_int_equal(view(scene, 0, NOW_MS).state, PS_PEER_DIFFERS);
}

static void a_slice_in_use_is_known_however_many_there_are(void **state)
{
	static const size_t sizes[] = {0, 1, PS_HELLO_SLICES_MAX, PS_HELLO_SLICES_MAX + 1, 1000};
	struct scene *scene = *state;

	for (size_t i = 0; i < PS_N_ELEMENTS(sizes); i++) {
		struct ps_hello_slice used[1000];
		size_t n = sizes[i];

		for (size_t j = 0; j < n; j++)
			used[j] = (struct ps_hello_slice){htonl(0xc6336400), (uint16_t)j};
		ps_peers_send(scene->two, used, n);
		ps_peers_receive(scene->one, NOW_MS);
		assert_int_equal(view(scene, 0, NOW_MS).n_slices, n);
		for (size_t j = 0; j < 1000; j++) {
			const char *user =
				ps_peers_user(scene->one, htonl(0xc6336400), (uint16_t)j, NOW_MS);

			assert_int_equal(user != NULL, j < n);
		}
	}
	assert_null(ps_peers_user(scene->one, htonl(0xc6336400), 1, NOW_MS + PS_PEER_HEARD_MS));
	assert_null(ps_peers_user(scene->one, htonl(0xc6336401), 1, NOW_MS));
}

static void send_raw(const char *from, const void *data, size_t len)
{
	ps_auto_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in here = {.sin_family = AF_INET},
			   there = {.sin_family = AF_INET, .sin_port = htons(PS_HELLO_PORT)};

	inet_pton(AF_INET, from, &here.sin_addr);
	inet_pton(AF_INET, "192.0.2.1", &there.sin_addr);
	assert_int_equal(bind(fd, (struct sockaddr *)&here, sizeof(here)), 0);
	assert_int_equal(sendto(fd, data, len, 0, (struct sockaddr *)&there, sizeof(there)), len);
}

static void a_hello_from_the_wrong_address_or_a_stranger_or_broken_is_not_believed(void **state)
{
	struct ps_hello hello = {.parts = 1, .name = "a2"};
	struct scene *scene = *state;
	uint8_t data[PS_HELLO_MAX];
	size_t len = ps_hello_encode(&hello, data);

	send_raw("192.0.2.3", data, len);
	send_raw("192.0.2.2", data, len - 1);
	send_raw("192.0.2.2", "", 0);
	strcpy(hello.name, "zz");
	send_raw("192.0.2.2", data, ps_hello_encode(&hello, data));
	ps_peers_receive(scene->one, NOW_MS);
	assert_int_equal(view(scene, 0, NOW_MS).state, PS_PEER_SILENT);
	assert_int_equal(view(scene, 1, NOW_MS).state, PS_PEER_SILENT);
}

static void a_round_with_a_gap_keeps_what_was_known(void **state)
{
	struct ps_hello hello = {.parts = 2, .name = "a2", .round = 9, .n_slices = 1};
	struct ps_hello_slice used = {htonl(0xc6336400), 3};
	struct scene *scene = *state;
	uint8_t data[PS_HELLO_MAX];

	ps_peers_send(scene->two, &used, 1);
	ps_peers_receive(scene->one, NOW_MS);
	hello.part = 1; /* part 0 was lost */
	send_raw("192.0.2.2", data, ps_hello_encode(&hello, data));
	ps_peers_receive(scene->one, NOW_MS);
	assert_non_null(ps_peers_user(scene->one, used.ip4_be, 3, NOW_MS));
}

static void what_is_known_survives_a_new_plan_but_not_the_host_leaving_it(void **state)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	ps_auto(ps_plan_free) struct ps_plan *smaller = NULL;
	struct ps_hello_slice used = {htonl(0xc6336400), 3};
	ps_auto_mem char *less = strdup(text);
	struct scene *scene = *state;
	char *line = strstr(less, "  a2:");

	ps_peers_send(scene->two, &used, 1);
	ps_peers_receive(scene->one, NOW_MS);
	assert_int_equal(ps_peers_set_plan(scene->one, scene->plan, 0, other, 8), 0);
	assert_non_null(ps_peers_user(scene->one, used.ip4_be, 3, NOW_MS));
	assert_int_equal(view(scene, 0, NOW_MS).state, PS_PEER_DIFFERS);
	memmove(line, strchr(line, '\n') + 1, strlen(strchr(line, '\n') + 1) + 1);
	assert_int_equal(ps_plan_parse(less, strlen(less), "plan", &diags, &smaller), 0);
	assert_int_equal(ps_peers_set_plan(scene->one, smaller, 0, other, 9), 0);
	assert_null(ps_peers_user(scene->one, used.ip4_be, 3, NOW_MS));
	assert_string_equal(view(scene, 0, NOW_MS).name, "a3");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_peer_is_silent_until_heard_and_again_when_it_falls_silent, setup,
			teardown),
		cmocka_unit_test_setup_teardown(another_digest_is_a_difference, setup, teardown),
		cmocka_unit_test_setup_teardown(a_slice_in_use_is_known_however_many_there_are,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_hello_from_the_wrong_address_or_a_stranger_or_broken_is_not_believed,
			setup, teardown),
		cmocka_unit_test_setup_teardown(a_round_with_a_gap_keeps_what_was_known, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			what_is_known_survives_a_new_plan_but_not_the_host_leaving_it, setup,
			teardown),
	};

	if (unshare(CLONE_NEWNET) < 0 ||
	    system("ip link set lo up && ip addr add 192.0.2.1/32 dev lo &&"
		   " ip addr add 192.0.2.2/32 dev lo && ip addr add 192.0.2.3/32 dev lo") != 0) {
		puts("skipped: needs a network namespace of its own");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

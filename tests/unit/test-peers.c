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

/* The same three hosts over either family; net is all of an address but its last digit. */
#define TEXT(net)                                                    \
	"version: 1\n"                                               \
	"sites: { A: }\n"                                            \
	"hosts:\n"                                                   \
	"  a1: { site: A, underlay: \"" net "1\", uplinks: [lo] }\n" \
	"  a2: { site: A, underlay: \"" net "2\", uplinks: [lo] }\n" \
	"  a3: { site: A, underlay: \"" net "3\", uplinks: [lo] }\n" \
	"pools:\n"                                                   \
	"  p: { addresses: [ { address: 198.51.100.1, site: A } ] }\n"

static const char text4[] = TEXT("192.0.2."), text6[] = TEXT("2001:db8::");

struct scene {
	const char *text;
	struct ps_plan *plan;
	struct ps_peers *one, *two;
};

static const uint8_t digest[PS_PLAN_DIGEST_LEN] = {1}, other[PS_PLAN_DIGEST_LEN] = {2};

static int setup(void **state, const char *text)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	struct scene *scene = calloc(1, sizeof(*scene));

	*state = scene;
	scene->text = text;
	if (ps_plan_parse(text, strlen(text), "plan", &diags, &scene->plan) < 0 ||
	    ps_peers_new(&scene->one) < 0 || ps_peers_new(&scene->two) < 0)
		return -1;
	return ps_peers_set_plan(scene->one, scene->plan, 0, digest, 7) < 0 ||
	       ps_peers_set_plan(scene->two, scene->plan, 1, digest, 7) < 0;
}

static int setup4(void **state)
{
	return setup(state, text4);
}

static int setup6(void **state)
{
	return setup(state, text6);
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

static struct ps_ip ip(const char *text)
{
	struct ps_ip ip;

	assert_int_equal(ps_ip_parse(text, &ip), 0);
	return ip;
}

static void a_slice_in_use_is_known_however_many_there_are(void **state)
{
	static const size_t sizes[] = {0, 1, PS_HELLO_SLICES_MAX, PS_HELLO_SLICES_MAX + 1, 50000};
	static struct ps_hello_slice used[50000];
	const struct ps_ip mine = ip("2001:db8:1::7"), other_one = ip("2001:db8:1::8");
	struct scene *scene = *state;

	for (size_t i = 0; i < PS_N_ELEMENTS(sizes); i++) {
		size_t n = sizes[i];

		for (size_t j = 0; j < n; j++)
			used[j] = (struct ps_hello_slice){mine, (uint16_t)j};
		ps_peers_send(scene->two, used, n);
		ps_peers_receive(scene->one, NOW_MS);
		assert_int_equal(view(scene, 0, NOW_MS).n_slices, n);
		for (size_t j = n > 100 ? n - 100 : 0; j < n + 100; j++) {
			const char *user = ps_peers_user(scene->one, &mine, (uint16_t)j, NOW_MS);

			assert_int_equal(user != NULL, j < n);
		}
	}
	assert_null(ps_peers_user(scene->one, &mine, 1, NOW_MS + PS_PEER_HEARD_MS));
	assert_null(ps_peers_user(scene->one, &other_one, 1, NOW_MS));
}

/* To a1 from host a<number>. */
static void send_raw(const struct scene *scene, char number, const void *data, size_t len)
{
	int family = scene->text == text4 ? AF_INET : AF_INET6;
	char address[] = "192.0.2.?", address6[] = "2001:db8::?";
	ps_auto_fd int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	struct sockaddr *at = family == AF_INET ? (void *)&v4 : (void *)&v6;
	socklen_t size = family == AF_INET ? sizeof(v4) : sizeof(v6);

	address[8] = address6[10] = number;
	inet_pton(AF_INET, address, &v4.sin_addr);
	inet_pton(AF_INET6, address6, &v6.sin6_addr);
	assert_int_equal(bind(fd, at, size), 0);
	v4.sin_port = v6.sin6_port = htons(PS_HELLO_PORT);
	inet_pton(AF_INET, "192.0.2.1", &v4.sin_addr);
	inet_pton(AF_INET6, "2001:db8::1", &v6.sin6_addr);
	assert_int_equal(sendto(fd, data, len, 0, at, size), len);
}

static void a_hello_from_the_wrong_address_or_a_stranger_or_broken_is_not_believed(void **state)
{
	struct ps_hello hello = {.parts = 1, .name = "a2"};
	struct scene *scene = *state;
	uint8_t data[PS_HELLO_MAX];
	size_t len = ps_hello_encode(&hello, data);

	send_raw(scene, '3', data, len);
	send_raw(scene, '2', data, len - 1);
	send_raw(scene, '2', "", 0);
	strcpy(hello.name, "zz");
	send_raw(scene, '2', data, ps_hello_encode(&hello, data));
	ps_peers_receive(scene->one, NOW_MS);
	assert_int_equal(view(scene, 0, NOW_MS).state, PS_PEER_SILENT);
	assert_int_equal(view(scene, 1, NOW_MS).state, PS_PEER_SILENT);
}

static void a_round_with_a_gap_keeps_what_was_known(void **state)
{
	struct ps_hello hello = {.parts = 2, .name = "a2", .round = 9, .n_slices = 1};
	struct ps_hello_slice used = {ip("198.51.100.0"), 3};
	struct scene *scene = *state;
	uint8_t data[PS_HELLO_MAX];

	ps_peers_send(scene->two, &used, 1);
	ps_peers_receive(scene->one, NOW_MS);
	hello.part = 1; /* part 0 was lost */
	send_raw(scene, '2', data, ps_hello_encode(&hello, data));
	ps_peers_receive(scene->one, NOW_MS);
	assert_non_null(ps_peers_user(scene->one, &used.ip, 3, NOW_MS));
}

static void what_is_known_survives_a_new_plan_but_not_the_host_leaving_it(void **state)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	ps_auto(ps_plan_free) struct ps_plan *smaller = NULL;
	struct ps_hello_slice used = {ip("198.51.100.0"), 3};
	ps_auto_mem char *less = strdup(((struct scene *)*state)->text);
	struct scene *scene = *state;
	char *line = strstr(less, "  a2:");

	ps_peers_send(scene->two, &used, 1);
	ps_peers_receive(scene->one, NOW_MS);
	assert_int_equal(ps_peers_set_plan(scene->one, scene->plan, 0, other, 8), 0);
	assert_non_null(ps_peers_user(scene->one, &used.ip, 3, NOW_MS));
	assert_int_equal(view(scene, 0, NOW_MS).state, PS_PEER_DIFFERS);
	memmove(line, strchr(line, '\n') + 1, strlen(strchr(line, '\n') + 1) + 1);
	assert_int_equal(ps_plan_parse(less, strlen(less), "plan", &diags, &smaller), 0);
	assert_int_equal(ps_peers_set_plan(scene->one, smaller, 0, other, 9), 0);
	assert_null(ps_peers_user(scene->one, &used.ip, 3, NOW_MS));
	assert_string_equal(view(scene, 0, NOW_MS).name, "a3");
}

static void a_plan_of_the_other_family_moves_the_socket(void **state)
{
	ps_auto(ps_diags_clear) struct ps_diags diags = {0};
	ps_auto(ps_plan_free) struct ps_plan *over6 = NULL;
	struct scene *scene = *state;

	assert_int_equal(ps_plan_parse(text6, strlen(text6), "plan", &diags, &over6), 0);
	assert_int_equal(ps_peers_set_plan(scene->one, over6, 0, digest, 8), 0);
	ps_peers_send(scene->two, NULL, 0); /* to where a1 was */
	ps_peers_receive(scene->one, NOW_MS);
	assert_int_equal(view(scene, 0, NOW_MS).state, PS_PEER_SILENT);
	assert_int_equal(ps_peers_set_plan(scene->two, over6, 1, digest, 8), 0);
	ps_peers_send(scene->two, NULL, 0);
	ps_peers_receive(scene->one, NOW_MS);
	assert_int_equal(view(scene, 0, NOW_MS).state, PS_PEER_AGREES);
}

#define EITHER(name)                                             \
	cmocka_unit_test_setup_teardown(name, setup4, teardown), \
		cmocka_unit_test_setup_teardown(name, setup6, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EITHER(a_peer_is_silent_until_heard_and_again_when_it_falls_silent),
		EITHER(another_digest_is_a_difference),
		EITHER(a_slice_in_use_is_known_however_many_there_are),
		EITHER(a_hello_from_the_wrong_address_or_a_stranger_or_broken_is_not_believed),
		EITHER(a_round_with_a_gap_keeps_what_was_known),
		EITHER(what_is_known_survives_a_new_plan_but_not_the_host_leaving_it),
		cmocka_unit_test_setup_teardown(a_plan_of_the_other_family_moves_the_socket, setup4,
						teardown),
	};

	if (unshare(CLONE_NEWNET) < 0 ||
	    system("ip link set lo up && for n in 1 2 3; do ip addr add 192.0.2.$n/32 dev lo &&"
		   " ip addr add 2001:db8::$n/128 dev lo nodad || exit 1; done") != 0) {
		puts("skipped: needs a network namespace of its own");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

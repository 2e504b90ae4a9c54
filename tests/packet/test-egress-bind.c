// SPDX-License-Identifier: MIT
/* Programs that bind before they connect, or listen. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/own.h"
#include "egress-fixture.h"

static void binding_first_ends_in_the_slice(void **state)
{
	const struct {
		const char *address;
		uint16_t port;
		bool address_only;
		unsigned n_claims_bound;
	} rows[] = {
		{net->any, 0, false, 1},
		{net->shared[0], 0, false, 1},
		{net->shared[0], 0, true, 0},
		{net->any, 0, true, 0},
		{net->shared[0], LAB_FIRST_PORT + 5, false, 1},
	};
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM};

	(void)state;
	for (size_t i = 0; i < 2 * PS_N_ELEMENTS(rows); i++) {
		int fd = new_socket(types[i & 1]), only = rows[i / 2].address_only;

		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &only, sizeof(only));
		if (rows[i / 2].address_only && !strcmp(rows[i / 2].address, net->any))
			assert_int_equal(try_bind(fd, rows[i / 2].address, 0), 0);
		else
			assert_int_equal(try_bind(fd, rows[i / 2].address, rows[i / 2].port), 0);
		assert_int_equal(n_claims(), rows[i / 2].n_claims_bound);
		if (!only)
			assert_from_slice(fd, slice(0));
		assert_int_equal(try_connect(fd, net->far[0], PORT), 0);
		assert_from_slice(fd, slice(0));
		assert_int_equal(n_claims(), 1);
		close(fd);
		wait_for_claims(0);
	}
}

static void bind_refuses_what_is_not_ours(void **state)
{
	const struct {
		const char *address;
		uint16_t port;
		int error;
	} rows[] = {
		{net->shared[0], 50000, -EACCES},
		{net->shared[0], LAB_FIRST_PORT + LAB_PORTS, -EACCES},
		{net->shared[1], 0, -EADDRNOTAVAIL},
		{net->shared[2], 8192, -EADDRNOTAVAIL},
		{net->shared[0], SERVICE_PORT, 0},
		{net->own, 0, 0},
		{net->loopback, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		int fd = new_socket(SOCK_STREAM);

		assert_int_equal(try_bind(fd, rows[i].address, rows[i].port), rows[i].error);
		assert_int_equal(n_claims(), 0);
		close(fd);
	}
	assert_int_equal(counter(PS_EGRESS_REFUSED_BIND), 4);
}

static void ports_without_a_peer_are_drawn_from_the_exclusive_block(void **state)
{
	struct ps_range exclusive = {LAB_FIRST_PORT + LAB_SHARED, LAB_EXCLUSIVE};
	int held[LAB_EXCLUSIVE], fd;

	(void)state;
	for (unsigned i = 0; i < LAB_EXCLUSIVE; i++) {
		held[i] = new_socket(SOCK_DGRAM);
		assert_int_equal(try_bind(held[i], net->shared[0], 0), 0);
		assert_true(ps_range_contains(exclusive, name_of(held[i]).port));
	}
	fd = new_socket(SOCK_DGRAM);
	assert_int_equal(try_bind(fd, net->shared[0], 0), -EADDRNOTAVAIL);
	assert_int_equal(try_bind(fd, net->shared[0], exclusive.first), -EADDRINUSE);
	assert_int_equal(counter(PS_EGRESS_EXHAUSTED), 2);
	/* One that connects is free towards others again. */
	assert_int_equal(try_connect(held[3], net->far[0], PORT), 0);
	assert_true(ps_range_contains(exclusive, name_of(held[3]).port));
	assert_int_equal(n_claims(), LAB_EXCLUSIVE);
	assert_int_equal(try_bind(fd, net->shared[0], 0), 0);
	assert_int_equal(name_of(fd).port, name_of(held[3]).port);
	assert_int_equal(try_connect(fd, net->far[0], PORT), -EADDRNOTAVAIL);
	assert_int_equal(try_connect(fd, net->far[1], PORT), 0);
	close(fd);
	close_all(held, LAB_EXCLUSIVE);
	wait_for_claims(0);
}

static int bind_and_dial(int type, const char *from, const char *to)
{
	int fd = new_socket(type), r = try_bind(fd, from, 0);

	if (!r)
		r = try_connect(fd, to, PORT);
	if (r < 0)
		close(fd);
	return r < 0 ? r : fd;
}

/* bind() does not know the destination, so it is right if no port has any while there is one without. */
static void binding_first_reaches_one_destination_from_every_exclusive_port(void **state)
{
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM};
	const char *const from[] = {net->shared[0], net->any};
	int held[LAB_EXCLUSIVE];

	(void)state;
	for (unsigned row = 0; row < 4; row++) {
		for (unsigned i = 0; i < LAB_EXCLUSIVE; i++) {
			held[i] = bind_and_dial(types[row % 2], from[row / 2], net->far[0]);
			assert_true(held[i] >= 0);
		}
		assert_int_equal(bind_and_dial(types[row % 2], from[row / 2], net->far[0]),
				 -EADDRNOTAVAIL);
		close_all(held, LAB_EXCLUSIVE);
		wait_for_claims(0);
	}
}

static void a_long_connection_is_in_nobodys_way_while_exclusive_ports_are_left(void **state)
{
	int held[LAB_EXCLUSIVE - 1], more[4 * LAB_EXCLUSIVE], fd;

	(void)state;
	for (unsigned i = 0; i < LAB_EXCLUSIVE - 1; i++)
		held[i] = bind_and_dial(SOCK_DGRAM, net->any, net->far[0]);
	for (unsigned i = 0; i < 4 * LAB_EXCLUSIVE; i++) {
		fd = bind_and_dial(SOCK_DGRAM, net->any, net->far[0]);
		assert_true(fd >= 0);
		close(fd);
	}
	/* As many more as one likes, each to another destination. */
	start();
	for (unsigned i = 0; i < 4 * LAB_EXCLUSIVE; i++) {
		more[i] = new_socket(SOCK_DGRAM);
		assert_int_equal(try_bind(more[i], net->any, 0), 0);
		assert_int_equal(try_connect(more[i], net->far[1], (uint16_t)(PORT + i)), 0);
	}
	close_all(held, LAB_EXCLUSIVE - 1);
	close_all(more, 4 * LAB_EXCLUSIVE);
	wait_for_claims(0);
}

/* A socket that is connected anew, or answers to several, counts once for each. */
static void what_a_socket_was_connected_to_before_counts_no_longer(void **state)
{
	int fd = bind_and_dial(SOCK_DGRAM, net->shared[0], net->far[0]), held[LAB_EXCLUSIVE];

	(void)state;
	for (unsigned i = 0; i < 3 * LAB_EXCLUSIVE; i++)
		assert_int_equal(try_connect(fd, net->far[i % 2], PORT), 0);
	close(fd);
	for (unsigned i = 0; i < LAB_EXCLUSIVE; i++) {
		held[i] = bind_and_dial(SOCK_DGRAM, net->shared[0], net->far[0]);
		assert_true(held[i] >= 0);
	}
	close_all(held, LAB_EXCLUSIVE);
	wait_for_claims(0);
}

static void a_port_held_without_a_peer_is_held_once_and_never_drawn(void **state)
{
	int held[LAB_SHARED], fd;

	(void)state;
	for (uint16_t i = 0; i < LAB_SHARED; i++) {
		held[i] = new_socket(SOCK_DGRAM);
		assert_int_equal(try_bind(held[i], net->shared[0], LAB_FIRST_PORT + i), 0);
	}
	fd = new_socket(SOCK_DGRAM);
	assert_int_equal(try_bind(fd, net->shared[0], LAB_FIRST_PORT), -EADDRINUSE);
	assert_int_equal(try_connect(fd, net->far[0], PORT), -EADDRNOTAVAIL);
	assert_int_equal(counter(PS_EGRESS_BLOCKED), 1);
	close(held[7]);
	assert_int_equal(try_connect(fd, net->far[0], PORT), 0);
	assert_int_equal(name_of(fd).port, LAB_FIRST_PORT + 7);
	close(fd);
	for (unsigned i = 0; i < LAB_SHARED; i++) {
		if (i != 7)
			close(held[i]);
	}
	wait_for_claims(0);
}

static void a_socket_bound_elsewhere_may_not_connect(void **state)
{
	const struct {
		const char *address;
		uint16_t port;
	} rows[] = {{net->any, 50001}, {net->own, 0}, {net->own, LAB_FIRST_PORT + 1}};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		int fd = new_socket(SOCK_STREAM);

		assert_int_equal(try_bind(fd, rows[i].address, rows[i].port), 0);
		assert_int_equal(try_connect(fd, net->far[0], PORT), -EADDRNOTAVAIL);
		assert_int_equal(try_connect(fd, net->direct, PORT), 0);
		close(fd);
	}
	assert_int_equal(counter(PS_EGRESS_REFUSED_PORT), PS_N_ELEMENTS(rows));
	assert_int_equal(counter(PS_EGRESS_DIRECT), PS_N_ELEMENTS(rows));
}

static void a_listener_on_the_wildcard_costs_its_own_port_only(void **state)
{
	int server = new_socket(SOCK_STREAM), fds[LAB_SHARED], on = 1;

	(void)state;
	/* Passes by the TIME_WAIT of earlier tests; a listener still blocks its port. */
	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(try_bind(server, net->any, LAB_FIRST_PORT + 9), 0);
	assert_int_equal(listen(server, 1), 0);
	for (unsigned i = 0; i < LAB_SHARED - 1; i++) {
		fds[i] = dial(SOCK_STREAM, net->far[0]);
		assert_true(fds[i] >= 0);
		assert_from_slice(fds[i], slice(0));
	}
	assert_int_equal(dial(SOCK_STREAM, net->far[0]), -EADDRNOTAVAIL);
	close(server);
	fds[LAB_SHARED - 1] = dial(SOCK_STREAM, net->far[0]);
	assert_true(fds[LAB_SHARED - 1] >= 0);
	close_all(fds, LAB_SHARED);
	wait_for_claims(0);
}

/* Holds these ports of the slice on the wildcard, without SO_REUSEADDR, as no class. */
static void block(int *fds, unsigned first, unsigned n, int type)
{
	lab_enter(lab.plain_dir);
	for (unsigned i = 0; i < n; i++) {
		fds[i] = new_socket(type);
		assert_int_equal(try_bind(fds[i], net->any, LAB_FIRST_PORT + first + i), 0);
	}
	lab_enter(lab.class_dir);
}

static void the_last_ports_that_nobody_blocks_are_found(void **state)
{
	struct told told = {0};
	int blocked[LAB_SHARED], fds[3];

	(void)state;
	block(blocked, 0, LAB_SHARED - 3, SOCK_DGRAM);
	for (unsigned i = 0; i < 3; i++) {
		fds[i] = dial(SOCK_DGRAM, net->far[0]);
		assert_true(fds[i] >= 0);
		assert_from_slice(fds[i], slice(0));
	}
	assert_int_equal(dial(SOCK_DGRAM, net->far[0]), -EADDRNOTAVAIL);
	assert_int_equal(counter(PS_EGRESS_BLOCKED), 1);
	assert_int_equal(counter(PS_EGRESS_EXHAUSTED) + counter(PS_EGRESS_REFUSED_KERNEL), 0);
	assert_int_equal(ps_egress_events_read(egress, note_event, &told), 1);
	assert_int_equal(told.last.reason, PS_EGRESS_BLOCKED);
	assert_int_equal(told.last.dport, htons(PORT));
	assert_int_equal(n_claims(), 3);
	close_all(fds, 3);
	close_all(blocked, LAB_SHARED - 3);
	wait_for_claims(0);
}

static void a_listener_gives_its_port_back(void **state)
{
	int fd = new_socket(SOCK_STREAM);

	(void)state;
	assert_int_equal(try_bind(fd, net->shared[0], LAB_FIRST_PORT + 3), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(n_claims(), 1);
	close(fd);
	wait_for_claims(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FACT(binding_first_ends_in_the_slice),
		FACT(bind_refuses_what_is_not_ours),
		FACT(ports_without_a_peer_are_drawn_from_the_exclusive_block),
		FACT(binding_first_reaches_one_destination_from_every_exclusive_port),
		FACT(a_long_connection_is_in_nobodys_way_while_exclusive_ports_are_left),
		FACT(what_a_socket_was_connected_to_before_counts_no_longer),
		FACT(a_port_held_without_a_peer_is_held_once_and_never_drawn),
		FACT(a_socket_bound_elsewhere_may_not_connect),
		FACT(a_listener_on_the_wildcard_costs_its_own_port_only),
		FACT(the_last_ports_that_nobody_blocks_are_found),
		FACT(a_listener_gives_its_port_back),
	};

	return RUN_FACTS(tests);
}

// SPDX-License-Identifier: MIT
/*
 * Three questions, each asked of real sockets.
 *
 * Pairs: a worker without hooks, one below the hooks but of no class, and one of a class take turns,
 * a block of connect() and close() each.  Fill: one worker after the other opens connections to one
 * destination until it is refused; times are split by how full the destination was.  Both run on one
 * processor, one worker at a time.  Faults: all four workers at once, on all processors; first they
 * fill three destinations to the last port, then they churn between 95 and 99 %.
 *
 * The sink completes the handshake by itself (the listener's backlog), so that no SYN is sent twice
 * while others are timed.  What it has queued is accepted and closed between blocks.
 */
#include "measure.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { PAIRS = 256, KNOCKS = 200, CHURN = 100000, LOW_PERCENT = 95, HIGH_PERCENT = 99 };

static int note(const struct crew *crew, unsigned worker, unsigned n, struct times *times)
{
	return times_add(times, crew->board->times_ns[worker], n);
}

static int tell_all(const struct crew *crew, const struct world *world, struct order order)
{
	struct outcome unused;

	return crew_do_all(crew, world, &order, &unused);
}

static int place_one(const struct crew *crew, unsigned worker, enum place place)
{
	struct order order = {.deed = DEED_ENTER, .place = place};
	struct outcome unused;

	return crew_do(crew, worker, &order, &unused);
}

static int one_block(const struct crew *crew, const struct world *world, unsigned worker,
		     struct times *times)
{
	struct order order = {.deed = DEED_PAIRS, .n = PAIRS};
	struct outcome outcome;
	int r = crew_do(crew, worker, &order, &outcome);

	if (r >= 0 && outcome.n_refused) {
		fprintf(stderr, "bench: pairs: %s\n", strerror(outcome.first_error));
		r = -outcome.first_error;
	}
	if (r >= 0)
		r = note(crew, worker, outcome.n_times, times);
	world_drain(world);
	return r;
}

int measure_pairs(const struct crew *crew, const struct world *world, unsigned rounds,
		  struct pairs *ret)
{
	static const enum place places[] = {PLACE_PLAIN, PLACE_OUTSIDE, PLACE_SMALL};
	struct times *times[] = {&ret->plain, &ret->outside, &ret->classed};
	int r = tell_all(crew, world, (struct order){.deed = DEED_SPREAD});

	for (unsigned i = 0; r >= 0 && i < 3; i++)
		r = place_one(crew, i, places[i]);
	for (unsigned i = 0; r >= 0 && i < 3 * rounds; i++) {
		unsigned turn = (i + i / 3) % 3; /* nobody always comes first */

		r = one_block(crew, world, turn, times[turn]);
	}
	return r;
}

/* The times of connections [first, first + n), by how full the destination was. */
static int split(const struct crew *crew, unsigned worker, unsigned first, unsigned n,
		 struct fill *fill)
{
	unsigned edges[] = {0, fill->n_ports / 2, fill->n_ports / 10 * 9, fill->n_ports / 100 * 99,
			    ~0u};
	const uint32_t *ns = crew->board->times_ns[worker];
	int r = 0;

	for (unsigned part = 0; r >= 0 && part < PART_FULL; part++) {
		unsigned from = edges[part] > first ? edges[part] - first : 0;
		unsigned to = edges[part + 1] > first ? edges[part + 1] - first : 0;

		to = to < n ? to : n;
		if (from < to)
			r = times_add(&fill->parts[part], ns + from, to - from);
	}
	return r;
}

/* Gives 0 once refused. */
static int fill_up(const struct crew *crew, struct fill *fill)
{
	struct order order = {.deed = DEED_FILL, .n = HELD_MAX};
	struct outcome outcome = {0};
	int r = 0;

	fill->n_used = 0;
	for (unsigned i = 0; r >= 0 && i < CREW && !outcome.n_refused; i++) {
		r = crew_do(crew, i, &order, &outcome);
		if (r < 0)
			break;
		r = split(crew, i, fill->n_used, outcome.n_times, fill);
		fill->n_used += outcome.n_done;
	}
	if (r >= 0 && outcome.first_error != EADDRNOTAVAIL) {
		fprintf(stderr, "bench: %s: %u ports used, then %s\n", fill->name, fill->n_used,
			strerror(outcome.first_error));
		return -EBADMSG;
	}
	return r;
}

static int knock(const struct crew *crew, struct fill *fill)
{
	struct order order = {.deed = DEED_KNOCK, .n = KNOCKS};
	struct outcome outcome;
	int r = crew_do(crew, 0, &order, &outcome);

	if (r >= 0 && outcome.n_refused != KNOCKS) {
		fprintf(stderr, "bench: %s: full, but %u of %u connects got through\n", fill->name,
			outcome.n_done, KNOCKS);
		return -EBADMSG;
	}
	return r < 0 ? r : note(crew, 0, outcome.n_times, &fill->parts[PART_FULL]);
}

/* Adds by how much the record differs from n_sockets. */
static int count_leaks(const struct world *world, unsigned n_sockets, struct faults *faults)
{
	uint64_t usage;
	int r = world_usage(world, &usage);

	if (r >= 0)
		faults->leaked += usage > n_sockets ? usage - n_sockets : n_sockets - usage;
	return r;
}

static void add_ends(const struct outcome *outcome, struct faults *faults)
{
	faults->duplicates += outcome->n_duplicates;
	faults->n_died += outcome->n_died;
}

static int close_all(const struct crew *crew, const struct world *world, struct faults *faults)
{
	const struct order order = {.deed = DEED_CLOSE};
	struct outcome outcome;
	int r = crew_do_all(crew, world, &order, &outcome);

	world_drain(world);
	if (r < 0)
		return r;
	add_ends(&outcome, faults);
	return count_leaks(world, 0, faults);
}

int measure_fill(const struct crew *crew, const struct world *world, struct fill *fill,
		 struct faults *faults)
{
	int r = tell_all(crew, world, (struct order){.deed = DEED_SPREAD});

	if (r >= 0)
		r = tell_all(crew, world, (struct order){.deed = DEED_ENTER, .place = fill->place});
	if (r >= 0)
		r = fill_up(crew, fill);
	if (r >= 0)
		r = knock(crew, fill);
	if (r >= 0 && fill->place != PLACE_PLAIN)
		r = count_leaks(world, fill->n_used, faults);
	return r < 0 ? r : close_all(crew, world, faults);
}

/* Until all are refused, towards each destination: who is refused before the last port is used is
 * refused for nothing. */
static int contend(const struct crew *crew, const struct world *world, unsigned n_usable,
		   struct faults *faults)
{
	struct outcome outcome;
	unsigned n_held = 0;
	int r = 0;

	for (unsigned sink = 0; r >= 0 && sink < N_SINKS; sink++) {
		struct order order = {.deed = DEED_FILL, .n = HELD_MAX, .sink = sink};

		r = crew_do_all(crew, world, &order, &outcome);
		if (r < 0)
			break;
		faults->spurious += n_usable > outcome.n_done ? n_usable - outcome.n_done : 0;
		n_held += outcome.n_done;
	}
	if (r >= 0)
		r = count_leaks(world, n_held, faults);
	return r < 0 ? r : close_all(crew, world, faults);
}

static int ramp(const struct crew *crew, const struct world *world, struct order order)
{
	int r = 0;

	order.deed = DEED_FILL;
	order.n = order.low;
	for (order.sink = 0; r >= 0 && order.sink < N_SINKS; order.sink++)
		r = tell_all(crew, world, order);
	return r;
}

static int churn(const struct crew *crew, const struct world *world, unsigned n_usable, bool is_udp,
		 struct faults *faults)
{
	struct order order = {.deed = DEED_CHURN,
			      .n = CHURN / CREW,
			      .low = n_usable * LOW_PERCENT / 100 / CREW,
			      .high = n_usable * HIGH_PERCENT / 100 / CREW,
			      .is_udp = is_udp};
	struct outcome outcome;
	int r = ramp(crew, world, order);

	if (r >= 0)
		r = crew_do_all(crew, world, &order, &outcome);
	if (r < 0)
		return r;
	faults->n_connects += outcome.n_done + outcome.n_refused;
	faults->spurious += outcome.n_refused;
	add_ends(&outcome, faults);
	if (outcome.n_refused)
		fprintf(stderr, "bench: churn: %u refused, the first with %s\n", outcome.n_refused,
			strerror(outcome.first_error));
	return close_all(crew, world, faults);
}

int measure_faults(const struct crew *crew, const struct world *world, unsigned n_usable,
		   struct faults *faults)
{
	int r = tell_all(crew, world, (struct order){.deed = DEED_SPREAD, .n = 1});

	if (r >= 0)
		r = tell_all(crew, world, (struct order){.deed = DEED_ENTER, .place = PLACE_SMALL});
	if (r >= 0)
		r = contend(crew, world, n_usable, faults);
	if (r >= 0)
		r = churn(crew, world, n_usable, false, faults);
	return r < 0 ? r : churn(crew, world, n_usable, true, faults);
}

void pairs_clear(struct pairs *pairs)
{
	times_clear(&pairs->plain);
	times_clear(&pairs->outside);
	times_clear(&pairs->classed);
}

void fill_clear(struct fill *fill)
{
	for (unsigned i = 0; i < N_PARTS; i++)
		times_clear(&fill->parts[i]);
}

/* SPDX-License-Identifier: MIT */
/* Processes that open connections when told to, and what they measured.  One process alone may not
 * have enough sockets. */
#ifndef PS_BENCH_CONNECT_CREW_H
#define PS_BENCH_CONNECT_CREW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "world.h"

enum {
	CREW = 4,
	HELD_MAX = 8192,  /* connections a worker holds */
	TIMES_MAX = 8192, /* times it notes for one order */
};

enum deed {
	DEED_ENTER,  /* go to `place` */
	DEED_SPREAD, /* run on every processor, or (n 0) on the first one only */
	DEED_PAIRS,  /* n times connect() and close(), timed together */
	DEED_FILL, /* up to n connections to `sink`, until refused; connect() timed, connections kept */
	DEED_KNOCK, /* n tries that must be refused with EADDRNOTAVAIL; connect() timed */
	DEED_CHURN, /* n connects, keeping from `low` to `high` open to each sink */
	DEED_CLOSE, /* close all */
};

struct order {
	enum deed deed;
	enum place place;
	unsigned n, sink, low, high;
	bool is_udp;
};

struct outcome {
	unsigned n_done;       /* connections made */
	unsigned n_refused;    /* that were not: of KNOCK those it is about, else errors */
	int first_error;       /* errno of the first of n_refused that was not meant */
	unsigned n_duplicates; /* live connections whose ends another one got as well */
	unsigned n_died;       /* reset by the peer, so that another one could get them */
	unsigned n_times;
};

/* Shared by all workers. */
struct crew_board {
	uint32_t times_ns[CREW][TIMES_MAX];
	/* Who has the port: worker + 1, by protocol, last bit of our address, sink, port. */
	uint8_t owners[2][2][N_SINKS][65536];
};

struct crew {
	struct crew_board *board;
	int lines[CREW]; /* a socket to each worker */
	pid_t pids[CREW];
	const struct cgroups *cgroups;
};

/* Workers stand in PLACE_PLAIN at first; they end with the calling process. */
int crew_open(const struct cgroups *cgroups, struct crew *ret);
void crew_close(struct crew *crew);
int crew_tell(const struct crew *crew, unsigned worker, const struct order *order);
int crew_hear(const struct crew *crew, unsigned worker, struct outcome *ret);
/* Both, one after the other. */
int crew_do(const struct crew *crew, unsigned worker, const struct order *order,
	    struct outcome *ret);
/* The same order to all at once; drains the sink meanwhile.  *ret is the sum. */
int crew_do_all(const struct crew *crew, const struct world *world, const struct order *order,
		struct outcome *ret);

#endif

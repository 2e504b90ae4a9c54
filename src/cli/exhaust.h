/* SPDX-License-Identifier: MIT */
/* The parts of `portslice exhaust`; private to it.  exhaust.c has the essay. */
#ifndef PS_CLI_EXHAUST_H
#define PS_CLI_EXHAUST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ip.h"

enum {
	PS_EXHAUST_CONNECTIONS = 510, /* the source's own load: 2 x 255 (facts.md PX-6) */
	PS_EXHAUST_CONNECTIONS_MAX = 65536,
	PS_EXHAUST_RATE = 1000, /* connections a second */
	PS_EXHAUST_RATE_MAX = 20000,
	PS_EXHAUST_HOLD_S = 10,
	PS_EXHAUST_HOLD_MAX_S = 600,
	PS_EXHAUST_FAULTS_MAX = 16, /* kinds that are told apart */
};

/* Every address of the prefix is a target of its own. */
struct ps_exhaust_target {
	struct ps_prefix prefix;
	uint16_t port;
};

struct ps_exhaust_options {
	struct ps_exhaust_target *targets; /* owned */
	size_t n_targets;
	unsigned n_connections, rate, hold_s;
	bool is_udp, is_retrying, is_confirmed;
	bool binds_first;   /* to bind_ip and port 0 */
	bool binds_any;     /* bind_ip is whatever address of the target's family */
	bool binds_no_port; /* with IP_BIND_ADDRESS_NO_PORT */
	struct ps_ip bind_ip;
};

/* One connection, from its first try on. */
struct ps_exhaust_connection {
	int fd;         /* -1: refused, or not tried yet */
	uint32_t us_x8; /* bind() and connect() of the last try, eighths of a microsecond */
	struct ps_ip source;
	uint16_t source_port;
	bool is_tried;
};

/* An errno that a call gave; `first` is the earliest connection that met it. */
struct ps_exhaust_fault {
	const char *call; /* "socket", "bind", "connect", "answer" */
	int error;
	unsigned n, first;
	uint64_t first_ns; /* after the start */
};

/* What came of it. */
struct ps_exhaust_load {
	const struct ps_exhaust_options *options;
	struct ps_exhaust_connection *connections; /* options->n_connections, owned */
	uint64_t start_ns, end_ns;                 /* CLOCK_MONOTONIC */
	unsigned n_tried, n_first_through, n_through;
	unsigned n_answered, n_waiting; /* TCP, when the time was over */
	struct ps_exhaust_fault faults[PS_EXHAUST_FAULTS_MAX];
	size_t n_faults;
};

/* The target of connection `nth`: targets take turns, the addresses of each too. */
struct ps_ip ps_exhaust_target(const struct ps_exhaust_options *options, unsigned nth,
			       uint16_t *ret_port);
/* How many targets the options name, at most PS_EXHAUST_CONNECTIONS_MAX. */
unsigned ps_exhaust_count_targets(const struct ps_exhaust_options *options);

/* Opens, holds and closes all connections, telling progress on standard error.  SIGINT and SIGTERM end
 * it early.  -ENOMEM; -EMFILE: this process may not have so many sockets. */
int ps_exhaust_run(const struct ps_exhaust_options *options, struct ps_exhaust_load *ret);
void ps_exhaust_clear(struct ps_exhaust_load *load);
/* Prints the report; gives enum ps_exit. */
int ps_exhaust_tell(const struct ps_exhaust_load *load, bool json);

#endif

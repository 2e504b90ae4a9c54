// SPDX-License-Identifier: MIT
#include "worker.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_SINK = 0x0a4d0002 }; /* 10.77.0.2 */

/* A connection that is kept. */
struct held {
	int fd;
	uint8_t sink, is_udp;
	uint8_t *owner; /* its place on the board */
};

struct worker {
	const struct cgroups *cgroups;
	struct crew_board *board;
	unsigned number;
	unsigned n_held, n_to[N_SINKS];
	struct held held[HELD_MAX];
	uint64_t random;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static unsigned draw(struct worker *worker, unsigned below)
{
	uint64_t s = worker->random;

	s ^= s << 13;
	s ^= s >> 7;
	s ^= s << 17;
	worker->random = s;
	return (unsigned)((s >> 32) * below >> 32);
}

static void note_time(const struct worker *worker, uint64_t start_ns, struct outcome *outcome)
{
	if (outcome->n_times < TIMES_MAX)
		worker->board->times_ns[worker->number][outcome->n_times++] =
			(uint32_t)(now_ns() - start_ns);
}

static int new_socket(bool is_udp)
{
	static const struct linger reset = {1, 0};
	int fd = socket(AF_INET, (is_udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC,
			0);

	if (fd < 0) {
		perror("bench: socket");
		exit(1);
	}
	if (!is_udp)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	return fd;
}

static int dial(int fd, unsigned sink)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons(SINK_PORT),
				 .sin_addr.s_addr = htonl(FIRST_SINK + sink)};

	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
		return -errno;
	return 0;
}

/* The judge of duplicates, which knows nothing of the record. */
static uint8_t *owner_of(const struct worker *worker, int fd, unsigned sink, bool is_udp)
{
	struct sockaddr_in name = {0};
	socklen_t len = sizeof(name);

	getsockname(fd, (struct sockaddr *)&name, &len);
	return &worker->board->owners[is_udp][ntohl(name.sin_addr.s_addr) & 1][sink]
				     [ntohs(name.sin_port)];
}

static void keep(struct worker *worker, int fd, unsigned sink, bool is_udp, struct outcome *outcome)
{
	uint8_t *owner = owner_of(worker, fd, sink, is_udp);

	__atomic_store_n(owner, (uint8_t)(worker->number + 1), __ATOMIC_SEQ_CST);
	outcome->n_done++;
	worker->n_to[sink]++;
	worker->held[worker->n_held++] = (struct held){fd, (uint8_t)sink, is_udp, owner};
}

/* A connection that the peer has reset is none, though we hold its socket. */
static bool is_alive(const struct held *held)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	if (held->is_udp)
		return true;
	return getsockopt(held->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
	       info.tcpi_state != TCP_CLOSE;
}

/* Nobody may have got the same ends while this one lived. */
static void drop(struct worker *worker, unsigned i, struct outcome *outcome)
{
	uint8_t expected = (uint8_t)(worker->number + 1);
	struct held *held = &worker->held[i];
	bool was_alive = is_alive(held);

	if (!__atomic_compare_exchange_n(held->owner, &expected, 0, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST)) {
		outcome->n_duplicates += was_alive;
		outcome->n_died += !was_alive;
	}
	worker->n_to[held->sink]--;
	close(held->fd);
	*held = worker->held[--worker->n_held];
}

static void note_refusal(int error, int meant, struct outcome *outcome)
{
	outcome->n_refused += !meant || error == meant;
	if (!outcome->first_error && error != meant)
		outcome->first_error = error;
}

static void enter(const struct worker *worker, enum place place)
{
	char path[192];
	int fd;

	snprintf(path, sizeof(path), "%s/cgroup.procs", worker->cgroups->places[place]);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) < 0) {
		perror("bench: cgroup");
		exit(1);
	}
	close(fd);
}

static void spread(unsigned n)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	for (unsigned i = 0; i < (n ? CPU_SETSIZE : 1); i++)
		CPU_SET(i, &cpus);
	(void)sched_setaffinity(0, sizeof(cpus), &cpus);
}

static void do_pairs(struct worker *worker, const struct order *order, struct outcome *outcome)
{
	for (unsigned i = 0; i < order->n; i++) {
		int fd = new_socket(order->is_udp), r;
		uint64_t start_ns = now_ns();

		r = dial(fd, order->sink);
		close(fd);
		note_time(worker, start_ns, outcome);
		outcome->n_done += r == 0;
		if (r < 0)
			note_refusal(-r, 0, outcome);
	}
}

static void do_fill(struct worker *worker, const struct order *order, struct outcome *outcome)
{
	for (unsigned i = 0; i < order->n && worker->n_held < HELD_MAX; i++) {
		int fd = new_socket(order->is_udp), r;
		uint64_t start_ns = now_ns();

		r = dial(fd, order->sink);
		if (r < 0) {
			close(fd);
			note_refusal(-r, 0, outcome);
			return;
		}
		note_time(worker, start_ns, outcome);
		keep(worker, fd, order->sink, order->is_udp, outcome);
	}
}

static void do_knock(struct worker *worker, const struct order *order, struct outcome *outcome)
{
	for (unsigned i = 0; i < order->n; i++) {
		int fd = new_socket(order->is_udp), r;
		uint64_t start_ns = now_ns();

		r = dial(fd, order->sink);
		note_time(worker, start_ns, outcome);
		close(fd);
		outcome->n_done += r == 0;
		if (r < 0)
			note_refusal(-r, EADDRNOTAVAIL, outcome);
	}
}

/* Closes connections to the sink, any of them, until `low` are left. */
static void shrink(struct worker *worker, unsigned sink, unsigned low, struct outcome *outcome)
{
	while (worker->n_to[sink] > low) {
		unsigned i = draw(worker, worker->n_held);

		if (worker->held[i].sink == sink)
			drop(worker, i, outcome);
	}
}

static void do_churn(struct worker *worker, const struct order *order, struct outcome *outcome)
{
	for (unsigned i = 0; i < order->n; i++) {
		unsigned sink = draw(worker, N_SINKS);
		int fd, r;

		if (worker->n_to[sink] >= order->high)
			shrink(worker, sink, order->low, outcome);
		fd = new_socket(order->is_udp);
		r = dial(fd, sink);
		if (r == 0) {
			keep(worker, fd, sink, order->is_udp, outcome);
			continue;
		}
		close(fd);
		note_refusal(-r, 0, outcome);
	}
}

static void do_close(struct worker *worker, struct outcome *outcome)
{
	while (worker->n_held)
		drop(worker, worker->n_held - 1, outcome);
}

static void obey(struct worker *worker, const struct order *order, struct outcome *outcome)
{
	switch (order->deed) {
	case DEED_ENTER:
		enter(worker, order->place);
		return;
	case DEED_SPREAD:
		spread(order->n);
		return;
	case DEED_PAIRS:
		do_pairs(worker, order, outcome);
		return;
	case DEED_FILL:
		do_fill(worker, order, outcome);
		return;
	case DEED_KNOCK:
		do_knock(worker, order, outcome);
		return;
	case DEED_CHURN:
		do_churn(worker, order, outcome);
		return;
	case DEED_CLOSE:
		do_close(worker, outcome);
		return;
	}
}

void worker_run(const struct cgroups *cgroups, struct crew_board *board, unsigned worker, int line)
{
	static struct worker self;
	struct rlimit limit;
	struct order order;

	self = (struct worker){.cgroups = cgroups,
			       .board = board,
			       .number = worker,
			       .random = 0x853c49e6748fea9bu + worker};
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	enter(&self, PLACE_PLAIN);
	while (recv(line, &order, sizeof(order), 0) == sizeof(order)) {
		struct outcome outcome = {0};

		obey(&self, &order, &outcome);
		if (send(line, &outcome, sizeof(outcome), MSG_NOSIGNAL) < 0)
			return;
	}
}

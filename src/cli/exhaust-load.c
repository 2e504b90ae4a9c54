// SPDX-License-Identifier: MIT
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "base/own.h"
#include "cli/exhaust.h"

enum { SPARE_FDS = 32, RETRY_NS = 1000000000, PROGRESS_NS = 200000000, NS_PER_S = 1000000000 };

static volatile sig_atomic_t is_stopped;

static void stop(int signal)
{
	(void)signal;
	is_stopped = 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t at_ns)
{
	struct timespec at = {.tv_sec = (time_t)(at_ns / NS_PER_S),
			      .tv_nsec = (long)(at_ns % NS_PER_S)};

	(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static uint64_t target_size(const struct ps_exhaust_target *target)
{
	uint64_t n = ps_prefix_size(&target->prefix);

	return n < PS_EXHAUST_CONNECTIONS_MAX ? n : PS_EXHAUST_CONNECTIONS_MAX;
}

unsigned ps_exhaust_count_targets(const struct ps_exhaust_options *options)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < options->n_targets; i++)
		sum += target_size(&options->targets[i]);
	return sum < PS_EXHAUST_CONNECTIONS_MAX ? (unsigned)sum : PS_EXHAUST_CONNECTIONS_MAX;
}

struct ps_ip ps_exhaust_target(const struct ps_exhaust_options *options, unsigned nth,
			       uint16_t *ret_port)
{
	const struct ps_exhaust_target *target = &options->targets[nth % options->n_targets];
	uint64_t turn = nth / options->n_targets;

	*ret_port = target->port;
	return ps_ip_add(&target->prefix.ip, turn % target_size(target));
}

static socklen_t address_of(const struct ps_ip *ip, uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;
	struct sockaddr_in *in = (struct sockaddr_in *)ret;

	memset(ret, 0, sizeof(*ret));
	if (ps_ip_is_v4(ip)) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		in->sin_addr.s_addr = ps_ip_v4_be(ip);
		return sizeof(*in);
	}
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	memcpy(&in6->sin6_addr, ip->bytes, sizeof(ip->bytes));
	return sizeof(*in6);
}

static void note_source(struct ps_exhaust_connection *connection)
{
	struct sockaddr_storage name = {0};
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&name;
	const struct sockaddr_in *in = (const struct sockaddr_in *)&name;
	socklen_t len = sizeof(name);

	(void)getsockname(connection->fd, (struct sockaddr *)&name, &len);
	connection->source_port = ntohs(in->sin_port); /* at the same place in both */
	if (name.ss_family == AF_INET)
		connection->source = ps_ip_from_v4(in->sin_addr.s_addr);
	else
		memcpy(connection->source.bytes, &in6->sin6_addr, sizeof(connection->source.bytes));
}

static void add_fault(struct ps_exhaust_load *load, const char *call, int error, unsigned nth)
{
	struct ps_exhaust_fault *fault = load->faults;
	const struct ps_exhaust_fault *end = fault + load->n_faults;

	while (fault < end && (fault->error != error || strcmp(fault->call, call) != 0))
		fault++;
	if (fault == load->faults + PS_EXHAUST_FAULTS_MAX)
		return;
	if (fault == end) {
		*fault = (struct ps_exhaust_fault){call, error, 0, nth, now_ns() - load->start_ns};
		load->n_faults++;
	}
	fault->n++;
}

static int bind_first(int fd, const struct ps_exhaust_options *options, bool v4)
{
	struct ps_ip ip = options->bind_ip;
	struct sockaddr_storage from;
	int on = 1;

	if (options->binds_any)
		ip = v4 ? ps_ip_from_v4(0) : (struct ps_ip){0};
	/* Of IPPROTO_IP for both families (ip(7)). */
	if (options->binds_no_port &&
	    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)) < 0)
		return -errno;
	return bind(fd, (struct sockaddr *)&from, address_of(&ip, 0, &from)) < 0 ? -errno : 0;
}

static int new_socket(const struct ps_exhaust_options *options, bool v4)
{
	static const struct linger reset = {1, 0};
	int type = (options->is_udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
	int fd = socket(v4 ? AF_INET : AF_INET6, type, 0);

	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	return fd < 0 ? -errno : fd;
}

/* bind() and connect(), with the time they took; 0, or -errno of *ret_call. */
static int dial(const struct ps_exhaust_options *options, int fd, unsigned nth, uint64_t *ret_ns,
		const char **ret_call)
{
	struct sockaddr_storage to;
	uint16_t port;
	struct ps_ip ip = ps_exhaust_target(options, nth, &port);
	socklen_t len = address_of(&ip, port, &to);
	uint64_t start_ns = now_ns();
	int r = 0;

	*ret_call = "bind";
	if (options->binds_first)
		r = bind_first(fd, options, ps_ip_is_v4(&ip));
	if (r == 0) {
		*ret_call = "connect";
		if (connect(fd, (struct sockaddr *)&to, len) < 0 && errno != EINPROGRESS)
			r = -errno;
	}
	*ret_ns = now_ns() - start_ns;
	return r;
}

static void try_one(struct ps_exhaust_load *load, unsigned nth)
{
	struct ps_exhaust_connection *connection = &load->connections[nth];
	const char *call = "socket";
	uint16_t port;
	struct ps_ip ip = ps_exhaust_target(load->options, nth, &port);
	ps_auto_fd int fd = new_socket(load->options, ps_ip_is_v4(&ip));
	uint64_t took_ns = 0;
	int r = fd;

	if (fd >= 0)
		r = dial(load->options, fd, nth, &took_ns, &call);
	connection->us_x8 = (uint32_t)(took_ns * 8 / 1000);
	connection->is_tried = true;
	if (r < 0) {
		add_fault(load, call, -r, nth);
		return;
	}
	connection->fd = ps_fd_move(&fd);
	note_source(connection);
	load->n_through++;
}

static void tell_progress(const struct ps_exhaust_load *load, bool is_last)
{
	static uint64_t last_ns;
	bool on_terminal = isatty(STDERR_FILENO);
	uint64_t at_ns = now_ns();

	if (!is_last && (!on_terminal || at_ns - last_ns < PROGRESS_NS))
		return;
	last_ns = at_ns;
	fprintf(stderr, "%sportslice: %u of %u tried, %u through%s", on_terminal ? "\r" : "",
		load->n_tried, load->options->n_connections, load->n_through, is_last ? "\n" : "");
}

static void open_all(struct ps_exhaust_load *load)
{
	const struct ps_exhaust_options *options = load->options;

	for (unsigned i = 0; i < options->n_connections && !is_stopped; i++) {
		sleep_until(load->start_ns + (uint64_t)i * NS_PER_S / options->rate);
		try_one(load, i);
		load->n_tried++;
		tell_progress(load, false);
	}
	load->n_first_through = load->n_through;
	tell_progress(load, true);
}

/* One more try for each that was refused, at the same rate. */
static void retry_all(struct ps_exhaust_load *load, uint64_t until_ns)
{
	uint64_t start_ns = now_ns();
	unsigned n_tries = 0;

	for (unsigned i = 0; i < load->n_tried && !is_stopped && now_ns() < until_ns; i++) {
		if (load->connections[i].fd >= 0)
			continue;
		sleep_until(start_ns + (uint64_t)n_tries++ * NS_PER_S / load->options->rate);
		try_one(load, i);
	}
}

static void hold_all(struct ps_exhaust_load *load)
{
	uint64_t until_ns = now_ns() + (uint64_t)load->options->hold_s * NS_PER_S;
	unsigned n_told = load->n_through;

	while (!is_stopped && now_ns() < until_ns) {
		uint64_t next_ns = now_ns() + RETRY_NS;

		sleep_until(next_ns < until_ns ? next_ns : until_ns);
		if (!load->options->is_retrying || load->n_through == load->n_tried)
			continue;
		retry_all(load, until_ns);
		if (load->n_through != n_told)
			tell_progress(load, true);
		n_told = load->n_through;
	}
}

/* Whether the targets answered, once the time is over. */
static void ask_answers(struct ps_exhaust_load *load)
{
	for (unsigned i = 0; i < load->n_tried; i++) {
		struct tcp_info info = {0};
		socklen_t len = sizeof(info), int_len = sizeof(int);
		int fd = load->connections[i].fd, error = 0;

		if (fd < 0)
			continue;
		(void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &int_len);
		if (error) {
			add_fault(load, "answer", error, i);
			continue;
		}
		if (load->options->is_udp || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
			continue;
		load->n_waiting += info.tcpi_state == TCP_SYN_SENT;
		load->n_answered += info.tcpi_state != TCP_SYN_SENT;
	}
}

static int make_room(unsigned n_sockets)
{
	struct rlimit limit;
	rlim_t wanted = (rlim_t)n_sockets + SPARE_FDS;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	if (limit.rlim_cur >= wanted)
		return 0;
	limit.rlim_cur = wanted;
	if (limit.rlim_max < wanted)
		return -EMFILE;
	return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? -errno : 0;
}

int ps_exhaust_run(const struct ps_exhaust_options *options, struct ps_exhaust_load *ret)
{
	const struct sigaction action = {.sa_handler = stop};
	int r = make_room(options->n_connections);

	if (r < 0)
		return r;
	*ret = (struct ps_exhaust_load){.options = options};
	ret->connections = calloc(options->n_connections, sizeof(*ret->connections));
	if (!ret->connections)
		return -ENOMEM;
	for (unsigned i = 0; i < options->n_connections; i++)
		ret->connections[i].fd = -1;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	ret->start_ns = now_ns();
	open_all(ret);
	hold_all(ret);
	ask_answers(ret);
	ret->end_ns = now_ns();
	return 0;
}

void ps_exhaust_clear(struct ps_exhaust_load *load)
{
	for (unsigned i = 0; load->connections && i < load->options->n_connections; i++)
		ps_fd_drop(&load->connections[i].fd);
	free(load->connections);
	*load = (struct ps_exhaust_load){0};
}

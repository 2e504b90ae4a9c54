// SPDX-License-Identifier: MIT
/* What is refused when a socket is made, and pings: connected they are served, else none leaves. */
#include <errno.h>
#include <net/if.h>
#include <netinet/ip_icmp.h>
#include <sched.h>
#include <stdio.h>

#include "base/own.h"
#include "egress-fixture.h"

static int make(int type, int protocol)
{
	int fd = socket(net->family, type | SOCK_CLOEXEC, protocol);

	return fd < 0 ? -errno : fd;
}

static void assert_made(int type, int protocol)
{
	int fd = make(type, protocol);

	assert_true(fd >= 0);
	close(fd);
}

static void sockets_without_ports_of_ours_are_refused_and_told(void **state)
{
	static const struct {
		int type, protocol;
	} rows[] = {{SOCK_RAW, IPPROTO_ICMP},
		    {SOCK_RAW, IPPROTO_UDP},
		    {SOCK_RAW, IPPROTO_RAW},
		    {SOCK_DGRAM, IPPROTO_UDPLITE}};
	struct told told = {0};

	(void)state;
	for (size_t i = 0; i < PS_N_ELEMENTS(rows); i++) {
		int fd = make(rows[i].type, rows[i].protocol);

		if (fd == -EPROTONOSUPPORT) /* this kernel has no UDP-Lite */
			continue;
		assert_int_equal(fd, -EACCES);
	}
	assert_in_range(counter(PS_EGRESS_REFUSED_RAW), 3, 4);
	assert_int_equal(ps_egress_events_read(egress, note_event, &told), 1);
	assert_int_equal(told.last.reason, PS_EGRESS_REFUSED_RAW);
	assert_int_equal(told.last.pid, getpid());
	assert_made(SOCK_STREAM, IPPROTO_TCP);
	assert_made(SOCK_DGRAM, IPPROTO_UDP);
}

static void others_may_make_what_they_want(void **state)
{
	(void)state;
	lab_enter(lab.plain_dir);
	assert_made(SOCK_RAW, IPPROTO_ICMP);
	lab_enter(lab.class_dir);
	assert_int_equal(setns(lab.far_ns, CLONE_NEWNET), 0); /* as in a container */
	assert_made(SOCK_RAW, IPPROTO_ICMP);
	assert_int_equal(setns(lab.near_ns, CLONE_NEWNET), 0);
	assert_int_equal(counter(PS_EGRESS_REFUSED_RAW), 0);
}

static void an_observer_counts_raw_sockets_and_refuses_none(void **state)
{
	(void)state;
	plan.options.observe = true;
	start();
	assert_made(SOCK_RAW, IPPROTO_ICMP);
	assert_int_equal(counter(PS_EGRESS_REFUSED_RAW), 1);
}

static void put_guard(void)
{
	ps_auto_mem char *message = NULL;
	bool made;

	assert_int_equal(ps_egress_guard(egress, if_nametoindex("v0"), true, &made, &message), 0);
}

/* 0, or the errno of sending an echo request to `to` without connect(). */
static int ping(int fd, const char *to)
{
	uint8_t echo[8] = {net->family == AF_INET ? ICMP_ECHO : 128};
	struct sockaddr_storage address;
	socklen_t len = at(to, 0, &address);

	return sendto(fd, echo, sizeof(echo), 0, (struct sockaddr *)&address, len) < 0 ? -errno : 0;
}

static void a_ping_without_connect_does_not_leave(void **state)
{
	int fd = make(SOCK_DGRAM, net->icmp), stream = dial(SOCK_STREAM, net->far[0]);
	int refused = net->family == AF_INET ? -ENOBUFS : 0; /* ping_v6_sendmsg() does not tell */
	struct told told = {0};

	(void)state;
	put_guard();
	assert_true(fd >= 0 && stream >= 0); /* the neighbour is known: nothing waits for it */
	close(stream);
	assert_int_equal(ping(fd, net->far[0]), refused);
	assert_int_equal(counter(PS_EGRESS_REFUSED_PING), 1);
	assert_int_equal(ps_egress_events_read(egress, note_event, &told), 1);
	assert_int_equal(told.last.reason, PS_EGRESS_REFUSED_PING);
	assert_int_equal(told.last.pid, getpid());
	assert_string_equal(told.last.comm, "test-egress-cre");
	assert_int_equal(ping(fd, net->direct), 0);
	start(); /* sockets of a generation before are known */
	put_guard();
	assert_int_equal(ping(fd, net->far[0]), refused);
	assert_int_equal(counter(PS_EGRESS_REFUSED_PING), 2);
	close(fd);
}

static void pings_of_others_pass(void **state)
{
	int fd;

	(void)state;
	put_guard();
	lab_enter(lab.plain_dir);
	fd = make(SOCK_DGRAM, net->icmp);
	lab_enter(lab.class_dir);
	assert_true(fd >= 0);
	assert_int_equal(ping(fd, net->far[0]), 0);
	assert_int_equal(counter(PS_EGRESS_REFUSED_PING), 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FACT(sockets_without_ports_of_ours_are_refused_and_told),
		FACT(others_may_make_what_they_want),
		FACT(an_observer_counts_raw_sockets_and_refuses_none),
		FACT(a_ping_without_connect_does_not_leave),
		FACT(pings_of_others_pass),
	};

	return RUN_FACTS(tests);
}

/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the hooks share: a generation put in place over a lab, real sockets that dial
 * through it, and what it counted.  One process, one lab, one plan.
 */
#ifndef PS_TESTS_EGRESS_FIXTURE_H
#define PS_TESTS_EGRESS_FIXTURE_H

#include <netinet/in.h>

#include "cm.h"
#include "egress-lab.h"

enum { PORT = 7000, MARK = 77, DEADLINE_MS = 20000, SERVICE_PORT = 25565 };

/* What a generation shall know; changed by tests before start(). */
struct fixture_plan {
	struct ps_egress_slice slices[4];
	struct ps_choice choices[3];
	struct ps_egress_config config;
	struct ps_egress_options options;
};

struct told {
	unsigned n;
	struct ps_egress_event last;
};

extern struct lab lab;
extern struct ps_egress *egress;
extern int listener;
extern struct fixture_plan plan;
extern const char *const far[3];

uint32_t ip4(const char *text);
struct ps_prefix prefix(const char *text);
struct ps_egress_slice slice(const char *address, uint16_t first);
/* Class 0 (by cgroup): one slice of .1.  Class 1 (cgroup and mark): one of .2.  Class 2: none. */
void plan_default(void);
/* Loads the plan and puts it in place of the generation before. */
void start(void);
int set_up(void **state);
int tear_down(void **state);
uint64_t counter(enum ps_egress_reason reason);
unsigned n_claims(void);
void wait_for_claims(unsigned n);
struct sockaddr_in at(const char *address, uint16_t port);
int try_connect(int fd, const char *address, uint16_t port);
int try_bind(int fd, const char *address, uint16_t port);
int try_send(int fd, const char *address, uint16_t port);
struct sockaddr_in name_of(int fd);
int new_socket(int type);
/* A connected socket, or the negative errno of connect(). */
int dial(int type, const char *address);
void assert_from_slice(int fd, const struct ps_egress_slice *of);
void close_all(int *fds, size_t n);
void note_event(const struct ps_egress_event *event, void *arg);
/* Fills the slice towards three destinations; none of the ports is given twice to one of them. */
void fill(int type, int fds[3 * LAB_PORTS]);
int open_all(void **state);
int close_lab(void **state);

#define FACT(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* The body of main(): skips with a reason where the kernel will not have us. */
#define RUN_FACTS(tests)                                                           \
	({                                                                         \
		const char *missing = lab_missing();                               \
                                                                                   \
		if (missing)                                                       \
			printf("skip: %s\n", missing);                             \
		missing ? 77 : cmocka_run_group_tests(tests, open_all, close_lab); \
	})

#endif

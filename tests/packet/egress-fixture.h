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

/* By cgroup and mark: one slice of each family's second address.  By a mark: none.  By cgroup: one
 * slice of the first. */
enum { MARKED, BARE, MAIN, N_CLASSES };

/* The lab's addresses of one family; tests run once for each. */
struct net {
	int family;
	uint8_t icmp;   /* IPPROTO_ICMP or IPPROTO_ICMPV6 */
	unsigned slice; /* index of the first of its slices in the plan */
	const char *far[3];
	const char *direct, *own, *any, *loopback, *nowhere;
	const char *shared[3];   /* of slice 0, of slice 1, of nobody */
	const char *shared_text; /* the prefix */
};

/* What a generation shall know; changed by tests before start(). */
struct fixture_plan {
	struct ps_egress_slice slices[4]; /* two of IPv4, two of IPv6 */
	struct ps_choices choices[N_CLASSES];
	struct ps_egress_match matches[N_CLASSES];
	struct ps_egress_cgroup cgroups[1];
	struct ps_claim_key services[2]; /* one of each family */
	struct ps_egress_config config;
	struct ps_egress_options options;
};

struct told {
	unsigned n;
	struct ps_egress_event last;
};

/* An end of a socket. */
struct end {
	struct ps_ip ip;
	uint16_t port;
};

extern struct lab lab;
extern struct ps_egress *egress;
extern struct fixture_plan plan;
extern const struct net nets[2], *net; /* the present one */

struct ps_ip ip_of(const char *text);
struct ps_prefix prefix(const char *text);
void plan_default(void);
/* All slices get 2^shift ports. */
void plan_size(unsigned shift);
/* Slice n and class n's choice of the present family. */
const struct ps_egress_slice *slice(unsigned n);
struct ps_choice *choice(unsigned n);
/* Loads the plan and puts it in place of the generation before. */
void start(void);
/* The same, and what the kernel has in TIME_WAIT from tests before is not in the way. */
void start_afresh(void);
/* A file descriptor of the map, the caller's. */
int open_quarantine(void);
/* Pretends that all quarantines have ended. */
void end_quarantines(void);
/* Makes a socket of this process forget its claim, which nobody holds from then on. */
struct ps_claim_key orphan(int fd);
/* *state is a struct net. */
int set_up(void **state);
int tear_down(void **state);
uint64_t counter(enum ps_egress_reason reason);
/* Bits in the ledger. */
unsigned n_claims(void);
void wait_for_claims(unsigned n);
/* Of the family that the text tells. */
socklen_t at(const char *address, uint16_t port, struct sockaddr_storage *ret);
struct end end_of(const struct sockaddr_storage *address);
int try_connect(int fd, const char *address, uint16_t port);
int try_bind(int fd, const char *address, uint16_t port);
int try_send(int fd, const char *address, uint16_t port);
struct end name_of(int fd);
/* Of the present family. */
int new_socket(int type);
/* A connected socket, or the negative errno of connect(). */
int dial(int type, const char *address);
void assert_from(int fd, const char *address);
void assert_from_slice(int fd, const struct ps_egress_slice *of);
void close_all(int *fds, size_t n);
void note_event(const struct ps_egress_event *event, void *arg);
/* Fills the slice towards three destinations; none of the ports is given twice to one of them. */
void fill(int type, int fds[3 * LAB_SHARED]);
int open_all(void **state);
int close_lab(void **state);

#define FACT_OF(name, net_, text) {text, name, set_up, tear_down, (void *)(uintptr_t)(net_)}
/* Holds for both families. */
#define FACT(name) FACT_OF(name, &nets[0], #name), FACT_OF(name, &nets[1], #name " (IPv6)")
/* Is about one, or both at once. */
#define FACT_V4(name) FACT_OF(name, &nets[0], #name)

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

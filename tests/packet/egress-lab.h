/* SPDX-License-Identifier: MIT */
/*
 * A place to run the outgoing path for real: two network namespaces joined by a veth pair, two
 * cgroups, a bpffs of our own.
 *
 *   near 10.77.0.1, AnyIP 198.51.100.1 and .2  ---- veth ----  far 10.77.0.2 to .5 (.4 is direct)
 *        2001:db8:77::1, AnyIP 2001:db8:100::1 and ::2              2001:db8:77::2 to ::5 (::4)
 *
 * The process lives in `near`; only the test's own cgroup has hooks.
 */
#ifndef PS_TESTS_EGRESS_LAB_H
#define PS_TESTS_EGRESS_LAB_H

#include <stdbool.h>

#include "egress/egress.h"

enum {
	LAB_FIRST_PORT = 4096,
	LAB_SHIFT = 7,
	LAB_PORTS = 1 << LAB_SHIFT,
	LAB_EXCLUSIVE = LAB_PORTS / PS_EXCLUSIVE_PART,
	LAB_SHARED = LAB_PORTS - LAB_EXCLUSIVE, /* ports towards each peer */
};

/* An orphan in FIN_WAIT2 keeps its port for so long (seconds, text).  The kernel puts most of them
 * aside at once; but where the ACK of the FIN comes while close() still has the socket, it stays whole
 * (tcp_rcv_state_process(), net/ipv4/tcp_input.c), with its claim. */
#define LAB_FIN_TIMEOUT_S "5"

struct lab {
	char root[64];         /* a bpffs below /tmp */
	char pins[96];         /* where the loader may pin */
	char cgroup[96];       /* has the hooks */
	char class_dir[128];   /* class 0 */
	char plain_dir[128];   /* no class */
	char home_cgroup[256]; /* where the process came from */
	uint64_t class_id;
	unsigned class_level;
	int near_ns, far_ns, home_ns;
};

/* Why the kernel will not let us run these tests, or NULL. */
const char *lab_missing(void);
/* The bpffs alone, which is all that packet tests need. */
int lab_open_pins(struct lab *lab);
void lab_close_pins(struct lab *lab);
int lab_open(struct lab *lab);
void lab_close(struct lab *lab);
/* Moves this process into a cgroup folder of the lab. */
void lab_enter(const char *cgroup_dir);

#endif

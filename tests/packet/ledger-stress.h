/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* What the stress programs and the test that runs them share. */
#ifndef PS_TESTS_LEDGER_STRESS_H
#define PS_TESTS_LEDGER_STRESS_H

#include <linux/types.h>

enum {
	STRESS_KEYS = 16,
	STRESS_PORTS = 4, /* drawn of each page */
	STRESS_USERS = 2,
	STRESS_SLOTS = 32, /* claims that a user may hold */
};

struct stress_order {
	__u32 user;
	__u32 n_rounds;
};

struct stress_sums {
	__u64 n_claims, n_full, n_gave_up, n_doubles, n_lost, n_kills;
};

#endif

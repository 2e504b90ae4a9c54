/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The first class that matches, in the order of the plan.  Of every kind of match (cgroup, mark,
 * uid, source, destination) the call has one set: the classes that this mark, or this uid, lets
 * pass, those that do not ask for one among them.  The lowest class in all sets is the call's.
 * Pure, so that the same lines run in the kernel and in unit tests.
 */
#ifndef PS_EGRESS_CLASSES_H
#define PS_EGRESS_CLASSES_H

#include <linux/types.h>

#include "egress/abi.h"

enum ps_class_kind {
	PS_BY_CGROUP,
	PS_BY_MARK,
	PS_BY_UID,
	PS_BY_FROM,
	PS_BY_TO,
	PS_CLASS_KINDS,
};

/* Index of the lowest bit; bits is not 0.  BPF has no instruction for it. */
static inline __attribute__((always_inline)) __u32 ps_lowest_bit(__u64 bits)
{
	__u32 n = 0;

	for (__u32 half = 32; half; half >>= 1) {
		if (!(bits & ((1ull << half) - 1))) {
			bits >>= half;
			n += half;
		}
	}
	return n;
}

/* The lowest class of the first n_words words that is in all sets; -1: none. */
static inline __attribute__((always_inline)) int
ps_class_first(const struct ps_class_set *const sets[PS_CLASS_KINDS], __u32 n_words)
{
	for (__u32 i = 0; i < PS_CLASS_WORDS; i++) {
		__u64 bits;

		if (i >= n_words)
			break;
		bits = sets[PS_BY_CGROUP]->words[i] & sets[PS_BY_MARK]->words[i] &
		       sets[PS_BY_UID]->words[i] & sets[PS_BY_FROM]->words[i] &
		       sets[PS_BY_TO]->words[i];
		if (bits)
			return (int)(i * 64 + ps_lowest_bit(bits));
	}
	return -1;
}

/* The interval that a uid lies in: how many of the sorted starts are not above it, less one.
 * starts[0] is 0, and those beyond n are never looked at. */
static inline __attribute__((always_inline)) __u32
ps_uid_interval(const struct ps_uid_starts *starts, __u32 n, __u32 uid)
{
	__u32 at = 0;

	for (__u32 step = PS_UID_STARTS_MAX / 2; step; step >>= 1) {
		if (at + step < n && starts->first[(at + step) & (PS_UID_STARTS_MAX - 1)] <= uid)
			at += step;
	}
	return at;
}

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Where would this packet go?  Runs the dispatcher's own decision over tables in memory: behind
 * `portslice trace`, and the other half of the packet tests.
 */
#ifndef PS_DISPATCH_TRACE_H
#define PS_DISPATCH_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatch/table.h"

enum {
	PS_TRACE_HEADROOM = 256, /* XDP_PACKET_HEADROOM */
	PS_TRACE_FRAME_MAX = 65536 + 64,
};

enum { PS_TRACE_NOTES = 64 };

/* Owners of packets whose first fragments came; zeros: none yet.  The oldest is forgotten. */
struct ps_trace_memory {
	struct ps_fragment_key keys[PS_TRACE_NOTES];
	struct ps_fragment_note notes[PS_TRACE_NOTES];
	unsigned next;
};

/* What the tables do not tell. */
struct ps_trace_options {
	bool expected;                  /* a socket or the ledger knows the conversation */
	unsigned ifindex;               /* by which the frame comes in */
	uint64_t now_ns;                /* against table->config.fresh_until_ns */
	unsigned headroom;              /* before the frame, bytes, a multiple of 4 */
	struct ps_trace_memory *memory; /* of fragments; NULL: none came before */
	bool no_express;                /* take every stage (express.h), which must give the same */
};

enum ps_trace_action {
	PS_TRACE_PASS,
	PS_TRACE_TX,
	PS_TRACE_REDIRECT,
	PS_TRACE_DROP,
	PS_TRACE_SPLIT
};

/* The frame as it leaves (PS_TRACE_PASS: as the local stack gets it). */
struct ps_trace_result {
	enum ps_dispatch_reason reason;
	enum ps_trace_action action;
	unsigned ifindex;        /* to leave by, when action is TX, REDIRECT or SPLIT */
	int site, host;          /* of the owner as far as it was asked for, -1: not */
	struct ps_mtu_hint hint; /* given to user space; mtu 0: none */
	const unsigned char *frame;
	size_t len;
	const unsigned char *second; /* PS_TRACE_SPLIT: the other frame that leaves */
	size_t second_len;
	void *block, *second_block; /* owned, hold the frames */
};

/* frame is an Ethernet frame; only read.  Release the result with ps_trace_result_clear().
 * -EMSGSIZE: longer than PS_TRACE_FRAME_MAX; -ENOMEM. */
int ps_trace_packet(const struct ps_table *table, const void *frame, size_t len,
		    const struct ps_trace_options *options, struct ps_trace_result *ret);
void ps_trace_result_clear(struct ps_trace_result *result);

#endif

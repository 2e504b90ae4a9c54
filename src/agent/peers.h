/* SPDX-License-Identifier: MIT */
/*
 * What the other hosts say about themselves: which plan they run, which slices they use.  One UDP
 * socket on the own underlay address; see hello.h for the datagram.
 */
#ifndef PS_AGENT_PEERS_H
#define PS_AGENT_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/hello.h"
#include "plan/plan.h"

struct ps_peers;

enum ps_peer_state { PS_PEER_SILENT, PS_PEER_AGREES, PS_PEER_DIFFERS };

struct ps_peer_view {
	const char *name; /* borrowed until the next set_plan */
	enum ps_peer_state state;
	uint64_t age_ms; /* since last heard; UINT64_MAX: never */
	uint64_t revision;
	size_t n_slices; /* in use, as last told */
};

/* How long a host counts as heard after its last hello. */
enum { PS_PEER_HEARD_MS = 5000 };

int ps_peers_new(struct ps_peers **ret);
void ps_peers_free(struct ps_peers **peers);
/* Follows a plan: binds to the underlay address of `self` (again, where it changed), forgets hosts
 * that are gone, keeps what is known of the others.  The plan is borrowed until the next call. */
int ps_peers_set_plan(struct ps_peers *peers, const struct ps_plan *plan, unsigned self,
		      const uint8_t digest[PS_PLAN_DIGEST_LEN], uint64_t revision);
/* -1 before the first set_plan. */
int ps_peers_fd(const struct ps_peers *peers);

/* Tells every other host; hosts that cannot be reached are skipped. */
void ps_peers_send(struct ps_peers *peers, const struct ps_hello_slice *used, size_t n);
/* Reads what has come.  now_ms: any clock that only grows. */
void ps_peers_receive(struct ps_peers *peers, uint64_t now_ms);

/* One entry for each host of the plan but self, in its order; false past the end. */
bool ps_peers_view(const struct ps_peers *peers, size_t i, uint64_t now_ms,
		   struct ps_peer_view *ret);
/* True when the host was heard not long ago and runs another plan than the one of this digest. */
bool ps_peers_lags(const struct ps_peers *peers, const char *host,
		   const uint8_t digest[PS_PLAN_DIGEST_LEN], uint64_t now_ms);
/* The host that said, not long ago, that it uses this slice; NULL: nobody did. */
const char *ps_peers_user(const struct ps_peers *peers, const struct ps_ip *ip, uint16_t slice,
			  uint64_t now_ms);

#endif

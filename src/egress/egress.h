/* SPDX-License-Identifier: MIT */
/*
 * The outgoing path, user half: loads a generation of cgroup hooks and the tc guard, swaps it under
 * the running links, reads counters, claims and events.  The essay is in egress.c.
 */
#ifndef PS_EGRESS_EGRESS_H
#define PS_EGRESS_EGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/ip.h"
#include "base/range.h"
#include "egress/abi.h"
#include "egress/page-bits.h"

struct ps_egress;

/* The form that keys and records have. */
static inline union ps_ip16 ps_ip16(const struct ps_ip *ip)
{
	union ps_ip16 ip16;

	memcpy(ip16.bytes, ip->bytes, sizeof(ip16.bytes));
	return ip16;
}

struct ps_egress_slice {
	struct ps_ip address;
	struct ps_range ports;
	unsigned shift;
};

/* Never reached with a shared address, whatever the plan says: this host, loopback, link-local,
 * multicast, broadcast (RFC 6890, RFC 5771, RFC 4291). */
enum { PS_ALWAYS_DIRECT = 9 };
extern const char *const ps_always_direct[PS_ALWAYS_DIRECT];

enum { PS_EGRESS_ANY = -1 };

/* A cgroup that classes name, or in which `portslice run` starts programs. */
struct ps_egress_cgroup {
	uint64_t id;    /* differ; 0: it is not there */
	unsigned level; /* depth below the cgroup2 root */
	int parent;     /* index of the innermost one around it; PS_EGRESS_ANY: none */
	int run;        /* class of all programs in it; PS_EGRESS_ANY: the matches decide */
};

/* Which calls belong to a class: those for which all of this holds.  The lowest class wins. */
struct ps_egress_match {
	unsigned class; /* differ */
	int cgroup;     /* index; the program is in it or below; PS_EGRESS_ANY: wherever it is */
	bool has_mark, has_uid, has_from, has_to;
	uint32_t mark;                /* of the socket */
	uint32_t first_uid, last_uid; /* the program's real uid; both 0 unless has_uid */
	struct ps_prefix from;        /* the socket is bound to, or binds, an address of these */
	struct ps_prefix to;          /* it connects or sends to one of these */
};

/* Everything the hooks need to know, borrowed while ps_egress_load() runs. */
struct ps_egress_config {
	/* Of this host, grouped as `choices` says.  A slice that is being drained stands in no choice:
	 * the guard still lets its packets pass, the hooks draw no port of it. */
	const struct ps_egress_slice *slices;
	size_t n_slices;
	const struct ps_choices *choices; /* by class */
	size_t n_choices;
	const struct ps_egress_cgroup *cgroups;
	size_t n_cgroups;
	const struct ps_egress_match *matches; /* a class without one is met by `run` only */
	size_t n_matches;
	const struct ps_homes *homes; /* as choices' `homes` name them */
	size_t n_homes;
	const struct ps_prefix *direct; /* IPv4 and IPv6 */
	size_t n_direct;
	/* Every shared address of the plan as prefixes with their pool's shift. */
	const struct ps_prefix *shared;
	const unsigned *shared_shift;
	size_t n_shared;
	/* Published ports of this host: may be bound, and connected to from here. */
	const struct ps_claim_key *services; /* src, sport, protocol */
	size_t n_services;
	/* 0: leave; else TCP_MAXSEG for our IPv4 connections, bytes; IPv6: 20 less. */
	uint16_t mss;
};

struct ps_egress_options {
	const char *pin_dir; /* below a bpffs, exists; links, claims, counters are pinned here */
	const char *cgroup_path; /* the hooks' root, a cgroup2 folder */
	bool observe;            /* count what would be done, change nothing */
	/* Pages of the ledger, preallocated (ps_compile_memory() says how long they are).  0: PS_PAGES_MAX and
	 * PS_WIDE_PAGES_MAX. */
	uint32_t n_pages, n_wide_pages;
};

/* Loads a generation: programs and its own config maps; nothing is attached yet.  Claims, sockets,
 * counters and events are pinned at pin_dir, or taken from there.  On failure *ret_message (owned by
 * the caller, may stay NULL) is a sentence for the operator.  -EINVAL: the config contradicts
 * itself; -EPERM: privileges are missing; -ENOTSUP: the kernel has no BTF; else what the kernel or
 * libbpf said.  Pins of another layout are set aside until ps_egress_attach() has taken over their
 * sockets, or ps_egress_free() puts them back. */
int ps_egress_load(const struct ps_egress_config *config, const struct ps_egress_options *options,
		   struct ps_egress **ret, char **ret_message);
void ps_egress_free(struct ps_egress **egress);
/* Attaches the cgroup hooks, or replaces our own in place.  Call ps_egress_guard() first: a new
 * slice must pass the guard before the hooks use it.  Costs one link update a hook; open
 * connections keep their claims.  On failure *ret_message (owned by the caller) is a sentence. */
int ps_egress_attach(struct ps_egress *egress, char **ret_message);
/* True when ps_egress_attach() will take sockets over from another version's pins.  Until then our
 * record knows none of them: attach before the dispatcher uses it. */
bool ps_egress_takes_over(const struct ps_egress *egress);
/* True when all hooks are in place with this generation's programs. */
bool ps_egress_hooks_stand(const struct ps_egress *egress);
/* True when the interface has a clsact qdisc, ours or another's. */
bool ps_egress_has_qdisc(unsigned ifindex);
/* Puts the guard at tc egress of the interface (and, when not an uplink, the ingress guard), or
 * replaces our own.  *ret_qdisc_made: true when the clsact qdisc was not there before. */
int ps_egress_guard(struct ps_egress *egress, unsigned ifindex, bool uplink, bool *ret_qdisc_made,
		    char **ret_message);
/* True when our present guard is in place on the interface. */
bool ps_egress_guard_stands(struct ps_egress *egress, unsigned ifindex, bool uplink);
/* Removes our guard from an interface; the clsact qdisc too where remove_qdisc says and nobody else
 * has a filter on it (one that appears between the look and the removal is lost). */
int ps_egress_unguard(unsigned ifindex, bool remove_qdisc);
/* Frees the ports whose quarantine has ended; to be called every few seconds.  Cost: one pass over the
 * quarantine.  *ret_n_freed: how many. */
int ps_egress_thaw(struct ps_egress *egress, uint64_t *ret_n_freed);
/* Removes the pages of which no port is in use, nor was since the last call (is_urgent: the latter
 * counts not); to be called about once a minute, urgently when there was no room for a page.  Cost:
 * one pass over the pages.  *ret_n_removed: how many. */
int ps_egress_sweep(struct ps_egress *egress, bool is_urgent, uint64_t *ret_n_removed);
struct ps_repair {
	uint64_t n_claims; /* in the ledger while it was looked through */
	uint64_t n_freed;  /* of them, held by nobody: given back */
	/* Of them, held towards a peer by a socket that is not connected: its connect() failed before a
	 * packet left, or was undone.  Free at its next connect() or close(). */
	uint64_t n_unsent;
};
/* Called for each port that was given back. */
typedef void ps_egress_leak_fn(const struct ps_claim_key *flow, void *arg);
/* Looks for the holder of every claim and gives back those that nobody holds; to be called about once
 * a minute, never beside ps_egress_thaw(), and only when this generation's hooks stand.  In normal
 * running it finds nothing; no live claim is freed whatever goes on.  Cost: one pass over the pages,
 * one over the sockets for each PS_SUSPECTS_MAX claims, three grace periods.  -E2BIG: more than a
 * million sockets have claims, which the kernel does not let us see at once: nothing was freed. */
int ps_egress_repair(struct ps_egress *egress, ps_egress_leak_fn *fn, void *arg,
		     struct ps_repair *ret);
/* Lets programs draw ports of slice i of the config, or no longer (issue 5 drives it).  After the call
 * and a grace period (membarrier) no claim of it begins. */
int ps_egress_lease(struct ps_egress *egress, uint32_t i, const struct ps_lease *lease);
/* Needs no ps_egress: unpins every link, so that the hooks leave.  Claims and counters go too. */
int ps_egress_detach_all(const char *pin_dir);

/* The maps of narrow and wide pages, borrowed; for the dispatcher's delivery rule. */
int ps_egress_pages_fd(const struct ps_egress *egress);
int ps_egress_wide_pages_fd(const struct ps_egress *egress);
/* Calls fn for each page, whose n_words words follow the head; -errno, also that of fn, which ends the
 * pass.  Other processors go on meanwhile. */
typedef int ps_egress_page_fn(const struct ps_page *page, unsigned n_words, void *arg);
int ps_egress_pages(const char *pin_dir, ps_egress_page_fn *fn, void *arg);
/* How much of the ledger's memory is in use. */
struct ps_egress_room {
	uint64_t n_pages, n_pages_max, n_wide_pages, n_wide_pages_max;
	uint64_t n_claims, n_quarantined; /* ports in use towards somebody, or held; of them */
	uint64_t n_bytes;                 /* of all maps of the record */
};
/* One pass over the ledger. */
int ps_egress_look_at_room(const char *pin_dir, struct ps_egress_room *ret);
/* Calls fn for each port in quarantine. */
typedef int ps_egress_quarantine_fn(const struct ps_claim_key *flow,
				    const struct ps_quarantine *value, void *arg);
int ps_egress_quarantine(const char *pin_dir, ps_egress_quarantine_fn *fn, void *arg);
/* Claims held on [ports) of the address, quarantined ones not counted: is the slice in use?
 * One pass over the ledger for all slices: ret[i] for slices[i].  -ESTALE: the record is another
 * version's, which ps_egress_attach() has not taken over yet. */
int ps_egress_usage(const char *pin_dir, const struct ps_egress_slice *slices, size_t n_slices,
		    uint64_t *ret);
int ps_egress_counters(const char *pin_dir, uint64_t ret[PS_EGRESS_MAX]);
const char *ps_egress_reason_label(enum ps_egress_reason reason);
const char *ps_egress_reason_text(enum ps_egress_reason reason);

/* Readable when events wait. */
int ps_egress_events_fd(const struct ps_egress *egress);
typedef void ps_egress_event_fn(const struct ps_egress_event *event, void *arg);
int ps_egress_events_read(struct ps_egress *egress, ps_egress_event_fn *fn, void *arg);

#endif

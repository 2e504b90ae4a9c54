/* SPDX-License-Identifier: MIT */
/*
 * Who owns which slice: the protocol core of one host.  Pure: ps_lease_step() takes an event and the
 * time and says what to do; no clock, no I/O, no allocation.  lease.c holds the essay, doc/lease.md
 * the protocol and the reasons.
 *
 * Numbers stand for hosts, sites, slices and addresses; the caller gives them and keeps them as long
 * as the core lives.  Times named _ns are of the caller's boot-time clock (CLOCK_BOOTTIME), those
 * named _ms are store time (record.h).
 */
#ifndef PS_LEASE_LEASE_H
#define PS_LEASE_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lease/record.h"

enum {
	PS_LEASE_COMPARES_MAX = 12,
	PS_LEASE_WRITES_MAX = 8,
	PS_LEASE_ACTIONS_MAX = 64,
};
#define PS_LEASE_NEVER UINT64_MAX

struct ps_lease_config {
	uint16_t self, site;
	uint64_t session; /* random, not 0: another one after each start of the agent */
	uint64_t dispatch_ns, own_ns, quarantine_ns;
	uint64_t beat_ns;     /* between renewals */
	uint64_t tick_ns;     /* between advances of store time ... */
	uint64_t tick_max_ns; /* ... each of which adds no more than this */
	uint64_t vote_ns;     /* how long an answer of a peer is believed */
	uint64_t spread_ns;   /* hosts that lost the store together renewed last within this */
	uint64_t lag_ns, withdraw_ns, hold_down_ns;
	uint64_t retry_ns;   /* after the store failed */
	uint64_t confirm_ns; /* least time between confirmations, for each host of the site */
	uint64_t grow_ns;    /* least time between two grants of one pool */
	uint64_t idle_ns,
		idle_short_ns; /* before a slice is given back: in plenty, when others wait */
	uint64_t drain_ns;     /* after this the sockets of a draining slice are destroyed */
	unsigned watermark_pct;
	unsigned rate_ppm; /* by which two clocks' rates may differ, with room to spare */
};

/* design.md §5's figures; self, site and session are the caller's. */
extern const struct ps_lease_config ps_lease_defaults;

/* Slices [first, first + n) of the slots. */
struct ps_lease_pool {
	uint32_t first, n;
	uint32_t host_max; /* slices of one host */
	uint32_t reserve; /* kept for hosts with none; more when more hosts of the site have none */
	bool is_used;     /* some class of this host may use it: always hold a slice */
	/* The core's. */
	uint64_t granted_ns, busy_ns;
	unsigned fullest_pct, all_pct;
	bool is_unfit; /* nothing could be taken at the last try: wished for in the host's record */
};

struct ps_lease_slot {
	struct ps_slice_record record; /* the newest known */
	uint64_t revision;             /* of the store's record, 0: it has none */
	uint32_t address;
	uint16_t pool;
	bool is_ahead; /* what is known is newer than what a restored store says */
};

struct ps_lease_address {
	struct ps_address_record record;
	uint64_t revision;
	bool is_ahead;
};

struct ps_lease_member {
	struct ps_host_record record;
	uint64_t revision;
	uint64_t asked_ns;   /* when the last answer of it was asked for; 0: never */
	uint64_t renewed_ns; /* latest time at which its last renewal can have succeeded */
	bool is_ahead;
};

enum ps_own_phase {
	PS_OWN_WAITING,  /* granted: dispatchers confirm */
	PS_OWN_USING,    /* the kernel draws from it */
	PS_OWN_CLEARED,  /* out of the hooks' list, calls under way may still draw */
	PS_OWN_EMPTYING, /* after the barrier: ports in use are awaited */
	PS_OWN_EMPTY,    /* the kernel let go; the record follows */
};

struct ps_lease_own {
	uint32_t slot, epoch;
	uint64_t since_ns; /* of the phase */
	uint8_t phase;     /* enum ps_own_phase */
	bool is_leaving;   /* to be drained */
	bool is_destroyed; /* its sockets were destroyed: the drain took too long */
	bool is_shut;      /* the hooks were told that it is gone */
	uint64_t barrier_id;
};

enum ps_dispatch_phase {
	PS_DISPATCH_OFF,         /* attracts nothing, registered nowhere */
	PS_DISPATCH_REGISTERED,  /* record written; table being loaded */
	PS_DISPATCH_ANNOUNCED,   /* attracts traffic */
	PS_DISPATCH_WITHDRAWING, /* told to stop; traffic may still come */
	PS_DISPATCH_WITHDRAWN,   /* none comes; record to be changed */
};

enum ps_lease_txn_kind {
	PS_TXN_TICK,     /* store time advances */
	PS_TXN_BIRTH,    /* a restored store begins: nothing is granted in it */
	PS_TXN_REASSERT, /* what it forgot is written back */
	PS_TXN_SETTLE,   /* everybody has done so */
	PS_TXN_BEAT,     /* own host record: join, renew, register, confirm, wish */
	PS_TXN_GRANT,
	PS_TXN_ACTIVATE,
	PS_TXN_DRAIN,
	PS_TXN_GIVE,    /* draining, or granted and unwanted, → quarantine */
	PS_TXN_SUSPECT, /* a host that seems cut off */
	PS_TXN_EVICT,   /* ... whose dispatcher is waited for no more */
	PS_TXN_EXPIRE,  /* ... whose slices may be taken */
	PS_TXN_RECLAIM, /* a slice of an expired host → quarantine */
	PS_TXN_FREE,    /* quarantine → free */
};

/* Compare all revisions, then write all.  Revision 0: the key does not exist. */
struct ps_lease_txn {
	uint64_t id;
	uint8_t kind; /* enum ps_lease_txn_kind */
	uint8_t n_compares, n_writes;
	struct {
		struct ps_lease_key key;
		uint64_t revision;
	} compares[PS_LEASE_COMPARES_MAX];
	struct ps_lease_record writes[PS_LEASE_WRITES_MAX];
};

enum ps_lease_status {
	PS_LEASE_DONE,
	PS_LEASE_STALE,   /* a compare did not hold, nothing was written */
	PS_LEASE_UNKNOWN, /* no answer: it may have taken place, or may yet */
};

enum ps_lease_event_kind {
	PS_LEASE_TIMER,     /* time has passed */
	PS_LEASE_RESET,     /* the records of a whole store follow; .incarnation */
	PS_LEASE_RECORD,    /* a record came by watch or listing; .record, .revision */
	PS_LEASE_GONE,      /* a record was deleted; .record.key, .revision */
	PS_LEASE_PROGRESS,  /* all changes up to .revision have been given */
	PS_LEASE_RESULT,    /* .id, .status; .revision and .incarnation when there was an answer */
	PS_LEASE_LOADED,    /* the kernel has the table up to .revision */
	PS_LEASE_ANNOUNCED, /* traffic may come */
	PS_LEASE_WITHDRAWN, /* no traffic comes any more */
	PS_LEASE_BARRIER,   /* .id: calls that began before this barrier was asked for are over */
	PS_LEASE_EMPTIED,   /* .index: no port of this slot is in use */
	PS_LEASE_DEMAND,    /* .index: pool; .fullest_pct, .all_pct in use */
	PS_LEASE_PEER,      /* .index: host; .asked_ns, .age_ns as it answered */
	PS_LEASE_LEAVE,     /* .index: slot this host is to drain; .on: or no longer */
	PS_LEASE_LEFT, /* before anything else: the hooks still use slot .index in epoch .id, told by a
			     * former agent */
	PS_LEASE_RETIRE, /* .on: drain all and grow no more (`portslice drain host`) */
};

struct ps_lease_event {
	uint8_t kind;   /* enum ps_lease_event_kind */
	uint8_t status; /* enum ps_lease_status */
	bool on;
	uint32_t index;
	uint64_t id, revision, incarnation;
	uint64_t asked_ns, age_ns;
	unsigned fullest_pct, all_pct;
	struct ps_lease_record record;
};

enum ps_lease_word { PS_WORD_ACTIVE, PS_WORD_DRAINING, PS_WORD_GONE };

enum ps_lease_action_kind {
	PS_LEASE_DO_TXN,  /* .txn; answer with RESULT, once */
	PS_LEASE_DO_WORD, /* .index, .word, .id: what the hooks may do with this slot from now on;
				* the epoch goes into the pinned map beside it */
	PS_LEASE_DO_DEADLINE, /* .until_ns: the words this core has said end then, by the kernel's own
				* clock; what a former agent left keeps the end it was told */
	PS_LEASE_DO_ATTRACT, /* .until_ns: who announces (a child) withdraws by itself before then */
	PS_LEASE_DO_BARRIER, /* .id: membarrier, then BARRIER */
	PS_LEASE_DO_LOOK, /* .index: watch this slot's ports from now on, EMPTIED when none is in use */
	PS_LEASE_DO_DESTROY, /* .index: destroy the sockets that are left in this slot */
	PS_LEASE_DO_LOAD, /* .revision: bring the kernel's table to what the slots say, then LOADED */
	PS_LEASE_DO_ANNOUNCE, /* then ANNOUNCED */
	PS_LEASE_DO_WITHDRAW, /* then WITHDRAWN */
	PS_LEASE_DO_ASK,      /* ask every host of the site for the age of its renewal, then PEER */
	PS_LEASE_DO_RECONNECT, /* to another end point of the store */
};

struct ps_lease_action {
	uint8_t kind; /* enum ps_lease_action_kind */
	uint8_t word; /* enum ps_lease_word */
	uint32_t index;
	uint64_t id, revision, until_ns;
};

/* What step() wants done, in this order.  txn is valid when an action says DO_TXN. */
struct ps_lease_actions {
	struct ps_lease_action items[PS_LEASE_ACTIONS_MAX];
	size_t n;
	struct ps_lease_txn txn;
	uint64_t wake_ns; /* call again with TIMER at this time, unless something comes before */
};

/* The caller sets config, the arrays and their sizes (zeroed but for slots' address and pool and
 * pools' first five), then calls ps_lease_init().  All the rest is the core's, for others to read. */
struct ps_lease_core {
	struct ps_lease_config config;
	struct ps_lease_pool *pools;
	struct ps_lease_slot *slots;
	struct ps_lease_address *addresses;
	struct ps_lease_member *members; /* by host number; those of other sites stay empty */
	struct ps_lease_own *own;
	size_t n_pools, n_slots, n_addresses, n_members, n_own, own_max;

	/* What the store says. */
	uint64_t incarnation, revision; /* all changes up to this one are known */
	uint64_t clock_ms, clock_revision, clock_seen_ns;
	struct ps_birth_record birth;
	uint64_t birth_revision;
	bool is_synced;          /* a whole listing has come since the last RESET */
	uint32_t n_ahead;        /* records to write back */
	uint32_t n_granted;      /* slots in PS_SLICE_GRANTED */
	uint64_t table_revision; /* latest change of a slot or address */
	uint64_t grant_revision; /* latest change that somebody waits to be confirmed */

	/* The one transaction under way. */
	struct ps_lease_txn txn;
	bool is_busy;
	uint64_t sent_ns, next_id, retry_at_ns, stale_revision;
	uint64_t answered_ns; /* last answer, also a refusal */

	/* The renewal. */
	uint64_t renewed_sent_ns, renewed_ns; /* last success: sent, answered; 0: none */
	uint64_t acked_ms, join_revision, told_until_ns, told_attract_ns, vote_until_ns, asked_ns;
	bool is_joined;
	bool is_restored; /* joined in a former incarnation, not yet in this one */

	/* The dispatcher. */
	uint8_t dispatch; /* enum ps_dispatch_phase */
	bool is_loading, is_reconnected, wants_traffic, is_told;
	uint64_t loading_revision, loaded_revision, registered_revision, confirmed_at_ns;
	uint64_t mark_revision, mark_ns, head_revision; /* lag: since when behind which revision */
	uint64_t quiet_until_ns;                        /* hold-down */

	/* The holder. */
	uint64_t barrier_id, barrier_done_id;
	bool is_adopting, is_retired;
	uint16_t wish_pool;
	uint64_t wish_ms;
	uint64_t upkeep_revision; /* clock revision for which upkeep found nothing left to do */
};

/* -EINVAL: a figure that would make the protocol unsafe; *ret_why (may be NULL) says which, static. */
int ps_lease_check(const struct ps_lease_config *config, const char **ret_why);
/* wants_traffic: this host is to be a dispatcher.  Nothing is used or announced before the store has
 * been heard; what a former agent left in the kernel ends at the deadline it was told. */
void ps_lease_init(struct ps_lease_core *core, bool wants_traffic);
/* One event at now_ns.  ret is overwritten.  RESET, RECORD and GONE only change what is known: nothing
 * is done before the PROGRESS that ends a revision or a listing. */
void ps_lease_step(struct ps_lease_core *core, const struct ps_lease_event *event, uint64_t now_ns,
		   struct ps_lease_actions *ret);

/* What to answer a peer that asks: how long ago a renewal was last known to have succeeded;
 * PS_LEASE_NEVER: never. */
uint64_t ps_lease_age_ns(const struct ps_lease_core *core, uint64_t now_ns);
/* To whom the dispatcher sends packets of this slot: PS_LEASE_NOBODY when nobody holds it. */
uint16_t ps_lease_owner(const struct ps_lease_slot *slot);
/* True when everybody has re-asserted in the present incarnation of the store. */
bool ps_lease_is_settled(const struct ps_lease_core *core);

#endif

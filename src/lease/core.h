/* SPDX-License-Identifier: MIT */
/*
 * What the core's files say to each other.  Each `..._poll` looks at what is known, emits what is due
 * and lowers ret->wake_ns to when it wants to look again; each `..._txn` fills core->txn with the most
 * urgent transaction of its kind and returns whether there is one.
 */
#ifndef PS_LEASE_CORE_H
#define PS_LEASE_CORE_H

#include "lease/guard.h"
#include "lease/lease.h"

/* lease.c */
struct ps_lease_action *ps_lease_emit(struct ps_lease_actions *actions, unsigned kind);
/* True when `at_ns` has come; else asks to be woken then. */
bool ps_lease_is_due(struct ps_lease_actions *actions, uint64_t at_ns, uint64_t now_ns);
/* A span measured by one clock that another clock, off by rate_ppm, surely has not passed. */
uint64_t ps_lease_shorter(const struct ps_lease_core *core, uint64_t span_ns);
void ps_lease_begin(struct ps_lease_core *core, unsigned kind);
void ps_lease_compare(struct ps_lease_core *core, unsigned kind, uint32_t index, uint64_t revision);
struct ps_lease_record *ps_lease_write(struct ps_lease_core *core, unsigned kind, uint32_t index);
/* Compares and writes one slot's record as it is known; the caller changes what is to change. */
struct ps_slice_record *ps_lease_write_slot(struct ps_lease_core *core, uint32_t slot);
/* Spreads what any host may do over the hosts, another order for each seed. */
uint64_t ps_lease_turn_ns(const struct ps_lease_core *core, uint64_t seed);

/* view.c: what the store says. */
void ps_view_reset(struct ps_lease_core *core, uint64_t incarnation);
/* Memory that outlived a former agent, in the kernel: a restored store must not have less. */
void ps_view_left(struct ps_lease_core *core, uint32_t slot, uint32_t epoch);
/* Nothing is known any more; a RESET is to follow. */
void ps_view_forget(struct ps_lease_core *core);
void ps_view_record(struct ps_lease_core *core, const struct ps_lease_record *record,
		    uint64_t revision, uint64_t now_ns);
void ps_view_gone(struct ps_lease_core *core, const struct ps_lease_key *key, uint64_t revision);
void ps_view_progress(struct ps_lease_core *core, uint64_t revision);
struct ps_lease_member *ps_view_self(const struct ps_lease_core *core);
/* Hosts of the site that have a record. */
size_t ps_view_hosts(const struct ps_lease_core *core);
/* True when every dispatcher that may attract traffic has confirmed `revision`. */
bool ps_view_all_confirmed(const struct ps_lease_core *core, uint64_t revision);

/* serve.c: renewal and dispatcher. */
void ps_serve_poll(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret);
bool ps_serve_txn(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret);
void ps_serve_renewed(struct ps_lease_core *core, uint64_t revision, uint64_t now_ns);
void ps_serve_reset(struct ps_lease_core *core);
void ps_serve_peer(struct ps_lease_core *core, const struct ps_lease_event *event, uint64_t now_ns);
/* Up to which revision the kernel's table is true. */
uint64_t ps_serve_confirmable(const struct ps_lease_core *core);
/* Until when the own leases last, by this host's clock. */
uint64_t ps_serve_own_until(const struct ps_lease_core *core);

/* hold.c: own leases. */
void ps_hold_poll(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret);
bool ps_hold_txn(struct ps_lease_core *core);
void ps_hold_emptied(struct ps_lease_core *core, uint32_t slot, uint64_t now_ns);
void ps_hold_leave(struct ps_lease_core *core, uint32_t slot, bool on);
size_t ps_hold_count(const struct ps_lease_core *core, unsigned pool);

/* grow.c: more and fewer of them. */
void ps_grow_poll(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret);
bool ps_grow_txn(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret);
void ps_grow_demand(struct ps_lease_core *core, const struct ps_lease_event *event,
		    uint64_t now_ns);

/* keep.c: what any host does for the site. */
bool ps_keep_restore_txn(struct ps_lease_core *core);
bool ps_keep_txn(struct ps_lease_core *core, uint64_t now_ns, struct ps_lease_actions *ret);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * A world of hosts that run the lease core, with everything around them that can go wrong.  One seed
 * decides all of it.  Time is real time in nanoseconds; each host has a boot-time clock of its own.
 */
#ifndef PS_SIM_H
#define PS_SIM_H

#include "lease/guard.h"
#include "lease/lease.h"
#include "lease/move.h"

#define MS (1000ull * 1000)
#define S (1000 * MS)

enum { POOLS = 2, SLICE_PORTS = 2048 };

#define FAULTS(X)                                                                 \
	X(STORE_DOWN, "store unreachable for all")                                \
	X(HOST_CUT, "one host cut from the store")                                \
	X(MOST_CUT, "more than half of a site cut from the store")                \
	X(APART, "more than half of a site cut from the store and from the rest") \
	X(PEERS_SPLIT, "a site's hosts split in two")                             \
	X(PEER_CUT, "one host cut from all others")                               \
	X(ALONE, "one host cut from store and others")                            \
	X(CRASH, "agent killed, hooks live on")                                   \
	X(REBOOT, "host reset")                                                   \
	X(STALL, "agent stopped")                                                 \
	X(SLOW_LOAD, "tables load slowly")                                        \
	X(SLOW_WATCH, "watch lags")                                               \
	X(LOSSY, "requests and answers lost or late")                             \
	X(ROLLBACK, "store restored from an old backup")                          \
	X(WALL_JUMP, "wall clock jumps a day")                                    \
	X(RETIRE, "operator drains a host, and takes it back")                    \
	X(MOVE, "operator moves an address to another site")                      \
	X(TWO_MOVES, "two operators move one address")
#define FAULT_ENUM(name, text) FAULT_##name,
enum fault { FAULTS(FAULT_ENUM) FAULT_MAX };

enum item_kind {
	ITEM_CORE,    /* an event for the core */
	ITEM_TIMER,   /* the core's wake_ns */
	ITEM_WATCH,   /* the store's news arrive at a host */
	ITEM_ARRIVE,  /* a transaction arrives at the store */
	ITEM_CONNECT, /* a connect() that was under way claims its port */
	ITEM_HANG_UP, /* the last connection of a slice ends */
	ITEM_SILENT,  /* the announcement of a dead agent has been withdrawn */
	ITEM_DEMAND,  /* load shifts */
	ITEM_FAULT,   /* the next fault */
	ITEM_HEAL,    /* one ends; .index: which */
	ITEM_MOVER,   /* whoever carries on moves of addresses */
};

struct item {
	uint64_t at, seq;
	uint8_t kind;
	uint32_t host, life, index;
	struct ps_lease_event event;
	struct ps_lease_txn txn;
	uint64_t incarnation;
	struct item *next;
};

struct log_entry {
	struct ps_lease_record record;
	uint64_t revision, at;
};

struct tables {
	uint64_t clock_ms, clock_revision, birth_revision, revision;
	struct ps_birth_record birth;
	struct ps_host_record *hosts;
	struct ps_slice_record *slots;
	struct ps_address_record *addresses;
	uint64_t *host_revisions, *slot_revisions, *address_revisions;
};

struct store {
	struct tables now, backup;
	uint64_t incarnation, free_at, n_writes;
	bool has_backup;
	unsigned down; /* causes */
	struct log_entry *log;
	size_t n_log, log_max;
};

/* Host i is host i % hosts_per_site of site i / hosts_per_site. */
struct host {
	struct ps_lease_core core;
	uint16_t site, number;
	uint32_t life;
	bool is_running;
	unsigned cut, alone, cut_from_peers, stalled, slow_load, slow_watch, lossy;
	unsigned group; /* hosts of one group hear each other */
	uint64_t boot_at, timer_at;
	int64_t boot_ns, ppm, wall_ns;
	/* Glue. */
	uint64_t incarnation, watch_at;
	size_t log_read;
	/* Kernel: what outlives the agent. */
	uint8_t *words, *in_use, *looking;
	uint64_t *until_ns;       /* of each word */
	uint32_t *epochs;         /* beside it */
	bool *is_told;            /* by the agent that runs now */
	uint16_t *owners, *sites; /* the dispatcher's table */
	uint16_t *next_owners, *next_sites;
	uint64_t deadline_ns, attract_ns;
	bool is_announced;
	uint64_t announced_at;
	/* Load, ports. */
	uint32_t load[POOLS];
	uint64_t asked_at[POOLS]; /* since when it wants another slice; 0: it does not */
};

struct story_line {
	int host, slot;
	char text[180];
};

struct stats {
	uint64_t n_events, n_steps, n_txns, n_stale, n_writes;
	uint64_t n_grants, n_gives, n_reclaims, n_evictions, n_site_moves;
	uint64_t faults[FAULT_MAX];
	uint64_t *waits_ns; /* from wish to use, where a slice was free */
	size_t n_waits, waits_max;
	uint64_t sampled, used_slots, all_slots, short_of;
};

/* What really happens to a slot. */
struct truth {
	uint32_t user;     /* whose hooks drew from it last */
	uint32_t ended_by; /* the last one who stopped, and when */
	uint64_t ended_at;
};

struct world_options {
	unsigned n_sites, hosts_per_site, slices_per_host;
	uint64_t faults_until, end; /* real time */
	unsigned faults_per_minute;
	bool is_told; /* keep the story */
};

struct world {
	struct world_options options;
	uint64_t seed, random[2], now, seq;
	struct ps_lease_config config;
	struct host *hosts;
	struct store *stores;
	size_t n_hosts, n_slots, n_addresses, n_moving;
	bool has_moves; /* sites share the addresses */
	/* Where a replay decides what comes when: false holds an item back. */
	bool (*gate)(struct world *world, const struct item *item);
	struct truth *truth; /* of each slot; of each site's, where sites share none */
	struct item **heap, *spare;
	size_t n_heap, heap_max;
	struct story_line *story;
	size_t n_story;
	struct stats stats;
	char broken[256]; /* the invariant that did not hold */
	int broken_slot, broken_hosts[2];
};

/* world.c */
struct world *world_new(uint64_t seed, const struct world_options *options);
void world_free(struct world *world);
/* Runs to the end or to the first broken invariant; true when all held. */
bool world_run(struct world *world);
/* The same up to a time, where nothing is judged at the end. */
bool world_run_until(struct world *world, uint64_t at);
uint64_t world_random(struct world *world, uint64_t below);
struct item *world_push(struct world *world, unsigned kind, uint64_t at, uint32_t host);
void world_tell(struct world *world, int host, int slot, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
void world_break(struct world *world, int slot, int a, int b, const char *format, ...)
	__attribute__((format(printf, 5, 6)));
void world_print_story(const struct world *world, size_t most);

/* store.c */
void store_new(struct world *world, struct store *store);
void store_free(struct store *store);
void store_arrive(struct world *world, struct item *item);
/* Applies one transaction: PS_LEASE_DONE or PS_LEASE_STALE. */
unsigned store_commit(struct world *world, uint16_t site, const struct ps_lease_txn *txn);
void store_watch(struct world *world, uint32_t host);
void store_backup(struct world *world, struct store *store);
void store_roll_back(struct world *world, uint16_t site);
bool store_is_reachable(const struct world *world, const struct host *host);

/* host.c: clock, agent's glue. */
void host_new(struct world *world, uint32_t host);
void host_free(struct host *host);
uint64_t host_ns(const struct world *world, const struct host *host);
/* The real time at which the host's clock shows local_ns. */
uint64_t host_real(const struct host *host, uint64_t local_ns);
void host_start(struct world *world, uint32_t host);
void host_kill(struct world *world, uint32_t host);
void host_step(struct world *world, uint32_t host, const struct ps_lease_event *event);
void host_demand(struct world *world, uint32_t host);

/* kernel.c: what the hooks and the dispatcher do, and what must hold. */
void kernel_word(struct world *world, uint32_t host, const struct ps_lease_action *action);
/* LEFT, for what the hooks still use. */
void kernel_hand_over(struct world *world, uint32_t host);
void kernel_deadline(struct world *world, uint32_t host, uint64_t until_ns);
void kernel_destroy(struct world *world, uint32_t host, uint32_t slot);
/* EMPTIED, when the agent looks and no port is in use. */
void kernel_report_empty(struct world *world, uint32_t host, uint32_t slot);
void kernel_snapshot(struct world *world, uint32_t host, uint16_t *owners, uint16_t *sites);
void kernel_load(struct world *world, uint32_t host);
void kernel_check_dispatcher(struct world *world, uint32_t host);
void kernel_reset(struct world *world, uint32_t host);
void kernel_hang_up(struct world *world, uint32_t host, uint32_t slot);
bool kernel_attracts(const struct world *world, const struct host *host);
void kernel_check_end(struct world *world);

/* fault.c */
void fault_next(struct world *world);
void fault_heal(struct world *world, const struct item *item);
void fault_mover(struct world *world);

#endif

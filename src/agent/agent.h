/* SPDX-License-Identifier: MIT */
/* The agent's state and the verbs that change it; private to this folder.  main.c has the essay. */
#ifndef PS_AGENT_AGENT_H
#define PS_AGENT_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>
#include <systemd/sd-event.h>

#include "agent/compile.h"
#include "agent/events.h"
#include "agent/mtu.h"
#include "agent/net.h"
#include "agent/peers.h"
#include "agent/undo.h"
#include "base/say.h"
#include "dispatch/dispatch.h"
#include "egress/egress.h"
#include "plan/plan.h"
#include "store/store.h"

enum {
	PS_TICK_MS = 1000,
	PS_USAGE_SHARE = 50,  /* passes over the ledger take at most 1/50 of the time */
	PS_THAW_TICKS = 5,    /* between releases of ports whose quarantine has ended */
	PS_SWEEP_TICKS = 60,  /* between removals of the ledger's empty pages */
	PS_REPAIR_TICKS = 60, /* between sweeps for ports in use by nobody */
	PS_RETRY_MS = 5000,   /* between judgements of a plan that was refused */
	PS_FRESH_MS = 5000,   /* how long a confirmed table may still give rejects */
};

#define PS_PIN_ROOT "/sys/fs/bpf/portslice"

struct ps_agent_options {
	const char *instance; /* names run and pin directories; one for each agent of a machine */
	const char *host;     /* this host's name in the plan */
	const char *store_url;
	const char *cgroup_root; /* class cgroups live below; the hooks see only what is below */
	bool observe;
	bool without_dispatch, without_guard, without_hooks; /* the demo's BREAK= */
};

/* Where an uplink's dispatcher stands. */
struct ps_uplink {
	char *name;
	unsigned ifindex; /* 0: the interface is gone */
	enum ps_dispatch_mode mode;
};

/* A plan in force: what the kernel runs now. */
struct ps_active {
	char *text;
	struct ps_plan *plan;
	unsigned self;
	uint8_t digest[PS_PLAN_DIGEST_LEN];
	uint64_t revision;
	struct ps_compile_cgroup *own, *named; /* by class */
	struct ps_dispatch *dispatch;
	struct ps_egress *egress;
	struct ps_uplink *uplinks;
	size_t n_uplinks;
	struct ps_ip *addresses; /* local routes */
	size_t n_addresses;
	struct ps_egress_slice *slices;
	size_t n_slices;
	struct ps_hello_slice *in_use; /* of `slices`, when last looked */
	size_t n_in_use;
	struct ps_hold *holds; /* slices that still wait for their old holder; handover.h */
	size_t n_holds;
};

struct ps_control;

struct ps_agent {
	struct ps_agent_options options;
	char *run_dir, *pin_dir;
	int lock_fd;
	sd_event *loop;
	struct ps_net *net;
	struct ps_undo *undo;
	struct ps_peers *peers;
	struct ps_events *events;
	struct ps_control *control;
	struct ps_mtus *mtus;
	sd_event_source *peers_source, *store_source, *egress_source, *hints_source, *tend_source;
	struct ps_store *store;    /* NULL while it cannot be opened */
	uint64_t incarnation;      /* of the store last read */
	uint64_t judged_revision;  /* newest plan revision applied or refused */
	char *store_trouble;       /* NULL: the store answers */
	char *refusal;             /* why the store's newest plan is not in force; NULL: it is */
	uint64_t refused_revision; /* of that plan; 0: the plan last in force, by an agent before */
	uint64_t retry_ms;         /* when to judge a refused plan again */
	char *host_trouble;        /* what could not be put back; NULL: all stands */
	struct ps_active *active;  /* NULL: no plan in force */
	char *differing;           /* names of hosts heard with another plan; NULL: none */
	bool detached;             /* by the operator: follow nothing until `attach` */
	bool tend_armed;
	unsigned ticks;
	uint64_t n_no_memory;      /* pages that could not be made, at the last tick */
	uint64_t n_leaks;          /* ports in use by nobody that were given back */
	struct ps_repair repaired; /* the last sweep for such */
	uint64_t repaired_ms;      /* when; 0: none yet */
	uint64_t usage_due_ms;     /* when to look again which slices are in use */
	bool ready_sent;
};

/* apply.c: makes a plan the one in force, or leaves everything as it was.  On failure *ret_why is
 * a text for the operator (caller frees), one line for each finding. */
int ps_agent_apply(struct ps_agent *agent, const char *text, size_t len, uint64_t revision,
		   char **ret_why);
/* Takes up the plan that an agent before this one had in force, and the pinned programs still
 * follow.  -ENOENT: there is none. */
int ps_agent_resume(struct ps_agent *agent, char **ret_why);
/* The folder for pins; detaching removes it. */
int ps_agent_make_pin_dir(const struct ps_agent *agent, char **ret_why);
/* Applies the plan in force again: a cgroup was made anew, a slice held back may be taken. */
void ps_agent_renew(struct ps_agent *agent);
/* Why a plan would be refused, without touching anything; 0: it would not. */
int ps_agent_judge(struct ps_agent *agent, const char *text, size_t len, char **ret_why);
void ps_active_free(struct ps_active **active);

/* stand.c: puts the plan's objects into the kernel, in the order that never leaks a packet. */
int ps_agent_stand(struct ps_agent *agent, struct ps_active *active, char **ret_why);
/* Puts back what others removed: guards, routes, sysctls, dispatcher on an uplink that came anew. */
void ps_agent_tend(struct ps_agent *agent);
/* Class cgroups: own[] and named[] of the active plan.  Creates what is missing. */
int ps_agent_find_cgroups(struct ps_agent *agent, struct ps_active *active, char **ret_why);
/* True when a class's cgroup was removed or made anew since the plan was applied. */
bool ps_agent_cgroups_moved(const struct ps_agent *agent);
/* The folder of a class's own cgroup; caller frees. */
char *ps_agent_class_cgroup(const struct ps_agent *agent, const char *class_name);
/* Takes everything of ours off this host.  Works from pins and journal alone. */
int ps_agent_detach(const char *pin_dir, const char *run_dir, struct ps_undo *undo,
		    struct ps_net *net);

/* follow.c: the store and the peers. */
void ps_agent_follow(struct ps_agent *agent);
/* Forgets what was judged, so that the next follow applies the store's plan again. */
void ps_agent_forget(struct ps_agent *agent);
int ps_agent_tick(struct ps_agent *agent);
/* Says hello to all hosts now: the digest in force, the slices in use. */
int ps_agent_tell_peers(struct ps_agent *agent);

/* ledger.c: what a tick does for the ledger of ports in use. */
void ps_agent_tend_ledger(struct ps_agent *agent);
/* Looks for ports in use by nobody and gives them back, with an event each.  -ENOENT: no hooks of ours
 * stand; else as ps_egress_repair(). */
int ps_agent_repair(struct ps_agent *agent, struct ps_repair *ret);
/* For `status`: memory, fill, repairs; null: there is none. */
json_t *ps_agent_ledger(const struct ps_agent *agent);

/* control.c */
int ps_control_open(struct ps_agent *agent, struct ps_control **ret);
void ps_control_close(struct ps_control **control);
void ps_control_publish(struct ps_control *control, const json_t *event);

/* status.c: what `portslice show` and `status` read. */
json_t *ps_agent_status(struct ps_agent *agent);
json_t *ps_agent_counters(struct ps_agent *agent);
json_t *ps_agent_usage(struct ps_agent *agent);

/* preflight.c: what this machine lacks, as a sentence with the remedy; 0: nothing. */
int ps_preflight(const struct ps_agent_options *options, char **ret_why);
/* Keeps only the capabilities of design.md §6. */
int ps_preflight_drop(void);

/* Monotonic milliseconds, never 0. */
uint64_t ps_agent_now_ms(void);
#endif

/* SPDX-License-Identifier: MIT */
/*
 * The plan: what the port plane should look like.  A frozen value: parsed and checked once, then
 * only read.  No I/O, no clock.  plan.c holds the essay.
 */
#ifndef PS_PLAN_PLAN_H
#define PS_PLAN_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "base/diag.h"
#include "base/ip.h"
#include "base/range.h"

enum {
	PS_PLAN_VERSION = 1,
	PS_PLAN_DIGEST_LEN = 32, /* bytes, SHA-256 */
	PS_PLAN_NONE = -1,       /* "no such element" where an index is returned */
	/* What this version of the dispatcher and its tables are made for. */
	PS_PLAN_HOSTS_MAX = 4096,
	PS_PLAN_SITE_HOSTS_MAX = 254, /* a row's group has one byte (design.md §3) */
	PS_PLAN_SITES_MAX = 256,
	PS_PLAN_POOLS_MAX = 1024,
	PS_PLAN_CLASSES_MAX = 1024,
	PS_PLAN_ADDRESSES_MAX = 65536, /* shared, in all pools */
	PS_PLAN_GRANTS_MAX = 4 << 20,  /* 65,536 addresses of 64 slices */
	PS_PLAN_UPLINKS_MAX = 16,      /* of one host */
	PS_PLAN_TAGS_MAX = 16,         /* of one pool or class */
	PS_PLAN_UID_MAX = 0xfffffffe,  /* 4294967295 means "nobody" (chown(2)) */
	PS_PLAN_MTU_MIN = 576,         /* bytes; RFC 791 */
	PS_PLAN_IP6_MTU_MIN = 1280,    /* every path carries this much IPv6 (RFC 8200 §5) */
	PS_PLAN_OUTER_V4 = 28,         /* what encapsulation adds, bytes: IPv4 and UDP header */
	PS_PLAN_OUTER_V6 = 48,
	PS_PLAN_MTU_MAX = 65535,
	PS_PLAN_MTU_DEFAULT = 1500,
	PS_PLAN_LEDGER_MIN_MIB = 1,
	PS_PLAN_LEDGER_MAX_MIB = 4096,
	PS_PLAN_LEDGER_DEFAULT_MIB = 32,
};

struct ps_tag {
	char *key, *value;
};

struct ps_tags {
	struct ps_tag *items; /* in the order of the file; keys differ */
	size_t n;
};

/* A data center.  The edge is the address by which other sites reach it over the backbone: every
 * host of the site receives packets for it (anycast within the site). */
struct ps_site {
	char *name;
	struct ps_ip edge;
	bool has_edge; /* required as soon as there are two sites */
};

struct ps_host {
	char *name;
	unsigned site;            /* index into sites */
	struct ps_ip underlay;    /* unicast; encapsulated packets are sent from and to it */
	char **uplinks;           /* interface names on which packets for shared addresses arrive */
	size_t n_uplinks;         /* at least 1 */
	char *underlay_interface; /* NULL: the route decides */
	unsigned mtu; /* of the path to the other hosts, bytes of outer packet; 1500 unless told */
	unsigned ledger_mib; /* kernel memory for the pages of ports in use; 32 unless told */
};

enum ps_unowned { PS_UNOWNED_REJECT, PS_UNOWNED_DROP };
/* What a ping to a shared address gets. */
enum ps_echo { PS_ECHO_ANSWER, PS_ECHO_DROP };

/* Addresses of a pool that are at one site. */
struct ps_block {
	struct ps_prefix prefix;
	unsigned site;
};

/* Shared addresses with the same tags, slice size and policy. */
struct ps_pool {
	char *name;
	struct ps_tags tags;
	unsigned shift; /* ports per slice = 1 << shift; PS_SHIFT_WHOLE for `slice: whole` */
	enum ps_unowned unowned;
	enum ps_echo echo;
	struct ps_block *blocks;
	size_t n_blocks;
};

/* What a class asks of a call: all that is set must hold. */
struct ps_match {
	char *cgroup; /* absolute, below the agent's cgroup root; NULL if not matched on */
	bool has_mark, has_uid, has_from, has_to;
	uint32_t mark;                /* of the socket */
	uint32_t first_uid, last_uid; /* the program's real uid */
	struct ps_prefix from;        /* the shared address that the socket asks for */
	struct ps_prefix to;          /* the destination */
};

/* Which traffic of a host takes which tags.  The first class whose match holds is taken; one that
 * matches on nothing serves only programs started with `portslice run` (every class has a cgroup of
 * its own), whose class is settled by that. */
struct ps_class {
	char *name;
	struct ps_match match;
	struct ps_tags tags; /* a pool serves the class when it has all of these */
};

/* A call that looks for its class. */
struct ps_call {
	const char *cgroup; /* of the program, as ps_match.cgroup; NULL: outside the agent's root */
	uint32_t mark, uid;
	const struct ps_ip *from; /* NULL: the program asks for no address */
	const struct ps_ip *to;   /* NULL: not known, as in bind() */
};

/* Why a class is not taken, or PS_MATCH_HOLDS. */
enum ps_match_reason {
	PS_MATCH_HOLDS,
	PS_MATCH_NOTHING, /* it matches on nothing */
	PS_MATCH_CGROUP,
	PS_MATCH_MARK,
	PS_MATCH_UID,
	PS_MATCH_FROM,
	PS_MATCH_TO,
};

/* A published static port: strangers may open connections to it. */
struct ps_service {
	char *name;
	struct ps_ip address;
	uint16_t port;
	uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	unsigned host;    /* the holder of the slice in which the port lies */
};

/* One slice and its owner. */
struct ps_grant {
	struct ps_ip address;
	unsigned slice; /* port >> shift of the pool; 0 for a whole address */
	unsigned host;  /* index into hosts */
	unsigned pool;  /* index into pools */
};

struct ps_plan {
	struct ps_site *sites;
	size_t n_sites;
	struct ps_host *hosts;
	size_t n_hosts;
	struct ps_pool *pools;
	size_t n_pools;
	struct ps_class *classes; /* the order of the file */
	size_t n_classes;
	struct ps_service *services; /* sorted by address, port, protocol */
	size_t n_services;
	struct ps_prefix *direct; /* destinations reached with the host's own address */
	size_t n_direct;
	struct ps_grant *grants; /* sorted by address, then slice; disjoint */
	size_t n_grants;
	struct ps_plan_index *index; /* plan.c's, for look-ups; made by ps_plan_parse */
};

/* Parses and checks a plan.  text need not end in NUL; file only names the place in findings.
 * 0 and *ret, or -EINVAL with at least one finding in diags (all that could be found, in order). */
int ps_plan_parse(const char *text, size_t len, const char *file, struct ps_diags *diags,
		  struct ps_plan **ret);
/* The same for a plan that is about to be dealt: a service may lie in a slice that nobody holds.
 * Whatever it accepts, ps_plan_deal can deal. */
int ps_plan_parse_undealt(const char *text, size_t len, const char *file, struct ps_diags *diags,
			  struct ps_plan **ret);
void ps_plan_free(struct ps_plan **plan);

/* Gives every service's slice to its host, then every host at least one slice of every pool that
 * has addresses at its site.  Slices that are held stay where they are: dealing twice, or after
 * adding a host, moves nothing.  *ret_n is the number of slices dealt.
 * -ENOSPC: a pool ran out; nothing was dealt (checked plans never do). */
int ps_plan_deal(struct ps_plan *plan, size_t *ret_n);
/* The text of the file with its `slices:` section replaced by the plan's grants (or appended);
 * every other byte stays, comments too, but for those between the entries of that section.
 * *ret is NUL-terminated, the caller's to free, and was read back: it means what plan means.
 * -EINVAL: text is not the file of this plan, or writes its slices in a way that cannot be
 * replaced (an alias, an explicit `? key`). */
int ps_plan_deal_text(const char *text, size_t len, const struct ps_plan *plan, char **ret);

/* Index by name, or PS_PLAN_NONE. */
int ps_plan_find_site(const struct ps_plan *plan, const char *name);
int ps_plan_find_host(const struct ps_plan *plan, const char *name);
int ps_plan_find_pool(const struct ps_plan *plan, const char *name);
int ps_plan_find_class(const struct ps_plan *plan, const char *name);

/* Hosts reach each other over IPv6: then all underlay and edge addresses are of it. */
bool ps_plan_is_over_v6(const struct ps_plan *plan);
/* PS_PLAN_OUTER_V4 or PS_PLAN_OUTER_V6. */
unsigned ps_plan_outer_len(const struct ps_plan *plan);

/* True when the match names anything at all. */
bool ps_match_any(const struct ps_match *match);
/* The first condition that does not hold.  What the hooks decide, in words. */
enum ps_match_reason ps_match_judge(const struct ps_match *match, const struct ps_call *call);
/* True when every call for which inner holds has outer hold too. */
bool ps_match_covers(const struct ps_match *outer, const struct ps_match *inner);
/* True when path is the folder or below it; both absolute. */
bool ps_cgroup_contains(const char *folder, const char *path);
/* ps_prefix_contains(), but ::/0 has no IPv4 addresses. */
bool ps_match_prefix(const struct ps_prefix *prefix, const struct ps_ip *ip);

/* True when tags has every key of wanted with the same value. */
bool ps_tags_cover(const struct ps_tags *tags, const struct ps_tags *wanted);
/* True when the pool has the class's tags, and address is one that its match asks for. */
bool ps_plan_class_takes(const struct ps_plan *plan, unsigned class, const struct ps_grant *grant);
/* The pool that serves `class` on `host`: the first, in the order of the file, whose tags cover the
 * class's and of which the host holds a slice (with `match.from`, one of its addresses);
 * PS_PLAN_NONE if there is none. */
int ps_plan_class_pool(const struct ps_plan *plan, unsigned class, unsigned host);

/* Gives one slice of a shared address to another host, or with PS_PLAN_NONE to nobody: for the time
 * in which a slice changes hands.  0 also when nothing changes; -ENOENT: the address is not shared;
 * -ERANGE: no such slice. */
int ps_plan_regrant(struct ps_plan *plan, const struct ps_ip *address, unsigned slice, int host);

/* Where on the plane a shared address lies. */
struct ps_place {
	unsigned pool, site;
};

/* -ENOENT: not a shared address. */
int ps_plan_locate(const struct ps_plan *plan, const struct ps_ip *address, struct ps_place *ret);
/* The grant that covers (address, port), or NULL: nobody owns it, or not shared. */
const struct ps_grant *ps_plan_who(const struct ps_plan *plan, const struct ps_ip *address,
				   uint16_t port);
const struct ps_service *ps_plan_service(const struct ps_plan *plan, const struct ps_ip *address,
					 uint16_t port, uint8_t protocol);

/* One slice whose owner differs between two plans.  Hosts are compared by name. */
struct ps_move {
	struct ps_ip address;
	struct ps_range ports;
	const char *from; /* host name, NULL: was free.  Borrowed from the plans. */
	const char *to;   /* host name, NULL: becomes free */
};

/* All slices that change owner from old (may be NULL: no plan) to new, sorted; caller frees *ret. */
int ps_plan_moves(const struct ps_plan *old, const struct ps_plan *new, struct ps_move **ret,
		  size_t *ret_n);
/* Human-readable difference, one line each: "+ host lhr3", "- pool gb", "~ slice ... lhr1 -> lhr2".
 * *ret is the caller's to free; empty when the plans mean the same. */
int ps_plan_diff(const struct ps_plan *old, const struct ps_plan *new, char **ret);

/* A match as JSON (a new reference; NULL without memory), as it is in the plan's. */
json_t *ps_match_json(const struct ps_match *match);
/* The whole plan as JSON (a new reference; NULL without memory).  doc/plan.md gives the shape. */
json_t *ps_plan_json(const struct ps_plan *plan);
/* SHA-256 of the meaning of a plan: comments, order of keys and spelling do not count.  The order
 * of pools and of classes does: the first that fits serves. */
int ps_plan_digest(const struct ps_plan *plan, uint8_t ret[PS_PLAN_DIGEST_LEN]);

#endif

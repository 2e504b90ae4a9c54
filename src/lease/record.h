/* SPDX-License-Identifier: MIT */
/*
 * What the store of a site holds about ownership, and its text form.  doc/lease.md has the layout.
 *
 *   lease/clock            N                           store time, milliseconds
 *   lease/birth            INCARNATION STAMP SETTLED
 *   lease/host/NAME        session, renewal, dispatcher, confirmation, wish
 *   lease/slice/ADDRESS/N  STATE HOLDER EPOCH STAMP
 *   lease/address/ADDRESS  SITE TARGET EPOCH PHASE
 *
 * Store time advances only as fast as somebody who sees it: a host that has watched one value for
 * some time by its own boot-time clock adds that time, never more than tick_max.  So nothing that
 * waits for store time ends early, whatever wall clocks, restarts or outages do.
 */
#ifndef PS_LEASE_RECORD_H
#define PS_LEASE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PS_LEASE_NOBODY = 0xffff, /* a host number that names no host */
	PS_LEASE_NO_POOL = 0xffff,
	PS_LEASE_NAME_MAX = 64, /* of a host or site in a record, NUL included */
	PS_LEASE_TEXT_MAX = 320,
};

/* In the order in which an epoch goes through them; of two records of a slice the one with the
 * higher epoch, then the later state, is the newer. */
enum ps_slice_state {
	PS_SLICE_FREE_NEW, /* never leased: no record */
	PS_SLICE_GRANTED,  /* dispatched to its holder, not used yet */
	PS_SLICE_ACTIVE,
	PS_SLICE_DRAINING,
	PS_SLICE_QUARANTINE,
	PS_SLICE_FREE,
};

struct ps_slice_record {
	uint64_t stamp_ms; /* store time when quarantine began; else of the last change */
	uint32_t epoch;    /* grows with each grant */
	uint16_t holder;   /* the last one, when nobody holds it */
	uint8_t state;     /* enum ps_slice_state */
};

enum ps_host_state {
	PS_HOST_NONE, /* no record */
	PS_HOST_ALIVE,
	PS_HOST_EXPIRED, /* its slices may be taken */
};

struct ps_host_record {
	uint64_t session;    /* of the agent, random */
	uint64_t asserted;   /* incarnation of the store in which it has written its memory back */
	uint64_t stamp_ms;   /* store time of this renewal, exact: the clock is compared with it */
	uint64_t acked_ms;   /* stamp of the last renewal this host knew to have succeeded */
	uint64_t confirmed;  /* revision up to which its kernel has the table */
	uint64_t suspect_ms; /* store time when somebody thought it cut off; 0: nobody */
	uint64_t wish_ms;    /* store time since when it wants a slice of wish_pool */
	uint16_t wish_pool;  /* PS_LEASE_NO_POOL: none */
	uint8_t state;       /* enum ps_host_state */
	bool is_dispatcher;  /* registered: grants wait for its confirmation */
};

enum ps_address_phase {
	PS_ADDRESS_HERE,    /* its site may grant */
	PS_ADDRESS_LEAVING, /* slices drain, none is granted */
	PS_ADDRESS_MOVED,   /* at the target, which waits for every site to know */
};

struct ps_address_record {
	uint32_t epoch;
	uint16_t site, target; /* equal unless on the way */
	uint8_t phase;         /* enum ps_address_phase */
	bool is_drained;       /* by an operator: as leaving, for nowhere */
};

struct ps_birth_record {
	uint64_t incarnation;
	uint64_t stamp_ms;
	bool is_settled; /* everybody has re-asserted: grants may go on */
};

enum ps_lease_kind {
	PS_LEASE_CLOCK,
	PS_LEASE_BIRTH,
	PS_LEASE_HOST,
	PS_LEASE_SLICE,
	PS_LEASE_ADDRESS,
};

/* index: host number, place of the slice, place of the address; 0 for the rest. */
struct ps_lease_key {
	uint8_t kind; /* enum ps_lease_kind */
	uint32_t index;
};

union ps_lease_value {
	uint64_t clock_ms;
	struct ps_birth_record birth;
	struct ps_host_record host;
	struct ps_slice_record slice;
	struct ps_address_record address;
};

struct ps_lease_record {
	struct ps_lease_key key;
	union ps_lease_value value;
};

/* True when a is newer than b. */
bool ps_slice_record_newer(const struct ps_slice_record *a, const struct ps_slice_record *b);
/* "free", "granted", ... */
const char *ps_slice_state_text(unsigned state);

/* How hosts and sites are called in texts.  name: NULL for a number nobody has; number: a negative
 * errno for a name nobody has. */
struct ps_lease_names {
	const char *(*name)(void *context, unsigned number, bool is_site);
	int (*number)(void *context, const char *name, bool is_site);
	void *context;
};

/* The value of a record as it stands in the store: one line without its newline.  Returns its length
 * or -EINVAL (a number without a name), -ENOBUFS. */
int ps_lease_record_format(const struct ps_lease_record *record, const struct ps_lease_names *names,
			   char *ret, size_t len);
/* The reverse, for the key already in ret->key.  -EBADMSG: not such a text; -ENOENT: names a host or
 * site nobody knows (a plan not yet seen). */
int ps_lease_record_parse(const char *text, const struct ps_lease_names *names,
			  struct ps_lease_record *ret);

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* What the storm's kernel half and user half share: packets to send, and what was seen of them. */
#ifndef PS_WEATHER_STORM_H
#define PS_WEATHER_STORM_H

#include <linux/types.h>

enum {
	STORM_HOSTS = 2,
	STORM_PORTS = 4, /* observed ends: uplinks u and w of host 0, then those of host 1 */
	STORM_PLACES = STORM_PORTS + STORM_HOSTS, /* and the stacks of both */
	STORM_SLOTS = 8192,
	STORM_BYTES = 2040,
	STORM_SNAP = 256,  /* bytes kept of a frame that was seen */
	STORM_GATEWAY = 5, /* number of the gateway in a hop's MAC; 0 to 4: peers */
	STORM_LIFT = 200,  /* head room to take away: less is left than an outer header needs */
};

/* Element of the mapped array `slots`: a frame to send. */
struct storm_slot {
	__u32 len;  /* bytes */
	__u32 lift; /* bytes of head room to use up */
	__u8 bytes[STORM_BYTES];
};

/* Record of ring buffer `seen`: a frame that left a host, or reached its stack. */
struct storm_seen {
	__u32 place; /* below STORM_PORTS: observed end; else the stack of a host */
	__u32 len;
	__u32 vlan; /* tag that the kernel took off: protocol << 16 | TCI; 0: none */
	__u32 pad;
	__u8 bytes[STORM_SNAP];
};

struct storm_counts {
	__u64 sent;
	__u64 seen[STORM_PLACES];
	__u64 switched[STORM_HOSTS]; /* from one host to this other one */
	__u64 unseen;                /* for which `seen` had no room */
};

#endif

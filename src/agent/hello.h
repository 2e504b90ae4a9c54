/* SPDX-License-Identifier: MIT */
/*
 * The datagram by which hosts tell each other, once a second over the underlay, which plan they run
 * and which of their slices are in use.  Pure: bytes in, struct out, nothing else.
 *
 *   0      4        6      8       12         44       52        54        56
 *   | PSH2 | part   | parts| round | digest   | plan   | n_names | n_slices|
 *   |      | __be16 | be16 | be32  | 32 bytes | be64   | be16    | be16    |
 *   name (n_names bytes), then n_slices times { address 16 bytes, slice be16, zero be16 }
 *
 * Addresses are those of struct ps_ip.  A hello of another version is another magic, and not heard.
 *
 * A host with more slices in use than fit sends several parts of one round.
 */
#ifndef PS_AGENT_HELLO_H
#define PS_AGENT_HELLO_H

#include <stddef.h>
#include <stdint.h>

#include "plan/plan.h"

enum {
	PS_HELLO_PORT = 6077, /* UDP, on the underlay address */
	PS_HELLO_MAX =
		1232, /* bytes: with IPv6 and UDP header what every path takes (RFC 8200 §5) */
	PS_HELLO_NAME_MAX = 63,
	PS_HELLO_SLICES_MAX = 55, /* in one part */
};

struct ps_hello_slice {
	struct ps_ip ip;
	uint16_t slice;
};

struct ps_hello {
	uint16_t part, parts; /* part < parts */
	uint32_t round;
	uint8_t digest[PS_PLAN_DIGEST_LEN];
	uint64_t revision; /* of the plan in the sender's store */
	char name[PS_HELLO_NAME_MAX + 1];
	size_t n_slices;
	struct ps_hello_slice slices[PS_HELLO_SLICES_MAX];
};

/* Bytes written, always at most PS_HELLO_MAX. */
size_t ps_hello_encode(const struct ps_hello *hello, uint8_t ret[PS_HELLO_MAX]);
/* -EBADMSG: not a hello, or cut short. */
int ps_hello_decode(const uint8_t *data, size_t len, struct ps_hello *ret);

#endif

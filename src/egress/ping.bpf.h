/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* Ping sockets of programs of a class: noted when made, so that the guard knows whose echo it sees. */
#ifndef PS_EGRESS_PING_BPF_H
#define PS_EGRESS_PING_BPF_H

#include "egress/maps.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct ps_ping);
} pings SEC(".maps");

#endif

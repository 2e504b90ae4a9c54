/* SPDX-License-Identifier: MIT */
#ifndef PS_EGRESS_SKEL_H
#define PS_EGRESS_SKEL_H

/* bpftool's generated headers cast const away. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual"
#include "egress/egress-guard.skel.h"
#include "egress/egress-hooks.skel.h"
#pragma GCC diagnostic pop

#endif

/* SPDX-License-Identifier: MIT */
/* bpftool's generated header casts const away. */
#ifndef PS_DISPATCH_SKEL_H
#define PS_DISPATCH_SKEL_H

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual"
#include "dispatch/dispatch.skel.h"
#pragma GCC diagnostic pop

#endif

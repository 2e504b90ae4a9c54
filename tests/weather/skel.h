/* SPDX-License-Identifier: MIT */
/* bpftool's generated header casts const away. */
#ifndef PS_WEATHER_SKEL_H
#define PS_WEATHER_SKEL_H

#include "storm.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual"
#include "storm.skel.h"
#pragma GCC diagnostic pop

#endif

/* SPDX-License-Identifier: MIT */
/* Private to this folder. */
#ifndef PS_PLAN_JSON_H
#define PS_PLAN_JSON_H

#include "plan/plan.h"

/* ps_plan_json() without its slices. */
json_t *ps_plan_frame_json(const struct ps_plan *plan);

#endif

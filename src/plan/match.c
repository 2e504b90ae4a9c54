// SPDX-License-Identifier: MIT
/* What a class's match says of a call, and of another match. */
#include <string.h>

#include "plan/plan.h"

bool ps_match_any(const struct ps_match *match)
{
	return match->cgroup || match->has_mark || match->has_uid || match->has_from ||
	       match->has_to;
}

bool ps_cgroup_contains(const char *folder, const char *path)
{
	size_t len = strlen(folder);

	return strncmp(folder, path, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

static bool is_v4(const struct ps_prefix *prefix)
{
	return prefix->bits >= 96 && ps_ip_is_v4(&prefix->ip);
}

bool ps_match_prefix(const struct ps_prefix *prefix, const struct ps_ip *ip)
{
	return is_v4(prefix) == ps_ip_is_v4(ip) && ps_prefix_contains(prefix, ip);
}

enum ps_match_reason ps_match_judge(const struct ps_match *match, const struct ps_call *call)
{
	if (!ps_match_any(match))
		return PS_MATCH_NOTHING;
	if (match->cgroup && !(call->cgroup && ps_cgroup_contains(match->cgroup, call->cgroup)))
		return PS_MATCH_CGROUP;
	if (match->has_mark && call->mark != match->mark)
		return PS_MATCH_MARK;
	if (match->has_uid && (call->uid < match->first_uid || call->uid > match->last_uid))
		return PS_MATCH_UID;
	if (match->has_from && !(call->from && ps_match_prefix(&match->from, call->from)))
		return PS_MATCH_FROM;
	if (match->has_to && !(call->to && ps_match_prefix(&match->to, call->to)))
		return PS_MATCH_TO;
	return PS_MATCH_HOLDS;
}

static bool prefix_covers(const struct ps_prefix *outer, const struct ps_prefix *inner)
{
	return outer->bits <= inner->bits && is_v4(outer) == is_v4(inner) &&
	       ps_prefix_contains(outer, &inner->ip);
}

bool ps_match_covers(const struct ps_match *outer, const struct ps_match *inner)
{
	if (outer->cgroup && !(inner->cgroup && ps_cgroup_contains(outer->cgroup, inner->cgroup)))
		return false;
	if (outer->has_mark && !(inner->has_mark && inner->mark == outer->mark))
		return false;
	if (outer->has_uid && !(inner->has_uid && inner->first_uid >= outer->first_uid &&
				inner->last_uid <= outer->last_uid))
		return false;
	if (outer->has_from && !(inner->has_from && prefix_covers(&outer->from, &inner->from)))
		return false;
	return !outer->has_to || (inner->has_to && prefix_covers(&outer->to, &inner->to));
}

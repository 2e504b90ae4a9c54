// SPDX-License-Identifier: MIT
/*
 * Taking over from a version whose maps have another layout, without losing a connection.
 *
 *   load     pins of another layout are renamed to old-NAME; the old programs, which hold their maps
 *            themselves, go on serving with them
 *   attach   our release hooks come first, then every socket that the old storage knows is seeded
 *            (seed.bpf.h), then the other hooks; what connected meanwhile is seeded by a second walk
 *   end      old-NAME are unpinned; the old programs went with their links
 *
 * A daemon that dies in between leaves old-sockets, so the next one goes on at the same place.  A
 * generation that is freed without having been attached puts the old pins back.
 *
 * What does not come along: claims towards direct destinations of sockets that sent without connect()
 * (taken again by their next send), the counters.  Ports in quarantine come from the kernel's own
 * TIME_WAIT (ps_seed_tcp).
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/own.h"
#include "base/say.h"
#include "egress/inside.h"

static const char *const record_names[] = {PS_EGRESS_RECORD_NAMES};
static const char *const other_names[] = {PS_EGRESS_OTHER_NAMES};

static char *old_path(const char *pin_dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s/old-%s", pin_dir, name) < 0 ? NULL : path;
}

/* From NAME to old-NAME, or back; a pin that is not there is left out. */
static int move_pin(const char *pin_dir, const char *name, bool back)
{
	ps_auto_mem char *now = ps_egress_pin_path(pin_dir, name);
	ps_auto_mem char *old = old_path(pin_dir, name);

	if (!now || !old)
		return -ENOMEM;
	if (rename(back ? old : now, back ? now : old) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

int ps_egress_aside_move(const char *pin_dir, const char *name)
{
	int r = 0;

	for (size_t i = 0; i < PS_N_ELEMENTS(other_names); i++)
		if (strcmp(name, other_names[i]) == 0)
			return move_pin(pin_dir, name, false);
	for (size_t i = 0; i < PS_N_ELEMENTS(record_names) && r == 0; i++)
		r = move_pin(pin_dir, record_names[i], false);
	return r;
}

bool ps_egress_aside_waits(const char *pin_dir)
{
	ps_auto_mem char *old = old_path(pin_dir, "sockets");

	return old && access(old, F_OK) == 0;
}

static int remove_pin(const char *pin_dir, const char *name, bool is_old)
{
	ps_auto_mem char *path =
		is_old ? old_path(pin_dir, name) : ps_egress_pin_path(pin_dir, name);

	if (!path)
		return -ENOMEM;
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

int ps_egress_aside_end(const char *pin_dir, bool put_back)
{
	/* Then of the record all is ours, also what the old version has no pin for. */
	bool replaced = put_back && ps_egress_aside_waits(pin_dir);
	int first = 0;

	for (size_t i = 0; i < PS_N_ELEMENTS(record_names) + PS_N_ELEMENTS(other_names); i++) {
		size_t n = PS_N_ELEMENTS(record_names);
		const char *name = i < n ? record_names[i] : other_names[i - n];
		int r = replaced && i < n ? remove_pin(pin_dir, name, false) : 0;

		if (!r)
			r = put_back ? move_pin(pin_dir, name, true)
				     : remove_pin(pin_dir, name, true);
		first = first ? first : r;
	}
	return first;
}

int ps_egress_aside_seed(struct ps_egress *egress)
{
	ps_auto_mem char *old = old_path(egress->pin_dir, "sockets");
	ps_auto_fd int map = old ? bpf_obj_get(old) : -1;
	union bpf_iter_link_info info = {.map.map_fd = (uint32_t)map};
	int r;

	if (map < 0)
		return old ? -errno : -ENOMEM;
	r = ps_egress_walk(egress->hooks->progs.ps_seed, &info);
	return r < 0 ? r : 0;
}

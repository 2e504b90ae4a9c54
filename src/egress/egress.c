// SPDX-License-Identifier: MIT
/*
 * The outgoing path, user half.
 *
 * A *generation* is one set of programs with its own config maps (classes, choices, slices, owned,
 * places, services), loaded by ps_egress_load() and never changed afterwards.  A new plan or a new
 * lease is a new generation: guards first, so that a new slice may leave before it is used, then
 * the hooks; a link is updated in place, so there is no moment without a hook, and each program
 * sees one generation's maps only.
 *
 * What outlives a generation, and the process, is pinned:
 *
 *   PIN_DIR/hook-NAME        a cgroup link each; unpinning detaches the hook
 *   PIN_DIR/pages, wide-pages  the ledger: ports in use, by source block, destination, protocol
 *   PIN_DIR/turnover         how many ports were given back, by a hash of the peer
 *   PIN_DIR/drafts           templates of pages, and what makes their generations unique
 *   PIN_DIR/quarantine       (source, destination, protocol) -> free after
 *   PIN_DIR/uses             towards how many peers each exclusive port is in use
 *   PIN_DIR/suspects, accusing  what a repair examines, and that it does (repair.bpf.h)
 *   PIN_DIR/sockets          socket storage: which claim is this socket's
 *   PIN_DIR/replies          socket storage: its further claims, towards direct destinations
 *   PIN_DIR/pings            socket storage: ping sockets of programs of a class
 *   PIN_DIR/egress-counters  by reason, one number a processor
 *   PIN_DIR/events           ring buffer
 *
 * so a daemon may die, be upgraded and come back while connections live.  The guards are tc filters
 * with a fixed handle and priority on a clsact qdisc; they too stand without the daemon.
 *
 * The life of a claim: taken in the connect or bind hook (claim.h), held by one socket (`sockets`),
 * given back by sock_ops at TCP_CLOSE or by sock_release, whichever comes first.  A connection
 * without timestamps keeps its port for its TIME_WAIT (and for the FIN_WAIT2 before it, where the
 * kernel has put an orphan aside): the claim moves to `quarantine`, and ps_egress_thaw() gives it
 * back when the time has passed.  Pages of which nothing is in use go by ps_egress_sweep(); a claim
 * that nobody holds any more, by ps_egress_repair().
 *
 * Must not: use a link's or a map's kernel object without the pin being the one that counts;
 * write or delete a page from user space (ledger.h); print.
 *
 * Standards and measurements: RFC 7597 section 8.1 (no packet outside the port set leaves), RFC
 * 6191 (timestamps and TIME_WAIT), RFC 6056 section 3.3 (random start, then in order), RFC 8305
 * (a refused IPv6 falls back to IPv4); reference/egress.md, reference/ledger.md.
 */
#include "egress/egress.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/own.h"
#include "base/say.h"
#include "egress/inside.h"

enum { N_HOOKS = 9 };

/* Those that give ports back come first: a socket seeded after them cannot be missed by both. */
enum { N_RELEASING = 2 };

static const char *const hook_names[N_HOOKS] = {
	"hook-sock_release", "hook-sockops",  "hook-connect4", "hook-connect6",    "hook-bind4",
	"hook-bind6",        "hook-sendmsg4", "hook-sendmsg6", "hook-sock_create",
};

static const char *const map_names[] = {PS_EGRESS_RECORD_NAMES, PS_EGRESS_OTHER_NAMES};

/* In the order of hook_names. */
static void list_programs(const struct ps_egress *egress, struct bpf_program *ret[N_HOOKS])
{
	ret[0] = egress->hooks->progs.ps_sock_release;
	ret[1] = egress->hooks->progs.ps_sockops;
	ret[2] = egress->hooks->progs.ps_connect4;
	ret[3] = egress->hooks->progs.ps_connect6;
	ret[4] = egress->hooks->progs.ps_bind4;
	ret[5] = egress->hooks->progs.ps_bind6;
	ret[6] = egress->hooks->progs.ps_sendmsg4;
	ret[7] = egress->hooks->progs.ps_sendmsg6;
	ret[8] = egress->hooks->progs.ps_sock_create;
}

/* Is this link attached to that cgroup?  Its id is the folder's inode number. */
static bool link_is_at(int link_fd, uint64_t cgroup_id)
{
	struct bpf_link_info info = {0};
	uint32_t len = sizeof(info);

	return bpf_obj_get_info_by_fd(link_fd, &info, &len) == 0 &&
	       info.type == BPF_LINK_TYPE_CGROUP && info.cgroup.cgroup_id == cgroup_id;
}

static int make_link(struct bpf_program *program, int cgroup_fd, const char *pin)
{
	ps_auto_fd int fd = bpf_link_create(bpf_program__fd(program), cgroup_fd,
					    bpf_program__expected_attach_type(program), NULL);

	if (fd < 0)
		return -errno;
	return bpf_obj_pin(fd, pin) < 0 ? -errno : 0;
}

static int remove_link(const char *pin)
{
	ps_auto_fd int fd = bpf_obj_get(pin);

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	(void)bpf_link_detach(fd); /* fails when the cgroup has gone, which is as good */
	return unlink(pin) < 0 ? -errno : 0;
}

static int attach_hook(struct bpf_program *program, int cgroup_fd, uint64_t cgroup_id,
		       const char *pin)
{
	ps_auto_fd int fd = bpf_obj_get(pin);
	int r;

	if (fd < 0)
		return errno == ENOENT ? make_link(program, cgroup_fd, pin) : -errno;
	if (link_is_at(fd, cgroup_id))
		return bpf_link_update(fd, bpf_program__fd(program), NULL) < 0 ? -errno : 0;
	r = remove_link(pin);
	return r < 0 ? r : make_link(program, cgroup_fd, pin);
}

static int attach_hooks(struct ps_egress *egress, size_t first, size_t end, char **ret_message)
{
	ps_auto_fd int cgroup_fd = open(egress->cgroup_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct bpf_program *programs[N_HOOKS];
	struct stat st;

	if (cgroup_fd < 0 || fstat(cgroup_fd, &st) < 0)
		return ps_say(ret_message, -errno, "cgroup %s: %s", egress->cgroup_path,
			      strerror(errno));
	list_programs(egress, programs);
	for (size_t i = first; i < end; i++) {
		ps_auto_mem char *pin = ps_egress_pin_path(egress->pin_dir, hook_names[i]);
		int r = pin ? attach_hook(programs[i], cgroup_fd, st.st_ino, pin) : -ENOMEM;

		if (r < 0)
			return ps_say(ret_message, r, "%s at cgroup %s: %s", hook_names[i],
				      egress->cgroup_path, strerror(-r));
	}
	return 0;
}

int ps_egress_run(const struct bpf_program *program, void *order, size_t size)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = order, .ctx_size_in = (uint32_t)size);
	int r = bpf_prog_test_run_opts(bpf_program__fd(program), &opts);

	return r < 0 ? r : (int)opts.retval;
}

static int seed(struct ps_egress *egress, char **ret_message)
{
	int r = egress->takes_over ? ps_egress_aside_seed(egress) : 0;

	return r < 0 ? ps_say(ret_message, r, "sockets of another version: %s", strerror(-r)) : 0;
}

/* Whoever had a port of our slices before there were hooks, or before the slice was ours. */
static int seed_older(struct ps_egress *egress, bool is_first, char **ret_message)
{
	const struct bpf_program *steps[] = {egress->hooks->progs.ps_seed_tcp,
					     egress->hooks->progs.ps_seed_udp};
	int r = 0, missed = 0;

	egress->hooks->bss->seeds_time_wait = is_first || egress->takes_over;
	for (size_t i = 0; r >= 0 && i < PS_N_ELEMENTS(steps); i++)
		missed |= r = ps_egress_walk(steps[i], NULL);
	if (r >= 0)
		missed |= r = ps_egress_run(egress->hooks->progs.ps_count_odd, NULL, 0);
	egress->hooks->bss->no_strays = !missed;
	return r < 0 ? ps_say(ret_message, r, "sockets older than the hooks: %s", strerror(-r)) : 0;
}

bool ps_egress_takes_over(const struct ps_egress *egress)
{
	return egress->takes_over;
}

int ps_egress_attach(struct ps_egress *egress, char **ret_message)
{
	ps_auto_mem char *pin = ps_egress_pin_path(egress->pin_dir, hook_names[0]);
	bool is_first = pin && access(pin, F_OK) < 0;
	int r;

	*ret_message = NULL;
	r = attach_hooks(egress, 0, N_RELEASING, ret_message);
	if (r == 0)
		r = seed(egress, ret_message);
	if (r == 0)
		r = attach_hooks(egress, N_RELEASING, N_HOOKS, ret_message);
	if (r == 0)
		r = seed(egress, ret_message);
	if (r == 0)
		r = seed_older(egress, is_first, ret_message);
	if (r < 0)
		return r;
	egress->attached = true;
	egress->takes_over = false;
	return ps_egress_aside_end(egress->pin_dir, false);
}

/* Is this program at the pinned link, and the link at that cgroup? */
static bool hook_stands(const struct bpf_program *program, uint64_t cgroup_id, const char *pin)
{
	ps_auto_fd int fd = bpf_obj_get(pin);
	struct bpf_link_info link = {0};
	struct bpf_prog_info info = {0};
	uint32_t link_len = sizeof(link), len = sizeof(info);

	return fd >= 0 && link_is_at(fd, cgroup_id) &&
	       bpf_obj_get_info_by_fd(fd, &link, &link_len) == 0 &&
	       bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &len) == 0 &&
	       link.prog_id == info.id;
}

bool ps_egress_hooks_stand(const struct ps_egress *egress)
{
	struct bpf_program *programs[N_HOOKS];
	struct stat st;

	if (stat(egress->cgroup_path, &st) < 0)
		return false;
	list_programs(egress, programs);
	for (size_t i = 0; i < N_HOOKS; i++) {
		ps_auto_mem char *pin = ps_egress_pin_path(egress->pin_dir, hook_names[i]);

		if (!pin || !hook_stands(programs[i], st.st_ino, pin))
			return false;
	}
	return true;
}

int ps_egress_detach_all(const char *pin_dir)
{
	int first = ps_egress_aside_end(pin_dir, false);

	for (size_t i = 0; i < N_HOOKS; i++) {
		ps_auto_mem char *pin = ps_egress_pin_path(pin_dir, hook_names[i]);
		int r = pin ? remove_link(pin) : -ENOMEM;

		if (r < 0 && !first)
			first = r;
	}
	for (size_t i = 0; i < PS_N_ELEMENTS(map_names); i++) {
		ps_auto_mem char *pin = ps_egress_pin_path(pin_dir, map_names[i]);
		int r = !pin ? -ENOMEM : unlink(pin) < 0 && errno != ENOENT ? -errno : 0;

		if (r < 0 && !first)
			first = r;
	}
	return first;
}

int ps_egress_thaw(struct ps_egress *egress, uint64_t *ret_n_freed)
{
	int r = ps_egress_run(egress->hooks->progs.ps_thaw, NULL, 0);

	if (r < 0)
		return r;
	*ret_n_freed = (uint64_t)r;
	return 0;
}

int ps_egress_sweep(struct ps_egress *egress, bool is_urgent, uint64_t *ret_n_removed)
{
	struct ps_sweep_order order = {is_urgent};
	int r = ps_egress_run(egress->hooks->progs.ps_sweep, &order, sizeof(order));

	if (r < 0)
		return r;
	*ret_n_removed = (uint64_t)r;
	return 0;
}

int ps_egress_lease(struct ps_egress *egress, uint32_t i, const struct ps_lease *lease)
{
	int r = bpf_map__update_elem(egress->hooks->maps.leases, &i, sizeof(i), lease,
				     sizeof(*lease), BPF_EXIST);

	__atomic_fetch_add(&egress->hooks->bss->n_lease_changes, 1, __ATOMIC_SEQ_CST);
	return r;
}

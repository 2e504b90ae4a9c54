// SPDX-License-Identifier: MIT
/* The sweep that repairs leaks, user half.  The steps, and why they are right, are in repair.bpf.h. */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>

#include "base/own.h"
#include "egress/inside.h"

enum { BATCH = 4096 };

struct repair {
	struct ps_egress *egress;
	ps_egress_leak_fn *fn;
	void *arg;
	int suspects_fd, settle_fd, inner_fd;
	uint64_t *ids; /* BATCH of them, not yet in the map */
	struct ps_suspect *suspects;
	uint32_t n, n_accused; /* of them; in the map */
	struct ps_repair found;
};

static void repair_clear(struct repair *repair)
{
	ps_fd_drop(&repair->settle_fd);
	ps_fd_drop(&repair->inner_fd);
	free(repair->ids);
	free(repair->suspects);
}

/* Waits until every hook that runs now has ended.  The kernel does so before an update of a map of
 * maps returns (maybe_wait_bpf_programs(), kernel/bpf/syscall.c); membarrier() does not where only
 * one processor is online. */
static int settle(const struct repair *repair)
{
	const uint32_t zero = 0, fd = (uint32_t)repair->inner_fd;

	return bpf_map_update_elem(repair->settle_fd, &zero, &fd, BPF_ANY) < 0 ? -errno : 0;
}

static int repair_init(struct ps_egress *egress, struct repair *ret)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);

	ret->egress = egress;
	ret->suspects_fd = bpf_map__fd(egress->hooks->maps.suspects);
	ret->ids = calloc(BATCH, sizeof(*ret->ids));
	ret->suspects = calloc(BATCH, sizeof(*ret->suspects));
	ret->inner_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "ps_settled", 4, 4, 1, NULL);
	if (ret->inner_fd < 0)
		return -errno;
	opts.inner_map_fd = (uint32_t)ret->inner_fd;
	ret->settle_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "ps_settle", 4, 4, 1, &opts);
	if (ret->settle_fd < 0)
		return -errno;
	return ret->ids && ret->suspects ? 0 : -ENOMEM;
}

static int watch(const struct repair *repair, uint32_t on)
{
	const uint32_t zero = 0;
	int fd = bpf_map__fd(repair->egress->hooks->maps.accusing);

	return bpf_map_update_elem(fd, &zero, &on, BPF_ANY) < 0 ? -errno : 0;
}

int ps_egress_walk(const struct bpf_program *program, union bpf_iter_link_info *info)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .iter_info = info,
		    .iter_info_len = info ? sizeof(*info) : 0);
	ps_auto_fd int link = bpf_link_create(bpf_program__fd(program), 0, BPF_TRACE_ITER, &opts);
	ps_auto_fd int fd = link < 0 ? -1 : bpf_iter_create(link);
	int breaks = 0;
	char byte;
	ssize_t n;

	if (fd < 0)
		return -errno;
	while ((n = read(fd, &byte, sizeof(byte))) < 0 && errno == EAGAIN)
		breaks = 1;
	return n < 0 ? -errno : breaks;
}

static int look(const struct bpf_program *program, const struct bpf_map *map)
{
	union bpf_iter_link_info info = {.map.map_fd = (uint32_t)bpf_map__fd(map)};
	int r = ps_egress_walk(program, &info);

	return r > 0 ? -E2BIG : r;
}

static int flush(struct repair *repair)
{
	uint32_t n = repair->n;
	int r = n ? bpf_map_update_batch(repair->suspects_fd, repair->ids, repair->suspects, &n,
					 NULL)
		  : 0;

	repair->n_accused += repair->n;
	repair->n = 0;
	return r;
}

/* Calls fn for each suspect that is left, or strikes it where fn is NULL. */
static int each_suspect(struct repair *repair, int (*fn)(struct repair *, uint64_t))
{
	uint64_t id, next;
	int r = bpf_map_get_next_key(repair->suspects_fd, NULL, &next);

	while (r == 0) {
		int outcome;

		id = next;
		r = bpf_map_get_next_key(repair->suspects_fd, &id, &next);
		outcome = fn ? fn(repair, id) : 0;
		if (outcome < 0)
			return outcome;
		(void)bpf_map_delete_elem(repair->suspects_fd, &id); /* or the holder did */
	}
	return 0;
}

static int free_leak(struct repair *repair, uint64_t id)
{
	struct ps_suspect suspect;
	int r;

	if (bpf_map_lookup_elem(repair->suspects_fd, &id, &suspect) < 0)
		return 0;
	r = ps_egress_run(repair->egress->hooks->progs.ps_free_leak, &id, sizeof(id));
	if (r <= 0)
		return r;
	repair->egress->hooks->bss->no_strays = 0;
	repair->found.n_freed++;
	if (repair->fn)
		repair->fn(&suspect.grip.flow, repair->arg);
	return 0;
}

/* Steps 3 to 7 for those that are accused. */
static int judge(struct repair *repair)
{
	struct ps_egress_hooks *hooks = repair->egress->hooks;
	int r = flush(repair);

	if (!r)
		r = ps_egress_run(hooks->progs.ps_confirm, NULL, 0);
	if (!r)
		r = settle(repair);
	if (!r)
		r = look(hooks->progs.ps_see_held, hooks->maps.sockets);
	if (!r)
		r = look(hooks->progs.ps_see_replies, hooks->maps.replies);
	if (!r)
		r = settle(repair);
	if (!r)
		r = each_suspect(repair, free_leak);
	repair->found.n_unsent = hooks->bss->n_unsent;
	repair->n_accused = 0;
	return r;
}

static int accuse(struct repair *repair, const struct ps_page *page, unsigned bit)
{
	uint64_t gen = ps_state_gen(page->state);
	int r = 0;

	repair->ids[repair->n] = ps_claim_id(gen, bit);
	repair->suspects[repair->n++] = (struct ps_suspect){.grip = {ps_page_flow(page, bit), gen}};
	repair->found.n_claims++;
	if (repair->n == BATCH)
		r = flush(repair);
	return r || repair->n_accused < PS_SUSPECTS_MAX ? r : judge(repair);
}

static int accuse_page(const struct ps_page *page, unsigned n_words, void *arg)
{
	const uint64_t *words = (const uint64_t *)(page + 1);
	int r = 0;

	for (unsigned w = 0; w < n_words; w++)
		for (uint64_t left = words[w]; left && !r; left &= left - 1)
			r = accuse(arg, page, w * 64 + (unsigned)__builtin_ctzll(left));
	return r;
}

/* Steps 1 to 7 for the whole ledger. */
static int repair_all(struct repair *repair)
{
	int r = each_suspect(repair, NULL); /* of a repair that died */

	if (!r)
		r = watch(repair, 1);
	if (!r)
		r = settle(repair);
	if (!r)
		r = ps_egress_pages(repair->egress->pin_dir, accuse_page, repair);
	if (!r)
		r = judge(repair);
	(void)each_suspect(repair, NULL);
	(void)watch(repair, 0);
	return r;
}

int ps_egress_repair(struct ps_egress *egress, ps_egress_leak_fn *fn, void *arg,
		     struct ps_repair *ret)
{
	ps_auto(repair_clear) struct repair repair = {
		.fn = fn, .arg = arg, .settle_fd = -1, .inner_fd = -1};
	int r = repair_init(egress, &repair);

	if (!r)
		r = repair_all(&repair);
	if (!r)
		*ret = repair.found;
	return r;
}

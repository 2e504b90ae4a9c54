// SPDX-License-Identifier: MIT
#include "agent/mtu.h"

#include <errno.h>
#include <stdlib.h>

#include "base/own.h"

struct learned {
	struct ps_ip dst;
	unsigned mtu;
	uint64_t until_ms;
};

struct ps_mtus {
	struct learned *items; /* at most one for each peer of the plan */
	size_t n;
};

int ps_mtus_new(struct ps_mtus **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

void ps_mtus_free(struct ps_mtus **mtus)
{
	if (*mtus)
		free((*mtus)->items);
	free(ps_move(*mtus));
}

static struct learned *find(struct ps_mtus *mtus, const struct ps_ip *dst)
{
	for (size_t i = 0; i < mtus->n; i++)
		if (ps_ip_cmp(&mtus->items[i].dst, dst) == 0)
			return &mtus->items[i];
	return NULL;
}

static int add(struct ps_mtus *mtus, const struct learned *learned)
{
	struct learned *items = reallocarray(mtus->items, mtus->n + 1, sizeof(*mtus->items));

	if (!items)
		return -ENOMEM;
	mtus->items = items;
	items[mtus->n++] = *learned;
	return 1;
}

static void forget(struct ps_mtus *mtus, size_t i)
{
	mtus->items[i] = mtus->items[--mtus->n];
}

int ps_mtus_learn(struct ps_mtus *mtus, struct ps_dispatch *dispatch, const struct ps_ip *dst,
		  unsigned mtu, uint64_t now_ms)
{
	const struct learned learned = {*dst, mtu, now_ms + PS_MTU_MS};
	struct learned *known = find(mtus, dst);
	int r;

	if (known && known->mtu <= mtu)
		return 0;
	r = ps_dispatch_set_mtu(dispatch, dst, mtu);
	if (r < 0)
		return r;
	if (!known)
		return add(mtus, &learned);
	*known = learned;
	return 1;
}

void ps_mtus_apply(struct ps_mtus *mtus, struct ps_dispatch *dispatch)
{
	for (size_t i = mtus->n; i-- > 0;)
		if (ps_dispatch_set_mtu(dispatch, &mtus->items[i].dst, mtus->items[i].mtu) < 0)
			forget(mtus, i);
}

size_t ps_mtus_expire(struct ps_mtus *mtus, struct ps_dispatch *dispatch, uint64_t now_ms)
{
	size_t n = 0;

	for (size_t i = mtus->n; i-- > 0;) {
		if (now_ms < mtus->items[i].until_ms)
			continue;
		(void)ps_dispatch_set_mtu(dispatch, &mtus->items[i].dst, 0);
		forget(mtus, i);
		n++;
	}
	return n;
}

int ps_mtus_get(const struct ps_mtus *mtus, size_t i, struct ps_ip *ret_dst, unsigned *ret_mtu)
{
	if (i >= mtus->n)
		return -ENOENT;
	*ret_dst = mtus->items[i].dst;
	*ret_mtu = mtus->items[i].mtu;
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* A ledger with a few claims in it, for tests of the dispatcher, which only reads. */
#ifndef PS_TESTS_CLAIMS_H
#define PS_TESTS_CLAIMS_H

#include <bpf/bpf.h>
#include <errno.h>

#include "base/own.h"
#include "egress/page-bits.h"

struct claims {
	int pages_fd, wide_pages_fd;
};

static inline int claims_open(struct claims *ret)
{
	ret->pages_fd = bpf_map_create(BPF_MAP_TYPE_HASH, "pages", sizeof(struct ps_page_key),
				       sizeof(struct ps_narrow_page), PS_PAGES_MAX, NULL);
	ret->wide_pages_fd =
		bpf_map_create(BPF_MAP_TYPE_HASH, "wide_pages", sizeof(struct ps_page_key),
			       sizeof(struct ps_wide_page), PS_WIDE_PAGES_MAX, NULL);
	return ret->pages_fd < 0 || ret->wide_pages_fd < 0 ? -errno : 0;
}

static inline void claims_close(struct claims *claims)
{
	ps_fd_drop(&claims->pages_fd);
	ps_fd_drop(&claims->wide_pages_fd);
}

/* flow's shift is that of its slice. */
static inline int claims_add(const struct claims *claims, const struct ps_claim_key *flow)
{
	struct ps_wide_page page = {0};
	struct ps_page_place place;
	struct ps_page_key key;
	int fd;

	ps_place_port(flow, &place);
	key = ps_page_key_of(flow, place.base);
	fd = place.n_words == PS_WIDE_WORDS ? claims->wide_pages_fd : claims->pages_fd;
	(void)bpf_map_lookup_elem(fd, &key, &page);
	page.words[place.bit / 64] |= 1ull << place.bit % 64;
	return bpf_map_update_elem(fd, &key, &page, BPF_ANY);
}

#endif

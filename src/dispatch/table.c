// SPDX-License-Identifier: MIT
/*
 * The tables of the return path, in memory.
 *
 * A generation of tables is built once, from plain arguments, and then only read: the loader
 * copies the arrays into the kernel's maps as they are, `portslice trace` and the fuzzer decide by
 * them directly.  abi.h draws the walk from an address to the byte that names a slice's owner.
 *
 * Rows are laid out in the order in which addresses are added, each as long as its slices need
 * (32 owners in one element, so a /24 of default slices is 8 KiB).  A /24 has 256 elements of its
 * own only until it turns out that one says it all, which spares random packets a cache miss.  A byte
 * names one of 254 hosts, so hosts form groups, one for each site: slots are handed out as owners
 * appear, which keeps a group as small as the site.
 *
 * The /112s of IPv6 addresses are found by a hash table with at most 8 places to look, made wider until
 * all fit; from there on an address is found as in IPv4, only that a /120 always has its elements.
 *
 * Everything that the kernel would otherwise compute for each packet is computed here: the sum of
 * the outer header in ps_peer.csum, the number of the row, the group.  Next hops are not known
 * here; ifindex stays 0 and such packets are dropped (DROP_NO_HOP) until the loader is told.
 *
 * Standards: RFC 791 (IPv4 header), RFC 1071 (checksum).
 */
#include "dispatch/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "base/range.h"
#include "dispatch/steer.h"

enum { PS_INDEX6_BITS_MAX = 20 };
enum { PS_BLOCK = 256 }; /* elements of a block: addresses of a /24, or /24s of a /16 */

/* Room for n elements: the next power of two, so that growing one by one is cheap. */
static size_t capacity(size_t n)
{
	size_t room = 1;

	while (room < n)
		room *= 2;
	return room;
}

/* Makes an array of *n elements at *array `by` longer, with zeros. */
static int grow(void *array, size_t *n, size_t by, size_t size)
{
	void *items;

	memcpy(&items, array, sizeof(items));
	if (!items || capacity(*n + by) != capacity(*n)) {
		items = reallocarray(items, capacity(*n + by), size);
		if (!items)
			return -ENOMEM;
		memcpy(array, &items, sizeof(items));
	}
	memset((char *)items + *n * size, 0, by * size);
	*n += by;
	return 0;
}

/* The same, to at least n elements. */
static int grow_to(void *array, size_t *n, size_t least, size_t size)
{
	return *n < least ? grow(array, n, least - *n, size) : 0;
}

void ps_table_free(struct ps_table **table)
{
	struct ps_table *t = ps_move(*table);

	if (!t)
		return;
	free(t->index6);
	free(t->blocks);
	free(t->addresses);
	free(t->owners);
	free(t->groups);
	free(t->hosts);
	free(t->edges);
	free(t->services);
	free(t->services6);
	free(t);
}

int ps_table_new(const struct ps_table_self *self, struct ps_table **ret)
{
	ps_auto(ps_table_free) struct ps_table *t = NULL;
	int r;

	if (self->site >= PS_SITES_MAX || self->host >= PS_HOSTS_MAX || self->mtu > UINT16_MAX)
		return -EINVAL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->self = *self;
	t->config.underlay = self->underlay_be;
	t->config.edge = self->edge_be;
	t->config.site = (__u8)self->site;
	t->config.reject_per_s = PS_REJECTS_PER_S;
	/* Element 0 of these is "none". */
	if (grow(&t->blocks, &t->n_blocks, 1, PS_BLOCK * sizeof(*t->blocks)) < 0 ||
	    grow(&t->addresses, &t->n_address_blocks, 1, PS_BLOCK * sizeof(*t->addresses)) < 0 ||
	    grow(&t->groups, &t->n_groups, 1, sizeof(*t->groups)) < 0)
		return -ENOMEM;
	r = ps_table_set_host(t, self->host, self->underlay_be);
	if (r >= 0)
		r = ps_table_set_site(t, self->site, self->edge_be);
	if (r < 0)
		return r;
	*ret = ps_move(t);
	return 0;
}

/* Everything of a peer but its next hop. */
static struct ps_peer peer_to(const struct ps_table *table, uint32_t dst_be, bool is_self)
{
	uint32_t src_be = table->self.underlay_be;

	return (struct ps_peer){
		.dst = dst_be,
		.src = src_be,
		.mtu = (__u16)table->self.mtu,
		.self = is_self,
		.csum = ps_ip_sum(PS_PROTO_UDP, src_be, dst_be),
	};
}

int ps_table_set_site(struct ps_table *table, unsigned site, uint32_t edge_be)
{
	int r;

	if (site >= PS_SITES_MAX)
		return -EINVAL;
	r = grow_to(&table->edges, &table->n_edges, site + 1, sizeof(*table->edges));
	if (r < 0)
		return r;
	table->edges[site] = peer_to(table, edge_be, site == table->self.site);
	return 0;
}

int ps_table_set_host(struct ps_table *table, unsigned host, uint32_t underlay_be)
{
	int r;

	if (host >= PS_HOSTS_MAX)
		return -EINVAL;
	r = grow_to(&table->hosts, &table->n_hosts, host + 1, sizeof(*table->hosts));
	if (r < 0)
		return r;
	table->hosts[host] = peer_to(table, underlay_be, host == table->self.host);
	return 0;
}

/* The element for the /24 or /120 in which the last 16 bits of an address lie. */
static struct ps_address *block_of(const struct ps_table *table, size_t number, uint32_t low)
{
	return &table->blocks[number * PS_BLOCK + (low >> 8 & 255)];
}

/* The first of the /24's own elements, which a mixed block has. */
static struct ps_address *elements_of(const struct ps_table *table, const struct ps_address *block)
{
	return &table->addresses[(size_t)block->row * PS_BLOCK];
}

/* The element for the last 16 bits of an IPv6 address, or NULL: its block is not there. */
static struct ps_address *element_of(const struct ps_table *table, size_t number, uint32_t low)
{
	const struct ps_address *block = block_of(table, number, low);

	return block->bits ? &elements_of(table, block)[low & 255] : NULL;
}

/* Where the /112 is or would be; NULL: no place within reach. */
static struct ps_index6 *place6(struct ps_index6 *index6, unsigned bits, const __be32 *ip6)
{
	for (unsigned i = 0; bits && i < PS_INDEX6_PROBES; i++) {
		struct ps_index6 *at = &index6[(ps_index6_hash(ip6) + i) & ((1u << bits) - 1)];

		if (!at->block || ps_index6_is(at, ip6))
			return at;
	}
	return NULL;
}

const struct ps_address *ps_table_find6(const struct ps_table *table, const __be32 *ip6)
{
	const struct ps_index6 *at = place6(table->index6, table->config.index6_bits, ip6);
	const struct ps_address *address =
		at && at->block ? element_of(table, at->block, ps_be32(ip6[3])) : NULL;

	return address && address->bits ? address : NULL;
}

bool ps_table_find(const struct ps_table *table, uint32_t ip4_be, struct ps_address *ret)
{
	uint32_t ip4 = ps_be32(ip4_be);
	const struct ps_address *block = block_of(table, table->index[ip4 >> 16], ip4);
	struct ps_address address;

	if (!block->bits)
		return false;
	address = block->bits == PS_BLOCK_MIXED ? elements_of(table, block)[ip4 & 255]
						: ps_address_in(block, ip4);
	if (address.bits)
		*ret = address;
	return address.bits;
}

bool ps_table_is_source(const struct ps_table *table, uint32_t ip4_be)
{
	for (size_t i = 0; ip4_be && i < table->n_hosts; i++)
		if (table->hosts[i].dst == ip4_be)
			return true;
	return false;
}

static int make_block(struct ps_table *table)
{
	return grow(&table->blocks, &table->n_blocks, 1, PS_BLOCK * sizeof(*table->blocks));
}

/* The element for the last 16 bits of an address that is not shared; makes those around it. */
static int make_element(struct ps_table *table, size_t number, uint32_t low,
			struct ps_address **ret)
{
	struct ps_address *block = block_of(table, number, low);
	int r;

	if (!block->bits) {
		r = grow(&table->addresses, &table->n_address_blocks, 1,
			 PS_BLOCK * sizeof(*table->addresses));
		if (r < 0)
			return r;
		*block = (struct ps_address){.row = (__u32)table->n_address_blocks - 1,
					     .bits = PS_BLOCK_MIXED};
	}
	*ret = &elements_of(table, block)[low & 255];
	return 0;
}

static int make_element4(struct ps_table *table, uint32_t ip4, struct ps_address **ret)
{
	__u32 *number = &table->index[ip4 >> 16];
	int r;

	if (!*number) {
		r = make_block(table);
		if (r < 0)
			return r;
		*number = (__u32)table->n_blocks - 1;
	}
	return make_element(table, *number, ip4, ret);
}

/* Lets the block speak for its addresses once they are all shared alike, row after row, as those
 * of a pool are when its last address has been added. */
static void merge_block(struct ps_table *table, uint32_t ip4)
{
	struct ps_address *block = block_of(table, table->index[ip4 >> 16], ip4);
	struct ps_address first = elements_of(table, block)[0], expected;

	for (uint32_t i = 0; i < PS_BLOCK; i++) {
		expected = ps_address_in(&first, i);
		if (!first.bits ||
		    memcmp(&elements_of(table, block)[i], &expected, sizeof(expected)) != 0)
			return;
	}
	if (block->row == table->n_address_blocks - 1)
		table->n_address_blocks--;
	*block = first;
}

/* Moves all /112s of an index to a wider one; false: not all are within reach there. */
static bool refill6(const struct ps_index6 *from, size_t n, struct ps_index6 *to, unsigned bits)
{
	for (size_t i = 0; i < n; i++) {
		__be32 ip6[4] = {from[i].prefix[0], from[i].prefix[1], from[i].prefix[2],
				 ps_be32((__u32)from[i].prefix_low << 16)};
		struct ps_index6 *at = from[i].block ? place6(to, bits, ip6) : NULL;

		if (from[i].block && !at)
			return false;
		if (at)
			*at = from[i];
	}
	return true;
}

static int widen6(struct ps_table *table)
{
	unsigned old_bits = table->config.index6_bits, bits = old_bits ? old_bits : 2;
	size_t n_old = old_bits ? (size_t)1 << old_bits : 0;

	while (++bits <= PS_INDEX6_BITS_MAX) {
		ps_auto_mem struct ps_index6 *wider = calloc((size_t)1 << bits, sizeof(*wider));

		if (!wider)
			return -ENOMEM;
		if (!refill6(table->index6, n_old, wider, bits))
			continue;
		free(table->index6);
		table->index6 = ps_move(wider);
		table->config.index6_bits = (__u8)bits;
		return 0;
	}
	return -ENOSPC;
}

static int make_element6(struct ps_table *table, const __be32 *ip6, struct ps_address **ret)
{
	struct ps_index6 *at;
	int r;

	while (!(at = place6(table->index6, table->config.index6_bits, ip6))) {
		r = widen6(table);
		if (r < 0)
			return r;
	}
	if (!at->block) {
		r = make_block(table);
		if (r < 0)
			return r;
		memcpy(at->prefix, ip6, sizeof(at->prefix));
		at->prefix_low = (__u16)(ps_be32(ip6[3]) >> 16);
		at->block = (__u32)table->n_blocks - 1;
	}
	return make_element(table, at->block, ps_be32(ip6[3]), ret);
}

static int make_group(struct ps_table *table, unsigned site)
{
	int r;

	if (table->group_of_site[site])
		return 0;
	r = grow(&table->groups, &table->n_groups, 1, sizeof(*table->groups));
	if (r < 0)
		return r;
	table->group_of_site[site] = (__u16)(table->n_groups - 1);
	return 0;
}

static bool shift_is_valid(unsigned shift)
{
	return shift == PS_SHIFT_WHOLE || (shift >= PS_SHIFT_MIN && shift <= PS_SHIFT_MAX);
}

int ps_table_add_address(struct ps_table *table, const struct ps_table_address *address)
{
	unsigned flags = (address->drop ? PS_ADDRESS_DROP : 0) |
			 (address->silent ? PS_ADDRESS_SILENT : 0) |
			 (address->shift == PS_SHIFT_WHOLE ? PS_ADDRESS_WHOLE : 0);
	uint32_t ip4 = ps_be32(address->ip4_be);
	struct ps_address *element, found;
	size_t row = table->n_owners, n_slices;
	int r;

	if (!shift_is_valid(address->shift) || address->site >= PS_SITES_MAX)
		return -EINVAL;
	if (address->ip6 ? ps_table_find6(table, address->ip6) != NULL
			 : ps_table_find(table, address->ip4_be, &found))
		return -EEXIST;
	n_slices = ps_slice_count(address->shift);
	r = make_group(table, address->site);
	if (r >= 0)
		r = address->ip6 ? make_element6(table, address->ip6, &element)
				 : make_element4(table, ip4, &element);
	if (r >= 0)
		r = grow(&table->owners, &table->n_owners,
			 (n_slices + PS_ROW_SLICES - 1) / PS_ROW_SLICES, sizeof(*table->owners));
	if (r < 0)
		return r;
	*element = (struct ps_address){
		.row = (__u32)row,
		.group = table->group_of_site[address->site],
		.site = (__u8)address->site,
		.bits = (__u8)(address->shift | flags << 5),
	};
	if (!address->ip6 && (ip4 & 255) == 255)
		merge_block(table, ip4);
	return 0;
}

/* The host's slot in the group; takes a free one if it has none. */
static int slot_of(struct ps_group *group, unsigned host)
{
	unsigned slot = PS_OWNER_NONE + 1;

	/* Slots fill from the front and host 0 is a host, so the count stands in the unused [0]. */
	for (; slot <= group->host[0]; slot++)
		if (group->host[slot] == host)
			return (int)slot;
	if (slot >= PS_GROUP_MAX)
		return -ENOSPC;
	group->host[slot] = (__u16)host;
	group->host[0] = (__u16)slot;
	return (int)slot;
}

static int set_owner(struct ps_table *table, const struct ps_address *address, unsigned slice,
		     unsigned host)
{
	int slot;

	if (!address)
		return -ENOENT;
	if (host >= PS_HOSTS_MAX)
		return -EINVAL;
	if (slice >= ps_slice_count(ps_address_shift(address)) ||
	    slice < ps_slice_first(ps_address_shift(address)))
		return -ERANGE;
	slot = slot_of(&table->groups[address->group], host);
	if (slot < 0)
		return slot;
	table->owners[address->row + slice / PS_ROW_SLICES].slot[slice % PS_ROW_SLICES] =
		(__u8)slot;
	return 0;
}

int ps_table_set_owner(struct ps_table *table, uint32_t ip4_be, unsigned slice, unsigned host)
{
	struct ps_address address;

	return set_owner(table, ps_table_find(table, ip4_be, &address) ? &address : NULL, slice,
			 host);
}

int ps_table_set_owner6(struct ps_table *table, const __be32 *ip6, unsigned slice, unsigned host)
{
	return set_owner(table, ps_table_find6(table, ip6), slice, host);
}

int ps_table_add_service(struct ps_table *table, uint32_t ip4_be, uint16_t port, uint8_t protocol)
{
	int r = grow(&table->services, &table->n_services, 1, sizeof(*table->services));

	if (r < 0)
		return r;
	table->services[table->n_services - 1] =
		(struct ps_service_key){ip4_be, ps_be16(port), protocol, 0};
	return 0;
}

int ps_table_add_service6(struct ps_table *table, const __be32 *ip6, uint16_t port,
			  uint8_t protocol)
{
	int r = grow(&table->services6, &table->n_services6, 1, sizeof(*table->services6));
	struct ps_service6_key *key;

	if (r < 0)
		return r;
	key = &table->services6[table->n_services6 - 1];
	memcpy(key->address, ip6, sizeof(key->address));
	key->port = ps_be16(port);
	key->protocol = protocol;
	return 0;
}

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
 * names one of 254 peers of a group, handed out as owners appear; only the own site's hosts need one,
 * since what is for another site goes to its edge.
 *
 * The /112s of IPv6 addresses are found by a hash table with at most 8 places to look, made wider until
 * all fit; from there on an address is found as in IPv4.
 *
 * Everything that the kernel would otherwise compute for each packet is computed here: the sum of
 * the outer header in ps_peer.csum, the number of the row.  Next hops are not known
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
	free(t->peers);
	free(t->peers6);
	free(t->hosts);
	free(t->services);
	free(t);
}

static void take_own(struct ps_dispatch_config *config, const struct ps_table_self *self)
{
	config->site = (__u8)self->site;
	config->reject_per_s = PS_REJECTS_PER_S;
	config->underlay = ps_ip_v4_be(&self->underlay);
	config->edge = ps_ip_v4_be(&self->edge);
	if (!ps_ip_is_v4(&self->underlay))
		memcpy(config->underlay6, self->underlay.bytes, sizeof(config->underlay6));
	if (!ps_ip_is_v4(&self->edge))
		memcpy(config->edge6, self->edge.bytes, sizeof(config->edge6));
}

/* One more group. */
static int grow_peers(struct ps_table *table)
{
	size_t n = table->n_peers;
	int r = grow(&table->peers, &n, PS_GROUP_SIZE, sizeof(*table->peers));

	return r < 0 ? r
		     : grow(&table->peers6, &table->n_peers, PS_GROUP_SIZE, sizeof(*table->peers6));
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
	take_own(&t->config, self);
	/* Element 0 of these is "none", of peers the edges. */
	if (grow(&t->blocks, &t->n_blocks, 1, PS_BLOCK * sizeof(*t->blocks)) < 0 ||
	    grow(&t->addresses, &t->n_address_blocks, 1, PS_BLOCK * sizeof(*t->addresses)) < 0 ||
	    grow_peers(t) < 0)
		return -ENOMEM;
	r = ps_table_set_host(t, self->host, &self->underlay);
	if (r >= 0)
		r = ps_table_set_site(t, self->site, &self->edge);
	if (r < 0)
		return r;
	*ret = ps_move(t);
	return 0;
}

static void words_of(const struct ps_ip *ip, __be32 ret[4])
{
	memcpy(ret, ip->bytes, sizeof(ip->bytes));
}

__u16 ps_peer_room(unsigned kind, unsigned mtu)
{
	unsigned overhead = kind == PS_PEER_V6 ? PS_OVERHEAD_V6 : PS_OVERHEAD_V4;

	return (__u16)(kind == PS_PEER_SELF || mtu < overhead ? 0 : mtu - overhead);
}

/* Everything of a peer but its next hop. */
static void set_peer(struct ps_table *table, size_t at, const struct ps_ip *ip, bool is_self)
{
	struct ps_peer *peer = &table->peers[at];
	uint32_t src_be = table->config.underlay;

	peer->is_used = 1;
	peer->kind = is_self ? PS_PEER_SELF : ps_ip_is_v4(ip) ? PS_PEER_V4 : PS_PEER_V6;
	words_of(ip, table->peers6[at].dst);
	if (peer->kind == PS_PEER_V4)
		peer->room = ps_peer_room(peer->kind, table->self.mtu);
	else
		table->peers6[at].room = ps_peer_room(peer->kind, table->self.mtu);
	if (!ps_ip_is_v4(ip)) {
		peer->dst = ps_digest6(table->peers6[at].dst);
		return;
	}
	peer->dst = ps_ip_v4_be(ip);
	peer->src = src_be;
	peer->csum = ps_outer_sum(src_be, peer->dst);
}

int ps_table_set_site(struct ps_table *table, unsigned site, const struct ps_ip *edge)
{
	if (site >= PS_SITES_MAX)
		return -EINVAL;
	set_peer(table, site, edge, site == table->self.site);
	table->peers[site].host = (__u16)site;
	return 0;
}

int ps_table_set_host(struct ps_table *table, unsigned host, const struct ps_ip *underlay)
{
	int r;

	if (host >= PS_HOSTS_MAX)
		return -EINVAL;
	r = grow_to(&table->hosts, &table->n_hosts, host + 1, sizeof(*table->hosts));
	if (r < 0)
		return r;
	table->hosts[host] = *underlay;
	return 0;
}

void ps_table_set_hop(struct ps_table *table, unsigned host, const struct ps_hop *hop)
{
	for (size_t i = PS_GROUP_SIZE; i < table->n_peers; i++)
		if (table->peers[i].is_used && table->peers[i].host == host)
			table->peers[i].hop = *hop;
}

void ps_table_set_edge_hop(struct ps_table *table, unsigned site, const struct ps_hop *hop)
{
	table->peers[site % PS_SITES_MAX].hop = *hop;
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

static bool find_in(const struct ps_table *table, size_t number, uint32_t low,
		    struct ps_address *ret)
{
	const struct ps_address *block = block_of(table, number, low);
	struct ps_address address;

	address = block->row_bits & PS_BLOCK_ALIKE ? ps_address_in(block, low)
						   : elements_of(table, block)[low & 255];
	if (address.bits)
		*ret = address;
	return address.bits;
}

bool ps_table_find(const struct ps_table *table, const struct ps_ip *ip, struct ps_address *ret)
{
	const struct ps_index6 *at;
	uint32_t ip4;
	__be32 ip6[4];

	if (ps_ip_is_v4(ip)) {
		ip4 = ps_be32(ps_ip_v4_be(ip));
		return find_in(table, table->index[ip4 >> 16], ip4, ret);
	}
	words_of(ip, ip6);
	at = place6(table->index6, table->config.index6_bits, ip6);
	return at && find_in(table, at->block, ps_be32(ip6[3]), ret);
}

bool ps_table_is_source(const struct ps_table *table, const struct ps_ip *ip)
{
	for (size_t i = 0; !ps_ip_is_none(ip) && i < table->n_hosts; i++)
		if (ps_ip_cmp(&table->hosts[i], ip) == 0)
			return true;
	return false;
}

static int make_block(struct ps_table *table)
{
	return grow(&table->blocks, &table->n_blocks, 1, PS_BLOCK * sizeof(*table->blocks));
}

/* The block for the last 16 bits of an address that is not shared, with elements of its own. */
static int make_mixed(struct ps_table *table, size_t number, uint32_t low, struct ps_address **ret)
{
	struct ps_address *block = block_of(table, number, low);
	int r;

	if (!block->row) {
		r = grow(&table->addresses, &table->n_address_blocks, 1,
			 PS_BLOCK * sizeof(*table->addresses));
		if (r < 0)
			return r;
		block->row = (__u32)table->n_address_blocks - 1;
	}
	*ret = block;
	return 0;
}

static int make_block4(struct ps_table *table, uint32_t ip4, struct ps_address **ret)
{
	__u32 *number = &table->index[ip4 >> 16];
	int r;

	if (!*number) {
		r = make_block(table);
		if (r < 0)
			return r;
		*number = (__u32)table->n_blocks - 1;
	}
	return make_mixed(table, *number, ip4, ret);
}

/* Lets the /24 or /120 speak for its addresses once they are all shared alike, row after row, as those
 * of a pool are when its last address has been added. */
static void merge_block(struct ps_table *table, struct ps_address *block)
{
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
	block->row_bits |= PS_BLOCK_ALIKE;
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

static int make_block6(struct ps_table *table, const __be32 *ip6, struct ps_address **ret)
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
	return make_mixed(table, at->block, ps_be32(ip6[3]), ret);
}

static int make_group(struct ps_table *table)
{
	int r = table->group ? 0 : grow_peers(table);

	if (r >= 0)
		table->group = 1;
	return r;
}

/* log2 of the elements of a row: 65,536 >> shift slices, PS_ROW_SLICES in one. */
static unsigned row_bits_of(unsigned shift)
{
	return shift < 11 ? 11 - shift : 0;
}

static bool shift_is_valid(unsigned shift)
{
	return shift == PS_SHIFT_WHOLE || (shift >= PS_SHIFT_MIN && shift <= PS_SHIFT_MAX);
}

static int make_block_of(struct ps_table *table, const struct ps_ip *ip, struct ps_address **ret)
{
	__be32 ip6[4];

	if (ps_ip_is_v4(ip))
		return make_block4(table, ps_be32(ps_ip_v4_be(ip)), ret);
	words_of(ip, ip6);
	return make_block6(table, ip6, ret);
}

static unsigned flags_of(const struct ps_table_address *address)
{
	return (address->drop ? PS_ADDRESS_DROP : 0) | (address->silent ? PS_ADDRESS_SILENT : 0) |
	       (address->shift == PS_SHIFT_WHOLE ? PS_ADDRESS_WHOLE : 0);
}

int ps_table_add_address(struct ps_table *table, const struct ps_table_address *address)
{
	bool is_here = address->site == table->self.site;
	unsigned last = address->ip.bytes[15];
	struct ps_address *block, found;
	size_t row = table->n_owners;
	int r;

	if (!shift_is_valid(address->shift) || address->site >= PS_SITES_MAX)
		return -EINVAL;
	if (ps_table_find(table, &address->ip, &found))
		return -EEXIST;
	r = is_here ? make_group(table) : 0;
	if (r >= 0)
		r = make_block_of(table, &address->ip, &block);
	if (r >= 0)
		r = grow(&table->owners, &table->n_owners, (size_t)1 << row_bits_of(address->shift),
			 sizeof(*table->owners));
	if (r < 0)
		return r;
	elements_of(table, block)[last] = (struct ps_address){
		.row = (__u32)row,
		.group = (__u8)(is_here ? table->group : 0),
		.row_bits = (__u8)row_bits_of(address->shift),
		.site = (__u8)address->site,
		.bits = (__u8)(address->shift | flags_of(address) << 5),
	};
	if (last == PS_BLOCK - 1)
		merge_block(table, block);
	return 0;
}

/* The host's byte in the group; takes a free one if it has none. */
static int slot_of(struct ps_table *table, unsigned host)
{
	struct ps_peer *group = &table->peers[(size_t)table->group * PS_GROUP_SIZE];
	unsigned slot = PS_OWNER_NONE + 1;

	for (; slot < PS_GROUP_MAX && group[slot].is_used; slot++)
		if (group[slot].host == host)
			return (int)slot;
	if (slot >= PS_GROUP_MAX)
		return -ENOSPC;
	set_peer(table, (size_t)table->group * PS_GROUP_SIZE + slot, &table->hosts[host],
		 host == table->self.host);
	group[slot].host = (__u16)host;
	return (int)slot;
}

int ps_table_set_owner(struct ps_table *table, const struct ps_ip *ip, unsigned slice,
		       unsigned host)
{
	struct ps_address address;
	int slot;

	if (!ps_table_find(table, ip, &address))
		return -ENOENT;
	if (host >= table->n_hosts || ps_ip_is_none(&table->hosts[host]))
		return -EINVAL;
	if (slice >= ps_slice_count(ps_address_shift(&address)) ||
	    slice < ps_slice_first(ps_address_shift(&address)))
		return -ERANGE;
	if (address.site != table->self.site)
		return 0;
	slot = slot_of(table, host);
	if (slot < 0)
		return slot;
	table->owners[address.row + slice / PS_ROW_SLICES].slot[slice % PS_ROW_SLICES] = (__u8)slot;
	return 0;
}

int ps_table_add_service(struct ps_table *table, const struct ps_ip *ip, uint16_t port,
			 uint8_t protocol)
{
	int r = grow(&table->services, &table->n_services, 1, sizeof(*table->services));
	struct ps_service_key *key;

	if (r < 0)
		return r;
	key = &table->services[table->n_services - 1];
	words_of(ip, key->address);
	key->port = ps_be16(port);
	key->protocol = protocol;
	return 0;
}

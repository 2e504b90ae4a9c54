// SPDX-License-Identifier: MIT
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "base/range.h"
#include "cm.h"
#include "dispatch/steer.h"
#include "dispatch/table.h"

enum { N_ADDRESSES = 600, N_HOSTS = 40, N_UNDERLAYS = 1300, SITE = 3 };

static struct ps_ip v4(uint32_t ip4)
{
	return ps_ip_from_v4(htonl(ip4));
}

static struct ps_ip underlay_of(unsigned host)
{
	return v4(0xc0000201 + host);
}

static struct ps_table *new_table(void)
{
	const struct ps_table_self self = {underlay_of(5), v4(0xc0000064), SITE, 5, 1500};
	struct ps_table *table = NULL;

	assert_int_equal(ps_table_new(&self, &table), 0);
	for (unsigned host = 0; host < N_UNDERLAYS; host++) {
		struct ps_ip underlay = underlay_of(host);

		assert_int_equal(ps_table_set_host(table, host, &underlay), 0);
	}
	return table;
}

static int add(struct ps_table *table, uint32_t ip4, unsigned site, unsigned shift)
{
	const struct ps_table_address address = {v4(ip4), site, shift, false, false};

	return ps_table_add_address(table, &address);
}

static bool find(const struct ps_table *table, uint32_t ip4, struct ps_address *ret)
{
	struct ps_ip ip = v4(ip4);

	return ps_table_find(table, &ip, ret);
}

static int own(struct ps_table *table, uint32_t ip4, unsigned slice, unsigned host)
{
	struct ps_ip ip = v4(ip4);

	return ps_table_set_owner(table, &ip, slice, host);
}

static int host_in(const struct ps_table *table, const struct ps_address *address, unsigned slice)
{
	unsigned slot =
		table->owners[address->row + slice / PS_ROW_SLICES].slot[slice % PS_ROW_SLICES];

	return slot == PS_OWNER_NONE ? -1 : table->peers[ps_peer_at(address, (__u8)slot)].host;
}

/* The host that owns a slice, as the stages find it; -1: nobody. */
static int owner(const struct ps_table *table, uint32_t ip4, unsigned slice)
{
	struct ps_address address;

	assert_true(find(table, ip4, &address));
	return host_in(table, &address, slice);
}

struct model {
	uint32_t ip4;
	unsigned shift, site;
	short owner[512];
};

static void make_model(struct model *model)
{
	static const unsigned shifts[] = {7, 8, 10, 11, 14, PS_SHIFT_WHOLE};

	for (unsigned i = 0; i < N_ADDRESSES; i++) {
		/* Spread over /24s and /16s; 7919 is prime, so all differ. */
		model[i] = (struct model){.ip4 = 0xc6330000 + i * 7919,
					  .shift = shifts[(unsigned)rand() % 6],
					  .site = (unsigned)rand() % 5};
		for (unsigned k = 0; k < 512; k++)
			model[i].owner[k] = -1;
	}
}

static void every_slice_belongs_to_whom_it_was_given_last(void **state)
{
	ps_auto(ps_table_free) struct ps_table *table = new_table();
	ps_auto_mem struct model *model = calloc(N_ADDRESSES, sizeof(*model));

	(void)state;
	srand(3);
	assert_non_null(model);
	make_model(model);
	for (unsigned i = 0; i < N_ADDRESSES; i++)
		assert_int_equal(add(table, model[i].ip4, model[i].site, model[i].shift), 0);
	for (unsigned i = 0; i < 40000; i++) {
		struct model *m = &model[(unsigned)rand() % N_ADDRESSES];
		unsigned first = ps_slice_first(m->shift);
		unsigned slice = first + (unsigned)rand() % (ps_slice_count(m->shift) - first);
		unsigned host = (unsigned)rand() % N_HOSTS;

		assert_int_equal(own(table, m->ip4, slice, host), 0);
		if (m->site == SITE) /* other sites know themselves */
			m->owner[slice] = (short)host;
	}
	for (unsigned i = 0; i < N_ADDRESSES; i++) {
		struct ps_address a;

		assert_true(find(table, model[i].ip4, &a));
		assert_int_equal(a.site, model[i].site);
		assert_int_equal(ps_address_shift(&a), model[i].shift);
		for (unsigned slice = 0; slice < ps_slice_count(model[i].shift); slice++)
			assert_int_equal(owner(table, model[i].ip4, slice), model[i].owner[slice]);
		assert_false(find(table, model[i].ip4 + 1, &a));
	}
}

static void mistakes_are_refused_by_name(void **state)
{
	ps_auto(ps_table_free) struct ps_table *table = new_table();
	const struct ps_ip somebody = underlay_of(7);
	const uint32_t ip4 = 0xc6336401;

	(void)state;
	assert_int_equal(add(table, ip4, 3, 11), 0);
	assert_int_equal(add(table, ip4, 3, 11), -EEXIST);
	assert_int_equal(add(table, ip4 + 1, 3, 6), -EINVAL);
	assert_int_equal(add(table, ip4 + 1, 3, 15), -EINVAL);
	assert_int_equal(add(table, ip4 + 1, 256, 11), -EINVAL);
	assert_int_equal(own(table, ip4 + 1, 1, 0), -ENOENT);
	assert_int_equal(own(table, ip4, 32, 0), -ERANGE);
	assert_int_equal(own(table, ip4, 0, 0), -ERANGE);
	assert_int_equal(own(table, ip4, 1, PS_HOSTS_MAX), -EINVAL);
	assert_int_equal(own(table, ip4, 1, N_UNDERLAYS), -EINVAL);
	assert_int_equal(ps_table_set_host(table, PS_HOSTS_MAX, &somebody), -EINVAL);
	assert_int_equal(ps_table_set_site(table, PS_SITES_MAX, &somebody), -EINVAL);
}

static void the_255th_owner_of_a_site_does_not_fit(void **state)
{
	ps_auto(ps_table_free) struct ps_table *table = new_table();
	const uint32_t ip4 = 0xc6336401;

	(void)state;
	assert_int_equal(add(table, ip4, 3, 7), 0);
	assert_int_equal(add(table, ip4 + 1, 4, 7), 0);
	for (unsigned host = 0; host < 254; host++)
		assert_int_equal(own(table, ip4, 8 + host, 1000 + host), 0);
	assert_int_equal(own(table, ip4, 300, 999), -ENOSPC);
	assert_int_equal(owner(table, ip4, 300), -1);
	assert_int_equal(owner(table, ip4, 8 + 253), 1253);
	assert_int_equal(own(table, ip4 + 1, 300, 999), 0);
}

static void a_24_whose_addresses_are_alike_takes_no_elements_of_its_own(void **state)
{
	static const unsigned shifts[] = {7, 10, 11, 14, PS_SHIFT_WHOLE};
	ps_auto(ps_table_free) struct ps_table *table = NULL;
	uint32_t ip4 = 0xc6336400;

	(void)state;
	for (unsigned k = 0; k < PS_N_ELEMENTS(shifts); k++) {
		unsigned last = ps_slice_count(shifts[k]) - 1;

		ps_table_free(&table);
		table = new_table();
		for (uint32_t i = 0; i < 256; i++) {
			assert_int_equal(add(table, ip4 + i, 3, shifts[k]), 0);
			assert_int_equal(table->n_address_blocks, i == 255 ? 1 : 2);
		}
		for (uint32_t i = 0; i < 256; i++)
			assert_int_equal(own(table, ip4 + i, last, i % 200), 0);
		for (uint32_t i = 0; i < 256; i++)
			assert_int_equal(owner(table, ip4 + i, last), (int)(i % 200));
		assert_int_equal(add(table, ip4 + 9, 3, shifts[k]), -EEXIST);
	}
}

static void a_24_keeps_its_elements_when_one_address_differs(void **state)
{
	ps_auto(ps_table_free) struct ps_table *table = new_table();

	(void)state;
	for (uint32_t i = 0; i < 256; i++)
		assert_int_equal(add(table, 0xc6336400 + i, i == 77 ? 4 : 3, 11), 0);
	assert_int_equal(table->n_address_blocks, 2);
	assert_int_equal(table->n_blocks, 2);
	assert_int_equal(table->n_owners, 256);
	assert_int_equal(add(table, 0xc6336500, 3, 7), 0);
	assert_int_equal(table->n_address_blocks, 3);
	assert_int_equal(table->n_blocks, 2);
	assert_int_equal(table->n_owners, 256 + 16);
}

enum { N_PREFIXES6 = 3000 };

/* 7919 and 104729 are prime, so all differ. */
static struct ps_ip make_ip6(unsigned i)
{
	const __be32 words[4] = {htonl(0x20010db8), htonl(i % 7), htonl(i * 7919),
				 htonl(i * 104729)};
	struct ps_ip ip;

	memcpy(ip.bytes, words, sizeof(ip.bytes));
	return ip;
}

static void every_ipv6_address_is_found_and_its_neighbours_are_not(void **state)
{
	ps_auto(ps_table_free) struct ps_table *table = new_table();
	struct ps_ip first = make_ip6(0);
	struct ps_address found;

	(void)state;
	assert_false(ps_table_find(table, &first, &found));
	for (unsigned i = 0; i < N_PREFIXES6; i++) {
		struct ps_table_address address = {make_ip6(i), i % 5, 11, false, false};

		assert_int_equal(ps_table_add_address(table, &address), 0);
		assert_int_equal(ps_table_add_address(table, &address), -EEXIST);
		assert_int_equal(ps_table_set_owner(table, &address.ip, 1 + i % 31, i % N_HOSTS),
				 0);
	}
	for (unsigned i = 0; i < N_PREFIXES6; i++) {
		struct ps_ip ip = make_ip6(i);

		assert_true(ps_table_find(table, &ip, &found));
		assert_int_equal(found.site, i % 5);
		assert_int_equal(host_in(table, &found, 1 + i % 31),
				 i % 5 == SITE ? (int)(i % N_HOSTS) : -1);
		ip.bytes[15] ^= 1;
		assert_false(ps_table_find(table, &ip, &found));
		ip.bytes[15] ^= 1;
		ip.bytes[4] ^= 0x80;
		assert_false(ps_table_find(table, &ip, &found));
		assert_int_equal(ps_table_set_owner(table, &ip, 1, 1), -ENOENT);
	}
	assert_in_range(1u << table->config.index6_bits, N_PREFIXES6, 16 * N_PREFIXES6);
}

static void ipv6_addresses_of_a_112_share_its_blocks(void **state)
{
	ps_auto(ps_table_free) struct ps_table *table = new_table();

	(void)state;
	for (uint32_t i = 0; i < 512; i++) {
		struct ps_table_address address = {.site = SITE, .shift = 11};

		assert_int_equal(ps_ip_parse("2001:db8::", &address.ip), 0);
		address.ip = ps_ip_add(&address.ip, i);

		assert_int_equal(ps_table_add_address(table, &address), 0);
	}
	assert_int_equal(table->n_blocks, 2);
	assert_int_equal(table->n_address_blocks, 1); /* both /120s speak for their addresses */
}

static void peers_know_who_is_this_host_and_this_site(void **state)
{
	ps_auto(ps_table_free) struct ps_table *table = new_table();

	const struct ps_ip stranger = v4(0xc0010101), far = v4(0xc00002c8), none = {{0}};
	const struct ps_ip nine = underlay_of(9);
	struct ps_address address;
	const struct ps_peer *group;

	(void)state;
	assert_int_equal(ps_table_set_site(table, 0, &far), 0);
	assert_int_equal(add(table, 0xc6336401, SITE, 11), 0);
	assert_int_equal(own(table, 0xc6336401, 1, 9), 0);
	assert_int_equal(own(table, 0xc6336401, 2, 5), 0);
	assert_true(find(table, 0xc6336401, &address));
	group = &table->peers[ps_peer_at(&address, 0)];
	assert_int_equal(group[1].kind, PS_PEER_V4);
	assert_int_equal(group[1].host, 9);
	assert_int_equal(group[1].src, htonl(0xc0000206));
	assert_int_equal(group[1].dst, htonl(0xc000020a));
	assert_int_equal(group[1].room, 1472);
	assert_int_equal(group[2].kind, PS_PEER_SELF);
	assert_int_equal(group[3].is_used, 0);
	assert_int_equal(table->peers[SITE].kind, PS_PEER_SELF);
	assert_int_equal(table->peers[0].kind, PS_PEER_V4);
	assert_true(ps_table_is_source(table, &nine));
	assert_false(ps_table_is_source(table, &stranger));
	assert_false(ps_table_is_source(table, &none));
}

static void an_ipv6_underlay_needs_no_ipv4_header(void **state)
{
	struct ps_table_self self = {.site = SITE, .host = 1, .mtu = 1500};
	struct ps_table_address address = {v4(0xc6336401), SITE, 11, false, false};
	ps_auto(ps_table_free) struct ps_table *table = NULL;
	const struct ps_peer *peer;
	struct ps_ip other;

	(void)state;
	assert_int_equal(ps_ip_parse("2001:db8:a::1", &self.underlay), 0);
	assert_int_equal(ps_ip_parse("2001:db8:a::2", &other), 0);
	assert_int_equal(ps_table_new(&self, &table), 0);
	assert_int_equal(table->config.underlay, 0);
	assert_memory_equal(table->config.underlay6, self.underlay.bytes, 16);
	assert_int_equal(ps_table_set_host(table, 2, &other), 0);
	assert_int_equal(ps_table_add_address(table, &address), 0);
	assert_int_equal(ps_table_set_owner(table, &address.ip, 1, 2), 0);
	peer = &table->peers[PS_GROUP_SIZE + 1];
	assert_int_equal(peer->kind, PS_PEER_V6);
	assert_memory_equal(table->peers6[PS_GROUP_SIZE + 1].dst, other.bytes, 16);
	assert_true(ps_table_is_source(table, &other));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_slice_belongs_to_whom_it_was_given_last),
		cmocka_unit_test(mistakes_are_refused_by_name),
		cmocka_unit_test(the_255th_owner_of_a_site_does_not_fit),
		cmocka_unit_test(a_24_whose_addresses_are_alike_takes_no_elements_of_its_own),
		cmocka_unit_test(a_24_keeps_its_elements_when_one_address_differs),
		cmocka_unit_test(every_ipv6_address_is_found_and_its_neighbours_are_not),
		cmocka_unit_test(ipv6_addresses_of_a_112_share_its_blocks),
		cmocka_unit_test(peers_know_who_is_this_host_and_this_site),
		cmocka_unit_test(an_ipv6_underlay_needs_no_ipv4_header),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
#include "agent/hello.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

struct wire_head {
	uint8_t magic[4];
	uint16_t part_be, parts_be;
	uint32_t round_be;
	uint8_t digest[PS_PLAN_DIGEST_LEN];
	uint64_t revision_be;
	uint16_t n_name_be, n_slices_be;
} __attribute__((packed));
_Static_assert(sizeof(struct wire_head) == 56, "wire layout, see hello.h");

struct wire_slice {
	struct ps_ip ip;
	uint16_t slice_be, zero;
} __attribute__((packed));
_Static_assert(sizeof(struct wire_slice) == 20, "wire layout, see hello.h");
_Static_assert(sizeof(struct wire_head) + PS_HELLO_NAME_MAX +
			       PS_HELLO_SLICES_MAX * sizeof(struct wire_slice) <=
		       PS_HELLO_MAX,
	       "the longest hello fits");

static const uint8_t magic[4] = {'P', 'S', 'H', '2'};

size_t ps_hello_encode(const struct ps_hello *hello, uint8_t ret[PS_HELLO_MAX])
{
	size_t n_name = strlen(hello->name), at = sizeof(struct wire_head);
	struct wire_head head = {
		.part_be = htobe16(hello->part),
		.parts_be = htobe16(hello->parts),
		.round_be = htobe32(hello->round),
		.revision_be = htobe64(hello->revision),
		.n_name_be = htobe16((uint16_t)n_name),
		.n_slices_be = htobe16((uint16_t)hello->n_slices),
	};

	memcpy(head.magic, magic, sizeof(magic));
	memcpy(head.digest, hello->digest, sizeof(head.digest));
	memcpy(ret, &head, sizeof(head));
	memcpy(ret + at, hello->name, n_name);
	at += n_name;
	for (size_t i = 0; i < hello->n_slices; i++) {
		struct wire_slice slice = {.ip = hello->slices[i].ip,
					   .slice_be = htobe16(hello->slices[i].slice)};

		memcpy(ret + at, &slice, sizeof(slice));
		at += sizeof(slice);
	}
	return at;
}

int ps_hello_decode(const uint8_t *data, size_t len, struct ps_hello *ret)
{
	struct ps_hello hello = {0};
	struct wire_head head;
	size_t n_name, at = sizeof(head);

	if (len < sizeof(head))
		return -EBADMSG;
	memcpy(&head, data, sizeof(head));
	n_name = be16toh(head.n_name_be);
	hello.n_slices = be16toh(head.n_slices_be);
	if (memcmp(head.magic, magic, sizeof(magic)) != 0 || n_name > PS_HELLO_NAME_MAX ||
	    hello.n_slices > PS_HELLO_SLICES_MAX ||
	    len != at + n_name + hello.n_slices * sizeof(struct wire_slice))
		return -EBADMSG;
	hello.part = be16toh(head.part_be);
	hello.parts = be16toh(head.parts_be);
	hello.round = be32toh(head.round_be);
	hello.revision = be64toh(head.revision_be);
	if (hello.part >= hello.parts || memchr(data + at, '\0', n_name))
		return -EBADMSG;
	memcpy(hello.digest, head.digest, sizeof(hello.digest));
	memcpy(hello.name, data + at, n_name);
	at += n_name;
	for (size_t i = 0; i < hello.n_slices; i++) {
		struct wire_slice slice;

		memcpy(&slice, data + at + i * sizeof(slice), sizeof(slice));
		hello.slices[i].ip = slice.ip;
		hello.slices[i].slice = be16toh(slice.slice_be);
	}
	*ret = hello;
	return 0;
}

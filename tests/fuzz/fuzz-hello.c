// SPDX-License-Identifier: MIT
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* What decodes must encode to something that decodes the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct ps_hello first, second;
	uint8_t again[PS_HELLO_MAX];

	if (ps_hello_decode(data, len, &first) < 0)
		return 0;
	if (ps_hello_decode(again, ps_hello_encode(&first, again), &second) < 0 ||
	    memcmp(&first, &second, sizeof(first)) != 0)
		abort();
	return 0;
}

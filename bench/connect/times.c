// SPDX-License-Identifier: MIT
#include "times.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int times_add(struct times *times, const uint32_t *ns, size_t n)
{
	if (times->n + n > times->size) {
		size_t size = (times->n + n) * 2;
		uint32_t *grown = reallocarray(times->ns, size, sizeof(*ns));

		if (!grown)
			return -ENOMEM;
		times->ns = grown;
		times->size = size;
	}
	if (n)
		memcpy(times->ns + times->n, ns, n * sizeof(*ns));
	times->n += n;
	return 0;
}

static int compare(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return (left > right) - (left < right);
}

double times_percentile_us(struct times *times, unsigned percent)
{
	size_t i = times->n * percent / 100;

	if (!times->n)
		return 0;
	qsort(times->ns, times->n, sizeof(*times->ns), compare);
	return times->ns[i < times->n ? i : times->n - 1] / 1000.0;
}

void times_clear(struct times *times)
{
	free(times->ns);
	*times = (struct times){0};
}

// SPDX-License-Identifier: MIT
#include <ctype.h>
#include <string.h>

#include "plan/yaml-walk.h"

/* Farther than this, a suggestion puzzles more than it helps. */
enum { DISTANCE_MAX = 2 };

static unsigned least(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;

	return m < c ? m : c;
}

/* Levenshtein distance without regard to case, or anything above DISTANCE_MAX. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[PS_NAME_MAX + 1];
	size_t n = strlen(b);

	if (n > PS_NAME_MAX || strlen(a) > PS_NAME_MAX)
		return DISTANCE_MAX + 1;
	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 1; *a; i++, a++) {
		unsigned diagonal = row[0], lowest = i;

		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			bool same = tolower((unsigned char)*a) == tolower((unsigned char)b[j - 1]);
			unsigned d = least(row[j] + 1, row[j - 1] + 1, diagonal + !same);

			diagonal = row[j];
			row[j] = d;
			lowest = d < lowest ? d : lowest;
		}
		if (lowest > DISTANCE_MAX)
			return lowest;
	}
	return row[n];
}

void ps_guess_offer(struct ps_guess *guess, const char *candidate)
{
	unsigned d = distance(guess->wanted, candidate);

	if (d > DISTANCE_MAX || d >= strlen(guess->wanted))
		return;
	if (guess->best && d >= guess->distance)
		return;
	guess->best = candidate;
	guess->distance = d;
}

struct ps_quote ps_quote(const char *text)
{
	static const char ellipsis[] = "...";
	struct ps_quote q;
	size_t n = 0;

	for (; text[n] && n < sizeof(q.text) - sizeof(ellipsis); n++)
		q.text[n] = iscntrl((unsigned char)text[n]) ? '?' : text[n];
	if (text[n]) {
		while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
			n--; /* not within a UTF-8 character */
		memcpy(q.text + n, ellipsis, sizeof(ellipsis));
	} else {
		q.text[n] = '\0';
	}
	return q;
}

bool ps_name_valid(const char *name)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789._-";
	size_t len = strlen(name);

	return len >= 1 && len <= PS_NAME_MAX && strspn(name, allowed) == len;
}

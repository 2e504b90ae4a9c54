// SPDX-License-Identifier: MIT
/*
 * The plane in a terminal: one line for each address of which somebody holds a slice, one cell for
 * each slice, a letter and a colour for each host.  Addresses nobody uses are counted, not drawn.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

enum {
	CELLS_MAX = 64, /* a line: addresses with more slices show several in a cell */
	N_COLOURS = 6,  /* 31…36 of ECMA-48 SGR, the readable ones */
	WIDTH_MIN = 15, /* every IPv4 address */
};

static const char marks[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static char mark_of(unsigned host)
{
	return marks[host % (sizeof(marks) - 1)];
}

static void put_mark(unsigned host, bool colour, FILE *out)
{
	if (colour)
		fprintf(out, "\033[1;%um%c\033[0m", 31 + host % N_COLOURS, mark_of(host));
	else
		fputc(mark_of(host), out);
}

/* Of the column of addresses, characters. */
static int address_width(const struct ps_plan *plan)
{
	char address[PS_IP_TEXT_MAX];
	size_t width = WIDTH_MIN;

	for (size_t i = 0; i < plan->n_grants; i++) {
		size_t len = strlen(ps_ip_format(&plan->grants[i].address, address));

		width = len > width ? len : width;
	}
	return (int)width;
}

/* Draws the grants [first, end) of one address. */
static void draw_address(const struct ps_plan *plan, size_t first, size_t end, int width,
			 bool colour, FILE *out)
{
	const struct ps_grant *grants = plan->grants;
	const struct ps_pool *pool = &plan->pools[grants[first].pool];
	unsigned n_slices = ps_slice_count(pool->shift);
	unsigned per_cell = n_slices > CELLS_MAX ? n_slices / CELLS_MAX : 1;
	char address[PS_IP_TEXT_MAX];
	size_t at = first;

	fprintf(out, "%-*s %-8s ", width, ps_ip_format(&grants[first].address, address),
		pool->name);
	for (unsigned slice = 0; slice < n_slices; slice += per_cell) {
		while (at < end && grants[at].slice < slice)
			at++;
		if (at < end && grants[at].slice < slice + per_cell)
			put_mark(grants[at].host, colour, out);
		else
			fputc(slice < ps_slice_first(pool->shift) ? 'x' : '.', out);
	}
	fputc('\n', out);
}

static void draw_legend(const struct ps_plan *plan, bool colour, FILE *out)
{
	for (unsigned i = 0; i < plan->n_hosts; i++) {
		put_mark(i, colour, out);
		fprintf(out, " %s (%s)   ", plan->hosts[i].name,
			plan->sites[plan->hosts[i].site].name);
	}
	fputs(". nobody   x below port 1024, never leased\n", out);
}

static uint64_t count_addresses(const struct ps_plan *plan)
{
	uint64_t n = 0;

	for (size_t i = 0; i < plan->n_pools; i++)
		for (size_t j = 0; j < plan->pools[i].n_blocks; j++)
			n += ps_prefix_size(&plan->pools[i].blocks[j].prefix);
	return n;
}

void ps_cli_draw_plane(const struct ps_plan *plan, bool colour, FILE *out)
{
	int width = address_width(plan);
	uint64_t drawn = 0;

	fprintf(out, "%-*s %-8s port 0 %*s 65535\n", width, "address", "pool", 18, "...");
	for (size_t i = 0, end; i < plan->n_grants; i = end) {
		for (end = i + 1; end < plan->n_grants; end++)
			if (ps_ip_cmp(&plan->grants[end].address, &plan->grants[i].address) != 0)
				break;
		draw_address(plan, i, end, width, colour, out);
		drawn++;
	}
	fprintf(out, "and %llu addresses of which nobody holds a slice\n",
		(unsigned long long)(count_addresses(plan) - drawn));
	draw_legend(plan, colour, out);
}

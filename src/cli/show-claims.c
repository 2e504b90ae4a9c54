// SPDX-License-Identifier: MIT
/* Every port in use, read from the pinned ledger; needs no daemon. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "base/own.h"
#include "cli/cli.h"

struct claims {
	struct ps_claim_key *kept; /* in quarantine, sorted */
	size_t n_kept, room;
	json_t *rows;
};

static int by_bytes(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct ps_claim_key));
}

static int add_kept(const struct ps_claim_key *flow, const struct ps_quarantine *value, void *arg)
{
	struct claims *claims = arg;

	(void)value;
	if (claims->n_kept == claims->room) {
		size_t room = 2 * claims->room + 64;
		void *kept = reallocarray(claims->kept, room, sizeof(*claims->kept));

		if (!kept)
			return -ENOMEM;
		claims->kept = kept;
		claims->room = room;
	}
	claims->kept[claims->n_kept++] = *flow;
	return 0;
}

static json_t *ip_json(const union ps_ip16 *ip16)
{
	char text[PS_IP_TEXT_MAX];
	struct ps_ip ip;

	memcpy(ip.bytes, ip16->bytes, sizeof(ip.bytes));
	return ps_ip16_is_zero(ip16) ? json_null() : json_string(ps_ip_format(&ip, text));
}

static json_t *claim_json(const struct claims *claims, const struct ps_claim_key *flow)
{
	bool kept = claims->n_kept &&
		    bsearch(flow, claims->kept, claims->n_kept, sizeof(*flow), by_bytes);

	return json_pack("{s:s, s:o, s:i, s:o, s:o, s:s}", "protocol",
			 ps_protocol_name(flow->protocol), "address", ip_json(&flow->src), "port",
			 ntohs(flow->sport), "peer", ip_json(&flow->dst), "peer_port",
			 flow->dport ? json_integer(ntohs(flow->dport)) : json_null(), "state",
			 kept ? "quarantine" : "held");
}

static int add_page(const struct ps_page *page, unsigned n_words, void *arg)
{
	const uint64_t *words = (const uint64_t *)(page + 1);
	const struct claims *claims = arg;

	for (unsigned bit = 0; bit < n_words * 64; bit++) {
		struct ps_claim_key flow = ps_page_flow(page, bit);

		if (words[bit / 64] >> bit % 64 & 1 &&
		    json_array_append_new(claims->rows, claim_json(claims, &flow)) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int read_claims(const char *pin_dir, struct claims *claims)
{
	int r = ps_egress_quarantine(pin_dir, add_kept, claims);

	if (r < 0)
		return r;
	if (claims->n_kept)
		qsort(claims->kept, claims->n_kept, sizeof(*claims->kept), by_bytes);
	return ps_egress_pages(pin_dir, add_page, claims);
}

int ps_cli_show_claims(const struct ps_cli *cli, int argc, char **argv)
{
	static const struct ps_column columns[] = {
		{"protocol", "PROTOCOL"}, {"address", "ADDRESS"},     {"port", "PORT"},
		{"peer", "PEER"},         {"peer_port", "PEER PORT"}, {"state", "STATE"}};
	struct claims claims = {.rows = json_array()};
	ps_auto_mem char *pin_dir = NULL;
	int r;

	(void)argv;
	if (argc > 1)
		return ps_cli_fail(PS_EXIT_USE, "expected no argument");
	if (asprintf(&pin_dir, "%s/%s", PS_PIN_ROOT, cli->instance) < 0)
		pin_dir = NULL;
	r = pin_dir ? read_claims(pin_dir, &claims) : -ENOMEM;
	free(claims.kept);
	if (r == 0)
		return ps_cli_print_rows(cli, claims.rows, columns, PS_N_ELEMENTS(columns));
	json_decref(claims.rows);
	return ps_cli_fail(PS_EXIT_REFUSED, "the ledger at %s cannot be read: %s", pin_dir,
			   r == -ENOENT ? "no hooks are attached" : strerror(-r));
}

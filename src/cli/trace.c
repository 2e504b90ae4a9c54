// SPDX-License-Identifier: MIT
/*
 * `portslice trace`: where would this packet go, and why?  The packet comes from flags, in hex or from
 * a capture, the tables from a plan, the decision from the very header that the kernel program is
 * built from.  Next hops are taken as resolved: the question is who, not by which cable.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <linux/if_ether.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <string.h>

#include <pcap/pcap.h>

#include "agent/compile.h"
#include "base/own.h"
#include "cli/cli.h"
#include "cli/trace-hex.h"
#include "dispatch/dispatch.h"
#include "dispatch/trace.h"

/* All packets come at one time, any but 0. */
enum { TRACE_IFINDEX = 1, FRAME_MAX = 128, TRACE_NOW_NS = 1000000000 };

struct question {
	const char *plan_file, *at, *pcap, *hex;
	struct ps_ip from, to;
	uint16_t from_port, to_port;
	const char *protocol;
	bool has_from, has_to, unexpected;
};

/* The tables of the host where packets arrive, and what names them. */
struct scene {
	struct ps_plan *plan;
	struct ps_table *table;
	unsigned at;
	struct ps_trace_memory *memory; /* of the fragments that came before */
};

static void clear_scene(struct scene *scene)
{
	free(scene->memory);
	ps_table_free(&scene->table);
	ps_plan_free(&scene->plan);
}

/* One source of packets. */
static int check_question(const struct question *q)
{
	bool has_flags = q->has_from || q->has_to;

	if (has_flags + (q->pcap != NULL) + (q->hex != NULL) > 1)
		return ps_cli_fail(PS_EXIT_USE,
				   "expected only one of --from and --to, --hex, --pcap");
	if (!q->pcap && !q->hex && !(q->has_from && q->has_to))
		return ps_cli_fail(PS_EXIT_USE,
				   "expected --from and --to, --hex FRAME, or --pcap FILE");
	return PS_EXIT_DONE;
}

static int parse_question(int argc, char **argv, struct question *q)
{
	static const struct option longs[] = {{"plan", required_argument, NULL, 'p'},
					      {"at", required_argument, NULL, 'a'},
					      {"from", required_argument, NULL, 'f'},
					      {"to", required_argument, NULL, 't'},
					      {"protocol", required_argument, NULL, 'P'},
					      {"unexpected", no_argument, NULL, 'u'},
					      {"pcap", required_argument, NULL, 'r'},
					      {"hex", required_argument, NULL, 'x'},
					      {NULL, 0, NULL, 0}};
	int option, r = PS_EXIT_DONE;

	optind = 0;
	while (r == PS_EXIT_DONE && (option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (option == 'p')
			q->plan_file = optarg;
		else if (option == 'a')
			q->at = optarg;
		else if (option == 'P')
			q->protocol = optarg;
		else if (option == 'u')
			q->unexpected = true;
		else if (option == 'r')
			q->pcap = optarg;
		else if (option == 'x')
			q->hex = optarg;
		else if (option == 'f')
			r = ps_cli_parse_endpoint(optarg, &q->from, &q->from_port);
		else if (option == 't')
			r = ps_cli_parse_endpoint(optarg, &q->to, &q->to_port);
		else
			r = PS_EXIT_USE;
		q->has_from |= option == 'f';
		q->has_to |= option == 't';
	}
	return r == PS_EXIT_DONE ? check_question(q) : r;
}

/* Where the packet arrives: --at, else this host, else the plan's first. */
static int find_arrival(const struct ps_cli *cli, const struct question *q, struct scene *scene)
{
	json_t *status = NULL;
	int host = 0;

	if (q->at) {
		host = ps_plan_find_host(scene->plan, q->at);
	} else if (!q->plan_file) {
		int r = ps_cli_ask_status(cli, &status);

		if (r != PS_EXIT_DONE)
			return r;
		host = ps_plan_find_host(scene->plan,
					 json_string_value(json_object_get(status, "host")));
		json_decref(status);
	}
	if (host == PS_PLAN_NONE)
		return ps_cli_fail(PS_EXIT_USE, "the plan has no host `%s`",
				   q->at ? q->at : "of this daemon");
	scene->at = (unsigned)host;
	return PS_EXIT_DONE;
}

static void resolve_all(struct ps_table *table)
{
	for (size_t i = 0; i < table->n_peers; i++)
		table->peers[i].hop.ifindex = TRACE_IFINDEX;
	table->config.gateway.ifindex = table->config.gateway6.ifindex = TRACE_IFINDEX;
	table->config.fresh_until_ns = UINT64_MAX;
}

static int set_scene(const struct ps_cli *cli, const struct question *q, struct scene *scene)
{
	int r = ps_cli_plan(cli, q->plan_file, &scene->plan);

	if (r == PS_EXIT_DONE)
		r = find_arrival(cli, q, scene);
	if (r != PS_EXIT_DONE)
		return r;
	scene->memory = calloc(1, sizeof(*scene->memory));
	r = scene->memory ? ps_compile_table(scene->plan, scene->at, &scene->table) : -ENOMEM;
	if (r < 0)
		return ps_cli_fail(PS_EXIT_REFUSED, "cannot build the tables: %s", strerror(-r));
	resolve_all(scene->table);
	return PS_EXIT_DONE;
}

static const char *const actions[] = {[PS_TRACE_PASS] = "pass",
				      [PS_TRACE_TX] = "send",
				      [PS_TRACE_REDIRECT] = "send",
				      [PS_TRACE_SPLIT] = "send",
				      [PS_TRACE_DROP] = "drop"};

/* NULL: null. */
static json_t *hex(const unsigned char *bytes, size_t len)
{
	ps_auto_mem char *text = bytes ? calloc(2 * len + 1, 1) : NULL;

	for (size_t i = 0; text && i < len; i++)
		sprintf(text + 2 * i, "%02x", bytes[i]);
	return text ? json_string(text) : json_null();
}

/* One row of the answer, or NULL and a message. */
static json_t *trace_frame(const struct scene *scene, const struct question *q, const void *frame,
			   size_t len)
{
	ps_auto(ps_trace_result_clear) struct ps_trace_result result = {0};
	struct ps_trace_options options = {.expected = !q->unexpected,
					   .ifindex = TRACE_IFINDEX,
					   .now_ns = TRACE_NOW_NS,
					   .headroom = PS_TRACE_HEADROOM,
					   .memory = scene->memory};
	const struct ps_plan *plan = scene->plan;
	int r = ps_trace_packet(scene->table, frame, len, &options, &result);
	bool leaves;

	if (r < 0) {
		ps_cli_fail(0, "cannot trace the packet: %s", strerror(-r));
		return NULL;
	}
	leaves = result.action != PS_TRACE_PASS && result.action != PS_TRACE_DROP;
	return json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:s, s:o, s:o}", "at",
			 plan->hosts[scene->at].name, "action", actions[result.action], "reason",
			 ps_dispatch_reason_label(result.reason), "host",
			 result.host >= 0 ? plan->hosts[result.host].name : NULL, "site",
			 result.site >= 0 ? plan->sites[result.site].name : NULL, "why",
			 ps_dispatch_reason_text(result.reason), "bytes",
			 hex(leaves ? result.frame : NULL, result.len), "second_bytes",
			 hex(result.second, result.second_len));
}

static int protocol_number(const char *name, bool is_v4)
{
	static const struct {
		const char *name;
		int number;
	} known[] = {{"tcp", IPPROTO_TCP},
		     {"udp", IPPROTO_UDP},
		     {"echo-reply", IPPROTO_ICMP},
		     {"echo-request", IPPROTO_ICMP}};

	for (size_t i = 0; i < PS_N_ELEMENTS(known); i++)
		if (strcmp(name, known[i].name) == 0)
			return known[i].number == IPPROTO_ICMP && !is_v4 ? IPPROTO_ICMPV6
									 : known[i].number;
	return -EINVAL;
}

static size_t put_transport(const struct question *q, int protocol, uint8_t *at)
{
	struct tcphdr tcp = {.source = htons(q->from_port),
			     .dest = htons(q->to_port),
			     .doff = 5,
			     .syn = 1,
			     .window = htons(64240)};
	struct udphdr udp = {.source = htons(q->from_port),
			     .dest = htons(q->to_port),
			     .len = htons(sizeof(udp))};
	bool is_request = strcmp(q->protocol, "echo-request") == 0;
	struct icmphdr icmp = {.type = is_request ? ICMP_ECHO : ICMP_ECHOREPLY,
			       .un.echo.id = htons(q->to_port)};

	if (protocol == IPPROTO_ICMPV6)
		icmp.type = is_request ? ICMP6_ECHO_REQUEST : ICMP6_ECHO_REPLY;

	if (protocol == IPPROTO_TCP)
		memcpy(at, &tcp, sizeof(tcp));
	else if (protocol == IPPROTO_UDP)
		memcpy(at, &udp, sizeof(udp));
	else
		memcpy(at, &icmp, sizeof(icmp));
	return protocol == IPPROTO_TCP ? sizeof(tcp) : 8;
}

static size_t put_header4(const struct question *q, int protocol, size_t len, uint8_t *at)
{
	struct iphdr ip = {.version = 4,
			   .ihl = 5,
			   .ttl = 64,
			   .protocol = (uint8_t)protocol,
			   .tot_len = htons((uint16_t)(sizeof(ip) + len)),
			   .saddr = ps_ip_v4_be(&q->from),
			   .daddr = ps_ip_v4_be(&q->to)};

	memcpy(at, &ip, sizeof(ip));
	return sizeof(ip);
}

static size_t put_header6(const struct question *q, int protocol, size_t len, uint8_t *at)
{
	struct ip6_hdr ip = {.ip6_flow = htonl(6u << 28), .ip6_plen = htons((uint16_t)len)};

	ip.ip6_nxt = (uint8_t)protocol;
	ip.ip6_hlim = 64;
	memcpy(&ip.ip6_src, q->from.bytes, sizeof(ip.ip6_src));
	memcpy(&ip.ip6_dst, q->to.bytes, sizeof(ip.ip6_dst));
	memcpy(at, &ip, sizeof(ip));
	return sizeof(ip);
}

/* The frame that the flags describe; gives its length. */
static size_t put_frame(const struct question *q, int protocol, uint8_t ret[FRAME_MAX])
{
	bool is_v4 = ps_ip_is_v4(&q->to);
	struct ethhdr ethernet = {.h_proto = htons(is_v4 ? ETH_P_IP : ETH_P_IPV6)};
	size_t at = sizeof(ethernet),
	       header = is_v4 ? sizeof(struct iphdr) : sizeof(struct ip6_hdr);
	size_t len = put_transport(q, protocol, ret + at + header);

	memcpy(ret, &ethernet, sizeof(ethernet));
	at += is_v4 ? put_header4(q, protocol, len, ret + at)
		    : put_header6(q, protocol, len, ret + at);
	return at + len;
}

static int trace_flags(const struct scene *scene, const struct question *q, json_t *rows)
{
	bool is_v4 = ps_ip_is_v4(&q->to);
	int protocol = protocol_number(q->protocol, is_v4);
	uint8_t frame[FRAME_MAX] = {0};
	json_t *row;

	if (protocol < 0)
		return ps_cli_fail(PS_EXIT_USE,
				   "--protocol takes tcp, udp, echo-reply or echo-request");
	if (is_v4 != ps_ip_is_v4(&q->from))
		return ps_cli_fail(PS_EXIT_USE, "--from and --to must be of one address family");
	row = trace_frame(scene, q, frame, put_frame(q, protocol, frame));
	return row && json_array_append_new(rows, row) == 0 ? PS_EXIT_DONE : PS_EXIT_REFUSED;
}

/* The answers so far. */
struct answers {
	const struct scene *scene;
	const struct question *q;
	json_t *rows;
};

static int answer(const unsigned char *frame, size_t len, void *arg)
{
	const struct answers *answers = arg;
	json_t *row = trace_frame(answers->scene, answers->q, frame, len);

	return row && json_array_append_new(answers->rows, row) == 0 ? PS_EXIT_DONE
								     : PS_EXIT_REFUSED;
}

static int trace_hex(const struct scene *scene, const struct question *q, json_t *rows)
{
	struct answers answers = {scene, q, rows};

	return ps_cli_each_hex(q->hex, answer, &answers);
}

/* What is missing would look like a truncated packet. */
static int check_whole(const struct question *q, size_t n, const struct pcap_pkthdr *header)
{
	if (header->caplen >= header->len)
		return PS_EXIT_DONE;
	return ps_cli_fail(PS_EXIT_USE,
			   "%s: frame %zu: only %u of its %u bytes were captured; capture whole "
			   "frames, as tcpdump does with -s 0",
			   q->pcap, n, header->caplen, header->len);
}

static int trace_captured(const struct scene *scene, const struct question *q, pcap_t *capture,
			  json_t *rows)
{
	struct answers answers = {scene, q, rows};
	struct pcap_pkthdr *header;
	const unsigned char *frame;
	size_t n = 0;
	int code = PS_EXIT_DONE, next = 0;

	while (code == PS_EXIT_DONE && (next = pcap_next_ex(capture, &header, &frame)) == 1) {
		code = check_whole(q, ++n, header);
		if (code == PS_EXIT_DONE)
			code = answer(frame, header->caplen, &answers);
	}
	if (code == PS_EXIT_DONE && next == PCAP_ERROR)
		return ps_cli_fail(PS_EXIT_USE, "%s: after frame %zu: %s", q->pcap, n,
				   pcap_geterr(capture));
	return code;
}

static int trace_pcap(const struct scene *scene, const struct question *q, json_t *rows)
{
	char error[PCAP_ERRBUF_SIZE];
	pcap_t *capture = pcap_open_offline(q->pcap, error);
	int code;

	if (!capture)
		return ps_cli_fail(PS_EXIT_USE, "cannot read capture: %s", error);
	if (pcap_datalink(capture) != DLT_EN10MB)
		code = ps_cli_fail(PS_EXIT_USE, "%s is not a capture of Ethernet frames", q->pcap);
	else
		code = trace_captured(scene, q, capture, rows);
	pcap_close(capture);
	return code;
}

static int trace(const struct scene *scene, const struct question *q, json_t *rows)
{
	if (q->hex)
		return trace_hex(scene, q, rows);
	return q->pcap ? trace_pcap(scene, q, rows) : trace_flags(scene, q, rows);
}

static int run_trace(const struct ps_cli *cli, int argc, char **argv)
{
	static const struct ps_column columns[] = {{"at", "AT"},         {"action", "ACTION"},
						   {"reason", "REASON"}, {"host", "OWNER"},
						   {"site", "SITE"},     {"why", "WHY"}};
	ps_auto(clear_scene) struct scene scene = {0};
	struct question q = {.protocol = "tcp"};
	json_t *rows = json_array();
	int r = parse_question(argc, argv, &q);

	if (r == PS_EXIT_DONE)
		r = set_scene(cli, &q, &scene);
	if (r == PS_EXIT_DONE)
		r = trace(&scene, &q, rows);
	if (r == PS_EXIT_DONE)
		return ps_cli_print_rows(cli, rows, columns, PS_N_ELEMENTS(columns));
	json_decref(rows);
	return r;
}

const struct ps_verb ps_verbs_trace[] = {
	{NULL, "trace",
	 "[--plan FILE] [--at HOST] [--protocol P] --from A:PORT --to A:PORT | --hex FRAME | --pcap FILE",
	 "Say where a packet would go, and why",
	 "The packet is described by flags, or given as an Ethernet frame: in hex (`-`: frames\n"
	 "on standard input, one a line) or in a capture. Fragments are known by those before. It\n"
	 "arrives at HOST (default: this host; with --plan the plan's first). P is tcp, udp,\n"
	 "echo-reply or echo-request; for the last two the port is the identifier.\n"
	 "  --unexpected   suppose that no socket of the owner knows the conversation\n"
	 "With --json the bytes that would leave are given in hex; those of a packet that is\n"
	 "split are the two frames in `bytes` and `second_bytes`.\n",
	 run_trace},
	{0},
};

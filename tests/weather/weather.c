// SPDX-License-Identifier: MIT
/*
 * Internet weather: millions of random and mutated packets, at full live speed, through two hosts
 * that run the real dispatcher (rig.h has the picture).
 *
 * A round writes a few thousand frames into a mapped array (mutate.c: rows of the packet table, as
 * they are, or with flipped bits, cut, with lying lengths, spliced, remixed with tags and outer
 * headers), sends them to one host with BPF_F_TEST_XDP_LIVE_FRAMES, and waits until all are accounted
 * for.  Hosts send to each other through the observer, which is their switch; so what one
 * encapsulates the other decapsulates, refuses or sends on.
 *
 * Every frame that leaves a host, or is let through to its stack, is shown to judge.c, which finds
 * the packet that it was made of among those sent, and says by rules of its own whether it may.
 *
 * The books, balanced after each round and to the packet, for each host:
 *
 *   sent to it + switched to it  =  frames that its interfaces received  =  sum of its counters
 *   counters of what leaves      =  frames seen on the far ends of its interfaces (two for each
 *                                   packet sent in two pieces)
 *   counters of what passes      =  frames seen before its stack
 *   counters of what is dropped  =  XDP drops of its interfaces
 *
 * and no veth ring may have lost one.  Every reason must be reached, so some rounds run with a
 * table that is not fresh, one of each host with a budget of one answer a second, and some frames
 * come with next to no head room.
 *
 * usage: weather [MILLIONS [SEED]]
 */
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/own.h"
#include "dispatch/load.h"
#include "judge.h"
#include "mutate.h"
#include "rig.h"
#include "rows.h"

enum { SETTLE_MS = 5000, STALE_EVERY = 8, SCARCE_ROUND = 5, N_KINDS = 5 };

enum kind { LEAVES, PASSES, DROPPED, SPLIT, SPLIT_FAILED };

struct weather {
	struct rig rig;
	struct judge judge;
	struct mutator mutator;
	uint64_t seed, sent_to[STORM_HOSTS];
	uint64_t start_ns, rounds;
};

/* Reasons by what becomes of the packet; all others are drops. */
static enum kind kind_of(unsigned reason)
{
	switch (reason) {
	case PS_REASON_NOT_OURS:
	case PS_REASON_DELIVER:
	case PS_REASON_DELIVER_SERVICE:
	case PS_REASON_MTU_HINT:
		return PASSES;
	case PS_REASON_SPLIT:
		return SPLIT;
	case PS_REASON_DROP_SPLIT:
		return SPLIT_FAILED;
	default:
		return strncmp(ps_dispatch_reason_label(reason), "drop_", 5) == 0 ? DROPPED
										  : LEAVES;
	}
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int count_kinds(const struct rig_host *host, uint64_t ret[N_KINDS])
{
	uint64_t counters[PS_REASON_MAX];
	int r = ps_dispatch_counters(host->pin_dir, counters);

	memset(ret, 0, N_KINDS * sizeof(*ret));
	for (unsigned i = 0; r >= 0 && i < PS_REASON_MAX; i++)
		ret[kind_of(i)] += counters[i];
	return r;
}

/* What the program took. */
static uint64_t taken(const uint64_t kinds[N_KINDS])
{
	return kinds[LEAVES] + kinds[PASSES] + kinds[DROPPED] + kinds[SPLIT];
}

/* Frames that left: those in two pieces were first passed to the program that cuts them. */
static uint64_t left(const uint64_t kinds[N_KINDS])
{
	return kinds[LEAVES] + 2 * (kinds[SPLIT] - kinds[SPLIT_FAILED]);
}

/* Sent to the host so far, by the storm and by the other one. */
static uint64_t arrivals(const struct weather *w, unsigned host)
{
	const volatile struct storm_counts *counts = &w->rig.skel->bss->counts;

	return w->sent_to[host] + counts->switched[host];
}

static bool is_balanced(const struct weather *w, unsigned host)
{
	const volatile struct storm_counts *counts = &w->rig.skel->bss->counts;
	uint64_t kinds[N_KINDS];

	return count_kinds(&w->rig.hosts[host], kinds) >= 0 && taken(kinds) == arrivals(w, host) &&
	       left(kinds) == counts->seen[2 * host] + counts->seen[2 * host + 1] &&
	       kinds[PASSES] == counts->seen[STORM_PORTS + host];
}

static int settle(const struct weather *w)
{
	uint64_t end_ns = now_ns() + SETTLE_MS * 1000000ull;

	while (!is_balanced(w, 0) || !is_balanced(w, 1))
		if (now_ns() > end_ns)
			return -EBADMSG;
	return 0;
}

/* A frame whose checksum the sender left to hardware, too long for the underlay: cannot be cut. */
static int send_unfinished(struct weather *w, unsigned host)
{
	const struct packet packet = {.protocol = UDP, .dport = SECOND, .payload = 1472};
	struct sockaddr_ll there = {.sll_family = AF_PACKET,
				    .sll_ifindex = (int)w->rig.skel->bss->port_ifindex[2 * host]};
	struct virtio_net_hdr unfinished = {VIRTIO_NET_HDR_F_NEEDS_CSUM, 0, 0, 0, 34, 6};
	ps_auto_fd int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	unsigned char frame[sizeof(unfinished) + FRAME_MAX];
	struct layout at = make_frame(&packet, frame + sizeof(unfinished));
	int one = 1;

	memcpy(frame, &unfinished, sizeof(unfinished));
	if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) < 0 ||
	    sendto(fd, frame, sizeof(unfinished) + at.len, 0, (const struct sockaddr *)&there,
		   sizeof(there)) < 0)
		return -errno;
	w->sent_to[host]++;
	return 0;
}

/* Each host's budgets for one round: a slow machine would never use up what a second allows. */
static void set_budgets(const struct weather *w, struct ps_dispatch *dispatch)
{
	__u32 per_s = w->rounds / 2 == SCARCE_ROUND ? 1 : PS_REJECTS_PER_S;

	__atomic_store_n(&dispatch->skel->bss->config.reject_per_s, per_s, __ATOMIC_SEQ_CST);
}

static int one_round(struct weather *w)
{
	unsigned host = w->rounds & 1;
	uint64_t before = w->rig.skel->bss->counts.sent;
	struct ps_dispatch *dispatch = w->rig.hosts[host].dispatch;
	int r = ps_dispatch_set_fresh(dispatch, w->rounds / 2 % STALE_EVERY == 1 ? 0 : UINT64_MAX);

	set_budgets(w, dispatch);
	w->mutator.host = host;
	mutate_fill(&w->mutator, w->rig.slots, STORM_SLOTS);
	if (r >= 0)
		r = rig_send(&w->rig, host, STORM_SLOTS);
	if (r < 0)
		return r;
	w->sent_to[host] += w->rig.skel->bss->counts.sent - before;
	w->rounds++;
	r = send_unfinished(w, host);
	if (r >= 0)
		r = settle(w);
	return r < 0 ? r : rig_look(&w->rig);
}

/* The conversation over IPv6 that host 0 expects. */
static int open_udp6(const struct rig *rig)
{
	struct sockaddr_in6 ours = {.sin6_family = AF_INET6, .sin6_port = htons(OWN6)};
	struct sockaddr_in6 peer = {.sin6_family = AF_INET6, .sin6_port = htons(443)};
	int r = rig_enter(rig->hosts[0].ns), fd;

	if (r < 0)
		return r;
	fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || inet_pton(AF_INET6, "2001:db8::1", &ours.sin6_addr) != 1 ||
	    inet_pton(AF_INET6, "2001:db8:ffff::200", &peer.sin6_addr) != 1 ||
	    bind(fd, (const struct sockaddr *)&ours, sizeof(ours)) < 0 ||
	    connect(fd, (const struct sockaddr *)&peer, sizeof(peer)) < 0)
		return -errno;
	return rig_enter(rig->here); /* the socket stays open while the process lives */
}

static int complain(const char *what, unsigned host, uint64_t got, uint64_t expected)
{
	if (got == expected)
		return 0;
	printf("host %u: %s: %llu, expected %llu\n", host, what, (unsigned long long)got,
	       (unsigned long long)expected);
	return 1;
}

/* What the host's interfaces say of themselves, against the program's counters. */
static int audit_interfaces(const struct weather *w, unsigned index)
{
	static const char *const names[] = {"u", "w"};
	const struct rig_host *host = &w->rig.hosts[index];
	uint64_t kinds[N_KINDS], xdp_drops = 0, n;
	struct rig_traffic sum = {0}, one;
	int bad = count_kinds(host, kinds) < 0;

	for (unsigned i = 0; i < PS_N_ELEMENTS(names); i++) {
		bad += rig_traffic(host->ns, names[i], &one) < 0;
		sum.rx_packets += one.rx_packets;
		sum.rx_dropped += one.rx_dropped;
		sum.tx_packets += one.tx_packets;
		sum.tx_dropped += one.tx_dropped;
		bad += rig_statistic(host->ns, names[i], "_xdp_drops", &n) < 0;
		xdp_drops += n;
	}
	bad += complain("received", index, sum.rx_packets, arrivals(w, index));
	bad += complain("left", index, sum.tx_packets, left(kinds));
	bad += complain("dropped by XDP", index, xdp_drops, kinds[DROPPED]);
	bad += complain("lost by rings", index, sum.rx_dropped + sum.tx_dropped, 0);
	return bad;
}

static int audit_host(const struct weather *w, unsigned host)
{
	const struct storm_counts *counts = &w->rig.skel->bss->counts;
	uint64_t kinds[N_KINDS];
	int bad = count_kinds(&w->rig.hosts[host], kinds) < 0;

	printf("host %u: %llu in = %llu out + %llu to the stack + %llu dropped + %llu in two pieces "
	       "(of which %llu dropped)\n",
	       host, (unsigned long long)arrivals(w, host), (unsigned long long)kinds[LEAVES],
	       (unsigned long long)kinds[PASSES], (unsigned long long)kinds[DROPPED],
	       (unsigned long long)kinds[SPLIT], (unsigned long long)kinds[SPLIT_FAILED]);
	bad += complain("counted", host, taken(kinds), arrivals(w, host));
	bad += complain("seen leaving", host, counts->seen[2 * host] + counts->seen[2 * host + 1],
			left(kinds));
	bad += complain("seen passing", host, counts->seen[STORM_PORTS + host], kinds[PASSES]);
	return bad + audit_interfaces(w, host);
}

static int audit_reasons(const struct weather *w)
{
	uint64_t both[STORM_HOSTS][PS_REASON_MAX];
	int bad = 0;

	for (unsigned host = 0; host < STORM_HOSTS; host++)
		if (ps_dispatch_counters(w->rig.hosts[host].pin_dir, both[host]) < 0)
			return 1;
	for (unsigned i = 0; i < PS_REASON_MAX; i++) {
		printf("  %-18s %10llu %10llu\n", ps_dispatch_reason_label(i),
		       (unsigned long long)both[0][i], (unsigned long long)both[1][i]);
		if (both[0][i] + both[1][i])
			continue;
		printf("reason never reached: %s\n", ps_dispatch_reason_label(i));
		bad++;
	}
	return bad;
}

static int audit(const struct weather *w, double seconds)
{
	const struct storm_counts *counts = &w->rig.skel->bss->counts;
	const struct judge *judge = &w->judge;
	int bad = audit_reasons(w);

	bad += audit_host(w, 0) + audit_host(w, 1);
	printf("judged: %llu encapsulated, %llu answers, %llu delivered, %llu passed; %llu searched for, %llu wrong\n",
	       (unsigned long long)judge->encapsulated, (unsigned long long)judge->answered,
	       (unsigned long long)judge->delivered, (unsigned long long)judge->passed,
	       (unsigned long long)judge->searched, (unsigned long long)judge->wrong);
	if (judge->wrong)
		printf("first wrong: %s\n", judge->first_wrong);
	bad += complain("not shown", 0, counts->unseen, 0) + (judge->wrong != 0);
	printf("%llu packets in %.1f s, seed %llu: %s\n", (unsigned long long)counts->sent, seconds,
	       (unsigned long long)w->seed, bad ? "WRONG" : "all accounted for");
	return bad;
}

static int run_weather(struct weather *w, uint64_t n)
{
	uint64_t start_ns;
	int r = rig_open(&w->rig);

	w->rig.judge = judge_frame;
	w->rig.judge_arg = &w->judge;
	w->judge.sent = w->rig.slots;
	w->judge.n_sent = STORM_SLOTS;
	if (r >= 0)
		r = open_udp6(&w->rig);
	start_ns = now_ns();
	while (r >= 0 && w->rig.skel->bss->counts.sent < n)
		r = one_round(w);
	if (r < 0)
		fprintf(stderr, "weather: round %llu: %s\n", (unsigned long long)w->rounds,
			strerror(-r));
	if (!w->rounds)
		return 1;
	return audit(w, (double)(now_ns() - start_ns) / 1e9) + (r < 0);
}

int main(int argc, char **argv)
{
	static struct weather weather;
	double millions = argc > 1 ? atof(argv[1]) : 10;
	int bad;

	weather.seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 20260101;
	weather.mutator.seed = weather.seed | 1;
	if (!may_load_bpf()) {
		puts("skipped: may not load BPF programs");
		return 77;
	}
	bad = run_weather(&weather, (uint64_t)(millions * 1e6));
	rig_close(&weather.rig);
	return bad != 0;
}

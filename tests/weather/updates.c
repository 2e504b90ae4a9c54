// SPDX-License-Identifier: MIT
/*
 * Tables change under full load, and no packet is sent by a half-written row.
 *
 * One thread sends packets that need every kind of row (to hosts, to another site, answers by the
 * gateway, too big, delivered) at full live speed.  A second changes rows of both hosts 1,000 times a
 * second: next hops of hosts, edge and gateway, path MTUs, freshness.  A third changes the owner of a
 * slice several times a second, by putting a new generation under the running link, as an agent does.
 *
 * A next hop is drawn from 254 that differ in every byte of both MACs and in the interface (rig.h), so
 * whatever mixes two of them is seen on the far end: bytes that differ, or the wrong end.  The outer
 * destination must be that peer's, a MTU told one that was set, and what goes to a slice's owner must
 * go to one of the two that own it in turn.
 *
 * At that pace even a naive writer is almost never caught: a store into a line that the CPU owns takes
 * nanoseconds (none in a million frames, measured).  So the changes are then made again without any
 * pause, millions a second.  The control writes hops byte by byte into the same mapped memory, and must
 * be seen to tear, or the watch is worth nothing; the agent's way must not.
 *
 * usage: updates [SECONDS]
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/own.h"
#include "dispatch/load.h"
#include "judge.h"
#include "rig.h"
#include "rows.h"

enum {
	CHANGES_PER_S = 1000,
	FLAT_OUT = 0,
	MTU_LOW = 1300,
	SWAPS_PER_S = 5,
	N_HOPS = 254,
	ANSWERS_PER_S = 1000000,
	CONTROL_PATIENCE = 12, /* times as long as the others */
};

typedef int change_fn(struct ps_dispatch *dispatch, unsigned what, const struct ps_hop *hop);

struct load {
	struct rig rig;
	struct judge judge;
	pthread_mutex_t generation; /* one writer at a time, and none into what is being replaced */
	atomic_bool over;
	change_fn *set_hop;
	uint64_t per_s;
	uint64_t changes, swaps, frames, ks[256]; /* ks: frames by number of the hop */
	int error;
};

static const struct packet traffic[] = {
	{.dport = FIRST},
	{.dport = SECOND},
	{.dport = SECOND, .protocol = UDP, .vlans = 1},
	{.dst = A_WHOLE, .dport = 5000},
	{.dst = A_FAR, .dport = 5000},
	{.dport = FREE, .outer = {6079}},
	{.dport = FIRST, .frag = 0x4000, .payload = 1350},
	{.dst = A_FAR, .dport = 5000, .frag = 0x4000, .payload = 1350},
	{.dport = OWN},
	{.v6 = true, .dport = SECOND},
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* What each number of a hop's last byte is in the tables. */
static int set_live(struct ps_dispatch *dispatch, unsigned peer, const struct ps_hop *hop)
{
	if (peer == STORM_GATEWAY)
		return ps_dispatch_set_gateway(dispatch, hop);
	return peer == 4 ? ps_dispatch_set_edge_hop(dispatch, 1, hop)
			 : ps_dispatch_set_hop(dispatch, peer, hop);
}

static void write_bytes(struct ps_hop *to, const struct ps_hop *hop)
{
	unsigned char from[sizeof(*hop)];
	volatile unsigned char *at = (void *)to;

	memcpy(from, hop, sizeof(from));
	for (unsigned i = 0; i < sizeof(from); i++)
		at[i] = from[i];
}

/* As a writer would who knows nothing of readers. */
static int set_naively(struct ps_dispatch *dispatch, unsigned peer, const struct ps_hop *hop)
{
	struct ps_peer *peers = dispatch->skel->bss->peers;

	if (peer == STORM_GATEWAY)
		write_bytes(&dispatch->skel->bss->config.gateway, hop);
	if (peer == 4)
		write_bytes(&peers[1].hop, hop);
	for (size_t i = PS_GROUP_SIZE; peer < 4 && i < dispatch->n_peers; i++)
		if (peers[i].is_used && peers[i].host == peer)
			write_bytes(&peers[i].hop, hop);
	return 0;
}

static unsigned told_mtu(const struct storm_seen *seen)
{
	return get32(seen->bytes + 34) >> 16 == (3 << 8 | 4) ? get16(seen->bytes + 40) : 0;
}

/* May host 0 hand this to the peer? */
static bool may_get(const struct storm_seen *seen, unsigned peer)
{
	const unsigned char *inner = seen->bytes + 14 + 28;
	unsigned port = get16(inner + (inner[0] >> 4 == 6 ? 42 : 22));

	if (inner[0] >> 4 == 4 && get32(inner + 16) == A_FAR)
		return peer == 4;
	return peer == 1 || (peer == 2 && port == SECOND);
}

static const char *judge_load(struct load *load, const struct storm_seen *seen)
{
	unsigned k, mtu;
	int peer;

	if (seen->place >= STORM_PORTS)
		return NULL;
	load->frames++;
	if (seen->bytes[0] == 6) { /* to the sender, by the way it came */
		mtu = told_mtu(seen);
		return mtu == 1500 - 28 || mtu == MTU_LOW - 28 ? NULL : "a MTU that was never set";
	}
	peer = judge_hop(seen, &k);
	if (peer < 0)
		return "half a hop";
	load->ks[k]++;
	if (peer == STORM_GATEWAY)
		return NULL;
	if (seen->place / 2 == 0 && !may_get(seen, (unsigned)peer))
		return "to a host that never owned the port";
	return judge_outer(seen, (unsigned)peer);
}

static void see(const struct storm_seen *seen, void *arg)
{
	struct load *load = arg;
	const char *why = judge_load(load, seen);

	if (why)
		judge_wrong(&load->judge, seen, why);
}

static void *stop(struct load *load, int error)
{
	load->error = load->error ? load->error : error;
	atomic_store(&load->over, true);
	return NULL;
}

/* The n-th change. */
static int change(struct load *load, uint64_t n)
{
	static const unsigned peers[STORM_HOSTS][4] = {{1, 2, 4, STORM_GATEWAY},
						       {0, 2, 4, STORM_GATEWAY}};
	const struct ps_ip edge = ps_ip_from_v4(htonl(EDGE_FAR)),
			   other = ps_ip_from_v4(htonl(NEIGHBOUR));
	unsigned host = n % STORM_HOSTS, peer = peers[host][n / 2 % 4];
	struct ps_dispatch *dispatch = load->rig.hosts[host].dispatch;
	struct ps_hop hop = rig_hop(&load->rig, host, peer, 1 + (unsigned)(n / 8 % N_HOPS));
	int r = 0;

	if (n % 10 < 8)
		return load->set_hop(dispatch, peer, &hop);
	if (n % 10 == 8)
		return ps_dispatch_set_fresh(dispatch, n / 10 & 1 ? UINT64_MAX : 0);
	r = ps_dispatch_set_mtu(load->rig.hosts[0].dispatch, n / 10 & 1 ? &edge : &other,
				n / 20 & 1 ? MTU_LOW : 0);
	return r;
}

static void *change_rows(void *arg)
{
	struct load *load = arg;
	uint64_t start_ns = now_ns();

	while (!atomic_load(&load->over)) {
		uint64_t due = load->per_s == FLAT_OUT
				       ? load->changes + 1000
				       : (now_ns() - start_ns) * load->per_s / 1000000000u;
		int r = 0;

		pthread_mutex_lock(&load->generation);
		while (r >= 0 && load->changes < due)
			r = change(load, load->changes++);
		pthread_mutex_unlock(&load->generation);
		if (r < 0)
			return stop(load, r);
		if (load->per_s != FLAT_OUT)
			nanosleep(&(struct timespec){.tv_nsec = 1000000000 / CHANGES_PER_S}, NULL);
	}
	return NULL;
}

/* Slice 18 of A belongs to host 2 and, every other time, to host 1. */
static int swap(struct load *load, unsigned host)
{
	ps_auto(ps_table_free) struct ps_table *table = NULL;
	int r = rig_table(&load->rig, host, &table);

	if (r >= 0)
		table->config.reject_per_s = ANSWERS_PER_S;
	if (r >= 0)
		r = set_owner(table, A, 18, load->swaps / 2 & 1 ? 2 : 1);
	return r < 0 ? r : rig_put(&load->rig, host, table, &load->generation);
}

static void *change_generations(void *arg)
{
	struct load *load = arg;

	while (!atomic_load(&load->over)) {
		int r = swap(load, load->swaps % STORM_HOSTS);

		if (r < 0)
			return stop(load, r);
		load->swaps++;
		nanosleep(&(struct timespec){.tv_nsec = 1000000000 / SWAPS_PER_S / 4}, NULL);
	}
	return NULL;
}

static void fill(struct storm_slot *slots)
{
	unsigned char frame[FRAME_MAX];

	for (unsigned i = 0; i < STORM_SLOTS; i++) {
		struct layout at = make_frame(&traffic[i % PS_N_ELEMENTS(traffic)], frame);

		slots[i].len = (unsigned)at.len;
		slots[i].lift = 0;
		memcpy(slots[i].bytes, frame, at.len);
		slots[i].bytes[6] = 6;
	}
}

/* The naive writer only until it is caught: when that is, is luck. */
static bool is_caught(const struct load *load)
{
	return load->set_hop == set_naively && load->judge.wrong;
}

static int stream(struct load *load, double seconds)
{
	uint64_t end_ns = now_ns() + (uint64_t)(seconds * 1e9);
	int r = 0;

	while (r >= 0 && now_ns() < end_ns && !atomic_load(&load->over) && !is_caught(load)) {
		r = rig_send(&load->rig, 0, STORM_SLOTS);
		if (r >= 0)
			r = rig_look(&load->rig);
	}
	return r;
}

static int run_load(struct load *load, change_fn *set_hop, uint64_t per_s, double seconds)
{
	pthread_t rows_thread, generations_thread;
	int r;

	*load = (struct load){.rig = load->rig, .set_hop = set_hop, .per_s = per_s};
	load->rig.judge = see;
	load->rig.judge_arg = load;
	pthread_mutex_init(&load->generation, NULL);
	if (pthread_create(&rows_thread, NULL, change_rows, load) ||
	    pthread_create(&generations_thread, NULL, change_generations, load))
		return -EAGAIN;
	r = stream(load, seconds);
	atomic_store(&load->over, true);
	pthread_join(rows_thread, NULL);
	pthread_join(generations_thread, NULL);
	return r < 0 ? r : load->error;
}

static unsigned n_hops_seen(const struct load *load)
{
	unsigned n = 0;

	for (unsigned k = 0; k < PS_N_ELEMENTS(load->ks); k++)
		n += load->ks[k] != 0;
	return n;
}

static void report(const char *how, const struct load *load)
{
	printf("%s: %llu changes, %llu generations, %llu frames by %u hops: %llu wrong\n", how,
	       (unsigned long long)load->changes, (unsigned long long)load->swaps,
	       (unsigned long long)load->frames, n_hops_seen(load),
	       (unsigned long long)load->judge.wrong);
	if (load->judge.wrong)
		printf("first: %s\n", load->judge.first_wrong);
}

/* The number of things that are not as they should be. */
static int run_all(struct load *load, double seconds)
{
	int bad = run_load(load, set_live, CHANGES_PER_S, seconds) < 0;

	report("1,000 a second", load);
	bad += load->judge.wrong || load->changes < (uint64_t)(seconds * CHANGES_PER_S) / 2 ||
	       n_hops_seen(load) < N_HOPS / 2 || load->swaps < 2;
	bad += run_load(load, set_live, FLAT_OUT, seconds / 2) < 0;
	report("without pause", load);
	bad += load->judge.wrong != 0;
	bad += run_load(load, set_naively, FLAT_OUT, seconds * CONTROL_PATIENCE) < 0;
	report("byte by byte", load);
	if (!load->judge.wrong)
		puts("the control was not seen to tear");
	return bad + !load->judge.wrong;
}

int main(int argc, char **argv)
{
	static struct load load;
	int bad;

	if (!may_load_bpf()) {
		puts("skipped: may not load BPF programs");
		return 77;
	}
	bad = rig_open(&load.rig) < 0;
	if (!bad) {
		fill(load.rig.slots);
		bad = run_all(&load, argc > 1 ? atof(argv[1]) : 5);
	}
	rig_close(&load.rig);
	return bad != 0;
}

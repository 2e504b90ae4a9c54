/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Leaks: claims that nobody holds, found and given back while everybody else goes on.
 *
 * Whoever holds a claim is a socket (storage `sockets` or `replies`), a record in `quarantine`, or a
 * program that runs at this moment.  A repair accuses claims and strikes out those of whom it sees
 * the holder, and those that are given back meanwhile.  User space (egress-repair.c) goes through
 *
 *   1 begin      `accusing` is 1; all programs that run have ended: whoever gives back, tells
 *   2 accuse     a suspect for each bit that is set
 *   3 confirm    ps_confirm: the bit is still set, so whoever holds it gives it back after 2, and tells
 *   4 settle     all programs that ran at 3 have ended: a socket's claim stands in its storage
 *   5 look       ps_see_held, ps_see_replies: what sockets hold is no leak
 *   6 settle     a claim that a socket gave up before 5 has come back, or is in quarantine
 *   7 free       ps_free_leak: still a suspect, not in quarantine: nobody holds it
 *
 * Why no live claim is freed: a claim made after 3 is of a bit that was free after 3, so someone gave
 * it back after 2 and struck the suspect.  One made before 3 is, after 4, in a storage, in quarantine,
 * or given back.  Storage is seen at 5, unless its claim is given back first.  Nobody can change a
 * leaked bit, so 7 has no race.
 *
 * ps_claim_drop() clears the bit first and strikes the suspect afterwards.  The other way round a
 * program could strike before 2 and clear after 3.
 */
#ifndef PS_EGRESS_REPAIR_BPF_H
#define PS_EGRESS_REPAIR_BPF_H

#include "egress/socket.bpf.h"

struct bpf_map;

/* Sockets seen by ps_see_held that have a claim towards a peer to which they are not connected. */
__u32 n_unsent;

static long confirm_step(struct bpf_map *map, __u64 *id, struct ps_suspect *suspect, void *none)
{
	struct ps_grip grip = suspect->grip;

	if (ps_claim_stands(&grip))
		suspect->stood = 1;
	return 0;
}

SEC("syscall")
int ps_confirm(void *ctx)
{
	n_unsent = 0;
	bpf_for_each_map_elem(&suspects, confirm_step, NULL, 0);
	return 0;
}

static __always_inline void see(const struct ps_grip *grip)
{
	struct ps_page_place place = {0};

	ps_place_port(&grip->flow, &place);
	ps_acquit(grip->gen, place.bit);
}

SEC("iter/bpf_sk_storage_map")
int ps_see_held(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct ps_held *held = ctx->value;
	struct sock *sk = ctx->sk;
	struct ps_grip grip;

	if (!sk || !held || !PS_LOAD(held->held))
		return 0;
	grip = held->grip;
	see(&grip);
	if (!ps_ip16_is_zero(&grip.flow.dst) &&
	    BPF_CORE_READ(sk, __sk_common.skc_state) == BPF_TCP_CLOSE)
		n_unsent++;
	return 0;
}

SEC("iter/bpf_sk_storage_map")
int ps_see_replies(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct ps_replies *own = ctx->value;

	if (!ctx->sk || !own)
		return 0;
	for (int i = 0; i < PS_REPLIES_MAX; i++) {
		struct ps_grip grip = own->grips[i];

		if (grip.flow.protocol)
			see(&grip);
	}
	return 0;
}

/* Run with the id of one suspect: gives its port back if it is a leak; 1: so it was. */
SEC("syscall")
int ps_free_leak(__u64 *id)
{
	__u64 key = *id;
	struct ps_suspect *suspect = bpf_map_lookup_elem(&suspects, &key);
	struct ps_quarantine *kept;
	struct ps_claim_key flow;
	struct ps_grip grip;

	if (!suspect || !suspect->stood)
		return 0;
	grip = suspect->grip;
	flow = grip.flow;
	kept = bpf_map_lookup_elem(&quarantine, &flow);
	if (kept && kept->gen == grip.gen)
		return 0;
	if (ps_claim_drop(&grip))
		return 0;
	ps_uses_guess(&flow);
	count(PS_EGRESS_LEAK);
	return 1;
}

#endif

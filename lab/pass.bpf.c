// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * Passes everything.  A veth delivers what XDP sends from its peer only while it carries a program
 * itself: with NAPI alone (GRO on) the frames are queued but nobody is woken for them, and they wait
 * up to 100 ms for the next packet (drivers/net/veth.c, veth_xdp_flush(); measured on 6.18).
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";

// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/* Lets everything pass. A veth delivers what XDP_TX sends from its peer at once only while it has an XDP program itself:
 * veth_xdp_flush() (drivers/net/veth.c, Linux 6.18) wakes the receiver only then. With NAPI by `gro on` alone the packets
 * wait in the ring until something else arrives there: about 80 ms beside BFD, for ever without (measured).
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp") int lab_pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";

// SPDX-License-Identifier: MIT
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include "base/own.h"
#include "egress/inside.h"

enum { ANSWER_LEN = 1 << 15 }; /* the largest part of a dump that the kernel sends, Linux 6.18 */

/* An rtnetlink request about traffic control of one interface. */
struct question {
	uint16_t type, flags;
	unsigned ifindex;
	uint32_t parent;
};

static void close_socket(struct mnl_socket **nl)
{
	if (*nl)
		(void)mnl_socket_close(*nl);
}

/* Calls each for every message of the answer. */
static int ask(const struct question *question, mnl_cb_t each, void *arg)
{
	ps_auto(close_socket) struct mnl_socket *nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	ps_auto_mem char *buffer = calloc(1, ANSWER_LEN);
	struct nlmsghdr *header;
	struct tcmsg *tc;
	int r = MNL_CB_OK;

	if (!buffer)
		return -ENOMEM;
	if (!nl || mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	header = mnl_nlmsg_put_header(buffer);
	header->nlmsg_type = question->type;
	header->nlmsg_flags = NLM_F_REQUEST | question->flags;
	tc = mnl_nlmsg_put_extra_header(header, sizeof(*tc));
	tc->tcm_ifindex = (int)question->ifindex;
	tc->tcm_parent = question->parent;
	if (mnl_socket_sendto(nl, header, header->nlmsg_len) < 0)
		return -errno;
	while (r == MNL_CB_OK) {
		ssize_t n = mnl_socket_recvfrom(nl, buffer, ANSWER_LEN);

		if (n < 0)
			return -errno;
		r = mnl_cb_run(buffer, (size_t)n, 0, 0, each, arg);
	}
	return r < 0 ? -errno : 0;
}

/* A classifier without a rule counts too. */
static int count_filter(const struct nlmsghdr *header, void *arg)
{
	*(unsigned *)arg += header->nlmsg_type == RTM_NEWTFILTER;
	return MNL_CB_OK;
}

int ps_egress_count_filters(unsigned ifindex, unsigned *ret)
{
	static const uint32_t parents[] = {TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS),
					   TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)};
	unsigned n = 0;

	for (size_t i = 0; i < PS_N_ELEMENTS(parents); i++) {
		const struct question filters = {RTM_GETTFILTER, NLM_F_DUMP, ifindex, parents[i]};
		int r = ask(&filters, count_filter, &n);

		if (r < 0)
			return r;
	}
	*ret = n;
	return 0;
}

struct clsact {
	unsigned ifindex;
	bool found;
};

static int note_clsact(const struct nlmsghdr *header, void *arg)
{
	const struct tcmsg *tc = mnl_nlmsg_get_payload(header);
	const struct nlattr *attr;
	struct clsact *clsact = arg;

	if ((unsigned)tc->tcm_ifindex != clsact->ifindex)
		return MNL_CB_OK;
	mnl_attr_for_each(attr, header, sizeof(*tc))
	{
		if (mnl_attr_get_type(attr) == TCA_KIND &&
		    strcmp(mnl_attr_get_str(attr), "clsact") == 0)
			clsact->found = true;
	}
	return MNL_CB_OK;
}

/* A query for a filter fails alike without a qdisc and without a chain, and the kernel answers a
 * question for this one qdisc with nothing (Linux 6.18), so all are listed. */
bool ps_egress_has_qdisc(unsigned ifindex)
{
	const struct question qdiscs = {RTM_GETQDISC, NLM_F_DUMP, 0, 0};
	struct clsact clsact = {.ifindex = ifindex};

	return ask(&qdiscs, note_clsact, &clsact) == 0 && clsact.found;
}

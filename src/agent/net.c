// SPDX-License-Identifier: MIT
/*
 * rtnetlink, as little of it as the agent needs.
 *
 * Two sockets: `requests` carries one question at a time and its answers; `monitor` is subscribed
 * to the groups and only says that something changed, after which the agent asks again.  Reading
 * the state anew is slower than following each message, and right even when messages were lost
 * (ENOBUFS), which on a busy router is a matter of time.
 *
 * Shared addresses exist on a host as routes of type `local` on the loopback device and never on an
 * interface (design.md §4): the kernel then lets sockets bind them (IPv6: with ip_nonlocal_bind), and
 * answers no ARP for them as long as arp_ignore is set; neighbour solicitations for IPv6 it answers
 * only for addresses of the interface.  The routes carry a protocol number of their own, so that a
 * person reading `ip route show table local` sees whose they are.
 *
 * Standards: RFC 3549 (netlink as a protocol); rtnetlink(7).
 */
#include "agent/net.h"

#include <errno.h>
#include <linux/neighbour.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <libmnl/libmnl.h>

#include "base/own.h"

#pragma GCC diagnostic ignored "-Wcast-qual" /* libmnl's loop over attributes casts const away */

enum {
	REPLY_SIZE =
		32768, /* bytes; a dump's message is at most this long (rtnetlink's own limit) */
	LOOPBACK_IFINDEX = 1,
	DUMP_TRIES = 8,
	ROUTE_PROTOCOL =
		190, /* rtm_protocol of our routes; nobody else has it in linux/rtnetlink.h */
};

struct ps_net {
	struct mnl_socket *requests, *monitor;
	unsigned port;
	uint32_t sequence;
};

static struct mnl_socket *open_socket(unsigned groups, int flags)
{
	struct mnl_socket *socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | flags);

	if (socket && mnl_socket_bind(socket, groups, MNL_SOCKET_AUTOPID) < 0) {
		mnl_socket_close(socket);
		return NULL;
	}
	return socket;
}

void ps_net_close(struct ps_net **net)
{
	if (!*net)
		return;
	if ((*net)->requests)
		mnl_socket_close((*net)->requests);
	if ((*net)->monitor)
		mnl_socket_close((*net)->monitor);
	free(*net);
	*net = NULL;
}

int ps_net_open(struct ps_net **ret)
{
	ps_auto(ps_net_close) struct ps_net *net = calloc(1, sizeof(*net));

	if (!net)
		return -ENOMEM;
	net->requests = open_socket(0, 0);
	if (!net->requests)
		return -errno;
	net->monitor = open_socket(
		RTMGRP_LINK | RTMGRP_NEIGH | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE, SOCK_NONBLOCK);
	if (!net->monitor)
		return -errno;
	net->port = mnl_socket_get_portid(net->requests);
	net->sequence = (uint32_t)time(NULL);
	*ret = ps_move(net);
	return 0;
}

int ps_net_monitor_fd(const struct ps_net *net)
{
	return mnl_socket_get_fd(net->monitor);
}

bool ps_net_monitor_drain(struct ps_net *net)
{
	char buffer[REPLY_SIZE];
	bool heard = false;

	while (mnl_socket_recvfrom(net->monitor, buffer, sizeof(buffer)) > 0 || errno == ENOBUFS)
		heard = true;
	return heard;
}

static struct nlmsghdr *request(struct ps_net *net, void *buffer, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);

	header->nlmsg_type = type;
	header->nlmsg_flags = NLM_F_REQUEST | flags;
	header->nlmsg_seq = ++net->sequence;
	return header;
}

/* Sends one request and hands every answer to `each`.  Negative errno, the kernel's included. */
static int converse(struct ps_net *net, struct nlmsghdr *header, mnl_cb_t each, void *arg)
{
	char buffer[REPLY_SIZE];
	int r = MNL_CB_OK;

	if (mnl_socket_sendto(net->requests, header, header->nlmsg_len) < 0)
		return -errno;
	while (r > MNL_CB_STOP) {
		ssize_t n = mnl_socket_recvfrom(net->requests, buffer, sizeof(buffer));

		if (n < 0)
			return -errno;
		r = mnl_cb_run(buffer, (size_t)n, header->nlmsg_seq, net->port, each, arg);
		if (r < 0)
			return -errno;
		if (!(header->nlmsg_flags & (NLM_F_DUMP | NLM_F_ACK)))
			break; /* a single answer has no end mark */
	}
	return 0;
}

/* What is left of a broken conversation must not be taken for the answer to the next. */
static int reopen(struct ps_net *net)
{
	struct mnl_socket *fresh = open_socket(0, 0);

	if (!fresh)
		return -errno;
	mnl_socket_close(net->requests);
	net->requests = fresh;
	net->port = mnl_socket_get_portid(fresh);
	return 0;
}

/* As converse(), for a dump that fills a list of *n elements: begun again when the kernel says that
 * things changed meanwhile (NLM_F_DUMP_INTR). */
static int dump(struct ps_net *net, struct nlmsghdr *header, mnl_cb_t each, void *list, size_t *n)
{
	int r = -EINTR;

	for (int i = 0; i < DUMP_TRIES && r == -EINTR; i++) {
		*n = 0;
		header->nlmsg_seq = ++net->sequence;
		r = converse(net, header, each, list);
		if (r < 0 && reopen(net) < 0)
			return r;
	}
	return r;
}

struct link_list {
	struct ps_net_link *items;
	size_t n;
};

static void copy_name(const struct nlattr *attr, char *ret, size_t size)
{
	if (mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) == 0)
		snprintf(ret, size, "%s", mnl_attr_get_str(attr));
}

static void read_kinds(const struct nlattr *info, struct ps_net_link *link)
{
	const struct nlattr *attr;

	mnl_attr_for_each_nested(attr, info)
	{
		if (mnl_attr_get_type(attr) == IFLA_INFO_KIND)
			copy_name(attr, link->kind, sizeof(link->kind));
		if (mnl_attr_get_type(attr) == IFLA_INFO_SLAVE_KIND)
			copy_name(attr, link->slave_kind, sizeof(link->slave_kind));
	}
}

static void read_link_attr(const struct nlattr *attr, struct ps_net_link *link)
{
	switch (mnl_attr_get_type(attr)) {
	case IFLA_IFNAME:
		copy_name(attr, link->name, sizeof(link->name));
		break;
	case IFLA_ADDRESS:
		if (mnl_attr_get_payload_len(attr) == sizeof(link->mac))
			memcpy(link->mac, mnl_attr_get_payload(attr), sizeof(link->mac));
		break;
	case IFLA_MASTER:
		if (mnl_attr_validate(attr, MNL_TYPE_U32) == 0)
			link->master = mnl_attr_get_u32(attr);
		break;
	case IFLA_LINKINFO:
		read_kinds(attr, link);
		break;
	default:
		break;
	}
}

void ps_net_read_link(const struct nlmsghdr *header, struct ps_net_link *ret)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(header);
	const struct nlattr *attr;

	*ret = (struct ps_net_link){.ifindex = (unsigned)info->ifi_index,
				    .loopback = info->ifi_flags & IFF_LOOPBACK};
	mnl_attr_for_each(attr, header, sizeof(*info)) read_link_attr(attr, ret);
}

static int take_link(const struct nlmsghdr *header, void *arg)
{
	struct link_list *list = arg;
	struct ps_net_link *items = reallocarray(list->items, list->n + 1, sizeof(*items));

	if (!items) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	ps_net_read_link(header, &items[list->n++]);
	list->items = items;
	return MNL_CB_OK;
}

int ps_net_links(struct ps_net *net, struct ps_net_link **ret, size_t *ret_n)
{
	char buffer[MNL_NLMSG_HDRLEN + 64];
	struct nlmsghdr *header = request(net, buffer, RTM_GETLINK, NLM_F_DUMP);
	struct link_list list = {0};
	int r;

	mnl_nlmsg_put_extra_header(header, sizeof(struct ifinfomsg));
	r = dump(net, header, take_link, &list, &list.n);
	if (r < 0) {
		free(list.items);
		return r;
	}
	*ret = list.items;
	*ret_n = list.n;
	return 0;
}

static uint8_t family_of(const struct ps_ip *ip)
{
	return ps_ip_is_v4(ip) ? AF_INET : AF_INET6;
}

static void put_ip(struct nlmsghdr *header, uint16_t type, const struct ps_ip *ip)
{
	if (ps_ip_is_v4(ip))
		mnl_attr_put_u32(header, type, ps_ip_v4_be(ip));
	else
		mnl_attr_put(header, type, sizeof(ip->bytes), ip->bytes);
}

/* False: no address of either family. */
static bool read_ip(const void *bytes, size_t len, struct ps_ip *ret)
{
	uint32_t ip4_be;

	if (len == sizeof(ret->bytes)) {
		memcpy(ret->bytes, bytes, sizeof(ret->bytes));
		return true;
	}
	if (len != sizeof(ip4_be))
		return false;
	memcpy(&ip4_be, bytes, sizeof(ip4_be));
	*ret = ps_ip_from_v4(ip4_be);
	return true;
}

static bool get_ip(const struct nlattr *attr, struct ps_ip *ret)
{
	return read_ip(mnl_attr_get_payload(attr), mnl_attr_get_payload_len(attr), ret);
}

static int take_route(const struct nlmsghdr *header, void *arg)
{
	const struct rtmsg *route = mnl_nlmsg_get_payload(header);
	struct ps_net_route *found = arg;
	const struct nlattr *attr;

	if (route->rtm_type != RTN_UNICAST)
		return MNL_CB_OK;
	mnl_attr_for_each(attr, header, sizeof(*route))
	{
		const struct rtvia *via = mnl_attr_get_payload(attr);

		if (mnl_attr_get_type(attr) == RTA_OIF)
			found->ifindex = mnl_attr_get_u32(attr);
		if (mnl_attr_get_type(attr) == RTA_GATEWAY)
			(void)get_ip(attr, &found->next);
		if (mnl_attr_get_type(attr) == RTA_VIA)
			(void)read_ip(via->rtvia_addr,
				      mnl_attr_get_payload_len(attr) - sizeof(*via), &found->next);
	}
	return MNL_CB_OK;
}

int ps_net_route(struct ps_net *net, const struct ps_ip *dst, unsigned oif,
		 struct ps_net_route *ret)
{
	char buffer[MNL_NLMSG_HDRLEN + 128];
	struct nlmsghdr *header = request(net, buffer, RTM_GETROUTE, 0);
	struct rtmsg *route = mnl_nlmsg_put_extra_header(header, sizeof(*route));
	struct ps_net_route found = {.next = *dst};
	int r;

	route->rtm_family = family_of(dst);
	route->rtm_dst_len = ps_ip_is_v4(dst) ? 32 : 128;
	put_ip(header, RTA_DST, dst);
	if (oif)
		mnl_attr_put_u32(header, RTA_OIF, oif);
	r = converse(net, header, take_route, &found);
	if (r < 0)
		return r;
	if (!found.ifindex)
		return -ENETUNREACH;
	*ret = found;
	return 0;
}

struct neighbour_search {
	unsigned ifindex;
	struct ps_ip ip;
	uint8_t mac[6];
	bool found, stale;
};

static int take_neighbour(const struct nlmsghdr *header, void *arg)
{
	static const uint16_t usable =
		NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | NUD_NOARP;
	const struct ndmsg *neighbour = mnl_nlmsg_get_payload(header);
	struct neighbour_search *search = arg;
	const struct nlattr *attr;
	const void *mac = NULL;
	struct ps_ip ip = {0};

	if ((unsigned)neighbour->ndm_ifindex != search->ifindex || !(neighbour->ndm_state & usable))
		return MNL_CB_OK;
	mnl_attr_for_each(attr, header, sizeof(*neighbour))
	{
		if (mnl_attr_get_type(attr) == NDA_DST)
			(void)get_ip(attr, &ip);
		if (mnl_attr_get_type(attr) == NDA_LLADDR && mnl_attr_get_payload_len(attr) == 6)
			mac = mnl_attr_get_payload(attr);
	}
	if (mac && ps_ip_cmp(&ip, &search->ip) == 0) {
		memcpy(search->mac, mac, sizeof(search->mac));
		search->found = true;
		search->stale = neighbour->ndm_state & NUD_STALE;
	}
	return MNL_CB_OK;
}

/* A request about one neighbour, begun in `buffer`. */
static struct nlmsghdr *neighbour_request(struct ps_net *net, void *buffer, uint16_t type,
					  unsigned ifindex, const struct ps_ip *ip)
{
	struct nlmsghdr *header = request(net, buffer, type, 0);
	struct ndmsg *neighbour = mnl_nlmsg_put_extra_header(header, sizeof(*neighbour));

	neighbour->ndm_family = family_of(ip);
	neighbour->ndm_ifindex = (int)ifindex;
	put_ip(header, NDA_DST, ip);
	return header;
}

int ps_net_neighbour(struct ps_net *net, unsigned ifindex, const struct ps_ip *ip,
		     uint8_t ret_mac[6])
{
	char buffer[MNL_NLMSG_HDRLEN + 128];
	struct nlmsghdr *header = neighbour_request(net, buffer, RTM_GETNEIGH, ifindex, ip);
	struct neighbour_search search = {.ifindex = ifindex, .ip = *ip};
	int r = converse(net, header, take_neighbour, &search);

	if (r < 0)
		return r;
	if (!search.found)
		return -ENOENT;
	memcpy(ret_mac, search.mac, sizeof(search.mac));
	return search.stale;
}

/* NTF_USE does what a packet would: a request goes out, an answer is awaited by the kernel. */
int ps_net_solicit(struct ps_net *net, unsigned ifindex, const struct ps_ip *ip)
{
	char buffer[MNL_NLMSG_HDRLEN + 128];
	struct nlmsghdr *header = neighbour_request(net, buffer, RTM_NEWNEIGH, ifindex, ip);
	struct ndmsg *neighbour = mnl_nlmsg_get_payload(header);

	header->nlmsg_flags |= NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
	neighbour->ndm_flags = NTF_USE;
	return converse(net, header, NULL, NULL);
}

struct address_list {
	struct ps_ip *items;
	size_t n;
};

static int take_local_route(const struct nlmsghdr *header, void *arg)
{
	const struct rtmsg *route = mnl_nlmsg_get_payload(header);
	struct address_list *list = arg;
	const struct nlattr *attr;
	struct ps_ip *grown;

	if (route->rtm_table != RT_TABLE_LOCAL || route->rtm_protocol != ROUTE_PROTOCOL ||
	    route->rtm_dst_len != (route->rtm_family == AF_INET ? 32 : 128))
		return MNL_CB_OK;
	mnl_attr_for_each(attr, header, sizeof(*route))
	{
		if (mnl_attr_get_type(attr) != RTA_DST)
			continue;
		grown = reallocarray(list->items, list->n + 1, sizeof(*grown));
		if (!grown) {
			errno = ENOMEM;
			return MNL_CB_ERROR;
		}
		list->items = grown;
		list->n += get_ip(attr, &grown[list->n]);
	}
	return MNL_CB_OK;
}

/* Appends those of one family. */
static int dump_local_routes(struct ps_net *net, uint8_t family, struct address_list *list)
{
	char buffer[MNL_NLMSG_HDRLEN + 64];
	struct nlmsghdr *header = request(net, buffer, RTM_GETROUTE, NLM_F_DUMP);
	struct rtmsg *route = mnl_nlmsg_put_extra_header(header, sizeof(*route));
	struct address_list found = {0};
	struct ps_ip *grown;
	int r;

	route->rtm_family = family;
	r = dump(net, header, take_local_route, &found, &found.n);
	grown = r < 0 ? NULL : reallocarray(list->items, list->n + found.n + 1, sizeof(*grown));
	if (grown) {
		if (found.n)
			memcpy(grown + list->n, found.items, found.n * sizeof(*grown));
		list->items = grown;
		list->n += found.n;
	}
	free(found.items);
	return r < 0 ? r : grown ? 0 : -ENOMEM;
}

int ps_net_local_routes(struct ps_net *net, struct ps_ip **ret, size_t *ret_n)
{
	struct address_list list = {0};
	int r = dump_local_routes(net, AF_INET, &list);

	if (r == 0)
		r = dump_local_routes(net, AF_INET6, &list);
	if (r < 0) {
		free(list.items);
		return r;
	}
	*ret = list.items;
	*ret_n = list.n;
	return 0;
}

int ps_net_local_route(struct ps_net *net, const struct ps_ip *ip, bool add)
{
	char buffer[MNL_NLMSG_HDRLEN + 128];
	struct nlmsghdr *header = request(net, buffer, add ? RTM_NEWROUTE : RTM_DELROUTE,
					  NLM_F_ACK | (add ? NLM_F_CREATE | NLM_F_REPLACE : 0));
	struct rtmsg *route = mnl_nlmsg_put_extra_header(header, sizeof(*route));
	int r;

	*route = (struct rtmsg){
		.rtm_family = family_of(ip),
		.rtm_dst_len = ps_ip_is_v4(ip) ? 32 : 128,
		.rtm_table = RT_TABLE_LOCAL,
		.rtm_protocol = ROUTE_PROTOCOL,
		.rtm_scope = RT_SCOPE_HOST,
		.rtm_type = RTN_LOCAL,
	};
	put_ip(header, RTA_DST, ip);
	mnl_attr_put_u32(header, RTA_OIF, LOOPBACK_IFINDEX);
	r = converse(net, header, NULL, NULL);
	return r == -ESRCH && !add ? 0 : r;
}

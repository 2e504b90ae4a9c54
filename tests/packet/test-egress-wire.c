// SPDX-License-Identifier: MIT
/* What is on the wire while programs, the kernel and raw sockets all send with shared addresses: a
 * capture at the far end is judged by rules of its own. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/own.h"
#include "egress-fixture.h"

enum {
	RANDOM_PACKETS = 20000,
	FRAME_MAX = 2048,
	QUIET_MS = 200,
	BUFFER_BYTES = 64 << 20,
	TCP_RST = 4
};

/* What arrived from shared addresses. */
struct seen {
	unsigned n, n_tcp, n_resets, n_udp, n_echo, n_errors, n_followers;
};

static int open_packet_socket(const char *ifname, int ns)
{
	struct sockaddr_ll all = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	int fd, bytes = BUFFER_BYTES;

	assert_int_equal(setns(ns, CLONE_NEWNET), 0);
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
	all.sll_ifindex = (int)if_nametoindex(ifname);
	assert_true(fd >= 0 && all.sll_ifindex > 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&all, sizeof(all)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	assert_int_equal(setns(lab.near_ns, CLONE_NEWNET), 0);
	return fd;
}

static void put_guard(void)
{
	ps_auto_mem char *message = NULL;
	bool made;
	int r = ps_egress_guard(egress, if_nametoindex("v0"), true, &made, &message);

	if (r < 0)
		fail_msg("%s", message);
}

static unsigned read16(const uint8_t *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

static bool port_is_ours(unsigned port)
{
	return ps_range_contains(slice(0)->ports, (uint16_t)port) || port == SERVICE_PORT;
}

/* The transport header of an IPv6 packet, or NULL for a follower. */
static const uint8_t *find_l4(const uint8_t *ip, uint8_t *ret_protocol)
{
	const uint8_t *at = ip + 40;
	uint8_t next = ip[6];

	while (next == 0 || next == 43 || next == 60 || next == 44) {
		bool is_fragment = next == 44;

		next = at[0];
		if (is_fragment && (read16(at + 2) & 0xfff8))
			return NULL;
		at += is_fragment ? 8 : (at[1] + 1) * 8;
	}
	*ret_protocol = next;
	return at;
}

static void judge_icmp6(const uint8_t *l4, struct seen *seen)
{
	uint8_t quoted = 0;
	const uint8_t *inner;

	if (l4[0] == 128 || l4[0] == 129) {
		assert_true(port_is_ours(read16(l4 + 4)));
		seen->n_echo++;
		return;
	}
	assert_in_range(l4[0], 1, 4);
	inner = find_l4(l4 + 8, &quoted);
	assert_non_null(inner);
	assert_true(quoted == IPPROTO_TCP || quoted == IPPROTO_UDP || quoted == IPPROTO_ICMPV6);
	assert_true(port_is_ours(read16(inner + (quoted == IPPROTO_ICMPV6 ? 4 : 2))));
	seen->n_errors++;
}

/* A frame at the far end, which fails the test when it should not have left. */
static void judge(const uint8_t *frame, size_t len, struct seen *seen)
{
	const struct ps_prefix shared = prefix(nets[1].shared_text);
	const uint8_t *ip = frame + ETH_HLEN, *l4;
	struct ps_ip source, target;
	uint8_t protocol = 0;

	if (len < ETH_HLEN + 40 || read16(frame + 12) != ETH_P_IPV6)
		return;
	memcpy(source.bytes, ip + 8, sizeof(source.bytes));
	memcpy(target.bytes, ip + 48, sizeof(target.bytes));
	if (ip[6] == IPPROTO_ICMPV6 && (ip[40] == 135 || ip[40] == 136))
		assert_false(ps_prefix_contains(&shared, &target));
	if (!ps_prefix_contains(&shared, &source))
		return;
	seen->n++;
	assert_memory_equal(&source, &slice(0)->address, sizeof(source));
	l4 = find_l4(ip, &protocol);
	if (!l4) {
		seen->n_followers++;
		return;
	}
	if (protocol == IPPROTO_ICMPV6) {
		judge_icmp6(l4, seen);
		return;
	}
	assert_true(protocol == IPPROTO_TCP || protocol == IPPROTO_UDP);
	assert_true(port_is_ours(read16(l4)));
	seen->n_tcp += protocol == IPPROTO_TCP;
	seen->n_resets += protocol == IPPROTO_TCP && (l4[13] & TCP_RST);
	seen->n_udp += protocol == IPPROTO_UDP;
}

/* Reads the capture until it is quiet.  None may have been lost. */
static struct seen judge_all(int capture)
{
	struct pollfd wait = {capture, POLLIN, 0};
	struct tpacket_stats stats = {0};
	socklen_t len = sizeof(stats);
	struct seen seen = {0};
	uint8_t frame[FRAME_MAX];

	while (poll(&wait, 1, QUIET_MS) > 0) {
		struct sockaddr_ll from;
		socklen_t from_len = sizeof(from);
		ssize_t n = recvfrom(capture, frame, sizeof(frame), 0, (struct sockaddr *)&from,
				     &from_len);

		assert_true(n > 0);
		if (from.sll_pkttype != PACKET_OUTGOING)
			judge(frame, (size_t)n, &seen);
	}
	assert_int_equal(getsockopt(capture, SOL_PACKET, PACKET_STATISTICS, &stats, &len), 0);
	assert_int_equal(stats.tp_drops, 0);
	return seen;
}

/* What programs of the class do, and the kernel for them. */
static void send_by_programs(void)
{
	uint8_t echo[8] = {128}, large[4000] = {0};
	int tcp = dial(SOCK_STREAM, net->far[0]), udp = dial(SOCK_DGRAM, net->far[0]);
	int ping = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_ICMPV6);

	assert_true(tcp >= 0 && udp >= 0 && ping >= 0);
	assert_int_equal(send(tcp, "x", 1, 0), 1);
	assert_int_equal(send(udp, large, sizeof(large), 0), sizeof(large)); /* three fragments */
	assert_int_equal(try_connect(ping, net->far[0], 0), 0);
	assert_int_equal(send(ping, echo, sizeof(echo), 0), sizeof(echo));
	close_all((int[]){tcp, udp, ping}, 3);
}

/* The far end knocks at a port of ours and at one of another host, where nobody listens: the kernel
 * answers both with a RST, and one may leave. */
static void provoke_the_kernel(void)
{
	static const uint16_t ports[] = {LAB_FIRST_PORT + 1, 50000};

	lab_enter(lab.plain_dir);
	for (size_t i = 0; i < PS_N_ELEMENTS(ports); i++) {
		int fd;

		assert_int_equal(setns(lab.far_ns, CLONE_NEWNET), 0);
		fd = new_socket(SOCK_STREAM | SOCK_NONBLOCK);
		assert_int_equal(setns(lab.near_ns, CLONE_NEWNET), 0);
		assert_int_equal(try_connect(fd, net->shared[0], ports[i]), -EINPROGRESS);
		close(fd);
	}
	lab_enter(lab.class_dir);
}

/* A random packet from a random shared address: any protocol, extension header, port, ICMP type.
 * At least 64 bytes behind the header, so that what may be read is there. */
static size_t random_packet(uint8_t frame[FRAME_MAX], const uint8_t mac[2 * ETH_ALEN])
{
	static const uint8_t nexts[] = {6, 17, 58, 58, 44, 60, 0, 43, 47, 50, 132, 59};
	size_t len = ETH_HLEN + 40 + 64;
	uint8_t *ip = frame + ETH_HLEN;

	for (size_t i = 0; i < len; i++)
		frame[i] = (uint8_t)(random() >> 8);
	memcpy(frame, mac, 2 * ETH_ALEN);
	frame[12] = ETH_P_IPV6 >> 8;
	frame[13] = ETH_P_IPV6 & 0xff;
	ip[0] = 0x60;
	ip[4] = 0;
	ip[5] = 64;
	ip[6] = nexts[(unsigned)random() % sizeof(nexts)];
	memcpy(ip + 8, slice(0)->address.bytes, 16);
	if (random() % 4 == 0)
		ip[23] = (uint8_t)random();
	memcpy(ip + 24, ip_of(net->far[0]).bytes, 16);
	ip[40] = ip[6] == 58 ? (uint8_t)(random() % 2 ? 128 + random() % 16 : random() % 6)
			     : nexts[(unsigned)random() % sizeof(nexts)];
	if (ip[6] == 6 || ip[6] == 17)
		ip[40] = LAB_FIRST_PORT >> 8;
	ip[41] = (uint8_t)(random() % 3);
	if (random() % 2)
		ip[44] = LAB_FIRST_PORT >> 8;
	if (ip[6] == 58 && random() % 2) { /* with a packet quoted */
		ip[48] = 0x60;
		ip[54] = nexts[(unsigned)random() % sizeof(nexts)];
		ip[90] = LAB_FIRST_PORT >> 8;
	}
	return len;
}

static void send_random(void)
{
	int fd = open_packet_socket("v0", lab.near_ns);
	uint8_t frame[FRAME_MAX], mac[2 * ETH_ALEN];

	memset(mac, 0x02, sizeof(mac));
	srandom(1);
	for (unsigned i = 0; i < RANDOM_PACKETS; i++) {
		size_t len = random_packet(frame, mac);

		(void)!send(fd, frame, len, 0); /* ENOBUFS where the guard dropped it */
	}
	close(fd);
}

static void programs_send_from_their_slice_only(void **state)
{
	int capture = open_packet_socket("v1", lab.far_ns);
	struct seen seen;

	(void)state;
	put_guard();
	send_by_programs();
	provoke_the_kernel();
	seen = judge_all(capture);
	assert_true(seen.n_tcp >= 3);
	assert_int_equal(seen.n_udp, 1);
	assert_int_equal(seen.n_followers, 2);
	assert_int_equal(seen.n_echo, 1);
	assert_int_equal(seen.n_resets, 1);
	assert_int_equal(counter(PS_EGRESS_GUARD_PORT), 1);
	close(capture);
}

static void of_random_packets_only_those_from_the_slice_leave(void **state)
{
	int capture = open_packet_socket("v1", lab.far_ns);
	uint64_t dropped = 0;
	struct seen seen;

	(void)state;
	put_guard();
	send_random();
	seen = judge_all(capture);
	for (int i = PS_EGRESS_GUARD_PORT; i < PS_EGRESS_GUARD_INGRESS; i++) {
		assert_true(counter(i) > 0);
		dropped += counter(i);
	}
	assert_int_equal(seen.n + dropped, RANDOM_PACKETS);
	assert_true(seen.n_tcp > 0 && seen.n_udp > 0 && seen.n_echo > 0 && seen.n_errors > 0);
	close(capture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FACT_OF(programs_send_from_their_slice_only, &nets[1],
			"programs_send_from_their_slice_only"),
		FACT_OF(of_random_packets_only_those_from_the_slice_leave, &nets[1],
			"of_random_packets_only_those_from_the_slice_leave"),
	};

	return RUN_FACTS(tests);
}

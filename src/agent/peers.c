// SPDX-License-Identifier: MIT
/*
 * Every host tells every other once a second what plan it runs (a digest of its meaning) and which
 * of its slices are in use.  Two things follow from that, and no more:
 *
 *  - servers without a shared store, each with its own copy of the plan file, notice loudly when
 *    the copies differ, and stop rejecting packets for ports nobody owns while they do (another
 *    host's plan may know the owner);
 *  - a plan that takes a slice from a host that uses it is refused wherever it is applied.
 *
 * The datagrams also keep the neighbour entries of the underlay warm, from which the dispatcher's
 * ready-made headers are copied.
 *
 * A hello is believed when its source address is the underlay address of the host it names: the
 * same trust that the dispatcher puts in encapsulated packets.  It can make this host refuse a
 * plan or stay silent, never send a packet elsewhere.
 */
#include "agent/peers.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "base/own.h"

/* Some 1,800 hellos of the longest kind, as the kernel counts them: 100,000 slices in use. */
enum { BUFFER_BYTES = 4 * 1024 * 1024 };

struct peer {
	char *name;
	struct ps_ip underlay;
	uint64_t heard_ms; /* 0: never */
	uint64_t revision;
	uint8_t digest[PS_PLAN_DIGEST_LEN];
	struct ps_hello_slice *used, *gathering; /* the last full round, the one coming in */
	size_t n_used, n_gathering;
	uint32_t round;
	unsigned next_part;
};

struct ps_peers {
	int fd;
	struct ps_ip bound;
	uint32_t round;
	char self[PS_HELLO_NAME_MAX + 1];
	uint8_t digest[PS_PLAN_DIGEST_LEN];
	uint64_t revision;
	struct peer *items;
	size_t n;
};

static void clear_peer(struct peer *peer)
{
	free(peer->name);
	free(peer->used);
	free(peer->gathering);
	*peer = (struct peer){0};
}

static void clear_list(struct peer *items, size_t n)
{
	for (size_t i = 0; i < n; i++)
		clear_peer(&items[i]);
	free(items);
}

void ps_peers_free(struct ps_peers **peers)
{
	if (!*peers)
		return;
	clear_list((*peers)->items, (*peers)->n);
	ps_fd_drop(&(*peers)->fd);
	free(*peers);
	*peers = NULL;
}

int ps_peers_new(struct ps_peers **ret)
{
	struct ps_peers *peers = calloc(1, sizeof(*peers));

	if (!peers)
		return -ENOMEM;
	peers->fd = -1;
	*ret = peers;
	return 0;
}

int ps_peers_fd(const struct ps_peers *peers)
{
	return peers->fd;
}

/* A socket address of either family. */
union place {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* The hello port of the address; gives the length. */
static socklen_t place_of(const struct ps_ip *ip, union place *ret)
{
	*ret = (union place){0};
	if (ps_ip_is_v4(ip)) {
		ret->v4.sin_family = AF_INET;
		ret->v4.sin_port = htons(PS_HELLO_PORT);
		ret->v4.sin_addr.s_addr = ps_ip_v4_be(ip);
		return sizeof(ret->v4);
	}
	ret->v6.sin6_family = AF_INET6;
	ret->v6.sin6_port = htons(PS_HELLO_PORT);
	memcpy(&ret->v6.sin6_addr, ip->bytes, sizeof(ip->bytes));
	return sizeof(ret->v6);
}

static struct ps_ip ip_of(const union place *place)
{
	struct ps_ip ip;

	if (place->any.sa_family == AF_INET)
		return ps_ip_from_v4(place->v4.sin_addr.s_addr);
	memcpy(ip.bytes, &place->v6.sin6_addr, sizeof(ip.bytes));
	return ip;
}

/* A round comes at once, and a part that finds no room spoils it.  Without the privilege the
 * kernel's preset stays. */
static void make_room(int fd)
{
	static const int directions[] = {SO_RCVBUFFORCE, SO_SNDBUFFORCE};
	const int bytes = BUFFER_BYTES;

	for (size_t i = 0; i < PS_N_ELEMENTS(directions); i++)
		(void)setsockopt(fd, SOL_SOCKET, directions[i], &bytes, sizeof(bytes));
}

static int bind_to(const struct ps_ip *ip)
{
	union place here;
	socklen_t len = place_of(ip, &here);
	ps_auto_fd int fd =
		socket(here.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || bind(fd, &here.any, len) < 0)
		return -errno;
	make_room(fd);
	return ps_fd_move(&fd);
}

static int rebind(struct ps_peers *peers, const struct ps_ip *ip)
{
	int fd;

	if (peers->fd >= 0 && ps_ip_cmp(&peers->bound, ip) == 0)
		return 0;
	fd = bind_to(ip);
	if (fd < 0)
		return fd;
	ps_fd_drop(&peers->fd);
	peers->fd = fd;
	peers->bound = *ip;
	return 0;
}

static struct peer *find(const struct ps_peers *peers, const char *name)
{
	for (size_t i = 0; i < peers->n; i++)
		if (peers->items[i].name && strcmp(peers->items[i].name, name) == 0)
			return &peers->items[i];
	return NULL;
}

static int adopt(struct ps_peers *peers, const struct ps_host *host, struct peer *ret)
{
	struct peer *known = find(peers, host->name);

	if (known) {
		*ret = *known;
		*known = (struct peer){0};
	} else {
		ret->name = strdup(host->name);
	}
	ret->underlay = host->underlay;
	return ret->name ? 0 : -ENOMEM;
}

int ps_peers_set_plan(struct ps_peers *peers, const struct ps_plan *plan, unsigned self,
		      const uint8_t digest[PS_PLAN_DIGEST_LEN], uint64_t revision)
{
	struct peer *items = calloc(plan->n_hosts + 1, sizeof(*items));
	size_t n = 0;
	int r = items ? rebind(peers, &plan->hosts[self].underlay) : -ENOMEM;

	for (size_t i = 0; i < plan->n_hosts && r == 0; i++)
		if (i != self)
			r = adopt(peers, &plan->hosts[i], &items[n++]);
	if (r < 0) {
		clear_list(items, items ? n : 0);
		return r;
	}
	clear_list(peers->items, peers->n);
	peers->items = items;
	peers->n = n;
	strncpy(peers->self, plan->hosts[self].name, sizeof(peers->self) - 1);
	memcpy(peers->digest, digest, sizeof(peers->digest));
	peers->revision = revision;
	return 0;
}

static void send_to_all(const struct ps_peers *peers, const void *data, size_t len)
{
	for (size_t i = 0; i < peers->n; i++) {
		union place there;
		socklen_t there_len = place_of(&peers->items[i].underlay, &there);

		/* A host that is down is seen by its silence. */
		(void)sendto(peers->fd, data, len, 0, &there.any, there_len);
	}
}

void ps_peers_send(struct ps_peers *peers, const struct ps_hello_slice *used, size_t n)
{
	size_t parts = (n + PS_HELLO_SLICES_MAX - 1) / PS_HELLO_SLICES_MAX;
	struct ps_hello hello = {.round = ++peers->round, .revision = peers->revision};

	if (peers->fd < 0)
		return;
	hello.parts = (uint16_t)(parts ? parts : 1);
	memcpy(hello.name, peers->self, sizeof(hello.name));
	memcpy(hello.digest, peers->digest, sizeof(hello.digest));
	for (; hello.part < hello.parts; hello.part++) {
		size_t first = (size_t)hello.part * PS_HELLO_SLICES_MAX;
		size_t left = n - first;
		uint8_t data[PS_HELLO_MAX];

		hello.n_slices = left < PS_HELLO_SLICES_MAX ? left : PS_HELLO_SLICES_MAX;
		if (hello.n_slices)
			memcpy(hello.slices, used + first, hello.n_slices * sizeof(*used));
		send_to_all(peers, data, ps_hello_encode(&hello, data));
	}
}

/* Parts come in order on one path; a round with a gap is forgotten and the next one tried. */
static void gather(struct peer *peer, const struct ps_hello *hello)
{
	struct ps_hello_slice *grown;

	if (hello->part == 0) {
		peer->round = hello->round;
		peer->next_part = 0;
		peer->n_gathering = 0;
	}
	if (hello->round != peer->round || hello->part != peer->next_part)
		return;
	grown = reallocarray(peer->gathering, peer->n_gathering + hello->n_slices + 1,
			     sizeof(*grown));
	if (!grown)
		return;
	memcpy(grown + peer->n_gathering, hello->slices, hello->n_slices * sizeof(*grown));
	peer->gathering = grown;
	peer->n_gathering += hello->n_slices;
	peer->next_part++;
	if (peer->next_part < hello->parts)
		return;
	free(peer->used);
	peer->used = ps_move(peer->gathering);
	peer->n_used = peer->n_gathering;
}

void ps_peers_receive(struct ps_peers *peers, uint64_t now_ms)
{
	uint8_t data[PS_HELLO_MAX];
	union place from;
	socklen_t from_len = sizeof(from);
	ssize_t n;

	while ((n = recvfrom(peers->fd, data, sizeof(data), 0, &from.any, &from_len)) >= 0) {
		struct ps_ip source = ip_of(&from);
		struct ps_hello hello;
		struct peer *peer;

		from_len = sizeof(from);
		if (ps_hello_decode(data, (size_t)n, &hello) < 0)
			continue;
		peer = find(peers, hello.name);
		if (!peer || ps_ip_cmp(&peer->underlay, &source) != 0)
			continue;
		peer->heard_ms = now_ms;
		peer->revision = hello.revision;
		memcpy(peer->digest, hello.digest, sizeof(peer->digest));
		gather(peer, &hello);
	}
}

static bool heard(const struct peer *peer, uint64_t now_ms)
{
	return peer->heard_ms && now_ms - peer->heard_ms < PS_PEER_HEARD_MS;
}

bool ps_peers_view(const struct ps_peers *peers, size_t i, uint64_t now_ms,
		   struct ps_peer_view *ret)
{
	const struct peer *peer;

	if (i >= peers->n)
		return false;
	peer = &peers->items[i];
	*ret = (struct ps_peer_view){
		.name = peer->name,
		.age_ms = peer->heard_ms ? now_ms - peer->heard_ms : UINT64_MAX,
		.revision = peer->revision,
		.n_slices = peer->n_used,
	};
	if (heard(peer, now_ms))
		ret->state = memcmp(peer->digest, peers->digest, sizeof(peer->digest)) == 0
				     ? PS_PEER_AGREES
				     : PS_PEER_DIFFERS;
	return true;
}

bool ps_peers_lags(const struct ps_peers *peers, const char *host,
		   const uint8_t digest[PS_PLAN_DIGEST_LEN], uint64_t now_ms)
{
	const struct peer *peer = find(peers, host);

	return peer && heard(peer, now_ms) &&
	       memcmp(peer->digest, digest, sizeof(peer->digest)) != 0;
}

const char *ps_peers_user(const struct ps_peers *peers, const struct ps_ip *ip, uint16_t slice,
			  uint64_t now_ms)
{
	for (size_t i = 0; i < peers->n; i++) {
		const struct peer *peer = &peers->items[i];

		for (size_t j = 0; j < peer->n_used && heard(peer, now_ms); j++)
			if (peer->used[j].slice == slice && ps_ip_cmp(&peer->used[j].ip, ip) == 0)
				return peer->name;
	}
	return NULL;
}

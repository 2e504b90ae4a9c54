// SPDX-License-Identifier: MIT
#include "egress-fixture.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "base/own.h"
#include "egress/inside.h"

struct lab lab;
struct ps_egress *egress;
struct fixture_plan plan;
static int listener = -1;

const struct net nets[2] = {
	{AF_INET,
	 IPPROTO_ICMP,
	 0,
	 {"10.77.0.2", "10.77.0.3", "10.77.0.5"},
	 "10.77.0.4",
	 "10.77.0.1",
	 "0.0.0.0",
	 "127.0.0.1",
	 "192.0.2.77",
	 {"198.51.100.1", "198.51.100.2", "198.51.100.77"},
	 "198.51.100.0/24"},
	{AF_INET6,
	 IPPROTO_ICMPV6,
	 2,
	 {"2001:db8:77::2", "2001:db8:77::3", "2001:db8:77::5"},
	 "2001:db8:77::4",
	 "2001:db8:77::1",
	 "::",
	 "::1",
	 "2001:db8:dead::1",
	 {"2001:db8:100::1", "2001:db8:100::2", "2001:db8:100::77"},
	 "2001:db8:100::/120"},
};
const struct net *net = &nets[0];

struct ps_ip ip_of(const char *text)
{
	struct ps_ip ip;

	assert_int_equal(ps_ip_parse(text, &ip), 0);
	return ip;
}

struct ps_prefix prefix(const char *text)
{
	struct ps_prefix p;

	assert_int_equal(ps_prefix_parse(text, &p), 0);
	return p;
}

const struct ps_egress_slice *slice(unsigned n)
{
	return &plan.slices[net->slice + n];
}

struct ps_choice *choice(unsigned n)
{
	return net->family == AF_INET ? &plan.choices[n].v4 : &plan.choices[n].v6;
}

static struct ps_egress_slice slice_at(const char *address, uint16_t first)
{
	return (struct ps_egress_slice){ip_of(address), {first, LAB_PORTS}, LAB_SHIFT};
}

void plan_default(void)
{
	static struct ps_prefix direct[2], shared[2];
	static const unsigned shared_shift[] = {LAB_SHIFT, LAB_SHIFT};

	plan.cgroups[0] = (struct ps_egress_cgroup){lab.class_id, lab.class_level, PS_EGRESS_ANY,
						    PS_EGRESS_ANY};
	plan.matches[MARKED] = (struct ps_egress_match){
		.class = MARKED, .cgroup = 0, .has_mark = true, .mark = MARK};
	plan.matches[BARE] = (struct ps_egress_match){
		.class = BARE, .cgroup = PS_EGRESS_ANY, .has_mark = true, .mark = MARK + 1};
	plan.matches[MAIN] = (struct ps_egress_match){.class = MAIN, .cgroup = 0};
	for (unsigned i = 0; i < 2; i++) {
		struct ps_ip service = ip_of(nets[i].shared[0]);

		plan.services[i] = (struct ps_claim_key){.src = ps_ip16(&service),
							 .sport = htons(SERVICE_PORT),
							 .protocol = IPPROTO_TCP};
		direct[i] = prefix(nets[i].direct);
		shared[i] = prefix(nets[i].shared_text);
		plan.slices[2 * i] = slice_at(nets[i].shared[0], LAB_FIRST_PORT);
		plan.slices[2 * i + 1] = slice_at(nets[i].shared[1], 8192);
	}
	plan.choices[MARKED] = (struct ps_choices){{1, 1, 0}, {3, 1, 0}};
	plan.choices[BARE] = (struct ps_choices){{0, 0, 0}, {0, 0, 0}};
	plan.choices[MAIN] = (struct ps_choices){{0, 1, 0}, {2, 1, 0}};
	plan.config = (struct ps_egress_config){.slices = plan.slices,
						.n_slices = 4,
						.choices = plan.choices,
						.n_choices = N_CLASSES,
						.cgroups = plan.cgroups,
						.n_cgroups = 1,
						.matches = plan.matches,
						.n_matches = N_CLASSES,
						.direct = direct,
						.n_direct = 2,
						.shared = shared,
						.shared_shift = shared_shift,
						.n_shared = 2,
						.services = plan.services,
						.n_services = 2};
	plan.options = (struct ps_egress_options){.pin_dir = lab.pins, .cgroup_path = lab.cgroup};
}

void plan_size(unsigned shift)
{
	static unsigned shifts[2];

	shifts[0] = shifts[1] = shift;
	plan.config.shared_shift = shifts;
	for (size_t i = 0; i < PS_N_ELEMENTS(plan.slices); i++) {
		plan.slices[i].shift = shift;
		plan.slices[i].ports.count = (uint16_t)(1 << shift);
	}
}

void start(void)
{
	ps_auto(ps_egress_free) struct ps_egress *next = NULL;
	ps_auto_mem char *message = NULL;
	int r = ps_egress_load(&plan.config, &plan.options, &next, &message);

	if (r < 0)
		fail_msg("load: %d %s", r, message ? message : "");
	r = ps_egress_attach(next, &message);
	if (r < 0)
		fail_msg("attach: %d %s", r, message ? message : "");
	ps_egress_free(&egress);
	egress = ps_move(next);
}

int open_quarantine(void)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/quarantine", lab.pins);
	return bpf_obj_get(path);
}

void end_quarantines(void)
{
	struct ps_claim_key key, next;
	int fd = open_quarantine();
	void *from = NULL;

	while (bpf_map_get_next_key(fd, from, &next) == 0) {
		struct ps_quarantine value;

		key = next;
		from = &key;
		assert_int_equal(bpf_map_lookup_elem(fd, &key, &value), 0);
		value.free_after_ns = 1;
		assert_int_equal(bpf_map_update_elem(fd, &key, &value, BPF_EXIST), 0);
	}
	close(fd);
}

void start_afresh(void)
{
	uint64_t n;

	start();
	end_quarantines();
	assert_int_equal(ps_egress_thaw(egress, &n), 0);
	assert_int_equal(ps_egress_sweep(egress, true, &n), 0);
}

struct ps_claim_key orphan(int fd)
{
	int map = bpf_map__fd(egress->hooks->maps.sockets);
	struct ps_held held;

	assert_int_equal(bpf_map_lookup_elem(map, &fd, &held), 0);
	assert_int_equal(held.held, 1);
	held.held = 0;
	assert_int_equal(bpf_map_update_elem(map, &fd, &held, BPF_EXIST), 0);
	return held.grip.flow;
}

int set_up(void **state)
{
	net = *state;
	plan_default();
	start_afresh();
	lab_enter(lab.class_dir);
	return 0;
}

int tear_down(void **state)
{
	(void)state;
	lab_enter(lab.plain_dir);
	ps_egress_free(&egress);
	return ps_egress_detach_all(lab.pins);
}

uint64_t counter(enum ps_egress_reason reason)
{
	uint64_t counters[PS_EGRESS_MAX];

	assert_int_equal(ps_egress_counters(lab.pins, counters), 0);
	return counters[reason];
}

static int add_page(const struct ps_page *page, unsigned n_words, void *arg)
{
	const uint64_t *words = (const uint64_t *)(page + 1);
	unsigned *sum = arg, n = 0;

	for (unsigned i = 0; i < n_words; i++)
		n += (unsigned)__builtin_popcountll(words[i]);
	*sum += n;
	return 0;
}

unsigned n_claims(void)
{
	unsigned n = 0;

	assert_int_equal(ps_egress_pages(lab.pins, add_page, &n), 0);
	return n;
}

void wait_for_claims(unsigned n)
{
	const struct timespec tick = {0, 5 * 1000 * 1000};

	for (int ms = 0; n_claims() != n && ms < DEADLINE_MS; ms += 5)
		nanosleep(&tick, NULL);
	if (n_claims() != n) /* which socket holds on to its port? */
		(void)!system("ss -Hane >&2; nstat -az >&2");
	assert_int_equal(n_claims(), n);
}

socklen_t at(const char *address, uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in *in = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	if (strchr(address, ':')) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		assert_int_equal(inet_pton(AF_INET6, address, &in6->sin6_addr), 1);
		return sizeof(*in6);
	}
	in->sin_family = AF_INET;
	in->sin_port = htons(port);
	assert_int_equal(inet_pton(AF_INET, address, &in->sin_addr), 1);
	return sizeof(*in);
}

struct end end_of(const struct sockaddr_storage *address)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)address;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
	struct end end = {.port = ntohs(in6->sin6_port)};

	memcpy(end.ip.bytes, &in6->sin6_addr, sizeof(end.ip.bytes));
	if (address->ss_family == AF_INET)
		end = (struct end){ps_ip_from_v4(in->sin_addr.s_addr), ntohs(in->sin_port)};
	return end;
}

int try_connect(int fd, const char *address, uint16_t port)
{
	struct sockaddr_storage to;
	socklen_t len = at(address, port, &to);

	return connect(fd, (struct sockaddr *)&to, len) < 0 ? -errno : 0;
}

int try_bind(int fd, const char *address, uint16_t port)
{
	struct sockaddr_storage from;
	socklen_t len = at(address, port, &from);

	return bind(fd, (struct sockaddr *)&from, len) < 0 ? -errno : 0;
}

int try_send(int fd, const char *address, uint16_t port)
{
	struct sockaddr_storage to;
	socklen_t len = at(address, port, &to);

	return sendto(fd, "x", 1, 0, (struct sockaddr *)&to, len) < 0 ? -errno : 0;
}

struct end name_of(int fd)
{
	struct sockaddr_storage name = {0};
	socklen_t len = sizeof(name);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &len), 0);
	return end_of(&name);
}

/* An IPv6 one is of IPv6 only, so that what it binds cannot mean IPv4. */
int new_socket(int type)
{
	int fd = socket(net->family, type | SOCK_CLOEXEC, 0), on = 1;

	assert_true(fd >= 0);
	if (net->family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	return fd;
}

int dial(int type, const char *address)
{
	int fd = new_socket(type), r = try_connect(fd, address, PORT);

	if (r < 0)
		close(fd);
	return r < 0 ? r : fd;
}

void assert_from(int fd, const char *address)
{
	struct ps_ip ip = ip_of(address), name = name_of(fd).ip;

	assert_memory_equal(&name, &ip, sizeof(ip));
}

void assert_from_slice(int fd, const struct ps_egress_slice *of)
{
	struct end name = name_of(fd);

	assert_memory_equal(&name.ip, &of->address, sizeof(name.ip));
	assert_true(ps_range_contains(of->ports, name.port));
}

void close_all(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

void note_event(const struct ps_egress_event *event, void *arg)
{
	struct told *told = arg;

	told->n++;
	told->last = *event;
}

void fill(int type, int fds[3 * LAB_SHARED])
{
	bool used[3][LAB_SHARED] = {{false}};

	for (unsigned i = 0; i < 3 * LAB_SHARED; i++) {
		unsigned port;

		fds[i] = dial(type, net->far[i % 3]);
		assert_true(fds[i] >= 0);
		assert_from_slice(fds[i], slice(0));
		port = name_of(fds[i]).port - LAB_FIRST_PORT;
		assert_false(used[i % 3][port]);
		used[i % 3][port] = true;
	}
}

int open_all(void **state)
{
	int r = lab_open(&lab);

	(void)state;
	if (r < 0)
		return r;
	if (setns(lab.far_ns, CLONE_NEWNET) < 0)
		return -errno;
	listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0); /* of both families */
	if (setns(lab.near_ns, CLONE_NEWNET) < 0)
		return -errno;
	if (try_bind(listener, "::", PORT) < 0)
		return -errno;
	return listen(listener, 4096);
}

int close_lab(void **state)
{
	(void)state;
	close(listener);
	lab_close(&lab);
	return 0;
}

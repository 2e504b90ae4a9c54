// SPDX-License-Identifier: MIT
#include "egress-fixture.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <sched.h>
#include <time.h>

#include "base/own.h"

struct lab lab;
struct ps_egress *egress;
int listener = -1;
struct fixture_plan plan;
const char *const far[3] = {"10.77.0.2", "10.77.0.3", "10.77.0.5"};

uint32_t ip4(const char *text)
{
	return inet_addr(text);
}

struct ps_prefix prefix(const char *text)
{
	struct ps_prefix p;

	assert_int_equal(ps_prefix_parse(text, &p), 0);
	return p;
}

struct ps_egress_slice slice(const char *address, uint16_t first)
{
	return (struct ps_egress_slice){ip4(address), {first, LAB_PORTS}, LAB_SHIFT};
}

void plan_default(void)
{
	static struct ps_egress_match matches[3];
	static struct ps_claim_key service;
	static struct ps_prefix direct[1], shared[1];
	static const unsigned shared_shift[] = {LAB_SHIFT};

	matches[0] = (struct ps_egress_match){lab.class_id, lab.class_level, false, 0, 0};
	matches[1] = (struct ps_egress_match){lab.class_id, lab.class_level, true, MARK, 1};
	matches[2] = (struct ps_egress_match){0, 0, true, MARK + 1, 2};
	service = (struct ps_claim_key){
		.src = ip4("198.51.100.1"), .sport = htons(SERVICE_PORT), .protocol = IPPROTO_TCP};
	direct[0] = prefix("10.77.0.4/32");
	shared[0] = prefix("198.51.100.0/24");
	plan.slices[0] = slice("198.51.100.1", LAB_FIRST_PORT);
	plan.slices[1] = slice("198.51.100.2", 8192);
	plan.choices[0] = (struct ps_choice){0, 1};
	plan.choices[1] = (struct ps_choice){1, 1};
	plan.choices[2] = (struct ps_choice){0, 0};
	plan.config = (struct ps_egress_config){.slices = plan.slices,
						.n_slices = 2,
						.choices = plan.choices,
						.n_choices = 3,
						.matches = matches,
						.n_matches = 3,
						.direct = direct,
						.n_direct = 1,
						.shared = shared,
						.shared_shift = shared_shift,
						.n_shared = 1,
						.services = &service,
						.n_services = 1};
	plan.options = (struct ps_egress_options){.pin_dir = lab.pins, .cgroup_path = lab.cgroup};
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

int set_up(void **state)
{
	(void)state;
	plan_default();
	start();
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

unsigned n_claims(void)
{
	struct ps_claim_key key, next;
	void *from = NULL;
	unsigned n = 0;

	for (; bpf_map_get_next_key(ps_egress_claims_fd(egress), from, &next) == 0; n++) {
		key = next;
		from = &key;
	}
	return n;
}

void wait_for_claims(unsigned n)
{
	const struct timespec tick = {0, 5 * 1000 * 1000};

	for (int ms = 0; n_claims() != n && ms < DEADLINE_MS; ms += 5)
		nanosleep(&tick, NULL);
	assert_int_equal(n_claims(), n);
}

struct sockaddr_in at(const char *address, uint16_t port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = ip4(address)};
}

int try_connect(int fd, const char *address, uint16_t port)
{
	struct sockaddr_in to = at(address, port);

	return connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ? -errno : 0;
}

int try_bind(int fd, const char *address, uint16_t port)
{
	struct sockaddr_in from = at(address, port);

	return bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0 ? -errno : 0;
}

int try_send(int fd, const char *address, uint16_t port)
{
	struct sockaddr_in to = at(address, port);

	return sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)) < 0 ? -errno : 0;
}

struct sockaddr_in name_of(int fd)
{
	struct sockaddr_in name = {0};
	socklen_t len = sizeof(name);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &len), 0);
	return name;
}

int new_socket(int type)
{
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	return fd;
}

int dial(int type, const char *address)
{
	int fd = new_socket(type), r = try_connect(fd, address, PORT);

	if (r < 0)
		close(fd);
	return r < 0 ? r : fd;
}

void assert_from_slice(int fd, const struct ps_egress_slice *of)
{
	struct sockaddr_in name = name_of(fd);

	assert_int_equal(name.sin_addr.s_addr, of->ip4_be);
	assert_true(ps_range_contains(of->ports, ntohs(name.sin_port)));
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

void fill(int type, int fds[3 * LAB_PORTS])
{
	bool used[3][LAB_PORTS] = {{false}};

	for (unsigned i = 0; i < 3 * LAB_PORTS; i++) {
		unsigned port;

		fds[i] = dial(type, far[i % 3]);
		assert_true(fds[i] >= 0);
		assert_from_slice(fds[i], &plan.slices[0]);
		port = ntohs(name_of(fds[i]).sin_port) - LAB_FIRST_PORT;
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
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (setns(lab.near_ns, CLONE_NEWNET) < 0)
		return -errno;
	if (try_bind(listener, "0.0.0.0", PORT) < 0)
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

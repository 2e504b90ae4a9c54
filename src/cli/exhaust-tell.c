// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>

#include "base/own.h"
#include "cli/cli.h"
#include "cli/exhaust.h"

/* Of bind() and connect() together, microseconds. */
struct times {
	unsigned n;
	double p50, p90, p99, max;
};

/* What the connections that got through were opened from. */
struct sources {
	unsigned n_pairs;
	json_t *by_address; /* address -> ports; owned */
};

static int compare_times(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return (left > right) - (left < right);
}

static double percentile(const uint32_t *sorted, unsigned n, unsigned percent)
{
	unsigned i = (unsigned)((uint64_t)n * percent / 100);

	return n ? sorted[i < n ? i : n - 1] / 8.0 : 0;
}

/* Of those that got through, or of those refused. */
static int sum_times(const struct ps_exhaust_load *load, bool through, struct times *ret)
{
	ps_auto_mem uint32_t *sorted = calloc(load->n_tried ? load->n_tried : 1, sizeof(*sorted));
	unsigned n = 0;

	if (!sorted)
		return -ENOMEM;
	for (unsigned i = 0; i < load->n_tried; i++)
		if ((load->connections[i].fd >= 0) == through)
			sorted[n++] = load->connections[i].us_x8;
	qsort(sorted, n, sizeof(*sorted), compare_times);
	*ret = (struct times){n, percentile(sorted, n, 50), percentile(sorted, n, 90),
			      percentile(sorted, n, 99), percentile(sorted, n, 100)};
	return 0;
}

static int compare_sources(const void *a, const void *b)
{
	const struct ps_exhaust_connection *left = a, *right = b;
	int order = ps_ip_cmp(&left->source, &right->source);

	return order ? order : (int)left->source_port - (int)right->source_port;
}

static void add_source(struct sources *sources, const struct ps_ip *address)
{
	char text[PS_IP_TEXT_MAX];
	json_t *n;

	ps_ip_format(address, text);
	n = json_object_get(sources->by_address, text);
	json_object_set_new(sources->by_address, text, json_integer(json_integer_value(n) + 1));
	sources->n_pairs++;
}

/* Sorts a copy, so that the order of opening stays. */
static int sum_sources(const struct ps_exhaust_load *load, struct sources *ret)
{
	ps_auto_mem struct ps_exhaust_connection *sorted =
		calloc(load->n_through ? load->n_through : 1, sizeof(*sorted));
	struct sources sources = {0, json_object()};
	unsigned n = 0;

	if (!sorted || !sources.by_address) {
		json_decref(sources.by_address);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < load->n_tried; i++)
		if (load->connections[i].fd >= 0)
			sorted[n++] = load->connections[i];
	qsort(sorted, n, sizeof(*sorted), compare_sources);
	for (unsigned i = 0; i < n; i++)
		if (i == 0 || compare_sources(&sorted[i - 1], &sorted[i]) != 0)
			add_source(&sources, &sorted[i].source);
	*ret = sources;
	return 0;
}

static json_t *times_json(const struct times *times)
{
	return json_pack("{s:i, s:f, s:f, s:f, s:f}", "n", (int)times->n, "p50", times->p50, "p90",
			 times->p90, "p99", times->p99, "max", times->max);
}

static const char *target_text(const struct ps_exhaust_load *load, unsigned nth,
			       char ret[PS_IP_HOST_MAX + 6])
{
	uint16_t port;
	struct ps_ip ip = ps_exhaust_target(load->options, nth, &port);
	char host[PS_IP_HOST_MAX];

	snprintf(ret, PS_IP_HOST_MAX + 6, "%s:%u", ps_ip_format_host(&ip, host), port);
	return ret;
}

static json_t *faults_json(const struct ps_exhaust_load *load)
{
	json_t *rows = json_array();

	for (size_t i = 0; i < load->n_faults; i++) {
		const struct ps_exhaust_fault *fault = &load->faults[i];
		const char *name = strerrorname_np(fault->error);
		char target[PS_IP_HOST_MAX + 6];

		json_array_append_new(
			rows, json_pack("{s:s, s:s, s:s, s:i, s:i, s:f, s:s}", "call", fault->call,
					"errno", name ? name : "?", "text", strerror(fault->error),
					"times", (int)fault->n, "first", (int)fault->first + 1,
					"first_s", (double)fault->first_ns / 1e9, "first_target",
					target_text(load, fault->first, target)));
	}
	return rows;
}

static const char *bind_text(const struct ps_exhaust_options *options)
{
	if (!options->binds_first)
		return "none";
	if (options->binds_any)
		return "any";
	return options->binds_no_port ? "address, no port" : "address";
}

/* Takes over sources->by_address. */
static json_t *report_json(const struct ps_exhaust_load *load, const struct sources *sources,
			   const struct times *through, const struct times *refused)
{
	const struct ps_exhaust_options *options = load->options;
	unsigned n_targets = ps_exhaust_count_targets(options);

	if (n_targets > load->n_tried)
		n_targets = load->n_tried;
	return json_pack(
		"{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:f}",
		"protocol", options->is_udp ? "udp" : "tcp", "bind", bind_text(options),
		"connections", (int)options->n_connections, "tried", (int)load->n_tried, "targets",
		(int)n_targets, "first_through", (int)load->n_first_through, "through",
		(int)load->n_through, "answered", (int)load->n_answered, "waiting",
		(int)load->n_waiting, "sources", (int)sources->n_pairs, "addresses",
		sources->by_address, "errors", faults_json(load), "connect_us", times_json(through),
		"refused_us", times_json(refused), "took_s",
		(double)(load->end_ns - load->start_ns) / 1e9);
}

static void print_times(const char *what, const struct times *times)
{
	if (times->n)
		printf("%-9s p50 %.1f us, p90 %.1f us, p99 %.1f us, at most %.1f us a call\n", what,
		       times->p50, times->p90, times->p99, times->max);
}

static void print_faults(const struct ps_exhaust_load *load)
{
	char target[PS_IP_HOST_MAX + 6];

	for (size_t i = 0; i < load->n_faults; i++) {
		const struct ps_exhaust_fault *fault = &load->faults[i];
		const char *name = strerrorname_np(fault->error);

		printf("%-9s %s (%s) %u times, first by connection %u to %s after %.3f s\n",
		       fault->call, name ? name : "?", strerror(fault->error), fault->n,
		       fault->first + 1, target_text(load, fault->first, target),
		       (double)fault->first_ns / 1e9);
	}
}

static void print_report(const struct ps_exhaust_load *load, const struct sources *sources,
			 const struct times *through, const struct times *refused)
{
	const char *address;
	json_t *n_ports;

	printf("through   %u of %u connections (%u at the first try), %s, bind first: %s\n",
	       load->n_through, load->n_tried, load->n_first_through,
	       load->options->is_udp ? "UDP" : "TCP", bind_text(load->options));
	if (!load->options->is_udp)
		printf("answers   %u of them, %u still waiting\n", load->n_answered,
		       load->n_waiting);
	printf("sources   %u different (address, port)\n", sources->n_pairs);
	json_object_foreach(sources->by_address, address, n_ports)
		printf("          %s: %lld ports\n", address, json_integer_value(n_ports));
	print_faults(load);
	print_times("time", through);
	print_times("refused", refused);
}

int ps_exhaust_tell(const struct ps_exhaust_load *load, bool json)
{
	struct sources sources = {0};
	struct times through, refused;
	int r = sum_times(load, true, &through), code;

	if (r == 0)
		r = sum_times(load, false, &refused);
	if (r == 0)
		r = sum_sources(load, &sources);
	if (r < 0)
		return ps_cli_fail(PS_EXIT_REFUSED, "out of memory");
	code = load->n_through < load->n_tried ? PS_EXIT_FINDINGS : PS_EXIT_DONE;
	if (json) {
		r = ps_cli_print_json(report_json(load, &sources, &through, &refused));
		return r == PS_EXIT_DONE ? code : r;
	}
	print_report(load, &sources, &through, &refused);
	json_decref(sources.by_address);
	return code;
}

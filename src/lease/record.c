// SPDX-License-Identifier: MIT
#include "lease/record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const slice_states[] = {"new",      "granted",    "active",
					   "draining", "quarantine", "free"};
static const char *const host_states[] = {"none", "alive", "expired"};
static const char *const phases[] = {"here", "leaving", "moved"};

bool ps_slice_record_newer(const struct ps_slice_record *a, const struct ps_slice_record *b)
{
	if (a->epoch != b->epoch)
		return a->epoch > b->epoch;
	return a->state > b->state;
}

const char *ps_slice_state_text(unsigned state)
{
	return state < sizeof(slice_states) / sizeof(*slice_states) ? slice_states[state] : "?";
}

static int find_word(const char *const *words, size_t n, const char *word)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(words[i], word) == 0)
			return (int)i;
	return -EBADMSG;
}

#define FIND(words, word) find_word(words, sizeof(words) / sizeof(*(words)), word)

static const char *name_of(const struct ps_lease_names *names, unsigned number, bool is_site)
{
	return names->name(names->context, number, is_site);
}

static int number_of(const struct ps_lease_names *names, const char *name, bool is_site,
		     uint16_t *ret)
{
	int r = names->number(names->context, name, is_site);

	if (r < 0)
		return r;
	*ret = (uint16_t)r;
	return 0;
}

static int format_host(const struct ps_host_record *host, char *ret, size_t len)
{
	return snprintf(ret, len,
			"%s session %" PRIx64 " asserted %" PRIu64 " stamp %" PRIu64
			" acked %" PRIu64 " dispatcher %d confirmed %" PRIu64 " suspect %" PRIu64
			" wish %u since %" PRIu64,
			host_states[host->state], host->session, host->asserted, host->stamp_ms,
			host->acked_ms, host->is_dispatcher, host->confirmed, host->suspect_ms,
			host->wish_pool, host->wish_ms);
}

static int format_slice(const struct ps_slice_record *slice, const struct ps_lease_names *names,
			char *ret, size_t len)
{
	const char *holder = name_of(names, slice->holder, false);

	if (!holder)
		return -EINVAL;
	return snprintf(ret, len, "%s %s epoch %" PRIu32 " stamp %" PRIu64,
			ps_slice_state_text(slice->state), holder, slice->epoch, slice->stamp_ms);
}

static int format_address(const struct ps_address_record *address,
			  const struct ps_lease_names *names, char *ret, size_t len)
{
	const char *site = name_of(names, address->site, true);
	const char *target = name_of(names, address->target, true);

	if (!site || !target)
		return -EINVAL;
	return snprintf(ret, len, "%s %s target %s epoch %" PRIu32 " drained %d",
			phases[address->phase], site, target, address->epoch, address->is_drained);
}

static int format_value(const struct ps_lease_record *record, const struct ps_lease_names *names,
			char *ret, size_t len)
{
	const union ps_lease_value *value = &record->value;

	switch (record->key.kind) {
	case PS_LEASE_CLOCK:
		return snprintf(ret, len, "%" PRIu64, value->clock_ms);
	case PS_LEASE_BIRTH:
		return snprintf(ret, len, "%" PRIu64 " stamp %" PRIu64 " settled %d",
				value->birth.incarnation, value->birth.stamp_ms,
				value->birth.is_settled);
	case PS_LEASE_HOST:
		return format_host(&value->host, ret, len);
	case PS_LEASE_SLICE:
		return format_slice(&value->slice, names, ret, len);
	default:
		return format_address(&value->address, names, ret, len);
	}
}

int ps_lease_record_format(const struct ps_lease_record *record, const struct ps_lease_names *names,
			   char *ret, size_t len)
{
	int n = format_value(record, names, ret, len);

	return n >= (int)len ? -ENOBUFS : n;
}

/* What a scan of n fields came to: all of them, and the text ended with the last. */
static int judge(int n, int wanted, int end, const char *text)
{
	return n == wanted && text[end] == '\0' ? 0 : -EBADMSG;
}

static int parse_birth(const char *text, struct ps_birth_record *ret)
{
	struct ps_birth_record birth = {0};
	unsigned settled = 0;
	int end = 0;
	int n = sscanf(text, "%" SCNu64 " stamp %" SCNu64 " settled %u%n", &birth.incarnation,
		       &birth.stamp_ms, &settled, &end);

	if (judge(n, 3, end, text) < 0 || settled > 1)
		return -EBADMSG;
	birth.is_settled = settled;
	*ret = birth;
	return 0;
}

static int parse_host(const char *text, struct ps_host_record *ret)
{
	struct ps_host_record host = {0};
	char state[PS_LEASE_NAME_MAX] = "";
	unsigned dispatcher = 0;
	int end = 0, r;
	int n = sscanf(text,
		       "%63s session %" SCNx64 " asserted %" SCNu64 " stamp %" SCNu64
		       " acked %" SCNu64 " dispatcher %u confirmed %" SCNu64 " suspect %" SCNu64
		       " wish %" SCNu16 " since %" SCNu64 "%n",
		       state, &host.session, &host.asserted, &host.stamp_ms, &host.acked_ms,
		       &dispatcher, &host.confirmed, &host.suspect_ms, &host.wish_pool,
		       &host.wish_ms, &end);

	r = FIND(host_states, state);
	if (judge(n, 10, end, text) < 0 || r < 0 || dispatcher > 1)
		return -EBADMSG;
	host.state = (uint8_t)r;
	host.is_dispatcher = dispatcher;
	*ret = host;
	return 0;
}

static int parse_slice(const char *text, const struct ps_lease_names *names,
		       struct ps_slice_record *ret)
{
	struct ps_slice_record slice = {0};
	char state[PS_LEASE_NAME_MAX] = "", holder[PS_LEASE_NAME_MAX] = "";
	int end = 0, r;
	int n = sscanf(text, "%63s %63s epoch %" SCNu32 " stamp %" SCNu64 "%n", state, holder,
		       &slice.epoch, &slice.stamp_ms, &end);

	r = FIND(slice_states, state);
	if (judge(n, 4, end, text) < 0 || r < 0)
		return -EBADMSG;
	slice.state = (uint8_t)r;
	r = number_of(names, holder, false, &slice.holder);
	if (r < 0)
		return r;
	*ret = slice;
	return 0;
}

static int parse_address(const char *text, const struct ps_lease_names *names,
			 struct ps_address_record *ret)
{
	struct ps_address_record address = {0};
	char phase[PS_LEASE_NAME_MAX] = "", site[PS_LEASE_NAME_MAX] = "",
	     target[PS_LEASE_NAME_MAX] = "";
	unsigned drained = 0;
	int end = 0, r;
	int n = sscanf(text, "%63s %63s target %63s epoch %" SCNu32 " drained %u%n", phase, site,
		       target, &address.epoch, &drained, &end);

	r = FIND(phases, phase);
	if (judge(n, 5, end, text) < 0 || r < 0 || drained > 1)
		return -EBADMSG;
	address.phase = (uint8_t)r;
	address.is_drained = drained;
	r = number_of(names, site, true, &address.site);
	if (r == 0)
		r = number_of(names, target, true, &address.target);
	if (r < 0)
		return r;
	*ret = address;
	return 0;
}

int ps_lease_record_parse(const char *text, const struct ps_lease_names *names,
			  struct ps_lease_record *ret)
{
	union ps_lease_value *value = &ret->value;
	uint64_t clock_ms = 0;
	int end = 0, n;

	switch (ret->key.kind) {
	case PS_LEASE_CLOCK:
		n = sscanf(text, "%" SCNu64 "%n", &clock_ms, &end);
		if (judge(n, 1, end, text) < 0)
			return -EBADMSG;
		value->clock_ms = clock_ms;
		return 0;
	case PS_LEASE_BIRTH:
		return parse_birth(text, &value->birth);
	case PS_LEASE_HOST:
		return parse_host(text, &value->host);
	case PS_LEASE_SLICE:
		return parse_slice(text, names, &value->slice);
	default:
		return parse_address(text, names, &value->address);
	}
}

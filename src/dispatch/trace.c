// SPDX-License-Identifier: MIT
/*
 * The dispatcher's decision over tables in memory.
 *
 * decide.h is the same text that the kernel runs; this file only says where tables and frame are.
 * The frame is copied behind its head room at the very end of a heap block, so that a sanitizer
 * sees each read beyond it, and two bytes off a word, so that IP headers are aligned as in the
 * kernel (NET_IP_ALIGN).
 */
#include "dispatch/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/own.h"
#include "dispatch/decide.h"
#include "dispatch/gatherer.h"

enum { PS_ALIGN = 2 }; /* NET_IP_ALIGN */

struct ps_frame {
	const struct ps_table *table;
	const struct ps_trace_options *options;
	unsigned char *block, *data, *end;
	struct ps_budget budget[PS_BUDGET_MAX];
	unsigned ifindex; /* left by */
	struct ps_mtu_hint hint;
	struct ps_split_note note;
};

static void *ps_frame_data(struct ps_frame *frame)
{
	return frame->data;
}

static void *ps_frame_end(struct ps_frame *frame)
{
	return frame->end;
}

/* As bpf_xdp_adjust_head(): room is limited, and an Ethernet header must remain. */
static int ps_frame_move(struct ps_frame *frame, int delta)
{
	if (frame->data - frame->block - PS_ALIGN + delta < 0)
		return -1;
	if (frame->end - frame->data - delta < ETH_HLEN)
		return -1;
	frame->data += delta;
	return 0;
}

static int ps_frame_cut(struct ps_frame *frame, __u32 len)
{
	if (frame->end - frame->data < (ptrdiff_t)len)
		return -1;
	frame->end = frame->data + len;
	return 0;
}

static int ps_frame_note(struct ps_frame *frame, const struct ps_split_note *note)
{
	if (frame->data - frame->block - PS_ALIGN < (ptrdiff_t)sizeof(*note))
		return -1;
	frame->note = *note;
	frame->ifindex = note->ifindex;
	return 0;
}

static int ps_frame_leave(struct ps_frame *frame, __u32 ifindex)
{
	frame->ifindex = ifindex;
	return ifindex == frame->options->ifindex ? XDP_TX : XDP_REDIRECT;
}

static struct ps_fragment_note *find_note(struct ps_trace_memory *memory,
					  const struct ps_fragment_key *key)
{
	for (unsigned i = 0; memory && i < PS_TRACE_NOTES; i++)
		if (memory->notes[i].seen_ns && memcmp(&memory->keys[i], key, sizeof(*key)) == 0)
			return &memory->notes[i];
	return NULL;
}

static __s32 ps_look_gatherer(struct ps_frame *frame, __u32 group, __u32 hash)
{
	return ps_find_gatherer(frame, group, hash);
}

static __s32 ps_look_fragment(struct ps_frame *frame, const struct ps_fragment_key *key,
			      __u64 now_ns)
{
	const struct ps_fragment_note *note = find_note(frame->options->memory, key);

	return note && ps_fragment_is_fresh(note, now_ns) ? (__s32)note->peer : -1;
}

static void ps_note_fragment(struct ps_frame *frame, const struct ps_fragment_key *key, __u32 peer,
			     __u64 now_ns)
{
	struct ps_trace_memory *memory = frame->options->memory;
	struct ps_fragment_note *note = find_note(memory, key);

	if (!memory)
		return;
	if (!note) {
		note = &memory->notes[memory->next];
		memory->keys[memory->next] = *key;
		memory->next = (memory->next + 1) % PS_TRACE_NOTES;
	}
	*note = (struct ps_fragment_note){now_ns, peer, 0};
}

static void ps_frame_hint(struct ps_frame *frame, const struct ps_mtu_hint *hint)
{
	frame->hint = *hint;
}

static const struct ps_dispatch_config *ps_look_config(struct ps_frame *frame)
{
	return &frame->table->config;
}

static int ps_look_address(struct ps_frame *frame, __be32 ip4_be, struct ps_address *ret)
{
	struct ps_ip ip = ps_ip_from_v4(ip4_be);

	return ps_table_find(frame->table, &ip, ret);
}

static int ps_look_address6(struct ps_frame *frame, const __be32 *ip6, struct ps_address *ret)
{
	struct ps_ip ip;

	memcpy(ip.bytes, ip6, sizeof(ip.bytes));
	return ps_table_find(frame->table, &ip, ret);
}

static __u8 ps_look_owner(struct ps_frame *frame, const struct ps_address *address, __u32 slice)
{
	size_t row = address->row + (size_t)slice / PS_ROW_SLICES;

	return row < frame->table->n_owners ? frame->table->owners[row].slot[slice % PS_ROW_SLICES]
					    : PS_OWNER_NONE;
}

static const struct ps_peer *ps_look_peer(struct ps_frame *frame, __u32 i)
{
	static const struct ps_peer none;

	return i < frame->table->n_peers ? &frame->table->peers[i] : &none;
}

static const struct ps_peer6 *ps_look_peer6(struct ps_frame *frame, __u32 i)
{
	static const struct ps_peer6 none;

	return i < frame->table->n_peers ? &frame->table->peers6[i] : &none;
}

static int ps_look_source(struct ps_frame *frame, const struct ps_source_key *key)
{
	struct ps_ip ip;

	memcpy(ip.bytes, key->address, sizeof(ip.bytes));
	return ps_table_is_source(frame->table, &ip);
}

static int ps_look_service(struct ps_frame *frame, const struct ps_service_key *key)
{
	const struct ps_table *table = frame->table;

	for (size_t i = 0; i < table->n_services; i++)
		if (memcmp(&table->services[i], key, sizeof(*key)) == 0)
			return 1;
	return 0;
}

static int ps_look_claim(struct ps_frame *frame, const struct ps_verdict *v)
{
	(void)v;
	return frame->options->expected;
}

static int ps_look_socket(struct ps_frame *frame, const struct ps_verdict *v)
{
	return ps_look_claim(frame, v);
}

static __u64 ps_look_clock(struct ps_frame *frame)
{
	return frame->options->now_ns;
}

static int ps_look_budget(struct ps_frame *frame, enum ps_budget_kind kind, __u64 now_ns,
			  __u32 per_s)
{
	return ps_budget_take(&frame->budget[kind], now_ns, per_s);
}

static enum ps_trace_action action_of(int xdp_action)
{
	switch (xdp_action) {
	case XDP_PASS:
		return PS_TRACE_PASS;
	case XDP_TX:
		return PS_TRACE_TX;
	case XDP_REDIRECT:
		return PS_TRACE_REDIRECT;
	default:
		return PS_TRACE_DROP;
	}
}

static struct ps_outcome by_stages(struct ps_frame *frame)
{
	struct ps_verdict v;
	int action;

	ps_decide(frame, &v);
	action = ps_carry_out(frame, &v);
	return (struct ps_outcome){v.reason, v.site, v.host, action};
}

/* What the tc program makes of a frame with a note (split.bpf.h). */
static int split_frame(struct ps_frame *work, struct ps_trace_result *result)
{
	size_t head_len = work->note.head_len, first_len = work->note.first_len;
	size_t rest_len = work->note.rest_len;
	ps_auto_mem unsigned char *block = malloc(PS_ALIGN + head_len + rest_len);

	if (!block)
		return -ENOMEM;
	memcpy(block + PS_ALIGN, work->data, head_len);
	memcpy(block + PS_ALIGN + head_len, work->data + head_len + first_len, rest_len);
	ps_split_write(work->data, 0, (__u32)first_len, 1);
	ps_split_write(block + PS_ALIGN, (__u32)first_len, (__u32)rest_len, 0);
	result->action = PS_TRACE_SPLIT;
	result->len = head_len + first_len;
	result->second = block + PS_ALIGN;
	result->second_len = head_len + rest_len;
	result->second_block = ps_move(block);
	return 0;
}

int ps_trace_packet(const struct ps_table *table, const void *frame, size_t len,
		    const struct ps_trace_options *options, struct ps_trace_result *ret)
{
	size_t before = PS_ALIGN + (options->headroom & ~3u);
	ps_auto_mem unsigned char *block = NULL;
	struct ps_frame work = {.table = table, .options = options, .ifindex = options->ifindex};
	struct ps_outcome outcome = {.reason = PS_UNDECIDED};
	struct ps_trace_result result;

	if (len > PS_TRACE_FRAME_MAX)
		return -EMSGSIZE;
	block = malloc(before + len);
	if (!block)
		return -ENOMEM;
	memset(block, 0, before); /* a move within it shows zeros, not another packet */
	if (len)
		memcpy(block + before, frame, len);
	work.block = block;
	work.data = block + before;
	work.end = work.data + len;
	if (!options->no_express)
		outcome = ps_express(&work);
	if (outcome.reason == PS_UNDECIDED)
		outcome = by_stages(&work);
	result = (struct ps_trace_result){
		.reason = outcome.reason,
		.action = action_of(outcome.action),
		.ifindex = work.ifindex,
		.site = outcome.site,
		.host = outcome.host,
		.hint = work.hint,
		.frame = work.data,
		.len = (size_t)(work.end - work.data),
	};
	if (work.note.magic && split_frame(&work, &result) < 0)
		return -ENOMEM;
	result.block = ps_move(block);
	*ret = result;
	return 0;
}

void ps_trace_result_clear(struct ps_trace_result *result)
{
	free(result->block);
	free(result->second_block);
	*result = (struct ps_trace_result){0};
}

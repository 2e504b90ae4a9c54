/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The order of a dispatching decision (design.md §3).  Each stage answers one question and names the
 * next; between them lies only the verdict.  The file that includes this says where tables and frame
 * are by defining the functions of look.h: dispatch.bpf.c with maps and helpers, trace.c with
 * struct ps_table and a heap block.  So kernel, `portslice trace`, tests and fuzzer run the same lines.
 *
 *   frame --ps_express--> frame encapsulated, action     the common packet, in one go (express.h)
 *         \
 *          --ps_decide--> verdict (frame untouched) --ps_carry_out--> frame changed, action
 */
#ifndef PS_DISPATCH_DECIDE_H
#define PS_DISPATCH_DECIDE_H

#include "dispatch/answer.h"
#include "dispatch/arrive.h"
#include "dispatch/carry.h"
#include "dispatch/express.h"
#include "dispatch/place.h"
#include "dispatch/read.h"

PS_INLINE __u32 ps_decide_shared(struct ps_frame *frame, struct ps_verdict *v)
{
	__u32 next = v->is_v6 ? ps_read6(frame, v) : ps_read4(frame, v);

	if (next == PS_UNDECIDED)
		next = ps_place(frame, v);
	if (next == PS_NEXT_GATHER)
		next = ps_gather(frame, v);
	if (next == PS_NEXT_PING)
		next = ps_ping(frame, v);
	if (next == PS_NEXT_EXPECT)
		next = ps_expect(frame, v);
	if (next == PS_NEXT_REFUSE)
		next = ps_refuse(frame, v);
	if (next == PS_NEXT_SEND)
		next = ps_send(frame, v);
	if (next == PS_NEXT_TOO_BIG)
		next = ps_too_big(frame, v);
	return next;
}

/* The frame is only read. */
PS_INLINE void ps_decide(struct ps_frame *frame, struct ps_verdict *v)
{
	__u32 reason;

	__builtin_memset(v, 0, sizeof(*v)); /* in words; an initializer would go by its fields */
	v->site = v->host = -1;
	reason = ps_arrive(frame, v);
	if (reason == PS_NEXT_HINT)
		reason = ps_read_about(frame, v);
	if (reason == PS_UNDECIDED)
		reason = ps_decide_shared(frame, v);
	if (v->came && (reason == PS_REASON_DROP_HEADER || reason == PS_REASON_DROP_TRUNCATED))
		reason = PS_REASON_DROP_INNER;
	if (v->form == PS_FORM_FIRST &&
	    (reason == PS_REASON_TO_HOST || reason == PS_REASON_SPLIT ||
	     reason == PS_REASON_DELIVER || reason == PS_REASON_DELIVER_SERVICE))
		ps_remember(frame, v);
	v->reason = reason;
}

#endif

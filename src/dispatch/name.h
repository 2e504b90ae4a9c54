/* SPDX-License-Identifier: MIT */
/* Names of BPF programs of others, for a process with CAP_BPF and CAP_PERFMON only. */
#ifndef PS_DISPATCH_NAME_H
#define PS_DISPATCH_NAME_H

#include <linux/bpf.h>

/* The name of the program with this id, as far as the kernel keeps it: 15 characters.  -ENOENT: no
 * such program any more; else what loading or reading the iterator gave. */
int ps_program_name(__u32 id, char ret[BPF_OBJ_NAME_LEN]);

#endif

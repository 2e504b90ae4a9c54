// SPDX-License-Identifier: MIT
/*
 * Shows each of our BPF objects to this kernel's verifier, and says for every program what it found:
 * instructions walked, states, and the stack of each function.  For `make check-long`, where the
 * kernel is an older one than that of the machine (boot.py).
 *
 * usage: verify OBJECT...      one line a program, and the end of the log of one that is refused; ends
 *                              with 1 when any is
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/libbpf.h>

enum { LOG_LEN = 1 << 24, PROGRAMS_MAX = 64, TAIL = 3000 };

/* Log levels of kernel/bpf/verifier.c. */
enum { LEVEL_STATS = 4, LEVEL_STEPS = 1 };

struct entry {
	struct bpf_program *program;
	char *log;
};

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	return level == LIBBPF_WARN ? vprintf(format, args) : 0;
}

/* "processed 231 insns (limit 1000000) ..." and "stack depth 32+168": to the end of their lines. */
static void print_line_with(const char *log, const char *what)
{
	const char *at = strstr(log, what);

	if (at)
		printf("; %.*s", (int)strcspn(at, "\n"), at);
}

static const char *tail_of(const char *log)
{
	size_t len = strlen(log);

	return len > TAIL ? log + len - TAIL : log;
}

static void report(const struct entry *entry, int level)
{
	if (level == LEVEL_STEPS) {
		if (entry->log[0])
			printf("%s: ...%s\n", bpf_program__name(entry->program),
			       tail_of(entry->log));
		return;
	}
	printf("VERIFY %s: %s", bpf_program__name(entry->program),
	       bpf_program__fd(entry->program) >= 0 ? "loaded"
	       : entry->log[0]                      ? "REFUSED"
						    : "not tried");
	print_line_with(entry->log, "processed ");
	print_line_with(entry->log, "stack depth ");
	putchar('\n');
}

/* 0: all of its programs were taken. */
static int verify(const char *path, int level)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	struct entry entries[PROGRAMS_MAX] = {0};
	struct bpf_program *program;
	int n = 0, r;

	if (!object) {
		printf("VERIFY %s: cannot open\n", path);
		return 1;
	}
	bpf_object__for_each_program(program, object)
	{
		if (n == PROGRAMS_MAX)
			break;
		entries[n] = (struct entry){program, calloc(1, LOG_LEN)};
		bpf_program__set_log_buf(program, entries[n].log, LOG_LEN);
		bpf_program__set_log_level(program, (__u32)level);
		n++;
	}
	r = bpf_object__load(object);
	for (int i = 0; i < n; i++) {
		report(&entries[i], level);
		free(entries[i].log);
	}
	bpf_object__close(object);
	return r != 0;
}

int main(int argc, char **argv)
{
	int bad = 0;

	libbpf_set_print(quiet);
	for (int i = 1; i < argc; i++) {
		if (verify(argv[i], LEVEL_STATS) == 0)
			continue;
		bad++;
		verify(argv[i], LEVEL_STEPS); /* for its log */
	}
	return bad != 0;
}

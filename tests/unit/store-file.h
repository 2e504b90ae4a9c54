/* SPDX-License-Identifier: MIT */
/* A SQLite store in a folder of its own for one test, and what the tests do with its files. */
#ifndef PS_TESTS_STORE_FILE_H
#define PS_TESTS_STORE_FILE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/own.h"
#include "cm.h"
#include "store/store.h"
#include "store-place.h"

struct fixture {
	char folder[PLACE_MAX];
	char path[PLACE_MAX + 16];
	char url[PLACE_MAX + 32];
};

static inline int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	place_make(f->folder);
	snprintf(f->path, sizeof(f->path), "%s/store.db", f->folder);
	snprintf(f->url, sizeof(f->url), "sqlite:%s", f->path);
	*state = f;
	return 0;
}

static inline int tear_down(void **state)
{
	struct fixture *f = *state;

	place_remove(f->folder);
	free(f);
	return 0;
}

static inline struct ps_store *open_store(const char *url)
{
	ps_auto_mem char *message = NULL;
	struct ps_store *store = NULL;

	if (ps_store_open(url, &store, &message) < 0)
		fail_msg("%s", message);
	return store;
}

static inline uint64_t revision_of(struct ps_store *store)
{
	uint64_t revision;

	assert_int_equal(ps_store_revision(store, &revision), 0);
	return revision;
}

static inline void *read_file(const char *path, size_t *ret_len)
{
	FILE *in = fopen(path, "r");
	struct stat file;
	void *bytes;

	assert_non_null(in);
	assert_int_equal(fstat(fileno(in), &file), 0);
	*ret_len = (size_t)file.st_size;
	bytes = malloc(*ret_len + 1);
	assert_non_null(bytes);
	assert_int_equal(fread(bytes, 1, *ret_len, in), *ret_len);
	fclose(in);
	return bytes;
}

static inline void write_file(const char *path, const void *bytes, size_t len)
{
	FILE *out = fopen(path, "w");

	assert_non_null(out);
	assert_int_equal(fwrite(bytes, 1, len, out), len);
	assert_int_equal(fclose(out), 0);
}

static inline void remove_store(const char *path)
{
	static const char *const endings[] = {"", "-wal", "-shm"};

	for (size_t i = 0; i < PS_N_ELEMENTS(endings); i++) {
		char name[PLACE_MAX + 32];

		snprintf(name, sizeof(name), "%s%s", path, endings[i]);
		assert_true(unlink(name) == 0 || errno == ENOENT);
	}
}

/* The child's exit code; a crash or a sanitizer's finding fails here. */
static inline int wait_for(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

#endif

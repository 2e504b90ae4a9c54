// SPDX-License-Identifier: MIT
/* Runs a fuzz target over every file of a folder, each in a heap block of its exact length. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int replay(const char *dir, const char *name)
{
	char path[4096];
	struct stat st;
	uint8_t *data;
	FILE *file;
	size_t len;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (stat(path, &st) < 0)
		return -1;
	if (!S_ISREG(st.st_mode))
		return 0;
	file = fopen(path, "rb");
	data = malloc((size_t)st.st_size);
	if (!file || (!data && st.st_size)) {
		if (file)
			fclose(file);
		free(data);
		return -1;
	}
	len = fread(data, 1, (size_t)st.st_size, file);
	fclose(file);
	LLVMFuzzerTestOneInput(data, len);
	free(data);
	return 1;
}

int main(int argc, char **argv)
{
	struct dirent *entry;
	int r, n = 0;
	DIR *dir;

	if (argc != 2)
		return 2;
	dir = opendir(argv[1]);
	if (!dir) {
		perror(argv[1]);
		return 1;
	}
	while ((entry = readdir(dir))) {
		r = replay(argv[1], entry->d_name);
		if (r < 0) {
			perror(entry->d_name);
			return 1;
		}
		n += r;
	}
	closedir(dir);
	printf("%d inputs\n", n);
	return n ? 0 : 1;
}

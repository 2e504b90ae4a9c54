// SPDX-License-Identifier: MIT
#include "crew.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker.h"

static int start(struct crew *crew, unsigned worker)
{
	pid_t parent = getpid();
	int line[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line) < 0)
		return -errno;
	crew->pids[worker] = fork();
	if (crew->pids[worker] == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		/* Else those before would not see theirs end. */
		for (unsigned i = 0; i < worker; i++)
			close(crew->lines[i]);
		close(line[0]);
		worker_run(crew->cgroups, crew->board, worker, line[1]);
		_exit(0);
	}
	close(line[1]);
	crew->lines[worker] = line[0];
	return crew->pids[worker] < 0 ? -errno : 0;
}

int crew_open(const struct cgroups *cgroups, struct crew *ret)
{
	struct crew crew = {.cgroups = cgroups};
	int r = 0;

	memset(crew.lines, -1, sizeof(crew.lines));
	crew.board = mmap(NULL, sizeof(*crew.board), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (crew.board == MAP_FAILED)
		return -errno;
	for (unsigned i = 0; r >= 0 && i < CREW; i++)
		r = start(&crew, i);
	if (r < 0) {
		crew_close(&crew);
		return r;
	}
	*ret = crew;
	return 0;
}

void crew_close(struct crew *crew)
{
	for (unsigned i = 0; crew->board && i < CREW; i++) {
		if (crew->lines[i] >= 0)
			close(crew->lines[i]);
		if (crew->pids[i] > 0)
			waitpid(crew->pids[i], NULL, 0);
	}
	if (crew->board)
		munmap(crew->board, sizeof(*crew->board));
	*crew = (struct crew){0};
}

int crew_tell(const struct crew *crew, unsigned worker, const struct order *order)
{
	ssize_t n = send(crew->lines[worker], order, sizeof(*order), MSG_NOSIGNAL);

	return n == sizeof(*order) ? 0 : -EPIPE;
}

int crew_hear(const struct crew *crew, unsigned worker, struct outcome *ret)
{
	ssize_t n = recv(crew->lines[worker], ret, sizeof(*ret), 0);

	if (n != sizeof(*ret)) {
		fprintf(stderr, "bench: worker %u ended\n", worker);
		return -EPIPE;
	}
	return 0;
}

int crew_do(const struct crew *crew, unsigned worker, const struct order *order,
	    struct outcome *ret)
{
	int r = crew_tell(crew, worker, order);

	return r < 0 ? r : crew_hear(crew, worker, ret);
}

static void await_answer(const struct crew *crew, const struct world *world, unsigned worker)
{
	struct pollfd waiting[] = {{.fd = crew->lines[worker], .events = POLLIN},
				   {.fd = world->sink, .events = POLLIN}};

	do {
		(void)poll(waiting, 2, -1);
		if (waiting[1].revents)
			world_drain(world);
	} while (!waiting[0].revents);
}

int crew_do_all(const struct crew *crew, const struct world *world, const struct order *order,
		struct outcome *ret)
{
	struct outcome sum = {0}, each;
	int r = 0;

	for (unsigned i = 0; r >= 0 && i < CREW; i++)
		r = crew_tell(crew, i, order);
	for (unsigned i = 0; r >= 0 && i < CREW; i++) {
		await_answer(crew, world, i);
		r = crew_hear(crew, i, &each);
		if (r < 0)
			break;
		sum.n_done += each.n_done;
		sum.n_refused += each.n_refused;
		sum.n_duplicates += each.n_duplicates;
		sum.n_died += each.n_died;
		if (!sum.first_error)
			sum.first_error = each.first_error;
	}
	if (r >= 0)
		*ret = sum;
	return r;
}

// SPDX-License-Identifier: MIT
/*
 * A program for the end-to-end tests: connects by io_uring, as a server with an asynchronous runtime
 * does, and prints the near end as getsockname() tells it.
 *
 * usage: ring-connect tcp|udp ADDRESS PORT       prints "ADDRESS PORT", or "errno N" and ends with 1
 */
#include <errno.h>
#include <liburing.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int connect_by_ring(int fd, const struct addrinfo *to)
{
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	int r = io_uring_queue_init(4, &ring, 0);

	if (r < 0)
		return r;
	io_uring_prep_connect(io_uring_get_sqe(&ring), fd, to->ai_addr, to->ai_addrlen);
	r = io_uring_submit(&ring);
	if (r >= 0)
		r = io_uring_wait_cqe(&ring, &cqe);
	if (r >= 0)
		r = cqe->res;
	io_uring_queue_exit(&ring);
	return r;
}

static int print_name(int fd)
{
	char host[64], port[16];
	struct sockaddr_storage name;
	socklen_t len = sizeof(name);

	if (getsockname(fd, (struct sockaddr *)&name, &len) < 0 ||
	    getnameinfo((struct sockaddr *)&name, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		return 1;
	printf("%s %s\n", host, port);
	return 0;
}

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST}, *to;
	int fd, r;

	if (argc != 4)
		return 2;
	hints.ai_socktype = strcmp(argv[1], "tcp") == 0 ? SOCK_STREAM : SOCK_DGRAM;
	if (getaddrinfo(argv[2], argv[3], &hints, &to))
		return 2;
	fd = socket(to->ai_family, to->ai_socktype, 0);
	r = fd < 0 ? -errno : connect_by_ring(fd, to);
	if (r >= 0 && to->ai_socktype == SOCK_DGRAM && send(fd, "x", 1, 0) != 1)
		r = -errno;
	freeaddrinfo(to);
	if (r >= 0)
		return print_name(fd);
	printf("errno %d\n", -r);
	return 1;
}

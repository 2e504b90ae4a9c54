// SPDX-License-Identifier: MIT
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include "base/own.h"
#include "store/etcd.h"

enum { RETRY_MS = 500 };

/* One descriptor, epoll_fd, for three: the sockets of the transfer, a timer while there is no stream,
 * and dirty_fd for what was taken in behind the back of whoever waits. */
struct ps_etcd_watch {
	struct ps_etcd_wire *wire;
	struct ps_etcd_stream stream;
	struct ps_etcd_log log;
	CURLM *multi;
	CURL *easy; /* NULL between two tries */
	struct curl_slist *headers;
	char *body;
	int epoll_fd, timer_fd, dirty_fd;
	bool is_news;          /* since the last clearing */
	bool is_due;           /* curl wants to be called at once */
	int64_t curl_ms;       /* when curl wants to be called; 0: not at all */
	int64_t give_up_ms;    /* when to try again, or to stop waiting for the watch to stand */
	unsigned n_failures;   /* in a row */
	unsigned n_end_points; /* so many are tried without waiting */
};

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct ps_etcd_watch *watch = arg;
	struct epoll_event event = {.data.fd = fd};

	(void)easy, (void)known;
	if (what == CURL_POLL_REMOVE) {
		(void)epoll_ctl(watch->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	event.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	if (epoll_ctl(watch->epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 && errno == ENOENT)
		(void)epoll_ctl(watch->epoll_fd, EPOLL_CTL_ADD, fd, &event);
	return 0;
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
	struct ps_etcd_watch *watch = arg;

	(void)multi;
	watch->is_due = ms == 0;
	watch->curl_ms = ms > 0 ? ps_etcd_now_ms() + ms : 0;
	return 0;
}

static bool is_flowing(const struct ps_etcd_watch *watch)
{
	return watch->easy && watch->stream.state == PS_ETCD_STREAM_FLOWING;
}

/* While a stream flows there is nothing to wait for but its bytes, and nobody is woken for less. */
static void arm_timer(struct ps_etcd_watch *watch)
{
	struct itimerspec timer = {0};
	int64_t at = watch->give_up_ms;

	if (watch->curl_ms && (!at || watch->curl_ms < at))
		at = watch->curl_ms;
	if (!is_flowing(watch) && at) {
		timer.it_value.tv_sec = at / 1000;
		timer.it_value.tv_nsec = at % 1000 * 1000000 + 1;
	}
	(void)timerfd_settime(watch->timer_fd, TFD_TIMER_ABSTIME, &timer, NULL);
}

static void stop(struct ps_etcd_watch *watch)
{
	if (watch->easy)
		(void)curl_multi_remove_handle(watch->multi, watch->easy);
	curl_easy_cleanup(watch->easy);
	watch->easy = NULL;
	curl_slist_free_all(watch->headers);
	watch->headers = NULL;
	free(watch->body);
	watch->body = NULL;
	watch->is_due = false;
	watch->curl_ms = 0;
}

static int set_stream(struct ps_etcd_watch *watch)
{
	ps_auto_json json_t *request = ps_etcd_stream_request(&watch->stream);

	watch->body = request ? json_dumps(request, JSON_COMPACT) : NULL;
	if (!watch->body)
		return -ENOMEM;
	curl_easy_setopt(watch->easy, CURLOPT_POSTFIELDS, watch->body);
	curl_easy_setopt(watch->easy, CURLOPT_WRITEFUNCTION, ps_etcd_stream_write);
	curl_easy_setopt(watch->easy, CURLOPT_WRITEDATA, &watch->stream);
	return curl_multi_add_handle(watch->multi, watch->easy) == CURLM_OK ? 0 : -ENOMEM;
}

static int start(struct ps_etcd_watch *watch)
{
	int r;

	watch->stream.state = PS_ETCD_STREAM_WAITING;
	watch->stream.len = 0;
	watch->give_up_ms = ps_etcd_now_ms() + PS_ETCD_READ_MS;
	r = ps_etcd_wire_stream(watch->wire, &watch->easy, &watch->headers);
	if (r >= 0)
		r = set_stream(watch);
	if (r < 0)
		stop(watch);
	return r;
}

static bool needs_owner(const struct ps_etcd_watch *watch)
{
	return watch->stream.state == PS_ETCD_STREAM_COMPACTED ||
	       watch->stream.state == PS_ETCD_STREAM_RESTORED;
}

/* The stream ended, or never stood. */
static void fail(struct ps_etcd_watch *watch, bool hung)
{
	bool was_flowing = watch->stream.state == PS_ETCD_STREAM_FLOWING;

	stop(watch);
	watch->give_up_ms = 0;
	if (needs_owner(watch))
		return;
	if (watch->stream.state == PS_ETCD_STREAM_REFUSED)
		ps_etcd_wire_forget_token(watch->wire);
	else
		ps_etcd_wire_elsewhere(watch->wire, hung);
	watch->n_failures = was_flowing ? 1 : watch->n_failures + 1;
	watch->stream.state = PS_ETCD_STREAM_WAITING;
	watch->give_up_ms =
		ps_etcd_now_ms() + (watch->n_failures <= watch->n_end_points ? 1 : RETRY_MS);
}

static void act(struct ps_etcd_watch *watch, int fd, int mask)
{
	int n_running, n_left;
	CURLMsg *message;

	(void)curl_multi_socket_action(watch->multi, fd, mask, &n_running);
	while ((message = curl_multi_info_read(watch->multi, &n_left))) {
		if (message->msg == CURLMSG_DONE) {
			fail(watch, false); /* a watch has no good end */
			break;
		}
	}
	if (is_flowing(watch))
		watch->n_failures = 0;
}

static void on_time(struct ps_etcd_watch *watch)
{
	int64_t now_ms = ps_etcd_now_ms();

	if (watch->is_due || (watch->curl_ms && watch->curl_ms <= now_ms)) {
		watch->is_due = false;
		watch->curl_ms = 0;
		act(watch, CURL_SOCKET_TIMEOUT, 0);
	}
	if (is_flowing(watch) || !watch->give_up_ms || watch->give_up_ms > now_ms)
		return;
	if (watch->easy)
		fail(watch, true);
	else if (start(watch) < 0)
		fail(watch, false);
}

static int mask_of(uint32_t events)
{
	return (events & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) |
	       (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
	       (events & EPOLLERR ? CURL_CSELECT_ERR : 0);
}

/* Does what is due, waiting for it at most wait_ms; returns whether there was anything. */
static bool turn(struct ps_etcd_watch *watch, int wait_ms)
{
	struct epoll_event events[4];
	eventfd_t ignored;
	uint64_t expired;
	int n = epoll_wait(watch->epoll_fd, events, PS_N_ELEMENTS(events),
			   watch->is_due ? 0 : wait_ms);
	uint64_t seen = watch->log.seen;
	bool was_due = watch->is_due;

	for (int i = 0; i < n; i++) {
		if (events[i].data.fd == watch->dirty_fd)
			watch->is_news |= eventfd_read(watch->dirty_fd, &ignored) == 0;
		else if (events[i].data.fd == watch->timer_fd)
			(void)!read(watch->timer_fd, &expired, sizeof(expired));
		else if (watch->easy)
			act(watch, events[i].data.fd, mask_of(events[i].events));
	}
	on_time(watch);
	watch->is_news |= watch->log.seen > seen || needs_owner(watch);
	ps_etcd_log_trim(&watch->log);
	arm_timer(watch);
	return n > 0 || was_due;
}

bool ps_etcd_watch_clear(struct ps_etcd_watch *watch)
{
	bool is_news;

	while (turn(watch, 0))
		;
	is_news = watch->is_news;
	watch->is_news = false;
	return is_news;
}

bool ps_etcd_watch_reach(struct ps_etcd_watch *watch, uint64_t revision, int64_t wait_ms)
{
	int64_t until_ms = ps_etcd_now_ms() + wait_ms, left_ms = wait_ms;

	if (watch->log.seen >= revision)
		return true;
	while (watch->log.seen < revision && !needs_owner(watch) && left_ms > 0) {
		(void)turn(watch, (int)left_ms);
		left_ms = until_ms - ps_etcd_now_ms();
	}
	(void)eventfd_write(watch->dirty_fd, 1); /* other users of the handle have not seen it */
	return watch->log.seen >= revision;
}

void ps_etcd_watch_restart(struct ps_etcd_watch *watch)
{
	stop(watch);
	if (start(watch) < 0)
		fail(watch, false);
	arm_timer(watch);
	(void)eventfd_write(watch->dirty_fd, 1);
}

void ps_etcd_watch_free(struct ps_etcd_watch **watch)
{
	struct ps_etcd_watch *w = *watch;

	if (!w)
		return;
	stop(w);
	curl_multi_cleanup(w->multi);
	ps_etcd_log_clear(&w->log);
	free(w->stream.line);
	ps_fd_drop(&w->timer_fd);
	ps_fd_drop(&w->dirty_fd);
	ps_fd_drop(&w->epoll_fd);
	free(w);
	*watch = NULL;
}

static int add_fd(struct ps_etcd_watch *watch, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	if (fd < 0 || epoll_ctl(watch->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	return 0;
}

static int set_up(struct ps_etcd_watch *watch)
{
	int r;

	watch->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (watch->epoll_fd < 0)
		return -errno;
	watch->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	r = add_fd(watch, watch->timer_fd);
	if (r < 0)
		return r;
	watch->dirty_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	r = add_fd(watch, watch->dirty_fd);
	if (r < 0)
		return r;
	watch->multi = curl_multi_init();
	if (!watch->multi)
		return -ENOMEM;
	curl_multi_setopt(watch->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(watch->multi, CURLMOPT_SOCKETDATA, watch);
	curl_multi_setopt(watch->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(watch->multi, CURLMOPT_TIMERDATA, watch);
	return 0;
}

int ps_etcd_watch_open(struct ps_etcd_wire *wire, const struct ps_etcd_stream *stream,
		       uint64_t seen, struct ps_etcd_watch **ret)
{
	ps_auto(ps_etcd_watch_free) struct ps_etcd_watch *watch = calloc(1, sizeof(*watch));
	int64_t until_ms = ps_etcd_now_ms() + PS_ETCD_READ_MS;
	int r;

	if (!watch)
		return -ENOMEM;
	watch->epoll_fd = watch->timer_fd = watch->dirty_fd = -1;
	watch->wire = wire;
	watch->stream = *stream;
	watch->stream.log = &watch->log;
	watch->log.from = watch->log.seen = seen;
	watch->n_end_points = (unsigned)stream->config->n_endpoints;
	r = set_up(watch);
	if (r < 0)
		return r;
	if (start(watch) < 0)
		fail(watch, false);
	arm_timer(watch);
	while (!is_flowing(watch) && !needs_owner(watch) && ps_etcd_now_ms() < until_ms)
		(void)turn(watch, 50);
	*ret = ps_move(watch);
	return 0;
}

int ps_etcd_watch_fd(const struct ps_etcd_watch *watch)
{
	return watch->epoll_fd;
}

struct ps_etcd_log *ps_etcd_watch_log(struct ps_etcd_watch *watch)
{
	return &watch->log;
}

enum ps_etcd_stream_state ps_etcd_watch_state(const struct ps_etcd_watch *watch)
{
	return watch->stream.state;
}

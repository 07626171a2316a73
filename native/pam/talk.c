#include "talk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int64_t lk_now(void)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_MONOTONIC, &ts) != 0)
		return INT64_MAX / 2; /* every deadline has passed */
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Waits for events on fd until the deadline. */
static bool ready(int fd, short events, int64_t deadline)
{
	for (;;) {
		struct pollfd p = { .fd = fd, .events = events };
		int64_t left = deadline - lk_now();
		int n;

		if (left <= 0)
			return false;
		n = poll(&p, 1, left > 1000000 ? 1000000 : (int)left);
		if (n > 0)
			return (p.revents & POLLNVAL) == 0; /* errors show at the next read or write */
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return false;
	}
}

static bool send_all(int fd, const unsigned char *buf, size_t len, int64_t deadline)
{
	while (len > 0) {
		ssize_t n = send(fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n > 0) {
			buf += n;
			len -= (size_t)n;
		} else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			if (!ready(fd, POLLOUT, deadline))
				return false;
		} else if (n == 0 || errno != EINTR) {
			return false;
		}
	}
	return true;
}

static bool recv_all(int fd, unsigned char *buf, size_t len, int64_t deadline)
{
	while (len > 0) {
		ssize_t n;

		if (!ready(fd, POLLIN, deadline))
			return false;
		n = recv(fd, buf, len, MSG_DONTWAIT);
		if (n > 0) {
			buf += n;
			len -= (size_t)n;
		} else if (n == 0 || (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK)) {
			return false;
		}
	}
	return true;
}

/* Ctrl-C while nothing is asked. Programs ignore it (login) or hold it back (sudo),
 * so that nobody could give up who waits for a phone. It is held back for this thread
 * while a frame is waited for, and given to the program afterwards: what it does with
 * it is its own affair. */
struct interrupt {
	int fd; /* -1: it can not be seen */
	sigset_t before;
};

static void interrupt_watch(struct interrupt *i)
{
	sigset_t set;

	i->fd = -1;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	/* On Linux this is the mask of the calling thread. */
	if (sigprocmask(SIG_BLOCK, &set, &i->before) != 0)
		return;
	i->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (i->fd < 0)
		(void)sigprocmask(SIG_SETMASK, &i->before, NULL);
}

/* Ends the watch. An interrupt that came goes to the program. */
static void interrupt_unwatch(struct interrupt *i, bool came)
{
	struct signalfd_siginfo s;

	if (i->fd < 0)
		return;
	if (came)
		came = read(i->fd, &s, sizeof(s)) == (ssize_t)sizeof(s);
	close(i->fd);
	(void)sigprocmask(SIG_SETMASK, &i->before, NULL);
	if (came)
		(void)kill(getpid(), SIGINT);
}

/* Waits until the agent says something: 1, or 0 at the deadline, or -1 when the
 * person has typed Ctrl-C. */
static int heard(int fd, const struct interrupt *i, int64_t deadline)
{
	for (;;) {
		struct pollfd p[2] = { { .fd = fd, .events = POLLIN }, { .fd = i->fd, .events = POLLIN } };
		int64_t left = deadline - lk_now();
		int n;

		if (left <= 0)
			return 0;
		n = poll(p, 2, left > 1000000 ? 1000000 : (int)left);
		if (n > 0 && p[0].revents != 0)
			return 1;
		if (n > 0 && p[1].revents != 0)
			return -1;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return 0;
	}
}

/* The folder of the socket belongs to root, so that a stranger can not listen
 * there; this holds even where an administrator has put it somewhere else. */
static bool trusted(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0 || len != sizeof(peer))
		return false;
	return peer.uid == 0 || (geteuid() != 0 && peer.uid == geteuid());
}

int lk_connect(const char *path, const char **fault)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int64_t deadline = lk_now() + LK_CONNECT_MS;
	size_t n = strlen(path);
	int fd;

	if (n >= sizeof(addr.sun_path)) {
		*fault = "the path of the agent's socket is too long";
		return -1;
	}
	memcpy(addr.sun_path, path, n);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && fd <= 2) {
		/* A program without standard streams would print into our socket. */
		int high = fcntl(fd, F_DUPFD_CLOEXEC, 3);

		close(fd);
		fd = high;
	}
	if (fd < 0) {
		*fault = "no socket can be made";
		return -1;
	}
	while (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
		const struct timespec pause = { .tv_nsec = 10 * 1000000 };

		/* EAGAIN is a full queue: a busy agent, or one that hangs. */
		if ((errno == EAGAIN || errno == EINTR || errno == EINPROGRESS || errno == EALREADY) && lk_now() < deadline) {
			nanosleep(&pause, NULL);
			continue;
		}
		if (errno == EISCONN)
			break;
		*fault = errno == ENOENT	 ? "the agent's socket does not exist"
			 : errno == ECONNREFUSED ? "nobody listens at the agent's socket"
			 : errno == EACCES	 ? "the agent's socket may not be opened"
			 : errno == EAGAIN	 ? "the agent does not take the connection"
						 : "the agent can not be reached";
		close(fd);
		return -1;
	}
	if (!trusted(fd)) {
		*fault = "the process at the agent's socket is not root's";
		close(fd);
		return -1;
	}
	return fd;
}

static bool append(char *buf, size_t size, size_t *len, const char *s)
{
	size_t n = strlen(s);

	if (n >= size - *len)
		return false;
	memcpy(buf + *len, s, n + 1);
	*len += n;
	return true;
}

/* The list stands in the prompt itself: sshd holds separate texts back, and
 * PAM_SILENT (sudo) would swallow them. */
static bool menu(struct lk_talk *t)
{
	const struct lk_in *m = &t->in;
	size_t len = 0, i;
	char label[32];

	if (!append(t->menu, sizeof(t->menu), &len, m->text) || !append(t->menu, sizeof(t->menu), &len, "\n"))
		return false;
	for (i = 0; i < m->options; i++) {
		snprintf(label, sizeof(label), "  %zu) ", i + 1);
		if (!append(t->menu, sizeof(t->menu), &len, label) ||
		    !append(t->menu, sizeof(t->menu), &len, m->option[i]) || !append(t->menu, sizeof(t->menu), &len, "\n"))
			return false;
	}
	snprintf(label, sizeof(label), "[1-%zu]: ", m->options);
	return append(t->menu, sizeof(t->menu), &len, label);
}

static bool wait_prompt(struct lk_talk *t)
{
	size_t len = 0;

	return append(t->menu, sizeof(t->menu), &len, t->in.text) &&
	       append(t->menu, sizeof(t->menu), &len, " (press Enter to check): ");
}

static int64_t sooner(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

enum lk_end lk_converse(int fd, struct lk_talk *t, enum lk_phase phase, int64_t timeout_ms, const struct lk_person *person)
{
	static const unsigned char hello[] = { 0, 0, 0, 7, 'h', 'e', 'l', 'l', 'o', 0, LK_VERSION[0] };
	const int64_t end = lk_now() + LK_TOTAL_MS;
	const bool quiet = phase != LK_PHASE_AUTH && phase != LK_PHASE_ACCOUNT && phase != LK_PHASE_CHAUTHTOK;
	int64_t wait = sooner(timeout_ms, quiet ? LK_QUIET_MS : LK_FIRST_MS);
	enum lk_end lost = LK_NO_AGENT;

	t->fault = "";
	if (!lk_out_done(&t->out)) {
		t->fault = "the request does not fit a frame";
		return LK_UNSAYABLE;
	}
	if (!send_all(fd, hello, sizeof(hello), lk_now() + LK_SEND_MS) ||
	    !send_all(fd, t->out.buf, t->out.len, lk_now() + LK_SEND_MS)) {
		/* It may have refused us with too-old: read what there is. */
		t->fault = "the agent takes no request";
	}
	lk_out_wipe(&t->out);

	for (;;) {
		unsigned char head[4];
		struct interrupt interrupt = { .fd = -1 };
		const char *text;
		char *answer = NULL;
		char number[11];
		size_t len;
		bool sent;
		int64_t deadline = sooner(lk_now() + wait, end);
		int what;

		if (!quiet)
			interrupt_watch(&interrupt);
		what = heard(fd, &interrupt, deadline);
		if (what < 0) {
			lk_out_begin(&t->out, "cancel");
			if (lk_out_done(&t->out))
				(void)send_all(fd, t->out.buf, t->out.len, lk_now() + LK_SEND_MS);
			lk_talk_wipe(t);
			interrupt_unwatch(&interrupt, true);
			return t->fault = "interrupted by the person", LK_NO_ANSWER;
		}
		interrupt_unwatch(&interrupt, false);
		if (!recv_all(fd, head, sizeof(head), deadline)) {
			if (lk_now() >= end)
				return t->fault = "the conversation took too long", LK_LATE;
			return t->fault = lk_now() >= deadline ? "the agent gives no answer" : "the agent closed the connection", lost;
		}
		if (!lk_length(head, &len))
			return t->fault = "the agent sent a frame of a forbidden length", lost;
		if (!recv_all(fd, t->body, len, deadline)) {
			if (lk_now() >= end)
				return t->fault = "the conversation took too long", LK_LATE;
			return t->fault = "the agent sent half a frame", lost;
		}
		if (!lk_decode(t->body, len, &t->in))
			return t->fault = "the agent sent a message that this module does not know", lost;
		lost = LK_BROKEN;
		wait = quiet ? LK_QUIET_MS : timeout_ms;

		switch (t->in.verb) {
		case LK_ALLOW:
		case LK_DENY:
		case LK_IGNORE:
		case LK_TOO_OLD:
			return LK_VERDICT;
		case LK_MUST_CHANGE:
			/* Elsewhere it announces what the account phase will say. */
			if (phase == LK_PHASE_ACCOUNT)
				return LK_VERDICT;
			continue;
		case LK_TELL:
			person->show(person->ctx, t->in.needed ? LK_NEEDED : LK_INFO, t->in.text);
			continue;
		case LK_WARN:
			person->show(person->ctx, LK_ERROR, t->in.text);
			continue;
		case LK_AUTHTOK:
			if (!person->authtok(person->ctx, t->in.text))
				return t->fault = "the password can not be handed on", LK_BROKEN;
			explicit_bzero(t->body, len);
			continue;
		case LK_SECRET:
		case LK_ASK:
			text = t->in.text;
			break;
		case LK_CHOOSE:
			if (!menu(t))
				return t->fault = "the agent sent a menu that is too long", LK_BROKEN;
			text = t->menu;
			break;
		case LK_WAIT:
			if (!wait_prompt(t))
				return t->fault = "the agent sent a text that is too long", LK_BROKEN;
			text = t->menu;
			break;
		default:
			return t->fault = "the agent sent a message that this module does not know", LK_BROKEN;
		}

		if (quiet)
			return t->fault = "the agent asks where nobody can answer", LK_BROKEN;
		if (!person->ask(person->ctx, t->in.verb == LK_ASK || t->in.verb == LK_CHOOSE, text, &answer) || answer == NULL) {
			lk_out_begin(&t->out, "cancel");
			if (lk_out_done(&t->out))
				(void)send_all(fd, t->out.buf, t->out.len, lk_now() + LK_SEND_MS);
			return t->fault = "no answer from the person", LK_NO_ANSWER;
		}
		snprintf(number, sizeof(number), "%u", (unsigned)t->in.number);
		lk_out_begin(&t->out, "answer");
		lk_out_field(&t->out, number);
		lk_out_field(&t->out, answer);
		explicit_bzero(answer, strlen(answer));
		free(answer);
		if (!lk_out_done(&t->out)) {
			lk_out_wipe(&t->out);
			return t->fault = "the answer does not fit a frame", LK_UNSAYABLE;
		}
		if (lk_now() >= end) {
			lk_out_wipe(&t->out);
			return t->fault = "the conversation took too long", LK_LATE;
		}
		sent = send_all(fd, t->out.buf, t->out.len, sooner(lk_now() + LK_SEND_MS, end));
		lk_out_wipe(&t->out);
		if (!sent)
			return t->fault = "the agent went away during the sign-in", LK_BROKEN;
	}
}

void lk_talk_wipe(struct lk_talk *t)
{
	explicit_bzero(t, sizeof(*t));
}

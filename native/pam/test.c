/*
 * Unit tests of everything but the PAM entry points: golden vectors shared with
 * internal/shim, options, break-glass, and conversations over a socket pair with a
 * scripted peer. Prints "N passed, N failed".
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "options.h"
#include "seat.h"
#include "talk.h"

static int passed, failed;

static void check(bool ok, const char *what, const char *detail)
{
	if (ok) {
		passed++;
		return;
	}
	failed++;
	fprintf(stderr, "FAIL %s: %s\n", what, detail);
}

/* ---- vectors ---- */

static size_t unhex(const char *hex, unsigned char *out)
{
	size_t n = 0;

	if (strcmp(hex, "-") == 0)
		return 0;
	for (; hex[0] != '\0' && hex[1] != '\0'; hex += 2) {
		unsigned v = 0;

		if (sscanf(hex, "%2x", &v) != 1)
			abort();
		out[n++] = (unsigned char)v;
	}
	return n;
}

static char line[200000];
static unsigned char in[100000], want[100000];

/* Calls each with the blank-separated columns of every line. */
static void vectors(const char *dir, const char *file, void (*each)(char **col, const char *where))
{
	char path[512], *col[4];
	FILE *f;
	int before = passed + failed;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "r");
	if (f == NULL) {
		check(false, path, strerror(errno));
		return;
	}
	while (fgets(line, sizeof(line), f) != NULL) {
		static char where[128];
		int n = 0;
		char *p;

		if (line[0] == '#' || line[0] == '\n')
			continue;
		snprintf(where, sizeof(where), "%.40s: %.60s", file, line);
		memset(col, 0, sizeof(col));
		for (p = strtok(line, " \n"); p != NULL && n < 4; p = strtok(NULL, " \n"))
			col[n++] = p;
		each(col, where);
	}
	fclose(f);
	check(passed + failed > before, path, "holds no vector");
}

static void clean_vector(char **col, const char *where)
{
	/* exactly as large as needed, so that AddressSanitizer sees every octet too far */
	size_t n = unhex(col[1], in), w = unhex(col[2], want);
	char *s = malloc(n + 1);

	memcpy(s, in, n);
	s[n] = '\0';
	lk_clean(s, strcmp(col[0], "lines") == 0);
	check(strlen(s) == w && memcmp(s, want, w) == 0, where, s);
	free(s);
}

static void junk_vector(char **col, const char *where)
{
	size_t n = unhex(col[1], in);

	if (memchr(in, 0, n) != NULL)
		return; /* can not be a C string */
	in[n] = '\0';
	check(lk_junk((char *)in) == (strcmp(col[0], "junk") == 0), where, "");
}

/* Writes what was decoded as a body again. */
static size_t encode(const struct lk_in *m, struct lk_out *o)
{
	static const char *const verbs[] = { "", "secret", "ask", "choose", "wait", "tell", "warn", "authtok",
					     "must-change", "allow", "deny", "ignore", "too-old" };
	char digits[11];
	size_t i;

	lk_out_begin(o, verbs[m->verb]);
	if (m->number != 0) {
		snprintf(digits, sizeof(digits), "%u", (unsigned)m->number);
		lk_out_field(o, digits);
	}
	if (m->text != NULL)
		lk_out_field(o, m->text);
	for (i = 0; i < m->options; i++)
		lk_out_field(o, m->option[i]);
	if (m->expired)
		lk_out_field(o, "expired");
	if (m->needed)
		lk_out_field(o, "needed");
	return lk_out_done(o) ? o->len - 4 : 0;
}

static void from_agent_vector(char **col, const char *where)
{
	static struct lk_out o;
	struct lk_in m;
	size_t n = unhex(col[1], in), w;
	unsigned char *body = malloc(n + 1);
	bool ok;

	memcpy(body, in, n);
	ok = lk_decode(body, n, &m);
	check(ok == (strcmp(col[0], "ok") == 0), where, ok ? "was read" : "was not read");
	if (ok && col[2] != NULL) {
		w = unhex(col[2], want);
		n = encode(&m, &o);
		if (m.verb == LK_ALLOW) {
			/* the module does not keep the SID */
			o.buf[4 + n++] = '\0';
			check(w >= n && memcmp(o.buf + 4, want, n) == 0, where, (char *)o.buf + 4);
		} else {
			check(n == w && memcmp(o.buf + 4, want, w) == 0, where, (char *)o.buf + 4);
		}
	}
	free(body);
}

static void later_phase(struct lk_out *o, const char *name)
{
	lk_out_begin(o, name);
	lk_out_pair(o, "phase", name);
	lk_out_pair(o, "service", "sudo");
	lk_out_pair(o, "user", "alice");
	lk_out_pair(o, "ruser", "alice");
	lk_out_pair(o, "tty", "/dev/pts/0");
	lk_out_pair(o, "rhost", "");
	lk_out_pair_u32(o, "flags", 0x4000);
	lk_out_pair(o, "mode", "full");
	lk_out_pair(o, "first", "none");
	lk_out_pair_u32(o, "uid", 1001);
	lk_out_pair(o, "pwname", "alice");
	lk_out_pair_u32(o, "ruid", 0);
	lk_out_pair_u32(o, "ppid", 5);
}

static int built;

static void from_shim_vector(char **col, const char *where)
{
	static struct lk_out o;
	size_t w;

	if (strcmp(col[0], "ok") != 0)
		return; /* what an agent refuses, this side can not say */
	if (strcmp(col[1], "hello") == 0) {
		lk_out_begin(&o, "hello");
		lk_out_field(&o, LK_VERSION);
	} else if (strcmp(col[1], "answer") == 0) {
		lk_out_begin(&o, "answer");
		lk_out_field(&o, "1");
		lk_out_field(&o, "hunter2");
	} else if (strcmp(col[1], "answer-empty") == 0) {
		lk_out_begin(&o, "answer");
		lk_out_field(&o, "999999999");
		lk_out_field(&o, "");
	} else if (strcmp(col[1], "answer-octets") == 0) {
		lk_out_begin(&o, "answer");
		lk_out_field(&o, "2");
		lk_out_field(&o, "\xff\n=\x1b");
	} else if (strcmp(col[1], "cancel") == 0) {
		lk_out_begin(&o, "cancel");
	} else if (strcmp(col[1], "begin-max") == 0) {
		lk_out_begin(&o, "begin");
		lk_out_pair(&o, "phase", "auth");
		lk_out_pair(&o, "service", "sshd");
		lk_out_pair(&o, "user", "alice");
		lk_out_pair(&o, "ruser", "bob");
		lk_out_pair(&o, "tty", "ssh");
		lk_out_pair(&o, "rhost", "::1");
		lk_out_pair_u32(&o, "flags", UINT32_MAX);
		lk_out_pair(&o, "mode", "second");
		lk_out_pair(&o, "first", "machine");
		lk_out_pair(&o, "scope", "remote");
		lk_out_pair_u32(&o, "uid", UINT32_MAX);
		lk_out_pair(&o, "pwname", "alice");
		lk_out_pair_u32(&o, "ruid", UINT32_MAX);
		lk_out_pair_u32(&o, "ppid", UINT32_MAX);
		lk_out_pair(&o, "authtok", "");
	} else if (strcmp(col[1], "account") == 0 || strcmp(col[1], "chauthtok") == 0 || strcmp(col[1], "setcred") == 0 ||
		   strcmp(col[1], "session-open") == 0 || strcmp(col[1], "session-close") == 0) {
		later_phase(&o, col[1]);
	} else {
		return; /* the module's end-to-end tests see the others */
	}
	built++;
	check(lk_out_done(&o), where, "does not fit");
	w = unhex(col[2], want);
	check(o.len == w + 4 && memcmp(o.buf + 4, want, w) == 0, where, (char *)o.buf + 4);
}

static void test_out(void)
{
	static struct lk_out o;
	static char big[LK_MAX_BODY + 2];
	size_t i, len;
	const unsigned char zero[4] = { 0, 0, 0, 0 }, most[4] = { 0, 0, 0x40, 0 }, more[4] = { 0, 0, 0x40, 1 },
			    all[4] = { 255, 255, 255, 255 };

	memset(big, 'x', LK_MAX_BODY - 7);
	lk_out_begin(&o, "answer");
	lk_out_field(&o, big);
	check(lk_out_done(&o) && o.len == 4 + LK_MAX_BODY && o.buf[2] == 0x40 && o.buf[3] == 0, "out", "the largest frame");
	big[LK_MAX_BODY - 7] = 'x';
	lk_out_begin(&o, "answer");
	lk_out_field(&o, big);
	check(!lk_out_done(&o), "out", "one octet too many");
	lk_out_field(&o, "");
	check(!lk_out_done(&o), "out", "stays bad");
	lk_out_begin(&o, "x");
	for (i = 1; i < LK_MAX_FIELDS; i++)
		lk_out_field(&o, "");
	check(lk_out_done(&o), "out", "64 fields");
	lk_out_field(&o, "");
	check(!lk_out_done(&o), "out", "65 fields");
	lk_out_wipe(&o);
	check(!lk_out_done(&o) && o.len == 0 && o.buf[4] == 0, "out", "wiped");
	check(!lk_length(zero, &len) && lk_length(most, &len) && len == LK_MAX_BODY && !lk_length(more, &len) && !lk_length(all, &len),
	      "length", "limits");
}

/* ---- options ---- */

static void test_options(void)
{
	static const struct {
		const char *argv[4];
		const char *why; /* part of the complaint; NULL: accepted */
	} cases[] = {
		{ { NULL }, NULL },
		{ { "socket=/tmp/s", "mode=second", "scope=logon" }, NULL },
		{ { "timeout=1", "break_glass=/etc/x" }, NULL },
		{ { "mode=Second" }, "full or second" },
		{ { "mode=" }, "full or second" },
		{ { "mode" }, "unknown option" },
		{ { "modes=full" }, "unknown option" },
		{ { "debug" }, "unknown option" },
		{ { "" }, "unknown option" },
		{ { "mode=full", "mode=full" }, "twice" },
		{ { "socket=agent.sock" }, "absolute" },
		{ { "socket=" }, "absolute" },
		{ { "break_glass=x" }, "absolute" },
		{ { "scope=all" }, "logon, elevation or remote" },
		{ { "timeout=0" }, "from 1 to 100" },
		{ { "timeout=101" }, "from 1 to 100" },
		{ { "timeout=-1" }, "from 1 to 100" },
		{ { "timeout=1s" }, "from 1 to 100" },
		{ { "timeout=4294967297" }, "from 1 to 100" },
		{ { "try_first_pass" }, "unknown option" },
	};
	struct lk_options o;
	char why[256], longest[] = "socket=/123456789012345678901234567890123456789012345678901234567890"
				   "12345678901234567890123456789012345678901234567";
	const char *arg = longest;
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int argc = 0;
		bool ok;

		while (argc < 4 && cases[i].argv[argc] != NULL)
			argc++;
		ok = lk_options_parse(&o, argc, cases[i].argv, why, sizeof(why));
		check(ok == (cases[i].why == NULL) && (ok || strstr(why, cases[i].why) != NULL), "options", why);
	}
	check(!lk_options_parse(&o, 1, &arg, why, sizeof(why)), "options", "a path of 108 octets");
	longest[sizeof(longest) - 2] = '\0';
	check(lk_options_parse(&o, 1, &arg, why, sizeof(why)), "options", why);
	lk_options_parse(&o, 0, NULL, why, sizeof(why));
	check(strcmp(o.mode, "full") == 0 && o.scope == NULL && o.timeout == 60 && strcmp(o.socket, "/run/latchkey/agent.sock") == 0 &&
		      strcmp(o.break_glass, "/etc/latchkey/break-glass") == 0,
	      "options", "defaults");
}

/* ---- break-glass ---- */

static bool listed(const char *s, uint32_t uid)
{
	size_t n = strlen(s);
	char *exact = malloc(n > 0 ? n : 1);
	bool r;

	memcpy(exact, s, n);
	r = lk_listed(exact, n, uid);
	free(exact);
	return r;
}

static void write_list(const char *path, const char *s, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || write(fd, s, strlen(s)) != (ssize_t)strlen(s) || fchmod(fd, mode) != 0)
		abort();
	close(fd);
}

static void test_seat(void)
{
	char dir[] = "/tmp/latchkey-test-XXXXXX", list[64], other[64], why[160], big[LK_BREAK_GLASS_MAX + 3];

	check(listed("1000\n0\n", 0) && listed("1000\n0\n", 1000) && listed("1000", 1000) && listed("\n\n1000\n", 1000),
	      "listed", "exact lines");
	check(!listed("", 0) && !listed("\n", 0) && !listed("1000\n", 100) && !listed("1000\n", 10000) && !listed(" 1000\n", 1000) &&
		      !listed("1000 \n", 1000) && !listed("1000\r\n", 1000) && !listed("01000\n", 1000) && !listed("+1000\n", 1000) &&
		      !listed("#1000\n", 1000) && !listed("root\n", 0) && !listed("4294967296\n", 0) && !listed("1000,1001\n", 1001),
	      "listed", "anything else lists nobody");
	check(listed("4294967295\n", UINT32_MAX), "listed", "largest uid");

	check(lk_local_seat("login", "/dev/tty1", "") && lk_local_seat("login", "/dev/pts/0", "") && lk_local_seat("gdm-password", ":0", ""),
	      "seat", "consoles and displays");
	check(!lk_local_seat("login", "/dev/tty1", "192.0.2.1") && !lk_local_seat("sshd", "ssh", "") && !lk_local_seat("sshd", "/dev/tty1", ""),
	      "seat", "not from afar, never sshd");
	check(lk_local_seat("su", "/dev/tty1", "") && lk_local_seat("sudo", "/dev/console", "") && lk_local_seat("su-l", "/dev/ttyS0", "") &&
		      lk_local_seat("sudo-i", "/dev/hvc0", "") && lk_local_seat("su", "/dev/tty63", ""),
	      "seat", "su and sudo at a console");
	check(!lk_local_seat("su", "/dev/pts/1", "") && !lk_local_seat("su", "", "") && !lk_local_seat("su", "tty1", "") &&
		      !lk_local_seat("su", "/dev/tty", "") && !lk_local_seat("su", "/dev/ttyp0", "") && !lk_local_seat("su", "/dev/tty1x", "") &&
		      !lk_local_seat("su", "/dev/ttyS", "") && !lk_local_seat("sudo", "/dev/tty1/../pts/0", ""),
	      "seat", "su and sudo anywhere else");
	check(!lk_local_seat("cockpit", "", "") && !lk_local_seat("", "/dev/tty1", "") && !lk_local_seat("loginx", "/dev/tty1", ""), "seat",
	      "unknown services");

	check(lk_account_without_agent("cron", "", true) && lk_account_without_agent("systemd-user", "", false) &&
		      lk_account_without_agent("sudo", "", false) && lk_account_without_agent("login", "", true) &&
		      lk_account_without_agent("runuser", "", true),
	      "account", "passed without agent");
	check(!lk_account_without_agent("sshd", "192.0.2.1", true) && !lk_account_without_agent("sshd", "", true) &&
		      !lk_account_without_agent("login", "192.0.2.1", true) && !lk_account_without_agent("vsftpd", "", true) &&
		      !lk_account_without_agent("runuser", "", false) && !lk_account_without_agent("", "", true),
	      "account", "denied without agent");

	if (mkdtemp(dir) == NULL)
		abort();
	snprintf(list, sizeof(list), "%s/list", dir);
	snprintf(other, sizeof(other), "%s/other", dir);
	check(!lk_break_glass(list, 1000, why, sizeof(why)) && why[0] == '\0', "break-glass", "an absent list is no fault");
	write_list(list, "1000\n", 0644);
	if (geteuid() != 0) {
		check(!lk_break_glass(list, 1000, why, sizeof(why)) && strstr(why, "root") != NULL, "break-glass not root's", why);
		printf("note: not root, so most of break-glass is not tested\n");
	} else {
		check(lk_break_glass(list, 1000, why, sizeof(why)) && why[0] == '\0', "break-glass", why);
		check(!lk_break_glass(list, 1001, why, sizeof(why)) && why[0] == '\0', "break-glass", why);
		chmod(list, 0664);
		check(!lk_break_glass(list, 1000, why, sizeof(why)) && strstr(why, "writable") != NULL, "break-glass", why);
		chmod(list, 0646);
		check(!lk_break_glass(list, 1000, why, sizeof(why)) && strstr(why, "writable") != NULL, "break-glass", why);
		chmod(list, 0600);
		check(lk_break_glass(list, 1000, why, sizeof(why)), "break-glass", why);
		check(symlink(list, other) == 0 && !lk_break_glass(other, 1000, why, sizeof(why)) && strstr(why, "symbolic") != NULL,
		      "break-glass", why);
		unlink(other);
		check(mkfifo(other, 0600) == 0 && !lk_break_glass(other, 1000, why, sizeof(why)) && strstr(why, "regular") != NULL,
		      "break-glass", why);
		unlink(other);
		check(!lk_break_glass(dir, 1000, why, sizeof(why)) && strstr(why, "regular") != NULL, "break-glass", why);
		check(chown(list, 65534, 0) == 0 && !lk_break_glass(list, 1000, why, sizeof(why)) && strstr(why, "owned") != NULL,
		      "break-glass", why);
		chown(list, 0, 0) == 0 ? (void)0 : abort();
		memset(big, '\n', sizeof(big));
		memcpy(big, "1000\n", 5);
		big[LK_BREAK_GLASS_MAX] = '\0';
		write_list(list, big, 0600);
		check(lk_break_glass(list, 1000, why, sizeof(why)), "break-glass of 4096 octets", why);
		big[LK_BREAK_GLASS_MAX] = '\n';
		big[LK_BREAK_GLASS_MAX + 1] = '\0';
		write_list(list, big, 0600);
		check(!lk_break_glass(list, 1000, why, sizeof(why)) && strstr(why, "larger") != NULL, "break-glass of 4097 octets", why);
	}
	unlink(list);
	rmdir(dir);
}

/* ---- conversations ---- */

struct typist {
	const char *answers[8];
	int next;
	char log[4096];
	char authtok[64];
};

static void note(struct typist *p, const char *kind, const char *text)
{
	size_t n = strlen(p->log);

	snprintf(p->log + n, sizeof(p->log) - n, "%s<%.900s>", kind, text);
}

static bool type(void *ctx, bool echo, const char *text, char **answer)
{
	struct typist *p = ctx;

	note(p, echo ? "on" : "off", text);
	if (p->answers[p->next] == NULL)
		return false;
	*answer = strdup(p->answers[p->next++]);
	return true;
}

static void look(void *ctx, enum lk_tone tone, const char *text)
{
	note(ctx, tone == LK_ERROR ? "err" : tone == LK_NEEDED ? "need" : "inf", text);
}

static bool keep(void *ctx, const char *pw)
{
	struct typist *p = ctx;

	snprintf(p->authtok, sizeof(p->authtok), "%s", pw);
	return true;
}

/* A script of the peer: each step is a frame to send ('>' and its body with '|' for
 * NUL), raw octets ('='), a frame to expect ('<'), a pause in ms ('~'), '.' to trickle
 * the next frame. After the script the peer closes. Exit status 0 if all came true. */
static void expect_frame(int fd, const char *body)
{
	unsigned char buf[20000];
	size_t n = strlen(body), got = 0, i;

	while (got < n + 4) {
		ssize_t r = recv(fd, buf + got, n + 4 - got, 0);

		if (r <= 0)
			_exit(3);
		got += (size_t)r;
	}
	for (i = 0; i < n; i++)
		if (buf[4 + i] != (body[i] == '|' ? 0 : (unsigned char)body[i]))
			_exit(4);
	if (buf[2] != n >> 8 || buf[3] != (n & 255))
		_exit(5);
}

static void play(int fd, const char *const *script)
{
	bool trickle = false;

	for (; *script != NULL; script++) {
		const char *s = *script + 1;
		size_t n = strlen(s), i;
		unsigned char buf[20000];

		switch (**script) {
		case '>':
			buf[0] = buf[1] = 0;
			buf[2] = (unsigned char)(n >> 8);
			buf[3] = (unsigned char)n;
			for (i = 0; i < n; i++)
				buf[4 + i] = s[i] == '|' ? 0 : (unsigned char)s[i];
			for (i = 0; i < n + 4;) {
				size_t step = trickle ? 1 : n + 4;

				if (send(fd, buf + i, step, MSG_NOSIGNAL) < 0)
					_exit(0); /* the module has hung up */
				i += step;
				if (trickle)
					usleep(60000);
			}
			break;
		case '=':
			n = unhex(s, buf);
			if (send(fd, buf, n, MSG_NOSIGNAL) < 0)
				_exit(0);
			break;
		case '<':
			expect_frame(fd, s);
			break;
		case '~':
			usleep((useconds_t)atoi(s) * 1000);
			break;
		case '.':
			trickle = true;
			break;
		}
	}
}

static struct lk_talk talk;

static enum lk_end converse(enum lk_phase phase, struct typist *p, const char *const *script, int *peer)
{
	const struct lk_person person = { p, type, look, keep };
	enum lk_end end;
	int fds[2], status;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
		abort();
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		play(fds[1], script);
		close(fds[1]);
		_exit(0);
	}
	close(fds[1]);
	memset(&talk, 0, sizeof(talk));
	lk_out_begin(&talk.out, "begin");
	lk_out_pair(&talk.out, "user", "alice");
	end = lk_converse(fds[0], &talk, phase, 300, &person);
	close(fds[0]);
	if (waitpid(pid, &status, 0) != pid)
		abort();
	*peer = WIFEXITED(status) ? WEXITSTATUS(status) : 99;
	return end;
}

static void test_talk(void)
{
	static char long_answer[LK_MAX_BODY + 1];
	static const struct {
		const char *what;
		enum lk_phase phase;
		const char *script[14];
		const char *answers[4];
		enum lk_end end;
		enum lk_verb verb; /* of a verdict */
		const char *log;
	} cases[] = {
		{ "every kind of prompt", LK_PHASE_AUTH,
		  { "<hello|1", "<begin|user=alice", ">secret|1|Password: ", "<answer|1|pw", ">choose|2|Second\x1b|Code|Push", "<answer|2|2",
		    ">tell|a\nb", ">warn|c", ">wait|7|Approve", "<answer|7|", ">authtok|next", ">must-change", ">allow|alice|" },
		  { "pw", "2", "" }, LK_VERDICT, LK_ALLOW,
		  "off<Password: >on<Second?\n  1) Code\n  2) Push\n[1-2]: >inf<a\nb>err<c>off<Approve (press Enter to check): >" },
		{ "what is needed is told apart", LK_PHASE_AUTH, { ">tell|Number 42|needed", ">tell|so", ">ignore" }, { NULL }, LK_VERDICT, LK_IGNORE,
		  "need<Number 42>inf<so>" },
		{ "denied at once", LK_PHASE_AUTH, { "<hello|1", "<begin|user=alice", ">deny|no" }, { NULL }, LK_VERDICT, LK_DENY, "" },
		{ "must-change ends the account phase", LK_PHASE_ACCOUNT, { ">must-change", ">allow|alice|" }, { NULL }, LK_VERDICT, LK_MUST_CHANGE, "" },
		{ "must-change ends nothing else", LK_PHASE_AUTH, { ">must-change" }, { NULL }, LK_BROKEN, 0, "" },
		{ "too-old and gone before the request was read", LK_PHASE_AUTH, { ">too-old|restart" }, { NULL }, LK_VERDICT, LK_TOO_OLD, "" },
		{ "no answer is a cancel", LK_PHASE_AUTH, { "<hello|1", "<begin|user=alice", ">ask|1|x", "<cancel" }, { NULL }, LK_NO_ANSWER, 0, "on<x>" },
		{ "an agent that says nothing", LK_PHASE_AUTH, { "<hello|1", "<begin|user=alice", "~500" }, { NULL }, LK_NO_AGENT, 0, "" },
		{ "an agent that closes at once", LK_PHASE_AUTH, { "<hello|1" }, { NULL }, LK_NO_AGENT, 0, "" },
		{ "an agent that goes after a prompt", LK_PHASE_AUTH, { ">secret|1|x" }, { "pw" }, LK_BROKEN, 0, "off<x>" },
		{ "an agent that stops after a prompt", LK_PHASE_AUTH, { ">secret|1|x", "~600" }, { "pw" }, LK_BROKEN, 0, "off<x>" },
		{ "a trickled frame has one deadline", LK_PHASE_AUTH, { ".", ">allow|alice|" }, { NULL }, LK_NO_AGENT, 0, "" },
		{ "a forbidden length", LK_PHASE_AUTH, { "=00004001" }, { NULL }, LK_NO_AGENT, 0, "" },
		{ "no length", LK_PHASE_AUTH, { "=00000000" }, { NULL }, LK_NO_AGENT, 0, "" },
		{ "a huge length after a text", LK_PHASE_AUTH, { ">tell|x", "=7fffffff" }, { NULL }, LK_BROKEN, 0, "inf<x>" },
		{ "half a frame", LK_PHASE_AUTH, { "=00000010616c6c6f7700" }, { NULL }, LK_NO_AGENT, 0, "" },
		{ "an unknown verb", LK_PHASE_AUTH, { ">tell|x", ">approve|alice|" }, { NULL }, LK_BROKEN, 0, "inf<x>" },
		{ "an approval of nobody", LK_PHASE_AUTH, { ">tell|x", ">allow||" }, { NULL }, LK_BROKEN, 0, "inf<x>" },
		{ "a question in setcred", LK_PHASE_SETCRED, { ">ask|1|x", ">allow|alice|" }, { "1" }, LK_BROKEN, 0, "" },
		{ "a session's verdict", LK_PHASE_SESSION_OPEN, { ">ignore" }, { NULL }, LK_VERDICT, LK_IGNORE, "" },
		{ "an answer that does not fit", LK_PHASE_AUTH, { ">ask|1|x" }, { long_answer }, LK_UNSAYABLE, 0, "on<x>" },
		{ "a whole conversation has an end", LK_PHASE_AUTH,
		  { "~250", ">tell|1", "~250", ">tell|2", "~250", ">tell|3", "~250", ">tell|4", "~250", ">allow|alice|" }, { NULL }, LK_LATE, 0,
		  "inf<1>inf<2>inf<3>" },
	};
	size_t i;

	memset(long_answer, 'x', LK_MAX_BODY);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct typist p;
		enum lk_end end;
		int peer;

		memset(&p, 0, sizeof(p));
		memcpy(p.answers, cases[i].answers, sizeof(cases[i].answers));
		end = converse(cases[i].phase, &p, cases[i].script, &peer);
		check(end == cases[i].end, cases[i].what, talk.fault);
		check(end != LK_VERDICT || talk.in.verb == cases[i].verb, cases[i].what, "verdict");
		check(peer == 0, cases[i].what, "the peer got something else");
		check(strcmp(p.log, cases[i].log) == 0, cases[i].what, p.log);
		if (i == 0)
			check(strcmp(p.authtok, "next") == 0, cases[i].what, p.authtok);
	}
}

static void nothing(int sig)
{
	(void)sig;
}

/* Every system call is interrupted over and over; no SA_RESTART. */
static void test_signals(void)
{
	static const char *const script[] = { "<hello|1", "<begin|user=alice", "~50", ">secret|1|Password: ", "<answer|1|pw", ".", ">ignore", NULL };
	const struct sigaction act = { .sa_handler = nothing };
	const struct itimerval fast = { { 0, 1000 }, { 0, 1000 } }, off = { { 0, 0 }, { 0, 0 } };
	struct typist p;
	int fds[2], status, end;
	const struct lk_person person = { &p, type, look, keep };
	pid_t pid;

	memset(&p, 0, sizeof(p));
	p.answers[0] = "pw";
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
		abort();
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		play(fds[1], script);
		_exit(0);
	}
	close(fds[1]);
	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &fast, NULL);
	lk_out_begin(&talk.out, "begin");
	lk_out_pair(&talk.out, "user", "alice");
	end = lk_converse(fds[0], &talk, LK_PHASE_AUTH, 850, &person);
	setitimer(ITIMER_REAL, &off, NULL);
	check(end == LK_VERDICT && talk.in.verb == LK_IGNORE, "signals", talk.fault);
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "signals", "the peer got something else");
}

static volatile sig_atomic_t interrupts;

static void count(int sig)
{
	(void)sig;
	interrupts++;
}

/* Ctrl-C while the agent is waited for is a cancel, and reaches the program too; at a
 * prompt it is the program's alone. */
static void test_interrupt(void)
{
	static const char *const waits[] = { "<hello|1", "<begin|user=alice", ">tell|42|needed", "<cancel", NULL };
	static const char *const asks[] = { "<hello|1", "<begin|user=alice", ">secret|1|Password: ", "<answer|1|pw", ">ignore", NULL };
	const struct sigaction act = { .sa_handler = count, .sa_flags = SA_RESTART };
	struct sigaction before;
	sigset_t mask;
	struct typist p;
	int peer, end, waited;
	pid_t me = getpid(), pid;

	sigaction(SIGINT, &act, &before);
	for (waited = 0; waited < 2; waited++) {
		int64_t begun = lk_now();

		memset(&p, 0, sizeof(p));
		p.answers[0] = "pw";
		interrupts = 0;
		pid = fork();
		if (pid == 0) {
			usleep(100000);
			if (waited == 0)
				kill(me, SIGINT);
			_exit(0);
		}
		end = converse(LK_PHASE_AUTH, &p, waited == 0 ? waits : asks, &peer);
		waitpid(pid, NULL, 0);
		check(peer == 0, "interrupt", "the peer got something else");
		if (waited == 0)
			check(end == LK_NO_ANSWER && interrupts == 1 && lk_now() - begun < 280, "interrupt while waiting", p.log);
		else
			check(end == LK_VERDICT && interrupts == 0, "no interrupt", p.log);
	}
	/* A program that holds it back itself (sudo) still has it afterwards. */
	sigprocmask(SIG_SETMASK, NULL, &mask);
	check(!sigismember(&mask, SIGINT), "interrupt", "it is held back afterwards");
	sigaddset(&mask, SIGINT);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	kill(me, SIGINT);
	memset(&p, 0, sizeof(p));
	p.answers[0] = "pw";
	interrupts = 0;
	end = converse(LK_PHASE_AUTH, &p, waits, &peer);
	check(end == LK_NO_ANSWER && interrupts == 0, "interrupt that the program holds back", p.log);
	sigprocmask(SIG_SETMASK, NULL, &mask);
	check(sigismember(&mask, SIGINT), "interrupt that the program holds back", "it is let through");
	sigdelset(&mask, SIGINT);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	check(interrupts == 1, "interrupt that the program holds back", "it got lost");
	sigaction(SIGINT, &before, NULL);
}

static int listen_at(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(fd, 0) != 0)
		abort();
	return fd;
}

static void test_connect(void)
{
	char dir[] = "/tmp/latchkey-test-XXXXXX", path[64];
	const char *fault = "";
	int64_t begun;
	int l, fd, more[4], i;

	if (mkdtemp(dir) == NULL)
		abort();
	snprintf(path, sizeof(path), "%s/s", dir);
	check(lk_connect(path, &fault) < 0 && strstr(fault, "does not exist") != NULL, "connect to nothing", fault);
	l = listen_at(path);
	fd = lk_connect(path, &fault);
	check(fd > 2 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0, "connect", fault);
	/* A queue that is full: bounded, not blocked. */
	begun = lk_now();
	for (i = 0; i < 4; i++)
		more[i] = lk_connect(path, &fault);
	check(more[3] < 0 && strstr(fault, "does not take") != NULL && lk_now() - begun < 4 * LK_CONNECT_MS + 1000, "connect to a full queue", fault);
	for (i = 0; i < 4; i++)
		if (more[i] >= 0)
			close(more[i]);
	close(fd);
	close(l);
	check(lk_connect(path, &fault) < 0 && strstr(fault, "nobody listens") != NULL, "connect to a dead socket", fault);
	unlink(path);
	if (geteuid() == 0) {
		/* A stranger who listens in a folder that is open to him. */
		pid_t pid;
		int status, go[2];
		char c = 0;

		if (pipe(go) != 0 || chmod(dir, 0777) != 0)
			abort();
		pid = fork();
		if (pid == 0) {
			if (setgid(65534) != 0 || setuid(65534) != 0)
				_exit(1);
			l = listen_at(path);
			if (write(go[1], "x", 1) != 1)
				_exit(1);
			pause();
			_exit(0);
		}
		if (read(go[0], &c, 1) != 1)
			abort();
		check(lk_connect(path, &fault) < 0 && strstr(fault, "not root's") != NULL, "connect to a stranger", fault);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		unlink(path);
	}
	rmdir(dir);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s FOLDER-OF-VECTORS\n", argv[0]);
		return 2;
	}
	signal(SIGPIPE, SIG_DFL); /* the module must not raise it */
	vectors(argv[1], "clean.txt", clean_vector);
	vectors(argv[1], "junk.txt", junk_vector);
	vectors(argv[1], "from_agent.txt", from_agent_vector);
	vectors(argv[1], "from_shim.txt", from_shim_vector);
	check(built == 11, "from_shim.txt", "not all known messages are there");
	test_out();
	test_options();
	test_seat();
	test_talk();
	test_signals();
	test_interrupt();
	test_connect();
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0;
}

/*
 * Fuzzer of everything that reads octets from outside: the first octet chooses the
 * reader. A property that does not hold traps.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "options.h"
#include "seat.h"
#include "talk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		__builtin_trap();
}

static char *text(const uint8_t *data, size_t size)
{
	char *s = malloc(size + 1);

	memcpy(s, data, size);
	s[size] = '\0';
	return s;
}

static void clean(const uint8_t *data, size_t size, bool lines)
{
	char *s = text(data, size), *again;
	size_t before = strlen(s), i;

	lk_clean(s, lines);
	require(strlen(s) <= before);
	for (i = 0; s[i] != '\0'; i++)
		require((unsigned char)s[i] >= 0x20 ? s[i] != 0x7f : lines && s[i] == '\n');
	again = strdup(s);
	lk_clean(again, lines);
	require(strcmp(s, again) == 0);
	free(again);
	free(s);
}

static void decode(const uint8_t *data, size_t size)
{
	uint8_t *body;
	struct lk_in m;
	size_t i;

	if (size > LK_MAX_BODY + 1)
		size = LK_MAX_BODY + 1;
	body = malloc(size + 1);
	memcpy(body, data, size);
	if (lk_decode(body, size, &m)) {
		require(m.verb >= LK_SECRET && m.verb <= LK_TOO_OLD);
		require((m.verb <= LK_WAIT) == (m.number != 0));
		require((m.verb == LK_CHOOSE) == (m.options > 0));
		require(m.verb == LK_DENY || !m.expired);
		require(m.verb == LK_TELL || !m.needed);
		require(m.verb != LK_ALLOW || m.text[0] != '\0');
		if (m.text != NULL)
			require(strlen(m.text) <= size);
		for (i = 0; i < m.options; i++)
			require(strlen(m.option[i]) <= size);
	}
	free(body);
}

static void options(const uint8_t *data, size_t size)
{
	char *s = text(data, size), *p = s, why[100];
	const char *argv[40];
	struct lk_options o;
	int argc = 0;

	while (p < s + size && argc < 40) {
		argv[argc++] = p;
		p += strlen(p) + 1;
	}
	if (lk_options_parse(&o, argc, argv, why, sizeof(why)))
		require(o.socket[0] == '/' && o.break_glass[0] == '/' && o.timeout >= 1 && o.timeout <= 100);
	else
		require(why[0] != '\0');
	free(s);
}

static int peer;

static bool ask(void *ctx, bool echo, const char *s, char **answer)
{
	char sink[4096];

	(void)ctx;
	(void)echo;
	require(strlen(s) < LK_MAX_BODY + 1024);
	while (recv(peer, sink, sizeof(sink), MSG_DONTWAIT) > 0)
		;
	*answer = strdup("123456");
	return true;
}

static void show(void *ctx, enum lk_tone tone, const char *s)
{
	(void)ctx;
	require(tone == LK_INFO || tone == LK_ERROR || tone == LK_NEEDED);
	require(strlen(s) <= LK_MAX_BODY);
}

static bool keep(void *ctx, const char *s)
{
	(void)ctx;
	require(strlen(s) <= LK_MAX_BODY);
	return true;
}

/* The whole stream of an agent. */
static void converse(const uint8_t *data, size_t size, enum lk_phase phase)
{
	static struct lk_talk t;
	static const struct lk_person person = { NULL, ask, show, keep };
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
		abort();
	if (send(fds[1], data, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size && size > 0)
		abort();
	shutdown(fds[1], SHUT_WR);
	peer = fds[1];
	lk_out_begin(&t.out, "begin");
	if (lk_converse(fds[0], &t, phase, 1000, &person) == LK_VERDICT)
		require(t.in.verb >= LK_ALLOW || (phase == LK_PHASE_ACCOUNT && t.in.verb == LK_MUST_CHANGE));
	lk_talk_wipe(&t);
	close(fds[0]);
	close(fds[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	switch (data[0] % 8) {
	case 0:
		clean(data + 1, size - 1, false);
		break;
	case 1:
		clean(data + 1, size - 1, true);
		break;
	case 2:
		options(data + 1, size - 1);
		break;
	case 3:
		if (lk_listed((const char *)data + 1, size - 1, 1000))
			require(memmem(data + 1, size - 1, "1000", 4) != NULL);
		break;
	case 4:
	case 5:
		decode(data + 1, size - 1);
		break;
	case 6:
		converse(data + 1, size - 1, LK_PHASE_AUTH);
		break;
	default:
		converse(data + 1, size - 1, LK_PHASE_ACCOUNT);
		break;
	}
	return 0;
}

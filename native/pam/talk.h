/*
 * One connection to the agent: connect, check who answers, carry prompts out and
 * answers in until there is a verdict. Knows nothing of PAM, so that the tests can
 * hold both ends. Every wait has an end on the monotonic clock.
 */
#ifndef LATCHKEY_TALK_H
#define LATCHKEY_TALK_H

#include <stdbool.h>
#include <stdint.h>

#include "frame.h"

/* Limits in milliseconds; the tests are built with shorter ones. */
#ifndef LK_CONNECT_MS
#define LK_CONNECT_MS 1000
#endif
#ifndef LK_SEND_MS
#define LK_SEND_MS 5000
#endif
/* For the first frame: an agent that is stuck must not use up login's minute before
 * break-glass is looked at. */
#ifndef LK_FIRST_MS
#define LK_FIRST_MS 15000
#endif
/* For the phases that decide nothing. */
#ifndef LK_QUIET_MS
#define LK_QUIET_MS 3000
#endif
/* For the whole conversation; sshd's LoginGraceTime is 120 s. */
#ifndef LK_TOTAL_MS
#define LK_TOTAL_MS 110000
#endif

enum lk_phase {
	LK_PHASE_AUTH,
	LK_PHASE_ACCOUNT,
	LK_PHASE_CHAUTHTOK,
	LK_PHASE_SETCRED,
	LK_PHASE_SESSION_OPEN,
	LK_PHASE_SESSION_CLOSE,
};

/* How a conversation ended. Only LK_VERDICT can be anything but a denial. */
enum lk_end {
	LK_VERDICT,   /* talk->in holds allow, deny, ignore, too-old or (account) must-change */
	LK_NO_AGENT,  /* no connection, a stranger's socket, or not one valid frame */
	LK_BROKEN,    /* the agent went, was late or spoke nonsense after a valid frame */
	LK_NO_ANSWER, /* the person gave up, or the program can not show the prompt */
	LK_LATE,      /* the time for the whole conversation is over */
	LK_UNSAYABLE, /* an answer or the request does not fit a frame */
};

/* What a text is. */
enum lk_tone {
	LK_INFO,
	LK_ERROR,
	LK_NEEDED, /* information that a program that wants silence shows all the same */
};

/* The program's side, called while a frame of the agent is held. */
struct lk_person {
	void *ctx;
	/* Shows a prompt; *answer is malloc'ed and belongs to the caller, who wipes it.
	 * False if there is none. */
	bool (*ask)(void *ctx, bool echo, const char *text, char **answer);
	void (*show)(void *ctx, enum lk_tone tone, const char *text);
	/* Keeps the password for later modules. */
	bool (*authtok)(void *ctx, const char *password);
};

struct lk_talk {
	struct lk_out out;
	unsigned char body[LK_MAX_BODY + 1];
	struct lk_in in;
	char menu[LK_MAX_BODY + 1024];
	const char *fault; /* for the system log; a constant */
};

/* Milliseconds of the monotonic clock. */
int64_t lk_now(void);

/* Connects to the socket at path and makes sure that the peer is root's (or, for
 * a caller that is not root itself, its own). -1 with a constant in *fault. */
int lk_connect(const char *path, const char **fault);

/* Says hello and the request that stands in t->out, and converses. A frame of the
 * agent is waited for at most timeout_ms. The caller calls lk_talk_wipe. */
enum lk_end lk_converse(int fd, struct lk_talk *t, enum lk_phase phase, int64_t timeout_ms, const struct lk_person *person);

void lk_talk_wipe(struct lk_talk *t);

#endif

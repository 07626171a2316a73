/*
 * pam_latchkey.so: carries prompts and answers between a PAM program and the
 * agent on this machine, which leads and decides. It knows no policy, no crypto
 * and no network. Every way out that is not the agent's word is a denial, but for
 * the break-glass list (seat.h) and for the phases that decide nothing.
 *
 * Nothing is kept between phases: sshd runs them in different processes, so the
 * agent correlates them by peer process and user.
 *
 * Rows: S1, S2 (prompts), S8 (agent not running, break-glass), S9 (chauthtok,
 * must-change).
 */
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <sys/types.h>
#include <unistd.h>

#define PAM_SM_AUTH
#define PAM_SM_ACCOUNT
#define PAM_SM_PASSWORD
#define PAM_SM_SESSION
#include <security/pam_ext.h>
#include <security/pam_modules.h>

#include "options.h"
#include "seat.h"
#include "talk.h"

#define EXPORT __attribute__((visibility("default")))

static const char text_no_agent[] =
	"Latchkey: the sign-in service on this machine does not answer, so nobody can be signed in here. "
	"Ask your administrator to start latchkey-agent.";
static const char text_broken[] =
	"Latchkey: the sign-in service on this machine broke off, so this sign-in is denied. Try again.";
static const char text_late[] = "Latchkey: this sign-in took too long and is denied. Try again.";
static const char text_setup[] =
	"Latchkey: the sign-in module on this machine is set up wrongly, so nobody can be signed in here. "
	"Ask your administrator; the system log says what is wrong.";
static const char text_emergency[] =
	"Latchkey: the sign-in service on this machine does not answer. This is an emergency sign-in with the "
	"machine's own password, and it is recorded.";

struct call {
	pam_handle_t *pamh;
	int flags;
};

/* What the system knows about a user. */
struct account {
	bool known;
	uid_t uid;
	char name[257];
};

enum { BY_NAME, BY_UID };

/* Looks a user up; false if the user data could not be read, which must not look
 * like "there is no such user". */
static bool look_up(int how, const char *name, uid_t uid, struct account *a)
{
	size_t size;

	memset(a, 0, sizeof(*a));
	for (size = 16384; size <= 262144; size *= 4) {
		struct passwd pw, *found = NULL;
		char *buf = malloc(size);
		int err;

		if (buf == NULL)
			return false;
		do
			err = how == BY_NAME ? getpwnam_r(name, &pw, buf, size, &found) : getpwuid_r(uid, &pw, buf, size, &found);
		while (err == EINTR);
		if (err == 0 && found != NULL && strlen(found->pw_name) < sizeof(a->name)) {
			a->known = true;
			a->uid = found->pw_uid;
			memcpy(a->name, found->pw_name, strlen(found->pw_name) + 1);
		} else if (err == 0 && found != NULL) {
			err = ENAMETOOLONG;
		}
		explicit_bzero(buf, size);
		free(buf);
		if (err == ERANGE)
			continue;
		return err == 0 || err == ENOENT || err == ESRCH;
	}
	return false;
}

static const char *item(pam_handle_t *pamh, int which)
{
	const void *v = NULL;

	if (pam_get_item(pamh, which, &v) != PAM_SUCCESS || v == NULL)
		return "";
	return v;
}

static void show(void *ctx, enum lk_tone tone, const char *text)
{
	const struct call *c = ctx;

	if (((c->flags & PAM_SILENT) == 0 || tone == LK_NEEDED) && text[0] != '\0')
		(void)pam_prompt(c->pamh, tone == LK_ERROR ? PAM_ERROR_MSG : PAM_TEXT_INFO, NULL, "%s", text);
}

static bool ask(void *ctx, bool echo, const char *text, char **answer)
{
	const struct call *c = ctx;

	return pam_prompt(c->pamh, echo ? PAM_PROMPT_ECHO_ON : PAM_PROMPT_ECHO_OFF, answer, "%s", text) == PAM_SUCCESS;
}

static bool keep_authtok(void *ctx, const char *password)
{
	const struct call *c = ctx;

	return pam_set_item(c->pamh, PAM_AUTHTOK, password) == PAM_SUCCESS;
}

/* The code for "no": each phase has its own, and PAM_AUTHINFO_UNAVAIL where it
 * is allowed, so that programs do not count it as a wrong password. */
static int failure(enum lk_phase phase, int flags)
{
	switch (phase) {
	case LK_PHASE_AUTH:
	case LK_PHASE_ACCOUNT:
		return PAM_AUTHINFO_UNAVAIL;
	case LK_PHASE_CHAUTHTOK:
		return flags & PAM_PRELIM_CHECK ? PAM_TRY_AGAIN : PAM_AUTHTOK_ERR;
	case LK_PHASE_SETCRED:
		return PAM_CRED_UNAVAIL;
	default:
		return PAM_SESSION_ERR;
	}
}

static int denied(enum lk_phase phase, int flags, bool expired)
{
	switch (phase) {
	case LK_PHASE_AUTH:
		return PAM_AUTH_ERR;
	case LK_PHASE_ACCOUNT:
		return expired ? PAM_ACCT_EXPIRED : PAM_PERM_DENIED;
	case LK_PHASE_CHAUTHTOK:
		return flags & PAM_PRELIM_CHECK ? PAM_PERM_DENIED : PAM_AUTHTOK_ERR;
	case LK_PHASE_SETCRED:
		return PAM_CRED_ERR;
	default:
		return PAM_SESSION_ERR;
	}
}

static const char *phase_name(enum lk_phase phase)
{
	static const char *const names[] = { "auth", "account", "chauthtok", "setcred", "session-open", "session-close" };

	return names[phase];
}

/* A name for the log: one line, no control characters, no quotes, not endless. */
static const char *loggable(char *buf, size_t size, const char *s)
{
	size_t n = strnlen(s, size - 1);

	memcpy(buf, s, n);
	buf[n] = '\0';
	lk_clean(buf, false);
	for (char *p = buf; *p != '\0'; p++)
		if (*p == '"')
			*p = '\'';
	return buf;
}

/* Phases that decide nothing: a sign-in is over when they come, and a session must
 * be able to end. */
static bool decides_nothing(enum lk_phase phase)
{
	return phase == LK_PHASE_SETCRED || phase == LK_PHASE_SESSION_OPEN || phase == LK_PHASE_SESSION_CLOSE;
}

/* sshd says how the person got this far; others have no such thing. PAM's own
 * environment, not the process's: only the program and the modules write there. */
static bool key_was_accepted(pam_handle_t *pamh)
{
	const char *info, *line;

	if (strcmp(item(pamh, PAM_TTY), "ssh") != 0 || item(pamh, PAM_RHOST)[0] == '\0')
		return false;
	info = pam_getenv(pamh, "SSH_AUTH_INFO_0");
	for (line = info; line != NULL && *line != '\0'; line = strchr(line, '\n')) {
		if (*line == '\n')
			line++;
		if (strncmp(line, "publickey ", 10) == 0)
			return true;
	}
	return false;
}

/* The agent does not answer: what this phase does without it. */
static int without_agent(struct call *c, enum lk_phase phase, const struct lk_options *o, const char *fault,
			 const char *message, const char *user, const struct account *target, const char *ruser)
{
	const char *service = item(c->pamh, PAM_SERVICE), *tty = item(c->pamh, PAM_TTY), *rhost = item(c->pamh, PAM_RHOST);
	struct account caller;
	const struct account *subject = target;
	char name[65], at[65], what[65], why[160];
	bool listed = false, by_root = getuid() == 0;

	if (decides_nothing(phase)) {
		pam_syslog(c->pamh, LOG_NOTICE, "%s passed without the agent: %s", phase_name(phase), fault);
		return PAM_IGNORE;
	}
	memset(&caller, 0, sizeof(caller));
	if (lk_for_caller(service)) {
		/* The name that the program states: it may have changed its real uid by now. */
		if (!look_up(BY_NAME, ruser, 0, &caller))
			caller.known = false;
		subject = &caller;
		by_root = caller.known && caller.uid == 0;
	}

	if (phase == LK_PHASE_ACCOUNT && lk_account_without_agent(service, rhost, by_root)) {
		pam_syslog(c->pamh, LOG_NOTICE, "account passed without the agent: %s", fault);
		return PAM_IGNORE;
	}
	/* A root shell at hand can write /etc/shadow anyway; everybody else would set a
	 * local password that the server does not know of. */
	if (phase == LK_PHASE_CHAUTHTOK && rhost[0] == '\0' && getuid() == 0 &&
	    (strcmp(service, "passwd") == 0 || strcmp(service, "chpasswd") == 0 || strcmp(service, "newusers") == 0)) {
		pam_syslog(c->pamh, LOG_NOTICE, "chauthtok passed without the agent for root: %s", fault);
		return PAM_IGNORE;
	}
	if (phase == LK_PHASE_AUTH && subject->known && lk_local_seat(service, tty, rhost)) {
		listed = lk_break_glass(o->break_glass, subject->uid, why, sizeof(why));
		if (why[0] != '\0')
			pam_syslog(c->pamh, LOG_ERR, "the break-glass list %s %s: nobody is on it", o->break_glass, why);
	}
	loggable(name, sizeof(name), lk_for_caller(service) ? ruser : user);
	loggable(at, sizeof(at), tty);
	loggable(what, sizeof(what), service);
	if (listed) {
		pam_syslog(c->pamh, LOG_ALERT,
			   "break-glass sign-in without second factor: user=\"%s\" uid=%lu service=%s tty=\"%s\": %s", name,
			   (unsigned long)subject->uid, what, at, fault);
		show(c, LK_ERROR, text_emergency);
		return PAM_IGNORE;
	}
	pam_syslog(c->pamh, LOG_ERR, "%s denied: user=\"%s\" tty=\"%s\": %s", phase_name(phase), name, at, fault);
	show(c, LK_ERROR, message);
	return failure(phase, c->flags);
}

static int run(struct call *c, enum lk_phase phase, const struct lk_options *o, struct lk_talk *t)
{
	static const char *const verbs[] = { "begin", "account", "chauthtok", "setcred", "session-open", "session-close" };
	const struct lk_person person = { .ctx = c, .ask = ask, .show = show, .authtok = keep_authtok };
	const char *user = NULL, *ruser, *fault = "", *first;
	const void *authtok = NULL;
	struct account target, caller;
	enum lk_end end;
	int fd, err;

	err = pam_get_user(c->pamh, &user, NULL);
	if (err != PAM_SUCCESS)
		return err == PAM_CONV_AGAIN ? PAM_INCOMPLETE : failure(phase, c->flags);
	if (user == NULL || user[0] == '\0')
		return phase == LK_PHASE_AUTH || phase == LK_PHASE_ACCOUNT ? PAM_USER_UNKNOWN : failure(phase, c->flags);
	if (!look_up(BY_NAME, user, 0, &target) || !look_up(BY_UID, NULL, getuid(), &caller)) {
		if (decides_nothing(phase))
			return PAM_IGNORE;
		pam_syslog(c->pamh, LOG_ERR, "%s denied: the system's user data can not be read", phase_name(phase));
		show(c, LK_ERROR, text_broken);
		return failure(phase, c->flags);
	}
	ruser = item(c->pamh, PAM_RUSER);
	if (ruser[0] == '\0' && caller.known)
		ruser = caller.name;
	if (pam_get_item(c->pamh, PAM_AUTHTOK, &authtok) != PAM_SUCCESS)
		authtok = NULL;

	first = "none";
	if (key_was_accepted(c->pamh))
		first = "sshkey";
	if (strcmp(o->mode, "second") == 0 && (authtok != NULL || strcmp(first, "none") == 0))
		first = "machine";

	lk_out_begin(&t->out, verbs[phase]);
	lk_out_pair(&t->out, "phase", phase_name(phase));
	lk_out_pair(&t->out, "service", item(c->pamh, PAM_SERVICE));
	lk_out_pair(&t->out, "user", user);
	lk_out_pair(&t->out, "ruser", ruser);
	lk_out_pair(&t->out, "tty", item(c->pamh, PAM_TTY));
	lk_out_pair(&t->out, "rhost", item(c->pamh, PAM_RHOST));
	lk_out_pair_u32(&t->out, "flags", (uint32_t)c->flags);
	lk_out_pair(&t->out, "mode", o->mode);
	lk_out_pair(&t->out, "first", first);
	if (o->scope != NULL)
		lk_out_pair(&t->out, "scope", o->scope);
	if (target.known) {
		lk_out_pair_u32(&t->out, "uid", target.uid);
		lk_out_pair(&t->out, "pwname", target.name);
	}
	lk_out_pair_u32(&t->out, "ruid", getuid());
	lk_out_pair_u32(&t->out, "ppid", (uint32_t)getppid());
	if (authtok != NULL) {
		if (lk_junk(authtok))
			lk_out_pair(&t->out, "junk", "1");
		lk_out_pair(&t->out, "authtok", authtok);
	}

	fd = lk_connect(o->socket, &fault);
	if (fd < 0)
		return without_agent(c, phase, o, fault, text_no_agent, user, &target, ruser);
	end = lk_converse(fd, t, phase, (int64_t)o->timeout * 1000, &person);
	close(fd);

	switch (end) {
	case LK_VERDICT:
		switch (t->in.verb) {
		case LK_ALLOW:
			return PAM_SUCCESS;
		case LK_IGNORE:
			return PAM_IGNORE;
		case LK_MUST_CHANGE:
			return PAM_NEW_AUTHTOK_REQD;
		case LK_DENY:
			show(c, LK_ERROR, t->in.text);
			return denied(phase, c->flags, t->in.expired);
		case LK_TOO_OLD:
			/* Break-glass must work while the two can not talk, too. */
			return without_agent(c, phase, o, "the agent speaks another version of the protocol", t->in.text, user,
					     &target, ruser);
		default:
			break;
		}
		return failure(phase, c->flags);
	case LK_NO_AGENT:
		return without_agent(c, phase, o, t->fault, text_no_agent, user, &target, ruser);
	case LK_NO_ANSWER:
		return PAM_CONV_ERR;
	case LK_LATE:
	case LK_UNSAYABLE:
	case LK_BROKEN:
	default:
		break;
	}
	if (decides_nothing(phase)) {
		pam_syslog(c->pamh, LOG_NOTICE, "%s passed without the agent: %s", phase_name(phase), t->fault);
		return PAM_IGNORE;
	}
	pam_syslog(c->pamh, LOG_ERR, "%s denied: %s", phase_name(phase), t->fault);
	show(c, LK_ERROR, end == LK_LATE ? text_late : text_broken);
	return failure(phase, c->flags);
}

static int enter(pam_handle_t *pamh, int flags, int argc, const char **argv, enum lk_phase phase)
{
	struct call c = { .pamh = pamh, .flags = flags };
	struct lk_options o;
	struct lk_talk t;
	char why[256];
	int result;

	if (!lk_options_parse(&o, argc, argv, why, sizeof(why))) {
		lk_clean(why, false);
		pam_syslog(pamh, LOG_ERR, "%s denied: %s", phase_name(phase), why);
		show(&c, LK_ERROR, text_setup);
		return failure(phase, flags);
	}
	memset(&t, 0, sizeof(t));
	result = run(&c, phase, &o, &t);
	lk_talk_wipe(&t);
	return result;
}

EXPORT int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	return enter(pamh, flags, argc, argv, LK_PHASE_AUTH);
}

EXPORT int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	return enter(pamh, flags, argc, argv, LK_PHASE_SETCRED);
}

EXPORT int pam_sm_acct_mgmt(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	return enter(pamh, flags, argc, argv, LK_PHASE_ACCOUNT);
}

EXPORT int pam_sm_open_session(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	return enter(pamh, flags, argc, argv, LK_PHASE_SESSION_OPEN);
}

EXPORT int pam_sm_close_session(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	return enter(pamh, flags, argc, argv, LK_PHASE_SESSION_CLOSE);
}

EXPORT int pam_sm_chauthtok(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	return enter(pamh, flags, argc, argv, LK_PHASE_CHAUTHTOK);
}

/* The words behind pam_latchkey.so in a PAM stack. Pure. */
#ifndef LATCHKEY_OPTIONS_H
#define LATCHKEY_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

struct lk_options {
	const char *socket;      /* socket=PATH */
	const char *break_glass; /* break_glass=PATH */
	const char *mode;        /* mode=full|second */
	const char *scope;       /* scope=logon|elevation|remote, else NULL */
	unsigned timeout;        /* timeout=SECONDS for one frame of the agent, 1..100 */
};

/* Fills o. On an unknown, malformed or repeated word it returns false and says in
 * why (one line, cut to its size) what is wrong: the caller denies, because a
 * misspelt mode= must not become another mode. */
bool lk_options_parse(struct lk_options *o, int argc, const char *const *argv, char *why, size_t size);

#endif

/*
 * Frames of the local socket, the module's half of internal/shim: building what
 * a shim says, reading what an agent says. Pure: no I/O, no allocation. The
 * golden vectors in internal/shim/testdata hold both halves together.
 */
#ifndef LATCHKEY_FRAME_H
#define LATCHKEY_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LK_VERSION "1"
#define LK_MAX_BODY 16384u
#define LK_MAX_FIELDS 64u
#define LK_MAX_NUMBER 999999999u

/* A frame under construction. Once bad it stays bad; see lk_out_done. */
struct lk_out {
	unsigned char buf[4 + LK_MAX_BODY];
	size_t len; /* octets used, the four of the length included */
	size_t fields;
	bool bad;
};

void lk_out_begin(struct lk_out *o, const char *verb);
void lk_out_field(struct lk_out *o, const char *value);
/* A field "key=value". */
void lk_out_pair(struct lk_out *o, const char *key, const char *value);
void lk_out_pair_u32(struct lk_out *o, const char *key, uint32_t value);
/* Writes the length. False if the frame does not fit the limits: nothing is ever
 * cut short, because half a name is another name. */
bool lk_out_done(struct lk_out *o);
/* Forgets the content. */
void lk_out_wipe(struct lk_out *o);

enum lk_verb {
	LK_SECRET = 1,
	LK_ASK,
	LK_CHOOSE,
	LK_WAIT,
	LK_TELL,
	LK_WARN,
	LK_AUTHTOK,
	LK_MUST_CHANGE,
	LK_ALLOW,
	LK_DENY,
	LK_IGNORE,
	LK_TOO_OLD,
};

/* One message of the agent. The strings point into the body that was decoded and
 * are cleaned, except for those of LK_AUTHTOK and LK_ALLOW. */
struct lk_in {
	enum lk_verb verb;
	uint32_t number;      /* of a prompt */
	const char *text;     /* or the password, or the user's name */
	bool expired;         /* LK_DENY */
	bool needed;          /* LK_TELL: nobody can sign in who does not see it */
	size_t options;       /* LK_CHOOSE */
	const char *option[LK_MAX_FIELDS];
};

/* Reads a body of len octets. body has room for one octet more, which becomes
 * NUL; the body is changed in place. False for anything that is not exactly one
 * well-formed message. */
bool lk_decode(unsigned char *body, size_t len, struct lk_in *m);

/* Reads the length at the head of a frame; false if it is out of range. */
bool lk_length(const unsigned char head[4], size_t *len);

/* Makes s fit for a terminal, in place: see Clean in internal/shim. The result is
 * never longer. */
void lk_clean(char *s, bool lines);

/* The decimal number at s in its only spelling, 0..4294967295. */
bool lk_decimal(const char *s, uint32_t *n);

/* Whether s is sshd's stand-in for the password of an unknown user. */
bool lk_junk(const char *s);

#endif

#include "frame.h"

#include <stdio.h>
#include <string.h>

static void put(struct lk_out *o, const char *s, size_t n)
{
	if (o->bad || n > sizeof(o->buf) - o->len) {
		o->bad = true;
		return;
	}
	memcpy(o->buf + o->len, s, n);
	o->len += n;
}

void lk_out_begin(struct lk_out *o, const char *verb)
{
	o->len = 4;
	o->fields = 1;
	o->bad = false;
	put(o, verb, strlen(verb));
}

static void next(struct lk_out *o)
{
	if (++o->fields > LK_MAX_FIELDS)
		o->bad = true;
	put(o, "", 1);
}

void lk_out_field(struct lk_out *o, const char *value)
{
	next(o);
	put(o, value, strlen(value));
}

void lk_out_pair(struct lk_out *o, const char *key, const char *value)
{
	next(o);
	put(o, key, strlen(key));
	put(o, "=", 1);
	put(o, value, strlen(value));
}

void lk_out_pair_u32(struct lk_out *o, const char *key, uint32_t value)
{
	char digits[11];

	snprintf(digits, sizeof(digits), "%u", (unsigned)value);
	lk_out_pair(o, key, digits);
}

bool lk_out_done(struct lk_out *o)
{
	size_t n = o->len - 4;

	if (o->bad || n < 1 || n > LK_MAX_BODY)
		return false;
	o->buf[0] = (unsigned char)(n >> 24);
	o->buf[1] = (unsigned char)(n >> 16);
	o->buf[2] = (unsigned char)(n >> 8);
	o->buf[3] = (unsigned char)n;
	return true;
}

void lk_out_wipe(struct lk_out *o)
{
	explicit_bzero(o, sizeof(*o));
	o->bad = true;
}

bool lk_length(const unsigned char head[4], size_t *len)
{
	uint32_t n = (uint32_t)head[0] << 24 | (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3];

	*len = n;
	return n >= 1 && n <= LK_MAX_BODY;
}

bool lk_decimal(const char *s, uint32_t *n)
{
	uint64_t v = 0;
	size_t i;

	if (s[0] == '\0' || (s[0] == '0' && s[1] != '\0'))
		return false;
	for (i = 0; s[i] != '\0'; i++) {
		if (i == 10 || s[i] < '0' || s[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(s[i] - '0');
	}
	if (v > UINT32_MAX)
		return false;
	*n = (uint32_t)v;
	return true;
}

static bool number(const char *s, uint32_t *n)
{
	return lk_decimal(s, n) && *n >= 1 && *n <= LK_MAX_NUMBER;
}

/* The code point at s (a C string) and the octets it takes; 0 octets if they are
 * not valid UTF-8 (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF). */
static size_t rune_at(const unsigned char *s, uint32_t *r)
{
	size_t n, i;
	uint32_t min;

	if (s[0] < 0x80) {
		*r = s[0];
		return 1;
	}
	if (s[0] >= 0xc2 && s[0] <= 0xdf) {
		n = 2;
		*r = s[0] & 0x1fu;
		min = 0x80;
	} else if (s[0] >= 0xe0 && s[0] <= 0xef) {
		n = 3;
		*r = s[0] & 0x0fu;
		min = 0x800;
	} else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
		n = 4;
		*r = s[0] & 0x07u;
		min = 0x10000;
	} else {
		return 0;
	}
	for (i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80) /* the final NUL stops here too */
			return 0;
		*r = *r << 6 | (s[i] & 0x3fu);
	}
	if (*r < min || *r > 0x10ffff || (*r >= 0xd800 && *r <= 0xdfff))
		return 0;
	return n;
}

static bool unfit(uint32_t r)
{
	return r < 0x20 || (r >= 0x7f && r <= 0x9f) || r == 0x061c || r == 0x200e || r == 0x200f ||
	       (r >= 0x2028 && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069);
}

void lk_clean(char *text, bool lines)
{
	unsigned char *from = (unsigned char *)text, *to = from;

	while (*from != '\0') {
		uint32_t r = 0;
		size_t n = rune_at(from, &r);

		if (n == 0) {
			*to++ = '?';
			from++;
		} else if (r == '\n' && lines) {
			*to++ = '\n';
			from++;
		} else if (r == '\n' || r == '\t') {
			*to++ = ' ';
			from++;
		} else if (unfit(r)) {
			*to++ = '?';
			from += n;
		} else {
			memmove(to, from, n);
			to += n;
			from += n;
		}
	}
	*to = '\0';
}

bool lk_junk(const char *s)
{
	static const char pattern[] = "\b\n\r\177INCORRECT";
	size_t i;

	for (i = 0; s[i] != '\0'; i++)
		if (s[i] != pattern[i % (sizeof(pattern) - 1)])
			return false;
	return i > 0;
}

bool lk_decode(unsigned char *body, size_t len, struct lk_in *m)
{
	char *f[LK_MAX_FIELDS];
	size_t n = 0, i, start = 0;
	bool lines = false;

	memset(m, 0, sizeof(*m));
	if (len < 1 || len > LK_MAX_BODY)
		return false;
	body[len] = '\0';
	for (i = 0; i <= len; i++) {
		if (body[i] != '\0')
			continue;
		if (n == LK_MAX_FIELDS)
			return false;
		f[n++] = (char *)body + start;
		start = i + 1;
	}

	if (strcmp(f[0], "secret") == 0)
		m->verb = LK_SECRET;
	else if (strcmp(f[0], "ask") == 0)
		m->verb = LK_ASK;
	else if (strcmp(f[0], "wait") == 0)
		m->verb = LK_WAIT;
	else if (strcmp(f[0], "choose") == 0)
		m->verb = LK_CHOOSE;
	else if (strcmp(f[0], "tell") == 0)
		m->verb = LK_TELL;
	else if (strcmp(f[0], "warn") == 0)
		m->verb = LK_WARN;
	else if (strcmp(f[0], "authtok") == 0)
		m->verb = LK_AUTHTOK;
	else if (strcmp(f[0], "must-change") == 0)
		m->verb = LK_MUST_CHANGE;
	else if (strcmp(f[0], "allow") == 0)
		m->verb = LK_ALLOW;
	else if (strcmp(f[0], "deny") == 0)
		m->verb = LK_DENY;
	else if (strcmp(f[0], "ignore") == 0)
		m->verb = LK_IGNORE;
	else if (strcmp(f[0], "too-old") == 0)
		m->verb = LK_TOO_OLD;
	else
		return false;

	switch (m->verb) {
	case LK_SECRET:
	case LK_ASK:
	case LK_WAIT:
		if (n != 3 || !number(f[1], &m->number))
			return false;
		m->text = f[2];
		break;
	case LK_CHOOSE:
		if (n < 4 || !number(f[1], &m->number))
			return false;
		m->text = f[2];
		for (i = 3; i < n; i++) {
			lk_clean(f[i], false);
			m->option[m->options++] = f[i];
		}
		break;
	case LK_TELL:
	case LK_WARN:
		if (m->verb == LK_TELL && n == 3 && strcmp(f[2], "needed") == 0)
			m->needed = true;
		else if (n != 2)
			return false;
		m->text = f[1];
		lines = true;
		break;
	case LK_AUTHTOK:
		if (n != 2)
			return false;
		m->text = f[1];
		return true;
	case LK_ALLOW:
		/* An approval that names nobody approves nobody. */
		if (n != 3 || f[1][0] == '\0')
			return false;
		m->text = f[1];
		return true;
	case LK_DENY:
		if (n == 3 && strcmp(f[2], "expired") == 0)
			m->expired = true;
		else if (n != 2)
			return false;
		m->text = f[1];
		break;
	case LK_MUST_CHANGE:
	case LK_IGNORE:
		return n == 1;
	case LK_TOO_OLD:
		if (n != 2)
			return false;
		m->text = f[1];
		break;
	default:
		return false;
	}
	lk_clean((char *)(uintptr_t)m->text, lines);
	return true;
}

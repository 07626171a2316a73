#include "options.h"

#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "frame.h"

static const char *value_of(const char *arg, const char *key)
{
	size_t n = strlen(key);

	return strncmp(arg, key, n) == 0 && arg[n] == '=' ? arg + n + 1 : NULL;
}

bool lk_options_parse(struct lk_options *o, int argc, const char *const *argv, char *why, size_t size)
{
	enum { SOCKET = 1, MODE = 2, SCOPE = 4, TIMEOUT = 8, BREAK_GLASS = 16 };
	unsigned seen = 0, this;
	int i;

	o->socket = "/run/latchkey/agent.sock";
	o->break_glass = "/etc/latchkey/break-glass";
	o->mode = "full";
	o->scope = NULL;
	o->timeout = 60;
	if (size > 0)
		why[0] = '\0';

	for (i = 0; i < argc; i++) {
		const char *v, *want;
		bool ok;

		if ((v = value_of(argv[i], "socket")) != NULL) {
			this = SOCKET;
			want = "an absolute path of at most 107 octets";
			ok = v[0] == '/' && strlen(v) < sizeof(((struct sockaddr_un *)NULL)->sun_path);
			o->socket = v;
		} else if ((v = value_of(argv[i], "mode")) != NULL) {
			this = MODE;
			want = "full or second";
			ok = strcmp(v, "full") == 0 || strcmp(v, "second") == 0;
			o->mode = v;
		} else if ((v = value_of(argv[i], "scope")) != NULL) {
			this = SCOPE;
			want = "logon, elevation or remote";
			ok = strcmp(v, "logon") == 0 || strcmp(v, "elevation") == 0 || strcmp(v, "remote") == 0;
			o->scope = v;
		} else if ((v = value_of(argv[i], "timeout")) != NULL) {
			uint32_t n = 0;

			this = TIMEOUT;
			want = "a number of seconds from 1 to 100";
			ok = lk_decimal(v, &n) && n >= 1 && n <= 100;
			o->timeout = n;
		} else if ((v = value_of(argv[i], "break_glass")) != NULL) {
			this = BREAK_GLASS;
			want = "an absolute path";
			ok = v[0] == '/';
			o->break_glass = v;
		} else {
			snprintf(why, size, "unknown option \"%.64s\"; known are socket= mode= scope= timeout= break_glass=", argv[i]);
			return false;
		}
		if (!ok) {
			snprintf(why, size, "option \"%.64s\" must be %s", argv[i], want);
			return false;
		}
		if (seen & this) {
			snprintf(why, size, "option \"%.64s\" is there twice", argv[i]);
			return false;
		}
		seen |= this;
	}
	return true;
}

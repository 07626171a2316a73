#include "seat.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool lk_listed(const char *list, size_t len, uint32_t uid)
{
	char want[11];
	size_t n = (size_t)snprintf(want, sizeof(want), "%u", (unsigned)uid);
	size_t start = 0, i;

	for (i = 0; i <= len; i++) {
		if (i < len && list[i] != '\n')
			continue;
		if (i - start == n && memcmp(list + start, want, n) == 0)
			return true;
		start = i + 1;
	}
	return false;
}

bool lk_break_glass(const char *path, uint32_t uid, char *why, size_t size)
{
	char list[LK_BREAK_GLASS_MAX + 1];
	struct stat st;
	size_t len = 0;
	int fd;

	why[0] = '\0';
	/* O_NONBLOCK: a FIFO in its place must not hold the sign-in up. */
	do
		fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	while (fd < 0 && errno == EINTR);
	if (fd < 0) {
		if (errno != ENOENT)
			snprintf(why, size, "can not be opened: %s", errno == ELOOP ? "it is a symbolic link" : strerror(errno));
		return false;
	}
	if (fstat(fd, &st) != 0)
		snprintf(why, size, "can not be examined");
	else if (!S_ISREG(st.st_mode))
		snprintf(why, size, "is not a regular file");
	else if (st.st_uid != 0)
		snprintf(why, size, "is not owned by root");
	else if (st.st_mode & (S_IWGRP | S_IWOTH))
		snprintf(why, size, "is writable for others than root");
	if (why[0] != '\0') {
		close(fd);
		return false;
	}
	while (len < sizeof(list)) {
		ssize_t n = read(fd, list + len, sizeof(list) - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			snprintf(why, size, "can not be read: %s", strerror(errno));
			close(fd);
			return false;
		}
		if (n == 0)
			break;
		len += (size_t)n;
	}
	close(fd);
	if (len > LK_BREAK_GLASS_MAX) {
		snprintf(why, size, "is larger than %u octets", LK_BREAK_GLASS_MAX);
		return false;
	}
	return lk_listed(list, len, uid);
}

static bool one_of(const char *s, const char *const *set)
{
	for (; *set != NULL; set++)
		if (strcmp(s, *set) == 0)
			return true;
	return false;
}

/* Serve a keyboard and a screen of this machine and nothing else. */
static const char *const console_services[] = {
	"login", "gdm-password", "gdm", "lightdm", "sddm", "greetd", "kde", "xdm", NULL,
};

static const char *const caller_services[] = { "su", "su-l", "sudo", "sudo-i", NULL };

bool lk_for_caller(const char *service)
{
	return one_of(service, caller_services);
}

/* "/dev/tty1", not "/dev/tty" and not "/dev/ttyp0". */
static bool console_tty(const char *tty)
{
	const char *p;

	if (strcmp(tty, "/dev/console") == 0)
		return true;
	if (strncmp(tty, "/dev/ttyS", 9) == 0)
		p = tty + 9;
	else if (strncmp(tty, "/dev/hvc", 8) == 0)
		p = tty + 8;
	else if (strncmp(tty, "/dev/tty", 8) == 0)
		p = tty + 8;
	else
		return false;
	if (*p == '\0')
		return false;
	for (; *p != '\0'; p++)
		if (*p < '0' || *p > '9')
			return false;
	return true;
}

bool lk_local_seat(const char *service, const char *tty, const char *rhost)
{
	if (rhost[0] != '\0')
		return false;
	return one_of(service, console_services) || (lk_for_caller(service) && console_tty(tty));
}

/*
 * The account phase while the agent does not answer. The auth phase has then been
 * denied by this module, or passed by break-glass, so that whoever comes here from
 * a stack with this module in "auth" is a break-glass account or came before the
 * agent went. What is left are programs that skip "auth":
 *
 *  - sshd after a key: the account phase is the only one that can say no. Denied.
 *  - cron, at and systemd's user instance start work of people who are not there.
 *    Stopping all jobs of a machine because one service crashed helps nobody, and
 *    no person is let in. Passed.
 *  - su, sudo and runuser called by root: root needs neither. Passed.
 *  - sudo with a live ticket or NOPASSWD, and su behind pam_rootok or pam_wheel: the
 *    administrator's rules have waived "auth"; the person is in already. Passed.
 *  - login -f and the displays' automatic login at the console: waived likewise.
 *    Passed, but not with a remote host.
 *  - everything not named here: denied.
 */
bool lk_account_without_agent(const char *service, const char *rhost, bool by_root)
{
	static const char *const jobs[] = { "cron", "crond", "atd", "systemd-user", NULL };
	static const char *const roots[] = { "runuser", "runuser-l", NULL };
	static const char *const automatic[] = { "gdm-autologin", "lightdm-autologin", "sddm-autologin",
						 "gdm-launch-environment", "lightdm-greeter", "sddm-greeter", NULL };

	if (rhost[0] != '\0')
		return false;
	return one_of(service, jobs) || (by_root && one_of(service, roots)) || lk_for_caller(service) ||
	       one_of(service, console_services) || one_of(service, automatic);
}

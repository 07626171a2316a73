/* Break-glass: who may sign in, and where, while the agent does not answer (S8). */
#ifndef LATCHKEY_SEAT_H
#define LATCHKEY_SEAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LK_BREAK_GLASS_MAX 4096u

/* Whether the list holds a line that is exactly the decimal uid. Lines that are
 * anything else list nobody: no blanks, no leading zeros, no comments, no CR. */
bool lk_listed(const char *list, size_t len, uint32_t uid);

/* Reads the list at path and looks for uid. The file must be regular, owned by
 * root, not writable for group or others, at most 4 KiB, and not a symbolic link:
 * else nobody is listed and why (cut to its size) says the fault; an absent file
 * is no fault. */
bool lk_break_glass(const char *path, uint32_t uid, char *why, size_t size);

/* Whether the request comes from a person at this machine: no remote host, and
 * either a service that only serves consoles and displays, or su and sudo on a
 * console's terminal. */
bool lk_local_seat(const char *service, const char *tty, const char *rhost);

/* su and sudo and their login variants, where the subject is the caller. */
bool lk_for_caller(const char *service);

/* Services whose account phase may be passed while the agent is down. by_root: the
 * caller's real uid is 0. See the comment in seat.c for the reasons. */
bool lk_account_without_agent(const char *service, const char *rhost, bool by_root);

#endif

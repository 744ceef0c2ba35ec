// SPDX-License-Identifier: Apache-2.0
/*
 * File-system credentials of one thread: to make one system call as somebody else.
 *
 * Decided here: how a thread takes a caller's file-system user, group and supplementary groups, and
 * that it gives them back in all cases. Not decided here: which call is made. Included by _native.c
 * and by the passthrough extension.
 *
 * setfsuid(2) and setfsgid(2) hold for the calling thread alone. So does setgroups(2) when it is
 * called raw; the C library's would change every thread of the process. The kernel takes the
 * capabilities that override file permissions away with a file-system user other than root, and
 * gives them back with it.
 */

#ifndef MREGFS_CREDENTIALS
#define MREGFS_CREDENTIALS

#include <errno.h>
#include <stdlib.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define MAX_GROUPS 65536 /* NGROUPS_MAX of Linux */

struct who {
	int other;      /* 0: the process itself, whose credentials stay */
	uid_t uid;
	gid_t gid;
	long count;     /* of supplementary groups; -1 leaves those of the process */
	gid_t *groups;
	long own_count; /* those of the process, while others are in force */
	gid_t *own;
};

static void back(struct who *who)
{
	if (!who->other)
		return;
	setfsuid(geteuid());
	setfsgid(getegid());
	if (who->own && syscall(SYS_setgroups, who->own_count, who->own) != 0)
		abort(); /* this thread must not go on with another user's groups */
	free(who->own);
	who->own = NULL;
	if ((uid_t)setfsuid((uid_t)-1) != geteuid() || (gid_t)setfsgid((gid_t)-1) != getegid())
		abort(); /* likewise */
}

/* Take the credentials; 0, or an errno, and then nothing has changed. End with back(). */
static int become(struct who *who)
{
	if (!who->other)
		return 0;
	who->own = NULL;
	if (who->count >= 0) {
		long found = syscall(SYS_getgroups, 0, NULL);

		if (found < 0)
			return errno;
		who->own = malloc(sizeof(gid_t) * (size_t)(found ? found : 1));
		if (who->own == NULL)
			return ENOMEM;
		who->own_count = syscall(SYS_getgroups, found, who->own);
		if (who->own_count < 0 || syscall(SYS_setgroups, who->count, who->groups) != 0) {
			int error = errno;

			free(who->own);
			who->own = NULL;
			return error;
		}
	}
	setfsgid(who->gid);
	setfsuid(who->uid);
	if ((uid_t)setfsuid((uid_t)-1) != who->uid || (gid_t)setfsgid((gid_t)-1) != who->gid) {
		back(who);
		return EPERM;
	}
	return 0;
}

#endif

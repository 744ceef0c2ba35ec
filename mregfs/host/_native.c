// SPDX-License-Identifier: Apache-2.0
/*
 * System calls that Python lacks, and system calls made with another user's credentials.
 *
 * Decided here: that a call made for a caller is one system call between taking his file-system
 * credentials and giving them back, with no Python between. Not decided here: whose credentials,
 * and what for (callers.py, and the adapters in stores/). Names are relative to a directory
 * descriptor; errors are OSError, as `os` would raise them.
 *
 * `who` is None for the process itself, or (uid, gid, groups): groups is a sequence of numbers, or
 * None, which leaves the supplementary groups of the process.
 *
 * A umask belongs to all threads of a process that share its working directory. What a caller makes
 * gets the mode that he asked for all the same: where the process's umask would take bits of it, the
 * call is made in a thread of its own, which shares neither (unshare(2), CLONE_FS).
 */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "_credentials.c"

#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

struct how { /* struct open_how of openat2(2) */
	uint64_t flags, mode, resolve;
};

static PyObject *failed(int error)
{
	errno = error;
	return PyErr_SetFromErrno(PyExc_OSError);
}

static int number(PyObject *object, uint32_t *found)
{
	unsigned long value = PyLong_AsUnsignedLong(object);

	if (PyErr_Occurred())
		return 0;
	if (value >= UINT32_MAX) { /* -1 would mean: leave as it is */
		PyErr_SetString(PyExc_OverflowError, "no such user or group");
		return 0;
	}
	*found = (uint32_t)value;
	return 1;
}

/* A converter of PyArg_ParseTuple; with NULL it cleans up. */
static int to_who(PyObject *object, void *address)
{
	struct who *who = address;
	PyObject *uid, *gid, *groups, *sequence;

	if (object == NULL) {
		free(who->groups);
		return 1;
	}
	*who = (struct who){.count = -1};
	if (object == Py_None)
		return Py_CLEANUP_SUPPORTED;
	if (!PyTuple_Check(object) || !PyArg_ParseTuple(object, "OOO", &uid, &gid, &groups) ||
	    !number(uid, &who->uid) || !number(gid, &who->gid)) {
		if (!PyErr_Occurred())
			PyErr_SetString(PyExc_TypeError, "who is (uid, gid, groups) or None");
		return 0;
	}
	who->other = 1;
	if (groups == Py_None)
		return Py_CLEANUP_SUPPORTED;
	sequence = PySequence_Fast(groups, "groups is a sequence of numbers");
	if (sequence == NULL)
		return 0;
	who->count = PySequence_Fast_GET_SIZE(sequence);
	if (who->count > MAX_GROUPS) {
		PyErr_SetString(PyExc_ValueError, "too many groups");
		Py_DECREF(sequence);
		return 0;
	}
	who->groups = malloc(sizeof(gid_t) * (size_t)(who->count ? who->count : 1));
	for (long i = 0; who->groups && i < who->count; i++)
		if (!number(PySequence_Fast_GET_ITEM(sequence, i), &who->groups[i])) {
			free(who->groups);
			who->groups = NULL;
			Py_DECREF(sequence);
			return 0;
		}
	Py_DECREF(sequence);
	if (who->groups == NULL) {
		PyErr_NoMemory();
		return 0;
	}
	return Py_CLEANUP_SUPPORTED;
}

/* Make one system call as `who`; `result` and `error` are what it gave. */
#define AS(who, call)                                                                             \
	do {                                                                                      \
		Py_BEGIN_ALLOW_THREADS                                                            \
		error = become(&(who));                                                           \
		if (!error) {                                                                     \
			result = (call);                                                          \
			error = result < 0 ? errno : 0;                                           \
			back(&(who));                                                             \
		}                                                                                 \
		Py_END_ALLOW_THREADS                                                              \
		to_who(NULL, &(who));                                                             \
	} while (0)

#define DONE return error ? failed(error) : Py_NewRef(Py_None)

static PyObject *native_openat2(PyObject *module, PyObject *args)
{
	const char *name;
	int directory;
	long result = -1;
	int error;
	unsigned long long flags, mode, resolve;

	(void)module;
	if (!PyArg_ParseTuple(args, "iyKKK:openat2", &directory, &name, &flags, &mode, &resolve))
		return NULL;
	struct how how = {flags | O_CLOEXEC, mode, resolve};

	Py_BEGIN_ALLOW_THREADS
	result = syscall(SYS_openat2, directory, name, &how, sizeof(how));
	error = result < 0 ? errno : 0;
	Py_END_ALLOW_THREADS
	return error ? failed(error) : PyLong_FromLong(result);
}

static PyObject *native_open(PyObject *module, PyObject *args)
{
	struct who who = {0};
	const char *name;
	int directory, flags, error;
	unsigned mode;
	long result = -1;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&iyiI:open", to_who, &who, &directory, &name, &flags, &mode))
		return NULL;
	AS(who, openat(directory, name, flags | O_CLOEXEC, (mode_t)mode));
	return error ? failed(error) : PyLong_FromLong(result);
}

struct making { /* mkdirat(2) or mknodat(2), in a thread without a umask */
	struct who *who;
	int directory, is_directory, error;
	const char *name;
	mode_t mode;
	dev_t device;
};

static long make(const struct making *making)
{
	if (making->is_directory)
		return mkdirat(making->directory, making->name, making->mode);
	return mknodat(making->directory, making->name, making->mode, making->device);
}

static void *make_exactly(void *argument)
{
	struct making *making = argument;

	if (unshare(CLONE_FS) != 0) {
		making->error = errno;
		return NULL;
	}
	umask(0);
	making->error = become(making->who);
	if (!making->error) {
		if (make(making) < 0)
			making->error = errno;
		back(making->who);
	}
	return NULL;
}

/* Make what `making` says; `mask` are the bits that the umask of this process takes. */
static PyObject *made(struct making *making, unsigned mask)
{
	struct who *who = making->who;
	pthread_t thread;
	long result = -1;
	int error;

	if (!(making->mode & mask)) {
		AS(*who, make(making));
		DONE;
	}
	Py_BEGIN_ALLOW_THREADS
	error = pthread_create(&thread, NULL, make_exactly, making);
	if (!error) {
		pthread_join(thread, NULL);
		error = making->error;
	}
	Py_END_ALLOW_THREADS
	to_who(NULL, who);
	DONE;
}

static PyObject *native_mkdir(PyObject *module, PyObject *args)
{
	struct who who = {0};
	struct making making = {.who = &who, .is_directory = 1};
	unsigned mode, mask = 0;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&iyI|I:mkdir", to_who, &who, &making.directory, &making.name,
			      &mode, &mask))
		return NULL;
	making.mode = (mode_t)mode;
	return made(&making, mask);
}

static PyObject *native_mknod(PyObject *module, PyObject *args)
{
	struct who who = {0};
	struct making making = {.who = &who};
	unsigned mode, mask = 0;
	unsigned long long device;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&iyIK|I:mknod", to_who, &who, &making.directory, &making.name,
			      &mode, &device, &mask))
		return NULL;
	making.mode = (mode_t)mode;
	making.device = (dev_t)device;
	return made(&making, mask);
}

static PyObject *native_symlink(PyObject *module, PyObject *args)
{
	struct who who = {0};
	const char *target, *name;
	int directory, error;
	long result = -1;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&yiy:symlink", to_who, &who, &target, &directory, &name))
		return NULL;
	AS(who, symlinkat(target, directory, name));
	DONE;
}

static PyObject *native_link(PyObject *module, PyObject *args)
{
	struct who who = {0};
	const char *name, *new_name;
	int directory, new_directory, flags, error;
	long result = -1;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&iyiyi:link", to_who, &who, &directory, &name, &new_directory,
			      &new_name, &flags))
		return NULL;
	AS(who, linkat(directory, name, new_directory, new_name, flags));
	DONE;
}

static PyObject *native_unlink(PyObject *module, PyObject *args)
{
	struct who who = {0};
	const char *name;
	int directory, flags, error;
	long result = -1;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&iyi:unlink", to_who, &who, &directory, &name, &flags))
		return NULL;
	AS(who, unlinkat(directory, name, flags));
	DONE;
}

static PyObject *native_rename(PyObject *module, PyObject *args)
{
	struct who who = {0};
	const char *name, *new_name;
	int directory, new_directory, error;
	unsigned flags;
	long result = -1;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&iyiyI:rename", to_who, &who, &directory, &name,
			      &new_directory, &new_name, &flags))
		return NULL;
	AS(who, syscall(SYS_renameat2, directory, name, new_directory, new_name, flags));
	DONE;
}

static PyObject *native_access(PyObject *module, PyObject *args)
{
	struct who who = {0};
	const char *name;
	int directory, mode, flags, error;
	long result = -1;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&iyii:access", to_who, &who, &directory, &name, &mode, &flags))
		return NULL;
	AS(who, syscall(SYS_faccessat2, directory, name, mode, flags | AT_EACCESS));
	DONE;
}

static long change_mode(int fd, mode_t mode)
{
	char path[32];
	long result = syscall(SYS_fchmodat2, fd, "", mode, AT_EMPTY_PATH);

	/* Before Linux 6.6; a filter of system calls says EPERM to what it does not know. */
	if (result < 0 && (errno == ENOSYS || errno == EINVAL || errno == EPERM)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		result = chmod(path, mode);
	}
	return result;
}

static PyObject *native_chmod(PyObject *module, PyObject *args)
{
	struct who who = {0};
	int fd, error;
	unsigned mode;
	long result = -1;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&iI:chmod", to_who, &who, &fd, &mode))
		return NULL;
	AS(who, change_mode(fd, (mode_t)mode));
	DONE;
}

static PyObject *native_chown(PyObject *module, PyObject *args)
{
	struct who who = {0};
	int fd, error;
	long uid, gid;
	long result = -1;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&ill:chown", to_who, &who, &fd, &uid, &gid))
		return NULL;
	AS(who, fchownat(fd, "", (uid_t)uid, (gid_t)gid, AT_EMPTY_PATH));
	DONE;
}

static PyObject *native_ftruncate(PyObject *module, PyObject *args)
{
	struct who who = {0};
	int fd, error;
	long long size;
	long result = -1;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&iL:ftruncate", to_who, &who, &fd, &size))
		return NULL;
	AS(who, ftruncate(fd, (off_t)size));
	DONE;
}

static PyObject *native_pwrite(PyObject *module, PyObject *args)
{
	struct who who = {0};
	Py_buffer data;
	int fd, error;
	long long offset;
	long result = -1;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&iy*L:pwrite", to_who, &who, &fd, &data, &offset))
		return NULL;
	AS(who, pwrite(fd, data.buf, (size_t)data.len, (off_t)offset));
	PyBuffer_Release(&data);
	return error ? failed(error) : PyLong_FromLong(result);
}

/* Nanoseconds since the epoch; None leaves the time as it is, Ellipsis is now. */
static int to_time(PyObject *object, void *address)
{
	struct timespec *time = address;
	long long value;

	if (object == Py_None || object == Py_Ellipsis) {
		*time = (struct timespec){.tv_nsec = object == Py_None ? UTIME_OMIT : UTIME_NOW};
		return 1;
	}
	value = PyLong_AsLongLong(object);
	if (PyErr_Occurred())
		return 0;
	time->tv_sec = value / 1000000000;
	time->tv_nsec = value % 1000000000;
	if (time->tv_nsec < 0) {
		time->tv_nsec += 1000000000;
		time->tv_sec--;
	}
	return 1;
}

static PyObject *native_utimens(PyObject *module, PyObject *args)
{
	struct who who = {0};
	struct timespec times[2];
	int fd, error;
	long result = -1;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&iO&O&:utimens", to_who, &who, &fd, to_time, &times[0],
			      to_time, &times[1]))
		return NULL;
	AS(who, syscall(SYS_utimensat, fd, "", times, AT_EMPTY_PATH));
	DONE;
}

static PyObject *native_setxattr(PyObject *module, PyObject *args)
{
	struct who who = {0};
	const char *path, *name;
	Py_buffer value;
	int flags, error;
	long result = -1;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&yyy*i:setxattr", to_who, &who, &path, &name, &value, &flags))
		return NULL;
	AS(who, setxattr(path, name, value.buf, (size_t)value.len, flags));
	PyBuffer_Release(&value);
	DONE;
}

static PyObject *native_removexattr(PyObject *module, PyObject *args)
{
	struct who who = {0};
	const char *path, *name;
	int error;
	long result = -1;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&yy:removexattr", to_who, &who, &path, &name))
		return NULL;
	AS(who, removexattr(path, name));
	DONE;
}

#define XATTR_SIZE 65536 /* XATTR_SIZE_MAX and XATTR_LIST_MAX of Linux */

static PyObject *native_getxattr(PyObject *module, PyObject *args)
{
	struct who who = {0};
	const char *path, *name;
	char *buffer;
	int error;
	long result = -1;
	PyObject *found;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&yy:getxattr", to_who, &who, &path, &name))
		return NULL;
	buffer = malloc(XATTR_SIZE);
	AS(who, buffer ? getxattr(path, name, buffer, XATTR_SIZE) : (errno = ENOMEM, -1));
	found = error ? failed(error) : PyBytes_FromStringAndSize(buffer, result);
	free(buffer);
	return found;
}

static PyObject *native_listxattr(PyObject *module, PyObject *args)
{
	struct who who = {0};
	const char *path;
	char *buffer;
	int error;
	long result = -1;
	PyObject *found;

	(void)module;
	if (!PyArg_ParseTuple(args, "O&y:listxattr", to_who, &who, &path))
		return NULL;
	buffer = malloc(XATTR_SIZE);
	AS(who, buffer ? listxattr(path, buffer, XATTR_SIZE) : (errno = ENOMEM, -1));
	found = error ? failed(error) : PyBytes_FromStringAndSize(buffer, result);
	free(buffer);
	return found;
}

/* Give a capability up, of this thread and of all that it starts from now on. */
static PyObject *native_drop_capability(PyObject *module, PyObject *argument)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	long capability = PyLong_AsLong(argument);

	(void)module;
	if (PyErr_Occurred())
		return NULL;
	if (capability < 0 || capability > 63)
		return failed(EINVAL);
	if (syscall(SYS_capget, &header, data) != 0)
		return failed(errno);
	data[capability / 32].effective &= ~(1u << (capability % 32));
	data[capability / 32].permitted &= ~(1u << (capability % 32));
	data[capability / 32].inheritable &= ~(1u << (capability % 32));
	if (syscall(SYS_capset, &header, data) != 0)
		return failed(errno);
	Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
	{"openat2", native_openat2, METH_VARARGS, "openat2(directory, name, flags, mode, resolve)"},
	{"open", native_open, METH_VARARGS, "open(who, directory, name, flags, mode)"},
	{"mkdir", native_mkdir, METH_VARARGS, "mkdir(who, directory, name, mode, umask=0)"},
	{"mknod", native_mknod, METH_VARARGS, "mknod(who, directory, name, mode, device, umask=0)"},
	{"symlink", native_symlink, METH_VARARGS, "symlink(who, target, directory, name)"},
	{"link", native_link, METH_VARARGS,
	 "link(who, directory, name, new_directory, new_name, flags)"},
	{"unlink", native_unlink, METH_VARARGS, "unlink(who, directory, name, flags)"},
	{"rename", native_rename, METH_VARARGS,
	 "rename(who, directory, name, new_directory, new_name, flags)"},
	{"access", native_access, METH_VARARGS, "access(who, directory, name, mode, flags)"},
	{"chmod", native_chmod, METH_VARARGS, "chmod(who, descriptor, mode)"},
	{"chown", native_chown, METH_VARARGS, "chown(who, descriptor, uid, gid)"},
	{"ftruncate", native_ftruncate, METH_VARARGS, "ftruncate(who, descriptor, size)"},
	{"pwrite", native_pwrite, METH_VARARGS, "pwrite(who, descriptor, data, offset)"},
	{"utimens", native_utimens, METH_VARARGS, "utimens(who, descriptor, atime_ns, mtime_ns)"},
	{"setxattr", native_setxattr, METH_VARARGS, "setxattr(who, path, name, value, flags)"},
	{"getxattr", native_getxattr, METH_VARARGS, "getxattr(who, path, name)"},
	{"listxattr", native_listxattr, METH_VARARGS, "listxattr(who, path)"},
	{"removexattr", native_removexattr, METH_VARARGS, "removexattr(who, path, name)"},
	{"drop_capability", native_drop_capability, METH_O, "drop_capability(number)"},
	{NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, .m_name = "_native", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__native(void)
{
	return PyModule_Create(&definition);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The raw side of one FUSE session: what pyfuse3 and libfuse cannot say.
 *
 * Decided here: which bytes of a request or a reply are changed on their way between the kernel and
 * libfuse, and which requests never reach libfuse. Not decided here: which file is read by
 * passthrough (passthrough.py), nor what a request means (adapter.py). Only passthrough.py calls
 * this module. The protocol, its invariants and what can fail: passthrough.md.
 *
 * The library is loaded with RTLD_GLOBAL before pyfuse3, so that pyfuse3's call of
 * fuse_session_mount() arrives here; it installs take() and give() between libfuse and /dev/fuse.
 */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <link.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "../host/_credentials.c"
#include "_passthrough_map.c"

/* ---- of the protocol, what older copies of linux/fuse.h do not have --------------------------- */

#define INIT_KILLPRIV_V2 (1u << 28)    /* FUSE_HANDLE_KILLPRIV_V2 */
#define INIT_EXT (1u << 30)            /* FUSE_INIT_EXT: flags2 counts */
#define INIT2_PASSTHROUGH (1u << 5)    /* FUSE_PASSTHROUGH, bit 37 */
#define OPEN_DIRECT_IO (1u << 0)       /* FOPEN_DIRECT_IO */
#define OPEN_KEEP_CACHE (1u << 1)      /* FOPEN_KEEP_CACHE */
#define OPEN_NOFLUSH (1u << 5)         /* FOPEN_NOFLUSH */
#define OPEN_PASSTHROUGH (1u << 7)     /* FOPEN_PASSTHROUGH */
#define OP_COPY_FILE_RANGE 47
#define OPCODES 64                     /* more than the protocol has; the rest is counted at 0 */

/* Requests that the kernel may have under way without a waiting process, readahead above all. Its
 * default of 12 lets a dozen slow reads from a remote store hold up every other reader. */
#define MAX_BACKGROUND 256

struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define DEV_IOC_BACKING_OPEN _IOW(229, 1, struct backing_map)
#define DEV_IOC_BACKING_CLOSE _IOW(229, 2, uint32_t)

struct init_out {
	uint32_t major, minor, max_readahead, flags;
	uint16_t max_background, congestion_threshold;
	uint32_t max_write, time_gran;
	uint16_t max_pages, map_alignment;
	uint32_t flags2, max_stack_depth;
};

struct open_out {
	uint64_t fh;
	uint32_t open_flags;
	int32_t backing_id;
};

struct session_io { /* struct fuse_custom_io of libfuse, symbol version FUSE_3.0 */
	ssize_t (*writev)(int, struct iovec *, int, void *);
	ssize_t (*read)(int, void *, size_t, void *);
	ssize_t (*splice_receive)(int, off_t *, int, off_t *, size_t, unsigned, void *);
	ssize_t (*splice_send)(int, off_t *, int, off_t *, size_t, unsigned, void *);
};

/* ---- the session ------------------------------------------------------------------------------ */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the two maps and the figures */
static struct map handles;  /* file handle -> backing id, descriptor */
static struct map pending;  /* request number -> what its reply needs */

static struct {
	int fd;              /* of /dev/fuse, -1 while no session is hooked */
	int want;            /* passthrough is asked for */
	int offered;         /* by the kernel, in INIT */
	int killpriv;        /* likewise FUSE_HANDLE_KILLPRIV_V2, which is always taken */
	int agreed;          /* INIT was answered with passthrough */
	int mounts;          /* calls of fuse_session_mount() that came through here */
	uint64_t unique;     /* the latest request that went to libfuse */
	uint32_t opcode;
	uint32_t pid, uid, gid; /* who made it */
	int now;             /* of a SETATTR: 1, atime is to be now; 2, mtime */
	uint64_t count[OPCODES];
	uint64_t at_once;    /* requests that neither libfuse nor pyfuse3 has seen */
	uint64_t opened, closed; /* backing ids */
} session = {.fd = -1};

static PyObject *on_interrupt;

static ssize_t reply(int fd, uint64_t unique, int error, void *payload, size_t size)
{
	struct fuse_out_header out = {
		.len = (uint32_t)(sizeof(out) + size), .error = error, .unique = unique};
	struct iovec iov[2] = {{&out, sizeof(out)}, {payload, size}};

	return writev(fd, iov, size ? 2 : 1);
}

#include "_passthrough_work.c"
#include "_passthrough_fast_path.c"

/* ---- the two hooks ---------------------------------------------------------------------------- */

static void interrupted(uint64_t unique)
{
	PyGILState_STATE gil = PyGILState_Ensure();

	if (on_interrupt) {
		PyObject *result = PyObject_CallFunction(on_interrupt, "K", unique);

		if (result == NULL)
			PyErr_WriteUnraisable(on_interrupt);
		Py_XDECREF(result);
	}
	PyGILState_Release(gil);
}

/* What libfuse is to see of a request of `size` bytes: its length, or 0 when it is done with. */
static ssize_t filter_request(int fd, struct fuse_in_header *in, ssize_t size)
{
	struct record waiting = {.key = in->unique, .opcode = in->opcode};

	session.count[in->opcode < OPCODES ? in->opcode : 0]++;
	session.unique = in->unique;
	session.opcode = in->opcode;
	session.pid = in->pid;
	session.uid = in->uid;
	session.gid = in->gid;
	session.now = 0;
	switch (in->opcode) {
	case FUSE_INTERRUPT:
		interrupted(((struct fuse_interrupt_in *)(in + 1))->unique);
		return 0;
	case FUSE_FALLOCATE:
	case OP_COPY_FILE_RANGE:
		start(fd, in);
		return 0;
	case FUSE_LSEEK:
		return seek(fd, in);
	case FUSE_INIT: {
		struct fuse_init_in *arg = (struct fuse_init_in *)(in + 1);

		session.offered = (arg->flags & INIT_EXT) && (arg->flags2 & INIT2_PASSTHROUGH);
		session.killpriv = (arg->flags & INIT_KILLPRIV_V2) != 0;
		break;
	}
	case FUSE_OPEN:
		waiting.detail = ((struct fuse_open_in *)(in + 1))->flags;
		break;
	case FUSE_CREATE:
		waiting.detail = ((struct fuse_create_in *)(in + 1))->flags;
		break;
	case FUSE_SETATTR:
		session.now = ((((struct fuse_setattr_in *)(in + 1))->valid & FATTR_ATIME_NOW) ? 1 : 0) |
			      ((((struct fuse_setattr_in *)(in + 1))->valid & FATTR_MTIME_NOW) ? 2 : 0);
		return size;
	default:
		return size;
	}
	pthread_mutex_lock(&lock);
	int error = insert(&pending, &waiting);
	pthread_mutex_unlock(&lock);
	if (error) {
		reply(fd, in->unique, error, NULL, 0);
		return 0;
	}
	return size;
}

static ssize_t take(int fd, void *buffer, size_t size, void *userdata)
{
	struct fuse_in_header *in = buffer;
	enum kind last = NOT_AT_HAND;
	int64_t until = 0; /* when the event loop gets its turn */

	(void)userdata;
	for (;;) {
		ssize_t got = read(fd, buffer, size);

		if (got < 0 && errno == EAGAIN) {
			if (last != NOT_AT_HAND && nanoseconds() < until && another_comes(fd, last))
				continue;
			errno = EINTR; /* pyfuse3 waits again on this one only */
			return -1;
		}
		if (got < (ssize_t)sizeof(*in))
			return got;
		got = filter_request(fd, in, got);
		if (got == 0)
			continue;
		if (!is_on_fast_path(in->opcode))
			return got;
		enum kind answered = answer_at_once(fd, in, got);
		if (answered == NOT_AT_HAND)
			return got;
		if (last == NOT_AT_HAND) {
			until = nanoseconds() + BURST_NS;
		} else if (nanoseconds() > until) {
			errno = EINTR;
			return -1;
		}
		last = answered;
	}
}

static void amend_init(struct init_out *out)
{
	out->max_background = MAX_BACKGROUND;
	out->congestion_threshold = MAX_BACKGROUND * 3 / 4;
	if (session.killpriv)
		out->flags |= INIT_KILLPRIV_V2;
	if (session.want && session.offered && !(out->flags & FUSE_WRITEBACK_CACHE)) {
		out->flags |= INIT_EXT;
		out->flags2 |= INIT2_PASSTHROUGH;
		out->max_stack_depth = 1;
		session.agreed = 1;
	}
}

static void amend_open(struct open_out *out, uint32_t flags)
{
	struct record *handle;

	/* Nothing to flush where nothing is kept back: saves a request at close. */
	if ((flags & O_ACCMODE) == O_RDONLY || (out->open_flags & OPEN_DIRECT_IO))
		out->open_flags |= OPEN_NOFLUSH;
	pthread_mutex_lock(&lock);
	handle = find(&handles, out->fh);
	if (handle && handle->backing_id > 0) {
		out->open_flags &= ~OPEN_KEEP_CACHE;
		out->open_flags |= OPEN_PASSTHROUGH | OPEN_NOFLUSH;
		out->backing_id = handle->backing_id;
	}
	pthread_mutex_unlock(&lock);
}

static ssize_t give(int fd, struct iovec *iov, int count, void *userdata)
{
	struct fuse_out_header *out = iov[0].iov_base;
	struct record request;
	int found;

	(void)userdata;
	if (out->unique == 0) /* a notification, possibly from another thread */
		return writev(fd, iov, count);
	pthread_mutex_lock(&lock);
	found = take_out(&pending, out->unique, &request);
	pthread_mutex_unlock(&lock);
	if (!found)
		return writev(fd, iov, count);
	if (request.opcode == FUSE_LSEEK)
		return give_position(fd, iov, count, &request);
	if (out->error == 0 && count > 1) {
		char *end = (char *)iov[1].iov_base + iov[1].iov_len;

		if (request.opcode == FUSE_INIT && iov[1].iov_len >= sizeof(struct init_out))
			amend_init(iov[1].iov_base);
		else if (request.opcode != FUSE_INIT && iov[1].iov_len >= sizeof(struct open_out))
			amend_open((struct open_out *)(end - sizeof(struct open_out)),
				   request.detail);
	}
	return writev(fd, iov, count);
}

/* pyfuse3's call of the function of the same name in libfuse arrives here. */
int fuse_session_mount(void *libfuse_session, const char *mountpoint);
int fuse_session_mount(void *libfuse_session, const char *mountpoint)
{
	static const struct session_io io = {.writev = give, .read = take};
	struct link_map *map = NULL;
	Dl_info caller;
	void *library;
	int (*mount)(void *, const char *);
	int (*device)(void *);
	int (*custom_io)(void *, const struct session_io *, int);
	int result;

	/* The caller's own libfuse: there may be several in a process. */
	if (!dladdr1(__builtin_return_address(0), &caller, (void **)&map, RTLD_DL_LINKMAP))
		return -1;
	library = dlopen(map->l_name, RTLD_LAZY | RTLD_NOLOAD);
	if (library == NULL)
		return -1;
	*(void **)&mount = dlsym(library, "fuse_session_mount");
	*(void **)&device = dlsym(library, "fuse_session_fd");
	*(void **)&custom_io = dlvsym(library, "fuse_session_custom_io", "FUSE_3.0");
	dlclose(library);
	if (mount == NULL || mount == fuse_session_mount)
		return -1;

	session.fd = -1;
	session.mounts++;
	session.offered = session.agreed = session.killpriv = 0;
	result = mount(libfuse_session, mountpoint);
	if (result == 0 && device && custom_io) {
		int fd = device(libfuse_session);

		pthread_mutex_lock(&lock);
		empty(&handles);
		empty(&pending);
		pthread_mutex_unlock(&lock);
		/* Not to block: a request may vanish between poll and read, when its process is killed. */
		if (custom_io(libfuse_session, &io, fd) == 0) {
			fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
			session.fd = fd;
		}
	}
	return result;
}

/* ---- backing files ---------------------------------------------------------------------------- */

/* No user has it. 65534 has, and some file systems keep their reserve for him. */
#define NOBODY 65533

/* Whether a server elsewhere decides who may use the file. */
static int is_remote(int fd)
{
	static const uint32_t remote[] = {NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, 0xFE534D42 /* SMB 2 */,
					  0xFF534D42 /* CIFS */, 0x00C36400 /* Ceph */, V9FS_MAGIC,
					  0x0BD00BD0 /* Lustre */, 0x47504653 /* GPFS */,
					  AFS_SUPER_MAGIC, CODA_SUPER_MAGIC, 0x65735546 /* FUSE */};
	struct statfs found;

	if (fstatfs(fd, &found) != 0)
		return 0;
	for (size_t i = 0; i < sizeof(remote) / sizeof(*remote); i++)
		if ((uint32_t)found.f_type == remote[i])
			return 1;
	return 0;
}

/* ---- the module ------------------------------------------------------------------------------- */

static PyObject *configure(PyObject *module, PyObject *args)
{
	PyObject *callback;
	int want;

	(void)module;
	if (!PyArg_ParseTuple(args, "pO:configure", &want, &callback))
		return NULL;
	session.want = want;
	session.fd = -1;
	Py_XINCREF(callback == Py_None ? NULL : callback);
	Py_XSETREF(on_interrupt, callback == Py_None ? NULL : callback);
	Py_CLEAR(fast_path);
	Py_RETURN_NONE;
}

static PyObject *answer_by(PyObject *module, PyObject *args)
{
	PyObject *function, *made, *kind[KINDS];
	unsigned long long opcodes;

	(void)module;
	if (!PyArg_ParseTuple(args, "OKO(OOOO):answer_by", &function, &opcodes, &made,
			      &kind[REPLY], &kind[ERRNO], &kind[BY_THREAD], &kind[NOT_AT_HAND]))
		return NULL;
	if (body_field == NULL && (body_field = PyUnicode_InternFromString("body")) == NULL)
		return NULL;
	if (code_field == NULL && (code_field = PyUnicode_InternFromString("code")) == NULL)
		return NULL;
	Py_XSETREF(request_class, Py_NewRef(made));
	for (int i = 0; i < KINDS; i++)
		Py_XSETREF(kinds[i], Py_NewRef(kind[i]));
	Py_XSETREF(fast_path, Py_NewRef(function));
	fast_path_opcodes = opcodes;
	Py_RETURN_NONE;
}

static PyObject *answer_request(PyObject *module, PyObject *args)
{
	PyObject *answer;
	unsigned long long unique;

	(void)module;
	if (!PyArg_ParseTuple(args, "KO:answer", &unique, &answer))
		return NULL;
	if (session.fd >= 0 && send_answer(session.fd, unique, answer) < 0)
		return NULL;
	Py_RETURN_NONE;
}

/* Give the kernel a file that users write, as nobody: it writes with the credentials of this call,
 * and those of root, or with CAP_SYS_RESOURCE, reach into the file system's reserve and past quotas. */
static int lend(struct backing_map *map)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct own[2], less[2];
	struct who nobody = {.other = 1, .uid = NOBODY, .gid = NOBODY, .count = -1};
	const unsigned bit = 1u << CAP_SYS_RESOURCE;
	int id, error;

	if (is_remote(map->fd))
		return -EOPNOTSUPP; /* its server would judge nobody's rights */
	if (syscall(SYS_capget, &header, own) != 0)
		return -errno;
	memcpy(less, own, sizeof(own));
	less[0].effective &= ~bit;
	if ((own[0].effective & bit) && syscall(SYS_capset, &header, less) != 0)
		return -errno;
	error = become(&nobody);
	id = error ? -error : ioctl(session.fd, DEV_IOC_BACKING_OPEN, map);
	if (!error) {
		id = id < 0 ? -errno : id;
		back(&nobody);
	}
	if ((own[0].effective & bit) && syscall(SYS_capset, &header, own) != 0)
		abort(); /* not again with what a thread is to have */
	return id;
}

static PyObject *backing_open(PyObject *module, PyObject *args)
{
	struct backing_map map = {0};
	int id, lent;

	(void)module;
	if (!PyArg_ParseTuple(args, "ip:backing_open", &map.fd, &lent))
		return NULL;
	if (lent) {
		id = lend(&map);
	} else {
		id = ioctl(session.fd, DEV_IOC_BACKING_OPEN, &map);
		id = id < 0 ? -errno : id;
	}
	if (id <= 0)
		return PyLong_FromLong(id < 0 ? id : -EIO);
	session.opened++;
	return PyLong_FromLong(id);
}

static PyObject *backing_close(PyObject *module, PyObject *argument)
{
	uint32_t id = (uint32_t)PyLong_AsUnsignedLong(argument);

	(void)module;
	if (PyErr_Occurred())
		return NULL;
	session.closed++;
	return PyLong_FromLong(ioctl(session.fd, DEV_IOC_BACKING_CLOSE, &id) ? -errno : 0);
}

static PyObject *bind_handle(PyObject *module, PyObject *args)
{
	unsigned long long fh;
	struct record handle = {.opcode = 1};
	int error;

	(void)module;
	if (!PyArg_ParseTuple(args, "Kii:bind", &fh, &handle.backing_id, &handle.fd))
		return NULL;
	handle.key = fh;
	pthread_mutex_lock(&lock);
	error = insert(&handles, &handle);
	pthread_mutex_unlock(&lock);
	return error ? PyErr_NoMemory() : Py_NewRef(Py_None);
}

static PyObject *unbind_handle(PyObject *module, PyObject *argument)
{
	uint64_t fh = PyLong_AsUnsignedLongLong(argument);
	struct record gone;

	(void)module;
	if (PyErr_Occurred())
		return NULL;
	pthread_mutex_lock(&lock);
	take_out(&handles, fh, &gone);
	pthread_mutex_unlock(&lock);
	Py_RETURN_NONE;
}

static PyObject *request(PyObject *module, PyObject *unused)
{
	(void)module, (void)unused;
	return Py_BuildValue("(KIIIIi)", (unsigned long long)session.unique,
			     session.opcode, session.uid, session.gid, session.pid, session.now);
}

static PyObject *figures(PyObject *module, PyObject *unused)
{
	PyObject *counts = PyDict_New();

	(void)module, (void)unused;
	for (int i = 0; counts && i < OPCODES; i++) {
		PyObject *key, *value;

		if (session.count[i] == 0)
			continue;
		key = PyLong_FromLong(i);
		value = PyLong_FromUnsignedLongLong(session.count[i]);
		if (key == NULL || value == NULL || PyDict_SetItem(counts, key, value) < 0)
			Py_CLEAR(counts);
		Py_XDECREF(key);
		Py_XDECREF(value);
	}
	if (counts == NULL)
		return NULL;
	return Py_BuildValue("{s:O,s:i,s:i,s:i,s:n,s:n,s:K,s:K,s:K,s:N}", "hooked",
			     session.fd < 0 ? Py_False : Py_True, "mounts",
			     session.mounts, "offered", session.offered, "agreed", session.agreed,
			     "handles", (Py_ssize_t)handles.used, "pending", (Py_ssize_t)pending.used,
			     "opened", (unsigned long long)session.opened, "closed",
			     (unsigned long long)session.closed, "at_once",
			     (unsigned long long)session.at_once, "requests", counts);
}

static PyMethodDef methods[] = {
	{"configure", configure, METH_VARARGS,
	 "configure(passthrough, on_interrupt): what the next mount asks for, and whom to tell."},
	{"answer_by", answer_by, METH_VARARGS,
	 "answer_by(function, opcodes, request, kinds): who answers requests at once, a bit for each opcode of "
	 "them, and the classes of requests and answers (messages.py)."},
	{"answer", answer_request, METH_VARARGS,
	 "answer(unique, answer): answer a request by a Reply or an Errno, from any thread."},
	{"backing_open", backing_open, METH_VARARGS,
	 "backing_open(fd, lent): a backing id of the kernel for the file, or -errno; lent: users write it."},
	{"backing_close", backing_close, METH_O, "backing_close(id): 0 or -errno."},
	{"bind", bind_handle, METH_VARARGS,
	 "bind(handle, backing_id, fd): how the kernel is to treat a handle that is about to open."},
	{"unbind", unbind_handle, METH_O, "unbind(handle): the handle was released."},
	{"request", request, METH_NOARGS, "request(): of the latest request: its number, opcode, uid, gid and pid, which times are to be now."},
	{"figures", figures, METH_NOARGS, "figures(): the state of the session, for people and tests."},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, .m_name = "mregfs.fuse._passthrough",
	.m_doc = "The raw side of a FUSE session; see passthrough.md.", .m_size = -1,
	.m_methods = methods,
};

PyMODINIT_FUNC PyInit__passthrough(void)
{
	return PyModule_Create(&definition);
}

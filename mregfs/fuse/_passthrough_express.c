// SPDX-License-Identifier: Apache-2.0
/*
 * Requests that are answered at once: by a function of Python's, called from take(), so that neither
 * libfuse nor the event loop has anything to do with them.
 *
 * Decided here: for how long requests are answered in a row before the event loop gets its turn. Not
 * decided here: what is answered (express.py). Included by _passthrough.c, whose hooks it uses.
 */

/* The longest that answers in a row keep the event loop from its other tasks. */
#define BURST_NS 2000000

/* How long to look for the next request after an answer. Who has got one asks again within some 20 us;
 * a round through the event loop takes longer than that, and so does waking a processor that went to
 * sleep. */
#define LINGER_NS 50000

/* How long to wait for it when a thread has the last one: that thread is to have Python to itself, and
 * a reader's next request is soon here. */
#define REST_NS 300000

static PyObject *express;         /* answers a request; NULL: there is none */
static uint64_t express_opcodes;  /* a bit for each opcode that it is asked about */

static int64_t nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int is_express(uint32_t opcode)
{
	return express && opcode < OPCODES && (express_opcodes >> opcode & 1);
}

static ssize_t give(int fd, struct iovec *iov, int count, void *userdata);

/* Answers from this size on are sent while other threads may run Python. */
#define LARGE_ANSWER 16384

/* Send what Python answered: bytes, or an errno (0: it is done). Called with the GIL held. */
static void send_answer(int fd, uint64_t unique, PyObject *answer)
{
	struct fuse_out_header out = {.len = sizeof(out), .unique = unique};
	struct iovec iov[2] = {{&out, sizeof(out)}, {NULL, 0}};
	PyThreadState *running = NULL;

	if (PyBytes_Check(answer)) {
		iov[1].iov_base = PyBytes_AS_STRING(answer);
		iov[1].iov_len = (size_t)PyBytes_GET_SIZE(answer);
	} else {
		out.error = -(int32_t)PyLong_AsLong(answer);
	}
	out.len += (uint32_t)iov[1].iov_len;
	if (iov[1].iov_len >= LARGE_ANSWER)
		running = PyEval_SaveThread();
	give(fd, iov, iov[1].iov_len ? 2 : 1, NULL);
	if (running)
		PyEval_RestoreThread(running);
}

enum answered { NOT_AT_ALL, BY_THREAD, ANSWERED };

/* Whether the request has been answered, or will be; if not at all, it is libfuse's. */
static enum answered answer_at_once(int fd, const struct fuse_in_header *in, ssize_t size)
{
	PyGILState_STATE gil = PyGILState_Ensure();
	PyObject *answer = PyObject_CallFunction(
		express, "IKIIIy#", in->opcode, (unsigned long long)in->nodeid, in->uid, in->gid,
		in->pid, (const char *)(in + 1), (Py_ssize_t)size - (Py_ssize_t)sizeof(*in));
	int silent = in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET;
	enum answered answered = ANSWERED;

	if (answer == NULL || answer == Py_None)
		answered = NOT_AT_ALL;
	else if (answer == Py_Ellipsis)
		answered = BY_THREAD;
	else if (!silent)
		send_answer(fd, in->unique, answer);
	if (answer == NULL)
		PyErr_WriteUnraisable(express);
	session.at_once += answered != NOT_AT_ALL;
	Py_XDECREF(answer);
	PyGILState_Release(gil);
	return answered;
}

/* Whether another request came meanwhile. Python's other threads run, and whoever else wants this
 * processor goes first. */
static int another_comes(int fd, enum answered last)
{
	static const struct timespec rest = {.tv_nsec = REST_NS};
	struct pollfd device = {.fd = fd, .events = POLLIN};
	PyThreadState *running = PyGILState_Check() ? PyEval_SaveThread() : NULL;
	int ready;

	if (last == BY_THREAD) {
		ready = ppoll(&device, 1, &rest, NULL);
	} else {
		int64_t until = nanoseconds() + LINGER_NS;

		while ((ready = poll(&device, 1, 0)) == 0 && nanoseconds() < until)
			sched_yield();
	}
	if (running)
		PyEval_RestoreThread(running);
	return ready > 0;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The fast path: requests that are answered at once, by a function of Python's, called from take().
 * Neither libfuse nor the event loop has anything to do with them.
 *
 * Decided here: for how long requests are answered in a row before the event loop gets its turn. Not
 * decided here: what is answered (fast_path.py). Included by _passthrough.c, whose hooks it uses.
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

static PyObject *fast_path;         /* answers a request; NULL: there is none */
static uint64_t fast_path_opcodes;  /* a bit for each opcode that it is asked about */

/* What it answers with (messages.py). What is none of these is not at hand. */
enum kind { REPLY, ERRNO, BY_THREAD, NOT_AT_HAND, KINDS };
static PyObject *kinds[KINDS];
static PyObject *request_class, *body_field, *code_field;

static enum kind kind_of(PyObject *answer)
{
	for (int i = 0; i < NOT_AT_HAND; i++)
		if ((PyObject *)Py_TYPE(answer) == kinds[i])
			return (enum kind)i;
	return NOT_AT_HAND;
}

static int64_t nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int is_on_fast_path(uint32_t opcode)
{
	return fast_path && opcode < OPCODES && (fast_path_opcodes >> opcode & 1);
}

static ssize_t give(int fd, struct iovec *iov, int count, void *userdata);

/* Answers from this size on are sent while other threads may run Python. */
#define LARGE_ANSWER 16384

/* Send a Reply or an Errno; -1, with an exception set, if it is neither. Called with the GIL held. */
static int send_answer(int fd, uint64_t unique, PyObject *answer)
{
	struct fuse_out_header out = {.len = sizeof(out), .unique = unique};
	struct iovec iov[2] = {{&out, sizeof(out)}, {NULL, 0}};
	PyThreadState *running = NULL;
	PyObject *field = NULL; /* keeps the bytes while they are sent */
	enum kind kind = kind_of(answer);

	if (kind == REPLY) {
		char *body;
		Py_ssize_t size;

		field = PyObject_GetAttr(answer, body_field);
		if (field == NULL || PyBytes_AsStringAndSize(field, &body, &size) < 0)
			goto failed;
		iov[1].iov_base = body;
		iov[1].iov_len = (size_t)size;
	} else if (kind == ERRNO) {
		field = PyObject_GetAttr(answer, code_field);
		if (field == NULL)
			goto failed;
		out.error = -(int32_t)PyLong_AsLong(field);
		if (PyErr_Occurred())
			goto failed;
	} else {
		PyErr_SetString(PyExc_TypeError, "a Reply or an Errno is sent");
		goto failed;
	}
	out.len += (uint32_t)iov[1].iov_len;
	if (iov[1].iov_len >= LARGE_ANSWER)
		running = PyEval_SaveThread();
	give(fd, iov, iov[1].iov_len ? 2 : 1, NULL);
	if (running)
		PyEval_RestoreThread(running);
	Py_DECREF(field);
	return 0;
failed:
	Py_XDECREF(field);
	return -1;
}

/* How the request was answered; if it is not at hand, it is libfuse's. */
static enum kind answer_at_once(int fd, const struct fuse_in_header *in, ssize_t size)
{
	PyGILState_STATE gil = PyGILState_Ensure();
	PyObject *request = PyObject_CallFunction(
		request_class, "KIIIIiKy#", (unsigned long long)in->unique, in->opcode, in->uid, in->gid,
		in->pid, 0, (unsigned long long)in->nodeid, (const char *)(in + 1),
		(Py_ssize_t)size - (Py_ssize_t)sizeof(*in));
	PyObject *answer = request ? PyObject_CallOneArg(fast_path, request) : NULL;
	int silent = in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET;
	enum kind kind = answer ? kind_of(answer) : NOT_AT_HAND;

	if (answer && !silent && kind != BY_THREAD && kind != NOT_AT_HAND &&
	    send_answer(fd, in->unique, answer) < 0)
		kind = NOT_AT_HAND;
	if (PyErr_Occurred())
		PyErr_WriteUnraisable(fast_path);
	session.at_once += kind != NOT_AT_HAND;
	Py_XDECREF(answer);
	Py_XDECREF(request);
	PyGILState_Release(gil);
	return kind;
}

/* Whether another request came meanwhile. Python's other threads run, and whoever else wants this
 * processor goes first. */
static int another_comes(int fd, enum kind last)
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

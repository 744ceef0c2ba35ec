// SPDX-License-Identifier: Apache-2.0
/*
 * Requests that are answered without libfuse, because pyfuse3 does not know them: fallocate,
 * copy_file_range, lseek for data and holes.
 *
 * Decided here: what the host's file is asked to do. Not decided here: which descriptor a handle
 * has (passthrough.py). Included by _passthrough.c, whose session, maps and lock it uses.
 */

/* The most that one COPY_FILE_RANGE shares: its answer has 32 bits, a request 64. */
#define LARGEST_COPY (UINT64_C(1) << 31)

/* Threads for them; what comes while all are busy waits. A disk that does not answer holds up these
 * threads, and nobody else. */
#define THREADS 8

struct job { /* what may take long on the host: a thread does it, the event loop goes on */
	struct job *next;
	int device, in, out;
	uint32_t opcode, uid, gid;
	uint64_t unique;
	union {
		struct fuse_fallocate_in fallocate;
		struct fuse_copy_file_range_in copy;
	} arg;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t came;
	struct job *first, *last;
	int threads, idle, waiting;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER};

static void finish(struct job *job)
{
	int owned[] = {job->in, job->out, job->device};

	for (int i = 0; i < 3; i++)
		if (owned[i] >= 0)
			close(owned[i]);
	free(job);
}

/* Do it as the caller, where we are root and can: his are the blocks that it takes, and the kernel
 * takes set-id bits away as it does from his own writes. */
static void carry_out(struct job *job)
{
	struct who who = {.other = geteuid() == 0 && (job->uid != 0 || job->gid != getegid()),
			  .uid = job->uid, .gid = job->gid, .count = -1};
	int error = -become(&who);

	if (error) {
		reply(job->device, job->unique, error, NULL, 0);
		finish(job);
		return;
	}
	if (job->opcode == FUSE_FALLOCATE) {
		if (fallocate(job->out, (int)job->arg.fallocate.mode,
			      (off_t)job->arg.fallocate.offset,
			      (off_t)job->arg.fallocate.length) != 0)
			error = -errno;
		back(&who);
		reply(job->device, job->unique, error, NULL, 0);
	} else {
		/* Only what shares the blocks is worth doing here: the kernel copies as fast. */
		struct file_clone_range range = {
			.src_fd = job->in, .src_offset = job->arg.copy.off_in,
			.src_length = job->arg.copy.len, .dest_offset = job->arg.copy.off_out};
		struct fuse_write_out written = {.size = (uint32_t)job->arg.copy.len};

		if (ioctl(job->out, FICLONERANGE, &range) != 0)
			/* ENOSYS: this host cannot, so the kernel never asks again. */
			error = errno == EOPNOTSUPP || errno == ENOTTY ? -ENOSYS : -EOPNOTSUPP;
		back(&who);
		reply(job->device, job->unique, error, &written, error ? 0 : sizeof(written));
	}
	finish(job);
}

static void *work(void *unused)
{
	pthread_setname_np(pthread_self(), "mregfs-host");
	pthread_mutex_lock(&pool.lock);
	for (;;) {
		struct job *job;

		while ((job = pool.first) == NULL) {
			pool.idle++;
			pthread_cond_wait(&pool.came, &pool.lock);
			pool.idle--;
		}
		pool.first = job->next;
		pool.waiting--;
		pthread_mutex_unlock(&pool.lock);
		carry_out(job);
		pthread_mutex_lock(&pool.lock);
	}
	return unused;
}

/* Have a job done soon; here and now, when the host gives us no thread at all. */
static void submit(struct job *job)
{
	pthread_attr_t detached;
	pthread_t thread;

	pthread_mutex_lock(&pool.lock);
	if (pool.idle <= pool.waiting && pool.threads < THREADS) {
		pthread_attr_init(&detached);
		pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
		pool.threads += pthread_create(&thread, &detached, work, NULL) == 0;
		pthread_attr_destroy(&detached);
	}
	if (pool.threads == 0) {
		pthread_mutex_unlock(&pool.lock);
		carry_out(job);
		return;
	}
	if (pool.first == NULL)
		pool.first = job;
	else
		pool.last->next = job;
	pool.last = job;
	pool.waiting++;
	pthread_cond_signal(&pool.came);
	pthread_mutex_unlock(&pool.lock);
}

static int duplicate(int fd)
{
	int found = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return found < 0 ? -errno : found;
}

/* A duplicate, or -errno; the caller holds the lock. */
static int descriptor(uint64_t fh)
{
	struct record *handle = find(&handles, fh);

	return handle && handle->fd >= 0 ? duplicate(handle->fd) : -EOPNOTSUPP;
}

static void start(int fd, const struct fuse_in_header *in)
{
	struct job *job = calloc(1, sizeof(*job));
	int error;

	if (job == NULL) {
		reply(fd, in->unique, -ENOMEM, NULL, 0);
		return;
	}
	*job = (struct job){.device = -1, .in = -1, .out = -1, .opcode = in->opcode, .uid = in->uid,
			    .gid = in->gid, .unique = in->unique};
	pthread_mutex_lock(&lock);
	if (in->opcode == FUSE_FALLOCATE) {
		job->arg.fallocate = *(const struct fuse_fallocate_in *)(in + 1);
		job->out = descriptor(job->arg.fallocate.fh);
	} else {
		job->arg.copy = *(const struct fuse_copy_file_range_in *)(in + 1);
		if (job->arg.copy.len > LARGEST_COPY)
			job->arg.copy.len = LARGEST_COPY;
		job->in = descriptor(job->arg.copy.fh_in);
		job->out = descriptor(job->arg.copy.fh_out);
	}
	pthread_mutex_unlock(&lock);
	error = job->out < 0 ? job->out : 0;
	if (!error && in->opcode != FUSE_FALLOCATE && job->in < 0)
		error = job->in;
	if (!error && (job->device = duplicate(fd)) < 0)
		error = job->device;
	if (error) { /* EMFILE too: a program may try again, where EOPNOTSUPP says never */
		reply(fd, in->unique, error, NULL, 0);
		finish(job);
		return;
	}
	submit(job);
}

/* SEEK_DATA and SEEK_HOLE: the host answers for an open draft. Any other file has no holes, only a
 * size, which the request asks for once it is turned into a GETATTR; give() turns the answer back.
 * Returns the length that libfuse is to see, or 0 when the request is answered. */
static ssize_t seek(int fd, struct fuse_in_header *in)
{
	struct fuse_lseek_in arg = *(struct fuse_lseek_in *)(in + 1);
	struct fuse_getattr_in *getattr = (struct fuse_getattr_in *)(in + 1);
	struct record waiting = {.key = in->unique, .opcode = FUSE_LSEEK, .offset = arg.offset,
				 .detail = arg.whence};
	struct fuse_lseek_out found;
	off_t at = -1;
	int backed, error = 0;

	pthread_mutex_lock(&lock);
	struct record *handle = find(&handles, arg.fh);
	backed = handle && handle->fd >= 0;
	if (backed) {
		at = lseek(handle->fd, (off_t)arg.offset, (int)arg.whence);
		error = at < 0 ? errno : 0;
	} else {
		error = -insert(&pending, &waiting);
	}
	pthread_mutex_unlock(&lock);
	if (backed || error) {
		found.offset = (uint64_t)at;
		reply(fd, in->unique, -error, &found, error ? 0 : sizeof(found));
		return 0;
	}
	*getattr = (struct fuse_getattr_in){0};
	in->opcode = FUSE_GETATTR;
	in->len = sizeof(*in) + sizeof(*getattr);
	return in->len;
}

static ssize_t give_position(int fd, struct iovec *iov, int count, const struct record *request)
{
	struct fuse_out_header *out = iov[0].iov_base;
	struct fuse_attr_out *answer = count > 1 ? iov[1].iov_base : NULL;
	struct fuse_lseek_out found;

	if (out->error || answer == NULL)
		return writev(fd, iov, count);
	if (request->offset >= answer->attr.size)
		return reply(fd, out->unique, -ENXIO, NULL, 0);
	found.offset = request->detail == SEEK_HOLE ? answer->attr.size : request->offset;
	return reply(fd, out->unique, 0, &found, sizeof(found));
}

/*
 * Linux AIO, for two purposes. Reads and writes of TAPs complete inside io_submit(2), so a burst of
 * them is one system call. And a request that completes at once adds 1 to an eventfd from inside the
 * kernel, which never waits. write(2) does when the counter is full and the descriptor blocks; both are
 * up to everybody who shares the eventfd, and no flag of the write prevents it (RWF_NOWAIT is
 * -EOPNOTSUPP there). io_setup(2), io_submit(2).
 */
#include "shim.h"

#include <linux/aio_abi.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { REAPED_MAX = 256, BATCH_MAX = 256, PARTS_MAX = 1024 };

static napi_value aio_setup(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int requests = arg_int(&call, 0);
	if (!call.ok)
		return NULL;
	aio_context_t context = 0;
	long result = syscall(SYS_io_setup, (unsigned)requests, &context);
	return result == -1 ? result_int(env, -errno) : result_number(env, (double)context);
}

static napi_value aio_destroy(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	double context = arg_number(&call, 0);
	if (!call.ok)
		return NULL;
	return result_errno(env, syscall(SYS_io_destroy, (aio_context_t)(int64_t)context));
}

static napi_value aio_signal(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 2);
	double context = arg_number(&call, 0);
	int fd = arg_int(&call, 1);
	if (!call.ok)
		return NULL;
	/* Whatever an eventfd's counter is, it can be read or written: the poll completes at once. */
	struct iocb request;
	memset(&request, 0, sizeof request);
	request.aio_lio_opcode = IOCB_CMD_POLL;
	request.aio_fildes = (uint32_t)fd;
	request.aio_buf = POLLIN | POLLOUT;
	request.aio_flags = IOCB_FLAG_RESFD;
	request.aio_resfd = (uint32_t)fd;
	struct iocb *requests = &request;
	long result = syscall(SYS_io_submit, (aio_context_t)(int64_t)context, 1L, &requests);
	return result_errno(env, result == -1 ? -1 : 0);
}

static napi_value aio_reap(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	double context = arg_number(&call, 0);
	if (!call.ok)
		return NULL;
	struct io_event events[REAPED_MAX];
	struct timespec at_once = { 0, 0 };
	return result_errno(env, syscall(SYS_io_getevents, (aio_context_t)(int64_t)context, 0L,
		(long)REAPED_MAX, events, &at_once));
}

/* The context whose number came in two halves. */
static aio_context_t arg_context(struct call *call)
{
	uint64_t low = (uint32_t)arg_int(call, 0);
	uint64_t high = (uint32_t)arg_int(call, 1);
	return (aio_context_t)(high << 32 | low);
}

static struct iocb request_of(int opcode, int fd, const void *at, size_t length)
{
	return (struct iocb){
		.aio_lio_opcode = (uint16_t)opcode,
		.aio_fildes = (uint32_t)fd,
		.aio_buf = (uintptr_t)at,
		.aio_nbytes = length,
	};
}

/*
 * Waits for requests that did not end inside io_submit, so that their memory is free again, if the kernel
 * tells.
 */
static void wait_for(aio_context_t context, long left, int32_t *results)
{
	struct io_event events[BATCH_MAX];
	while (left > 0) {
		long done = RETRY(syscall(SYS_io_getevents, context, left, left, events, NULL));
		if (done <= 0)
			return;
		for (long k = 0; k < done; k++)
			results[events[k].data] = (int32_t)events[k].res;
		left -= done;
	}
}

/*
 * Runs at most BATCH_MAX requests; results: bytes or -errno, -EBADF for one without a descriptor, which
 * does not stop those behind it. False: the kernel did not end all of them inside io_submit and in their
 * order (gVisor does not), or a sandbox forbids the calls. Then nothing is known of rows with -ECANCELED,
 * and the context must not be used again.
 */
static bool run_batch(aio_context_t context, struct iocb *requests, int32_t count, int32_t *results)
{
	struct iocb *pointers[BATCH_MAX];
	struct io_event events[BATCH_MAX];
	struct timespec at_once = { 0, 0 };
	for (int32_t k = 0; k < count; k++) {
		requests[k].aio_data = (uint64_t)k;
		pointers[k] = &requests[k];
		results[k] = -ECANCELED;
	}
	for (int32_t at = 0; at < count;) {
		long begun = RETRY(syscall(SYS_io_submit, context, (long)(count - at), pointers + at));
		if (begun < 0 && errno == EBADF) {
			results[at++] = -EBADF;
			continue;
		}
		if (begun <= 0)
			return false;
		long done = RETRY(
			syscall(SYS_io_getevents, context, 0L, (long)BATCH_MAX, events, &at_once));
		bool in_order = done == begun;
		for (long k = 0; k < done; k++) {
			in_order = in_order && events[k].data == (uint64_t)(at + k);
			results[events[k].data] = (int32_t)events[k].res;
		}
		if (!in_order) {
			wait_for(context, begun - (done < 0 ? 0 : done), results);
			return false;
		}
		at += (int32_t)begun;
	}
	return true;
}

static napi_value aio_read_frames(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 6);
	aio_context_t context = arg_context(&call);
	int fd = arg_int(&call, 2);
	int32_t window = arg_int(&call, 3);
	int32_t offset = arg_int(&call, 4);
	int32_t count = arg_int(&call, 5);
	if (!call.ok)
		return NULL;
	int32_t *table = window_table(window, offset, count, 4);
	if (table == NULL)
		return result_int(env, -EFAULT);
	struct iocb requests[BATCH_MAX];
	int32_t results[BATCH_MAX];
	int32_t begun = 0;
	for (; begun < count && begun < BATCH_MAX; begun++) {
		const int32_t *row = table + 4 * begun;
		uint8_t *to = window_range_writable(row[0], row[1], row[2]);
		if (to == NULL)
			break;
		requests[begun] = request_of(IOCB_CMD_PREAD, fd, to, (size_t)row[2]);
	}
	if (begun == 0)
		return result_int(env, count > 0 ? -EFAULT : 0);
	if (!run_batch(context, requests, begun, results))
		return result_int(env, -EOPNOTSUPP);
	int32_t filled = 0;
	for (int32_t k = 0; k < begun; k++) {
		if (results[k] < 0 && !frame_is_lost(results[k]))
			continue;
		/* A frame may come after the queue was found empty: rows change places, frames do not. */
		if (k != filled) {
			int32_t taken[3];
			memcpy(taken, table + 4 * k, sizeof taken);
			memcpy(table + 4 * k, table + 4 * filled, sizeof taken);
			memcpy(table + 4 * filled, taken, sizeof taken);
		}
		table[4 * filled + 3] = results[k];
		filled++;
	}
	return result_int(env, filled > 0 ? filled : results[0]);
}

static napi_value aio_write_frames(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 6);
	aio_context_t context = arg_context(&call);
	int32_t window = arg_int(&call, 2);
	int32_t offset = arg_int(&call, 3);
	int32_t count = arg_int(&call, 4);
	int32_t segment_offset = arg_int(&call, 5);
	if (!call.ok)
		return NULL;
	int32_t *table = window_table(window, offset, count, 4);
	if (table == NULL || segment_offset < 0)
		return result_int(env, -EFAULT);
	struct iocb requests[BATCH_MAX];
	struct iovec parts[PARTS_MAX];
	int32_t results[BATCH_MAX], rows[BATCH_MAX];
	int64_t lengths[BATCH_MAX];
	int32_t written = 0;
	bool is_usable = true;
	for (int32_t k = 0; k < count;) {
		int32_t begun = 0;
		int32_t used = 0;
		for (; k < count && begun < BATCH_MAX && used + SEGMENTS_MAX <= PARTS_MAX; k++) {
			const int32_t *row = table + 4 * k;
			struct iovec *own = parts + used;
			int64_t length = frame_parts(window, segment_offset, row[1], row[2], own);
			if (length < 0 || !is_usable) {
				table[4 * k + 3] = length < 0 ? (int32_t)length : -ECANCELED;
				continue;
			}
			requests[begun] = row[2] == 1
				? request_of(IOCB_CMD_PWRITE, row[0], own->iov_base, own->iov_len)
				: request_of(IOCB_CMD_PWRITEV, row[0], own, (size_t)row[2]);
			lengths[begun] = length;
			rows[begun++] = k;
			used += row[2];
		}
		is_usable = run_batch(context, requests, begun, results) && is_usable;
		for (int32_t at = 0; at < begun; at++) {
			table[4 * rows[at] + 3] = results[at];
			written += results[at] == lengths[at];
		}
	}
	return result_int(env, is_usable ? written : -EOPNOTSUPP);
}

void register_aio(napi_env env, napi_value exports)
{
	export_function(env, exports, "aioSetup", aio_setup);
	export_function(env, exports, "aioDestroy", aio_destroy);
	export_function(env, exports, "aioSignal", aio_signal);
	export_function(env, exports, "aioReap", aio_reap);
	export_function(env, exports, "aioReadFrames", aio_read_frames);
	export_function(env, exports, "aioWriteFrames", aio_write_frames);
}

/*
 * Linux AIO, for one purpose: a request that completes at once adds 1 to an eventfd from inside the
 * kernel, which never waits. write(2) does when the counter is full and the descriptor blocks; both are
 * up to everybody who shares the eventfd, and no flag of the write prevents it (RWF_NOWAIT is
 * -EOPNOTSUPP there). io_setup(2), io_submit(2).
 */
#include "shim.h"

#include <linux/aio_abi.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { REAPED_MAX = 256 };

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

void register_aio(napi_env env, napi_value exports)
{
	export_function(env, exports, "aioSetup", aio_setup);
	export_function(env, exports, "aioDestroy", aio_destroy);
	export_function(env, exports, "aioSignal", aio_signal);
	export_function(env, exports, "aioReap", aio_reap);
}

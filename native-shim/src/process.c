/* Processes: the end of this one, and descriptors by which the end of one is seen. */
#include "shim.h"

#include <sys/syscall.h>
#include <unistd.h>

/* Newer than the C library's headers may be; the same number on every architecture. */
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

static napi_value exit_now(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int status = arg_int(&call, 0);
	if (call.ok)
		_exit(status);
	return NULL;
}

/* The kernel sets close-on-exec. */
static napi_value pidfd_open_process(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int pid = arg_int(&call, 0);
	if (!call.ok)
		return NULL;
	return result_errno(env, syscall(SYS_pidfd_open, pid, 0));
}

/* The kernel sets close-on-exec. */
static napi_value pidfd_getfd_process(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 2);
	int pidfd = arg_int(&call, 0);
	int fd = arg_int(&call, 1);
	if (!call.ok)
		return NULL;
	return result_errno(env, syscall(SYS_pidfd_getfd, pidfd, fd, 0));
}

void register_process(napi_env env, napi_value exports)
{
	export_function(env, exports, "exit", exit_now);
	export_function(env, exports, "pidfdOpen", pidfd_open_process);
	export_function(env, exports, "pidfdGetfd", pidfd_getfd_process);
}

/* io_uring's three system calls; its rings are windows. io_uring(7) */
#include "shim.h"

#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

static napi_value uring_setup(napi_env env, napi_callback_info info)
{
	struct call call;
	size_t length;
	call_begin(&call, env, info, 2);
	int entries = arg_int(&call, 0);
	uint8_t *params = arg_bytes(&call, 1, &length);
	if (!call.ok)
		return NULL;
	if (length < sizeof(struct io_uring_params))
		return result_int(env, -EINVAL);
	return result_errno(env, syscall(__NR_io_uring_setup, (unsigned)entries, params));
}

static napi_value uring_enter(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 5);
	int fd = arg_int(&call, 0);
	unsigned to_submit = (unsigned)arg_int(&call, 1);
	unsigned min_complete = (unsigned)arg_int(&call, 2);
	unsigned flags = (unsigned)arg_int(&call, 3);
	double timeout_us = arg_number(&call, 4);
	if (!call.ok)
		return NULL;
	if (timeout_us < 0)
		return result_errno(env, syscall(__NR_io_uring_enter, fd, to_submit, min_complete,
			flags, NULL, 0));
	int64_t us = (int64_t)timeout_us;
	struct __kernel_timespec timeout = { .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000 };
	struct io_uring_getevents_arg argument = { .sigmask_sz = _NSIG / 8,
		.ts = (uint64_t)(uintptr_t)&timeout };
	return result_errno(env, syscall(__NR_io_uring_enter, fd, to_submit, min_complete,
		flags | IORING_ENTER_EXT_ARG, &argument, sizeof argument));
}

/* Bytes that the kernel reads or writes at the argument of the operations in use. */
static int32_t argument_length(unsigned opcode, unsigned count)
{
	if (opcode == IORING_REGISTER_PROBE && count <= 256)
		return (int32_t)(sizeof(struct io_uring_probe) +
			count * sizeof(struct io_uring_probe_op));
	if (opcode == IORING_REGISTER_PBUF_RING || opcode == IORING_UNREGISTER_PBUF_RING)
		return (int32_t)sizeof(struct io_uring_buf_reg);
	if (opcode == IORING_REGISTER_RESTRICTIONS && count <= 256)
		return (int32_t)(count * sizeof(struct io_uring_restriction));
	return -1;
}

static napi_value uring_register(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 5);
	int fd = arg_int(&call, 0);
	unsigned opcode = (unsigned)arg_int(&call, 1);
	int32_t window = arg_int(&call, 2);
	int32_t offset = arg_int(&call, 3);
	unsigned count = (unsigned)arg_int(&call, 4);
	if (!call.ok)
		return NULL;
	if (opcode == IORING_REGISTER_ENABLE_RINGS && window == -1 && count == 0)
		return result_errno(env, syscall(__NR_io_uring_register, fd, opcode, NULL, 0));
	int32_t length = argument_length(opcode, count);
	if (length < 0)
		return result_int(env, -EOPNOTSUPP);
	void *argument = window_range_writable(window, offset, length);
	if (argument == NULL)
		return result_int(env, -EFAULT);
	return result_errno(env, syscall(__NR_io_uring_register, fd, opcode, argument, count));
}

void register_uring(napi_env env, napi_value exports)
{
	export_function(env, exports, "uringSetup", uring_setup);
	export_function(env, exports, "uringEnter", uring_enter);
	export_function(env, exports, "uringRegister", uring_register);
}

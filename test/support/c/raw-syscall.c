/*
 * A Node-API module for tests only: any system call, with numbers for arguments, from the thread
 * that calls. Returns the result, or -errno.
 */
#include <errno.h>
#include <node_api.h>
#include <unistd.h>

static napi_value raw_syscall(napi_env env, napi_callback_info info)
{
	size_t count = 7;
	napi_value argv[7];
	napi_value result;
	int64_t numbers[7] = { 0 };
	napi_get_cb_info(env, info, &count, argv, NULL, NULL);
	for (size_t k = 0; k < count && k < 7; k++)
		napi_get_value_int64(env, argv[k], &numbers[k]);
	long got = syscall(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5],
		numbers[6]);
	napi_create_int64(env, got == -1 ? -errno : got, &result);
	return result;
}

NAPI_MODULE_INIT()
{
	napi_value function;
	napi_create_function(env, "syscall", NAPI_AUTO_LENGTH, raw_syscall, NULL, &function);
	napi_set_named_property(env, exports, "syscall", function);
	return exports;
}

/* The end of the process. */
#include "shim.h"

#include <unistd.h>

static napi_value exit_now(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int status = arg_int(&call, 0);
	if (call.ok)
		_exit(status);
	return NULL;
}

void register_exit(napi_env env, napi_value exports)
{
	export_function(env, exports, "exit", exit_now);
}

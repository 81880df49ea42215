/* The module: registration, and access to JavaScript arguments. No state, so it loads in any thread. */
#include "shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fail_type(struct call *call, size_t at, const char *expected)
{
	if (!call->ok)
		return;
	char text[96];
	snprintf(text, sizeof text, "%s: argument %zu must be %s", call->name, at + 1, expected);
	napi_throw_type_error(call->env, "ERR_INVALID_ARG_TYPE", text);
	call->ok = false;
}

bool call_begin(struct call *call, napi_env env, napi_callback_info info, size_t argc)
{
	size_t given = ARGUMENTS_MAX;
	void *name = NULL;
	call->env = env;
	call->ok = true;
	call->refused = 0;
	napi_get_cb_info(env, info, &given, call->argv, NULL, &name);
	call->name = name;
	if (given < argc)
		fail_type(call, given, "given");
	return call->ok;
}

int32_t arg_int(struct call *call, size_t at)
{
	int32_t value = 0;
	if (call->ok && napi_get_value_int32(call->env, call->argv[at], &value) != napi_ok)
		fail_type(call, at, "a number");
	return value;
}

double arg_number(struct call *call, size_t at)
{
	double value = 0;
	if (call->ok && napi_get_value_double(call->env, call->argv[at], &value) != napi_ok)
		fail_type(call, at, "a number");
	/* Also false for NaN: no double outside int64 is ever converted. */
	if (call->ok && !(value >= -9007199254740992.0 && value <= 9007199254740992.0))
		fail_type(call, at, "an integer below 2^53");
	return value;
}

void arg_string(struct call *call, size_t at, char *to, size_t size)
{
	size_t length = 0;
	to[0] = 0;
	if (!call->ok)
		return;
	if (napi_get_value_string_utf8(call->env, call->argv[at], NULL, 0, &length) != napi_ok)
		fail_type(call, at, "a string");
	else if (length >= size)
		call->refused = ENAMETOOLONG;
	else
		napi_get_value_string_utf8(call->env, call->argv[at], to, size, &length);
	if (strlen(to) < length && call->refused == 0)
		call->refused = EINVAL;
}

/* The memory of a typed array of that type, and its elements. */
static void *arg_array(struct call *call, size_t at, napi_typedarray_type wanted, size_t *count,
	const char *expected)
{
	napi_typedarray_type type;
	void *data = NULL;
	bool is = false;
	*count = 0;
	if (!call->ok)
		return NULL;
	if (napi_is_typedarray(call->env, call->argv[at], &is) == napi_ok && is &&
	    napi_get_typedarray_info(call->env, call->argv[at], &type, count, &data, NULL, NULL) ==
	            napi_ok &&
	    type == wanted)
		return data;
	*count = 0;
	fail_type(call, at, expected);
	return NULL;
}

uint8_t *arg_bytes(struct call *call, size_t at, size_t *length)
{
	return arg_array(call, at, napi_uint8_array, length, "a Uint8Array");
}

int32_t *arg_ints(struct call *call, size_t at, size_t *count, bool nullable)
{
	napi_valuetype kind;
	*count = 0;
	if (call->ok && nullable && napi_typeof(call->env, call->argv[at], &kind) == napi_ok &&
	    kind == napi_null)
		return NULL;
	return arg_array(call, at, napi_int32_array, count, "an Int32Array");
}

napi_value result_int(napi_env env, int32_t value)
{
	napi_value result;
	napi_create_int32(env, value, &result);
	return result;
}

napi_value result_number(napi_env env, double value)
{
	napi_value result;
	napi_create_double(env, value, &result);
	return result;
}

napi_value result_errno(napi_env env, int64_t value)
{
	if (value == -1)
		return result_int(env, -errno);
	if (value > INT32_MAX)
		return result_number(env, (double)value);
	return result_int(env, (int32_t)value);
}

void export_function(napi_env env, napi_value exports, const char *name, napi_callback function)
{
	napi_value value;
	/* The name is a literal: it outlives the function. */
	napi_create_function(env, name, NAPI_AUTO_LENGTH, function, (void *)name, &value);
	napi_set_named_property(env, exports, name, value);
}

NAPI_MODULE_INIT()
{
	register_window(env, exports);
	register_bulk(env, exports);
	register_filter(env, exports);
	register_pcap(env, exports);
	register_frames(env, exports);
	register_aio(env, exports);
	register_descriptors(env, exports);
	register_process(env, exports);
	register_socket(env, exports);
	register_netns(env, exports);
	register_tun(env, exports);
	register_uring(env, exports);
	register_privileges(env, exports);
	return exports;
}

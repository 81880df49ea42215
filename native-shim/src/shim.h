/*
 * Shared by all files of the shim: argument access, results, windows.
 *
 * Every exported function returns a value >= 0 or -errno and throws a TypeError only for a wrong
 * argument type. src/native/shim.ts of the package documents each of them.
 */
#ifndef FRAMEPUMP_SHIM_H
#define FRAMEPUMP_SHIM_H

#include <errno.h>
#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Arguments of a call. A wrong type leaves a pending TypeError and clears `ok`; a string that no
 * system call could take leaves its errno in `refused`.
 */
struct call {
	napi_env env;
	const char *name;
	napi_value argv[8];
	bool ok;
	int refused;
};

/* Throws the TypeError of an argument, unless one is pending already. */
void fail_type(struct call *call, size_t at, const char *expected);
bool call_begin(struct call *call, napi_env env, napi_callback_info info, size_t argc);
int32_t arg_int(struct call *call, size_t at);
double arg_number(struct call *call, size_t at);
/* A string of at most size - 1 bytes, terminated; longer: ENAMETOOLONG, with a NUL inside: EINVAL. */
void arg_string(struct call *call, size_t at, char *to, size_t size);
/* The bytes of a Uint8Array. */
uint8_t *arg_bytes(struct call *call, size_t at, size_t *length);
/* The elements of an Int32Array; null is allowed only with `nullable`. */
int32_t *arg_ints(struct call *call, size_t at, size_t *count, bool nullable);

napi_value result_int(napi_env env, int32_t value);
napi_value result_number(napi_env env, double value);
/* value, or -errno when value is -1. */
napi_value result_errno(napi_env env, int64_t value);

/* Retries a system call that a signal interrupted. */
#define RETRY(expression) \
	({ \
		__typeof__(expression) retried_; \
		do \
			retried_ = (expression); \
		while (retried_ == -1 && errno == EINTR); \
		retried_; \
	})

/* Longest window: offsets stay int32. */
#define WINDOW_LENGTH_MAX 0x7ffff000
#define WINDOWS_MAX 32768

/* The bytes [offset, offset + length) of a window, or NULL when they are not all inside it. */
uint8_t *window_range(int32_t window, int32_t offset, int32_t length);
/* The same for memory that is written. */
uint8_t *window_range_writable(int32_t window, int32_t offset, int32_t length);
/* A table of int32 rows, 4-byte aligned, or NULL. */
int32_t *window_table(int32_t window, int32_t offset, int32_t rows, int32_t ints_per_row);

/* Segments of one frame that is written. */
#define SEGMENTS_MAX 72

struct iovec;
/*
 * Where the segments of a frame are, rows (window, offset, length) from number `first` on of a table
 * at segment_offset >= 0. Returns the frame's length, or -EFAULT.
 */
int64_t frame_parts(int32_t window, int32_t segment_offset, int32_t first, int32_t count,
	struct iovec *parts);
/* A read that ended so took a frame off a TAP whose vnet_hdr the kernel could not write. */
bool frame_is_lost(int32_t result);

void export_function(napi_env env, napi_value exports, const char *name, napi_callback function);

void register_window(napi_env env, napi_value exports);
void register_bulk(napi_env env, napi_value exports);
void register_frames(napi_env env, napi_value exports);
void register_aio(napi_env env, napi_value exports);
void register_descriptors(napi_env env, napi_value exports);
void register_exit(napi_env env, napi_value exports);
void register_socket(napi_env env, napi_value exports);
void register_netns(napi_env env, napi_value exports);
void register_tun(napi_env env, napi_value exports);
void register_uring(napi_env env, napi_value exports);
void register_privileges(napi_env env, napi_value exports);

#endif

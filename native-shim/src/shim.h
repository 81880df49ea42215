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
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

/* Arguments of a function at most. */
#define ARGUMENTS_MAX 9

/*
 * Arguments of a call. A wrong type leaves a pending TypeError and clears `ok`; a string that no
 * system call could take leaves its errno in `refused`.
 */
struct call {
	napi_env env;
	const char *name;
	napi_value argv[ARGUMENTS_MAX];
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

enum { FREE, CLAIMED, USED };

/* A cache line each: what a row is checked against is loaded at once. */
struct window {
	_Alignas(64) _Atomic int state;
	/* Counts how often the entry was claimed. */
	_Atomic unsigned claims;
	uint8_t *_Atomic base;
	_Atomic size_t length;
	/* `length` in whole pages of its file, which may be huge ones. */
	_Atomic size_t mapped;
	_Atomic int protection;
	_Atomic bool is_dumped;
	_Atomic int faults;
	_Atomic int replaced;
};

/* The table is window.c's; here stands what is done for each row of a program, so that it is inlined. */
extern struct window windows[WINDOWS_MAX];

static inline struct window *window_find(int32_t number)
{
	if (number < 0 || number >= WINDOWS_MAX)
		return NULL;
	struct window *window = &windows[number];
	return atomic_load_explicit(&window->state, memory_order_acquire) == USED ? window : NULL;
}

static inline __attribute__((always_inline)) uint8_t *window_bytes(int32_t number, int32_t offset,
	int32_t length, bool write)
{
	struct window *window = window_find(number);
	if (window == NULL || offset < 0 || length < 0)
		return NULL;
	/* Nothing is ordered by these: `window_find` was. */
	size_t whole = atomic_load_explicit(&window->length, memory_order_relaxed);
	int protection = atomic_load_explicit(&window->protection, memory_order_relaxed);
	if ((uint64_t)offset + (uint64_t)length > whole || (write && !(protection & PROT_WRITE)))
		return NULL;
	return atomic_load_explicit(&window->base, memory_order_relaxed) + offset;
}

/* The bytes [offset, offset + length) of a window, or NULL when they are not all inside it. */
static inline uint8_t *window_range(int32_t window, int32_t offset, int32_t length)
{
	return window_bytes(window, offset, length, false);
}

/* The same for memory that is written. */
static inline uint8_t *window_range_writable(int32_t window, int32_t offset, int32_t length)
{
	return window_bytes(window, offset, length, true);
}

/* A table of int32 rows, 4-byte aligned, or NULL. */
static inline int32_t *window_table(int32_t window, int32_t offset, int32_t rows, int32_t ints_per_row)
{
	if (rows < 0 || rows > WINDOW_LENGTH_MAX / 64 || offset % 4 != 0)
		return NULL;
	return (int32_t *)(void *)window_bytes(window, offset, rows * ints_per_row * 4, true);
}

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
void register_filter(napi_env env, napi_value exports);
void register_pcap(napi_env env, napi_value exports);
void register_frames(napi_env env, napi_value exports);
void register_aio(napi_env env, napi_value exports);
void register_descriptors(napi_env env, napi_value exports);
void register_process(napi_env env, napi_value exports);
void register_socket(napi_env env, napi_value exports);
void register_netns(napi_env env, napi_value exports);
void register_tun(napi_env env, napi_value exports);
void register_uring(napi_env env, napi_value exports);
void register_privileges(napi_env env, napi_value exports);

#endif

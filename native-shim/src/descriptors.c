/* Descriptors and time: open, memfd, eventfd, epoll, poll, clock. */
#include "shim.h"

#include <fcntl.h>
#include <linux/stat.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, PATH_SIZE = 4096 };

static napi_value open_path(napi_env env, napi_callback_info info)
{
	struct call call;
	char path[PATH_SIZE];
	call_begin(&call, env, info, 2);
	arg_string(&call, 0, path, sizeof path);
	int flags = arg_int(&call, 1);
	if (!call.ok)
		return NULL;
	if (call.refused != 0)
		return result_int(env, -call.refused);
	return result_errno(env, RETRY(open(path, flags, 0600)));
}

static napi_value close_fd(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int fd = arg_int(&call, 0);
	if (!call.ok)
		return NULL;
	/* Linux frees the descriptor even when close is interrupted: no retry. */
	return result_errno(env, close(fd));
}

static napi_value get_status_flags(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int fd = arg_int(&call, 0);
	return call.ok ? result_errno(env, fcntl(fd, F_GETFL)) : NULL;
}

static napi_value set_status_flags(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	int flags = arg_int(&call, 1);
	return call.ok ? result_errno(env, fcntl(fd, F_SETFL, flags)) : NULL;
}

static napi_value get_seals(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int fd = arg_int(&call, 0);
	return call.ok ? result_errno(env, fcntl(fd, F_GET_SEALS)) : NULL;
}

static napi_value lock_file(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	int operation = arg_int(&call, 1);
	return call.ok ? result_errno(env, RETRY(flock(fd, operation))) : NULL;
}

/* By its number: musl has had a function for it only since 1.2.5. */
static long facts_of(int fd, int flags, struct statx *facts)
{
	return syscall(SYS_statx, fd, "", AT_EMPTY_PATH | flags, STATX_SIZE, facts);
}

static napi_value device_major(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int fd = arg_int(&call, 0);
	if (!call.ok)
		return NULL;
	struct statx facts;
	if (facts_of(fd, AT_STATX_DONT_SYNC, &facts) == -1)
		return result_int(env, -errno);
	return result_int(env, (int32_t)facts.stx_dev_major);
}

static napi_value memfd(napi_env env, napi_callback_info info)
{
	struct call call;
	char name[64];
	call_begin(&call, env, info, 2);
	arg_string(&call, 0, name, sizeof name);
	int flags = arg_int(&call, 1);
	if (!call.ok)
		return NULL;
	if (call.refused != 0)
		return result_int(env, -call.refused);
	return result_errno(env, memfd_create(name, (unsigned)flags));
}

static napi_value truncate_fd(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 2);
	int fd = arg_int(&call, 0);
	double length = arg_number(&call, 1);
	return call.ok ? result_errno(env, RETRY(ftruncate(fd, (off_t)length))) : NULL;
}

static napi_value file_size(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int fd = arg_int(&call, 0);
	if (!call.ok)
		return NULL;
	/* Not fstat(2): what is linked against glibc 2.33 or newer would need that at run time. */
	struct statx facts;
	if (facts_of(fd, 0, &facts) == -1)
		return result_int(env, -errno);
	return result_number(env, (double)facts.stx_size);
}

static napi_value eventfd_create(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 2);
	int initial = arg_int(&call, 0);
	int flags = arg_int(&call, 1);
	return call.ok ? result_errno(env, eventfd((unsigned)initial, flags)) : NULL;
}

static napi_value eventfd_add(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int fd = arg_int(&call, 0);
	if (!call.ok)
		return NULL;
	uint64_t one = 1;
	return result_errno(env, RETRY(write(fd, &one, sizeof one)) == -1 ? -1 : 0);
}

static napi_value eventfd_take(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int fd = arg_int(&call, 0);
	if (!call.ok)
		return NULL;
	uint64_t count = 0;
	ssize_t got = RETRY(read(fd, &count, sizeof count));
	return got == -1 ? result_int(env, -errno) : result_number(env, (double)count);
}

static napi_value epoll_new(napi_env env, napi_callback_info info)
{
	(void)info;
	return result_errno(env, epoll_create1(EPOLL_CLOEXEC));
}

static napi_value epoll_control(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 5);
	int epfd = arg_int(&call, 0);
	int op = arg_int(&call, 1);
	int fd = arg_int(&call, 2);
	int events = arg_int(&call, 3);
	int data = arg_int(&call, 4);
	if (!call.ok)
		return NULL;
	struct epoll_event event = { .events = (uint32_t)events, .data.u32 = (uint32_t)data };
	return result_errno(env, epoll_ctl(epfd, op, fd, &event));
}

static napi_value epoll_wait_rows(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 5);
	int epfd = arg_int(&call, 0);
	int32_t window = arg_int(&call, 1);
	int32_t offset = arg_int(&call, 2);
	int32_t rows = arg_int(&call, 3);
	int timeout_ms = arg_int(&call, 4);
	if (!call.ok)
		return NULL;
	if (rows < 1 || rows > EVENTS_MAX)
		return result_int(env, -EINVAL);
	int32_t *table = window_table(window, offset, rows, 2);
	if (table == NULL)
		return result_int(env, -EFAULT);
	struct epoll_event events[EVENTS_MAX];
	int count = epoll_wait(epfd, events, rows, timeout_ms);
	if (count == -1)
		return result_int(env, errno == EINTR ? 0 : -errno);
	for (int k = 0; k < count; k++) {
		table[2 * k] = (int32_t)events[k].events;
		table[2 * k + 1] = (int32_t)events[k].data.u32;
	}
	return result_int(env, count);
}

static napi_value poll_one(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 3);
	struct pollfd item = { .fd = arg_int(&call, 0), .events = (short)arg_int(&call, 1) };
	int timeout_ms = arg_int(&call, 2);
	if (!call.ok)
		return NULL;
	int ready = RETRY(poll(&item, 1, timeout_ms));
	return result_errno(env, ready == -1 ? -1 : ready == 0 ? 0 : item.revents);
}

static napi_value clock_read(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 2);
	int32_t window = arg_int(&call, 0);
	int32_t offset = arg_int(&call, 1);
	if (!call.ok)
		return NULL;
	uint8_t *to = window_range_writable(window, offset, 24);
	if (to == NULL || offset % 8 != 0)
		return result_int(env, -EFAULT);
	struct timespec monotonic;
	struct timespec wall;
	clock_gettime(CLOCK_MONOTONIC, &monotonic);
	clock_gettime(CLOCK_REALTIME, &wall);
	double us = (double)monotonic.tv_sec * 1e6 + (double)(monotonic.tv_nsec / 1000);
	uint64_t ns = (uint64_t)wall.tv_sec * 1000000000u + (uint64_t)wall.tv_nsec;
	uint32_t words[4] = { (uint32_t)ns, (uint32_t)(ns >> 32), (uint32_t)wall.tv_sec,
		(uint32_t)wall.tv_nsec };
	memcpy(to, &us, 8);
	memcpy(to + 8, words, 16);
	return result_int(env, 0);
}

void register_descriptors(napi_env env, napi_value exports)
{
	export_function(env, exports, "open", open_path);
	export_function(env, exports, "close", close_fd);
	export_function(env, exports, "getStatusFlags", get_status_flags);
	export_function(env, exports, "setStatusFlags", set_status_flags);
	export_function(env, exports, "getSeals", get_seals);
	export_function(env, exports, "flock", lock_file);
	export_function(env, exports, "deviceMajor", device_major);
	export_function(env, exports, "memfdCreate", memfd);
	export_function(env, exports, "fileSize", file_size);
	export_function(env, exports, "ftruncate", truncate_fd);
	export_function(env, exports, "eventfd", eventfd_create);
	export_function(env, exports, "eventfdWrite", eventfd_add);
	export_function(env, exports, "eventfdRead", eventfd_take);
	export_function(env, exports, "epollCreate", epoll_new);
	export_function(env, exports, "epollCtl", epoll_control);
	export_function(env, exports, "epollWait", epoll_wait_rows);
	export_function(env, exports, "poll", poll_one);
	export_function(env, exports, "clockGettime", clock_read);
}

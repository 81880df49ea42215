/* Frames through descriptors: loops of one system call over a burst, rows checked one by one. */
#include "shim.h"

#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

/*
 * libc's read and write are cancellation points, which in a process with threads cost some 3 % of
 * a 60-byte frame's way (measured). No thread here is ever cancelled.
 */
static ssize_t read_once(int fd, void *to, size_t length)
{
	return syscall(SYS_read, fd, to, length);
}

static ssize_t write_once(int fd, const void *from, size_t length)
{
	return syscall(SYS_write, fd, from, length);
}

bool frame_is_lost(int32_t result)
{
	return result == -EINVAL || result == -EFAULT;
}

static napi_value read_frames(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 4);
	int fd = arg_int(&call, 0);
	int32_t window = arg_int(&call, 1);
	int32_t offset = arg_int(&call, 2);
	int32_t count = arg_int(&call, 3);
	if (!call.ok)
		return NULL;
	int32_t *table = window_table(window, offset, count, 4);
	if (table == NULL)
		return result_int(env, -EFAULT);
	for (int32_t k = 0; k < count; k++) {
		int32_t *row = table + 4 * k;
		int32_t capacity = row[2];
		uint8_t *to = window_range_writable(row[0], row[1], capacity);
		if (to == NULL)
			return result_int(env, k > 0 ? k : -EFAULT);
		ssize_t got = RETRY(read_once(fd, to, (size_t)capacity));
		if (got < 0 && !frame_is_lost(-errno))
			return result_int(env, k > 0 ? k : -errno);
		row[3] = got < 0 ? -errno : (int32_t)got;
	}
	return result_int(env, count);
}

int64_t frame_parts(int32_t window, int32_t segment_offset, int32_t first, int32_t count,
	struct iovec *parts)
{
	if (first < 0 || first >= WINDOW_LENGTH_MAX / 16 || count < 1 || count > SEGMENTS_MAX ||
	    segment_offset > WINDOW_LENGTH_MAX - first * 12)
		return -EFAULT;
	const int32_t *segments = window_table(window, segment_offset + first * 12, count, 3);
	if (segments == NULL)
		return -EFAULT;
	int64_t length = 0;
	for (int32_t k = 0; k < count; k++) {
		int32_t row[3];
		memcpy(row, segments + 3 * k, sizeof row);
		uint8_t *from = window_range(row[0], row[1], row[2]);
		if (from == NULL)
			return -EFAULT;
		parts[k].iov_base = from;
		parts[k].iov_len = (size_t)row[2];
		length += row[2];
	}
	return length;
}

static ssize_t write_parts(int fd, const struct iovec *parts, int32_t count)
{
	return count == 1 ? RETRY(write_once(fd, parts[0].iov_base, parts[0].iov_len))
			  : RETRY(writev(fd, parts, count));
}

static napi_value write_frames(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 4);
	int32_t window = arg_int(&call, 0);
	int32_t offset = arg_int(&call, 1);
	int32_t count = arg_int(&call, 2);
	int32_t segment_offset = arg_int(&call, 3);
	if (!call.ok)
		return NULL;
	int32_t *table = window_table(window, offset, count, 4);
	if (table == NULL || segment_offset < 0)
		return result_int(env, -EFAULT);
	int32_t written = 0;
	for (int32_t k = 0; k < count; k++) {
		int32_t row[3];
		memcpy(row, table + 4 * k, sizeof row);
		struct iovec parts[SEGMENTS_MAX];
		int64_t length = frame_parts(window, segment_offset, row[1], row[2], parts);
		ssize_t done = length < 0 ? -1 : write_parts(row[0], parts, row[2]);
		table[4 * k + 3] = length < 0 ? (int32_t)length : done < 0 ? -errno : (int32_t)done;
		written += done >= 0 && done == length;
	}
	return result_int(env, written);
}

/* Messages of one sendmmsg(2), and their parts together. */
enum { MESSAGES_MAX = 64, MESSAGE_PARTS_MAX = 256 };

/* Sends them all, whatever becomes of one; returns how many were sent whole. */
static int32_t send_batch(int fd, struct mmsghdr *messages, const int64_t *lengths,
	const int32_t *rows, int32_t count, int32_t *table)
{
	int32_t sent = 0;
	for (int32_t at = 0; at < count;) {
		int done = RETRY(sendmmsg(fd, messages + at, (unsigned)(count - at),
			MSG_DONTWAIT | MSG_NOSIGNAL));
		/* Which of several failed is told when it is the first. */
		if (done <= 0) {
			table[4 * rows[at++] + 3] = done == 0 ? -EIO : -errno;
			continue;
		}
		for (; done > 0; done--, at++) {
			table[4 * rows[at] + 3] = (int32_t)messages[at].msg_len;
			sent += messages[at].msg_len == lengths[at];
		}
	}
	return sent;
}

static napi_value send_frames(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 4);
	int32_t window = arg_int(&call, 0);
	int32_t offset = arg_int(&call, 1);
	int32_t count = arg_int(&call, 2);
	int32_t segment_offset = arg_int(&call, 3);
	if (!call.ok)
		return NULL;
	int32_t *table = window_table(window, offset, count, 4);
	if (table == NULL || segment_offset < 0)
		return result_int(env, -EFAULT);
	struct mmsghdr messages[MESSAGES_MAX];
	struct iovec parts[MESSAGE_PARTS_MAX];
	int64_t lengths[MESSAGES_MAX];
	int32_t rows[MESSAGES_MAX];
	int32_t sent = 0;
	for (int32_t k = 0; k < count;) {
		int fd = table[4 * k];
		int32_t begun = 0;
		int32_t used = 0;
		for (; k < count && table[4 * k] == fd && begun < MESSAGES_MAX &&
			used + SEGMENTS_MAX <= MESSAGE_PARTS_MAX;
			k++) {
			int32_t row[3];
			memcpy(row, table + 4 * k, sizeof row);
			struct iovec *own = parts + used;
			int64_t length = frame_parts(window, segment_offset, row[1], row[2], own);
			if (length < 0) {
				table[4 * k + 3] = (int32_t)length;
				continue;
			}
			messages[begun] = (struct mmsghdr){
				.msg_hdr = { .msg_iov = own, .msg_iovlen = (size_t)row[2] } };
			lengths[begun] = length;
			rows[begun++] = k;
			used += row[2];
		}
		sent += send_batch(fd, messages, lengths, rows, begun, table);
	}
	return result_int(env, sent);
}

static napi_value read_into(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 4);
	int fd = arg_int(&call, 0);
	int32_t window = arg_int(&call, 1);
	int32_t offset = arg_int(&call, 2);
	int32_t length = arg_int(&call, 3);
	if (!call.ok)
		return NULL;
	uint8_t *to = window_range_writable(window, offset, length);
	if (to == NULL)
		return result_int(env, -EFAULT);
	return result_errno(env, RETRY(read(fd, to, (size_t)length)));
}

static napi_value pread_into(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 5);
	int fd = arg_int(&call, 0);
	int32_t window = arg_int(&call, 1);
	int32_t offset = arg_int(&call, 2);
	int32_t length = arg_int(&call, 3);
	double file_offset = arg_number(&call, 4);
	if (!call.ok)
		return NULL;
	uint8_t *to = window_range_writable(window, offset, length);
	if (to == NULL)
		return result_int(env, -EFAULT);
	if (!(file_offset >= 0 && file_offset <= (double)INT64_MAX / 2))
		return result_int(env, -EINVAL);
	return result_errno(env, RETRY(pread(fd, to, (size_t)length, (off_t)file_offset)));
}

static napi_value write_from(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 5);
	int fd = arg_int(&call, 0);
	int32_t window = arg_int(&call, 1);
	int32_t offset = arg_int(&call, 2);
	int32_t length = arg_int(&call, 3);
	int nowait = arg_int(&call, 4);
	if (!call.ok)
		return NULL;
	uint8_t *from = window_range(window, offset, length);
	if (from == NULL)
		return result_int(env, -EFAULT);
	struct iovec part = { from, (size_t)length };
	if (!nowait)
		return result_errno(env, RETRY(write(fd, from, (size_t)length)));
	/* By its number: musl has had a function for it only since 1.2.5. */
	ssize_t done = RETRY(syscall(SYS_pwritev2, fd, &part, 1, -1L, -1L, RWF_NOWAIT));
	if (done >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS))
		return result_errno(env, done);
	/* A FIFO opened by its path: what poll calls writable takes this much without blocking. */
	struct pollfd item = { .fd = fd, .events = POLLOUT };
	if (RETRY(poll(&item, 1, 0)) == 0)
		return result_int(env, -EAGAIN);
	return result_errno(env, RETRY(write(fd, from, length < PIPE_BUF ? (size_t)length : PIPE_BUF)));
}

void register_frames(napi_env env, napi_value exports)
{
	export_function(env, exports, "readFrames", read_frames);
	export_function(env, exports, "writeFrames", write_frames);
	export_function(env, exports, "sendFrames", send_frames);
	export_function(env, exports, "readInto", read_into);
	export_function(env, exports, "preadInto", pread_into);
	export_function(env, exports, "writeFrom", write_from);
}

/*
 * Bulk memory: tables of rows that TypeScript filled, run in one call. Each row is read once into
 * locals (the table may lie in memory that others write) and checked against its windows; a wrong
 * row ends the call.
 */
#include "shim.h"

#include <string.h>

/* Rows that are prefetched before their copy: hides the cache misses of frames in guest memory. */
enum { PREFETCH_ROWS = 8, HEAD_LENGTH = 16, SHORT_LENGTH = 64, GATHER_STRIDE = 256 };

/* In the length of a copy row: see copyRows in shim.ts. */
enum {
	BEHIND_HEADER = 1 << 30,
	BEHIND_HEAD = 1 << 29,
	BEHIND_TAG = 1 << 28,
	SAME_HEAD = 1 << 27,
	VNET_HDR_LENGTH = 12,
	TAG_LENGTH = 4
};
/* A struct virtio_net_hdr_v1 without offloads, num_buffers 1 (little-endian). */
static const uint8_t plain_header[VNET_HDR_LENGTH] = { [10] = 1 };

static void prefetch_row(const int32_t *row)
{
	uint8_t *source = window_range(row[0], row[1], 0);
	uint8_t *destination = window_range(row[2], row[3], 0);
	if (source != NULL)
		__builtin_prefetch(source);
	if (destination != NULL)
		__builtin_prefetch(destination, 1);
}

/* The head that was given last in a call. */
struct last_head {
	bool was_given;
	uint8_t bytes[HEAD_LENGTH + TAG_LENGTH];
};

/* A row behind a head, which the next row may be; NULL: there is none. Returns how many it was; 0: it is wrong. */
static int32_t copy_behind_head(const volatile int32_t *row, int32_t flags, const int32_t *next,
	struct last_head *last)
{
	int32_t length = flags & (SAME_HEAD - 1);
	int32_t header = flags & BEHIND_HEADER ? VNET_HDR_LENGTH : 0;
	int32_t head = flags & BEHIND_TAG ? HEAD_LENGTH + TAG_LENGTH : HEAD_LENGTH;
	bool is_given = !(flags & SAME_HEAD);
	if (is_given && next != NULL) {
		memcpy(last->bytes, next, sizeof last->bytes);
		last->was_given = true;
	}
	const uint8_t *source = window_range(row[0], row[1], length);
	uint8_t *to = window_range_writable(row[2], row[3], header + head + length);
	if (source == NULL || to == NULL || (is_given ? next == NULL : !last->was_given))
		return 0;
	if (header > 0)
		memcpy(to, plain_header, VNET_HDR_LENGTH);
	to += header;
	memcpy(to, last->bytes, HEAD_LENGTH);
	if (head > HEAD_LENGTH)
		memcpy(to + HEAD_LENGTH, last->bytes + HEAD_LENGTH, TAG_LENGTH);
	memmove(to + head, source, (size_t)length);
	return is_given ? 2 : 1;
}

static napi_value copy_rows(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 3);
	int32_t window = arg_int(&call, 0);
	int32_t offset = arg_int(&call, 1);
	int32_t count = arg_int(&call, 2);
	if (!call.ok)
		return NULL;
	const int32_t *table = window_table(window, offset, count, 5);
	if (table == NULL)
		return result_int(env, -EFAULT);
	for (int32_t k = 0; k < count && k < PREFETCH_ROWS; k++)
		prefetch_row(table + 5 * k);
	struct last_head last = { .was_given = false };
	for (int32_t k = 0; k < count; k++) {
		if (k + PREFETCH_ROWS < count)
			prefetch_row(table + 5 * (k + PREFETCH_ROWS));
		const volatile int32_t *row = table + 5 * k;
		int32_t length = row[4];
		if (length > 0 && length & BEHIND_HEAD) {
			const int32_t *next = k + 1 < count ? table + 5 * (k + 1) : NULL;
			int32_t done = copy_behind_head(row, length, next, &last);
			if (done == 0)
				return result_int(env, k);
			k += done - 1;
			continue;
		}
		int32_t header = length > 0 && length & BEHIND_HEADER ? VNET_HDR_LENGTH : 0;
		if (header > 0)
			length -= BEHIND_HEADER;
		const uint8_t *source = window_range(row[0], row[1], length);
		uint8_t *destination = window_range_writable(row[2], row[3], header + length);
		if (source == NULL || destination == NULL)
			return result_int(env, k);
		if (header > 0)
			memcpy(destination, plain_header, VNET_HDR_LENGTH);
		memmove(destination + header, source, (size_t)length);
	}
	return result_int(env, count);
}

/*
 * HEAD_LENGTH bytes at places that two columns of int32 give, windows and offsets, from `skip` bytes behind
 * each on. All of them are prefetched before the first is read.
 */
static napi_value gather_heads(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 7);
	int32_t window = arg_int(&call, 0);
	int32_t windows_offset = arg_int(&call, 1);
	int32_t offsets_offset = arg_int(&call, 2);
	int32_t count = arg_int(&call, 3);
	int32_t destination_window = arg_int(&call, 4);
	int32_t destination_offset = arg_int(&call, 5);
	int32_t skip = arg_int(&call, 6);
	if (!call.ok)
		return NULL;
	if (skip < 0)
		return result_int(env, -EINVAL);
	const int32_t *windows = window_table(window, windows_offset, count, 1);
	const int32_t *offsets = window_table(window, offsets_offset, count, 1);
	if (windows == NULL || offsets == NULL)
		return result_int(env, -EFAULT);
	uint8_t *to = window_range_writable(destination_window, destination_offset,
		count * HEAD_LENGTH);
	if (to == NULL)
		return result_int(env, -EFAULT);
	for (int32_t k = 0; k < count; k++) {
		const uint8_t *source = window_range(windows[k], offsets[k], 0);
		if (source != NULL)
			__builtin_prefetch(source);
	}
	for (int32_t k = 0; k < count; k++, to += HEAD_LENGTH) {
		/* Read once: the columns may lie in memory that others write. */
		int32_t from = *(const volatile int32_t *)&windows[k];
		int32_t offset = *(const volatile int32_t *)&offsets[k];
		bool is_place = (uint32_t)offset <= (uint32_t)(INT32_MAX - skip);
		const uint8_t *source = is_place ? window_range(from, offset + skip, HEAD_LENGTH) : NULL;
		/* By way of a register: a place may be the destination of another. */
		uint8_t head[HEAD_LENGTH] = { 0 };
		if (source != NULL) {
			memcpy(head, source, HEAD_LENGTH);
			memcpy(to, head, HEAD_LENGTH);
			continue;
		}
		/* The last bytes of a window: as many as there are. */
		if (!is_place || window_range(from, offset, 0) == NULL)
			return result_int(env, k);
		int32_t length = HEAD_LENGTH;
		while (length > 0 && source == NULL)
			source = window_range(from, offset + skip, --length);
		if (source != NULL)
			memcpy(head, source, (size_t)length);
		memcpy(to, head, HEAD_LENGTH);
	}
	return result_int(env, count);
}

/* By way of registers: a place may be the destination of another. */
static void copy_short(uint8_t *to, const uint8_t *from)
{
	uint8_t bytes[SHORT_LENGTH];
	memcpy(bytes, from, sizeof bytes);
	memcpy(to, bytes, sizeof bytes);
}

/*
 * The beginnings of frames at places that three columns of int32 give, windows, offsets and lengths: at
 * most so many bytes of each. With heads as well: the first HEAD_LENGTH of these, and the columns say of the
 * frames that were copied whole where they are now.
 */
static napi_value gather_frames(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 9);
	int32_t window = arg_int(&call, 0);
	int32_t windows_offset = arg_int(&call, 1);
	int32_t offsets_offset = arg_int(&call, 2);
	int32_t lengths_offset = arg_int(&call, 3);
	int32_t count = arg_int(&call, 4);
	int32_t destination_window = arg_int(&call, 5);
	int32_t destination_offset = arg_int(&call, 6);
	int32_t most = arg_int(&call, 7);
	int32_t heads_offset = arg_int(&call, 8);
	if (!call.ok)
		return NULL;
	if (most < 0 || most > GATHER_STRIDE || count < 0 || count > INT32_MAX / GATHER_STRIDE)
		return result_int(env, -EINVAL);
	bool has_heads = heads_offset >= 0;
	int32_t *windows = window_table(window, windows_offset, count, 1);
	int32_t *offsets = window_table(window, offsets_offset, count, 1);
	const int32_t *lengths = window_table(window, lengths_offset, count, 1);
	uint8_t *heads = window_range_writable(window, has_heads ? heads_offset : 0,
		has_heads ? count * HEAD_LENGTH : 0);
	uint8_t *to = window_range_writable(destination_window, destination_offset,
		count * GATHER_STRIDE);
	if (windows == NULL || offsets == NULL || lengths == NULL || heads == NULL || to == NULL)
		return result_int(env, -EFAULT);
	for (int32_t k = 0; k < count; k++) {
		const uint8_t *source = window_range(windows[k], offsets[k], 0);
		if (source != NULL) {
			__builtin_prefetch(source);
			__builtin_prefetch(source + SHORT_LENGTH - 1);
		}
	}
	int32_t whole = 0;
	for (int32_t k = 0; k < count; k++, to += GATHER_STRIDE) {
		/* Read once: the columns may lie in memory that others write. */
		int32_t from = *(const volatile int32_t *)&windows[k];
		int32_t offset = *(const volatile int32_t *)&offsets[k];
		int32_t length = *(const volatile int32_t *)&lengths[k];
		bool is_whole = length <= most;
		if (is_whole)
			whole++;
		else
			length = most;
		/* Most are short, and what is behind them is there as well. */
		bool is_short = (uint32_t)length <= SHORT_LENGTH;
		const uint8_t *source = is_short ? window_range(from, offset, SHORT_LENGTH) : NULL;
		if (source != NULL) {
			copy_short(to, source);
		} else {
			source = window_range(from, offset, length);
			if (source == NULL)
				return result_int(env, -EFAULT);
			memmove(to, source, (size_t)length);
		}
		if (!has_heads)
			continue;
		uint8_t head[HEAD_LENGTH] = { 0 };
		if (length >= HEAD_LENGTH)
			memcpy(head, to, HEAD_LENGTH);
		else
			memcpy(head, to, (size_t)length);
		memcpy(heads + k * HEAD_LENGTH, head, HEAD_LENGTH);
		if (is_whole) {
			windows[k] = destination_window;
			offsets[k] = destination_offset + k * GATHER_STRIDE;
		}
	}
	return result_int(env, whole);
}

/* Compilers make of it what vectors the processor has. */
typedef uint64_t vector __attribute__((vector_size(16)));
enum { VECTORS = SHORT_LENGTH / sizeof(vector) };

/* Of all bits those that the mask has are the same. */
static bool is_alike(const uint8_t *row, const vector *first, const vector *mask)
{
	vector others = { 0, 0 };
	for (size_t n = 0; n < VECTORS; n++) {
		vector bytes;
		memcpy(&bytes, row + n * sizeof bytes, sizeof bytes);
		others |= (bytes ^ first[n]) & mask[n];
	}
	return (others[0] | others[1]) == 0;
}

/*
 * Rows of SHORT_LENGTH bytes, `stride` apart, and a number for each: how many of the first ones have the number of
 * the first, and are like it as far as a mask of as many bytes says.
 */
static napi_value alike_rows(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 8);
	int32_t window = arg_int(&call, 0);
	int32_t offset = arg_int(&call, 1);
	int32_t stride = arg_int(&call, 2);
	int32_t count = arg_int(&call, 3);
	int32_t mask_window = arg_int(&call, 4);
	int32_t mask_offset = arg_int(&call, 5);
	int32_t numbers_window = arg_int(&call, 6);
	int32_t numbers_offset = arg_int(&call, 7);
	if (!call.ok)
		return NULL;
	if (stride < SHORT_LENGTH || stride > GATHER_STRIDE || count < 0 ||
		count > INT32_MAX / GATHER_STRIDE)
		return result_int(env, -EINVAL);
	const uint8_t *mask_bytes = window_range(mask_window, mask_offset, SHORT_LENGTH);
	int32_t length = count > 0 ? (count - 1) * stride + SHORT_LENGTH : 0;
	const uint8_t *row = window_range(window, offset, length);
	const int32_t *numbers = window_table(numbers_window, numbers_offset, count, 1);
	if (mask_bytes == NULL || row == NULL || numbers == NULL)
		return result_int(env, -EFAULT);
	if (count == 0)
		return result_int(env, 0);
	vector mask[VECTORS];
	vector first[VECTORS];
	memcpy(mask, mask_bytes, sizeof mask);
	memcpy(first, row, sizeof first);
	int32_t k = 1;
	while (k < count && numbers[k] == numbers[0] &&
		is_alike(row + (size_t)k * (size_t)stride, first, mask))
		k++;
	return result_int(env, k);
}

/* RFC 1071: the sum of 16-bit words in network order, folded, not inverted. */
static uint16_t internet_sum(const uint8_t *bytes, size_t length, uint32_t initial)
{
	uint64_t sum = 0;
	for (; length >= 4; bytes += 4, length -= 4) {
		uint32_t word;
		memcpy(&word, bytes, 4);
		sum += word;
	}
	if (length >= 2) {
		uint16_t word;
		memcpy(&word, bytes, 2);
		sum += word;
		bytes += 2;
		length -= 2;
	}
	if (length == 1) {
		uint16_t word = 0;
		memcpy(&word, bytes, 1);
		sum += word;
	}
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	/* The sum commutes with a byte swap: added in memory order, swapped once. */
	uint32_t result = __builtin_bswap16((uint16_t)sum) + (initial & 0xffff) + (initial >> 16);
	while (result >> 16)
		result = (result & 0xffff) + (result >> 16);
	return (uint16_t)result;
}

static napi_value checksum_rows(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 3);
	int32_t window = arg_int(&call, 0);
	int32_t offset = arg_int(&call, 1);
	int32_t count = arg_int(&call, 2);
	if (!call.ok)
		return NULL;
	int32_t *table = window_table(window, offset, count, 5);
	if (table == NULL)
		return result_int(env, -EFAULT);
	for (int32_t k = 0; k < count; k++) {
		int32_t row[4];
		memcpy(row, table + 5 * k, sizeof row);
		const uint8_t *bytes = window_range(row[0], row[1], row[2]);
		if (bytes == NULL)
			return result_int(env, k);
		table[5 * k + 4] = internet_sum(bytes, (size_t)row[2], (uint32_t)row[3]);
	}
	return result_int(env, count);
}

/* Sets the bits of pages in a bitmap that another process reads and clears meanwhile. */
static napi_value mark_dirty(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 4);
	int32_t log = arg_int(&call, 0);
	int32_t window = arg_int(&call, 1);
	int32_t offset = arg_int(&call, 2);
	int32_t count = arg_int(&call, 3);
	if (!call.ok)
		return NULL;
	const int32_t *table = window_table(window, offset, count, 2);
	if (table == NULL)
		return result_int(env, -EFAULT);
	for (int32_t k = 0; k < count; k++) {
		int32_t row[2];
		memcpy(row, table + 2 * k, sizeof row);
		uint32_t first = (uint32_t)row[0];
		if (row[1] < 1 || (uint64_t)first + (uint32_t)row[1] > UINT32_MAX)
			return result_int(env, k);
		uint32_t last = first + (uint32_t)row[1] - 1;
		int32_t length = (int32_t)(last / 8 - first / 8 + 1);
		uint8_t *bytes = window_range_writable(log, (int32_t)(first / 8), length);
		if (bytes == NULL)
			return result_int(env, k);
		for (uint32_t page = first; page <= last; page++)
			__atomic_fetch_or(bytes + (page / 8 - first / 8), (uint8_t)(1u << page % 8),
				__ATOMIC_RELAXED);
	}
	return result_int(env, count);
}

void register_bulk(napi_env env, napi_value exports)
{
	export_function(env, exports, "markDirty", mark_dirty);
	export_function(env, exports, "copyRows", copy_rows);
	export_function(env, exports, "gatherHeads", gather_heads);
	export_function(env, exports, "gatherFrames", gather_frames);
	export_function(env, exports, "alikeRows", alike_rows);
	export_function(env, exports, "checksumRows", checksum_rows);
}

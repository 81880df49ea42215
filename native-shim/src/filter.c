/*
 * Filters: classic BPF programs (struct sock_filter of linux/filter.h) over the frames of a table. A program is
 * looked through at every call, as the kernel does before it takes one: it may come from anybody.
 */
#include "shim.h"

#include <linux/filter.h>
#include <string.h>
#include <sys/uio.h>

/* A frame as its pieces; most have one. */
struct frame {
	struct iovec parts[SEGMENTS_MAX];
	int32_t count;
	uint32_t length;
};

/* What an instruction is: 0 is none that there is. */
static bool is_known(uint16_t code)
{
	switch (code) {
	case BPF_LD | BPF_W | BPF_ABS:
	case BPF_LD | BPF_H | BPF_ABS:
	case BPF_LD | BPF_B | BPF_ABS:
	case BPF_LD | BPF_W | BPF_IND:
	case BPF_LD | BPF_H | BPF_IND:
	case BPF_LD | BPF_B | BPF_IND:
	case BPF_LD | BPF_W | BPF_LEN:
	case BPF_LD | BPF_IMM:
	case BPF_LD | BPF_MEM:
	case BPF_LDX | BPF_W | BPF_LEN:
	case BPF_LDX | BPF_B | BPF_MSH:
	case BPF_LDX | BPF_IMM:
	case BPF_LDX | BPF_MEM:
	case BPF_ST:
	case BPF_STX:
	case BPF_ALU | BPF_ADD | BPF_K:
	case BPF_ALU | BPF_ADD | BPF_X:
	case BPF_ALU | BPF_SUB | BPF_K:
	case BPF_ALU | BPF_SUB | BPF_X:
	case BPF_ALU | BPF_MUL | BPF_K:
	case BPF_ALU | BPF_MUL | BPF_X:
	case BPF_ALU | BPF_DIV | BPF_K:
	case BPF_ALU | BPF_DIV | BPF_X:
	case BPF_ALU | BPF_MOD | BPF_K:
	case BPF_ALU | BPF_MOD | BPF_X:
	case BPF_ALU | BPF_AND | BPF_K:
	case BPF_ALU | BPF_AND | BPF_X:
	case BPF_ALU | BPF_OR | BPF_K:
	case BPF_ALU | BPF_OR | BPF_X:
	case BPF_ALU | BPF_XOR | BPF_K:
	case BPF_ALU | BPF_XOR | BPF_X:
	case BPF_ALU | BPF_LSH | BPF_K:
	case BPF_ALU | BPF_LSH | BPF_X:
	case BPF_ALU | BPF_RSH | BPF_K:
	case BPF_ALU | BPF_RSH | BPF_X:
	case BPF_ALU | BPF_NEG:
	case BPF_JMP | BPF_JA:
	case BPF_JMP | BPF_JEQ | BPF_K:
	case BPF_JMP | BPF_JEQ | BPF_X:
	case BPF_JMP | BPF_JGT | BPF_K:
	case BPF_JMP | BPF_JGT | BPF_X:
	case BPF_JMP | BPF_JGE | BPF_K:
	case BPF_JMP | BPF_JGE | BPF_X:
	case BPF_JMP | BPF_JSET | BPF_K:
	case BPF_JMP | BPF_JSET | BPF_X:
	case BPF_RET | BPF_K:
	case BPF_RET | BPF_A:
	case BPF_MISC | BPF_TAX:
	case BPF_MISC | BPF_TXA:
		return true;
	default:
		return false;
	}
}

/* Instruction `at` of so many does nothing but what it says, inside the program. */
static bool is_sound(const struct sock_filter *program, uint32_t count, uint32_t at)
{
	const struct sock_filter *one = &program[at];
	uint32_t behind = count - at - 1;
	if (!is_known(one->code))
		return false;
	if (behind == 0)
		return BPF_CLASS(one->code) == BPF_RET;
	switch (one->code) {
	case BPF_LD | BPF_W | BPF_ABS:
	case BPF_LD | BPF_H | BPF_ABS:
	case BPF_LD | BPF_B | BPF_ABS:
	case BPF_LDX | BPF_B | BPF_MSH:
		/* Negative ones are of the kernel's: what it knows of a packet that came in by a socket. */
		return one->k <= INT32_MAX;
	case BPF_LD | BPF_MEM:
	case BPF_LDX | BPF_MEM:
	case BPF_ST:
	case BPF_STX:
		return one->k < BPF_MEMWORDS;
	case BPF_ALU | BPF_DIV | BPF_K:
	case BPF_ALU | BPF_MOD | BPF_K:
		return one->k != 0;
	case BPF_ALU | BPF_LSH | BPF_K:
	case BPF_ALU | BPF_RSH | BPF_K:
		return one->k < 32;
	case BPF_JMP | BPF_JA:
		return one->k < behind;
	default:
		return BPF_CLASS(one->code) != BPF_JMP || (one->jt < behind && one->jf < behind);
	}
}

/* The program, or NULL; `sound` instructions of it are such as can be run. */
static const struct sock_filter *arg_program(struct call *call, size_t at, uint32_t *sound)
{
	size_t words = 0;
	const int32_t *ints = arg_ints(call, at, &words, false);
	const struct sock_filter *program = (const void *)ints;
	*sound = 0;
	if (!call->ok || words == 0 || words % 2 != 0 || words / 2 > BPF_MAXINSNS)
		return NULL;
	uint32_t count = (uint32_t)(words / 2);
	while (*sound < count && is_sound(program, count, *sound))
		++*sound;
	return *sound == count ? program : NULL;
}

static napi_value filter_check(napi_env env, napi_callback_info info)
{
	struct call call;
	uint32_t sound = 0;
	call_begin(&call, env, info, 1);
	arg_program(&call, 0, &sound);
	return call.ok ? result_int(env, (int32_t)sound) : NULL;
}

/* The bytes at that place, which go over from one piece to another. */
static void read_across(const struct frame *frame, uint32_t at, uint8_t *to, uint32_t size)
{
	size_t from = at;
	for (int32_t part = 0; part < frame->count && size > 0; part++) {
		size_t length = frame->parts[part].iov_len;
		if (from >= length) {
			from -= length;
			continue;
		}
		size_t some = length - from < size ? length - from : size;
		memcpy(to, (const uint8_t *)frame->parts[part].iov_base + from, some);
		to += some;
		size -= (uint32_t)some;
		from = 0;
	}
}

/* size bytes (1, 2 or 4) in network order; false: the frame has not so many. */
static inline bool load(const struct frame *frame, uint64_t at, uint32_t size, uint32_t *value)
{
	uint8_t bytes[4] = { 0 };
	if (at + size > frame->length)
		return false;
	if (at + size <= frame->parts[0].iov_len)
		memcpy(bytes, (const uint8_t *)frame->parts[0].iov_base + at, size);
	else
		read_across(frame, (uint32_t)at, bytes, size);
	uint32_t word = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
		bytes[3];
	*value = word >> (32 - 8 * size);
	return true;
}

static inline uint32_t load_size(uint16_t code)
{
	switch (BPF_SIZE(code)) {
	case BPF_W:
		return 4;
	case BPF_H:
		return 2;
	default:
		return 1;
	}
}

/* False: division by zero, at which a program ends. */
static inline bool compute(uint16_t code, uint32_t *a, uint32_t b)
{
	switch (BPF_OP(code)) {
	case BPF_ADD:
		*a += b;
		break;
	case BPF_SUB:
		*a -= b;
		break;
	case BPF_MUL:
		*a *= b;
		break;
	case BPF_DIV:
		if (b == 0)
			return false;
		*a /= b;
		break;
	case BPF_MOD:
		if (b == 0)
			return false;
		*a %= b;
		break;
	case BPF_AND:
		*a &= b;
		break;
	case BPF_OR:
		*a |= b;
		break;
	case BPF_XOR:
		*a ^= b;
		break;
	case BPF_LSH:
		*a = b < 32 ? *a << b : 0;
		break;
	case BPF_RSH:
		*a = b < 32 ? *a >> b : 0;
		break;
	default:
		*a = 0 - *a;
	}
	return true;
}

static inline bool is_true(uint16_t code, uint32_t a, uint32_t b)
{
	switch (BPF_OP(code)) {
	case BPF_JEQ:
		return a == b;
	case BPF_JGT:
		return a > b;
	case BPF_JGE:
		return a >= b;
	default:
		return (a & b) != 0;
	}
}

/* What the program returns; it is sound, and jumps forward only, so it ends. */
static uint32_t run(const struct sock_filter *program, const struct frame *frame)
{
	uint32_t a = 0;
	uint32_t x = 0;
	uint32_t memory[BPF_MEMWORDS] = { 0 };
	for (const struct sock_filter *one = program;; one++) {
		uint32_t operand = BPF_SRC(one->code) == BPF_X ? x : one->k;
		switch (BPF_CLASS(one->code)) {
		case BPF_LD: {
			uint64_t at = one->k;
			switch (BPF_MODE(one->code)) {
			case BPF_IMM:
				a = one->k;
				continue;
			case BPF_MEM:
				a = memory[one->k];
				continue;
			case BPF_LEN:
				a = frame->length;
				continue;
			case BPF_IND:
				at += x;
			}
			if (!load(frame, at, load_size(one->code), &a))
				return 0;
			continue;
		}
		case BPF_LDX:
			switch (BPF_MODE(one->code)) {
			case BPF_IMM:
				x = one->k;
				continue;
			case BPF_MEM:
				x = memory[one->k];
				continue;
			case BPF_LEN:
				x = frame->length;
				continue;
			}
			if (!load(frame, one->k, 1, &x))
				return 0;
			x = (x & 0xf) << 2;
			continue;
		case BPF_ST:
			memory[one->k] = a;
			continue;
		case BPF_STX:
			memory[one->k] = x;
			continue;
		case BPF_ALU:
			if (!compute(one->code, &a, operand))
				return 0;
			continue;
		case BPF_JMP:
			if (BPF_OP(one->code) == BPF_JA)
				one += one->k;
			else
				one += is_true(one->code, a, operand) ? one->jt : one->jf;
			continue;
		case BPF_RET:
			return BPF_RVAL(one->code) == BPF_A ? a : one->k;
		default:
			if (BPF_MISCOP(one->code) == BPF_TAX)
				x = a;
			else
				a = x;
		}
	}
}

static napi_value filter_frames(napi_env env, napi_callback_info info)
{
	struct call call;
	uint32_t sound = 0;
	call_begin(&call, env, info, 5);
	const struct sock_filter *program = arg_program(&call, 0, &sound);
	int32_t window = arg_int(&call, 1);
	int32_t offset = arg_int(&call, 2);
	int32_t count = arg_int(&call, 3);
	int32_t segment_offset = arg_int(&call, 4);
	if (!call.ok)
		return NULL;
	if (program == NULL)
		return result_int(env, -EINVAL);
	int32_t *table = window_table(window, offset, count, 3);
	if (table == NULL || segment_offset < 0)
		return result_int(env, -EFAULT);
	struct frame frame;
	for (int32_t k = 0; k < count; k++) {
		int32_t row[2];
		memcpy(row, table + 3 * k, sizeof row);
		int64_t length = frame_parts(window, segment_offset, row[0], row[1], frame.parts);
		if (length < 0 || length > INT32_MAX)
			return result_int(env, k);
		frame.count = row[1];
		frame.length = (uint32_t)length;
		table[3 * k + 2] = run(program, &frame) != 0;
	}
	return result_int(env, count);
}

void register_filter(napi_env env, napi_value exports)
{
	export_function(env, exports, "filterCheck", filter_check);
	export_function(env, exports, "filterFrames", filter_frames);
}

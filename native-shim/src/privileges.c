/*
 * What a process may do: capabilities, prctl(2), seccomp(2). Which, is the caller's to say.
 *
 * Capabilities, bounding set and ambient set are a thread's own, and no call changes another
 * thread's. Node has threads before any JavaScript runs, so `everyThread` goes round: each thread
 * is sent a signal whose handler makes the calls there, as the C library does for setuid(2).
 * The signal is the C library's own for that purpose (33, which no thread can block through it, on
 * glibc and musl), borrowed by the system call and given back before the function returns.
 */
#include "shim.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* One call of `everyThread`: what, then its arguments. */
enum { ROW_INTS = 7, ROWS_MAX = 128, ROW_PRCTL = 0, ROW_CAPSET = 1 };
/* Threads of a process; one that was seen is not sent the signal again. */
enum { THREADS_MAX = 2048 };
/* A thread that runs at all takes the signal within microseconds; the machine may be busy. */
enum { WAIT_MS = 2000 };
enum { SIGNAL = 33 };
/* BPF_MAXINSNS */
enum { FILTER_MAX = 4096 };

/* Operations whose arguments are numbers: the others would take any number for an address. */
static int plain_prctl(int option, unsigned long a, unsigned long b, unsigned long c,
	unsigned long d)
{
	switch (option) {
	case PR_CAPBSET_READ:
	case PR_CAPBSET_DROP:
	case PR_CAP_AMBIENT:
	case PR_GET_KEEPCAPS:
	case PR_SET_KEEPCAPS:
	case PR_GET_NO_NEW_PRIVS:
	case PR_SET_NO_NEW_PRIVS:
	case PR_GET_DUMPABLE:
	case PR_SET_DUMPABLE:
	case PR_GET_SECCOMP:
		return prctl(option, a, b, c, d);
	default:
		errno = EOPNOTSUPP;
		return -1;
	}
}

static napi_value prctl_call(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 5);
	int option = arg_int(&call, 0);
	unsigned long a = (unsigned long)arg_int(&call, 1);
	unsigned long b = (unsigned long)arg_int(&call, 2);
	unsigned long c = (unsigned long)arg_int(&call, 3);
	unsigned long d = (unsigned long)arg_int(&call, 4);
	if (!call.ok)
		return NULL;
	return result_errno(env, plain_prctl(option, a, b, c, d));
}

static int capability_call(long number, struct __user_cap_data_struct *data)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	return (int)syscall(number, &header, data);
}

static napi_value capget_call(napi_env env, napi_callback_info info)
{
	struct call call;
	size_t count;
	call_begin(&call, env, info, 1);
	int32_t *out = arg_ints(&call, 0, &count, false);
	if (!call.ok)
		return NULL;
	struct __user_cap_data_struct data[2];
	if (count < 6)
		return result_int(env, -EINVAL);
	if (capability_call(SYS_capget, data) == -1)
		return result_int(env, -errno);
	for (int half = 0; half < 2; half++) {
		out[half] = (int32_t)data[half].effective;
		out[2 + half] = (int32_t)data[half].permitted;
		out[4 + half] = (int32_t)data[half].inheritable;
	}
	return result_int(env, 0);
}

/* words: effective, permitted, inheritable, each low half first. */
static int set_capabilities(const int32_t *words)
{
	struct __user_cap_data_struct data[2];
	for (int half = 0; half < 2; half++) {
		data[half].effective = (uint32_t)words[half];
		data[half].permitted = (uint32_t)words[2 + half];
		data[half].inheritable = (uint32_t)words[4 + half];
	}
	return capability_call(SYS_capset, data);
}

static napi_value capset_call(napi_env env, napi_callback_info info)
{
	struct call call;
	size_t count;
	call_begin(&call, env, info, 1);
	int32_t *words = arg_ints(&call, 0, &count, false);
	if (!call.ok)
		return NULL;
	if (count < 6)
		return result_int(env, -EINVAL);
	return result_errno(env, set_capabilities(words));
}

static napi_value seccomp_call(napi_env env, napi_callback_info info)
{
	struct call call;
	size_t length;
	call_begin(&call, env, info, 3);
	unsigned operation = (unsigned)arg_int(&call, 0);
	unsigned flags = (unsigned)arg_int(&call, 1);
	uint8_t *bytes = arg_bytes(&call, 2, &length);
	if (!call.ok)
		return NULL;
	if (operation == SECCOMP_GET_ACTION_AVAIL) {
		uint32_t action;
		if (length < sizeof action)
			return result_int(env, -EINVAL);
		memcpy(&action, bytes, sizeof action);
		return result_errno(env, syscall(SYS_seccomp, operation, flags, &action));
	}
	if (operation != SECCOMP_SET_MODE_FILTER)
		return result_int(env, -EOPNOTSUPP);
	if (length % sizeof(struct sock_filter) != 0 ||
	    length > FILTER_MAX * sizeof(struct sock_filter))
		return result_int(env, -EINVAL);
	struct sock_fprog program = { .len = (unsigned short)(length / sizeof(struct sock_filter)),
		.filter = (struct sock_filter *)bytes };
	return result_errno(env, syscall(SYS_seccomp, operation, flags, &program));
}

/* --- every thread ----------------------------------------------------------------------------- */

/* What the handler does, while `everyThread` runs; guarded by `round_lock`. */
static int round_lock;
static int32_t round_rows[ROWS_MAX * ROW_INTS];
static int round_row_count;
/* The thread that is asked, and when it has done it: its number, negative. */
static int round_thread;
static int round_failures;
static int round_errno;

static int run_row(const int32_t *row)
{
	switch (row[0]) {
	case ROW_PRCTL:
		return plain_prctl(row[1], (unsigned long)row[2], (unsigned long)row[3],
			(unsigned long)row[4], (unsigned long)row[5]);
	case ROW_CAPSET:
		return set_capabilities(row + 1);
	default:
		errno = EINVAL;
		return -1;
	}
}

static void run_rows(int signal_number)
{
	(void)signal_number;
	int kept = errno;
	int self = (int)syscall(SYS_gettid);
	/* A late one, of a round that is over or has given up on this thread, does nothing. */
	if (__atomic_load_n(&round_thread, __ATOMIC_ACQUIRE) == self) {
		for (int k = 0; k < round_row_count; k++) {
			if (run_row(round_rows + k * ROW_INTS) != -1)
				continue;
			round_failures++;
			round_errno = errno;
		}
		__atomic_store_n(&round_thread, -self, __ATOMIC_RELEASE);
	}
	errno = kept;
}

/* struct sigaction as the kernel has it, with room for what it puts there on any architecture. */
struct kernel_action {
	void (*handler)(int);
	unsigned long words[7];
};

/* Puts run_rows behind the signal; what was there before goes to `before`. */
static int borrow_signal(struct kernel_action *before)
{
	/* How a handler returns is the architecture's: the C library's own action tells it. */
	struct sigaction plain = { .sa_handler = run_rows, .sa_flags = SA_RESTART };
	struct sigaction kept;
	struct kernel_action ours;
	sigfillset(&plain.sa_mask);
	if (sigaction(SIGRTMAX, &plain, &kept) == -1)
		return -1;
	long read = syscall(SYS_rt_sigaction, SIGRTMAX, NULL, &ours, _NSIG / 8);
	sigaction(SIGRTMAX, &kept, NULL);
	if (read == -1)
		return -1;
	return (int)syscall(SYS_rt_sigaction, SIGNAL, &ours, before, _NSIG / 8);
}

/* False: the thread is the kernel's (of io_uring), runs no handler, and ends by itself. */
static bool is_ours(int thread)
{
	char path[64] = "/proc/self/task/";
	char digits[12];
	char name[16] = "";
	int count = 0;
	size_t at = strlen(path);
	for (int rest = thread; rest > 0; rest /= 10)
		digits[count++] = (char)('0' + rest % 10);
	while (count > 0)
		path[at++] = digits[--count];
	memcpy(path + at, "/comm", 6);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return true;
	ssize_t got = read(fd, name, sizeof name - 1);
	close(fd);
	return got < 4 || memcmp(name, "iou-", 4) != 0;
}

/* Has one thread run the rows: 1, 0 when it is gone, or -1. */
static int ask(int thread)
{
	__atomic_store_n(&round_thread, thread, __ATOMIC_RELEASE);
	if (syscall(SYS_tgkill, getpid(), thread, SIGNAL) == -1)
		return errno == ESRCH ? 0 : -1;
	for (int waited = 0; waited < WAIT_MS * 10; waited++) {
		if (__atomic_load_n(&round_thread, __ATOMIC_ACQUIRE) == -thread)
			return 1;
		struct timespec pause = { .tv_nsec = waited < 50 ? 10000 : 100000 };
		nanosleep(&pause, NULL);
		if (syscall(SYS_tgkill, getpid(), thread, 0) == -1 && errno == ESRCH)
			return 0;
	}
	/* From now on it would come too late: unless it runs them at this moment. */
	int expected = thread;
	if (__atomic_compare_exchange_n(&round_thread, &expected, 0, false, __ATOMIC_ACQ_REL,
		    __ATOMIC_ACQUIRE)) {
		errno = ETIMEDOUT;
		return -1;
	}
	return 1;
}

/* As getdents64(2) fills it in. */
struct entry {
	uint64_t inode;
	int64_t offset;
	unsigned short length;
	unsigned char type;
	char name[];
};

/* Asks every thread that is not among `seen`; returns how many, or -1. */
static int ask_new(int tasks, int self, int *seen, int *seen_count, int *skipped)
{
	_Alignas(8) char buffer[4096];
	int asked = 0;
	if (lseek(tasks, 0, SEEK_SET) == -1)
		return -1;
	for (;;) {
		long got = syscall(SYS_getdents64, tasks, buffer, sizeof buffer);
		if (got <= 0)
			return got == 0 ? asked : -1;
		for (long at = 0; at < got;) {
			struct entry *entry = (struct entry *)(buffer + at);
			int thread = atoi(entry->name);
			int k = 0;
			at += entry->length;
			while (k < *seen_count && seen[k] != thread)
				k++;
			if (thread <= 0 || thread == self || k < *seen_count)
				continue;
			if (*seen_count == THREADS_MAX) {
				errno = EAGAIN;
				return -1;
			}
			seen[(*seen_count)++] = thread;
			if (!is_ours(thread)) {
				(*skipped)++;
				continue;
			}
			int done = ask(thread);
			if (done == -1)
				return -1;
			asked += done;
		}
	}
}

static napi_value every_thread(napi_env env, napi_callback_info info)
{
	/* Only the holder of the lock uses it. */
	static int seen[THREADS_MAX];
	struct call call;
	size_t row_ints;
	size_t out_count;
	call_begin(&call, env, info, 2);
	int32_t *rows = arg_ints(&call, 0, &row_ints, false);
	int32_t *out = arg_ints(&call, 1, &out_count, false);
	if (!call.ok)
		return NULL;
	if (row_ints % ROW_INTS != 0 || row_ints > ROWS_MAX * ROW_INTS || out_count < 3)
		return result_int(env, -EINVAL);
	if (__atomic_exchange_n(&round_lock, 1, __ATOMIC_ACQUIRE) != 0)
		return result_int(env, -EBUSY);
	int result = -1;
	int seen_count = 0;
	int skipped = 0;
	int total = 0;
	struct kernel_action before;
	int tasks = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (tasks == -1)
		goto unlock;
	if (row_ints > 0)
		memcpy(round_rows, rows, row_ints * sizeof *rows);
	round_row_count = (int)(row_ints / ROW_INTS);
	round_failures = 0;
	round_errno = 0;
	if (borrow_signal(&before) == -1)
		goto close_tasks;
	/* A thread that was not asked yet may have made another: until none is new. */
	do {
		result = ask_new(tasks, (int)syscall(SYS_gettid), seen, &seen_count, &skipped);
		total += result > 0 ? result : 0;
	} while (result > 0);
	int failed = errno;
	__atomic_store_n(&round_thread, 0, __ATOMIC_RELEASE);
	/* A signal that comes too late must still find our handler: the C library's would crash. */
	if (result != -1 || failed != ETIMEDOUT)
		syscall(SYS_rt_sigaction, SIGNAL, &before, NULL, _NSIG / 8);
	errno = failed;
close_tasks:
	failed = errno;
	close(tasks);
	errno = failed;
unlock:
	failed = result == -1 ? errno : 0;
	out[0] = round_failures;
	out[1] = round_errno;
	out[2] = skipped;
	__atomic_store_n(&round_lock, 0, __ATOMIC_RELEASE);
	return result_int(env, result == -1 ? -failed : total);
}

void register_privileges(napi_env env, napi_value exports)
{
	export_function(env, exports, "prctl", prctl_call);
	export_function(env, exports, "capget", capget_call);
	export_function(env, exports, "capset", capset_call);
	export_function(env, exports, "seccomp", seccomp_call);
	export_function(env, exports, "everyThread", every_thread);
}

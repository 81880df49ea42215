/*
 * Windows: mapped memory, numbered for the whole process, and the SIGBUS handler over them.
 *
 * The table is the shim's only static: a signal handler has no other way to it. An entry is claimed
 * by compare-exchange on `state`; base and length are written before it becomes USED and are
 * constant until it is unmapped, which its users have agreed on before. The handler alone looks at
 * entries that are not its thread's: `claims` tells it that one has changed under its eyes.
 */
#include "shim.h"

#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { MIRRORED = 1, READ_ONLY = 2, DONT_DUMP = 4 };
/*
 * A window is replaced once, and again for each thread that faulted in it at the same time. More
 * often means that there is no memory to put in its place.
 */
enum { REPLACED_MAX = 64 };

struct window windows[WINDOWS_MAX];
/* Part of the table: faults of all windows together, so that a glance tells whether there were any. */
static _Atomic int32_t all_faults;
/* And where the search for a free entry begins: those before it were taken, when it was last seen. */
static _Atomic int lowest_free;
static struct sigaction previous_sigbus;
static _Atomic int sigbus_once;

/* Claims an entry of the table that is in `state`. */
static bool claim(struct window *window, int state)
{
	if (!atomic_compare_exchange_strong(&window->state, &state, CLAIMED))
		return false;
	atomic_fetch_add(&window->claims, 1);
	return true;
}

/*
 * The window that an address lies in, or NULL. In a signal handler: other threads map and unmap
 * theirs meanwhile. An entry that was claimed while it was read is none of ours.
 */
static struct window *find_faulted(const uint8_t *address)
{
	for (int number = 0; number < WINDOWS_MAX; number++) {
		struct window *window = &windows[number];
		unsigned claims = atomic_load(&window->claims);
		if (atomic_load(&window->state) != USED)
			continue;
		uint8_t *base = atomic_load(&window->base);
		size_t mapped = atomic_load(&window->mapped);
		if (atomic_load(&window->claims) != claims || atomic_load(&window->state) != USED)
			continue;
		if (address >= base && address < base + mapped)
			return window;
	}
	return NULL;
}

/* Where the kernel promises no memory that it does not have, a file is promised nothing. */
static void *map_empty_file(uint8_t *base, size_t length, int protection)
{
	int fd = memfd_create("framepump-lost", MFD_CLOEXEC);
	if (fd < 0)
		return MAP_FAILED;
	void *mapped = MAP_FAILED;
	if (ftruncate(fd, (off_t)length) == 0)
		mapped = mmap(base, length, protection, MAP_SHARED | MAP_FIXED, fd, 0);
	close(fd);
	return mapped;
}

/*
 * Puts one empty mapping in the place of the whole window, whatever it consisted of: page by page
 * each would split a mapping, until the process may have no more (vm.max_map_count). A thread that
 * faulted in it at the same time does the same once more, and harms nothing: what is in a window
 * that was lost means nothing.
 */
static bool replace(struct window *window)
{
	if (atomic_fetch_add(&window->replaced, 1) >= REPLACED_MAX)
		return false;
	uint8_t *base = window->base;
	size_t length = window->mapped;
	int protection = window->protection;
	void *mapped = mmap(base, length, protection,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	if (mapped == MAP_FAILED)
		mapped = map_empty_file(base, length, protection);
	if (mapped == MAP_FAILED)
		return false;
	/* A frame that still goes to each of its pages would have the kernel clear 2 MiB for it. */
	madvise(base, length, MADV_NOHUGEPAGE);
	if (!window->is_dumped)
		madvise(base, length, MADV_DONTDUMP);
	return true;
}

/*
 * Memory of a window is gone (its file was truncated by somebody else): replaces the window and
 * counts that, so that the engine fails the port before it goes on. Anything else goes to whoever
 * handled SIGBUS before. Calls nothing but the kernel.
 */
static void on_sigbus(int signal, siginfo_t *info, void *context)
{
	/* Sent by kill(2) or the like: there is no address, and nothing will fault again. */
	bool is_sent = info->si_code <= 0;
	struct window *window = is_sent ? NULL : find_faulted(info->si_addr);
	int saved = errno;
	bool is_replaced = window != NULL && replace(window);
	errno = saved;
	if (is_replaced) {
		atomic_fetch_add(&window->faults, 1);
		atomic_fetch_add(&all_faults, 1);
		return;
	}
	if (previous_sigbus.sa_flags & SA_SIGINFO) {
		previous_sigbus.sa_sigaction(signal, info, context);
	} else if (previous_sigbus.sa_handler != SIG_DFL && previous_sigbus.sa_handler != SIG_IGN) {
		previous_sigbus.sa_handler(signal);
	} else {
		/* Returning faults again, now with the default action. */
		sigaction(SIGBUS, &previous_sigbus, NULL);
		if (is_sent)
			raise(SIGBUS);
	}
}

static void install_sigbus(void)
{
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_sigaction = on_sigbus;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	sigemptyset(&action.sa_mask);
	sigaction(SIGBUS, &action, &previous_sigbus);
}

/*
 * Once means done: no other thread's window exists before the handler does. Not pthread_once(3):
 * what is linked against glibc 2.34 or newer would need that at run time.
 */
static void ensure_sigbus(void)
{
	enum { NEVER, BEGUN, DONE };
	int expected = NEVER;
	if (atomic_compare_exchange_strong(&sigbus_once, &expected, BEGUN)) {
		install_sigbus();
		atomic_store(&sigbus_once, DONE);
	}
	while (atomic_load(&sigbus_once) != DONE)
		sched_yield();
}

static size_t page_size_of(int fd)
{
	struct statfs fs;
	if (fd >= 0 && fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC)
		return (size_t)fs.f_bsize;
	return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t whole_pages(size_t length, size_t page_size)
{
	return (length + page_size - 1) / page_size * page_size;
}

/* Claims the first free entry from `number` on; WINDOWS_MAX: there is none. */
static int claim_free(int number)
{
	while (number < WINDOWS_MAX &&
		(atomic_load(&windows[number].state) != FREE || !claim(&windows[number], FREE)))
		number++;
	if (number < WINDOWS_MAX)
		atomic_store(&lowest_free, number + 1);
	return number;
}

static void give_back(int number)
{
	atomic_store(&windows[number].state, FREE);
	if (number < atomic_load(&lowest_free))
		atomic_store(&lowest_free, number);
}

static void *map_mirrored(int fd, size_t length, int protection)
{
	uint8_t *base = mmap(NULL, 2 * length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (base == MAP_FAILED)
		return MAP_FAILED;
	for (int half = 0; half < 2; half++) {
		if (mmap(base + (size_t)half * length, length, protection, MAP_SHARED | MAP_FIXED, fd,
			    0) == MAP_FAILED) {
			int saved = errno;
			munmap(base, 2 * length);
			errno = saved;
			return MAP_FAILED;
		}
	}
	return base;
}

static napi_value window_map(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 4);
	int fd = arg_int(&call, 0);
	double wanted = arg_number(&call, 1);
	double file_offset = arg_number(&call, 2);
	int flags = arg_int(&call, 3);
	if (!call.ok)
		return NULL;
	bool mirrored = flags & MIRRORED;
	if (wanted < 1 || wanted > WINDOW_LENGTH_MAX / (mirrored ? 2 : 1) || file_offset < 0 ||
	    (mirrored && (fd < 0 || file_offset != 0)))
		return result_int(env, -EINVAL);
	size_t length = (size_t)wanted;
	size_t page_size = page_size_of(fd);
	if (mirrored && length % page_size != 0)
		return result_int(env, -EINVAL);
	ensure_sigbus();

	int number = claim_free(atomic_load(&lowest_free));
	if (number == WINDOWS_MAX)
		number = claim_free(0);
	if (number == WINDOWS_MAX)
		return result_int(env, -EMFILE);
	struct window *window = &windows[number];
	int protection = flags & READ_ONLY ? PROT_READ : PROT_READ | PROT_WRITE;
	void *base;
	if (fd < 0)
		base = mmap(NULL, length, protection, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	else if (mirrored)
		base = map_mirrored(fd, length, protection);
	else
		base = mmap(NULL, length, protection, MAP_SHARED, fd, (off_t)file_offset);
	if (base == MAP_FAILED) {
		int failed = errno;
		give_back(number);
		return result_int(env, -failed);
	}
	window->base = base;
	window->length = mirrored ? 2 * length : length;
	window->mapped = whole_pages(window->length, page_size);
	window->protection = protection;
	window->is_dumped = !(flags & DONT_DUMP);
	if (!window->is_dumped)
		madvise(base, window->mapped, MADV_DONTDUMP);
	window->faults = 0;
	window->replaced = 0;
	atomic_store_explicit(&window->state, USED, memory_order_release);
	return result_int(env, number);
}

/* No finalizer: the mapping belongs to whoever calls windowUnmap. */
static napi_value buffer_over(napi_env env, uint8_t *bytes, size_t length)
{
	napi_value buffer;
	napi_status status = napi_create_external_arraybuffer(env, bytes, length, NULL, NULL, &buffer);
	return status == napi_ok ? buffer : result_int(env, -EOPNOTSUPP);
}

static napi_value window_buffer(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	struct window *window = window_find(arg_int(&call, 0));
	if (!call.ok)
		return NULL;
	if (window == NULL)
		return result_int(env, -EBADF);
	return buffer_over(env, window->base, window->length);
}

static napi_value window_part(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 3);
	int32_t number = arg_int(&call, 0);
	int32_t offset = arg_int(&call, 1);
	int32_t length = arg_int(&call, 2);
	if (!call.ok)
		return NULL;
	uint8_t *bytes = length < 1 ? NULL : window_range(number, offset, length);
	return bytes == NULL ? result_int(env, -EFAULT) : buffer_over(env, bytes, (size_t)length);
}

static napi_value window_detach(napi_env env, napi_callback_info info)
{
	struct call call;
	if (!call_begin(&call, env, info, 1))
		return NULL;
	bool is = false;
	napi_is_arraybuffer(env, call.argv[0], &is);
	if (!is) {
		fail_type(&call, 0, "an ArrayBuffer");
		return NULL;
	}
	return result_int(env, napi_detach_arraybuffer(env, call.argv[0]) == napi_ok ? 0 : -EINVAL);
}

static napi_value window_unmap(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	int32_t number = arg_int(&call, 0);
	struct window *window = window_find(number);
	if (!call.ok)
		return NULL;
	if (window == NULL || !claim(window, USED))
		return result_int(env, -EBADF);
	int result = munmap(window->base, window->mapped) == 0 ? 0 : -errno;
	give_back(number);
	return result_int(env, result);
}

static napi_value window_address(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	struct window *window = window_find(arg_int(&call, 0));
	if (!call.ok)
		return NULL;
	return window == NULL ? result_int(env, -EBADF)
			      : result_number(env, (double)(uintptr_t)window->base);
}

static napi_value window_length(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	struct window *window = window_find(arg_int(&call, 0));
	if (!call.ok)
		return NULL;
	return window == NULL ? result_int(env, -EBADF) : result_number(env, (double)window->length);
}

static napi_value window_faults(napi_env env, napi_callback_info info)
{
	struct call call;
	call_begin(&call, env, info, 1);
	struct window *window = window_find(arg_int(&call, 0));
	if (!call.ok)
		return NULL;
	return result_int(env, window == NULL ? -EBADF : atomic_exchange(&window->faults, 0));
}

static napi_value window_fault_counter(napi_env env, napi_callback_info info)
{
	(void)info;
	napi_value buffer;
	napi_status status = napi_create_external_arraybuffer(env, &all_faults, sizeof all_faults, NULL,
		NULL, &buffer);
	return status == napi_ok ? buffer : result_int(env, -EOPNOTSUPP);
}

void register_window(napi_env env, napi_value exports)
{
	export_function(env, exports, "windowFaultCounter", window_fault_counter);
	export_function(env, exports, "windowMap", window_map);
	export_function(env, exports, "windowBuffer", window_buffer);
	export_function(env, exports, "windowPart", window_part);
	export_function(env, exports, "windowDetach", window_detach);
	export_function(env, exports, "windowUnmap", window_unmap);
	export_function(env, exports, "windowAddress", window_address);
	export_function(env, exports, "windowLength", window_length);
	export_function(env, exports, "windowFaults", window_faults);
}

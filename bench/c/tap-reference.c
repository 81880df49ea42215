/*
 * The C reference: moves frames between two TAPs with batched non-blocking read and write, as an
 * honest plain C program does. Optionally captures every frame into a ring that a thread writes to
 * a file, with the same records as framepump's captures.
 *
 *   tap-reference VNET_HDR NETNS_A NETNS_B [CAPTURE_FILE SNAPLEN]
 *
 * Opens a TAP "x0" in each namespace. Prints "ready". Ends with SIGTERM, telling captured and
 * dropped frames. Measured choices: a batch of 32 was as good as 64; a short spin before poll(2)
 * helps when frames come steadily.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 32, SLOT = 69696, HEADER = 12, SPINS = 20, RING = 64 << 20 };

static uint8_t *slots;
static uint8_t *ring;
static _Atomic uint32_t ring_head, ring_tail;
static _Atomic int stopping;
static int capture_fd = -1;
static uint32_t snap_length;
static unsigned long captured, dropped;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int open_tap(const char *netns, int vnet_hdr)
{
	char path[256];
	int home = open("/proc/self/ns/net", O_RDONLY);
	snprintf(path, sizeof path, "/run/netns/%s", netns);
	int ns = open(path, O_RDONLY);
	if (ns < 0 || setns(ns, CLONE_NEWNET) != 0)
		die(netns);
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | (vnet_hdr ? IFF_VNET_HDR : 0) };
	strcpy(request.ifr_name, "x0");
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0)
		die("TUNSETIFF");
	int size = HEADER;
	if (vnet_hdr && (ioctl(fd, TUNSETVNETHDRSZ, &size) != 0 || ioctl(fd, TUNSETOFFLOAD, 0x7f) != 0))
		die("offloads");
	if (setns(home, CLONE_NEWNET) != 0)
		die("setns");
	close(ns);
	close(home);
	return fd;
}

/* The ring is mapped twice, one after the other, so that no record wraps. */
static void map_ring(void)
{
	int fd = memfd_create("ring", 0);
	if (fd < 0 || ftruncate(fd, RING) != 0)
		die("memfd");
	ring = mmap(NULL, 2ul * RING, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int half = 0; half < 2; half++)
		if (mmap(ring + (size_t)half * RING, RING, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			    fd, 0) == MAP_FAILED)
			die("mmap");
}

static void *write_ring(void *unused)
{
	(void)unused;
	for (;;) {
		int last = atomic_load(&stopping);
		uint32_t tail = atomic_load(&ring_tail);
		uint32_t waiting = atomic_load(&ring_head) - tail;
		if (waiting > 0) {
			size_t length = waiting < (1 << 20) ? waiting : (1 << 20);
			ssize_t done = write(capture_fd, ring + (tail & (RING - 1)), length);
			if (done < 0)
				die("capture");
			atomic_store(&ring_tail, tail + (uint32_t)done);
		} else if (last) {
			return NULL;
		} else {
			nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
		}
	}
}

/* One Enhanced Packet Block with its direction option. */
static void record(const uint8_t *frame, uint32_t length, uint32_t interface, uint32_t direction,
	uint64_t now)
{
	uint32_t take = length < snap_length ? length : snap_length;
	uint32_t total = 44 + ((take + 3) & ~3u);
	uint32_t head = atomic_load(&ring_head);
	if (RING - (head - atomic_load(&ring_tail)) < total) {
		dropped++;
		return;
	}
	uint32_t *to = (uint32_t *)(void *)(ring + (head & (RING - 1)));
	uint32_t *end = to + total / 4 - 4;
	to[0] = 6;
	to[1] = total;
	to[2] = interface;
	to[3] = (uint32_t)(now >> 32);
	to[4] = (uint32_t)now;
	to[5] = take;
	to[6] = length;
	end[-1] = 0;
	memcpy(to + 7, frame, take);
	end[0] = 2 | 4 << 16;
	end[1] = direction;
	end[2] = 0;
	end[3] = total;
	atomic_store(&ring_head, head + total);
	captured++;
}

static void stop(int signal)
{
	(void)signal;
	atomic_store(&stopping, 1);
}

int main(int argc, char **argv)
{
	if (argc != 4 && argc != 6)
		return 2;
	int vnet_hdr = atoi(argv[1]);
	int fds[2] = { open_tap(argv[2], vnet_hdr), open_tap(argv[3], vnet_hdr) };
	uint32_t header = vnet_hdr ? HEADER : 0;
	pthread_t writer;
	slots = mmap(NULL, (size_t)BATCH * SLOT, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	signal(SIGTERM, stop);
	if (argc == 6) {
		capture_fd = open(argv[4], O_WRONLY | O_CREAT | O_TRUNC, 0600);
		snap_length = (uint32_t)atol(argv[5]);
		map_ring();
		pthread_create(&writer, NULL, write_ring, NULL);
	}
	puts("ready");
	fflush(stdout);
	int spins = 0;
	while (!atomic_load(&stopping)) {
		int moved = 0;
		for (int from = 0; from < 2; from++) {
			ssize_t lengths[BATCH];
			int count = 0;
			while (count < BATCH) {
				ssize_t got = read(fds[from], slots + (size_t)count * SLOT, SLOT - 64);
				if (got <= (ssize_t)header)
					break;
				lengths[count++] = got;
			}
			uint64_t now = 0;
			if (capture_fd >= 0 && count > 0) {
				struct timespec clock;
				clock_gettime(CLOCK_REALTIME, &clock);
				now = (uint64_t)clock.tv_sec * 1000000000u + (uint64_t)clock.tv_nsec;
			}
			for (int k = 0; k < count; k++) {
				uint8_t *slot = slots + (size_t)k * SLOT;
				if (capture_fd >= 0) {
					uint32_t length = (uint32_t)lengths[k] - header;
					record(slot + header, length, (uint32_t)from, 1, now);
					record(slot + header, length, (uint32_t)(1 - from), 2, now);
				}
				if (write(fds[1 - from], slot, (size_t)lengths[k]) < 0 && errno != EIO)
					perror("write");
			}
			moved += count;
		}
		if (moved > 0) {
			spins = 0;
		} else if (++spins > SPINS) {
			struct pollfd items[2] = { { fds[0], POLLIN, 0 }, { fds[1], POLLIN, 0 } };
			poll(items, 2, -1);
			spins = 0;
		}
	}
	if (capture_fd >= 0)
		pthread_join(writer, NULL);
	printf("%lu frames captured, %lu dropped\n", captured, dropped);
	return 0;
}

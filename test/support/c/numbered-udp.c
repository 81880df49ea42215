/*
 * Numbered datagrams both ways between two of these, at a fixed rate, and what became of each, for tests.
 *
 *   numbered-udp ADDRESS PORT PEER PEERPORT RATE
 *
 * It prints "ready" once it listens, begins to send at SIGUSR1, and at SIGTERM sends a last message that says
 * how many there were. When the other side's has come as well, and nothing more for a while, it prints one line
 * of JSON and ends:
 *
 *   {"sent":N,"expected":N,"received":N,"duplicates":N,"overtaken":N,"corrupt":N,"silenceUs":N,"silentUntilUs":N,"gaps":[[from,to,us],..]}
 *
 * `expected` is -1 when the last message did not come, `overtaken` counts those behind a later one, `silenceUs` is the
 * longest time without any, `silentUntilUs` when that was over, and `gaps` has the numbers that were left out when a later one came, and when that was
 * (CLOCK_MONOTONIC). Message n is 8 bytes of header and filling of n, whose length goes up and down with n.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	NUMBERS_MAX = 1 << 24,
	GAPS_MAX = 64,
	LENGTH_MIN = 22,
	LENGTH_MAX = 1400,
	LENGTH_STEP = 97,
	/* Made up for at once when it was late; what is beyond that is sent later. */
	BURST_MAX = 32,
	TICK_MS = 2,
	/* After the last message: one that comes twice comes soon. */
	LINGER_US = 500000,
	/* Without a last message. */
	PATIENCE_US = 20000000,
};

struct header {
	uint32_t number;
	uint32_t is_last;
};

static unsigned char message[LENGTH_MAX];
static unsigned char seen[NUMBERS_MAX / 8];
static uint32_t gaps[GAPS_MAX][2];
static int64_t gap_times[GAPS_MAX];
static int gap_count;
static uint32_t next_number;
static int64_t expected = -1;
static long received, duplicates, overtaken, corrupt;
static int64_t last_us, silence_us, silent_until_us;
static volatile sig_atomic_t is_started, is_ending;

static void on_signal(int number)
{
	if (number == SIGUSR1)
		is_started = 1;
	else
		is_ending = 1;
}

static int64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static size_t length_of(uint32_t number)
{
	return LENGTH_MIN + (size_t)number * LENGTH_STEP % (LENGTH_MAX - LENGTH_MIN);
}

static unsigned char filling(uint32_t number, size_t at)
{
	return (unsigned char)(number * 31 + at);
}

static void send_message(int fd, uint32_t number, int is_last)
{
	struct header header = { number, (uint32_t)is_last };
	size_t length = length_of(number);
	for (size_t k = sizeof header; k < length; k++)
		message[k] = filling(number, k);
	memcpy(message, &header, sizeof header);
	if (send(fd, message, length, 0) < 0) {
		perror("send");
		exit(1);
	}
}

static void note(uint32_t number)
{
	if (number >= NUMBERS_MAX) {
		corrupt++;
		return;
	}
	if (seen[number / 8] & 1 << number % 8)
		duplicates++;
	else if (number < next_number)
		overtaken++;
	seen[number / 8] |= (unsigned char)(1 << number % 8);
	received++;
	if (number < next_number)
		return;
	if (number > next_number && gap_count < GAPS_MAX) {
		gaps[gap_count][0] = next_number;
		gaps[gap_count][1] = number - 1;
		gap_times[gap_count++] = last_us;
	}
	next_number = number + 1;
}

static void take(size_t length)
{
	struct header header;
	int64_t now = now_us();
	memcpy(&header, message, sizeof header);
	int is_whole = length >= sizeof header && length == length_of(header.number);
	for (size_t k = sizeof header; is_whole && k < length; k++)
		is_whole = message[k] == filling(header.number, k);
	if (last_us > 0 && now - last_us > silence_us) {
		silence_us = now - last_us;
		silent_until_us = now;
	}
	last_us = now;
	if (!is_whole)
		corrupt++;
	else if (header.is_last)
		expected = header.number;
	else
		note(header.number);
}

static void receive_all(int fd)
{
	for (;;) {
		ssize_t got = recv(fd, message, sizeof message, MSG_DONTWAIT);
		if (got < 0 && errno != EAGAIN) {
			perror("recv");
			exit(1);
		}
		if (got < 0)
			return;
		take((size_t)got);
	}
}

static int open_socket(char **argv)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int size = 16 << 20;
	for (int side = 0; side < 2; side++) {
		struct sockaddr_in address = { .sin_family = AF_INET,
			.sin_port = htons((uint16_t)atoi(argv[2 + 2 * side])) };
		inet_pton(AF_INET, argv[1 + 2 * side], &address.sin_addr);
		int result = side == 0 ? bind(fd, (struct sockaddr *)&address, sizeof address)
				       : connect(fd, (struct sockaddr *)&address, sizeof address);
		if (result != 0) {
			perror(side == 0 ? "bind" : "connect");
			exit(1);
		}
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
	return fd;
}

/* What is due by now; one that was late goes on from where it is. */
static uint32_t send_due(int fd, uint32_t sent, long rate, int64_t *start)
{
	int64_t now = now_us();
	if (*start == 0)
		*start = now;
	for (int burst = 0; (int64_t)sent * 1000000 <= (now - *start) * rate; burst++) {
		if (burst == BURST_MAX) {
			*start = now - (int64_t)sent * 1000000 / rate;
			break;
		}
		send_message(fd, sent++, 0);
	}
	return sent;
}

static void print_result(uint32_t sent)
{
	printf("{\"sent\":%u,\"expected\":%lld,\"received\":%ld,\"duplicates\":%ld,\"overtaken\":%ld,"
	       "\"corrupt\":%ld,\"silenceUs\":%lld,\"silentUntilUs\":%lld,\"gaps\":[",
	       sent, (long long)expected, received, duplicates, overtaken, corrupt, (long long)silence_us,
	       (long long)silent_until_us);
	for (int k = 0; k < gap_count; k++)
		printf("%s[%u,%u,%lld]", k == 0 ? "" : ",", gaps[k][0], gaps[k][1], (long long)gap_times[k]);
	puts("]}");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc != 6) {
		fprintf(stderr, "usage: numbered-udp ADDRESS PORT PEER PEERPORT RATE\n");
		return 2;
	}
	struct sigaction action = { .sa_handler = on_signal };
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	int fd = open_socket(argv);
	long rate = atol(argv[5]);
	uint32_t sent = 0;
	int64_t start = 0, end = 0;
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct pollfd item = { .fd = fd, .events = POLLIN };
		poll(&item, 1, TICK_MS);
		receive_all(fd);
		if (is_ending && end == 0) {
			end = now_us();
			send_message(fd, sent, 1);
		} else if (is_started && end == 0) {
			sent = send_due(fd, sent, rate, &start);
		}
		int64_t quiet = now_us() - (last_us > end ? last_us : end);
		if (end > 0 && quiet > (expected >= 0 ? LINGER_US : PATIENCE_US))
			break;
	}
	print_result(sent);
	return 0;
}

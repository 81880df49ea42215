/*
 * UDP with segmentation offload (UDP_SEGMENT), for tests. Both ends print the FNV-1a hash of all bytes.
 *
 *   udp-gso recv ADDRESS PORT BYTES
 *   udp-gso send ADDRESS PORT SEGMENT SENDS     each send is 20 datagrams, the last one shorter
 *
 * The receiver answers each datagram with the number of bytes so far; the sender waits for all of a
 * send before it goes on, so that nothing overflows. Before the first it sends empty datagrams until
 * there is an answer. Both give up after some seconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum { DATAGRAMS = 20, LAST = 100, PATIENCE_MS = 5000, RETRY_MS = 50, MESSAGE_MAX = 65536 };

static uint64_t hash = 0xcbf29ce484222325;
static unsigned char message[MESSAGE_MAX];

static void add(size_t length)
{
	for (size_t k = 0; k < length; k++)
		hash = (hash ^ message[k]) * 0x100000001b3;
}

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int receive(int fd, const struct addrinfo *at, uint64_t bytes)
{
	struct timeval patience = { .tv_sec = 4 * PATIENCE_MS / 1000 };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (bind(fd, at->ai_addr, at->ai_addrlen) != 0)
		return fail("bind");
	for (uint64_t done = 0; done < bytes;) {
		struct sockaddr_storage from;
		socklen_t size = sizeof from;
		ssize_t got = recvfrom(fd, message, sizeof message, 0, (struct sockaddr *)&from, &size);
		if (got < 0)
			return fail("recvfrom");
		add((size_t)got);
		done += (uint64_t)got;
		if (sendto(fd, &done, sizeof done, 0, (struct sockaddr *)&from, size) < 0)
			return fail("sendto");
	}
	return 0;
}

/* False: nobody is there. */
static int greet(int fd)
{
	for (int left = PATIENCE_MS; left > 0; left -= RETRY_MS) {
		struct pollfd item = { .fd = fd, .events = POLLIN };
		uint64_t answer;
		send(fd, message, 0, 0);
		if (poll(&item, 1, RETRY_MS) > 0 && recv(fd, &answer, sizeof answer, 0) > 0)
			return 1;
		/* A refusal comes at once. */
		usleep(RETRY_MS * 1000);
	}
	return 0;
}

static int transmit(int fd, const struct addrinfo *to, int segment, int sends)
{
	const size_t length = (size_t)segment * (DATAGRAMS - 1) + LAST;
	uint32_t x = 1;
	uint64_t sent = 0;
	uint64_t answered = 0;
	if (connect(fd, to->ai_addr, to->ai_addrlen) != 0)
		return fail("connect");
	if (!greet(fd))
		return fail("no answer");
	if (setsockopt(fd, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment) != 0)
		return fail("UDP_SEGMENT");
	for (int n = 0; n < sends; n++) {
		for (size_t k = 0; k < length; k++)
			message[k] = (unsigned char)((x = x * 1664525 + 1013904223) >> 24);
		add(length);
		if (send(fd, message, length, 0) < 0)
			return fail("send");
		sent += length;
		while (answered < sent) {
			struct pollfd item = { .fd = fd, .events = POLLIN };
			if (poll(&item, 1, PATIENCE_MS) <= 0) {
				fprintf(stderr, "%llu of %llu bytes were answered\n",
					(unsigned long long)answered, (unsigned long long)sent);
				return 1;
			}
			if (recv(fd, &answered, sizeof answered, 0) < 0)
				return fail("recv");
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_DGRAM };
	struct addrinfo *address;
	int is_sender = argc == 6 && strcmp(argv[1], "send") == 0;
	if (!is_sender && !(argc == 5 && strcmp(argv[1], "recv") == 0)) {
		fprintf(stderr, "usage: udp-gso send ADDRESS PORT SEGMENT SENDS | recv ADDRESS PORT BYTES\n");
		return 2;
	}
	if (getaddrinfo(argv[2], argv[3], &hints, &address) != 0)
		return fail(argv[2]);
	int fd = socket(address->ai_family, SOCK_DGRAM, 0);
	if (fd < 0)
		return fail("socket");
	int status = is_sender ? transmit(fd, address, atoi(argv[4]), atoi(argv[5]))
			       : receive(fd, address, strtoull(argv[4], NULL, 10));
	printf("%016llx\n", (unsigned long long)hash);
	return status;
}

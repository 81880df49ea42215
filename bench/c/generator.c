/*
 * Sends equal frames: AF_PACKET, past the qdisc. As fast as it goes, 64 frames a call; or at a rate
 * (frames a second), 4 frames a call: what it could not send in time, as it had no processor, is left out. It
 * would be a burst at a rate of its own, of which queues take 1000 frames.
 *
 *   generator IFNAME LENGTH SECONDS DSTMAC [RATE]     prints the frames sent
 *
 * Ethertype 0x88b5, so that the receiver's stack discards them early.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, BATCH_PACED = 4 };

/* Seconds for which frames are made up for: a sleep takes some longer than it should. */
static const double LATE_MAX = 0.001;

/* Sleeps until so many seconds after the start. */
static void sleep_until(struct timespec start, double seconds)
{
	long ns = start.tv_nsec + (long)((seconds - (double)(long)seconds) * 1e9);
	struct timespec due = { start.tv_sec + (long)seconds + ns / 1000000000, ns % 1000000000 };
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

int main(int argc, char **argv)
{
	static unsigned char frame[65600];
	struct mmsghdr messages[BATCH];
	unsigned mac[6];
	if (argc != 5 && argc != 6)
		return 2;
	double rate = argc == 6 ? atof(argv[5]) : 0;
	unsigned batch = rate > 0 ? BATCH_PACED : BATCH;
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	struct sockaddr_ll address = { .sll_family = AF_PACKET,
		.sll_ifindex = (int)if_nametoindex(argv[1]) };
	int on = 1;
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on) != 0) {
		perror("socket");
		return 1;
	}
	struct iovec part = { frame, (size_t)atol(argv[2]) };
	sscanf(argv[4], "%x:%x:%x:%x:%x:%x", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5);
	for (int k = 0; k < 6; k++)
		frame[k] = (unsigned char)mac[k];
	memcpy(frame + 6, "\x02\x00\x00\x00\x00\x01\x88\xb5", 8);
	memset(messages, 0, sizeof messages);
	for (int k = 0; k < BATCH; k++) {
		messages[k].msg_hdr.msg_iov = &part;
		messages[k].msg_hdr.msg_iovlen = 1;
	}
	struct timespec start;
	struct timespec now;
	double elapsed;
	long sent = 0;
	double left_out = 0;
	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		int done = sendmmsg(fd, messages, batch, 0);
		if (done > 0)
			sent += done;
		if (rate > 0)
			sleep_until(start, ((double)sent + left_out) / rate);
		clock_gettime(CLOCK_MONOTONIC, &now);
		elapsed = (double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9;
		double late = elapsed - ((double)sent + left_out) / rate;
		if (rate > 0 && late > LATE_MAX)
			left_out += (late - LATE_MAX) * rate;
	} while (elapsed < atof(argv[3]));
	printf("%ld\n", sent);
	return 0;
}

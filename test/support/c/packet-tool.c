/*
 * Sends and receives raw Ethernet frames on an interface, for tests.
 *
 *   packet-tool send IFNAME [vnet]     frames as hex lines on standard input, paced; vnet: each behind a
 *                                      vnet_hdr of 10 bytes
 *   packet-tool recv IFNAME COUNT MS [all|tags]   prints hex lines: frames with ethertype 0x88b5, or all;
 *                                      tags: all, with the VLAN tag that the kernel has taken out
 *   packet-tool flood IFNAME COUNT LENGTH DSTMAC   numbered frames, 64 per call, prints the count
 *
 * recv prints "ready" first, then ends after COUNT frames or, when its standard input has ended, MS milliseconds
 * without one; what has come is printed before it waits. A frame that the interface refuses is told on standard error
 * by send, which goes on and fails in the end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/if_ether.h>
#include <time.h>
#include <unistd.h>

enum { FRAME_MAX = 70000, ETHERTYPE = 0x88b5, BATCH = 64 };

static int open_socket(const char *ifname, int protocol)
{
	int fd = socket(AF_PACKET, SOCK_RAW, htons(protocol));
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(protocol),
		.sll_ifindex = (int)if_nametoindex(ifname) };
	struct packet_mreq promiscuous = { .mr_ifindex = address.sll_ifindex,
		.mr_type = PACKET_MR_PROMISC };
	int size = 64 << 20;
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
		perror(ifname);
		exit(1);
	}
	setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
	return fd;
}

static int send_lines(const char *ifname, int has_header)
{
	static char line[2 * FRAME_MAX + 2];
	static unsigned char frame[FRAME_MAX];
	int fd = open_socket(ifname, 0);
	int status = 0;
	if (has_header && setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &has_header, sizeof has_header) != 0) {
		perror("PACKET_VNET_HDR");
		return 1;
	}
	/* Slow enough that a TAP queue of 1000 frames never overflows while its reader is busy. */
	const struct timespec pause = { .tv_nsec = 300000 };
	int sent = 0;
	while (fgets(line, sizeof line, stdin) != NULL) {
		size_t length = strcspn(line, "\r\n") / 2;
		for (size_t k = 0; k < length; k++) {
			unsigned byte;
			sscanf(line + 2 * k, "%2x", &byte);
			frame[k] = (unsigned char)byte;
		}
		if (length > 0 && send(fd, frame, length, 0) < 0) {
			perror("send");
			status = 1;
		}
		if (++sent % 16 == 0)
			nanosleep(&pause, NULL);
	}
	return status;
}

/* Prints the tag that the kernel took out behind the addresses; returns how many bytes it has printed. */
static ssize_t print_tagged(struct msghdr *message, const unsigned char *frame)
{
	const struct cmsghdr *control = CMSG_FIRSTHDR(message);
	struct tpacket_auxdata data;
	if (control == NULL || control->cmsg_type != PACKET_AUXDATA)
		return 0;
	memcpy(&data, CMSG_DATA(control), sizeof data);
	if ((data.tp_status & TP_STATUS_VLAN_VALID) == 0)
		return 0;
	for (int k = 0; k < 12; k++)
		printf("%02x", frame[k]);
	printf("%04x%04x", data.tp_vlan_tpid, data.tp_vlan_tci);
	return 12;
}

static int receive(const char *ifname, long count, int patience, int protocol, int with_tags)
{
	static unsigned char frame[FRAME_MAX];
	int fd = open_socket(ifname, protocol);
	setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &with_tags, sizeof with_tags);
	puts("ready");
	fflush(stdout);
	int is_over = 0;
	while (count > 0) {
		struct pollfd items[] = { { .fd = fd, .events = POLLIN },
			{ .fd = is_over ? -1 : STDIN_FILENO, .events = POLLIN } };
		int ready = poll(items, 2, 0);
		if (ready == 0) {
			fflush(stdout);
			ready = poll(items, 2, is_over ? patience : -1);
		}
		if (ready <= 0)
			break;
		if (items[1].revents != 0)
			is_over = 1;
		if (items[0].revents == 0)
			continue;
		struct sockaddr_ll from;
		struct iovec part = { frame, sizeof frame };
		char control[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
		struct msghdr message = { .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part,
			.msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
		ssize_t got = recvmsg(fd, &message, 0);
		if (got <= 0 || from.sll_pkttype == PACKET_OUTGOING)
			continue;
		for (ssize_t k = print_tagged(&message, frame); k < got; k++)
			printf("%02x", frame[k]);
		putchar('\n');
		count--;
	}
	return 0;
}

static int flood(const char *ifname, long count, size_t length, const char *mac)
{
	static unsigned char frames[BATCH][2048];
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	unsigned to[6];
	int fd = open_socket(ifname, 0);
	int on = 1;
	setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on);
	sscanf(mac, "%x:%x:%x:%x:%x:%x", to, to + 1, to + 2, to + 3, to + 4, to + 5);
	memset(messages, 0, sizeof messages);
	for (int k = 0; k < BATCH; k++) {
		for (int byte = 0; byte < 6; byte++)
			frames[k][byte] = (unsigned char)to[byte];
		memcpy(frames[k] + 6, "\x02\x00\x00\x00\x00\x01\x88\xb5", 8);
		parts[k] = (struct iovec){ frames[k], length };
		messages[k].msg_hdr.msg_iov = &parts[k];
		messages[k].msg_hdr.msg_iovlen = 1;
	}
	long sent = 0;
	while (sent < count) {
		unsigned batch = count - sent < BATCH ? (unsigned)(count - sent) : BATCH;
		int done = sendmmsg(fd, messages, batch, 0);
		if (done < 0 && errno != ENOBUFS) {
			perror("sendmmsg");
			return 1;
		}
		if (done > 0)
			sent += done;
	}
	printf("%ld\n", sent);
	return 0;
}

int main(int argc, char **argv)
{
	if ((argc == 3 || argc == 4) && strcmp(argv[1], "send") == 0)
		return send_lines(argv[2], argc == 4);
	if ((argc == 5 || argc == 6) && strcmp(argv[1], "recv") == 0)
		return receive(argv[2], atol(argv[3]), atoi(argv[4]), argc == 6 ? ETH_P_ALL : ETHERTYPE,
			argc == 6 && strcmp(argv[5], "tags") == 0);
	if (argc == 6 && strcmp(argv[1], "flood") == 0)
		return flood(argv[2], atol(argv[3]), (size_t)atol(argv[4]), argv[5]);
	fprintf(stderr, "usage: packet-tool send|recv|flood IFNAME ...\n");
	return 2;
}

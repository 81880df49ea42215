/*
 * The C reference of the raw rows: moves frames between two interfaces by packet sockets, as an honest
 * plain C program does. It reads from a TPACKET_V2 ring and sends from the ring's slot.
 *
 *   raw-reference VNET_HDR IFNAME_A IFNAME_B
 *
 * The interfaces are in its own namespace. Prints "ready". Ends with SIGTERM. Measured choices: a ring
 * costs 50 ns a frame where recvmmsg costs 850 and io_uring 1400; slots for whole 64 KiB frames beat
 * slots of 2 KiB with PACKET_COPY_THRESH by a third; TPACKET_V3 keeps a lone frame for a millisecond;
 * sendmmsg is as good as io_uring, and a send ring is three times as dear with 64 KiB. packet(7).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum {
	BATCH = 64,
	SPINS = 20,
	TAG = 4,
	MACS = 12,
	SLOT_SMALL = 2048,
	/* 64 KiB with the kernel's header, vnet_hdr and reserve; 16 of them are whole pages. */
	SLOT_LARGE = 65536 + 256,
	SLOTS_PER_BLOCK = 16,
	SLOTS_SMALL = 2048,
	SLOTS_LARGE = 256,
};

struct port {
	int fd;
	uint8_t *ring;
	unsigned next;
};

static unsigned slots, slot_size;
static size_t header;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void set(int fd, int level, int option, int value)
{
	if (setsockopt(fd, level, option, &value, sizeof value) != 0)
		die("setsockopt");
}

static struct port open_port(const char *ifname)
{
	struct port port = { .fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0) };
	if (port.fd < 0)
		die("socket");
	/* Before the ring: the kernel refuses these after it. */
	set(port.fd, SOL_PACKET, PACKET_VERSION, TPACKET_V2);
	set(port.fd, SOL_PACKET, PACKET_RESERVE, TAG);
	if (header > 0)
		set(port.fd, SOL_PACKET, PACKET_VNET_HDR, 1);
	set(port.fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
	set(port.fd, SOL_SOCKET, SO_SNDBUFFORCE, 16 << 20);
	struct tpacket_req request = {
		.tp_block_size = slot_size * SLOTS_PER_BLOCK,
		.tp_block_nr = slots / SLOTS_PER_BLOCK,
		.tp_frame_size = slot_size,
		.tp_frame_nr = slots,
	};
	if (setsockopt(port.fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof request) != 0)
		die("PACKET_RX_RING");
	port.ring = mmap(NULL, (size_t)slots * slot_size, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_POPULATE, port.fd, 0);
	if (port.ring == MAP_FAILED)
		die("mmap");
	struct sockaddr_ll address = { .sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)if_nametoindex(ifname) };
	if (bind(port.fd, (struct sockaddr *)&address, sizeof address) != 0)
		die(ifname);
	struct packet_mreq all = { .mr_ifindex = address.sll_ifindex, .mr_type = PACKET_MR_PROMISC };
	if (setsockopt(port.fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all) != 0)
		die("PACKET_ADD_MEMBERSHIP");
	return port;
}

/* Puts the tag back that the kernel took out: what is before it moves to the left, into the reserve. */
static uint8_t *put_tag_back(uint8_t *start, const struct tpacket2_hdr *slot)
{
	memmove(start - TAG, start, header + MACS);
	start -= TAG;
	uint16_t tag[2] = { htons(slot->tp_vlan_tpid), htons(slot->tp_vlan_tci) };
	memcpy(start + header + MACS, tag, TAG);
	if (header > 0) {
		struct virtio_net_hdr vnet;
		memcpy(&vnet, start, sizeof vnet);
		if (vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
			vnet.csum_start += TAG;
		if (vnet.gso_type != VIRTIO_NET_HDR_GSO_NONE)
			vnet.hdr_len += TAG;
		memcpy(start, &vnet, sizeof vnet);
	}
	return start;
}

/* Sends what waits in a port's ring through the other port, and gives the slots back. */
static unsigned forward(struct port *from, const struct port *to)
{
	static struct mmsghdr messages[BATCH];
	static struct iovec parts[BATCH];
	unsigned taken = 0;
	unsigned whole = 0;
	for (; taken < BATCH; taken++) {
		uint8_t *at = from->ring + (size_t)((from->next + taken) % slots) * slot_size;
		struct tpacket2_hdr *slot = (struct tpacket2_hdr *)(void *)at;
		uint32_t status = __atomic_load_n(&slot->tp_status, __ATOMIC_ACQUIRE);
		if (!(status & TP_STATUS_USER))
			break;
		/* Larger than a slot: what is there is no whole frame. */
		if (slot->tp_snaplen < slot->tp_len)
			continue;
		uint8_t *start = at + slot->tp_mac - header;
		size_t length = header + slot->tp_snaplen;
		if (status & TP_STATUS_VLAN_VALID) {
			start = put_tag_back(start, slot);
			length += TAG;
		}
		parts[whole] = (struct iovec){ start, length };
		messages[whole].msg_hdr.msg_iov = &parts[whole];
		messages[whole].msg_hdr.msg_iovlen = 1;
		whole++;
	}
	for (unsigned sent = 0; sent < whole;) {
		int done = sendmmsg(to->fd, messages + sent, whole - sent, MSG_DONTWAIT);
		/* One that is not taken is lost, as with a switch. */
		sent += done > 0 ? (unsigned)done : 1;
	}
	for (unsigned k = 0; k < taken; k++) {
		uint8_t *at = from->ring + (size_t)from->next * slot_size;
		__atomic_store_n(&((struct tpacket2_hdr *)(void *)at)->tp_status, TP_STATUS_KERNEL,
			__ATOMIC_RELEASE);
		from->next = (from->next + 1) % slots;
	}
	return taken;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	int has_vnet_hdr = atoi(argv[1]);
	header = has_vnet_hdr ? sizeof(struct virtio_net_hdr) : 0;
	slots = has_vnet_hdr ? SLOTS_LARGE : SLOTS_SMALL;
	slot_size = has_vnet_hdr ? SLOT_LARGE : SLOT_SMALL;
	struct port a = open_port(argv[2]);
	struct port b = open_port(argv[3]);
	puts("ready");
	fflush(stdout);
	for (int spins = 0;;) {
		if (forward(&a, &b) + forward(&b, &a) > 0) {
			spins = 0;
		} else if (++spins > SPINS) {
			struct pollfd items[2] = { { a.fd, POLLIN, 0 }, { b.fd, POLLIN, 0 } };
			if (poll(items, 2, -1) < 0 && errno != EINTR)
				die("poll");
			spins = 0;
		}
	}
}

/** Packet sockets. packet(7); linux/if_packet.h, linux/if_ether.h, linux/if_arp.h; names as there. */
export const ETH_P_ALL = 0x0003
export const ARPHRD_ETHER = 1
export const ARPHRD_LOOPBACK = 772

export const SOL_SOCKET = 1
export const SO_TYPE = 3
export const SO_ERROR = 4
export const SO_SNDBUF = 7
export const SO_RCVBUF = 8
export const SO_SNDBUFFORCE = 32
export const SO_NETNS_COOKIE = 71
export const SOCK_RAW = 3

export const SOL_PACKET = 263
export const PACKET_ADD_MEMBERSHIP = 1
export const PACKET_DROP_MEMBERSHIP = 2
export const PACKET_RX_RING = 5
export const PACKET_STATISTICS = 6
export const PACKET_VERSION = 10
export const PACKET_RESERVE = 12
export const PACKET_VNET_HDR = 15
export const PACKET_FANOUT = 18
export const PACKET_QDISC_BYPASS = 20
export const PACKET_IGNORE_OUTGOING = 23
/** Linux 6.6. */
export const PACKET_VNET_HDR_SZ = 24

export const PACKET_MR_PROMISC = 1
/** struct packet_mreq: i32 ifindex, u16 type, u16 length of the address, 8 bytes of it. */
export const PACKET_MREQ_LENGTH = 16

export const PACKET_FANOUT_HASH = 0
/** The kernel chooses a number that nobody has. Linux 4.12. */
export const PACKET_FANOUT_FLAG_UNIQUEID = 0x2000

export const TPACKET_V2 = 1
/** struct tpacket_req: u32 block size, blocks, frame size, frames. */
export const TPACKET_REQ_LENGTH = 16
/**
 * struct tpacket2_hdr, at the beginning of each frame of a ring: offsets of its fields in bytes. The
 * struct sockaddr_ll stands behind it, and behind that, from `tp_mac` on, the frame.
 */
export const TP_STATUS = 0
export const TP_LEN = 4
export const TP_SNAPLEN = 8
export const TP_MAC = 12
export const TP_VLAN_TCI = 24
export const TP_VLAN_TPID = 26
/** Offset of sll_pkttype of the struct sockaddr_ll. */
export const TP_PKTTYPE = 42
/** TPACKET_ALIGN(sizeof(struct tpacket2_hdr)) + sizeof(struct sockaddr_ll) */
export const TPACKET2_HDRLEN = 52

export const TP_STATUS_KERNEL = 0
export const TP_STATUS_USER = 1
export const TP_STATUS_LOSING = 4
export const TP_STATUS_CSUMNOTREADY = 8
export const TP_STATUS_VLAN_VALID = 0x10
export const TP_STATUS_VLAN_TPID_VALID = 0x40

/** Of sll_pkttype: sent by this machine. */
export const PACKET_OUTGOING = 4

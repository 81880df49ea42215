/** virtio_net_hdr, device config and control commands of a network device. linux/virtio_net.h, names
 *  as there; VIRTIO 1.3 §5.1. The header is native endian on a TAP (TUNSETVNETLE not set), which is
 *  little-endian on the machines we run on; everything else is little-endian. */
export const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1
export const VIRTIO_NET_HDR_F_DATA_VALID = 2
/** Of a UDP-tunnelled GSO frame: the outer UDP checksum is wanted too. */
export const VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM = 8

export const VIRTIO_NET_HDR_GSO_NONE = 0
export const VIRTIO_NET_HDR_GSO_TCPV4 = 1
export const VIRTIO_NET_HDR_GSO_UDP = 3
export const VIRTIO_NET_HDR_GSO_TCPV6 = 4
export const VIRTIO_NET_HDR_GSO_UDP_L4 = 5
/** At most one of these two, beside the type of the inner frame. */
export const VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV4 = 0x20
export const VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV6 = 0x40
export const VIRTIO_NET_HDR_GSO_ECN = 0x80

/** Offsets: u8 flags, u8 gso_type, u16 hdr_len, u16 gso_size, u16 csum_start, u16 csum_offset. */
export const VNET_HDR_LENGTH = 10
/** With num_buffers (VIRTIO_NET_F_MRG_RXBUF or VERSION_1). */
export const VNET_HDR_MRG_LENGTH = 12
/** Then u32 hash_value, u16 hash_report, u16 padding: virtio_net_hdr_v1_hash. */
export const VNET_HDR_HASH_LENGTH = 20
/** Then le16 outer_th_offset, le16 inner_nh_offset: virtio_net_hdr_v1_hash_tunnel. */
export const VNET_HDR_TUNNEL_LENGTH = 24
/** Offsets of what stands behind csum_offset. */
export const VNET_HDR_NUM_BUFFERS = 10
export const VNET_HDR_HASH_VALUE = 12
export const VNET_HDR_HASH_REPORT = 16
export const VNET_HDR_OUTER_TH_OFFSET = 20

/** Values of hash_report: on which part of the frame hash_value was calculated. */
export const VIRTIO_NET_HASH_REPORT_NONE = 0
export const VIRTIO_NET_HASH_REPORT_IPv4 = 1
export const VIRTIO_NET_HASH_REPORT_TCPv4 = 2
export const VIRTIO_NET_HASH_REPORT_UDPv4 = 3
export const VIRTIO_NET_HASH_REPORT_IPv6 = 4
export const VIRTIO_NET_HASH_REPORT_TCPv6 = 5
export const VIRTIO_NET_HASH_REPORT_UDPv6 = 6

/** Masks of hash types, in supported_hash_types and in the commands. */
export const VIRTIO_NET_RSS_HASH_TYPE_IPv4 = 0x001
export const VIRTIO_NET_RSS_HASH_TYPE_TCPv4 = 0x002
export const VIRTIO_NET_RSS_HASH_TYPE_UDPv4 = 0x004
export const VIRTIO_NET_RSS_HASH_TYPE_IPv6 = 0x008
export const VIRTIO_NET_RSS_HASH_TYPE_TCPv6 = 0x010
export const VIRTIO_NET_RSS_HASH_TYPE_UDPv6 = 0x020
export const VIRTIO_NET_RSS_HASH_TYPE_IP_EX = 0x040
export const VIRTIO_NET_RSS_HASH_TYPE_TCP_EX = 0x080
export const VIRTIO_NET_RSS_HASH_TYPE_UDP_EX = 0x100

/** Offsets in struct virtio_net_config: u8 mac[6] first, u8 duplex and u8 rss_max_key_size alone. */
export const VIRTIO_NET_CONFIG_MAC = 0
export const VIRTIO_NET_CONFIG_STATUS = 6
export const VIRTIO_NET_CONFIG_MAX_VIRTQUEUE_PAIRS = 8
export const VIRTIO_NET_CONFIG_MTU = 10
export const VIRTIO_NET_CONFIG_SPEED = 12
export const VIRTIO_NET_CONFIG_DUPLEX = 16
export const VIRTIO_NET_CONFIG_RSS_MAX_KEY_SIZE = 17
export const VIRTIO_NET_CONFIG_RSS_MAX_INDIRECTION_TABLE_LENGTH = 18
export const VIRTIO_NET_CONFIG_SUPPORTED_HASH_TYPES = 20
export const VIRTIO_NET_CONFIG_LENGTH = 24
/** Masks in its `status`. */
export const VIRTIO_NET_S_LINK_UP = 1
export const VIRTIO_NET_S_ANNOUNCE = 2

/** A command on the control queue: u8 class, u8 cmd, data; the device answers with one u8. */
export const VIRTIO_NET_CTRL_HDR_LENGTH = 2
export const VIRTIO_NET_OK = 0
export const VIRTIO_NET_ERR = 1

/** Data: u8. */
export const VIRTIO_NET_CTRL_RX = 0
export const VIRTIO_NET_CTRL_RX_PROMISC = 0
export const VIRTIO_NET_CTRL_RX_ALLMULTI = 1
export const VIRTIO_NET_CTRL_RX_ALLUNI = 2
export const VIRTIO_NET_CTRL_RX_NOMULTI = 3
export const VIRTIO_NET_CTRL_RX_NOUNI = 4
export const VIRTIO_NET_CTRL_RX_NOBCAST = 5

export const VIRTIO_NET_CTRL_MAC = 1
/** Data: twice u32 entries, u8 macs[entries][6]; unicast, then multicast. */
export const VIRTIO_NET_CTRL_MAC_TABLE_SET = 0
/** Data: u8 mac[6]. */
export const VIRTIO_NET_CTRL_MAC_ADDR_SET = 1

/** Data: u16 id. */
export const VIRTIO_NET_CTRL_VLAN = 2
export const VIRTIO_NET_CTRL_VLAN_ADD = 0
export const VIRTIO_NET_CTRL_VLAN_DEL = 1

export const VIRTIO_NET_CTRL_ANNOUNCE = 3
export const VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0

export const VIRTIO_NET_CTRL_MQ = 4
/** Data: u16 virtqueue_pairs. */
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN = 1
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX = 0x8000
/** Data: u32 hash_types, u16 indirection_table_mask, u16 unclassified_queue, u16 table[mask + 1],
 *  u16 max_tx_vq, u8 hash_key_length, u8 key[hash_key_length]. */
export const VIRTIO_NET_CTRL_MQ_RSS_CONFIG = 1
/** Data: u32 hash_types, u16 reserved[4], u8 hash_key_length, u8 key[hash_key_length]. */
export const VIRTIO_NET_CTRL_MQ_HASH_CONFIG = 2

export const VIRTIO_NET_CTRL_GUEST_OFFLOADS = 5
/** Data: u64, a set of the bits of the GUEST_* features, the tunnel ones mapped to these. */
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET = 0
export const VIRTIO_NET_O_GUEST_UDP_TUNNEL_GSO_MAPPED = 46
export const VIRTIO_NET_O_GUEST_UDP_TUNNEL_GSO_CSUM_MAPPED = 47

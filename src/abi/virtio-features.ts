/**
 * Feature bit NUMBERS of a network device and its transport: names as in linux/virtio_net.h,
 * linux/virtio_config.h, linux/virtio_ring.h and linux/vhost.h; meanings VIRTIO 1.3 §5.1.3 and §6.
 * A set of features is a bigint: bits above 63 exist.
 */
export const VIRTIO_NET_F_CSUM = 0
export const VIRTIO_NET_F_GUEST_CSUM = 1
export const VIRTIO_NET_F_CTRL_GUEST_OFFLOADS = 2
export const VIRTIO_NET_F_MTU = 3
export const VIRTIO_NET_F_MAC = 5
/** Legacy only. */
export const VIRTIO_NET_F_GSO = 6
export const VIRTIO_NET_F_GUEST_TSO4 = 7
export const VIRTIO_NET_F_GUEST_TSO6 = 8
export const VIRTIO_NET_F_GUEST_ECN = 9
export const VIRTIO_NET_F_GUEST_UFO = 10
export const VIRTIO_NET_F_HOST_TSO4 = 11
export const VIRTIO_NET_F_HOST_TSO6 = 12
export const VIRTIO_NET_F_HOST_ECN = 13
export const VIRTIO_NET_F_HOST_UFO = 14
export const VIRTIO_NET_F_MRG_RXBUF = 15
export const VIRTIO_NET_F_STATUS = 16
export const VIRTIO_NET_F_CTRL_VQ = 17
export const VIRTIO_NET_F_CTRL_RX = 18
export const VIRTIO_NET_F_CTRL_VLAN = 19
export const VIRTIO_NET_F_CTRL_RX_EXTRA = 20
export const VIRTIO_NET_F_GUEST_ANNOUNCE = 21
export const VIRTIO_NET_F_MQ = 22
export const VIRTIO_NET_F_CTRL_MAC_ADDR = 23
export const VIRTIO_NET_F_VQ_NOTF_COAL = 52
export const VIRTIO_NET_F_NOTF_COAL = 53
export const VIRTIO_NET_F_GUEST_USO4 = 54
export const VIRTIO_NET_F_GUEST_USO6 = 55
export const VIRTIO_NET_F_HOST_USO = 56
export const VIRTIO_NET_F_HASH_REPORT = 57
export const VIRTIO_NET_F_GUEST_HDRLEN = 59
export const VIRTIO_NET_F_RSS = 60
export const VIRTIO_NET_F_RSC_EXT = 61
export const VIRTIO_NET_F_STANDBY = 62
export const VIRTIO_NET_F_SPEED_DUPLEX = 63
export const VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO = 65
export const VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM = 66
export const VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO = 67
export const VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO_CSUM = 68

export const VIRTIO_F_NOTIFY_ON_EMPTY = 24
export const VIRTIO_F_ANY_LAYOUT = 27
export const VIRTIO_RING_F_INDIRECT_DESC = 28
export const VIRTIO_RING_F_EVENT_IDX = 29
export const VIRTIO_F_VERSION_1 = 32
export const VIRTIO_F_ACCESS_PLATFORM = 33
export const VIRTIO_F_RING_PACKED = 34
export const VIRTIO_F_IN_ORDER = 35
export const VIRTIO_F_ORDER_PLATFORM = 36
export const VIRTIO_F_SR_IOV = 37
export const VIRTIO_F_NOTIFICATION_DATA = 38
export const VIRTIO_F_RING_RESET = 40

/** Between vhost front-end and back-end only; a driver never sees these two. */
export const VHOST_F_LOG_ALL = 26
export const VHOST_USER_F_PROTOCOL_FEATURES = 30

/** The set of these bit numbers. */
export function featureMask(...bits: readonly number[]): bigint {
  return bits.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n)
}

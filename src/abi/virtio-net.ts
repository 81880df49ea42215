/** struct virtio_net_hdr as a TAP carries it. linux/virtio_net.h; VIRTIO 1.3 §5.1.6; native endian
 *  on a TAP (TUNSETVNETLE not set), which is little-endian on the machines we run on. */
export const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1
export const VIRTIO_NET_HDR_F_DATA_VALID = 2

export const VIRTIO_NET_HDR_GSO_NONE = 0
export const VIRTIO_NET_HDR_GSO_TCPV4 = 1
export const VIRTIO_NET_HDR_GSO_UDP = 3
export const VIRTIO_NET_HDR_GSO_TCPV6 = 4
export const VIRTIO_NET_HDR_GSO_UDP_L4 = 5
export const VIRTIO_NET_HDR_GSO_ECN = 0x80

/** Offsets: u8 flags, u8 gso_type, u16 hdr_len, u16 gso_size, u16 csum_start, u16 csum_offset. */
export const VNET_HDR_LENGTH = 10
/** With num_buffers (VIRTIO_NET_F_MRG_RXBUF or VERSION_1): the size framepump sets on its TAPs. */
export const VNET_HDR_MRG_LENGTH = 12

/** Features that every virtio-net device of ours offers, and those that depend on the other ports. */
import {
  featureMask,
  VIRTIO_F_ANY_LAYOUT,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_USO,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../abi/virtio-features.ts'
import {
  TUN_F_CSUM,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_TSO_ECN,
  TUN_F_USO4,
  TUN_F_USO6,
} from '../abi/if-tun.ts'

/** What the data plane can do for any driver. */
export const PLAIN_FEATURES: bigint = featureMask(
  VIRTIO_F_VERSION_1,
  VIRTIO_F_ANY_LAYOUT,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
  VIRTIO_RING_F_INDIRECT_DESC,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
)

/** What a driver may leave undone, as long as everybody who gets its frames can take that. */
const HOST_FEATURES: readonly (readonly [offloads: number, bit: number])[] = [
  [TUN_F_CSUM, VIRTIO_NET_F_CSUM],
  [TUN_F_TSO4, VIRTIO_NET_F_HOST_TSO4],
  [TUN_F_TSO6, VIRTIO_NET_F_HOST_TSO6],
  [TUN_F_TSO_ECN, VIRTIO_NET_F_HOST_ECN],
  [TUN_F_USO4 | TUN_F_USO6, VIRTIO_NET_F_HOST_USO],
]

export const HOST_MASK: bigint = featureMask(...HOST_FEATURES.map(([, bit]) => bit))

/** The features for TUN_F_* bits that all receivers can take. */
export function hostFeatures(offloads: number): bigint {
  const bits = HOST_FEATURES.filter(([needed]) => (offloads & needed) === needed)
  return featureMask(...bits.map(([, bit]) => bit))
}

/**
 * What follows from a set of virtio-net features: pure functions on bigint sets of the bits in
 * abi/virtio-features.ts. `negotiated` is what device and driver agreed on.
 *
 * Sources: VIRTIO 1.3 §5.1.3 and §5.1.6.1; for what a peer (a TAP, say) takes away, QEMU's
 * behaviour.
 */
import {
  TUN_F_CSUM,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_TSO_ECN,
  TUN_F_UDP_TUNNEL_GSO,
  TUN_F_UDP_TUNNEL_GSO_CSUM,
  TUN_F_UFO,
  TUN_F_USO4,
  TUN_F_USO6,
} from '../../abi/if-tun.ts'
import * as bits from '../../abi/virtio-features.ts'
import {
  VIRTIO_NET_O_GUEST_UDP_TUNNEL_GSO_CSUM_MAPPED,
  VIRTIO_NET_O_GUEST_UDP_TUNNEL_GSO_MAPPED,
  VNET_HDR_HASH_LENGTH,
  VNET_HDR_LENGTH,
  VNET_HDR_MRG_LENGTH,
  VNET_HDR_TUNNEL_LENGTH,
} from '../../abi/virtio-net.ts'

const { featureMask } = bits

/** Feature words that exist: four of 32 bits. */
const FEATURE_BITS = 128

const UFO_MASK: bigint = featureMask(bits.VIRTIO_NET_F_GUEST_UFO, bits.VIRTIO_NET_F_HOST_UFO)
const USO_MASK: bigint = featureMask(
  bits.VIRTIO_NET_F_GUEST_USO4,
  bits.VIRTIO_NET_F_GUEST_USO6,
  bits.VIRTIO_NET_F_HOST_USO,
)
const TUNNEL_GSO_MASK: bigint = featureMask(
  bits.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO,
  bits.VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO,
)
export const TUNNEL_MASK: bigint =
  TUNNEL_GSO_MASK |
  featureMask(
    bits.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM,
    bits.VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO_CSUM,
  )
/** What only a vnet_hdr can carry. */
const VNET_HDR_MASK: bigint =
  featureMask(
    bits.VIRTIO_NET_F_CSUM,
    bits.VIRTIO_NET_F_GUEST_CSUM,
    bits.VIRTIO_NET_F_HOST_TSO4,
    bits.VIRTIO_NET_F_HOST_TSO6,
    bits.VIRTIO_NET_F_HOST_ECN,
    bits.VIRTIO_NET_F_GUEST_TSO4,
    bits.VIRTIO_NET_F_GUEST_TSO6,
    bits.VIRTIO_NET_F_GUEST_ECN,
    bits.VIRTIO_NET_F_HASH_REPORT,
  ) |
  UFO_MASK |
  USO_MASK |
  TUNNEL_MASK

/** What stands on the other side of the device. */
export interface PeerAbilities {
  readonly hasVnetHdr: boolean
  readonly hasUfo: boolean
  readonly hasUso: boolean
  readonly hasTunnel: boolean
}

/**
 * The features that a device with this peer can offer of those it is configured with. Frontend
 * matters (CTRL_*, MRG_RXBUF, STATUS, MQ, ...) are not touched, and MAC is always there.
 */
export function peerFeatures(configured: bigint, peer: PeerAbilities): bigint {
  let cleared = 0n
  if (!peer.hasVnetHdr) cleared |= VNET_HDR_MASK
  if (!peer.hasUfo) cleared |= UFO_MASK
  if (!peer.hasUso) cleared |= USO_MASK
  if (!peer.hasTunnel) cleared |= TUNNEL_MASK
  return (configured & ~cleared) | featureMask(bits.VIRTIO_NET_F_MAC)
}

const GUEST_OFFLOAD_MASK: bigint = featureMask(
  bits.VIRTIO_NET_F_GUEST_CSUM,
  bits.VIRTIO_NET_F_GUEST_TSO4,
  bits.VIRTIO_NET_F_GUEST_TSO6,
  bits.VIRTIO_NET_F_GUEST_ECN,
  bits.VIRTIO_NET_F_GUEST_UFO,
  bits.VIRTIO_NET_F_GUEST_USO4,
  bits.VIRTIO_NET_F_GUEST_USO6,
)

/**
 * The guest offloads that may be switched on, in the form of CTRL_GUEST_OFFLOADS_SET: 64 bits, the
 * tunnel features at their mapped places. Without that command they are all on.
 */
export function guestOffloads(negotiated: bigint): bigint {
  let offloads = negotiated & GUEST_OFFLOAD_MASK
  if (has(negotiated, bits.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO)) {
    offloads |= featureMask(VIRTIO_NET_O_GUEST_UDP_TUNNEL_GSO_MAPPED)
  }
  if (has(negotiated, bits.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM)) {
    offloads |= featureMask(VIRTIO_NET_O_GUEST_UDP_TUNNEL_GSO_CSUM_MAPPED)
  }
  return offloads
}

const TX_OFFLOADS: readonly (readonly [bit: number, offloads: number])[] = [
  [bits.VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM],
  [bits.VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4],
  [bits.VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6],
  [bits.VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN],
  [bits.VIRTIO_NET_F_GUEST_UFO, TUN_F_UFO],
  [bits.VIRTIO_NET_F_GUEST_USO4, TUN_F_USO4],
  [bits.VIRTIO_NET_F_GUEST_USO6, TUN_F_USO6],
  [VIRTIO_NET_O_GUEST_UDP_TUNNEL_GSO_MAPPED, TUN_F_UDP_TUNNEL_GSO],
  [VIRTIO_NET_O_GUEST_UDP_TUNNEL_GSO_CSUM_MAPPED, TUN_F_UDP_TUNNEL_GSO_CSUM],
]

const RX_OFFLOADS: readonly (readonly [bit: number, offloads: number])[] = [
  [bits.VIRTIO_NET_F_CSUM, TUN_F_CSUM],
  [bits.VIRTIO_NET_F_HOST_TSO4, TUN_F_TSO4],
  [bits.VIRTIO_NET_F_HOST_TSO6, TUN_F_TSO6],
  [bits.VIRTIO_NET_F_HOST_ECN, TUN_F_TSO_ECN],
  [bits.VIRTIO_NET_F_HOST_UFO, TUN_F_UFO],
  [bits.VIRTIO_NET_F_HOST_USO, TUN_F_USO4 | TUN_F_USO6],
  [bits.VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO, TUN_F_UDP_TUNNEL_GSO],
  [bits.VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO_CSUM, TUN_F_UDP_TUNNEL_GSO_CSUM],
]

/**
 * The TUN_F_* bits that frames for the guest may need, given the offloads that are on (the result
 * of {@link guestOffloads} or of the guest's command): also the argument of TUNSETOFFLOAD for a TAP
 * on a link with this device.
 */
export function txOffloads(guestOffloads: bigint): number {
  return collect(guestOffloads, TX_OFFLOADS)
}

/** The TUN_F_* bits that frames from the guest may need. */
export function rxOffloads(negotiated: bigint): number {
  return collect(negotiated, RX_OFFLOADS)
}

function collect(features: bigint, table: typeof TX_OFFLOADS): number {
  return table.reduce((sum, [bit, offloads]) => (has(features, bit) ? sum | offloads : sum), 0)
}

/** Bytes of vnet_hdr that stand before every frame in the guest's buffers. */
export function headerLength(negotiated: bigint): number {
  if (has(negotiated, bits.VIRTIO_F_VERSION_1)) {
    if ((negotiated & TUNNEL_GSO_MASK) !== 0n) return VNET_HDR_TUNNEL_LENGTH
    if (has(negotiated, bits.VIRTIO_NET_F_HASH_REPORT)) return VNET_HDR_HASH_LENGTH
    return VNET_HDR_MRG_LENGTH
  }
  // A packed ring is not legacy, whatever a vhost-user front-end leaves out.
  return has(negotiated, bits.VIRTIO_NET_F_MRG_RXBUF) || has(negotiated, bits.VIRTIO_F_RING_PACKED)
    ? VNET_HDR_MRG_LENGTH
    : VNET_HDR_LENGTH
}

/** Index of the control virtqueue: behind all pairs for a driver that knows of them. */
export function controlQueueIndex(negotiated: bigint, maxPairs: number): number {
  return has(negotiated, bits.VIRTIO_NET_F_MQ) || has(negotiated, bits.VIRTIO_NET_F_RSS)
    ? 2 * maxPairs
    : 2
}

/** Each feature with the bases it needs: one of each inner list. VIRTIO 1.3 §5.1.3.1. */
const REQUIREMENTS: readonly (readonly [bit: number, bases: readonly (readonly number[])[]])[] = [
  [bits.VIRTIO_NET_F_GUEST_TSO4, [[bits.VIRTIO_NET_F_GUEST_CSUM]]],
  [bits.VIRTIO_NET_F_GUEST_TSO6, [[bits.VIRTIO_NET_F_GUEST_CSUM]]],
  [bits.VIRTIO_NET_F_GUEST_ECN, [[bits.VIRTIO_NET_F_GUEST_TSO4, bits.VIRTIO_NET_F_GUEST_TSO6]]],
  [bits.VIRTIO_NET_F_GUEST_UFO, [[bits.VIRTIO_NET_F_GUEST_CSUM]]],
  [bits.VIRTIO_NET_F_GUEST_USO4, [[bits.VIRTIO_NET_F_GUEST_CSUM]]],
  [bits.VIRTIO_NET_F_GUEST_USO6, [[bits.VIRTIO_NET_F_GUEST_CSUM]]],
  [
    bits.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO,
    [
      [bits.VIRTIO_NET_F_GUEST_TSO4],
      [bits.VIRTIO_NET_F_GUEST_TSO6],
      [bits.VIRTIO_NET_F_GUEST_USO4],
      [bits.VIRTIO_NET_F_GUEST_USO6],
      [bits.VIRTIO_F_VERSION_1],
    ],
  ],
  [bits.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO_CSUM, [[bits.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO]]],
  [bits.VIRTIO_NET_F_HOST_TSO4, [[bits.VIRTIO_NET_F_CSUM]]],
  [bits.VIRTIO_NET_F_HOST_TSO6, [[bits.VIRTIO_NET_F_CSUM]]],
  [bits.VIRTIO_NET_F_HOST_ECN, [[bits.VIRTIO_NET_F_HOST_TSO4, bits.VIRTIO_NET_F_HOST_TSO6]]],
  [bits.VIRTIO_NET_F_HOST_UFO, [[bits.VIRTIO_NET_F_CSUM]]],
  [bits.VIRTIO_NET_F_HOST_USO, [[bits.VIRTIO_NET_F_CSUM]]],
  [
    bits.VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO,
    [
      [bits.VIRTIO_NET_F_HOST_TSO4],
      [bits.VIRTIO_NET_F_HOST_TSO6],
      [bits.VIRTIO_NET_F_HOST_USO],
      [bits.VIRTIO_F_VERSION_1],
    ],
  ],
  [bits.VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO_CSUM, [[bits.VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO]]],
  [bits.VIRTIO_NET_F_CTRL_RX, [[bits.VIRTIO_NET_F_CTRL_VQ]]],
  [bits.VIRTIO_NET_F_CTRL_VLAN, [[bits.VIRTIO_NET_F_CTRL_VQ]]],
  [bits.VIRTIO_NET_F_GUEST_ANNOUNCE, [[bits.VIRTIO_NET_F_CTRL_VQ]]],
  [bits.VIRTIO_NET_F_MQ, [[bits.VIRTIO_NET_F_CTRL_VQ]]],
  [bits.VIRTIO_NET_F_CTRL_MAC_ADDR, [[bits.VIRTIO_NET_F_CTRL_VQ]]],
  [bits.VIRTIO_NET_F_NOTF_COAL, [[bits.VIRTIO_NET_F_CTRL_VQ]]],
  [bits.VIRTIO_NET_F_VQ_NOTF_COAL, [[bits.VIRTIO_NET_F_CTRL_VQ]]],
  [bits.VIRTIO_NET_F_RSS, [[bits.VIRTIO_NET_F_CTRL_VQ]]],
  [bits.VIRTIO_NET_F_RSC_EXT, [[bits.VIRTIO_NET_F_HOST_TSO4, bits.VIRTIO_NET_F_HOST_TSO6]]],
]

/**
 * The bits that a device should not accept because they lack what they build on, also when that is
 * among the refused ones itself. Only for a driver's own acknowledgement: a vhost-user front-end
 * keeps CTRL_VQ to itself and acknowledges MQ without it.
 */
export function refusedFeatures(acknowledged: bigint): bigint {
  let accepted = acknowledged
  let before: bigint
  do {
    before = accepted
    for (const [bit, bases] of REQUIREMENTS) {
      const stands = bases.every((base) => (accepted & featureMask(...base)) !== 0n)
      if (!stands) accepted &= ~featureMask(bit)
    }
  } while (accepted !== before)
  return acknowledged & ~accepted
}

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(bits).flatMap(([name, bit]) =>
    typeof bit === 'number' ? [[bit, name] as const] : [],
  ),
)

/** The header's names of the bits in a set, lowest first; `bit 47` for one that has none. */
export function featureNames(mask: bigint): string[] {
  const names: string[] = []
  for (let bit = 0; bit < FEATURE_BITS; bit++) {
    if (has(mask, bit)) names.push(NAMES.get(bit) ?? `bit ${bit}`)
  }
  return names
}

/** Whether the bit with this number is in the set. */
export function has(features: bigint, bit: number): boolean {
  return ((features >> BigInt(bit)) & 1n) === 1n
}

/** A network device with a control queue, as its driver and its owner see it. */
import * as bits from '../../src/abi/virtio-features.ts'
import { ControlQueue } from '../../src/virtio/device/control-queue.ts'
import { DeviceState } from '../../src/virtio/device/device-state.ts'
import { bytesOf } from './flow-frames.ts'

export const DEVICE_MAC: Uint8Array = bytesOf(0x52, 0x54, 0, 0x12, 0x34, 0x56)
export const MAX_PAIRS = 4

/** Everything that a command or a saved state can depend on. */
export const OFFERED: bigint = bits.featureMask(
  bits.VIRTIO_F_VERSION_1,
  bits.VIRTIO_NET_F_CTRL_VQ,
  bits.VIRTIO_NET_F_CTRL_RX,
  bits.VIRTIO_NET_F_CTRL_RX_EXTRA,
  bits.VIRTIO_NET_F_CTRL_VLAN,
  bits.VIRTIO_NET_F_CTRL_MAC_ADDR,
  bits.VIRTIO_NET_F_GUEST_ANNOUNCE,
  bits.VIRTIO_NET_F_MQ,
  bits.VIRTIO_NET_F_RSS,
  bits.VIRTIO_NET_F_HASH_REPORT,
  bits.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  bits.VIRTIO_NET_F_GUEST_CSUM,
  bits.VIRTIO_NET_F_GUEST_TSO4,
  bits.VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO,
)

export interface ControlDevice {
  readonly state: DeviceState
  readonly queue: ControlQueue
  /** What the owner was told, oldest first. */
  readonly events: unknown[][]
}

export function newState(): DeviceState {
  return new DeviceState({ offered: OFFERED, maxPairs: MAX_PAIRS, mac: DEVICE_MAC })
}

export function controlDevice(features: bigint = OFFERED): ControlDevice {
  const state = newState()
  state.negotiate(features)
  const events: unknown[][] = []
  const queue = new ControlQueue(state, {
    pairsChanged: (pairs) => events.push(['pairs', pairs]),
    offloadsChanged: (offloads) => events.push(['offloads', offloads]),
    rssChanged: () => events.push(['rss', state.rss.config]),
    macChanged: (mac) => events.push(['mac', mac]),
    announceAcknowledged: (rounds) => events.push(['announced', rounds]),
  })
  return { state, queue, events }
}

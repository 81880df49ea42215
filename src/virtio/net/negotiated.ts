/** The features that a driver accepted, as far as frames are concerned. */
import {
  VIRTIO_F_RING_PACKED,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../../abi/virtio-features.ts'
import { guestOffloads, has, headerLength, rxOffloads, txOffloads } from '../device/features.ts'

export interface VirtioNegotiated {
  readonly headerLength: number
  readonly isMergeable: boolean
  readonly isPacked: boolean
  readonly hasEventIdx: boolean
  readonly hasIndirect: boolean
  /** TUN_F_* bits that the driver can be given, and that it may use. */
  readonly txOffloads: number
  readonly rxOffloads: number
}

export const NOTHING_NEGOTIATED: VirtioNegotiated = {
  headerLength: 12,
  isMergeable: false,
  isPacked: false,
  hasEventIdx: false,
  hasIndirect: false,
  txOffloads: 0,
  rxOffloads: 0,
}

export function negotiatedOf(features: bigint): VirtioNegotiated {
  return {
    headerLength: headerLength(features),
    isMergeable: has(features, VIRTIO_NET_F_MRG_RXBUF),
    isPacked: has(features, VIRTIO_F_RING_PACKED),
    hasEventIdx: has(features, VIRTIO_RING_F_EVENT_IDX),
    hasIndirect: has(features, VIRTIO_RING_F_INDIRECT_DESC),
    txOffloads: txOffloads(guestOffloads(features)),
    rxOffloads: rxOffloads(features),
  }
}

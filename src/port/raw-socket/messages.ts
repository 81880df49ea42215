/** What crosses between the threads about a raw socket port. */
import type { RingGeometry } from './geometry.ts'

/** A queue pair, as the control plane has opened it. */
export interface RawSocketQueue {
  readonly fd: number
  /** Number of the window that the ring is. */
  readonly window: number
  /** The slot that the kernel fills next. */
  readonly first: number
}

export type RawSocketCall =
  /** The mtu of the interface has changed. */
  | { readonly do: 'interface-mtu'; readonly mtu: number }
  /** Another process is to have it; answered with the slots that are read next, by queue. */
  | { readonly do: 'leave' }
  | { readonly do: 'keep' }
  /** Of one that is another process's still: by queue, the slot that is read next. */
  | { readonly do: 'next-slots'; readonly next: readonly number[] }

export interface RawSocketDescription {
  readonly kind: 'raw-socket'
  readonly queues: readonly RawSocketQueue[]
  readonly geometry: RingGeometry
  /** Of PACKET_VNET_HDR: 10, or 0 for none. */
  readonly vnetHdrLength: number
  /** Of the interface, when it was opened. */
  readonly mtu: number
  /** Another process's still, until `keep`. */
  readonly isAnothers?: boolean
}

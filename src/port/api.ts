/** What ports are to the program that has them, as the public API has it. */
import type { SavedState } from '../virtio/device/saved-state.ts'

/** What virtio_net_config says. */
export interface VirtioNetConfig {
  /** Six bytes. */
  readonly mac: Uint8Array
  /** VIRTIO_NET_S_LINK_UP (1) and VIRTIO_NET_S_ANNOUNCE (2). */
  readonly status: number
  readonly maxPairs: number
  readonly mtu: number | undefined
}

export interface VirtioNetFrame {
  /** L2 bytes without FCS. */
  readonly frame: Uint8Array
  /** The vnet_hdr that came before it. */
  readonly header: Uint8Array
  /** Queue pair by which it came. */
  readonly queue: number
}

/**
 * The driver of an in-process virtio-net device (VIRTIO 1.3 §5.1), as a guest's would be. Features
 * are sets of bits 1n << N.
 */
export interface VirtioNetPort {
  /** What the device offers now: offloads depend on the other ports. */
  readonly offered: bigint
  /** What was negotiated; 0n before. */
  readonly features: bigint
  readonly config: VirtioNetConfig
  /** Resets the device and starts its queues with the offered ones of these features, less those
   *  that lack what they build on; returns what was accepted. One queue pair is in use then. */
  negotiate(features: bigint): Promise<bigint>
  /** Back to before `negotiate`. */
  reset(): Promise<void>
  /** Copies a frame into a transmitq; false: the device has all buffers. `header` has the
   *  negotiated length (10 or 12 bytes) and is zeros when absent. */
  send(
    frame: Uint8Array,
    options?: { readonly header?: Uint8Array; readonly queue?: number },
  ): boolean
  /** The next received frame, null when there is none. */
  receive(): VirtioNetFrame | null
  /** Waits for it. */
  next(options?: { readonly signal?: AbortSignal }): Promise<VirtioNetFrame>
  /** A command for the control queue: u8 class, u8 command, data. Returns the ack, 0 or 1. */
  control(command: Uint8Array): Promise<number>
  /** The device as far as its driver shaped it; plain data, with a version. */
  saveState(): SavedState
  /** Becomes what was saved of a device with as many queues; its queues start empty. Throws
   *  ConfigError DEVICE_STATE, and changes nothing, when the state cannot be used. */
  loadState(saved: unknown): Promise<void>
}

/** The outside of a `memory` port. */
export interface MemoryPort {
  readonly id: string
  /** Hands a frame (L2 bytes without FCS, 14..65549) to the switch. False: ring full, not taken. */
  send(frame: Uint8Array): boolean
  /** The oldest frame that the switch gave to this port, as a copy; null when there is none. */
  receive(): Uint8Array | null
  /** Resolves with the next frame. */
  next(options?: { readonly signal?: AbortSignal }): Promise<Uint8Array>
}

/**
 * What a vhost-user session does to the device behind it. The session (session.ts) speaks the
 * protocol and has no memory, no rings and no sockets; the device has those and does not know the
 * protocol.
 *
 * Every method is carried out at a burst boundary of the engine: when its promise resolves, the data
 * plane works with the new state, and nothing of the old one is used any more. The session calls one
 * method at a time. A method that cannot do what it is asked throws a ProtocolError.
 *
 * Addresses are numbers below 2^53. Descriptors belong to the device from the call on, also when the
 * call fails.
 */

import type { QueueSetup } from '../virtio/ring/device-queue.ts'

/** Memory regions that a front-end may add one by one. */
export const MEMORY_SLOTS_MAX = 509

/** One memory region of the guest, as SET_MEM_TABLE and ADD_MEM_REG describe it. */
export interface MemoryRegion {
  /** Guest-physical address of its first byte. */
  readonly guestAddress: number
  /** Bytes; not 0. */
  readonly size: number
  /** Address of the first byte in the front-end's own address space: rings are given in those. */
  readonly userAddress: number
  /** Bytes from the start of the file behind `fd` to the region. */
  readonly mmapOffset: number
  readonly fd: number
}

/** Where the dirty bitmap is: `size` bytes from `offset` of the file behind `fd`. */
export interface DirtyLogFile {
  readonly fd: number
  readonly size: number
  readonly offset: number
}

export interface VhostUserDevice {
  /**
   * The features that the driver acknowledged, VIRTIO and VHOST_F_LOG_ALL bits. While queues run
   * only VHOST_F_LOG_ALL changes.
   */
  setFeatures(features: bigint): Promise<void>
  /** Replaces the whole memory. Running queues go on with the new one, where it still has them. */
  setMemory(regions: readonly MemoryRegion[]): Promise<void>
  addMemory(region: MemoryRegion): Promise<void>
  /** Names a region by guest address, user address and size; unknown: ProtocolError. */
  removeMemory(region: Omit<MemoryRegion, 'fd' | 'mmapOffset'>): Promise<void>
  /** Starts a stopped queue. Whether it is served depends on `enableQueue` as well. */
  startQueue(index: number, setup: QueueSetup): Promise<void>
  /** Ends every access to the ring and to what its chains describe; returns the base. */
  stopQueue(index: number): Promise<number>
  enableQueue(index: number, isEnabled: boolean): Promise<void>
  /** Another eventfd for kicks of a running queue, -1: none; the old one is closed. */
  setKick(index: number, fd: number): Promise<void>
  /** Another eventfd for calls of a running queue; the old one is closed. */
  setCall(index: number, fd: number): Promise<void>
  /** Where writes to a running queue's used ring are logged from now on; -1: they are not. */
  setQueueLog(index: number, logAddress: number): Promise<void>
  /** The dirty bitmap, one bit per 4 KiB page of guest memory; replaces the one before. */
  setLog(log: DirtyLogFile): Promise<void>
  /** Tells the other ports of the switch where the guest's address is now (a broadcast RARP). */
  sendRarp(mac: Uint8Array): Promise<void>
  /** False when the device cannot take frames of that size. */
  setMtu(mtu: number): boolean
  /** The front-end is gone: no queue runs any more, no memory is mapped. */
  close(): Promise<void>
}

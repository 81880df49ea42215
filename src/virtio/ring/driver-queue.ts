/**
 * The driver side of a virtqueue, split or packed, in memory that the device sees too: for the
 * in-process device, for tests and for the bench.
 *
 *     begin -> add -> ... -> commit     a chain          takeUsed -> takeUsed -> ...
 *     begin -> add -> ... -> commit     another
 *     publish                           the device sees both
 *
 * A chain has an id below the queue's size from `commit` until `takeUsed` gives it back, so a user
 * keeps what belongs to it in arrays of that size. What the device writes is checked: one that
 * returns what it was not given breaks the queue.
 * Source: VIRTIO 1.3 §2.6 to §2.8.
 */

/** Where a ring is: part of a buffer that this thread has, and the device's address of that part. */
export interface DriverMemory {
  readonly buffer: ArrayBuffer
  /** Of the ring's first byte in the buffer; a multiple of 16. */
  readonly offset: number
  /** Guest-physical address of the same byte; a multiple of 16. */
  readonly guestAddress: number
}

export interface DriverSetup {
  /** Split: a power of two. 1..32768. */
  readonly size: number
  readonly memory: DriverMemory
  readonly hasEventIdx: boolean
  /** Descriptors of an indirect table; 0: indirect descriptors were not negotiated. */
  readonly tableEntries: number
}

/** Where the parts of a ring stand, in bytes from its start; `length` is what it takes in all. */
export interface RingLayout {
  readonly descriptorOffset: number
  readonly availOffset: number
  readonly usedOffset: number
  /** Indirect tables, one for each id, `tableEntries` descriptors each. */
  readonly tableOffset: number
  readonly length: number
}

export interface DriverQueue {
  readonly size: number
  /** Ring entries or descriptors that no chain has. */
  free: number
  /** The device returned what it was not given, or more than there is. */
  isBroken: boolean
  /** Bytes that the device says it wrote into the chain of the last `takeUsed`. */
  usedLength: number
  /**
   * Begins a chain of `count` buffers; indirect if the caller says so and they fit into a table.
   * False: there is no room for it. @hot
   */
  begin(count: number, isIndirect: boolean): boolean
  /** The next of them; readable ones come first. @hot */
  add(address: number, length: number, isWritable: boolean): void
  /**
   * The same with the address in halves: as one number beyond 2^31 it is an allocation, where V8 does
   * not inline the call. @hot
   */
  addHalves(low: number, high: number, length: number, isWritable: boolean): void
  /** After the last: the chain's id. @hot */
  commit(): number
  /** Makes what was committed available. True: the device asks to be kicked. @hot */
  publish(): boolean
  /** Id of the next chain that the device has used; -1: there is none. @hot */
  takeUsed(): number
  /** Asks the device to call for the next used chain. True: there is one already. @hot */
  enableCall(): boolean
  /** The device need not call: the queue is polled. @hot */
  disableCall(): void
}

/** The next multiple of a power of two. */
export function alignUp(offset: number, alignment: number): number {
  return Math.ceil(offset / alignment) * alignment
}

/**
 * A vhost-user front-end with a driver of one queue pair, spoken message by message, so that tests
 * can do what no real front-end does. Split rings, written here from VIRTIO 1.3 §2.7 independently
 * of src/virtio.
 */
import { shim } from '../../src/native/shim.ts'
import { Window } from '../../src/mem/window.ts'
import { until } from './processes.ts'

const EAGAIN = 11
const MSG_DONTWAIT = 0x40
const NONBLOCK_CLOEXEC = 0o2004000

export const GUEST_BASE = 0x10_0000
export const USER_BASE = 0x7f00_0000_0000
export const MEMORY_LENGTH = 0x40_0000
export const RING_SIZE = 64
const RING_STRIDE = 0x4000
/** Offsets in a ring's stride, then buffers of 2 KiB each. */
const AVAIL = 0x1000
const USED = 0x2000
const BUFFERS = 0x10_0000
export const BUFFER_LENGTH = 2048

export const F_VERSION_1: bigint = 1n << 32n
export const F_PROTOCOL: bigint = 1n << 30n
export const F_LOG_ALL: bigint = 1n << 26n
export const F_MRG_RXBUF: bigint = 1n << 15n

export interface Reply {
  readonly request: number
  readonly flags: number
  readonly payload: Uint8Array
}

export function u64(value: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(value).buffer)
}
export function u64s(...values: (number | bigint)[]): Uint8Array {
  return new Uint8Array(BigUint64Array.from(values, BigInt).buffer)
}
export function u32s(...values: number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(values).buffer)
}
function joined(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

export class FrontEnd {
  readonly fd: number
  /** The guest's memory: a memfd, and our view of it. */
  readonly memfd: number
  readonly memory: Window
  readonly view: DataView
  /** eventfds by queue. */
  readonly kicks: number[] = []
  readonly calls: number[] = []
  readonly #nextAvail = [0, 0]
  readonly #nextUsed = [0, 0]
  #received: Uint8Array = new Uint8Array(0)

  /** `memfdFlags`: MFD_CLOEXEC, and MFD_HUGETLB for a guest in huge pages. */
  constructor(fd: number, memfdFlags = 1) {
    this.fd = fd
    this.memfd = shim.memfdCreate('framepump-test-guest', memfdFlags)
    shim.ftruncate(this.memfd, MEMORY_LENGTH)
    this.memory = Window.map(MEMORY_LENGTH, { fd: this.memfd })
    this.view = new DataView(this.memory.buffer)
  }

  /** Connects to a listening back-end. */
  static connect(path: string, memfdFlags = 1): FrontEnd {
    const fd = shim.socketUnix(1)
    const result = shim.connectUnix(fd, path)
    if (result < 0) throw new Error(`connect ${path}: errno ${-result}`)
    return new FrontEnd(fd, memfdFlags)
  }

  // --- messages -----------------------------------------------------------------------------------

  send(request: number, payload: Uint8Array = u32s(), fds: number[] = [], flags = 1): void {
    this.sendBytes(joined(u32s(request, flags, payload.length), payload), fds)
  }

  sendBytes(bytes: Uint8Array, fds: number[] = []): void {
    const sent = shim.sendMsg(this.fd, bytes, 0, bytes.length, Int32Array.from(fds), fds.length, 0)
    if (sent !== bytes.length && sent !== -32 && sent !== -104) throw new Error(`sendmsg: ${sent}`)
  }

  /** Without waiting; false: the back-end takes no more. */
  trySend(bytes: Uint8Array): boolean {
    const none = new Int32Array(0)
    return shim.sendMsg(this.fd, bytes, 0, bytes.length, none, 0, MSG_DONTWAIT) === bytes.length
  }

  /** Reads what is there; false: the peer has hung up. */
  #read(): boolean {
    const data = new Uint8Array(4096)
    for (;;) {
      const got = shim.recvMsg(this.fd, data, new Int32Array(8), new Int32Array(2), MSG_DONTWAIT)
      if (got === -EAGAIN) return true
      if (got <= 0) return false
      this.#received = joined(this.#received, data.subarray(0, got))
    }
  }

  async reply(): Promise<Reply> {
    const length = (): number =>
      this.#received.length < 12 ? 12 : 12 + new DataView(this.#received.buffer).getUint32(8, true)
    let isOpen = true
    await until('the back-end replies', () => {
      isOpen = this.#read()
      return !isOpen || this.#received.length >= length()
    })
    if (this.#received.length < length()) throw new Error('the back-end hung up')
    const header = new DataView(this.#received.buffer)
    const size = header.getUint32(8, true)
    const reply = {
      request: header.getUint32(0, true),
      flags: header.getUint32(4, true),
      payload: this.#received.slice(12, 12 + size),
    }
    this.#received = this.#received.slice(12 + size)
    return reply
  }

  async ask(request: number, payload?: Uint8Array, fds?: number[], flags = 1): Promise<Uint8Array> {
    this.send(request, payload, fds, flags)
    const reply = await this.reply()
    if (reply.request !== request || reply.flags !== 5) throw new Error(JSON.stringify(reply))
    return reply.payload
  }

  async askU64(request: number, payload?: Uint8Array, fds?: number[], flags = 1): Promise<bigint> {
    const bytes = await this.ask(request, payload, fds, flags)
    return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true)
  }

  /** Resolves when the back-end has ended the connection. */
  async hungUp(): Promise<void> {
    await until('the back-end hangs up', () => !this.#read())
  }

  /** Everything that was sent has been carried out. */
  async barrier(): Promise<void> {
    await this.ask(1)
  }

  // --- set-up as QEMU does it ---------------------------------------------------------------------

  memoryTable(): Uint8Array {
    return joined(u32s(1, 0), u64s(GUEST_BASE, MEMORY_LENGTH, USER_BASE, 0))
  }

  ringAddress(queue: number, flags = 0, log = 0): Uint8Array {
    const at = USER_BASE + queue * RING_STRIDE
    return joined(u32s(queue, flags), u64s(at, at + USED, at + AVAIL, log))
  }

  async negotiate(features: bigint = F_VERSION_1 | F_PROTOCOL): Promise<bigint> {
    const offered = await this.askU64(1)
    const protocol = await this.askU64(15)
    this.send(16, u64(protocol))
    this.send(3)
    this.send(2, u64(features))
    return offered
  }

  /** Starts both queues. */
  async start(features?: bigint, base = 0): Promise<void> {
    await this.negotiate(features)
    this.send(5, this.memoryTable(), [this.memfd])
    for (const queue of [0, 1]) this.startQueue(queue, base)
    for (const queue of [0, 1]) this.send(18, u32s(queue, 1))
    await this.barrier()
  }

  startQueue(queue: number, base = 0): void {
    this.kicks[queue] ??= shim.eventfd(0, NONBLOCK_CLOEXEC)
    this.calls[queue] ??= shim.eventfd(0, NONBLOCK_CLOEXEC)
    this.send(8, u32s(queue, RING_SIZE))
    this.send(10, u32s(queue, base))
    this.send(9, this.ringAddress(queue))
    this.send(12, u64(BigInt(queue)), [this.kicks[queue]])
    this.send(13, u64(BigInt(queue)), [this.calls[queue]])
  }

  /** Stops a queue; returns its base. */
  async stopQueue(queue: number): Promise<number> {
    const payload = await this.ask(11, u32s(queue, 0))
    return new DataView(payload.buffer, payload.byteOffset).getUint32(4, true)
  }

  // --- the driver ---------------------------------------------------------------------------------

  bufferOffset(queue: number, slot: number): number {
    return BUFFERS + (queue * RING_SIZE + slot) * BUFFER_LENGTH
  }

  descriptor(
    queue: number,
    index: number,
    address: number,
    length: number,
    flags: number,
    next = 0,
  ): void {
    const at = queue * RING_STRIDE + index * 16
    this.view.setBigUint64(at, BigInt(address), true)
    this.view.setUint32(at + 8, length, true)
    this.view.setUint16(at + 12, flags, true)
    this.view.setUint16(at + 14, next, true)
  }

  /** Makes a descriptor chain available and kicks. */
  offer(queue: number, head: number): void {
    const avail = queue * RING_STRIDE + AVAIL
    const index = this.#nextAvail[queue]
    this.view.setUint16(avail + 4 + 2 * (index % RING_SIZE), head, true)
    this.setAvailIndex(queue, index + 1)
    this.#nextAvail[queue] = (index + 1) & 0xffff
    shim.eventfdWrite(this.kicks[queue])
  }

  setAvailIndex(queue: number, index: number): void {
    const words = new Uint16Array(this.memory.buffer)
    Atomics.store(words, (queue * RING_STRIDE + AVAIL + 2) >> 1, index & 0xffff)
  }

  availIndex(queue: number): number {
    return this.view.getUint16(queue * RING_STRIDE + AVAIL + 2, true)
  }

  /** Which descriptor place `slot` of the avail ring names. */
  availEntry(queue: number, slot: number, head: number): void {
    this.view.setUint16(queue * RING_STRIDE + AVAIL + 4 + 2 * slot, head, true)
  }

  /** Makes everything available again that was used: the whole ring, and kicks. */
  offerRing(queue: number): void {
    this.setAvailIndex(queue, this.usedIndex(queue) + RING_SIZE)
    shim.eventfdWrite(this.kicks[queue])
  }

  enableQueue(queue: number, isEnabled = 1): void {
    this.send(18, u32s(queue, isEnabled))
  }

  usedIndex(queue: number): number {
    const words = new Uint16Array(this.memory.buffer)
    return Atomics.load(words, (queue * RING_STRIDE + USED + 2) >> 1)
  }

  usedElement(queue: number, index: number): { readonly id: number; readonly length: number } {
    const at = queue * RING_STRIDE + USED + 4 + 8 * (index % RING_SIZE)
    return { id: this.view.getUint32(at, true), length: this.view.getUint32(at + 4, true) }
  }

  /** Sends a frame behind a header of zeros. */
  transmit(frame: Uint8Array, header: Uint8Array = new Uint8Array(12)): void {
    const slot = this.#nextAvail[1] % RING_SIZE
    const offset = this.bufferOffset(1, slot)
    new Uint8Array(this.memory.buffer).set(joined(header, frame), offset)
    this.descriptor(1, slot, GUEST_BASE + offset, header.length + frame.length, 0)
    this.offer(1, slot)
  }

  /** Offers receive buffers. */
  post(count: number): void {
    for (let n = 0; n < count; n++) {
      const slot = this.#nextAvail[0] % RING_SIZE
      this.descriptor(0, slot, GUEST_BASE + this.bufferOffset(0, slot), BUFFER_LENGTH, 2)
      this.offer(0, slot)
    }
  }

  /** The next received frame with its header. */
  async receive(): Promise<{ readonly header: Uint8Array; readonly frame: Uint8Array }> {
    const index = this.#nextUsed[0]
    await until('the guest has a frame', () => this.usedIndex(0) !== index)
    this.#nextUsed[0] = (index + 1) & 0xffff
    const { id, length } = this.usedElement(0, index)
    const offset = this.bufferOffset(0, id)
    const bytes = new Uint8Array(this.memory.buffer).slice(offset, offset + length)
    return { header: bytes.slice(0, 12), frame: bytes.slice(12) }
  }

  close(): void {
    shim.close(this.fd)
    for (const fd of [...this.kicks, ...this.calls]) if (fd !== undefined) shim.close(fd)
    shim.close(this.memfd)
    this.memory.unmap()
  }
}

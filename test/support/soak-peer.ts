/**
 * A front-end behind a TAP link, spoken message by message, that is in the middle of one whenever it is asked to be,
 * while numbered frames pass both ways:
 *
 *     packet socket -- x0 [netns] -- TAP -- link -- vhost-user port -- front-end
 */
import { readSync } from 'node:fs'
import { ETH_P_ALL } from '../../src/abi/if-packet.ts'
import { shim } from '../../src/native/shim.ts'
import {
  BUFFER_LENGTH,
  F_MRG_RXBUF,
  F_PROTOCOL,
  F_VERSION_1,
  FrontEnd,
  u32s,
  u64,
} from './front-end.ts'
import { IFNAME } from './lab.ts'
import { packetSocket } from './packet-socket.ts'
import { until } from './processes.ts'
import { frame } from './sim.ts'

const NONBLOCK_CLOEXEC = 0o2004000
const SET_VRING_CALL = 13
/** Frames on their way, and receive buffers: fewer than a ring has room for. */
const WINDOW = 16
const BUFFERS = 32
const HEADER_LENGTH = 12
const TYPE_AT = 12
const NUMBER_AT = 14
const TYPE = 0x88b5
/** Where a message is cut: in its header, behind it, in its payload. */
const CUTS = [1, 5, 12, 15]
const TURN_MS = 5

export class SoakPeer {
  readonly #frontEnd: FrontEnd
  readonly #socket: number
  /** From the front-end, from the TAP's side. */
  readonly sent = [0, 0]
  /** Likewise, in the order in which they came. */
  readonly came: number[][] = [[], []]
  #used = 0
  #cuts = 0
  #rest: Uint8Array | undefined
  /** The eventfd of the queue whose message is under way, and the one that it has. */
  #nextCall = -1
  #call = -1
  #isEnding = false
  #isClosed = false
  readonly #timer: NodeJS.Timeout

  private constructor(frontEnd: FrontEnd, socket: number) {
    this.#frontEnd = frontEnd
    this.#socket = socket
    this.#timer = setInterval(() => this.#turn(), TURN_MS)
  }

  static async start(path: string, netns: string): Promise<SoakPeer> {
    const frontEnd = FrontEnd.connect(path)
    await frontEnd.start(F_VERSION_1 | F_PROTOCOL | F_MRG_RXBUF)
    frontEnd.post(BUFFERS)
    return new SoakPeer(frontEnd, packetSocket(netns, IFNAME, { protocol: ETH_P_ALL }))
  }

  #turn(): void {
    const frontEnd = this.#frontEnd
    const bytes = new Uint8Array(BUFFER_LENGTH)
    for (let got = this.#read(bytes); got > 0; got = this.#read(bytes)) {
      this.#take(0, bytes.subarray(0, got))
    }
    while (frontEnd.usedIndex(0) !== this.#used) {
      const { id, length } = frontEnd.usedElement(0, this.#used)
      const offset = frontEnd.bufferOffset(0, id)
      const all = new Uint8Array(frontEnd.memory.buffer).slice(offset, offset + length)
      this.#used = (this.#used + 1) & 0xffff
      this.#take(1, all.subarray(HEADER_LENGTH))
      frontEnd.post(1)
    }
    if (this.#isEnding) return
    if (this.#isOpen(0)) frontEnd.transmit(frame(1, 2, this.sent[0]++))
    if (this.#isOpen(1)) {
      const own = frame(2, 1, this.sent[1]++)
      const result = shim.sendMsg(this.#socket, own, 0, own.length, new Int32Array(0), 0, 0)
      if (result < 0) throw new Error(`send: errno ${-result}`)
    }
  }

  /** The length of the next frame; 0: there is none. Packet sockets take none of the flags of shim.recvMsg. */
  #read(bytes: Uint8Array): number {
    try {
      return readSync(this.#socket, bytes)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return 0
      throw error
    }
  }

  #isOpen(from: number): boolean {
    return this.sent[from] - this.came[from].length < WINDOW
  }

  #take(from: number, bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    // A packet socket sees what is sent as well, by its kernel or itself: the source tells.
    const isOther = bytes[11] !== 2 - from
    if (view.getUint16(TYPE_AT) !== TYPE || isOther) return
    this.came[from].push(view.getUint32(NUMBER_AT))
  }

  /** Says the first part of a message, with its descriptor. */
  begin(): void {
    const cut = CUTS[this.#cuts++ % CUTS.length]
    this.#nextCall = shim.eventfd(0, NONBLOCK_CLOEXEC)
    const message = Buffer.concat([u32s(SET_VRING_CALL, 1, 8), u64(0n)])
    this.#frontEnd.sendBytes(message.subarray(0, cut), [this.#nextCall])
    this.#rest = message.subarray(cut)
  }

  /** The rest; it is answered, the descriptor is in use, and frames pass both ways. */
  async complete(): Promise<void> {
    if (this.#rest === undefined) throw new Error('no message is under way')
    this.#frontEnd.sendBytes(this.#rest)
    this.#rest = undefined
    await this.#frontEnd.barrier()
    if (this.#call >= 0) shim.close(this.#call)
    this.#call = this.#nextCall
    await until('the new call was signalled', () => shim.eventfdRead(this.#call) > 0)
    const before = this.came.map(({ length }) => length)
    const isPassing = (): boolean => this.came.every(({ length }, k) => length > before[k] + WINDOW)
    await until('frames pass both ways', isPassing, 60_000)
  }

  /** All that were sent are there. */
  async end(): Promise<void> {
    this.#isEnding = true
    await until('all are there', () => this.came.every(({ length }, k) => length >= this.sent[k]))
  }

  /** A second call does nothing. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    clearInterval(this.#timer)
    this.#frontEnd.close()
    shim.close(this.#socket)
    if (this.#call >= 0) shim.close(this.#call)
  }
}

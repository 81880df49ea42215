/**
 * Stands between a vhost-user front-end and the back-end, passes every message with its descriptors
 * on, and keeps a transcript of the requests and of the replies.
 */
import { shim } from '../../src/native/shim.ts'

export interface TranscriptEntry {
  readonly from: 'front-end' | 'back-end'
  readonly request: number
  readonly flags: number
  /** Payload in hexadecimal. */
  readonly payload: string
  /** Descriptors that came with it. */
  readonly fds: number
}

const EAGAIN = 11
const MSG_DONTWAIT = 0x40
const HEADER_LENGTH = 12
const FDS_MAX = 8

/** One direction: reads a header, then its payload, as the descriptors come with a header. */
class Half {
  readonly #from: TranscriptEntry['from']
  readonly #source: number
  readonly #destination: number
  readonly #transcript: TranscriptEntry[]
  #bytes: Uint8Array = new Uint8Array(0)
  #fds: number[] = []

  constructor(
    from: TranscriptEntry['from'],
    source: number,
    destination: number,
    transcript: TranscriptEntry[],
  ) {
    this.#from = from
    this.#source = source
    this.#destination = destination
    this.#transcript = transcript
  }

  /** Passes on what is there; false: the sender has hung up. */
  pump(): boolean {
    for (;;) {
      const view = new DataView(this.#bytes.buffer)
      const length =
        this.#bytes.length < HEADER_LENGTH ? HEADER_LENGTH : HEADER_LENGTH + view.getUint32(8, true)
      if (this.#bytes.length === length) {
        this.#pass(view)
        continue
      }
      const data = new Uint8Array(length - this.#bytes.length)
      const fds = new Int32Array(FDS_MAX)
      const info = new Int32Array(2)
      const got = shim.recvMsg(this.#source, data, fds, info, MSG_DONTWAIT)
      if (got === -EAGAIN) return true
      if (got <= 0) return false
      this.#bytes = new Uint8Array(Buffer.concat([this.#bytes, data.subarray(0, got)]))
      this.#fds.push(...fds.subarray(0, info[0]))
    }
  }

  #pass(view: DataView): void {
    const bytes = this.#bytes
    const fds = this.#fds
    this.#bytes = new Uint8Array(0)
    this.#fds = []
    this.#transcript.push({
      from: this.#from,
      request: view.getUint32(0, true),
      flags: view.getUint32(4, true),
      payload: Buffer.from(bytes.subarray(HEADER_LENGTH)).toString('hex'),
      fds: fds.length,
    })
    shim.sendMsg(this.#destination, bytes, 0, bytes.length, Int32Array.from(fds), fds.length, 0)
    for (const fd of fds) shim.close(fd)
  }
}

export class MessageProxy {
  readonly transcript: TranscriptEntry[] = []
  readonly #listener: number
  readonly #backEnd: string
  readonly #fds: number[] = []
  readonly #timer: NodeJS.Timeout
  #halves: Half[] = []

  /** Listens on `path` for one front-end, and connects to `backEnd` for it. */
  constructor(path: string, backEnd: string) {
    this.#backEnd = backEnd
    this.#listener = shim.socketUnix(1)
    if (shim.bindUnix(this.#listener, path) < 0 || shim.listen(this.#listener, 1) < 0) {
      throw new Error(`cannot listen on ${path}`)
    }
    this.#timer = setInterval(() => this.#pump(), 1)
  }

  #pump(): void {
    if (this.#halves.length === 0) {
      const front = shim.accept(this.#listener)
      if (front < 0) return
      const back = shim.socketUnix(1)
      this.#fds.push(front, back)
      if (shim.connectUnix(back, this.#backEnd) < 0) throw new Error('no back-end')
      this.#halves = [
        new Half('front-end', front, back, this.transcript),
        new Half('back-end', back, front, this.transcript),
      ]
    }
    const areOpen = this.#halves.map((half) => half.pump())
    if (areOpen.includes(false)) this.close()
  }

  close(): void {
    clearInterval(this.#timer)
    for (const fd of this.#fds.splice(0)) shim.close(fd)
  }
}

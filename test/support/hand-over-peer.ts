/** One end of a hand-over that does what a test wants: it speaks the protocol, and has no switch. */
import { spawn } from 'node:child_process'
import { POLLIN } from '../../src/abi/epoll.ts'
import type { HandOverRecord, Section } from '../../src/handover/records.ts'
import { encodeRecord, FD_BYTE, RecordReader, splitFds } from '../../src/handover/records.ts'
import { shim } from '../../src/native/shim.ts'
import { until } from './processes.ts'

const SOCK_STREAM = 1
const EAGAIN = 11
const MSG_CTRUNC = 8
const WAIT_MS = 40_000

/** A process of which a peer says that it is it, until it is killed. */
export class Stand implements Disposable {
  readonly pidfd: number
  readonly #child = spawn('sleep', ['1000'])

  constructor() {
    this.pidfd = shim.pidfdOpen(this.#child.pid!)
  }

  kill(): void {
    this.#child.kill('SIGKILL')
  }

  [Symbol.dispose](): void {
    this.kill()
    shim.close(this.pidfd)
  }
}

export class Peer implements Disposable {
  readonly #fd: number
  readonly #reader = new RecordReader('peer')
  readonly #fds: number[] = []
  /** All that has come, piece by piece. */
  readonly heard: Uint8Array[] = []
  #isClosed = false

  private constructor(fd: number) {
    this.#fd = fd
  }

  static connect(path: string): Peer {
    const fd = shim.socketUnix(SOCK_STREAM)
    const result = shim.connectUnix(fd, path)
    if (result < 0) throw new Error(`connect: ${result}`)
    return new Peer(fd)
  }

  /** The next that connects there. */
  static async accept(listening: number): Promise<Peer> {
    let fd = -1
    await until('somebody connects', () => (fd = shim.accept(listening)) >= 0)
    return new Peer(fd)
  }

  sendBytes(bytes: Uint8Array, fds: readonly number[] = []): void {
    const passed = fds.length === 0 ? null : Int32Array.from(fds)
    shim.sendMsg(this.#fd, bytes, 0, bytes.length, passed, fds.length, 0)
  }

  send(section: Section, data: unknown, fds: readonly number[] = []): void {
    this.sendBytes(encodeRecord(section, data, fds.length))
    for (const part of splitFds(fds)) this.sendBytes(Uint8Array.of(FD_BYTE), part)
  }

  /** The next record; undefined: the other side has closed. Its descriptors go with the peer. */
  async receive(): Promise<HandOverRecord | undefined> {
    const fds = new Int32Array(253)
    const info = new Int32Array(2)
    let record: HandOverRecord | undefined
    let isOver = false
    await until('something comes', () => {
      while (record === undefined && !isOver) {
        const bytes = new Uint8Array(this.#reader.wanted)
        const got = shim.recvMsg(this.#fd, bytes, fds, info, 0)
        if (got === -EAGAIN) return false
        if (got <= 0) isOver = true
        else {
          this.heard.push(bytes.slice(0, got))
          const came = [...fds.subarray(0, info[0])]
          this.#fds.push(...came)
          record = this.#reader.push(bytes.subarray(0, got), came, (info[1] & MSG_CTRUNC) !== 0)
        }
      }
      return true
    })
    return record
  }

  /** Sleeps until something has come, so that as little as can be happens in between. */
  wait(): void {
    shim.poll(this.#fd, POLLIN, WAIT_MS)
  }

  /** Up to and with that section; throws when another end comes first. */
  async receiveUpTo(section: Section): Promise<HandOverRecord> {
    for (;;) {
      const record = await this.receive()
      if (record === undefined) throw new Error(`closed before ${section}`)
      if (record.section === section) return record
      if (record.section === 'abort') throw new Error(JSON.stringify(record.data))
    }
  }

  /** As a process that is killed: its descriptors go, and nothing is said. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    shim.close(this.#fd)
    for (const fd of this.#fds.splice(0)) shim.close(fd)
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

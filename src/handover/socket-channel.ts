/**
 * A hand-over's connection. Its bytes are read and written here, on the main thread, whose the descriptors
 * become; it is waited for in the I/O thread.
 */
import { readlinkSync } from 'node:fs'
import { POLLIN, POLLOUT } from '../abi/epoll.ts'
import { EAGAIN } from '../abi/errno.ts'
import { strerror } from '../abi/strerror.ts'
import type { FdClaim } from '../native/owned-fds.ts'
import { claimFd } from '../native/owned-fds.ts'
import { shim } from '../native/shim.ts'
import { SocketThread } from '../sockets/socket-thread.ts'
import type { Log } from '../text.ts'
import type { Channel, OutgoingRecord } from './channel.ts'
import { ChannelClosed } from './channel.ts'
import type { HandOverRecord, Section } from './records.ts'
import { encodeRecord, FD_BYTE, FDS_PER_MESSAGE_MAX, RecordReader, splitFds } from './records.ts'

const MSG_CTRUNC = 8
const READ_LENGTH_MAX = 1024 * 1024

export class SocketChannel implements Channel {
  readonly fd: number
  /** Of the process on the other side. */
  readonly peerPid: number
  readonly #reader: RecordReader
  readonly #log: Log
  readonly #thread: SocketThread
  readonly #claim: FdClaim
  readonly #fds: Int32Array = new Int32Array(FDS_PER_MESSAGE_MAX)
  readonly #info: Int32Array = new Int32Array(2)
  #isClosed = false
  /** Of performance.now(): until then it is waited for in the call. */
  #hurriesUntil = 0

  /** A connected socket, ours from now on. */
  constructor(fd: number, release: string, log: Log, peerPid = 0) {
    this.fd = fd
    this.peerPid = peerPid
    this.#reader = new RecordReader(release)
    this.#log = log
    this.#thread = SocketThread.acquire()
    this.#claim = claimFd(fd, 'a hand-over goes by it')
  }

  /** The other side has said which release it is. */
  set peerRelease(release: string) {
    this.#reader.peerRelease = release
  }

  async send(
    section: Section,
    data: unknown,
    fds: readonly number[] = [],
    signal?: AbortSignal,
  ): Promise<void> {
    await this.sendAll([{ section, data, fds }], signal)
  }

  async sendAll(records: Iterable<OutgoingRecord>, signal?: AbortSignal): Promise<void> {
    let waiting: Uint8Array[] = []
    for (const { section, data, fds } of records) {
      waiting.push(encodeRecord(section, data, fds.length))
      if (fds.length === 0) continue
      await this.#write(Buffer.concat(waiting), [], signal)
      waiting = []
      for (const part of splitFds(fds)) await this.#write(Uint8Array.of(FD_BYTE), part, signal)
    }
    await this.#write(Buffer.concat(waiting), [], signal)
  }

  sendNow(section: Section, data: unknown): boolean {
    if (this.#isClosed) return false
    const bytes = encodeRecord(section, data, 0)
    // Of a few bytes the kernel takes all or none (they are one skb); if not, the rest is never read.
    return shim.sendMsg(this.fd, bytes, 0, bytes.length, null, 0, 0) === bytes.length
  }

  async #write(
    bytes: Uint8Array,
    fds: readonly number[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const passed = fds.length === 0 ? null : Int32Array.from(fds)
    for (let at = 0; at < bytes.length;) {
      signal?.throwIfAborted()
      if (this.#isClosed) throw new ChannelClosed('it was closed')
      const sent = shim.sendMsg(this.fd, bytes, at, bytes.length - at, passed, fds.length, 0)
      if (sent === -EAGAIN) await this.#wait(POLLOUT, signal)
      else if (sent < 0) throw new ChannelClosed(strerror(-sent))
      else at += sent
    }
  }

  async receive(signal?: AbortSignal): Promise<HandOverRecord> {
    for (;;) {
      signal?.throwIfAborted()
      if (this.#isClosed) throw new ChannelClosed('it was closed')
      const bytes = new Uint8Array(Math.min(this.#reader.wanted, READ_LENGTH_MAX))
      const got = shim.recvMsg(this.fd, bytes, this.#fds, this.#info, 0)
      if (got === -EAGAIN) {
        await this.#wait(POLLIN, signal)
        continue
      }
      if (got < 0) throw new ChannelClosed(strerror(-got))
      const fds = [...this.#fds.subarray(0, this.#info[0])]
      const isTruncated = (this.#info[1] & MSG_CTRUNC) !== 0
      if (got === 0) {
        throw new ChannelClosed(this.#reader.isMidway ? 'it ended in a record' : 'it has ended')
      }
      const record = this.#reader.push(bytes.subarray(0, got), fds, isTruncated)
      if (record !== undefined) return record
    }
  }

  /** Until it can be read or written, or the other side is gone. */
  async #wait(events: number, signal: AbortSignal | undefined): Promise<void> {
    const leftMs = Math.ceil(this.#hurriesUntil - performance.now())
    if (leftMs > 0 && shim.poll(this.fd, events, leftMs) !== 0) return
    let told!: () => void
    const woken = new Promise<void>((resolve) => (told = resolve))
    const watch = this.#thread.watch(this.fd, told, events)
    signal?.addEventListener('abort', told)
    try {
      await woken
    } finally {
      signal?.removeEventListener('abort', told)
      // Also when it was told: the descriptor is in epoll no more.
      if (signal?.aborted === true) await this.#thread.unwatch(watch)
    }
  }

  hurry(ms: number): void {
    this.#hurriesUntil = performance.now() + ms
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    closeUnclaimed(this.#reader.takeFds(), this.#log)
    this.#claim.end()
    shim.close(this.fd)
    await this.#thread.release()
  }
}

/** Descriptors that came and that nobody took: they are named. */
export function closeUnclaimed(fds: readonly number[], log: Log): void {
  if (fds.length === 0) return
  const names = fds.map(nameOf)
  for (const fd of fds) shim.close(fd)
  log(`hand-over: closed what nobody took: ${names.join(', ')}`, 'warning')
}

function nameOf(fd: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return `descriptor ${fd}`
  }
}

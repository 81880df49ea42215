/**
 * The kernel's bridge as an oracle: its ports are TAPs of the test, in a namespace where nothing talks by itself.
 * What a frame was given to is known when a broadcast that was sent after it has come.
 */
import { readSync, writeSync } from 'node:fs'
import type { Lab } from './lab.ts'
import { sh, until } from './processes.ts'
import { Holder } from './tun.ts'

const BRIDGE = 'br0'
const VNET_HDR_LENGTH = 10
const FENCE_TYPE = 0x88b6
/** With which the addresses of senders begin. */
const OURS = 0x0200_0000

export interface FenceWay {
  readonly from: number
  readonly to: readonly number[]
}

export class KernelBridge implements Disposable {
  readonly #netns: string
  readonly #taps: Holder[] = []
  #fences = 0

  /** `options`: of `ip link add ... type bridge`. */
  constructor(lab: Lab, ports: number, options: readonly string[]) {
    const netns = lab.netns()
    this.#netns = netns
    sh('ip', '-n', netns, 'link', 'add', BRIDGE, 'type', 'bridge', ...options)
    lab.exec(netns, 'sh', '-c', `echo 1 >/proc/sys/net/ipv6/conf/${BRIDGE}/disable_ipv6`)
    sh('ip', '-n', netns, 'link', 'set', BRIDGE, 'up')
    for (let port = 0; port < ports; port++) {
      const ifname = `t${port}`
      this.#taps.push(new Holder(netns, 1, ifname))
      sh('ip', '-n', netns, 'link', 'set', ifname, 'master', BRIDGE, 'up')
    }
  }

  /** `options`: of `bridge link set`. */
  set(port: number, ...options: readonly string[]): void {
    sh('bridge', '-n', this.#netns, 'link', 'set', 'dev', `t${port}`, ...options)
  }

  /** `options`: of `bridge fdb add`. */
  addEntry(port: number, mac: string, ...options: readonly string[]): void {
    const entry = [mac, 'dev', `t${port}`, 'master', ...options]
    sh('bridge', '-n', this.#netns, 'fdb', 'add', ...entry)
  }

  /** Forgets what it has learnt. */
  forget(): void {
    sh('ip', '-n', this.#netns, 'link', 'set', BRIDGE, 'type', 'bridge', 'fdb_flush')
  }

  /**
   * By port, what it was given of a frame that comes in by a port. Where floods do not reach all ports the fence
   * goes from one port to others that have no options.
   */
  async send(port: number, frame: Uint8Array, fence?: FenceWay): Promise<Uint8Array[][]> {
    this.#write(port, frame)
    return this.#pass(fence?.from ?? port, fence?.to)
  }

  async #pass(port: number, to?: readonly number[]): Promise<Uint8Array[][]> {
    const fence = new Uint8Array(60).fill(0xff, 0, 6)
    const mark = ++this.#fences
    fence.set([2, 0, 0, 0, 0xfe, port, FENCE_TYPE >> 8, FENCE_TYPE & 0xff], 6)
    new DataView(fence.buffer).setUint32(14, mark)
    this.#write(port, fence)
    const given: Uint8Array[][] = this.#taps.map(() => [])
    const isOver = this.#taps.map((_, at) => at === port || to?.includes(at) === false)
    await until('the bridge has forwarded', () => {
      for (let at = 0; at < this.#taps.length; at++) {
        for (let one = this.#read(at); one !== null; one = this.#read(at)) {
          const view = new DataView(one.buffer, one.byteOffset)
          if (view.getUint16(12) !== FENCE_TYPE) {
            // Not what the host has to say itself, whose addresses are others.
            if (view.getUint32(6) === OURS) given[at].push(one)
          } else if (view.getUint32(14) === mark) isOver[at] = true
        }
      }
      return isOver.every(Boolean)
    })
    return given
  }

  #write(port: number, frame: Uint8Array): void {
    writeSync(this.#taps[port].fds[0], Buffer.concat([Buffer.alloc(VNET_HDR_LENGTH), frame]))
  }

  #read(port: number): Uint8Array | null {
    const bytes = new Uint8Array(2048)
    try {
      const length = readSync(this.#taps[port].fds[0], bytes)
      return bytes.slice(VNET_HDR_LENGTH, length)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return null
      throw error
    }
  }

  [Symbol.dispose](): void {
    for (const tap of this.#taps) tap[Symbol.dispose]()
  }
}

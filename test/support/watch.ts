/**
 * Frames that come in by an interface, until what is waited for has come, however long that takes: a silence says
 * nothing on a machine that has other things to do.
 */
import type { Lab } from './lab.ts'
import { IFNAME } from './lab.ts'
import type { Background } from './processes.ts'
import { until } from './processes.ts'

/** It is ended, and does not end by itself. */
const FRAMES_MAX = '1000000'
const END_MS = '600000'
/** What comes behind the last one that is waited for is one too many. */
const MORE_MS = 300

export interface WatchOptions {
  readonly ifname?: string
  /** `tags`: with the VLAN tags that the kernel has taken out of them. */
  readonly mode?: 'all' | 'tags'
  /** Of all frames, as hex, those that count. */
  readonly only?: (hex: string) => boolean
}

export class Watch {
  readonly #process: Background
  readonly #only: (hex: string) => boolean

  private constructor(process: Background, only: (hex: string) => boolean) {
    this.#process = process
    this.#only = only
  }

  /** Resolves when listening. */
  static async start(lab: Lab, netns: string, options: WatchOptions = {}): Promise<Watch> {
    const { ifname = IFNAME, mode = 'all', only = () => true } = options
    const process = lab.start(netns, lab.packetTool, 'recv', ifname, FRAMES_MAX, END_MS, mode)
    await until('it listens', () => process.stdout.includes('ready\n'))
    return new Watch(process, only)
  }

  /** As hex, so far. */
  get frames(): string[] {
    const lines = this.#process.stdout.split('\n').slice(0, -1)
    return lines.filter((line) => line !== 'ready' && this.#only(line))
  }

  /**
   * All that have come once that holds of them, and no more come; it ends then. When it does not hold in time, those
   * that have: what is expected of them says what is missing.
   */
  async upTo(
    isOver: (frames: readonly string[]) => boolean,
    timeoutMs?: number,
  ): Promise<string[]> {
    await until('all have come', () => isOver(this.frames), timeoutMs).catch(() => undefined)
    for (let before = -1; before !== this.frames.length;) {
      before = this.frames.length
      await new Promise((resolve) => setTimeout(resolve, MORE_MS))
    }
    await this.#process.stop()
    return this.frames
  }

  /** The same of so many. */
  count(frames: number, timeoutMs?: number): Promise<string[]> {
    return this.upTo((come) => come.length >= frames, timeoutMs)
  }

  /** Those that have come before this one, which was sent behind all others. */
  async before(last: string): Promise<string[]> {
    const come = (frames: readonly string[]): boolean => frames.includes(last)
    await until('the last one has come', () => come(this.frames))
    await this.#process.stop()
    return this.frames.slice(0, this.frames.indexOf(last))
  }
}

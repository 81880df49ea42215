/**
 * Two processes and a channel between them, without any: who reads frames is counted, and a process can be
 * killed, stalled or cut off at each message.
 */
import type { Channel } from '../../../src/handover/channel.ts'
import { ChannelClosed } from '../../../src/handover/channel.ts'
import { PROTOCOL } from '../../../src/handover/hello.ts'
import type { HelloOfSource, HelloOfTarget } from '../../../src/handover/hello.ts'
import type { HandOverRecord, Section } from '../../../src/handover/records.ts'
import type { SourceEffects, SourceResult } from '../../../src/handover/source.ts'
import { runSource } from '../../../src/handover/source.ts'
import type { TargetEffects, TargetResult } from '../../../src/handover/target.ts'
import { runTarget } from '../../../src/handover/target.ts'
import type { HandedSwitch } from '../../../src/switch/handed.ts'
import type { PortOptions } from '../../../src/port/options.ts'

export const LIMIT_MS = 40
export const STALL_MS = 3 * LIMIT_MS

export type Side = 'source' | 'target'

export interface Fault {
  /** Of which message, counted over both sides. */
  readonly at: number
  readonly when: 'before' | 'after'
  readonly who: Side
  readonly what: 'kill' | 'stall' | 'close'
}

const never = (): Promise<never> => new Promise(() => undefined)
export const sleep = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms))

const PORT = { type: 'tap', id: 'a', ifname: 'x0' } as const satisfies PortOptions
/** What the source has; its descriptors are numbers that nobody opens. */
export const HANDED = {
  runState: 'running',
  ports: [{ id: 'a', options: PORT, version: 1, state: {}, fds: [100, 101] }],
  links: [],
  captures: [{ id: 1, version: 1, state: {}, fds: [102] }],
  macs: [1, 2, 0, 5],
  counters: {},
  ownFrames: [],
} as unknown as HandedSwitch

class Half {
  readonly queue: HandOverRecord[] = []
  isOver = false
  wake: () => void = () => undefined
}

export class World {
  readonly reading: Record<Side, boolean> = { source: true, target: false }
  /** At some moment both have read. */
  wasDoubled = false
  readonly dead: Record<Side, boolean> = { source: false, target: false }
  readonly said: string[] = []
  readonly done: string[] = []
  /** Descriptors that came to the target, and are not let go of. */
  readonly held = new Set<number>()
  readonly fault: Fault | undefined
  /** The clock that both have. */
  nowUs = 1000
  readonly #to: Record<Side, Half> = { source: new Half(), target: new Half() }
  readonly #stalled: Partial<Record<Side, Promise<void>>> = {}
  readonly #death: Promise<void>
  #died!: () => void
  #message = 0

  constructor(fault?: Fault) {
    this.fault = fault
    this.#death = new Promise((resolve) => (this.#died = resolve))
  }

  /** Those that live come to their end; the dead never do. */
  async runToEnd(source: Promise<unknown>, target: Promise<unknown>): Promise<void> {
    await Promise.race([Promise.all([source, target]), this.#death])
    await (this.dead.source ? target : this.dead.target ? source : undefined)
  }

  readers(): Side[] {
    return (['source', 'target'] as const).filter((side) => this.reading[side])
  }

  #read(side: Side, isReading: boolean): void {
    if (this.dead[side]) return
    this.reading[side] = isReading
    if (this.readers().length > 1) this.wasDoubled = true
  }

  kill(side: Side): void {
    this.#read(side, false)
    this.dead[side] = true
    if (side === 'target') this.held.clear()
    this.#died()
    this.cut()
  }

  /** Nobody hears the other any more; what was sent is still read. */
  cut(): void {
    for (const half of Object.values(this.#to)) {
      half.isOver = true
      half.wake()
    }
  }

  /** What happens to the other one, or to this one, at a message. */
  #strike(at: number, when: Fault['when']): void {
    const { fault } = this
    if (fault === undefined || fault.at !== at || fault.when !== when) return
    this.done.push(`${fault.what} ${fault.who}`)
    if (fault.what === 'kill') this.kill(fault.who)
    else if (fault.what === 'close') this.cut()
    else this.#stalled[fault.who] = sleep(STALL_MS)
  }

  /** A process that is dead does nothing more, one that is stalled nothing now. */
  async #live(side: Side): Promise<void> {
    await this.#stalled[side]
    if (this.dead[side]) await never()
  }

  #put(side: Side, section: Section, data: unknown, fds: readonly number[]): boolean {
    if (this.dead[side]) return false
    const at = this.#message++
    const to = this.#to[side === 'source' ? 'target' : 'source']
    this.#strike(at, 'before')
    if (this.dead[side] || to.isOver) return false
    this.said.push(section)
    to.queue.push({ section, data: JSON.parse(JSON.stringify(data)), fds })
    to.wake()
    this.#strike(at, 'after')
    return true
  }

  channel(side: Side): Channel {
    const from = this.#to[side]
    const send: Channel['send'] = async (section, data, fds = [], signal) => {
      await this.#live(side)
      signal?.throwIfAborted()
      const isPut = this.#put(side, section, data, fds)
      await this.#live(side)
      if (!isPut) throw new ChannelClosed('cut')
    }
    return {
      send,
      sendAll: async (records, signal) => {
        for (const { section, data, fds } of records) await send(section, data, fds, signal)
      },
      sendNow: (section, data) => this.#put(side, section, data, []),
      receive: async (signal) => {
        for (;;) {
          await this.#live(side)
          signal?.throwIfAborted()
          const record = from.queue.shift()
          if (record !== undefined) {
            if (side === 'target' && !this.dead.target)
              for (const fd of record.fds) this.held.add(fd)
            return record
          }
          if (from.isOver) throw new ChannelClosed('cut')
          await new Promise<void>((resolve) => {
            from.wake = resolve
            signal?.addEventListener('abort', () => resolve())
          })
        }
      },
      hurry: () => undefined,
      close: async () => {
        await this.#live(side)
        this.cut()
      },
    }
  }

  async #do(side: Side, what: string, action: () => void = () => undefined): Promise<void> {
    await this.#live(side)
    this.done.push(what)
    action()
  }

  sourceEffects(): SourceEffects {
    return {
      preview: async () => {
        await this.#do('source', 'preview')
        return { ...HANDED, captures: [] }
      },
      silence: async () => {
        await this.#do('source', 'silence')
        return { control: { data: {}, fds: [102] }, ending: [] }
      },
      answer: () => void this.done.push('answer'),
      handOver: async ({ previewed, rehearse, silencing, pausing }) => {
        const rehearsed = { ...HANDED, ports: [], captures: [], macs: null }
        await rehearse?.(rehearsed)
        await silencing([])
        await rehearse?.(rehearsed)
        pausing()
        await this.#do('source', `pause ${(previewed ?? []).join(' ')}`.trim(), () =>
          this.#read('source', false),
        )
        return HANDED
      },
      takeBack: () => this.#do('source', 'take back', () => this.#read('source', true)),
      handedOver: async (settled) => {
        await this.#do('source', 'let go')
        await settled.catch(() => undefined)
      },
      status: () => undefined,
      kernelDropped: () => Promise.resolve(7),
      nowUs: () => this.nowUs,
    }
  }

  targetEffects(more: Partial<TargetEffects> = {}): TargetEffects {
    const letGo = (): void => this.held.clear()
    return {
      prepare: async (_hello, preview) => {
        await this.#do('target', 'prepare')
        return preview.switch.ports.map(({ id }) => id)
      },
      rehearse: () => this.#do('target', 'rehearse'),
      takeOver: () => this.#do('target', 'take over'),
      discard: () => this.#do('target', 'discard', letGo),
      start: (reading) =>
        this.#do('target', 'start', () => {
          this.#read('target', true)
          reading(3500)
        }),
      openByName: () =>
        this.#do('target', 'open by name', () => {
          this.#read('target', true)
        }),
      checkProcess: () => undefined,
      hasSourceEnded: async () => {
        await this.#live('target')
        return this.dead.source
      },
      closeProcess: (fd) => void this.held.delete(fd),
      closeFds: (fds) => fds.forEach((fd) => this.held.delete(fd)),
      status: () => undefined,
      kernelDropped: () => Promise.resolve(7),
      ...more,
    }
  }

  source(
    hello: Partial<HelloOfSource> = {},
    cancel: AbortSignal = new AbortController().signal,
  ): Promise<SourceResult> {
    return runSource(this.channel('source'), this.sourceEffects(), {
      hello: {
        protocol: PROTOCOL,
        release: '1.0.0',
        backendTransfer: true,
        features: ['tap'],
        exclude: [],
        ports: [PORT],
        outline: { ports: [], links: [], endingCaptures: [] },
        desired: {},
        ...hello,
      },
      ownProcess: 90,
      checkProcess: () => undefined,
      downtimeLimitMs: LIMIT_MS,
      cancel,
    })
  }

  target(
    hello: Partial<HelloOfTarget> = {},
    more: Partial<TargetEffects> = {},
    cancel: AbortSignal = new AbortController().signal,
  ): Promise<TargetResult> {
    return runTarget(this.channel('target'), this.targetEffects(more), {
      hello: {
        protocol: PROTOCOL,
        release: '1.1.0',
        pid: 4711,
        backendTransfer: true,
        features: ['tap'],
        exclude: [],
        ports: [],
        ...hello,
      },
      ownProcess: 91,
      greeted: () => undefined,
      cancel,
    })
  }
}

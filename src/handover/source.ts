/**
 * The source's part of a hand-over, without sockets:
 *
 *     hello -> prepare, rehearse -> | pause, drain, state and descriptors -> commit | -> running
 *                                   |<- until here it can take everything back ---->|
 *
 * Until `commit` is written it is the one owner, and goes on after any failure where it stopped. After
 * that it never reads again, whatever becomes of the target.
 */
import { StateError } from '../errors.ts'
import type { Channel } from './channel.ts'
import { ChannelClosed, reasonOf } from './channel.ts'
import type { HelloOfSource, HelloOfTarget } from './hello.ts'
import { compareHellos, readHello, refused } from './hello.ts'
import type { HandOverRecord, Section } from './records.ts'
import { channelError } from './records.ts'
import type { HandedSwitch } from '../switch/handed.ts'
import type { HandedControl } from './state.ts'
import { controlRecord, NO_CONTROL, stateRecords } from './state.ts'

/** What the target may take to say hello and to be prepared: code is loaded, nothing waits for it. */
const PATIENCE_MS = 30_000

/**
 * What a prepared target may take for the rehearsals, or the downtime-limit if that is longer: it has all that it needs.
 * Clients are answered meanwhile, but nothing can be changed.
 */
const REHEARSALS_MS = 2000

/** From the time at which clients are not answered any more until the pause, likewise. */
const SILENCE_MS = 500

/** Several times a usual pause. */
const HURRY_MS = 50

/** QEMU's words for how far a migration is. */
export type SourceStatus = 'setup' | 'active' | 'device'

/** What is done to the switch, one after another. */
export interface SourceEffects {
  /** What of the switch can be told while it goes on; the descriptors stay its own. */
  preview(): Promise<HandedSwitch>
  /**
   * Clients are not answered any more, until `answer` or `handedOver`; the descriptors stay its own. Of these
   * captures, which can go on with the target, `ending` are those that shall not.
   */
  silence(
    captures: readonly number[],
  ): Promise<{ control: HandedControl; ending: readonly number[] }>
  /** After `silence`, also when that has thrown. */
  answer(): void
  /**
   * It stops reading, delivers what it has read, and tells its state; the descriptors stay its own. When it throws,
   * it goes on.
   */
  handOver(how: HandingOver): Promise<HandedSwitch>
  /** It goes on where it stopped. */
  takeBack(): Promise<void>
  /** It never reads again, and leaves the devices as they are; what there is to be closed is once `settled` is. */
  handedOver(settled: Promise<unknown>): Promise<void>
  status(status: SourceStatus): void
  /** Frames for the switch that found a queue or ring of the kernel full, so far. */
  kernelDropped(): Promise<number>
  /** Microseconds of the clock that both processes have (CLOCK_MONOTONIC). */
  nowUs(): number
}

export interface HandingOver {
  /** Ports that the target has already, of which only what has changed is told; undefined: it has no preview. */
  readonly previewed: readonly string[] | undefined
  /** What is told is to be gone through with the target some times before; undefined: it does not do that. */
  readonly rehearse: ((handed: HandedSwitch) => Promise<void>) | undefined
  /** Called before the last of these, as HandOverOptions has it. */
  readonly silencing: (captures: readonly number[]) => Promise<readonly number[]>
  /** Called as it stops. */
  readonly pausing: () => void
}

export interface SourceOptions {
  readonly hello: HelloOfSource
  /** By which the target sees that this process ends; given to it with the hello. */
  readonly ownProcess: number
  /** Of the other side; it is checked and closed. */
  readonly checkProcess: (fds: readonly number[]) => void
  /** From the pause until the target holds everything, in milliseconds. */
  readonly downtimeLimitMs: number
  /** Aborted with an error: ended, as long as it is not too late. */
  readonly cancel: AbortSignal
}

export interface SourceResult {
  /** Of the target. */
  readonly release: string
  readonly pid: number
  /** From the last frame that was read here to the target's first, in microseconds. */
  readonly pauseUs: number
  /** Frames that the kernel had no room for meanwhile. */
  readonly framesLost: number
}

/** The target took over, and has gone since or says nothing: the source does not go on. */
export class HandedAway extends StateError {
  constructor(reason: string) {
    super('HAND_OVER', `the target has everything, and has not said that it runs: ${reason}`, {
      hint: 'start it anew: persistent interfaces and sockets are still there',
    })
  }
}

export async function runSource(
  channel: Channel,
  effects: SourceEffects,
  options: SourceOptions,
): Promise<SourceResult> {
  const { cancel, downtimeLimitMs } = options
  let [isSilent, isPaused] = [false, false]
  let target: HelloOfTarget
  const before = { us: 0, dropped: 0 }
  try {
    effects.status('setup')
    target = await greet(channel, options)
    effects.status('active')
    const prepared = within(PATIENCE_MS, 'the target has not prepared itself', cancel)
    const { previewed, isRehearsing } = await preview(channel, effects, prepared)
    before.dropped = await effects.kernelDropped()
    const inTime = (ms: number): AbortSignal =>
      within(Math.max(ms, downtimeLimitMs), 'the target has not rehearsed in time', cancel)
    let rehearsing = inTime(REHEARSALS_MS)
    const late = new AbortController()
    const limit = AbortSignal.any([late.signal, cancel])
    const tooLate = refused(
      `the target has not taken over within the downtime-limit (${downtimeLimitMs} ms)`,
    )
    const handed = await effects.handOver({
      previewed,
      rehearse: isRehearsing ? (now) => rehearse(channel, now, rehearsing) : undefined,
      silencing: async (captures) => {
        effects.status('device')
        rehearsing = inTime(SILENCE_MS)
        isSilent = true
        const { control, ending } = await effects.silence(captures)
        await channel.sendAll([controlRecord(control)], rehearsing)
        return ending
      },
      pausing: () => {
        channel.hurry(Math.min(HURRY_MS, downtimeLimitMs))
        abortAfter(late, downtimeLimitMs, tooLate)
        before.us = effects.nowUs()
      },
    })
    isPaused = true
    await channel.sendAll(stateRecords(handed), limit)
    expect(await channel.receive(limit), 'ready')
    limit.throwIfAborted()
    // While the answer was waited for in the call, no timer has fired.
    if (effects.nowUs() - before.us > downtimeLimitMs * 1000) throw tooLate
    // From here on there is no way back.
    if (!channel.sendNow('commit', {})) throw new ChannelClosed('commit could not be written')
  } catch (error) {
    // Before anything is closed by which the target could take us for dead.
    channel.sendNow('abort', { reason: reasonOf(asTold(error)) })
    if (isPaused) await effects.takeBack()
    if (isSilent) effects.answer()
    await channel.close()
    throw asTold(error)
  }
  return await letGo(channel, effects, target, before)
}

/** Returns the ports that the target holds by it; undefined: it has taken nothing of it. */
async function preview(
  channel: Channel,
  effects: SourceEffects,
  limit: AbortSignal,
): Promise<{ previewed: readonly string[] | undefined; isRehearsing: boolean }> {
  const handed = await effects.preview()
  await channel.send('prepare', {}, [], limit)
  await channel.sendAll([controlRecord(NO_CONTROL), ...stateRecords(handed)], limit)
  const { ports, rehearses } = (expect(await channel.receive(limit), 'prepared').data ?? {}) as {
    readonly ports?: unknown
    readonly rehearses?: unknown
  }
  const previewed = Array.isArray(ports) ? ports.map(String) : undefined
  return { previewed, isRehearsing: previewed !== undefined && rehearses === true }
}

/** Frames pass still: the target goes through what it will do with the state. */
async function rehearse(channel: Channel, handed: HandedSwitch, limit: AbortSignal): Promise<void> {
  channel.hurry(HURRY_MS)
  await channel.sendAll(stateRecords(handed, true), limit)
  expect(await channel.receive(limit), 'prepared')
}

async function letGo(
  channel: Channel,
  effects: SourceEffects,
  { release, pid }: HelloOfTarget,
  before: { readonly us: number; readonly dropped: number },
): Promise<SourceResult> {
  const running = channel.receive()
  running.catch(() => undefined)
  try {
    // Both processes may want the same processors: the one that has the frames comes first.
    await effects.handedOver(running)
    const { atUs, kernelDropped } = (expect(await running, 'running').data ?? {}) as {
      readonly atUs?: unknown
      readonly kernelDropped?: unknown
    }
    return {
      release,
      pid,
      pauseUs: Math.round(Number(atUs) - before.us),
      framesLost: Number(kernelDropped) - before.dropped,
    }
  } catch (error) {
    throw new HandedAway(reasonOf(error))
  } finally {
    await channel.close()
  }
}

async function greet(channel: Channel, options: SourceOptions): Promise<HelloOfTarget> {
  const { hello, ownProcess, cancel } = options
  const limit = within(PATIENCE_MS, 'the target has not said hello', cancel)
  await channel.send('hello', hello, [ownProcess], limit)
  const record = expect(await channel.receive(limit), 'hello')
  // That it came shows that descriptors pass: H2.
  options.checkProcess(record.fds)
  const answer = readHello(record.data, hello.release) as HelloOfTarget
  compareHellos(hello, answer)
  return answer
}

/** The record, which must be of that section. The other side's reason is thrown when it gives up. */
export function expect(record: HandOverRecord, section: Section): HandOverRecord {
  if (record.section === section) return record
  if (record.section === 'abort') {
    const { reason } = (record.data ?? {}) as { reason?: unknown }
    throw refused(`the other side gave up: ${String(reason).slice(0, 500)}`)
  }
  throw channelError(`section "${record.section}" came instead of "${section}"`)
}

/** Aborted with an error after that time, or with `cancel`. */
function within(ms: number, message: string, cancel: AbortSignal): AbortSignal {
  const late = new AbortController()
  abortAfter(late, ms, refused(message))
  return AbortSignal.any([late.signal, cancel])
}

function abortAfter(late: AbortController, ms: number, error: Error): void {
  setTimeout(() => late.abort(error), ms).unref()
}

function asTold(error: unknown): unknown {
  if (!(error instanceof ChannelClosed)) return error
  return refused(`the target is gone: ${error.message}`)
}

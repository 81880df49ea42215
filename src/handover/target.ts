/**
 * The target's part of a hand-over, without sockets:
 *
 *     hello -> prepared, rehearsed -> state and descriptors, verified -> ready -> commit -> it reads -> running
 *
 * It reads no frame before `commit`. When the channel breaks, whose the ports are is decided so:
 *
 *     before `ready`   the source lives: its; it is dead: ours, opened by name
 *     after `ready`    commit came: ours. It did not, and the source lives: its; it is dead: ours, as they are
 *
 * A source that lives says `abort` before it closes the channel.
 */
import type { Channel } from './channel.ts'
import { ChannelClosed, reasonOf } from './channel.ts'
import type { HelloOfSource, HelloOfTarget } from './hello.ts'
import { compareHellos, readHello, refused } from './hello.ts'
import type { Section } from './records.ts'
import { expect } from './source.ts'
import type { HandedSwitch } from '../switch/handed.ts'
import type { Handed } from './state.ts'
import { channelError } from './records.ts'
import { StateReader } from './state.ts'

/** A peer that says nothing is not waited for any longer. */
const HELLO_MS = 10_000

/** Until frames pass again: the source has something to do yet before it pauses. */
const HURRY_MS = 250

/** More than any source asks for. */
const REHEARSALS_MAX = 64

/** QEMU's words for how far a migration is. */
export type TargetStatus = 'active' | 'device'

export interface TargetEffects {
  /**
   * Checks and makes ready what can be before the source stops, and takes over what it can of the preview; returns
   * the ports that it holds then. The descriptors are its own from the call on.
   */
  prepare(hello: HelloOfSource, preview: Handed): Promise<readonly string[]>
  /** Goes through `takeOver` and `start` with what is held by the preview; nothing comes of it. */
  rehearse(handed: HandedSwitch): Promise<void>
  /**
   * Holds and has verified everything, opens what was left out, and reads nothing. The descriptors are
   * its own from the call on, also when it throws.
   */
  takeOver(handed: Handed): Promise<void>
  /** Lets go of everything that was taken over, and leaves the devices as they are. */
  discard(): Promise<void>
  /** Reads from now on, and tells since when, in microseconds of the clock that both processes have. */
  start(reading: (atUs: number) => void): Promise<void>
  /** Lets go of what was taken over so far, opens everything by name, and starts. */
  openByName(hello: HelloOfSource): Promise<void>
  /** Throws unless it is one descriptor of a process. */
  checkProcess(fds: readonly number[]): void
  /** Whether the process whose descriptor came with the hello has ended; waits a moment for it. */
  hasSourceEnded(process: number): Promise<boolean>
  closeProcess(process: number): void
  /** Descriptors that nobody took. */
  closeFds(fds: readonly number[]): void
  status(status: TargetStatus): void
  /** As the source's, over the same time. */
  kernelDropped(): Promise<number>
}

export interface TargetOptions {
  readonly hello: HelloOfTarget
  /** By which the source sees that descriptors pass. */
  readonly ownProcess: number
  /** Told which release the other side is. */
  readonly greeted: (release: string) => void
  /** Aborted with an error: it gives up, as long as it has not said that it is ready. */
  readonly cancel: AbortSignal
}

/** `running`: as handed over; `opened`: by name, as the source was dead. */
export type TargetResult = 'running' | 'opened'

interface Met {
  readonly hello: HelloOfSource
  /** Its descriptor. */
  readonly process: number
}

/** No hand-over has begun: whoever it was said nothing that makes sense. */
export class NotGreeted extends Error {}

export async function runTarget(
  channel: Channel,
  effects: TargetEffects,
  options: TargetOptions,
): Promise<TargetResult> {
  const met = await meet(channel, effects, options)
  try {
    return await takeOver(channel, effects, met, options)
  } finally {
    effects.closeProcess(met.process)
    await channel.close()
  }
}

/** The source's hello. Until it is understood, nothing is said that is of use to anybody. */
async function meet(
  channel: Channel,
  effects: TargetEffects,
  options: TargetOptions,
): Promise<Met> {
  let fds: readonly number[] = []
  try {
    const record = expect(await channel.receive(AbortSignal.timeout(HELLO_MS)), 'hello')
    fds = record.fds
    effects.checkProcess(fds)
    const hello = readHello(record.data, options.hello.release) as HelloOfSource
    options.greeted(hello.release)
    return { hello, process: fds[0] }
  } catch (error) {
    effects.closeFds(fds)
    channel.sendNow('abort', { reason: reasonOf(error) })
    await channel.close()
    throw new NotGreeted(reasonOf(error))
  }
}

async function takeOver(
  channel: Channel,
  effects: TargetEffects,
  met: Met,
  options: TargetOptions,
): Promise<TargetResult> {
  const { hello, process } = met
  const { cancel } = options
  const state = new StateReader()
  let isHeld = false
  try {
    compareHellos(hello, options.hello)
    await channel.send('hello', options.hello, [options.ownProcess], cancel)
    expect(await channel.receive(cancel), 'prepare')
    effects.status('active')
    const ports = await effects.prepare(hello, await receiveState(channel, state, cancel))
    effects.status('device')
    const handed = await rehearse(channel, effects, state, ports, cancel)
    await effects.takeOver(handed)
    isHeld = true
    cancel.throwIfAborted()
    sayNow(channel, 'ready', {})
    expect(await channel.receive(), 'commit')
  } catch (error) {
    effects.closeFds(state.takeFds())
    if (!(error instanceof ChannelClosed)) {
      channel.sendNow('abort', { reason: reasonOf(error) })
    } else if (await effects.hasSourceEnded(process)) {
      return await goOnAlone(effects, hello, isHeld)
    }
    await effects.discard()
    throw error instanceof ChannelClosed
      ? refused(`the source lives, and its channel is broken: ${error.message}`)
      : error
  }
  let atUs = 0
  await effects.start((readingUs) => {
    atUs = readingUs
  })
  channel.sendNow('running', { atUs, kernelDropped: await effects.kernelDropped() })
  return 'running'
}

/** Nobody else has the ports any more. */
async function goOnAlone(
  effects: TargetEffects,
  hello: HelloOfSource,
  isHeld: boolean,
): Promise<TargetResult> {
  if (!isHeld) {
    await effects.openByName(hello)
    return 'opened'
  }
  await effects.start(() => undefined)
  return 'running'
}

/** Says that it is prepared, and goes through the rest as often as the source wants to; returns the state itself. */
async function rehearse(
  channel: Channel,
  effects: TargetEffects,
  state: StateReader,
  ports: readonly string[],
  cancel: AbortSignal,
): Promise<Handed> {
  for (let times = 0; times <= REHEARSALS_MAX; times++) {
    sayNow(channel, 'prepared', { ports, rehearses: true })
    channel.hurry(HURRY_MS)
    const handed = await receiveState(channel, state, cancel)
    if (handed.isRehearsed !== true) return handed
    await effects.rehearse(handed.switch)
  }
  throw channelError('the source rehearses without end')
}

function sayNow(channel: Channel, section: Section, data: unknown): void {
  if (!channel.sendNow(section, data)) throw new ChannelClosed(`${section} could not be written`)
}

async function receiveState(
  channel: Channel,
  state: StateReader,
  cancel: AbortSignal,
): Promise<Handed> {
  for (;;) {
    const record = await channel.receive(cancel)
    if (record.section === 'abort') expect(record, 'end-of-state')
    const handed = state.push(record)
    if (handed !== undefined) return handed
  }
}

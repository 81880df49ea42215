/** The control plane's end of the engine thread: requests, their replies, and waking it. */
import type { MessagePort } from 'node:worker_threads'
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads'
import { StateError } from '../errors.ts'
import { makeEventFd } from '../native/event-fd.ts'
import { EventSignals } from '../native/event-signals.ts'
import type { FdClaim } from '../native/owned-fds.ts'
import { claimFd } from '../native/owned-fds.ts'
import { shim } from '../native/shim.ts'
import { WORKER_SLEEP_MAX_MS } from '../native/worker-exit.ts'
import type { WorkerFailure } from '../native/worker-thread.ts'
import { WorkerThread } from '../native/worker-thread.ts'
import { PORTS_MAX } from '../port/contract.ts'
import type { PortFailure } from '../port/messages.ts'
import { allocateCounters } from '../stats/port-counters.ts'
import type {
  EngineMessage,
  EngineReply,
  EngineRequest,
  EngineWorkerData,
  GroupRows,
  GuardDrops,
  MacRows,
  MovingAddress,
  NumberedReply,
  NumberedRequest,
  StormChange,
} from './messages.ts'
import { errorFrom } from './messages.ts'
import {
  ENGINE_BURSTS,
  ENGINE_COUNTERS,
  ENGINE_GROUPS,
  ENGINE_GROUPS_FULL,
  ENGINE_LOOP_SECONDS,
  ENGINE_MAC_ENTRIES,
  ENGINE_MAC_FULL,
  ENGINE_MAC_MOVES,
  ENGINE_MIRRORS,
  ENGINE_SLEEPS,
  SHARED_ANSWERS,
  SHARED_EXIT,
  SHARED_PENDING,
  SHARED_SLEEPING,
  SHARED_WORDS,
} from './cells.ts'

/** Longer than the engine ever takes that is not broken; then the answer comes by the event loop. */
const HURRY_MS = 50

export type EngineSettings = Pick<
  EngineWorkerData,
  'io' | 'usesAio' | 'pace' | 'macAgingS' | 'macTableSize' | 'groups' | 'snooping'
>

/** Of the engine, since its start; `mac_entries` and `groups` are how many there are now. */
export interface SwitchCounters {
  readonly mac_entries: number
  readonly mac_moves: number
  /** Seconds in which addresses kept moving between ports, as they do in a loop. */
  readonly loop_seconds: number
  readonly mac_table_full: number
  /** Multicast groups that snooping knows. */
  readonly groups: number
  /** Times that it had no room for one, or for one more port of one. */
  readonly group_table_full: number
  readonly bursts: number
  readonly sleeps: number
}

export interface EngineEvents {
  portFailed(port: number, failure: PortFailure): void
  queueBroken(port: number, queue: number, reason: string): void
  driverCalled(port: number): void
  loops(moving: readonly MovingAddress[]): void
  /** Storm control began or ended to drop frames. */
  storms(changes: readonly StormChange[]): void
  guardDrops(drops: readonly GuardDrops[]): void
  /** The engine is gone. */
  failed(error: Error): void
}

export class EngineClient {
  readonly counters: Float64Array
  readonly engineCounters: Float64Array
  /** Until `close`. */
  readonly signals: EventSignals
  readonly #shared: Int32Array
  readonly #eventFd: number
  readonly #claim: FdClaim
  readonly #thread: WorkerThread<EngineMessage, EngineReply>
  readonly #events: EngineEvents
  readonly #waiting = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (error: Error) => void }
  >()
  /**
   * Whoever asks waits for the answer and does nothing else, a while at most: on a busy machine it comes later to
   * the event loop. Of use only while frames wait.
   */
  isHurried = false
  readonly #answers: MessagePort
  #nextId = 1
  /** Requests that are to go together. */
  #gathered: NumberedRequest[] | undefined
  #failure: Error | undefined

  constructor(settings: EngineSettings, events: EngineEvents) {
    const counters = allocateCounters(PORTS_MAX)
    const engineCounters = new SharedArrayBuffer(ENGINE_COUNTERS * 8)
    const shared = new SharedArrayBuffer(SHARED_WORDS * 4)
    this.counters = new Float64Array(counters)
    this.engineCounters = new Float64Array(engineCounters)
    this.#shared = new Int32Array(shared)
    this.#eventFd = makeEventFd()
    this.signals = EventSignals.open()
    const { port1, port2 } = new MessageChannel()
    this.#answers = port1
    // Those that came too late for who waited.
    port1.on('message', (message: EngineReply) => this.#receive(message)).unref()
    const data: EngineWorkerData = {
      ...settings,
      counters,
      engineCounters,
      shared,
      sleepMaxUs: WORKER_SLEEP_MAX_MS < 0 ? -1 : WORKER_SLEEP_MAX_MS * 1000,
      eventFd: this.#eventFd,
      aioContext: this.signals.context,
      answers: port2,
    }
    this.#events = events
    try {
      this.#thread = new WorkerThread(
        new URL('../engine/worker.js', import.meta.url),
        data,
        {
          message: (message: EngineReply) => this.#receive(message),
          ended: (failure) => this.#ended(failure),
        },
        () => {
          Atomics.store(this.#shared, SHARED_EXIT, 1)
          Atomics.store(this.#shared, SHARED_PENDING, 1)
          shim.eventfdWrite(this.#eventFd)
        },
        [port2],
      )
    } catch (error) {
      port1.close()
      this.signals.close()
      shim.close(this.#eventFd)
      throw error
    }
    this.#claim = claimFd(this.#eventFd, 'the engine is woken by it')
  }

  /** Wakes the engine when it sleeps; cheap when it does not. */
  readonly wake = (): void => {
    if (Atomics.load(this.#shared, SHARED_SLEEPING) !== 0) shim.eventfdWrite(this.#eventFd)
  }

  /** Has the engine do something between two of its turns. */
  request(request: EngineRequest): Promise<unknown> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    return new Promise((resolve, reject) => {
      const id = this.#nextId++
      this.#waiting.set(id, { resolve, reject })
      if (this.#gathered === undefined) this.#post([{ id, request }])
      else this.#gathered.push({ id, request })
    })
  }

  /**
   * What `make` asks for before it returns goes to the engine as one message: it is done between the same two
   * turns, and answered at once.
   */
  together<T>(make: () => T): T {
    if (this.#gathered !== undefined) return make()
    const gathered: NumberedRequest[] = []
    this.#gathered = gathered
    try {
      return make()
    } finally {
      this.#gathered = undefined
      if (gathered.length > 0) this.#post(gathered)
    }
  }

  #post(requests: readonly NumberedRequest[]): void {
    const { isHurried } = this
    const answered = Atomics.load(this.#shared, SHARED_ANSWERS)
    this.#thread.post({ requests, isHurried })
    Atomics.store(this.#shared, SHARED_PENDING, 1)
    this.wake()
    if (!isHurried) return
    Atomics.wait(this.#shared, SHARED_ANSWERS, answered, HURRY_MS)
    for (;;) {
      const received = receiveMessageOnPort(this.#answers)
      if (received === undefined) return
      this.#receive(received.message as EngineReply)
    }
  }

  /** Addresses as [hi, lo, port, age in seconds] rows, part by part. */
  async *macTable(): AsyncGenerator<MacRows> {
    for (let cell = 0; cell >= 0;) {
      const page = (await this.request({ op: 'mac-table', cell })) as MacRows
      yield page
      cell = page.next
    }
  }

  /** Multicast groups, likewise. */
  async *groupTable(): AsyncGenerator<GroupRows['rows']> {
    for (let cell = 0; cell >= 0;) {
      const { rows, next } = (await this.request({ op: 'group-table', cell })) as GroupRows
      yield rows
      cell = next
    }
  }

  switchCounters(): SwitchCounters {
    const cells = this.engineCounters
    return {
      mac_entries: cells[ENGINE_MAC_ENTRIES],
      mac_moves: cells[ENGINE_MAC_MOVES],
      loop_seconds: cells[ENGINE_LOOP_SECONDS],
      mac_table_full: cells[ENGINE_MAC_FULL],
      groups: cells[ENGINE_GROUPS],
      group_table_full: cells[ENGINE_GROUPS_FULL],
      bursts: cells[ENGINE_BURSTS],
      sleeps: cells[ENGINE_SLEEPS],
    }
  }

  /** Goes on from these. Of addresses, see `take-over`. */
  restoreCounters({ loop_seconds, bursts, sleeps }: SwitchCounters): void {
    this.engineCounters[ENGINE_LOOP_SECONDS] = loop_seconds
    this.engineCounters[ENGINE_BURSTS] = bursts
    this.engineCounters[ENGINE_SLEEPS] = sleeps
  }

  /** Of the mirror with that number. */
  mirrorCounters(number: number): { readonly frames: number; readonly bytes: number } {
    const cell = ENGINE_MIRRORS + 2 * number
    return { frames: this.engineCounters[cell], bytes: this.engineCounters[cell + 1] }
  }

  /** It goes on from these; before it has frames. */
  restoreMirrorCounters(number: number, frames: number, bytes: number): void {
    const cell = ENGINE_MIRRORS + 2 * number
    this.engineCounters[cell] = frames
    this.engineCounters[cell + 1] = bytes
  }

  #receive(message: EngineReply): void {
    switch (message.type) {
      case 'replies':
        for (const reply of message.replies) this.#settle(reply)
        return undefined
      case 'port-failed':
        return this.#events.portFailed(message.port, message.failure)
      case 'queue-broken':
        return this.#events.queueBroken(message.port, message.queue, message.reason)
      case 'driver-called':
        return this.#events.driverCalled(message.port)
      case 'loops':
        return this.#events.loops(message.loops)
      case 'storms':
        return this.#events.storms(message.changes)
      case 'guard-drops':
        return this.#events.guardDrops(message.drops)
    }
  }

  #ended(failure: WorkerFailure | undefined): void {
    if (failure === undefined) {
      return this.#fail(new StateError('SWITCH_CLOSED', 'the switch is closed'))
    }
    const { reason, cause } = failure
    const error = new StateError('ENGINE_FAILED', `the engine failed: ${reason}`, { cause })
    this.#fail(error)
    this.#events.failed(error)
  }

  #settle(reply: NumberedReply): void {
    const waiting = this.#waiting.get(reply.id)
    this.#waiting.delete(reply.id)
    const { error } = reply
    if (error === undefined) waiting?.resolve(reply.value)
    else if (error.code !== undefined) waiting?.reject(errorFrom(error.code, error))
    else waiting?.reject(new StateError('ENGINE', `engine: ${error.message}`))
  }

  #fail(error: Error): void {
    this.#failure ??= error
    // It may have died asleep; after `close` its eventfd's number can be another's.
    Atomics.store(this.#shared, SHARED_SLEEPING, 0)
    for (const { reject } of this.#waiting.values()) reject(this.#failure)
    this.#waiting.clear()
  }

  async close(): Promise<void> {
    await this.#thread.end(() => this.request({ op: 'close' }).catch(() => undefined))
    this.#answers.close()
    shim.close(this.#eventFd)
    this.#claim.end()
  }
}

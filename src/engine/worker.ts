/** Entry of the engine thread: builds the engine and serves the control plane between its turns. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { Recorder } from '../capture/recorder.ts'
import { Aio } from '../io/aio.ts'
import { ReadWriteTier } from '../io/read-write-tier.ts'
import type { IoTier, TierEvents } from '../io/tier.ts'
import { UringTier } from '../io/uring-tier.ts'
import { SysError } from '../errors.ts'
import { dropThreadCapabilities } from '../native/capabilities.ts'
import { EventSignals } from '../native/event-signals.ts'
import { shim } from '../native/shim.ts'
import type { EnginePort, PortSurroundings } from '../port/contract.ts'
import { PORTS_MAX } from '../port/contract.ts'
import { makePort } from '../port/kinds.engine.ts'
import { KernelClock } from '../mem/clock.ts'
import { Window } from '../mem/window.ts'
import type {
  EngineMessage,
  EngineReply,
  EngineRequest,
  EngineWorkerData,
  NumberedReply,
  NumberedRequest,
} from './messages.ts'
import { errorFields } from './messages.ts'
import { ENGINE_BURSTS, SHARED_ANSWERS, SHARED_EXIT } from './cells.ts'
import { Engine } from './engine.ts'
import { handOver, takeOver } from './handing.ts'
import { addStaticMacs } from './static-macs.ts'
import { StayWarm } from './stay-warm.ts'
import { WarmUp } from './warm-up.ts'

dropThreadCapabilities()
const data = workerData as EngineWorkerData
const controlPort = parentPort!
const counters = new Float64Array(data.counters)
const engineCounters = new Float64Array(data.engineCounters)
const shared = new Int32Array(data.shared)
const clock = new KernelClock()
const signals = new EventSignals(data.aioContext)
const recorders = new Map<number, Recorder>()
/** Memory of rings that captures are to have. */
const rings = new Map<number, Window>()

function makeTier(eventFd: number, usesAio: boolean, events: TierEvents): IoTier {
  return data.io === 'read-write'
    ? new ReadWriteTier(eventFd, events, () => (usesAio ? Aio.open() : null))
    : new UringTier(eventFd, events)
}

/** Once the start is over the process may make no ring any more. */
function makeSmallTier(eventFd: number, events: TierEvents): IoTier {
  try {
    return makeTier(eventFd, false, events)
  } catch (error) {
    if (!(error instanceof SysError)) throw error
    return new ReadWriteTier(eventFd, events)
  }
}

const stayWarm = new StayWarm(clock, signals, makeSmallTier)
let { pace } = data

const engine = new Engine(
  {
    pace: data.pace,
    macAgingS: data.macAgingS,
    macTableSize: data.macTableSize,
    macSeed: (Math.random() * 2 ** 32) | 0,
    groups: data.groups,
    snooping: data.snooping,
    counters,
    engineCounters,
    shared,
    sleepMaxUs: data.sleepMaxUs,
    clock,
    onPortFailed: (port, failure) => send({ type: 'port-failed', port, failure }),
    onLoops: (loops) => send({ type: 'loops', loops }),
    onStorms: (changes) => send({ type: 'storms', changes }),
    onGuardDrops: (drops) => send({ type: 'guard-drops', drops }),
    warmth: stayWarm,
  },
  (events) => makeTier(data.eventFd, data.usesAio, events),
)

/** What ports of a kind share. */
const shares = new Map<string, { close(): void }>()

const surroundings: PortSurroundings = {
  tier: engine.tier,
  copies: engine.copies,
  signals,
  counters,
  clock,
  portFailed: (port, failure) => engine.portFailed(port, failure),
  events: {
    queueBroken: (port, queue, reason) => {
      // At once, for all its queues: the control plane, which is told, may have other things to do.
      engine.forwarder.setLink(port, false)
      send({ type: 'queue-broken', port, queue, reason })
    },
    driverCalled: (port) => send({ type: 'driver-called', port }),
  },
  share<T extends { close(): void }>(kind: string, make: () => T): T {
    const shared = (shares.get(kind) as T | undefined) ?? make()
    shares.set(kind, shared)
    return shared
  },
}

const warmUp = new WarmUp({
  ...surroundings,
  engine,
  engineCounters,
  shared,
  wake: () => void shim.eventfdWrite(data.eventFd),
})

/** For the ports that are expected. Once frames have passed they would wait for it. */
function getWarm(): void {
  if (engineCounters[ENGINE_BURSTS] > 0) return
  warmUp.run()
  if (pace === 'warm' || pace === 'busy') stayWarm.prepare()
}

function handle(request: EngineRequest): unknown {
  switch (request.op) {
    case 'add-port':
      warmUp.expect(request.description)
      stayWarm.expect(request.description)
      if (!request.isHeld) getWarm()
      return addPort(request)
    case 'replace-port':
      return engine.replacePort(make(request))
    case 'remove-port':
      return engine.removePort(request.port)
    case 'set-mtu':
      return engine.forwarder.setMtu(request.port, request.mtu)
    case 'hold':
      return engine.hold(request.ports)
    case 'release':
      getWarm()
      return engine.release(request.ports)
    case 'set-link':
      return engine.forwarder.setLink(request.port, request.isUp)
    case 'set-policy':
      return engine.forwarder.setPolicy(request.port, request.policy)
    case 'add-macs':
      return addStaticMacs(engine.forwarder.macTable, request.port, request.macs)
    case 'remove-macs':
      for (const [hi, lo] of request.macs) {
        engine.forwarder.macTable.removeStatic(hi, lo, request.port)
      }
      return undefined
    case 'flush-macs':
      return engine.forwarder.macTable.flush(request.port, request.vlan)
    case 'forget':
      return engine.forwarder.forget(request.port)
    case 'set-merging':
      return engine.forwarder.setMerging(request.port, request.isMerging)
    case 'call':
      return engine.forwarder.port(request.port)?.call?.(request.call, engine)
    case 'inject':
      return engine.inject(request.port, request.frame)
    case 'wire':
      return engine.forwarder.wire(request.a, request.b)
    case 'unwire':
      return engine.forwarder.unwire(request.a, request.b)
    case 'set-mirrors':
      return engine.forwarder.setMirrors(request.mirrors)
    case 'configure':
      pace = request.settings.pace
      return engine.configure(request.settings)
    case 'pause':
      return engine.pause()
    case 'resume':
      engine.resume()
      clock.read()
      return clock.time[0]
    case 'hand-over':
      return handOver(engine)
    case 'take-over':
      return takeOver(engine, request.engine, request.macs, request.groups, clock)
    case 'mac-table':
      return engine.macTable(request.cell)
    case 'group-table':
      clock.read()
      return engine.snooping.page(request.cell, engine.isPaused)
    case 'flush-groups':
      return engine.snooping.flush(request.port, request.vlan)
    case 'view-ring':
      return rings.set(request.window, Window.view(request.window)).size
    case 'forget-ring':
      rings.get(request.window)?.detach()
      return rings.delete(request.window)
    case 'add-capture': {
      const { window } = request.ring
      const recorder = new Recorder(request.ring, PORTS_MAX, rings.get(window))
      rings.delete(window)
      for (const { port, id, block } of request.interfaces) recorder.addInterface(port, id, block)
      recorders.set(request.capture, recorder)
      return engine.addRecorder(recorder)
    }
    case 'add-interface': {
      const { port, id, block } = request.interface
      return recorders.get(request.capture)?.addInterface(port, id, block)
    }
    case 'remove-capture': {
      const recorder = recorders.get(request.capture)
      recorders.delete(request.capture)
      return recorder === undefined ? undefined : engine.removeRecorder(recorder)
    }
    case 'publish-counters':
      return engine.publishCounters(true)
    case 'close':
      return undefined
  }
}

/** What it is allowed is known before its first frame. */
function addPort(request: EngineRequest & { op: 'add-port' }): void {
  const { port: index, policy, macs, mtu, isHeld } = request
  const { forwarder } = engine
  try {
    forwarder.setPolicy(index, policy)
    addStaticMacs(forwarder.macTable, index, macs)
    engine.addPort(make(request), mtu, isHeld)
  } catch (error) {
    forwarder.removePort(index)
    throw error
  }
}

function make(request: EngineRequest & { op: 'add-port' | 'replace-port' }): EnginePort {
  const { port: index, description, txOffloads } = request
  return makePort(description, { index, txOffloads }, surroundings)
}

function send(message: EngineReply): void {
  controlPort.postMessage(message)
}

/** Replies; whoever waits for nothing else has them sooner. */
function tell(message: EngineReply, isHurried: boolean): void {
  if (!isHurried) return send(message)
  data.answers.postMessage(message)
  Atomics.add(shared, SHARED_ANSWERS, 1)
  Atomics.notify(shared, SHARED_ANSWERS)
}

/** Serves every waiting request; false: the engine shall end. */
function serve(): boolean {
  for (;;) {
    if (Atomics.load(shared, SHARED_EXIT) !== 0) return false
    const received = receiveMessageOnPort(controlPort)
    if (received === undefined) return true
    const { requests, isHurried } = received.message as EngineMessage
    tell({ type: 'replies', replies: requests.map(answer) }, isHurried)
    if (requests.some(({ request }) => request.op === 'close')) return false
  }
}

function answer({ id, request }: NumberedRequest): NumberedReply {
  try {
    return { id, value: handle(request) }
  } catch (error) {
    return { id, error: errorFields(error) }
  }
}

/** One part of the end, which keeps nobody from the next: after a failure some cannot be done. */
function attempt(part: () => void): void {
  try {
    part()
  } catch {
    // The failure itself is what is told.
  }
}

try {
  engine.run(serve)
} finally {
  // What it has of the kernel is the process's, and would outlive the thread. There are ports only
  // when nobody has removed them before: guests see that their queues are gone, TAPs get their shape.
  for (let index = 0; index < PORTS_MAX; index++) {
    attempt(() => engine.forwarder.port(index)?.close())
  }
  for (const shared of shares.values()) attempt(() => shared.close())
  attempt(() => engine.close())
  attempt(() => stayWarm.close())
  attempt(() => signals.close())
  controlPort.close()
  data.answers.close()
}

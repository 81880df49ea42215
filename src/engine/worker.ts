/** Entry of the engine thread: builds the engine and serves the control plane between its turns. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { Recorder } from '../capture/recorder.ts'
import { ReadWriteTier } from '../io/read-write-tier.ts'
import type { IoTier, TierEvents } from '../io/tier.ts'
import { UringTier } from '../io/uring-tier.ts'
import { dropThreadCapabilities } from '../native/capabilities.ts'
import { EventSignals } from '../native/event-signals.ts'
import { shim } from '../native/shim.ts'
import { ReplayPort } from '../port/pcap-port.ts'
import { PORTS_MAX } from '../port/port.ts'
import { TapPort } from '../port/tap-port.ts'
import { VirtioPort } from '../port/virtio-port.ts'
import { VirtioScratch } from '../port/virtio-scratch.ts'
import { KernelClock } from '../mem/clock.ts'
import type { EngineReply, EngineRequest, EngineWorkerData, VirtioCall } from './messages.ts'
import { SHARED_EXIT } from './cells.ts'
import { Engine } from './engine.ts'
import { makePort } from './make-port.ts'
import type { PortSurroundings } from './make-port.ts'
import { shapeTap } from './tap-shape.ts'
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

function makeTier(events: TierEvents): IoTier {
  return data.io === 'read-write'
    ? new ReadWriteTier(data.eventFd, events)
    : new UringTier(data.eventFd, events)
}

const engine = new Engine(
  {
    pace: data.pace,
    macAgingS: data.macAgingS,
    macTableSize: data.macTableSize,
    macSeed: (Math.random() * 2 ** 32) | 0,
    dropsReservedGroups: data.dropsReservedGroups,
    counters,
    engineCounters,
    shared,
    sleepMaxUs: data.sleepMaxUs,
    clock,
    onPortFailed: (port, errno) => send({ type: 'port-failed', port, errno }),
    onLoops: (loops) => send({ type: 'loops', loops }),
  },
  makeTier,
)

const scratch = new VirtioScratch(engine.copies)

const surroundings: PortSurroundings = {
  tier: engine.tier,
  copies: engine.copies,
  scratch,
  signals,
  counters,
  clock,
  portFailed: (port, errno) => engine.portFailed(port, errno),
  events: {
    queueBroken: (port, queue, reason) => {
      // At once, for all its queues: the control plane, which is told, may have other things to do.
      engine.forwarder.setLink(port, false)
      send({ type: 'queue-broken', port, queue, reason })
    },
    driverCalled: (port) => send({ type: 'driver-called', port }),
  },
}

const warmUp = new WarmUp({
  ...surroundings,
  engine,
  engineCounters,
  shared,
  wake: () => void shim.eventfdWrite(data.eventFd),
})

function handle(request: EngineRequest): unknown {
  switch (request.op) {
    case 'add-port':
      warmUp.expect(request.description)
      if (!request.isHeld) warmUp.run()
      return engine.addPort(makePort(request, surroundings), request.mtu, request.isHeld)
    case 'replace-port':
      return engine.replacePort(makePort(request, surroundings))
    case 'remove-port':
      return engine.removePort(request.port)
    case 'change-port': {
      const { port: index, mtu, replay } = request
      engine.forwarder.setMtu(index, mtu)
      const port = engine.forwarder.port(index)
      return replay !== null && port instanceof ReplayPort ? port.change(replay) : undefined
    }
    case 'hold':
      return engine.hold(request.ports)
    case 'release':
      warmUp.run()
      return engine.release(request.ports)
    case 'set-link':
      return engine.forwarder.setLink(request.port, request.isUp)
    case 'forget-macs':
      return engine.forwarder.macTable.forgetPort(request.port)
    case 'set-merging':
      return engine.forwarder.setMerging(request.port, request.isMerging)
    case 'shape-tap': {
      const port = engine.forwarder.port(request.port)
      if (!(port instanceof TapPort)) throw new Error('not a TAP')
      return shapeTap(engine, port, request.shape)
    }
    case 'virtio': {
      const port = engine.forwarder.port(request.port)
      if (!(port instanceof VirtioPort)) throw new Error('not a virtio port')
      return callVirtio(port, request.call)
    }
    case 'inject':
      return engine.inject(request.port, request.frame)
    case 'wire':
      return engine.forwarder.wire(request.a, request.b)
    case 'unwire':
      return engine.forwarder.unwire(request.a, request.b)
    case 'configure':
      return engine.configure(request.settings)
    case 'pause':
      return engine.pause()
    case 'resume':
      return engine.resume()
    case 'mac-table':
      return engine.macTable(request.cell)
    case 'add-capture': {
      const recorder = new Recorder(request.ring, PORTS_MAX)
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

function callVirtio(port: VirtioPort, call: VirtioCall): unknown {
  switch (call.do) {
    case 'negotiate':
      port.negotiate(call.negotiated)
      return engine.forwarder.setTxOffloads(port.index, port.txOffloads)
    case 'memory':
      return port.setMemory(call.regions)
    case 'start':
      return port.startQueue(call.queue, call.setup)
    case 'stop':
      return port.stopQueue(call.queue)
    case 'enable':
      return port.enableQueue(call.queue, call.isEnabled)
    case 'call':
      return port.setCall(call.queue, call.fd)
    case 'kick':
      return port.setKick(call.queue, call.fd)
    case 'queue-log':
      return port.setQueueLog(call.queue, call.logAddress)
    case 'log':
      return port.setLog(call.window)
    case 'filter':
      return port.setFilter(call.filter)
    case 'rss':
      return port.setRss(call.rss)
    case 'reset':
      return port.reset()
  }
}

function send(message: EngineReply): void {
  controlPort.postMessage(message)
}

/** Serves every waiting request; false: the engine shall end. */
function serve(): boolean {
  for (;;) {
    if (Atomics.load(shared, SHARED_EXIT) !== 0) return false
    const received = receiveMessageOnPort(controlPort)
    if (received === undefined) return true
    const { id, request } = received.message
    try {
      const value = handle(request)
      send({ type: 'reply', id, value })
    } catch (error) {
      send({ type: 'reply', id, error: (error as Error).message })
    }
    if (request.op === 'close') return false
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
  attempt(() => scratch.close())
  attempt(() => engine.close())
  attempt(() => signals.close())
  controlPort.close()
}

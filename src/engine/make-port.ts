/**
 * The engine's port of what the control plane has opened. All or nothing: when one cannot be made,
 * nothing of it is left in this thread, as its owner unmaps its memory and closes its descriptors next.
 */
import { Recorder } from '../capture/recorder.ts'
import type { IoTier } from '../io/tier.ts'
import type { CopyProgram } from '../mem/copy-program.ts'
import type { EventSignals } from '../native/event-signals.ts'
import { MemoryEnginePort } from '../port/memory-port.ts'
import { MemoryRing } from '../port/memory-ring.ts'
import { RecordPort, ReplayPort } from '../port/pcap-port.ts'
import type { EnginePort } from '../port/port.ts'
import { PORTS_MAX } from '../port/port.ts'
import { PostponedPort } from '../port/postponed-port.ts'
import { RawSocketPort } from '../port/raw-socket-port.ts'
import { TapPort } from '../port/tap-port.ts'
import type { VirtioPortEvents } from '../port/virtio-port.ts'
import { VirtioPort } from '../port/virtio-port.ts'
import type { VirtioScratch } from '../port/virtio-scratch.ts'
import type { Clock } from '../mem/clock.ts'
import type { EngineRequest } from './messages.ts'

/** What ports of an engine share. */
export interface PortSurroundings {
  readonly tier: IoTier
  readonly copies: CopyProgram
  readonly scratch: VirtioScratch
  readonly signals: EventSignals
  readonly counters: Float64Array
  readonly clock: Clock
  readonly portFailed: (port: number, errno: number) => void
  readonly events: VirtioPortEvents
}

export type PortRequest = Pick<
  EngineRequest & { op: 'add-port' | 'replace-port' },
  'port' | 'description' | 'txOffloads'
>

export function makePort(request: PortRequest, surroundings: PortSurroundings): EnginePort {
  const { port: index, description, txOffloads } = request
  const { tier, copies, scratch, signals, counters, clock, portFailed, events } = surroundings
  switch (description.kind) {
    case 'tap': {
      const { fds, vnetHdrLength } = description
      return new TapPort({ index, fds, vnetHdrLength, txOffloads }, tier, counters)
    }
    case 'memory': {
      const inward = MemoryRing.view(description.inward)
      const outward = MemoryRing.view(description.outward)
      return new MemoryEnginePort(index, inward, outward, copies, counters)
    }
    case 'raw-socket':
      return new RawSocketPort({ ...description, index, txOffloads }, tier, counters)
    case 'replay':
      return new ReplayPort(index, description.file, clock, portFailed)
    case 'virtio':
      return new VirtioPort(index, tier, scratch, signals, counters, events)
    case 'record': {
      const recorder = new Recorder(description.ring, PORTS_MAX)
      recorder.addInterface(index, 0, description.block)
      return new RecordPort(index, recorder, clock, copies, counters)
    }
    case 'postponed':
      return new PostponedPort(index, txOffloads, counters)
  }
}

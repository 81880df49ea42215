/** What the control plane and the engine thread tell each other. All of it is structured-cloned. */
import type { CaptureRingHandle } from '../capture/ring.ts'
import type { IoTierName } from '../io/tier.ts'
import type { PortCall, PortDescription } from '../port/messages.ts'

/** How the engine waits for frames: awake for a while, always awake, asleep at once. */
export type Pace = 'adaptive' | 'busy' | 'interrupt'

/** What can change while the engine runs. */
export interface EngineSettingsInPlace {
  readonly pace: Pace
  readonly macAgingS: number
  readonly dropsReservedGroups: boolean
}

export interface EngineWorkerData extends EngineSettingsInPlace {
  readonly io: IoTierName
  /** Of the tier read-write. */
  readonly usesAio: boolean
  readonly macTableSize: number
  readonly counters: SharedArrayBuffer
  readonly engineCounters: SharedArrayBuffer
  readonly shared: SharedArrayBuffer
  readonly sleepMaxUs: number
  /** Wakes the engine out of its sleep. */
  readonly eventFd: number
  /** Of the EventSignals, which the engine closes at its end. */
  readonly aioContext: number
}

/** A part of the MAC table: [hi, lo, port, age in seconds], and the cell to go on at; -1: none. */
export interface MacRows {
  readonly rows: readonly (readonly [number, number, number, number])[]
  readonly next: number
}

/** An address that kept moving between two ports, and how often it and others did so in a second. */
export interface MovingAddress {
  readonly hi: number
  readonly lo: number
  readonly ports: readonly [number, number]
  readonly moves: number
}

export interface CaptureInterface {
  readonly port: number
  readonly id: number
  readonly block: Uint8Array
}

export type EngineRequest =
  | {
      op: 'add-port'
      port: number
      mtu: number
      txOffloads: number
      description: PortDescription
      isHeld: boolean
    }
  /** Another port in the place of this one, which is let go: wiring and MACs stay. */
  | { op: 'replace-port'; port: number; txOffloads: number; description: PortDescription }
  | { op: 'set-mtu'; port: number; mtu: number }
  | { op: 'remove-port'; port: number }
  /** Frames from and for these ports wait. */
  | { op: 'hold'; ports: readonly number[] }
  /** All of them pass frames from the same moment on. Answered with those that cannot be read. */
  | { op: 'release'; ports: readonly number[] }
  | { op: 'set-link'; port: number; isUp: boolean }
  /** The addresses that were learnt at the port. */
  | { op: 'forget-macs'; port: number }
  | { op: 'set-merging'; port: number; isMerging: boolean }
  /** Answered as the port's kind says. */
  | { op: 'call'; port: number; call: PortCall }
  /** A frame enters the switch as if the port had sent it. */
  | { op: 'inject'; port: number; frame: Uint8Array }
  | { op: 'wire'; a: number; b: number }
  | { op: 'unwire'; a: number; b: number }
  | { op: 'configure'; settings: EngineSettingsInPlace }
  | { op: 'pause' }
  | { op: 'resume' }
  /** Answered with MacRows, from that cell of the table on. */
  | { op: 'mac-table'; cell: number }
  | { op: 'add-capture'; capture: number; ring: CaptureRingHandle; interfaces: CaptureInterface[] }
  | { op: 'add-interface'; capture: number; interface: CaptureInterface }
  | { op: 'remove-capture'; capture: number }
  | { op: 'publish-counters' }
  | { op: 'close' }

export type EngineReply =
  | {
      readonly type: 'reply'
      readonly id: number
      readonly value?: unknown
      readonly error?: string
    }
  | { readonly type: 'port-failed'; readonly port: number; readonly errno: number }
  | { readonly type: 'driver-called'; readonly port: number }
  | { readonly type: 'loops'; readonly loops: readonly MovingAddress[] }
  | {
      readonly type: 'queue-broken'
      readonly port: number
      readonly queue: number
      readonly reason: string
    }

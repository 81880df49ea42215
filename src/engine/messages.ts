/** What the control plane and the engine thread tell each other. All of it is structured-cloned. */
import type { CaptureRingHandle } from '../capture/ring.ts'
import type { MemoryRingHandle } from '../port/memory-ring.ts'
import type { ReplayFile, ReplaySettings } from '../port/pcap-port.ts'
import type { RawSocketPortOptions } from '../port/raw-socket-port.ts'
import type { TapShape } from '../port/tap/queues.ts'
import type { GuestRegion } from '../mem/guest-memory.ts'
import type { VirtioNegotiated } from '../virtio/negotiated.ts'
import type { QueueSetup } from '../virtio/device-queue.ts'
import type { RssConfig } from '../virtio/rss.ts'
import type { RxFilterSettings } from '../virtio/rx-filter.ts'
import type { IoTierName } from '../io/tier.ts'

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

export type PortDescription =
  | { readonly kind: 'tap'; readonly fds: number[]; readonly vnetHdrLength: number }
  | {
      readonly kind: 'memory'
      readonly inward: MemoryRingHandle
      readonly outward: MemoryRingHandle
    }
  | ({ readonly kind: 'raw-socket' } & Omit<RawSocketPortOptions, 'index' | 'txOffloads'>)
  | { readonly kind: 'replay'; readonly file: ReplayFile }
  | { readonly kind: 'record'; readonly ring: CaptureRingHandle; readonly block: Uint8Array }
  | { readonly kind: 'virtio' }
  /** Not open yet: its place on the switch or on a link. */
  | { readonly kind: 'postponed' }

/** What the engine's port of a guest is asked between two turns; see port/virtio-port.ts. */
export type VirtioCall =
  | { readonly do: 'negotiate'; readonly negotiated: VirtioNegotiated }
  | { readonly do: 'memory'; readonly regions: readonly GuestRegion[] }
  | { readonly do: 'start'; readonly queue: number; readonly setup: QueueSetup }
  | { readonly do: 'stop'; readonly queue: number }
  | { readonly do: 'enable'; readonly queue: number; readonly isEnabled: boolean }
  | { readonly do: 'call' | 'kick'; readonly queue: number; readonly fd: number }
  | { readonly do: 'queue-log'; readonly queue: number; readonly logAddress: number }
  | { readonly do: 'log'; readonly window: number }
  | { readonly do: 'filter'; readonly filter: RxFilterSettings | null }
  | { readonly do: 'rss'; readonly rss: RssConfig | null }
  | { readonly do: 'reset' }

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
  | { op: 'change-port'; port: number; mtu: number; replay: ReplaySettings | null }
  | { op: 'remove-port'; port: number }
  /** Frames from and for these ports wait. */
  | { op: 'hold'; ports: readonly number[] }
  /** All of them pass frames from the same moment on. Answered with those that cannot be read. */
  | { op: 'release'; ports: readonly number[] }
  | { op: 'set-link'; port: number; isUp: boolean }
  /** The addresses that were learnt at the port. */
  | { op: 'forget-macs'; port: number }
  | { op: 'set-merging'; port: number; isMerging: boolean }
  /** Answered with a ShapedTap. */
  | { op: 'shape-tap'; port: number; shape: TapShape }
  | { op: 'virtio'; port: number; call: VirtioCall }
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

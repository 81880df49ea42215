/** What the control plane and the engine thread tell each other. All of it is structured-cloned. */
import type { MessagePort } from 'node:worker_threads'
import { FramepumpError, SysError } from '../errors.ts'
import type { CaptureRingHandle } from '../capture/ring.ts'
import type { IoTierName } from '../io/tier.ts'
import type { PortCall, PortDescription, PortFailure } from '../port/messages.ts'
import type { OwnFrame } from './own-frames.ts'

/** How the engine waits for frames: awake for a while, always awake, asleep at once, dozing before it sleeps. */
export type Pace = 'adaptive' | 'busy' | 'interrupt' | 'warm'

/** What can change while the engine runs. */
export interface EngineSettingsInPlace {
  readonly pace: Pace
  readonly macAgingS: number
  /** Bit n: 01-80-C2-00-00-0n passes. */
  readonly groups: number
  readonly snooping: SnoopingSettings
}

/** IGMP and MLD snooping: of which families, and how many groups are known together and of one port. */
export interface SnoopingSettings {
  readonly igmp: boolean
  readonly mld: boolean
  readonly maxGroups: number
  readonly maxGroupsPerPort: number
}

export const NO_SNOOPING: SnoopingSettings = {
  igmp: false,
  mld: false,
  maxGroups: 2048,
  maxGroupsPerPort: 256,
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
  /** Answers go by this one to who waits for them and does nothing else. */
  readonly answers: MessagePort
}

/** In the place of an age: the entry is static. */
export const STATIC_AGE = -1

/**
 * A part of the MAC table, one row after another: hi, lo, port, age in seconds or STATIC_AGE; and the cell to go
 * on at, -1: none. The VLAN is in the upper half of `lo`.
 */
export interface MacRows {
  readonly rows: Int32Array
  readonly next: number
  /** As long as this is the same, nothing came, went or moved; rows of an earlier answer differ in age only. */
  readonly changes: number
}

/** Numbers of a row. */
export const MAC_ROW = 4

/**
 * A part of the table of multicast groups (engine/group-table.ts), and the cell to go on at; -1: none. A row is
 * domain, four words of the group, port, and tenths of a second that are left. The domain is VID | inner VID << 12
 * | 1 << 24 for IPv6. Of a router all words are zero; of one that is the querier there follow: tenths of a second
 * that it is the querier, four words of its address, tenths of a second that a membership lasts, robustness, and
 * tenths of a second until all have had the time to answer it.
 */
export interface GroupRows {
  readonly rows: readonly GroupRow[]
  readonly next: number
}
export type GroupRow = readonly number[]
/** Where in a row the port is, and what is left. */
export const PORT_OF_ROW = 5
export const LEFT_OF_ROW = 6

/** What an engine has beside its ports and addresses. */
export interface HandedEngine {
  readonly macMoves: number
  readonly macFull: number
  /** As in MacRows; of no use to who takes over. */
  readonly macChanges?: number
  /** Ports that are given all multicast, as there was no room for what they want: tenths of a second, still. */
  readonly havingAll: readonly (readonly [port: number, left: number])[]
  readonly own: readonly OwnFrame[]
}

/** An address that kept moving between two ports, and how often it and others did so in a second. */
export interface MovingAddress {
  readonly hi: number
  readonly lo: number
  readonly ports: readonly [number, number]
  readonly moves: number
}

/** Ranges of VIDs, first and last. */
export type VlanRanges = readonly (readonly [number, number])[]

/** How a port takes part in VLANs; see offload/vlan-ports.ts. */
export interface VlanPolicy {
  readonly mode: 'access' | 'trunk' | 'native-tagged' | 'native-untagged' | 'dot1q-tunnel'
  readonly priorityTags: 'never' | 'if-nonzero' | 'always'
  /** VID of access, native and tunnel ports. */
  readonly tag: number
  /** The tunnel's tag has TPID 0x8100, not 0x88a8. */
  readonly isQinq8100: boolean
  /** null: all. */
  readonly trunks: VlanRanges | null
  readonly cvlans: VlanRanges | null
}

/** Frames a second that are flooded: broadcast, multicast, unknown unicast; 0: any number. */
export type StormRates = readonly [number, number, number]

/** What a port is allowed, beside what it is. */
export interface PortPolicy {
  /** null: it is a trunk of all VLANs that passes frames with their tags as they are. */
  readonly vlan: VlanPolicy | null
  readonly isIsolated: boolean
  readonly floodsUnknown: boolean
  readonly floodsMulticast: boolean
  readonly floodsBroadcast: boolean
  readonly learns: boolean
  readonly isLocked: boolean
  readonly hairpins: boolean
  readonly isSticky: boolean
  /** Addresses that are learnt there at most. */
  readonly macLimit: number
  readonly dropsOverLimit: boolean
  readonly storm: StormRates | null
  /** Bit n: 01-80-C2-00-00-0n passes; null: those that pass on the switch. */
  readonly groups: number | null
  readonly guard: GuardPolicy | null
  /** What comes by it makes it a port with multicast routers, nothing does, or it is one. */
  readonly multicastRouter: 'auto' | 'never' | 'always'
}

/** Of a port without any such option. */
export const NO_POLICY: PortPolicy = {
  vlan: null,
  isIsolated: false,
  floodsUnknown: true,
  floodsMulticast: true,
  floodsBroadcast: true,
  learns: true,
  isLocked: false,
  hairpins: false,
  isSticky: false,
  macLimit: 0x7fff_ffff,
  dropsOverLimit: false,
  storm: null,
  groups: null,
  guard: null,
  multicastRouter: 'auto',
}

/** A class of frames began to be dropped at a port, or was not for a second. */
export interface StormChange {
  readonly port: number
  /** STORM_ of storm.ts. */
  readonly kind: number
  readonly isStorm: boolean
  /** Since it began. */
  readonly dropped: number
}

/** A static entry of the forwarding database; the VLAN is in the upper half of `lo`. */
export type StaticMac = readonly [hi: number, lo: number]

/** What a guarded port may send as. */
export interface GuardPolicy {
  readonly checks: readonly ('mac' | 'arp' | 'ipv4' | 'ipv6' | 'dhcp' | 'ra')[]
  /** Six octets each. */
  readonly macs: readonly (readonly number[])[]
  /** Address and mask. */
  readonly ipv4: readonly (readonly number[])[]
  /** Four words of the address, and four of the mask. */
  readonly ipv6: readonly (readonly number[])[]
}

/** Frames that a guard has dropped in a second, for one reason (guard-check.ts), and the source of the last one. */
export interface GuardDrops {
  readonly port: number
  readonly reason: number
  readonly dropped: number
  readonly hi: number
  readonly lo: number
}

/** A mirror, with the numbers of its ports. */
export interface MirrorDescription {
  /** Of the mirror, 0..MIRRORS_MAX - 1. */
  readonly number: number
  /** Ports of which the frames are copied that enter by them, and of which those that leave by them. */
  readonly sources: readonly number[]
  readonly destinations: readonly number[]
  /** Of these VLANs only; null: of all. */
  readonly vlans: VlanRanges | null
  /** The port that is given the copies; -1: there is no such port now, or they go into a VLAN. */
  readonly output: number
  /** The VLAN that they go into, 1..4094; 0: none. */
  readonly outputVlan: number
  /** A program that `filterCheck` of the shim passes: only what it passes is copied; null: everything is. */
  readonly filter: Int32Array | null
  /** Bytes of a copy, at most; 0: all. */
  readonly snapLength: number
}

export interface CaptureInterface {
  readonly port: number
  readonly id: number
  /** Null: it is in the file already. */
  readonly block: Uint8Array | null
}

export type EngineRequest =
  | {
      op: 'add-port'
      port: number
      mtu: number
      txOffloads: number
      description: PortDescription
      isHeld: boolean
      /** In force before its first frame. */
      policy: PortPolicy
      macs: readonly StaticMac[]
    }
  /** Another port in the place of this one, which is let go: wiring and MACs stay. */
  | { op: 'replace-port'; port: number; txOffloads: number; description: PortDescription }
  | { op: 'set-mtu'; port: number; mtu: number }
  | { op: 'set-policy'; port: number; policy: PortPolicy }
  /** Static entries. Answered with how many had no room: those are not there. */
  | { op: 'add-macs'; port: number; macs: readonly StaticMac[] }
  | { op: 'remove-macs'; port: number; macs: readonly StaticMac[] }
  /** What was learnt, at a port and in a VLAN; -1: any. */
  | { op: 'flush-macs'; port: number; vlan: number }
  /** All that was learnt at a port, multicast groups as well: whoever was there is gone. */
  | { op: 'forget'; port: number }
  | { op: 'remove-port'; port: number }
  /** Frames from and for these ports wait. */
  | { op: 'hold'; ports: readonly number[] }
  /** All of them pass frames from the same moment on. Answered with those that cannot be read. */
  | { op: 'release'; ports: readonly number[] }
  | { op: 'set-link'; port: number; isUp: boolean }
  | { op: 'set-merging'; port: number; isMerging: boolean }
  /** Answered as the port's kind says. */
  | { op: 'call'; port: number; call: PortCall }
  /** A frame enters the switch as if the port had sent it. */
  | { op: 'inject'; port: number; frame: Uint8Array }
  | { op: 'wire'; a: number; b: number }
  | { op: 'unwire'; a: number; b: number }
  /** All that there are from now on: those that are not named are no more. */
  | { op: 'set-mirrors'; mirrors: readonly MirrorDescription[] }
  | { op: 'configure'; settings: EngineSettingsInPlace }
  | { op: 'pause' }
  | { op: 'resume' }
  /** Of one that is paused; answered with a HandedEngine. */
  | { op: 'hand-over' }
  | {
      op: 'take-over'
      engine: HandedEngine
      macs: MacRows['rows'] | null
      groups: GroupRows['rows']
    }
  /** Answered with MacRows, from that cell of the table on. */
  | { op: 'mac-table'; cell: number }
  /** Answered with GroupRows, likewise. */
  | { op: 'group-table'; cell: number }
  /** Members and routers of a port and in a VLAN; -1: any. */
  | { op: 'flush-groups'; port: number; vlan: number }
  /** The memory of a ring that a capture is to have, which is not its yet; or is to have no more. */
  | { op: 'view-ring' | 'forget-ring'; window: number }
  | { op: 'add-capture'; capture: number; ring: CaptureRingHandle; interfaces: CaptureInterface[] }
  | { op: 'add-interface'; capture: number; interface: CaptureInterface }
  | { op: 'remove-capture'; capture: number }
  | { op: 'publish-counters' }
  | { op: 'close' }

export interface NumberedRequest {
  readonly id: number
  readonly request: EngineRequest
}

/** What is done between the same two turns, one after another, and answered at once. */
export interface EngineMessage {
  readonly requests: readonly NumberedRequest[]
  /** Somebody waits for it and does nothing else: SHARED_ANSWERS. */
  readonly isHurried: boolean
}

/** Of the request with that number. */
export interface NumberedReply {
  readonly id: number
  readonly value?: unknown
  readonly error?: ErrorFields
}

export type EngineReply =
  | { readonly type: 'replies'; readonly replies: readonly NumberedReply[] }
  | { readonly type: 'port-failed'; readonly port: number; readonly failure: PortFailure }
  | { readonly type: 'driver-called'; readonly port: number }
  | { readonly type: 'loops'; readonly loops: readonly MovingAddress[] }
  | { readonly type: 'storms'; readonly changes: readonly StormChange[] }
  | { readonly type: 'guard-drops'; readonly drops: readonly GuardDrops[] }
  | {
      readonly type: 'queue-broken'
      readonly port: number
      readonly queue: number
      readonly reason: string
    }

/** What of an error crosses. */
export interface ErrorFields {
  readonly message: string
  /** Absent: it is none of ours, but a mistake. */
  readonly code?: string
  readonly hint?: string | undefined
  readonly port?: string | undefined
  readonly syscall?: string | undefined
  readonly errno?: number | undefined
  readonly ifname?: string | undefined
  readonly path?: string | undefined
}

export function errorFields(error: unknown): ErrorFields {
  if (!(error instanceof FramepumpError)) {
    return { message: error instanceof Error ? error.message : String(error) }
  }
  const { message, code, hint, port } = error
  const fields: ErrorFields = { message, code, hint, port }
  if (!(error instanceof SysError)) return fields
  const { syscall, errno, ifname, path } = error
  return { ...fields, syscall, errno, ifname, path }
}

/** The error again: one that the operating system is to blame for, or another with its code. */
export function errorFrom(code: string, fields: ErrorFields): FramepumpError {
  const { message, hint, port, syscall, errno, ifname, path } = fields
  const isSystems = syscall !== undefined || errno !== undefined
  const error = isSystems
    ? new SysError(code, message, {
        hint,
        ifname,
        path,
        ...(syscall === undefined ? {} : { syscall }),
        ...(errno === undefined ? {} : { errno }),
      })
    : new FramepumpError(code, message, { hint })
  error.port = port
  return error
}

/** What of a switch crosses to another process that goes on with it: plain JSON, and descriptors for each port. */
import { setTimeout } from 'node:timers/promises'
import type { SwitchCounters } from '../engine/client.ts'
import type { HandedState } from '../port/handed.ts'
import type { PortOptions } from '../port/options.ts'
import type { CounterName } from '../stats/counters.ts'
import type { MirrorInfo, MirrorOptions } from './api.ts'

/** So often each side does beforehand what it will do while frames wait: V8 compiles what has run some times. */
export const REHEARSALS = 8

/** Just before frames wait: the processors forget as well what has not run for a while. */
export const LAST_REHEARSALS = 2

/** No other rehearsal begins then: it goes on with what has run so far. */
export const REHEARSING_MS = 500

/** Of the last ones: whoever is not answered waits. */
export const LAST_REHEARSING_MS = 100

/** V8 compiles in threads of its own, which would have the processors while frames wait. */
const COMPILED_MS = 20

export const settle = (): Promise<void> => setTimeout(COMPILED_MS)

/** A port with all that the switch knows of it; what its kind says of it is HandedState. */
export interface HandedPort extends HandedState {
  readonly id: string
  readonly options: PortOptions
  /** It was left out and is closed: whoever takes over opens it by its options. */
  readonly isExcluded: boolean
  /** Administrative state (set_link). */
  readonly link: boolean
  readonly isHeld: boolean
  /** Why it passes no frames, if it has failed; `isGuests`: until another guest comes. */
  readonly failure: { readonly reason: string; readonly isGuests: boolean } | null
  /** Of its interface: whether it has been up, and what the kernel had dropped there before it was opened. */
  readonly wasUp: boolean
  readonly droppedBefore: { readonly rx: number; readonly tx: number }
  /** Those that are not zero. */
  readonly counters: Readonly<Partial<Record<CounterName, number>>>
}

/** A port that is as the preview said, descriptors included, but for what stands here. */
export interface PreviewedPort extends Pick<HandedPort, 'id' | 'position'> {
  /** Those that have changed since. */
  readonly counters: HandedPort['counters']
}

/** A capture, which goes on where it is written to. Of a preview its ring alone. */
export interface HandedCapture extends HandedState {
  readonly id: number
}

export interface HandedSwitch {
  /** Whether frames are to be read again. */
  readonly runState: 'running' | 'paused'
  /** In the order in which they were added; without those that are in `previewed`. */
  readonly ports: readonly HandedPort[]
  /** Where ports are named by their place, these come after those of `ports`. Absent: there are none. */
  readonly previewed?: readonly PreviewedPort[]
  readonly links: readonly (readonly [string, string])[]
  readonly mirrors: readonly MirrorOptions[]
  /** By mirror: what it has counted so far. Absent: of one that does not tell that. */
  readonly mirrored?: Readonly<Record<string, Pick<MirrorInfo, 'frames' | 'bytes' | 'counters'>>>
  /** By mirror: number of the next copy that goes to another host. Absent: of one that knows no such mirrors. */
  readonly sequences?: Readonly<Record<string, number>>
  /**
   * Four numbers for each address: its first four bytes, its last two and the VLAN (in the upper half), place of
   * its port in `ports`, age in seconds, -1 of a static entry. Null: they are as the preview said, but for the age.
   */
  readonly macs: readonly number[] | null
  /**
   * Members of multicast groups, and routers: as the engine's rows, with the place of the port in `ports`. Absent:
   * nothing is known.
   */
  readonly groups?: readonly (readonly number[])[]
  /** Place of a port that is given all multicast, as there was no room for its groups, and tenths of a second, still. */
  readonly havingAll?: readonly (readonly [number, number])[]
  readonly counters: SwitchCounters
  readonly captures: readonly HandedCapture[]
  /** Of the daemon's own that wait for the end of a pause: place of the port in `ports`, bytes in base64. */
  readonly ownFrames: readonly (readonly [number, string])[]
}

/** Of `handOver`. */
export interface HandOverOptions {
  /** The other one has the last preview, and these ports by it: only what has changed since is told. */
  readonly previewed?: readonly string[] | undefined
  /**
   * Called some times with what would be told now, while frames pass: the other one shall do with it what it will
   * do (`rehearseTakeOver`), and is ready again when this resolves. Its code has run then, and is faster.
   */
  readonly rehearse?: ((handed: HandedSwitch) => Promise<unknown>) | undefined
  /**
   * Called before the last of these, a moment before frames wait, with the captures that can go on: who answers
   * others can be silent from then on. Resolves with those that shall end here all the same.
   */
  readonly silencing?: (captures: readonly number[]) => Promise<readonly number[]>
  /** Called when frames begin to wait. */
  readonly pausing?: () => void
}

/** What would be handed over. */
export interface HandOverOutline {
  readonly ports: readonly OutlinedPort[]
  readonly links: readonly (readonly [string, string])[]
  /** Numbers of captures that end when the switch is handed over: into streams. */
  readonly endingCaptures: readonly number[]
}

export interface OutlinedPort {
  readonly id: string
  readonly options: PortOptions
  readonly queues: number
  /** TUN_F_* bits: what the port can be given, and what its frames may need. */
  readonly txOffloads: number
  readonly rxOffloads: number
  readonly vnetHdrLength: number
  readonly isExcluded: boolean
}

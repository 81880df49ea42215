/** What the control plane tells the engine thread about ports. All of it is structured-cloned. */
import type { ErspanCall, ErspanDescription } from './erspan/messages.ts'
import type { MemoryDescription } from './memory/messages.ts'
import type { RecordDescription, ReplayCall, ReplayDescription } from './pcap/messages.ts'
import type { RawSocketCall, RawSocketDescription } from './raw-socket/messages.ts'
import type { TapCall, TapDescription } from './tap/messages.ts'
import type { VirtioCall, VirtioDescription } from './virtio/messages.ts'

/** What a port is to be made of. */
export type PortDescription =
  | TapDescription
  | RawSocketDescription
  | MemoryDescription
  | ReplayDescription
  | RecordDescription
  | VirtioDescription
  /** No port of the user's: the output of a mirror. */
  | ErspanDescription
  /** Not open: its place on the switch or on a link. */
  | { readonly kind: 'postponed' }

/** Why the engine cannot go on with a port; whoever finds out knows. */
export interface PortFailure {
  /** `memory-lost`: its guest took it away, or whoever owns it. `file-unreadable`: see the errno. */
  readonly what: 'interface-deleted' | 'memory-lost' | 'file-truncated' | 'file-unreadable'
  /** What the kernel said, positive. */
  readonly errno: number
}

/** What the engine's port is asked between two turns. */
export type PortCall = TapCall | RawSocketCall | ReplayCall | VirtioCall | ErspanCall

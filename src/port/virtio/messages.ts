/** What crosses between the threads about a virtio-net device, a guest's or one in process. */
import type { GuestRegion } from '../../mem/guest-memory.ts'
import type { QueueSetup } from '../../virtio/ring/device-queue.ts'
import type { VirtioNegotiated } from '../../virtio/net/negotiated.ts'
import type { RssConfig } from '../../virtio/net/rss.ts'
import type { RxFilterSettings } from '../../virtio/net/rx-filter.ts'

export interface VirtioDescription {
  readonly kind: 'virtio'
}

/** What the engine's port of a guest is asked between two turns; see port/virtio/engine.ts. */
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
  /** Nothing is written to its memory until `keep`; answered with RingState of each queue that runs. */
  | { readonly do: 'leave' }
  /** Answered as `leave`, and changes nothing. */
  | { readonly do: 'describe' }
  | { readonly do: 'keep' }
  /** Of one that is another process's still: its queues stand there. False: one of them cannot. */
  | { readonly do: 'bases'; readonly bases: readonly (readonly [number, number])[] }

/** Where a queue stands that runs, and the descriptors that it has now. */
export interface RingState {
  readonly queue: number
  readonly base: number
  readonly kickFd: number
  readonly callFd: number
  readonly logAddress: number
}

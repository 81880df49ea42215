/** What a session knows, for another process that goes on with its connection. */
import type { RegionRow } from './codec.ts'
import type { Vring } from './vring.ts'

/** What a front-end has said about one virtqueue. Descriptors are the session's; -1: none. */
export type VringState = Pick<
  Vring,
  | 'size'
  | 'base'
  | 'descriptorAddress'
  | 'availAddress'
  | 'usedAddress'
  | 'logAddress'
  | 'kickFd'
  | 'callFd'
  | 'errFd'
  | 'isWanted'
  | 'isStarted'
>

export interface SessionState {
  readonly offered: bigint
  readonly features: bigint
  readonly protocolFeatures: bigint
  readonly status: bigint
  readonly regions: readonly RegionRow[]
  /** All of the port's, in their order. */
  readonly vrings: readonly VringState[]
}

/** What crosses between the threads about a TAP. */
import type { TapShape } from '../shape.ts'

export interface TapDescription {
  readonly kind: 'tap'
  readonly fds: readonly number[]
  readonly vnetHdrLength: number
}

/** Answered with a ShapedTap. */
export interface TapCall {
  readonly do: 'shape'
  readonly shape: TapShape
}

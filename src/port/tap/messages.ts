/** What crosses between the threads about a TAP. */
import type { TapShape } from '../shape.ts'

export interface TapDescription {
  readonly kind: 'tap'
  readonly fds: readonly number[]
  /** As the device was opened. */
  readonly vnetHdrLength: number
  /** Another process's still, which has left it in that shape: nothing is set before `keep`. */
  readonly handed?: TapShape
}

/** `shape` is answered with a ShapedTap. */
export type TapCall =
  | { readonly do: 'shape'; readonly shape: TapShape }
  /** From now on the device is left as it is, also at the end; answered with its TapShape. */
  | { readonly do: 'leave' }
  /** Answered as `leave`, and changes nothing. */
  | { readonly do: 'describe' }
  /** It is ours, again or now. */
  | { readonly do: 'keep' }

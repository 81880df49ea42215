/**
 * What happens to frames between the forwarding decision and a port: stages, each of which takes a list of
 * frames, does its own, and hands on what comes of it.
 *
 *     engine/egress.ts composes:      [merge] -> port      [finish] -> port      port
 *
 * A stage looks to the one before it like the port itself, so any two can be put together. What it hands
 * on is the burst that it was given, or frames of its own (frame-builder.ts) in front of slices of those;
 * they are complete and handed on before `transmit` returns. The order within a flow stays.
 */
import type { Burst } from '../mem/burst.ts'
import type { NewHeads } from '../mem/new-heads.ts'

/** A stage, or at the end a port (port/contract.ts). */
export interface FrameTaker {
  /** Takes the frames list[first .. first + count) of the burst, which came in by rx queue `queue`. @hot */
  transmit(burst: Burst, list: Int32Array, first: number, count: number, queue: number): void
  /** It copies frames, and writes their beginnings as it does so. */
  readonly writesHeads?: boolean
  /** The same with these heads: there if `writesHeads` may be true. Each first segment is LOOKED_AT bytes or more. @hot */
  transmitWithHeads?(
    burst: Burst,
    list: Int32Array,
    first: number,
    count: number,
    queue: number,
    heads: NewHeads,
  ): void
}

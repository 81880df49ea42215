/** What crosses between the threads about files that are replayed and recorded. */
import type { CaptureRingHandle } from '../../capture/ring.ts'

export interface ReplaySettings {
  /** At the file's own pace, else as fast as the switch takes them. */
  readonly isPaced: boolean
  /** Times it is replayed; 0: for ever. */
  readonly loop: number
}

export interface ReplayFile extends ReplaySettings {
  /** The control plane's, open as long as the port is there. */
  readonly fd: number
  /** When it was indexed; a file may grow, but not shrink. */
  readonly size: number
  /** In the file. */
  readonly offset: Int32Array
  readonly length: Int32Array
  readonly dueUs: Float64Array
}

/** How far it has come. */
export interface ReplayPosition {
  /** The frame that is next. */
  readonly at: number
  readonly loopsDone: number
  /** When the current loop started, in microseconds of CLOCK_MONOTONIC; 0: not yet. */
  readonly startUs: number
  readonly hasFailed: boolean
}

export interface ReplayDescription {
  readonly kind: 'replay'
  readonly file: ReplayFile
  /** Absent: from the first frame on. */
  readonly position?: ReplayPosition
}

export interface RecordDescription {
  readonly kind: 'record'
  readonly ring: CaptureRingHandle
  /** Of the one interface of its file; null: it is in the file already. */
  readonly block: Uint8Array | null
}

export type ReplayCall =
  | { readonly do: 'change-replay'; readonly settings: ReplaySettings }
  /** Answered with a ReplayPosition. */
  | { readonly do: 'replay-position' }

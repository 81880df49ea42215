/** Captures as the public API has them: what is asked for, what runs, what has become of it. */
import type { Writable } from 'node:stream'

export type CaptureFormat = 'pcapng' | 'pcap'
export type CaptureDirection = 'in' | 'out' | 'both'

export interface CaptureOptions {
  /** Port ids; absent: all, those added later included. */
  readonly ports?: readonly string[]
  /**
   * `in` (default): each frame once, where it enters the switch; `out`: where it leaves, once for each
   * port that it is given to; `both`: a forwarded frame is there twice or more.
   */
  readonly direction?: CaptureDirection
  /** Bytes kept of each frame, 1..262144; default 262144 (whole). */
  readonly snapLength?: number
  /** Stop after so many frames. */
  readonly count?: number
  readonly format?: CaptureFormat
  /**
   * A path that is created or truncated; a descriptor, which is closed at the end (`truncate`: what its
   * file holds goes when the capture has been accepted); or a stream.
   */
  readonly to:
    { readonly path: string } | { readonly fd: number; readonly truncate?: boolean } | Writable
}

export interface CaptureSummary {
  /** Frames written. */
  readonly frames: number
  /** Frames that did not fit the ring because the writer was slower. */
  readonly dropped: number
  /** Bytes written. */
  readonly bytes: number
  /** Why it ended by itself: `full disk: ...`, `reader closed`; absent: it was stopped or complete. */
  readonly error?: string
}

/** A capture that runs. */
export interface CaptureInfo {
  readonly id: number
  /** The path, `the given descriptor` or `the stream`. */
  readonly to: string
  readonly format: CaptureFormat
  readonly direction: CaptureDirection
  /** Absent: all. */
  readonly ports?: readonly string[]
  /** Bytes kept of each frame. */
  readonly snapLength: number
  /** Frames after which it ends; absent: when it is stopped. */
  readonly count?: number
  /** Frames recorded so far. */
  readonly frames: number
  /** Frames that did not fit the ring so far. */
  readonly dropped: number
}

export interface Capture {
  readonly id: number
  /** Settles when the last byte is written and the descriptor is closed; never rejects. */
  readonly done: Promise<CaptureSummary>
  /** Ends it, completes the file, and gives the same summary as `done`. */
  stop(): Promise<CaptureSummary>
}

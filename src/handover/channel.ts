/** What the two ends of a hand-over talk by; the sockets are in socket-channel.ts. */
import { explain } from '../text.ts'
import type { HandOverRecord, Section } from './records.ts'

/** The other side is gone, or the connection to it. */
export class ChannelClosed extends Error {
  constructor(reason: string) {
    super(reason)
    this.name = 'ChannelClosed'
  }
}

export interface OutgoingRecord {
  readonly section: Section
  readonly data: unknown
  readonly fds: readonly number[]
}

export interface Channel {
  /**
   * Resolves once the kernel has all of it; the descriptors stay the caller's. Rejects with ChannelClosed,
   * or with what `signal` was aborted with.
   */
  send(
    section: Section,
    data: unknown,
    fds?: readonly number[],
    signal?: AbortSignal,
  ): Promise<void>
  /** One after another, with as few calls of the kernel as their descriptors allow; otherwise as `send`. */
  sendAll(records: Iterable<OutgoingRecord>, signal?: AbortSignal): Promise<void>
  /** At once and as a whole, or not at all: whether it was. */
  sendNow(section: Section, data: unknown): boolean
  /**
   * The next record, whose descriptors are the caller's. Rejects with ChannelClosed, with StateError
   * HAND_OVER_CHANNEL for what is no record, or with what `signal` was aborted with; then it can be called
   * again.
   */
  receive(signal?: AbortSignal): Promise<HandOverRecord>
  /**
   * Frames wait, or are about to: for that long whoever sends or receives waits in the call, and this thread does
   * nothing else. On a busy machine the event loop comes to what the kernel has told long after it.
   */
  hurry(ms: number): void
  /** Nobody but us reads or writes any more; descriptors that no record took along are closed. */
  close(): Promise<void>
}

/** An error in words, without its code: the other side has one of its own. */
export const reasonOf = (error: unknown): string => explain(error).replace(/ \[[A-Z_]+\]$/, '')

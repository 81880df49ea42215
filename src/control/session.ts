/** A client of the control socket, as commands see it, and what they may answer with. */
import type { GivenFds } from './given-fds.ts'

export interface Session {
  readonly id: number
  /** Descriptors by the name that getfd gave them; closed with the session. */
  readonly fds: GivenFds
  /** Descriptors that came with the command that runs now; what it leaves is closed. */
  received: number[]
  /** By their numbers, how captures are ended that end with the session. */
  readonly captures: Map<number, () => void>
  /** Resolves when the session has ended. */
  readonly ended: Promise<void>
  /** It has said `qmp_capabilities`: commands are carried out, and events told. */
  isNegotiated: boolean
  /** It has asked for the hand-over, and stays with this process to hear of it. */
  stays: boolean
}

export interface ServerVersion {
  readonly major: number
  readonly minor: number
  readonly micro: number
}

/** The command without which there is no other. */
export const NEGOTIATION = 'qmp_capabilities'

/** An answer that is a list of any length: it is sent page by page, as the client takes it. */
export class Pages {
  readonly pages: Iterable<readonly unknown[]> | AsyncIterable<readonly unknown[]>

  constructor(pages: Iterable<readonly unknown[]> | AsyncIterable<readonly unknown[]>) {
    this.pages = pages
  }
}

const PAGE_LENGTH = 64

/** A list of things that are as long as a port's description. */
export function pagesOf<T>(all: readonly T[], describe: (one: T) => unknown): Pages {
  const count = Math.ceil(all.length / PAGE_LENGTH)
  return new Pages(
    Array.from({ length: count }, (_, page) =>
      all.slice(page * PAGE_LENGTH, (page + 1) * PAGE_LENGTH).map(describe),
    ),
  )
}

/**
 * Keeps a log from being flooded: a front-end can have a line written for every message that it
 * sends. Of each subject (`vhost-user vm1`, what stands before the first `: `) so many lines are
 * written in a window of time, and so many of each kind, which is the text without its numbers and
 * quoted parts. What was left out is counted, and the counts are written when the window ends.
 */
import { printable } from './printable.ts'
import type { Log } from '../text.ts'

export const WINDOW_MS = 10_000
/** Lines in a window. */
export const KIND_LINES_MAX = 10
export const SUBJECT_LINES_MAX = 50
/** Kinds of a subject that are told apart, and subjects: the others share one. */
const KINDS_MAX = 64
const SUBJECTS_MAX = 4096
const KIND_LENGTH_MAX = 120
const OTHERS = 'others'

interface Kind {
  lines: number
  leftOut: number
}

interface Subject {
  lines: number
  readonly kinds: Map<string, Kind>
}

export class LimitedLog {
  readonly #sink: Log
  readonly #now: () => number
  readonly #subjects = new Map<string, Subject>()
  #windowEnd = 0
  #timer: NodeJS.Timeout | undefined

  /** `sink` gets what is let through, in one line without control characters. */
  constructor(sink: Log, now: () => number = () => performance.now()) {
    this.#sink = sink
    this.#now = now
  }

  readonly log: Log = (message, level) => {
    const now = this.#now()
    if (now >= this.#windowEnd) {
      this.flush()
      this.#windowEnd = now + WINDOW_MS
    }
    const end = message.indexOf(': ')
    const subject = entryOf(
      this.#subjects,
      message.slice(0, Math.max(end, 0)),
      SUBJECTS_MAX,
      () => ({
        lines: 0,
        kinds: new Map<string, Kind>(),
      }),
    )
    const kind = entryOf(subject.kinds, kindOf(message.slice(end + 1)), KINDS_MAX, () => ({
      lines: 0,
      leftOut: 0,
    }))
    if (kind.lines === KIND_LINES_MAX || subject.lines === SUBJECT_LINES_MAX) {
      kind.leftOut++
      // Unreferenced: nobody stays alive to hear of it, `flush` tells it at an end.
      this.#timer ??= setTimeout(() => this.flush(), this.#windowEnd - now).unref()
      return
    }
    kind.lines++
    subject.lines++
    this.#sink(printable(message), level)
  }

  /** Writes what was left out so far, and begins anew. */
  flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#windowEnd = 0
    const subjects = [...this.#subjects]
    this.#subjects.clear()
    for (const [name, { kinds }] of subjects) {
      for (const [kind, { leftOut }] of kinds) {
        if (leftOut === 0) continue
        const prefix = name === '' ? 'log' : name
        this.#sink(printable(`${prefix}: left out lines=${leftOut} like="${kind}"`), 'warning')
      }
    }
  }
}

/** What two lines have in common that differ in their numbers and in what they quote. */
function kindOf(text: string): string {
  return text
    .slice(0, 4 * KIND_LENGTH_MAX)
    .replace(/"[^"]*"?/g, '…')
    .replace(/0x[0-9a-f]+|\d+/gi, '#')
    .trim()
    .slice(0, KIND_LENGTH_MAX)
}

function entryOf<T>(map: Map<string, T>, wanted: string, most: number, make: () => T): T {
  const name = map.size < most || map.has(wanted) ? wanted : OTHERS
  let entry = map.get(name)
  if (entry === undefined) {
    entry = make()
    map.set(name, entry)
  }
  return entry
}

/** Words for people, wherever they are shown: errors in one line, counts with their nouns, near words. */
import { strerror } from './abi/strerror.ts'
import { ConfigErrors, FramepumpError } from './errors.ts'

/** debug: what each step was; info: what changed; warning: what is wrong and goes on; error: what does not. */
export type LogLevel = 'debug' | 'info' | 'warning' | 'error'

export type LogFormat = 'text' | 'json' | 'journald'

/** A line of the log; without a level it is `info`. */
export type Log = (message: string, level?: LogLevel) => void

/** `1 port`, `2 ports`, `0 ports`. */
export function counted(count: number, noun: string, plural: string = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : plural}`
}

/**
 * An error in one line: the port that it is about, what failed, what to do about it, and the code by
 * which errors.md explains it.
 */
export function explain(error: unknown): string {
  if (error instanceof ConfigErrors) return error.errors.map(explain).join('; ')
  if (!(error instanceof FramepumpError)) return systemReason(error)
  const { message, hint, port, code } = error
  const isNamed = port === undefined || message.includes(`"${port}"`)
  const subject = isNamed ? '' : `port "${port}": `
  return `${subject}${message}${hint === undefined ? '' : ` (${hint})`} [${code}]`
}

/**
 * What Node threw, in words: of a system call what the system says, without the call, its path and the
 * name of the number, which are the caller's to tell as he knows them.
 */
export function systemReason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { errno } = error as NodeJS.ErrnoException
  return typeof errno === 'number' && errno < 0 ? strerror(-errno) : error.message
}

/** The known word that a misspelt one is likely to stand for: at most one letter in three is wrong. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  let least = 3
  for (const candidate of known) {
    const distance = editDistance(word, candidate)
    const most = Math.floor(Math.max(word.length, candidate.length) / 3)
    if (distance < least && distance <= most) {
      least = distance
      best = candidate
    }
  }
  return best
}

/** Letters to change, add or leave out, or neighbours to exchange. */
function editDistance(a: string, b: string): number {
  let before: number[] = []
  let row = Array.from({ length: b.length + 1 }, (_, k) => k)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(change, row[j] + 1, next[j - 1] + 1))
      const isExchange = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      if (isExchange) next[j] = Math.min(next[j], before[j - 2] + 1)
    }
    before = row
    row = next
  }
  return row[b.length]
}

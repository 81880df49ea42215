/** A ping that goes on until it is ended, and which of its requests were not answered once. */
import type { Lab } from './lab.ts'
import type { Background } from './processes.ts'

/** Numbers of echo replies. */
export interface WrongReplies {
  /** The last one may be on its way. */
  readonly missing: readonly number[]
  readonly doubled: readonly number[]
  /** They came behind a later one. */
  readonly overtaken: readonly number[]
}

export function wrongRepliesOf(ping: string): WrongReplies {
  const seen = [...ping.matchAll(/icmp_seq=(\d+) ttl/g)].map(([, seq]) => Number(seq))
  const known = new Set<number>()
  const [doubled, overtaken]: number[][] = [[], []]
  let last = 0
  for (const seq of seen) {
    if (known.has(seq)) doubled.push(seq)
    else if (seq < last) overtaken.push(seq)
    known.add(seq)
    last = Math.max(last, seq)
  }
  const missing = Array.from({ length: last }, (_, k) => k + 1).filter((seq) => !known.has(seq))
  return { missing, doubled, overtaken }
}

/** All of these. */
export function wrongOf(ping: string): number[] {
  const { missing, doubled, overtaken } = wrongRepliesOf(ping)
  return [...missing, ...doubled, ...overtaken]
}

/** What ping says of each reply: when it came and to which number. -D puts the time before it. */
export function repliesOf(ping: string): { readonly atMs: number; readonly number: number }[] {
  return [...ping.matchAll(/^\[(\d+\.\d+)\] .*icmp_seq=(\d+) ttl/gm)].map(([, at, number]) => ({
    atMs: Number(at) * 1000,
    number: Number(number),
  }))
}

/**
 * Requests that were never answered, and between which two moments each was sent: -O tells of one without an answer
 * yet before it sends the next one, and of no other.
 */
export function unansweredOf(
  ping: string,
): { readonly number: number; readonly afterMs: number; readonly beforeMs: number }[] {
  const answeredAt = new Map(repliesOf(ping).map(({ number, atMs }) => [number, atMs]))
  const toldAt = new Map(
    [...ping.matchAll(/^\[(\d+\.\d+)\] no answer yet for icmp_seq=(\d+)/gm)].map(
      ([, at, number]) => [Number(number), Number(at) * 1000],
    ),
  )
  return [...toldAt]
    .filter(([number]) => !answeredAt.has(number))
    .map(([number, beforeMs]) => {
      const afterMs = toldAt.get(number - 1) ?? answeredAt.get(number - 1) ?? -Infinity
      return { number, afterMs, beforeMs }
    })
}

/** The longest time without a reply, in milliseconds. */
export function longestSilenceOf(ping: string): number {
  const times = repliesOf(ping).map(({ atMs }) => atMs)
  return Math.max(0, ...times.slice(1).map((atMs, k) => atMs - times[k]))
}

export class SteadyPing {
  readonly #process: Background
  readonly name: string

  constructor(lab: Lab, netns: string, address: string, everyMs: number, ...more: string[]) {
    this.name = `${address} every ${everyMs} ms`
    const args = ['-n', '-i', String(everyMs / 1000), ...more, address]
    // Below 10 ms it does not sleep in between.
    this.#process = lab.start(netns, 'nice', '-n', '19', 'ping', ...args)
  }

  get output(): string {
    return this.#process.stdout
  }

  get answered(): number {
    return this.output.split(' ttl=').length - 1
  }

  async end(): Promise<void> {
    await this.#process.stop('SIGINT')
  }
}

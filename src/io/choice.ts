/** Which way frames take, by what they cost each way (measure.ts). */
import type { IoTierName } from './tier.ts'
import type { FrameCosts, Way, WayCosts } from './measure.ts'

/**
 * Sockets make io_uring that much too dear. On a machine where it is the cheaper way between TAPs, 32 measurements
 * beside other load were all within this (0.98 on the average where a call takes 0.20 us, 0.92 at 1.7 us).
 */
const URING_MARGIN = 1.08
/** AIO has to be cheaper by this: measuring is no more exact. */
const AIO_WORTH = 0.98

export interface WayChoice {
  readonly way: Way
  readonly name: IoTierName
  /** In words, with the figures. */
  readonly why: string
}

/** Of those that were measured. */
export function chooseWay(costs: WayCosts): WayChoice {
  const plain = readWriteWay(costs)
  const [uring, other] = [costs.io_uring, costs[plain]]
  if (uring === undefined || other === undefined) {
    const way = uring === undefined ? plain : 'io_uring'
    return { way, name: tierOf(way), why: 'the other tier was not measured' }
  }
  const ratio = mean(uring) / mean(other)
  const way = ratio <= URING_MARGIN || !works(other) ? 'io_uring' : plain
  const why = works(uring) && works(other) ? comparison(ratio) : 'the other tier does not work'
  return { way, name: tierOf(way), why }
}

/** How the tier read-write moves bursts: by AIO only where that is the cheaper way. */
export function readWriteWay({ aio, calls }: WayCosts): 'aio' | 'calls' {
  if (aio === undefined || calls === undefined) return 'calls'
  return mean(aio) < mean(calls) * AIO_WORTH ? 'aio' : 'calls'
}

/** "0.95 and 14.2 us": a short and a long frame. */
export function inMicroseconds({ shortNs, longNs }: FrameCosts): string {
  return `${(shortNs / 1000).toFixed(2)} and ${(longNs / 1000).toFixed(1)} us`
}

/**
 * Of both lengths, by ratios. The long ones count a quarter: what a socket takes for one is a third of what
 * TAPs and the stacks behind them take, where the ways differ less (measured by CPU a frame, io_uring to calls:
 * short ones 0.83 here and 0.75 between TAPs, long ones 1.15 and 0.93; on a call of 1.7 us 0.5 and 0.45, and
 * 0.95 and 0.88).
 */
function mean({ shortNs, longNs }: FrameCosts): number {
  return shortNs ** 0.75 * longNs ** 0.25
}

function works({ shortNs, longNs }: FrameCosts): boolean {
  return Number.isFinite(shortNs + longNs)
}

function tierOf(way: Way): IoTierName {
  return way === 'io_uring' ? 'io_uring-multishot' : 'read-write'
}

function comparison(ratio: number): string {
  const percent = Math.round(Math.abs(1 - ratio) * 100)
  if (ratio < 1) return `io_uring saves ${percent} % of the time of a frame`
  const most = ratio <= URING_MARGIN ? 'no more than ' : ''
  return `io_uring takes ${most}${percent} % more time a frame`
}

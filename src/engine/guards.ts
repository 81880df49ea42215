/**
 * The guards of ports: frames that say that they are from somebody else leave the burst before anything is
 * learnt of them (guard-check.ts says which). Only the frames of guarded ports are read further than their
 * first bytes. Those of guests leave the switch with the bytes that were read, whatever is written there
 * meanwhile.
 *
 *     admit: drops; counts by reason ...
 *     look:  once a second: what was dropped at a port for a reason, once until it has been quiet for a minute
 */
import type { Burst } from '../mem/burst.ts'
import { BURST_SIZE_MAX, HEAD_WORDS } from '../mem/burst.ts'
import { PORTS_MAX } from '../port/contract.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../stats/counters.ts'
import { HEADERS_MAX } from '../wire/headers.ts'
import { BAD_FORM, checkOf, PASSES, REASONS } from './guard-check.ts'
import { endOfAlike, endOfPlain } from './guard-plain.ts'
import { GUARD_MAC, GuardRules } from './guard-rules.ts'
import type { GuardDrops, GuardPolicy } from './messages.ts'

/** Looks without a drop, about a second apart, after which a reason is told again. */
const QUIET_LOOKS = 60
/** Bytes that tell of most frames that they may pass; a short one is kept as a whole. */
export const GUARD_LENGTH = 64

/** Frames of a burst that make it worth a call to look for those that are alike. */
const ALIKE_MIN = 16

const NOTHING: readonly GuardDrops[] = []

export class Guards {
  readonly #counters: Float64Array
  readonly #rules: (GuardRules | null)[] = Array.from({ length: PORTS_MAX }, () => null)
  /** Ports that have a guard. */
  readonly #ports: number[] = []
  /** By port and reason: dropped since the last look; looks for which it is still known. */
  readonly #dropped: Float64Array = new Float64Array(PORTS_MAX * REASONS)
  readonly #known: Uint8Array = new Uint8Array(PORTS_MAX * REASONS)
  /** Frames of the burst that are looked at further. */
  readonly #asked: Int32Array = new Int32Array(BURST_SIZE_MAX)
  /** By port: first four and last two bytes of the source of the last frame that was dropped. */
  readonly #sourceHi: Int32Array = new Int32Array(PORTS_MAX)
  readonly #sourceLo: Int32Array = new Int32Array(PORTS_MAX)

  /** `counters`: of the ports. */
  constructor(counters: Float64Array) {
    this.#counters = counters
  }

  /** Null: it has none. */
  set(port: number, policy: GuardPolicy | null): void {
    const at = this.#ports.indexOf(port)
    if (at >= 0) this.#ports.splice(at, 1)
    if (policy !== null) this.#ports.push(port)
    this.#rules[port] = policy === null ? null : new GuardRules(policy)
    this.#dropped.fill(0, port * REASONS, (port + 1) * REASONS)
    this.#known.fill(0, port * REASONS, (port + 1) * REASONS)
  }

  /**
   * Leaves of the burst, which came in by the port, what may pass; that may be nothing. What lies in memory that
   * somebody else writes to passes as it was looked at (`Burst.keep`). True: all of it has been seen to have the same
   * addresses and tag.
   * @hot
   */
  admit(burst: Burst, port: number, isForeign: boolean): boolean {
    const rules = this.#rules[port]
    if (rules === null) return false
    burst.readHeaders(GUARD_LENGTH)
    const { headers, length, count } = burst
    const { words } = headers
    const first = headers.at(0) >> 2
    let asked = 0
    let k = count < ALIKE_MIN ? 0 : endOfAlike(rules, burst)
    const isOneRun = k === count
    k = endOfPlain(rules, words, first, length, k, count)
    for (; k < count; k = endOfPlain(rules, words, first, length, k + 1, count)) {
      this.#asked[asked++] = k
    }
    if (asked > 0) this.#check(rules, burst, port, asked)
    if (isForeign) this.#keep(burst, port)
    return isOneRun
  }

  /** Those that are not plain, by all of their headers. @hot */
  #check(rules: GuardRules, burst: Burst, port: number, asked: number): void {
    const { headers, count } = burst
    const its = this.#asked
    if (rules.checks !== GUARD_MAC) {
      for (let at = 0; at < asked; at++) headers.want(its[at], HEADERS_MAX)
      headers.read()
    }
    let kept = its[0]
    let at = 0
    for (let k = kept; k < count; k++) {
      if (at < asked && its[at] === k) {
        at++
        const reason = checkOf(rules, burst, k)
        if (reason !== PASSES) {
          this.#drop(burst, k, port, reason)
          continue
        }
      }
      if (kept !== k) burst.take(burst, k, kept)
      kept++
    }
    burst.count = kept
  }

  /** All of them as they were looked at; what lies in too many pieces for that is dropped. @hot */
  #keep(burst: Burst, port: number): void {
    if (burst.keepAll()) return
    const { count, window } = burst
    const { windowId } = burst.headers
    let kept = 0
    for (let k = 0; k < count; k++) {
      if (kept !== k) burst.take(burst, k, kept)
      if (window[kept] === windowId || burst.keep(kept)) kept++
      else this.#drop(burst, kept, port, BAD_FORM)
    }
    burst.count = kept
  }

  /** @hot */
  #drop(burst: Burst, k: number, port: number, reason: number): void {
    this.#counters[port * COUNTERS_STRIDE + COUNTERS.rx_drop_guard]++
    this.#dropped[port * REASONS + reason]++
    const head = k * HEAD_WORDS
    const word2 = burst.heads[head + 2]
    this.#sourceHi[port] = (burst.heads[head + 1] >>> 16) | (word2 << 16)
    this.#sourceLo[port] = word2 >>> 16
  }

  /** What is to be told since the last call, about a second ago. */
  look(): readonly GuardDrops[] {
    if (this.#ports.length === 0) return NOTHING
    const drops: GuardDrops[] = []
    for (const port of this.#ports) {
      for (let reason = 0; reason < REASONS; reason++) this.#lookAt(port, reason, drops)
    }
    return drops
  }

  #lookAt(port: number, reason: number, drops: GuardDrops[]): void {
    const cell = port * REASONS + reason
    const dropped = this.#dropped[cell]
    if (dropped === 0) {
      if (this.#known[cell] > 0) this.#known[cell]--
      return
    }
    this.#dropped[cell] = 0
    const isTold = this.#known[cell] > 0
    this.#known[cell] = QUIET_LOOKS
    if (isTold) return
    drops.push({ port, reason, dropped, hi: this.#sourceHi[port], lo: this.#sourceLo[port] })
  }
}

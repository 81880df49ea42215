/**
 * Who may have how many of the process's descriptors (RLIMIT_NOFILE, as it is in force when a port is
 * added). What a port may need at most is set aside when it is added, for a vhost-user port all that
 * one front-end can send; further front-ends (that wait to take over, or look what is offered) get
 * of what is left, each port no more than it leaves for others. A part is nobody's: for the control
 * socket, captures, threads and files.
 */
import { readFileSync } from 'node:fs'
import { VHOST_MEMORY_BASELINE_NREGIONS } from '../abi/vhost-user.ts'
import { SysError } from '../errors.ts'
import { CONNECTION_FDS_MAX, CONTROL_CONNECTIONS_MAX } from '../sockets/limits.ts'

/** Set aside for everything but ports; of a low limit a quarter. */
export const RESERVE_MAX = 640
/** Of a capture: its file, its ring, a pair of sockets. */
const FDS_PER_CAPTURE = 4
const CAPTURES_MAX = 16
/** Kick, call and error eventfd of each of the two queues of a pair. */
const FDS_PER_PAIR = 6
/** A replayed or recorded file, and what its thread has. */
export const FDS_PER_FILE = 4
/** When the limit cannot be read: what a process has at least. */
const LIMIT_UNKNOWN = 1024

if (
  CONTROL_CONNECTIONS_MAX * (1 + CONNECTION_FDS_MAX) + CAPTURES_MAX * FDS_PER_CAPTURE >
  RESERVE_MAX
) {
  throw new Error('the reserve is smaller than what it is for')
}
if (CONNECTION_FDS_MAX < VHOST_MEMORY_BASELINE_NREGIONS) {
  throw new Error('a memory table has more descriptors than a connection may')
}

/** What one front-end of a port may have: its socket, its message in the making, its queues. */
export const frontEndFds = (queuePairs: number): number =>
  1 + CONNECTION_FDS_MAX + FDS_PER_PAIR * queuePairs

export class DescriptorBudget {
  /** That of the process. */
  static readonly ofProcess: DescriptorBudget = new DescriptorBudget(readLimit)
  readonly #limit: () => number
  #taken = 0

  constructor(limit: () => number) {
    this.#limit = limit
  }

  get #left(): number {
    const limit = this.#limit()
    return limit - Math.min(RESERVE_MAX, Math.floor(limit / 4)) - this.#taken
  }

  /** Sets aside what the port may need. Throws SysError DESCRIPTOR_SHARE. */
  take(id: string, count: number): DescriptorShare {
    const left = this.#left
    if (count > left) {
      const text = `port "${id}" may need ${count} descriptors, ${Math.max(0, left)} are left`
      throw new SysError('DESCRIPTOR_SHARE', text, {
        hint: `the limit is ${this.#limit()}: raise it (ulimit -n, LimitNOFILE=), or give fewer queues`,
      })
    }
    this.#taken += count
    return new DescriptorShare(count, this)
  }

  /** More for a port that has `already` of these; false: that would leave less than it has. */
  takeExtra(already: number, count: number): boolean {
    if (already + count > this.#left - count) return false
    this.#taken += count
    return true
  }

  giveBack(count: number): void {
    this.#taken -= count
  }
}

/** What is set aside for one port, and what it has beyond that. */
export class DescriptorShare {
  readonly #count: number
  readonly #budget: DescriptorBudget
  #extra = 0
  #isGivenBack = false

  constructor(count: number, budget: DescriptorBudget) {
    this.#count = count
    this.#budget = budget
  }

  /** Throws SysError DESCRIPTOR_SHARE. */
  takeExtra(count: number): void {
    if (!this.tryExtra(count)) {
      throw new SysError(
        'DESCRIPTOR_SHARE',
        `another front-end may need ${count} descriptors, which would leave too few for other ports`,
      )
    }
  }

  /** The same; false: they would leave too few for other ports. */
  tryExtra(count: number): boolean {
    if (!this.#budget.takeExtra(this.#extra, count)) return false
    this.#extra += count
    return true
  }

  giveBackExtra(count: number): void {
    this.#extra -= count
    this.#budget.giveBack(count)
  }

  /** All of it. A second call does nothing. */
  giveBack(): void {
    if (this.#isGivenBack) return
    this.#isGivenBack = true
    this.#budget.giveBack(this.#count)
  }
}

let lastLimit = LIMIT_UNKNOWN

/** The soft limit, which Node raises to the hard one at its start. */
function readLimit(): number {
  try {
    const match = /^Max open files\s+(\d+|unlimited)/m.exec(
      readFileSync('/proc/self/limits', 'utf8'),
    )
    if (match !== null) lastLimit = match[1] === 'unlimited' ? Infinity : Number(match[1])
  } catch {
    // Without a descriptor it cannot be read: what it was will do.
  }
  return lastLimit
}

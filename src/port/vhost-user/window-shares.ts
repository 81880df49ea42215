/**
 * Who may have how many windows. They are the process's: the shim has a table of them, and the kernel
 * limits the mappings of a process (vm.max_map_count), of which a window is one.
 *
 *     | the host's | 12 for each of 1,024 ports, whatever kind they are | what guests share: up to 512 a port |
 *
 * The host's are for the engine, other threads and captures. So whatever guests take, every port can
 * be added and its guest can come with a few windows, and a capture starts.
 */
import { readFileSync } from 'node:fs'
import { WINDOWS_MAX } from '../../mem/window.ts'
import { PORTS_MAX } from '../contract.ts'
import { MEMORY_SLOTS_MAX } from '../../vhost-user/device.ts'

/** For what is no port's: the engine has some 30, a capture 4, each other thread 2. */
export const HOST_WINDOWS = 512
/** Kept for each port: a memory port has 2, a guest one for each GiB. */
export const PORT_WINDOWS_MIN = 12
/** The most that the front-ends of one port have at once. */
export const PORT_WINDOWS_MAX = 512
/** A dirty log is a window, and the engine's table of what it marks another. */
export const LOG_WINDOWS = 2
/** Ports of hostile guests that do not use up what guests share. */
const GREEDY_PORTS = 8
const MAX_MAP_COUNT = '/proc/sys/vm/max_map_count'
/** The kernel's own choice, for when it does not tell. */
const MAX_MAP_COUNT_DEFAULT = 65530

export interface WindowShares {
  /** Kept for each port. */
  readonly least: number
  /** The most that one port gets. */
  readonly most: number
  /** What all ports together have beyond what is kept for each. */
  readonly shared: number
}

/** The shares where a process may have so many mappings: half of them are windows at most. */
export function windowShares(mappingsMax: number): WindowShares {
  const windows = Math.min(WINDOWS_MAX, Math.floor(mappingsMax / 2))
  const ports = Math.max(0, windows - HOST_WINDOWS)
  const least = Math.min(PORT_WINDOWS_MIN, Math.floor(ports / 2 / PORTS_MAX))
  const shared = ports - least * PORTS_MAX
  const most = Math.min(PORT_WINDOWS_MAX, least + Math.floor(shared / (GREEDY_PORTS + 1)))
  return { least, most, shared }
}

/** Shares of a process, and what is taken of them. */
export class WindowPool {
  readonly shares: WindowShares
  #shared: number

  constructor(shares: WindowShares) {
    this.shares = shares
    this.#shared = shares.shared
  }

  /** One of those that guests share; false: there is none. */
  take(): boolean {
    if (this.#shared === 0) return false
    this.#shared--
    return true
  }

  giveBack(): void {
    this.#shared++
  }
}

function mappingsMax(): number {
  try {
    return Number(readFileSync(MAX_MAP_COUNT, 'utf8')) || MAX_MAP_COUNT_DEFAULT
  } catch {
    return MAX_MAP_COUNT_DEFAULT
  }
}

/** Of this process, all switches in it together. */
export const windowPool: WindowPool = new WindowPool(windowShares(mappingsMax()))

/** What the front-ends of one port have, and may have. */
export class WindowBudget {
  readonly #pool: WindowPool
  #held = 0

  constructor(pool: WindowPool = windowPool) {
    this.#pool = pool
  }

  /** The most that it may be. */
  get most(): number {
    return this.#pool.shares.most
  }

  /** False: there is none left. */
  take(): boolean {
    const { least, most } = this.#pool.shares
    if (this.#held >= most) return false
    if (this.#held >= least && !this.#pool.take()) return false
    this.#held++
    return true
  }

  giveBack(count: number): void {
    for (let n = 0; n < count; n++) {
      this.#held--
      if (this.#held >= this.#pool.shares.least) this.#pool.giveBack()
    }
  }
}

/** Limits that make no sense together are a mistake of ours, found when this is loaded. */
function assertLimits(): void {
  const { least, most, shared } = windowShares(MAX_MAP_COUNT_DEFAULT)
  const isConsistent =
    least === PORT_WINDOWS_MIN &&
    most === PORT_WINDOWS_MAX &&
    shared >= GREEDY_PORTS * most &&
    HOST_WINDOWS + PORTS_MAX * least + shared <= WINDOWS_MAX &&
    MEMORY_SLOTS_MAX + LOG_WINDOWS <= most
  if (!isConsistent) throw new RangeError('the limits of windows contradict each other')
}
assertLimits()

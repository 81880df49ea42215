/**
 * Which tiers this machine offers, why not, and which is the faster one (choice.ts). Every feature and operation
 * is asked for one by one: kernels differ, and containers forbid.
 */
import {
  IORING_REGISTER_PROBE,
  IO_URING_OP_SUPPORTED,
  PROBE_OPS,
  PROBE_OPS_MAX,
  PROBE_OP_FLAGS,
  PROBE_OP_LENGTH,
} from '../abi/io-uring.ts'
import { EINVAL, ENOMEM, ENOSYS, EPERM } from '../abi/errno.ts'
import { strerror } from '../abi/strerror.ts'
import { FramepumpError, SysError } from '../errors.ts'
import { FramePool } from '../mem/frame-pool.ts'
import { Window } from '../mem/window.ts'
import { shim } from '../native/shim.ts'
import { BufferRing } from './buffer-ring.ts'
import { chooseWay, inMicroseconds, readWriteWay } from './choice.ts'
import type { FrameCosts, Way, WayCosts } from './measure.ts'
import { measureWays } from './measure.ts'
import { OPERATIONS } from './uring-limits.ts'
import { Uring } from './uring.ts'
import { CQ_ENTRIES, POOL_SLOTS, SQ_ENTRIES } from './uring-tier.ts'
import type { IoTierName } from './tier.ts'

export interface TierProbe {
  readonly name: IoTierName
  /** Why the tier cannot be used; absent: it can. */
  readonly reason?: string
  /** What a frame costs; absent: it was not measured. */
  readonly costs?: FrameCosts
}

export interface TierChoice {
  readonly name: IoTierName
  /** Bursts of the tier read-write go by Linux AIO. */
  readonly usesAio: boolean
  /** Why it is not io_uring-multishot. */
  readonly reason?: string
}

export interface Probe {
  /** io_uring-multishot, then read-write. */
  readonly tiers: readonly [TierProbe, TierProbe]
  /** What `auto` takes. */
  readonly auto: TierChoice
  /** Why, also when it is io_uring-multishot. */
  readonly why: string
  /** The tier read-write would use AIO. */
  readonly isAioWorth: boolean
}

/** Looks for the tiers and measures those there are: a tenth of a second. */
export function probe(): Probe {
  const lack = uringLack()
  const costs = measureWays(lack === undefined ? ['io_uring', 'aio', 'calls'] : READ_WRITE_WAYS)
  const plain = readWriteWay(costs)
  const { way, name, why } = chooseWay(costs)
  const uring: TierProbe = { name: 'io_uring-multishot', ...costsOf(costs.io_uring) }
  const readWrite: TierProbe = { name: 'read-write', ...costsOf(costs[plain]) }
  const reason = lack ?? readWriteReason(why, costs)
  return {
    tiers: [lack === undefined ? uring : { ...uring, reason: lack }, readWrite],
    auto: { name, usesAio: way === 'aio', ...(name === 'read-write' ? { reason } : {}) },
    why: lack ?? why,
    isAioWorth: plain === 'aio',
  }
}

/** The tier to use for a wish. */
export function chooseTier(wish: 'auto' | IoTierName): TierChoice {
  if (wish === 'auto') return probe().auto
  if (wish === 'read-write') {
    return { name: wish, usesAio: readWriteWay(measureWays(READ_WRITE_WAYS)) === 'aio' }
  }
  const lack = uringLack()
  if (lack === undefined) return { name: wish, usesAio: false }
  throw new SysError('IO_URING_UNAVAILABLE', `io_uring-multishot cannot be used: ${lack}`, {
    hint: 'use --io read-write or auto',
  })
}

const READ_WRITE_WAYS: readonly Way[] = ['aio', 'calls']

function costsOf(costs: FrameCosts | undefined): { readonly costs?: FrameCosts } {
  return costs === undefined ? {} : { costs }
}

function readWriteReason(why: string, costs: WayCosts): string {
  const [own, uring] = [costs[readWriteWay(costs)], costs.io_uring]
  if (own === undefined || uring === undefined) return why
  return `${why}: ${inMicroseconds(uring)} where read-write takes ${inMicroseconds(own)}`
}

/** Why the tier io_uring-multishot cannot be used; undefined: it can. */
export function uringLack(): string | undefined {
  let uring: Uring
  try {
    // As large as the engine's: what does not fit the limits does not fit them here.
    uring = new Uring(SQ_ENTRIES, CQ_ENTRIES)
  } catch (error) {
    if (!(error instanceof FramepumpError)) throw error
    const errno = error instanceof SysError ? error.errno : undefined
    if (errno === EPERM) return FORBIDDEN
    if (errno === ENOSYS)
      return 'there is no io_uring: the kernel is older, or a container forbids it'
    if (errno === ENOMEM) return OUT_OF_MEMORY
    if (errno === EINVAL) return 'this kernel is too old: io_uring set-up flags need Linux 6.6'
    return error.message
  }
  try {
    const missing = missingOperations(uring.fd)
    if (typeof missing === 'string') return missing
    if (missing.length > 0) return `io_uring lacks ${missing.join(', ')}`
    // A sandbox may allow the set-up, and not this.
    const entered = uring.enter(0, -1)
    if (entered < 0) return refusal('io_uring_enter', entered)
    const pool = new FramePool(POOL_SLOTS)
    try {
      new BufferRing(uring.fd, pool).close()
    } catch (error) {
      if (!(error instanceof FramepumpError)) throw error
      const { errno } = error as SysError
      return errno === undefined ? error.message : refusal('PBUF_RING', -errno)
    } finally {
      pool.close()
    }
    return undefined
  } finally {
    uring.close()
  }
}

const FORBIDDEN =
  'io_uring is forbidden here (kernel.io_uring_disabled, or a container that blocks it)'
const OUT_OF_MEMORY = 'io_uring finds no memory (ulimit -l, or LimitMEMLOCK= in the unit)'

function refusal(what: string, result: number): string {
  if (result === -EPERM) return FORBIDDEN
  return result === -ENOMEM ? OUT_OF_MEMORY : `${what}: ${strerror(-result)}`
}

/** Or why nobody says. */
function missingOperations(uringFd: number): string[] | string {
  const window = Window.map(PROBE_OPS + PROBE_OPS_MAX * PROBE_OP_LENGTH)
  try {
    const asked = shim.uringRegister(uringFd, IORING_REGISTER_PROBE, window.id, 0, PROBE_OPS_MAX)
    if (asked < 0) return refusal('io_uring_register', asked)
    const view = new DataView(window.buffer)
    return OPERATIONS.filter(([, operation]) => {
      const flags = view.getUint16(PROBE_OPS + operation * PROBE_OP_LENGTH + PROBE_OP_FLAGS, true)
      return (flags & IO_URING_OP_SUPPORTED) === 0
    }).map(([name]) => name)
  } finally {
    window.unmap()
  }
}

/**
 * Which tiers this machine offers, why not, and which is the faster one. Every feature and operation
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
import { Aio } from './aio.ts'
import { BufferRing } from './buffer-ring.ts'
import type { WriteCosts } from './measure.ts'
import { measureWrites, readWriteNs } from './measure.ts'
import { OPERATIONS } from './uring-limits.ts'
import { Uring } from './uring.ts'
import { CQ_ENTRIES, POOL_SLOTS, SQ_ENTRIES } from './uring-tier.ts'
import type { IoTierName } from './tier.ts'

export interface TierProbe {
  readonly name: IoTierName
  /** Why the tier cannot be used; absent: it can. */
  readonly reason?: string
  /** Nanoseconds that one write of a batch costs (measure.ts); absent: there is no choice. */
  readonly writeNs?: number
}

/** io_uring-multishot, then read-write, with what a write costs when both can be used. */
export function probeTiers(): TierProbe[] {
  const found = tryUring(measureAll)
  if (typeof found === 'string') {
    return [{ name: 'io_uring-multishot', reason: found }, { name: 'read-write' }]
  }
  return [
    { name: 'io_uring-multishot', writeNs: found.uringNs },
    { name: 'read-write', writeNs: readWriteNs(found) },
  ]
}

/** The tier to use for a wish, and why it is not io_uring-multishot. */
export function chooseTier(wish: 'auto' | IoTierName): { name: IoTierName; reason?: string } {
  if (wish === 'read-write') return { name: wish }
  if (wish === 'io_uring-multishot') {
    const lack = tryUring(() => null)
    if (lack === null) return { name: wish }
    throw new SysError('IO_URING_UNAVAILABLE', `io_uring-multishot cannot be used: ${lack}`, {
      hint: 'use --io read-write or auto',
    })
  }
  return cheaperTier(probeTiers())
}

/** The choice of `auto`. */
export function cheaperTier(probes: readonly TierProbe[]): { name: IoTierName; reason?: string } {
  const [uring, { name, writeNs: otherNs }] = probes
  if (uring.reason !== undefined) return { name, reason: uring.reason }
  if (otherNs! < uring.writeNs!) {
    return { name, reason: `faster here: ${otherNs} ns a write, ${uring.writeNs} ns by io_uring` }
  }
  return { name: uring.name }
}

/** Takes 30 ms, mostly for the end of the AIO context. */
function measureAll(uring: Uring): WriteCosts {
  const aio = Aio.open()
  try {
    return measureWrites(aio, uring)
  } finally {
    aio?.close()
  }
}

/** What `use` makes of a ring, or why there can be none. */
function tryUring<T>(use: (uring: Uring) => T): T | string {
  let uring: Uring
  try {
    // As large as the engine's: what does not fit the limits does not fit them here.
    uring = new Uring(SQ_ENTRIES, CQ_ENTRIES)
  } catch (error) {
    if (!(error instanceof FramepumpError)) throw error
    const errno = error instanceof SysError ? error.errno : undefined
    if (errno === EPERM) return FORBIDDEN
    if (errno === ENOSYS) return 'this kernel has no io_uring'
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
    return use(uring)
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

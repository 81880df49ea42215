/**
 * What a write costs on this machine: one system call each, or many in one io_submit or one
 * io_uring_enter. None is cheapest everywhere: a system call costs 0.1 us on one machine and above 1 us
 * on another (virtual machines, mitigations), the others' own way through the kernel some 0.2 us on all.
 *
 * Measured on /dev/null, whose write does nothing else.
 */
import { IORING_OP_WRITE, IOSQE_CQE_SKIP_SUCCESS, RWF_NOWAIT } from '../abi/io-uring.ts'
import { Window } from '../mem/window.ts'
import { SEGMENT_INTS, shim, WRITE_ROW_INTS } from '../native/shim.ts'
import { Aio } from './aio.ts'
import { Uring } from './uring.ts'

const WRITES = 64
/** The cheapest round counts: the others were disturbed. */
const ROUNDS = 16
const O_WRONLY_NONBLOCK_CLOEXEC = 0o2004001
const EFD_NONBLOCK_CLOEXEC = 0o2004000
/** AIO has to be cheaper by this, for 64 writes: of a few it saves less. */
const AIO_WORTH = 2

const WRITE = IORING_OP_WRITE | (IOSQE_CQE_SKIP_SUCCESS << 8)

/** Layout of the window: the write table, one segment, the eight bytes that are written. */
const SEGMENT_AT: number = WRITES * WRITE_ROW_INTS * 4
const DATA_AT: number = SEGMENT_AT + SEGMENT_INTS * 4 + 4
const DATA_LENGTH = 8

/** Nanoseconds a write; Infinity: there is no such way. */
export interface WriteCosts {
  readonly systemCallNs: number
  readonly aioNs: number
  readonly uringNs: number
}

/** Takes 1 to 3 ms. `uring` has nothing pending and at least 64 entries. */
export function measureWrites(aio: Aio | null, uring: Uring | null): WriteCosts {
  const window = Window.map(DATA_AT + DATA_LENGTH)
  // AIO cannot write to an eventfd, which does for the others where there is no /dev.
  const device = shim.open('/dev/null', O_WRONLY_NONBLOCK_CLOEXEC)
  const fd = device < 0 ? shim.eventfd(0, EFD_NONBLOCK_CLOEXEC) : device
  try {
    fillTables(window, fd)
    const address = window.address + DATA_AT
    const addressHigh = Math.floor(address / 2 ** 32)
    let systemCallNs = Infinity
    let aioNs = Infinity
    let uringNs = Infinity
    let usable = aio
    for (let round = 0; round < ROUNDS; round++) {
      systemCallNs = Math.min(
        systemCallNs,
        time(() => shim.writeFrames(window.id, 0, WRITES, SEGMENT_AT)),
      )
      if (usable !== null) {
        const { low, high } = usable
        const ns = time(() => shim.aioWriteFrames(low, high, window.id, 0, WRITES, SEGMENT_AT))
        // Once is enough: it is not what it has to be.
        if (ns === Infinity) usable = null
        aioNs = usable === null ? Infinity : Math.min(aioNs, ns)
      }
      if (uring === null) continue
      // Filling entries is not timed: in the engine it is compiled code, here it is not yet.
      for (let k = 0; k < WRITES; k++) {
        uring.push(WRITE, fd, address | 0, addressHigh, DATA_LENGTH, RWF_NOWAIT, 0, 0, 0)
      }
      uringNs = Math.min(
        uringNs,
        time(() => {
          uring.submit()
          return WRITES
        }),
      )
    }
    return { systemCallNs, aioNs, uringNs }
  } finally {
    if (fd >= 0) shim.close(fd)
    window.unmap()
  }
}

/** What a write costs by the way that the tier `read-write` takes. */
export function readWriteNs({ systemCallNs, aioNs }: WriteCosts): number {
  return isWorthAio(systemCallNs, aioNs) ? aioNs : systemCallNs
}

function isWorthAio(systemCallNs: number, aioNs: number): boolean {
  return aioNs * AIO_WORTH < systemCallNs
}

/** A context where it is worth one, else null. */
export function cheaperAio(): Aio | null {
  const aio = Aio.open()
  if (aio === null) return null
  let isWorth = false
  try {
    const { systemCallNs, aioNs } = measureWrites(aio, null)
    isWorth = isWorthAio(systemCallNs, aioNs)
  } finally {
    if (!isWorth) aio.close()
  }
  return isWorth ? aio : null
}

/** Nanoseconds per write; Infinity: they were not all done. */
function time(writeAll: () => number): number {
  const start = performance.now()
  const written = writeAll()
  const elapsedMs = performance.now() - start
  return written === WRITES ? Math.round((elapsedMs * 1e6) / WRITES) : Infinity
}

function fillTables(window: Window, fd: number): void {
  const words = new Int32Array(window.buffer)
  for (let k = 0; k < WRITES; k++) {
    words[k * WRITE_ROW_INTS] = fd
    words[k * WRITE_ROW_INTS + 2] = 1
  }
  const segment = SEGMENT_AT / 4
  words[segment] = window.id
  words[segment + 1] = DATA_AT
  words[segment + 2] = DATA_LENGTH
  words[DATA_AT / 4] = 1
}

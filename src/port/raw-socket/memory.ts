/** Memory for rings, which the kernel takes from everybody: it would end other processes for it. */
import { readFileSync } from 'node:fs'
import { ENOMEM } from '../../abi/errno.ts'
import { SysError } from '../../errors.ts'
import { counted } from '../../text.ts'
import type { RingGeometry } from './geometry.ts'
import { ringLength } from './geometry.ts'

/** Throws when so many rings take more than half of what is available. `readMeminfo` is for tests. */
export function checkMemory(
  geometry: RingGeometry,
  rings: number,
  readMeminfo: () => string = () => readFileSync('/proc/meminfo', 'utf8'),
): void {
  let available: number
  try {
    available = Number(/^MemAvailable:\s+(\d+) kB$/m.exec(readMeminfo())?.[1] ?? NaN)
  } catch {
    // Without /proc the kernel itself says what it has not.
    return
  }
  const kib = Math.ceil(ringLength(geometry) / 1024)
  if (!(rings * kib > available / 2)) return
  const what = `no ${counted(rings, 'ring')} of ${kib} KiB`
  throw new SysError('RAW_SOCKET', `${what}: ${available} KiB of memory are available`, {
    errno: ENOMEM,
    hint: RING_SIZE_HINT,
  })
}

export const RING_SIZE_HINT = 'give a smaller ring-kb=, or fewer queues'

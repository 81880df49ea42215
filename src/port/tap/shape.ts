/**
 * Changes an open TAP between two turns of the engine: vnet_hdr length and attached queues. Frames
 * that wait in the kernel get their header when they are read, so it is enough that no read is under
 * way; a queue leaves the tier before it is detached and joins it after it is attached.
 */
import { strerror } from '../../abi/strerror.ts'
import type { TapEnginePort } from './engine.ts'
import type { EngineServices } from '../contract.ts'
import type { ShapedTap, TapShape } from '../shape.ts'

type Reader = Pick<EngineServices, 'withoutReading' | 'readOut' | 'isStill'>

/** Queue 0 stays attached, and nothing is detached while frames wait. */
export function shapeTap(engine: Reader, port: TapEnginePort, shape: TapShape): ShapedTap {
  const failures: string[] = []
  const check = (what: string, errno: number): void => {
    if (errno !== 0) failures.push(`${what}: ${strerror(errno)}`)
  }
  const { queues } = port
  const { vnetHdrLength, attached } = shape
  if (vnetHdrLength !== port.vnetHdrLength) {
    engine.withoutReading(queues, () =>
      check('TUNSETVNETHDRSZ ioctl() failed', port.setVnetHdrLength(vnetHdrLength)),
    )
  }
  const joining = queues.filter((queue) => attached[queue.index] && !queue.isAttached)
  engine.withoutReading(joining, () => {
    for (const queue of joining) check('could not enable queue', port.setAttached(queue, true))
  })
  // From the last on: the kernel fills the gap that a queue leaves with its own last one.
  const leaving = queues
    .filter((queue) => queue.index > 0 && !attached[queue.index] && queue.isAttached)
    .toReversed()
  for (const queue of engine.isStill(port.index) ? [] : leaving) {
    // Detaching throws away what waits, and takes a while: one after the other.
    engine.readOut()
    engine.withoutReading([queue], () =>
      check('could not disable queue', port.setAttached(queue, false)),
    )
  }
  return {
    vnetHdrLength: port.vnetHdrLength,
    attached: queues.map((queue) => queue.isAttached),
    failures,
  }
}

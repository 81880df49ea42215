/** Frames that were queued for writing and did not leave. */
import { afterEach, beforeEach, expect, test } from 'vitest'
import {
  EAGAIN,
  EBADF,
  EBADFD,
  EFAULT,
  EINVAL,
  EIO,
  EMSGSIZE,
  ENETDOWN,
  ENOBUFS,
  ENXIO,
} from '../../../src/abi/errno.ts'
import type { IoTier } from '../../../src/io/tier.ts'
import { FrameWriter } from '../../../src/port/frame-writer.ts'
import type { CounterName } from '../../../src/stats/counters.ts'
import { COUNTERS, COUNTERS_STRIDE } from '../../../src/stats/counters.ts'
import { readCounters } from '../../../src/stats/port-counters.ts'

const PORT = 3
const counters = new Float64Array(8 * COUNTERS_STRIDE)
let writer: FrameWriter

beforeEach(() => {
  counters.fill(0)
  writer = new FrameWriter(PORT, 12, {} as IoTier, counters)
})

afterEach(() => writer.close())

const counted = (): object =>
  Object.fromEntries(
    Object.entries(readCounters(counters, PORT)).filter(([, value]) => value !== 0),
  )

test.each<[number, CounterName, boolean]>([
  [EAGAIN, 'tx_drop_full', false],
  [ENOBUFS, 'tx_drop_full', false],
  [EIO, 'tx_drop_link_down', false],
  [ENETDOWN, 'tx_drop_link_down', false],
  [EMSGSIZE, 'tx_drop_mtu', false],
  [EINVAL, 'tx_drop_malformed', false],
  [EFAULT, 'tx_drop_error', false],
  [EBADFD, 'tx_drop_error', true],
  [EBADF, 'tx_drop_error', true],
  [ENXIO, 'tx_drop_error', true],
])('errno %i is no frame that left, but a %s', (errno, counter, isGone) => {
  const base = PORT * COUNTERS_STRIDE
  counters[base + COUNTERS.tx_frames] = 2
  counters[base + COUNTERS.tx_bytes] = 160
  expect(writer.failed(72, errno)).toBe(isGone)
  expect(counted()).toEqual({ tx_frames: 1, tx_bytes: 100, [counter]: 1 })
})

test('what a frame had before it were no bytes of its own, whatever the descriptors want by now', () => {
  writer.vnetHdrLength = 0
  counters[PORT * COUNTERS_STRIDE + COUNTERS.tx_frames] = 1
  counters[PORT * COUNTERS_STRIDE + COUNTERS.tx_bytes] = 60
  writer.failed(60, EAGAIN)
  expect(counted()).toEqual({ tx_drop_full: 1 })
})

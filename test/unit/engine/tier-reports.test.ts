/** What the tier tells reaches the port whose frames it is about. */
import { expect, test } from 'vitest'
import { EBADFD, EINVAL } from '../../../src/abi/errno.ts'
import { TierReports } from '../../../src/engine/tier-reports.ts'
import { TapQueue } from '../../../src/io/tier.ts'
import type { EnginePort } from '../../../src/port/contract.ts'

const told: unknown[] = []

function port(index: number, more: Partial<EnginePort>): EnginePort {
  const rest = { transmit: () => undefined, endTurn: () => undefined, close: () => undefined }
  return { index, txOffloads: 0, ...rest, ...more }
}

const ports: readonly EnginePort[] = [
  port(0, {
    writeFailed: (length, errno) => {
      told.push(['write', length, errno])
      return errno === EBADFD
    },
    dropped: (...counts) => told.push(['dropped', ...counts]),
  }),
  port(1, {}),
]
const reports = new TierReports({
  port: (index) => ports[index] ?? null,
  portFailed: (index, failure) => told.push([index, failure]),
})

function tell(report: () => void): unknown[] {
  told.length = 0
  report()
  return [...told]
}

test('a write that failed, and the end of the port if there is nothing left to write to', () => {
  expect(tell(() => reports.writeFailed(0, 72, EINVAL))).toEqual([['write', 72, EINVAL]])
  expect(tell(() => reports.writeFailed(0, 72, EBADFD))).toEqual([
    ['write', 72, EBADFD],
    [0, { what: 'interface-deleted', errno: EBADFD }],
  ])
})

test('frames that were left out', () => {
  expect(tell(() => reports.dropped(0, 1, 2, 3))).toEqual([['dropped', 1, 2, 3]])
})

test('a queue that cannot be read any more is the end of its port', () => {
  const queue = new TapQueue(9, 1, 0, 12)
  expect(tell(() => reports.queueFailed(queue, EBADFD))).toEqual([
    [1, { what: 'interface-deleted', errno: EBADFD }],
  ])
})

test('what comes too late for a port is about nobody', () => {
  expect(tell(() => reports.writeFailed(7, 72, EBADFD))).toEqual([])
  expect(tell(() => reports.dropped(7, 1, 1, 1))).toEqual([])
  expect(tell(() => reports.writeFailed(1, 72, EBADFD))).toEqual([])
})

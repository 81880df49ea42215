/** In which order the engine changes a TAP: what leaves the tier, what the kernel is asked, what joins. */
import { beforeEach, expect, test } from 'vitest'
import { EINVAL } from '../../../../src/abi/errno.ts'
import { TapQueue } from '../../../../src/io/tier.ts'
import type { TapEnginePort } from '../../../../src/port/tap/engine.ts'
import { shapeTap } from '../../../../src/port/tap/shape.ts'

let steps: string[]
let isPaused: boolean
let errno: number
let port: TapEnginePort

beforeEach(() => {
  steps = []
  isPaused = false
  errno = 0
  const queues = [0, 1, 2, 3].map((index) => new TapQueue(10 + index, 0, index, 12))
  const fake = {
    queues,
    vnetHdrLength: 12,
    setVnetHdrLength: (length: number) => {
      steps.push(`length ${length}`)
      if (errno === 0) fake.vnetHdrLength = length
      return errno
    },
    setAttached: (queue: TapQueue, wanted: boolean) => {
      steps.push(`${wanted ? 'attach' : 'detach'} ${queue.index}`)
      if (errno === 0) queue.isAttached = wanted
      return errno
    },
  }
  port = fake as unknown as TapEnginePort
})

function shape(vnetHdrLength: number, attached: string): ReturnType<typeof shapeTap> {
  const engine = {
    isStill: () => isPaused,
    readOut: () => void steps.push('read out'),
    withoutReading: (queues: readonly TapQueue[], change: () => void) => {
      if (queues.length > 0) steps.push(`without ${queues.map(({ index }) => index).join(',')}`)
      change()
    },
  }
  return shapeTap(engine, port, {
    vnetHdrLength,
    attached: Array.from(attached, (one) => one === '1'),
  })
}

test('nothing is done to a TAP that is as it shall be', () => {
  const shaped = shape(12, '1111')
  expect(steps).toEqual([])
  expect(shaped).toEqual({ vnetHdrLength: 12, attached: [true, true, true, true], failures: [] })
})

test('the length changes while nobody reads any queue', () => {
  expect(shape(10, '1111').vnetHdrLength).toBe(10)
  expect(steps).toEqual(['without 0,1,2,3', 'length 10'])
})

test('queues are read out and detached one by one from the last, and attached from the first', () => {
  expect(shape(12, '1000').attached).toEqual([true, false, false, false])
  expect(steps).toEqual(
    [3, 2, 1].flatMap((queue) => ['read out', `without ${queue}`, `detach ${queue}`]),
  )
  steps = []
  shape(12, '1110')
  expect(steps).toEqual(['without 1,2', 'attach 1', 'attach 2'])
  steps = []
  // One comes before another goes.
  shape(12, '1011')
  expect(steps).toEqual(['without 3', 'attach 3', 'read out', 'without 1', 'detach 1'])
})

test('queue 0 is never detached, and none while the engine stands still', () => {
  expect(shape(12, '0111').attached).toEqual([true, true, true, true])
  isPaused = true
  expect(shape(10, '1000')).toMatchObject({
    vnetHdrLength: 10,
    attached: [true, true, true, true],
  })
  expect(steps).toEqual(['without 0,1,2,3', 'length 10'])
})

test('what the kernel refuses is told, and stays as it was', () => {
  errno = EINVAL
  expect(shape(10, '1110')).toEqual({
    vnetHdrLength: 12,
    attached: [true, true, true, true],
    failures: [
      'TUNSETVNETHDRSZ ioctl() failed: Invalid argument',
      'could not disable queue: Invalid argument',
    ],
  })
})

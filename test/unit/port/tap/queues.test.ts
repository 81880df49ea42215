import { expect, test } from 'vitest'
import { EBADFD, EINVAL } from '../../../../src/abi/errno.ts'
import { isAttached, setAttached, setVnetHdrLength } from '../../../../src/port/tap/queues.ts'
import { FakeKernel } from './fake-kernel.ts'

test.each([
  [0x4102, true],
  [0x4502, false],
  // A device that is gone.
  [-EBADFD, true],
])('flags %i read back: attached is %j', (flags, expected) => {
  const kernel = new FakeKernel({ tunGetIff: () => flags })
  expect(isAttached(kernel.shim, 7)).toBe(expected)
})

test('a queue is attached and detached with the flags of TUNSETQUEUE', () => {
  const kernel = new FakeKernel({ tunSetQueue: () => 0 })
  expect(setAttached(kernel.shim, 7, true)).toBe(0)
  expect(setAttached(kernel.shim, 7, false)).toBe(0)
  expect(kernel.calls).toEqual(['tunSetQueue 7 512', 'tunSetQueue 7 1024'])
  const refusing = new FakeKernel({ tunSetQueue: () => -EINVAL })
  expect(setAttached(refusing.shim, 7, true)).toBe(EINVAL)
})

test('every queue is told the length, also after one that refuses it', () => {
  const kernel = new FakeKernel({ tunSetVnetHdrSize: (fd) => (fd === 8 ? -EINVAL : 0) })
  expect(setVnetHdrLength(kernel.shim, [7, 8, 9], 10)).toBe(EINVAL)
  expect(kernel.calls).toEqual([
    'tunSetVnetHdrSize 7 10',
    'tunSetVnetHdrSize 8 10',
    'tunSetVnetHdrSize 9 10',
  ])
  expect(setVnetHdrLength(kernel.shim, [7, 9], 10)).toBe(0)
})

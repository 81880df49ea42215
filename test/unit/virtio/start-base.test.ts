/** What front-ends say when they start a ring, and where it begins. */
import { expect, test } from 'vitest'
import { startBase } from '../../../src/virtio/ring/start-base.ts'
import { attachQueue } from '../../../src/virtio/ring/queue-layout.ts'
import { Chain } from '../../../src/virtio/ring/chain.ts'
import { makeGuest, USER_ADDRESS } from '../../support/guest.ts'

const SIZE = 256
const [AVAIL, USED] = [0x2000, 0x3000]
const PLACE = {
  size: SIZE,
  descriptorAddress: USER_ADDRESS,
  availAddress: USER_ADDRESS + AVAIL,
  usedAddress: USER_ADDRESS + USED,
}

test.each([
  // who, when; base, avail.idx, used.idx; where it begins
  ['QEMU, a driver has just come', 0, 0, 0, 0],
  ['QEMU, buffers were there before', 0, 200, 0, 0],
  ['QEMU, the queue was stopped and is started', 1000, 1100, 1000, 1000],
  ['QEMU, the back-end has gone: the used index', 1000, 1256, 1000, 1000],
  ['QEMU, after a migration, about to wrap', 0xffff, 3, 0xffff, 0xffff],
  ['DPDK, at its start', 0, 0, 0, 0],
  ['DPDK, the back-end has come again', 0, 5256, 5000, 5000],
  ['DPDK, the same soon after the start', 0, 128, 100, 100],
  ['DPDK, the same when all was used', 0, 5000, 5000, 5000],
  ['cloud-hypervisor, at its start: the avail index', 0, 0, 0, 0],
  ['cloud-hypervisor, buffers were there before', 256, 256, 0, 0],
  ['cloud-hypervisor, the back-end has come again', 5256, 5256, 5000, 5000],
  ['crosvm, which always says 0, at its start', 0, 256, 0, 0],
  ['crosvm, a queue that has run', 0, 956, 700, 700],
  ['a device that had taken what it did not use', 1005, 1005, 1000, 1000],
  // Nothing that a device can have written.
  ['a used index that makes no sense', 7, 10, 0x8000, 7],
  ['one too few', 100, 300, 43, 100],
])('%s', (_who, base, avail, used, expected) => {
  const { memory, halfWords } = makeGuest(0x4000)
  halfWords[(AVAIL + 2) >> 1] = avail
  halfWords[(USED + 2) >> 1] = used
  const start = startBase(memory, { ...PLACE, base }, false)
  expect(start).toBe(expected)
  // What waits is taken, from there on.
  const kind = { isPacked: false, hasEventIdx: false, hasIndirect: false }
  const queue = attachQueue(memory, { ...PLACE, base: start }, kind)!
  expect(queue.base()).toBe(expected)
  expect(queue.hasChain()).toBe(((avail - expected) & 0xffff) > 0)
  expect(queue.broken).toBe(0)
  expect(queue.take(new Chain())).toBe(false)
})

test('a packed ring begins where the front-end says, and a ring that is nowhere as well', () => {
  const { memory, halfWords } = makeGuest(0x4000)
  halfWords[(AVAIL + 2) >> 1] = 50
  halfWords[(USED + 2) >> 1] = 40
  expect(startBase(memory, { ...PLACE, base: 0x8005 }, true)).toBe(0x8005)
  for (const address of [USER_ADDRESS - 4096, USER_ADDRESS + 0x4000, USER_ADDRESS + AVAIL + 1]) {
    expect(startBase(memory, { ...PLACE, base: 9, usedAddress: address }, false)).toBe(9)
    expect(startBase(memory, { ...PLACE, base: 9, availAddress: address }, false)).toBe(9)
  }
})

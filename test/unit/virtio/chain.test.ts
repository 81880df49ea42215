/** What a chain needs before its first descriptor. */
import { afterEach, describe, expect, test } from 'vitest'
import { shim } from '../../../src/native/shim.ts'
import { Chain } from '../../../src/virtio/ring/chain.ts'
import { addChain, atEnd, KINDS, makeGuest, makeQueues } from '../../support/guest.ts'

const ENOMEM = 12
const functions = shim as unknown as Record<string, (...args: number[]) => number>
const { windowMap } = functions

afterEach(() => {
  functions.windowMap = windowMap
})

describe.each(KINDS.filter(({ tableEntries }) => tableEntries > 0))('a $name queue', (kind) => {
  test('takes its first indirect table also when no memory can be mapped any more', () => {
    const { driver, device } = makeQueues(makeGuest(0x8000), kind, 8)
    const chain = new Chain()
    atEnd(() => chain.close())
    functions.windowMap = () => -ENOMEM
    addChain(driver, [{ offset: 0x4000, length: 100, isWritable: false }], true)
    driver.publish()
    expect(device.take(chain)).toBe(true)
    expect(chain.readableLength).toBe(100)
  })
})

test('without memory there is no chain, and that is said where it is made', () => {
  functions.windowMap = () => -ENOMEM
  expect(() => new Chain()).toThrow('cannot map')
})

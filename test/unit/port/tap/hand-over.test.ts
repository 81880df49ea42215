/** A TAP that another process goes on with: what is said of it, what is asked of the kernel, and that nothing is set. */
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { HandedState } from '../../../../src/port/handed.ts'
import type { TapOptions } from '../../../../src/port/options.ts'
import { handOverTap, takeOverTap } from '../../../../src/port/tap/hand-over.ts'
import { openTap } from '../../../../src/port/tap/open.ts'
import type { OpenTap } from '../../../../src/port/tap/open-tap.ts'
import { FakeKernel } from './fake-kernel.ts'

// linux/if_tun.h
const DETACHED = 0x0400
const PERSISTENT = 0x0800
const EBADFD = 77
const OPTIONS: TapOptions = { type: 'tap', id: 'p0', ifname: 'fp0', queues: 2 }
const ASKED = 0x0f

let kernel: FakeKernel
/** Queues that the kernel says are detached. */
let detached: Set<number>
const taps: OpenTap[] = []

beforeEach(() => {
  detached = new Set()
  kernel = new FakeKernel({
    tunGetIff: (fd, name) => {
      kernel.writeName(name, 'fp0')
      return kernel.flags | (detached.has(fd) ? DETACHED : 0)
    },
  })
})
afterEach(() => {
  for (const tap of taps.splice(0)) tap.letGo()
})

const context = (): Parameters<typeof takeOverTap>[2] => ({
  shim: kernel.shim,
  given: new Map(),
  log: () => undefined,
})

async function opened(): Promise<OpenTap> {
  const tap = await openTap(OPTIONS, context())
  taps.push(tap)
  tap.setOffloads(ASKED)
  detached.add(tap.fds[1])
  kernel.vnetHdrSize = 12
  return tap
}

function handOver(tap: OpenTap): HandedState {
  const shape = { vnetHdrLength: 12, attached: [true, false] }
  return JSON.parse(JSON.stringify(handOverTap(kernel.shim, tap, shape, ASKED))) as HandedState
}

test('H7, H8: all queues, detached ones too, are taken over as they are, and nothing is set on the device', async () => {
  const tap = await opened()
  kernel.calls.length = 0
  const { tap: taken, shape, asked } = takeOverTap(OPTIONS, handOver(tap), context())
  taps.push(taken)
  expect(new Set(kernel.calls.map((call) => call.split(' ')[0]))).toEqual(
    new Set(['tunGetIff', 'tunGetDevNetns', 'tunGetVnetHdrSize']),
  )
  expect(shape).toEqual({ vnetHdrLength: 12, attached: [true, false] })
  expect(asked).toBe(ASKED)
  expect(taken).toMatchObject({ fds: tap.fds, vnetHdrLength: 24, inForce: ASKED })
  expect(taken.probed).toEqual(tap.probed)
})

test('H7: who lets go closes the descriptors, and does nothing else', async () => {
  const tap = await opened()
  kernel.calls.length = 0
  tap.letGo()
  expect(kernel.calls).toEqual(tap.fds.map((fd) => `close ${fd}`))
  taps.length = 0
})

test('H9: what is not what was said is refused by name, and the descriptors stay the caller’s', async () => {
  const tap = await opened()
  const handed = handOver(tap)
  const refused = (text: string): void => {
    expect(() => takeOverTap(OPTIONS, handed, context())).toThrow(
      expect.objectContaining({
        code: 'HAND_OVER',
        port: 'p0',
        message: expect.stringContaining(text) as string,
      }),
    )
    expect([...kernel.open]).toEqual(tap.fds)
  }
  const [first, second] = tap.fds
  detached.delete(second)
  refused(`descriptor ${second} of queue 1 is attached, and was detached`)
  detached.add(second).add(first)
  refused(`descriptor ${first} of queue 0 is detached, and was attached`)
  detached.delete(first)
  kernel.vnetHdrSize = 10
  refused(`descriptor ${first} of queue 0 has a vnet_hdr of 10 bytes, not of 12`)
  kernel.vnetHdrSize = 12
  kernel.flags &= ~0x0100
  refused('has flags 0x4002, not 0x4102')
})

test('a state of another version, or that is damaged, is refused by name', async () => {
  const handed = handOver(await opened())
  const refused = (state: object, text: string): void => {
    const other = { ...handed, ...state }
    expect(() => takeOverTap(OPTIONS, other, context())).toThrow(text)
  }
  refused({ version: 2 }, 'its state has version 2, and a tap port of this release reads 1')
  refused({ state: null }, 'port "p0": its state is not an object')
  refused(
    { state: { ...(handed.state as object), ifname: 7 } },
    '"ifname" of its state is no string',
  )
  refused(
    { state: { ...(handed.state as object), origin: {} } },
    '"wasPersistent" of its state is no boolean',
  )
  const shape = { vnetHdrLength: 12, attached: [1, 2] }
  refused({ state: { ...(handed.state as object), shape } }, 'no list of booleans')
})

test('a TAP that was deleted is taken over as what it is', async () => {
  const tap = await opened()
  kernel = new FakeKernel({ tunGetIff: () => -EBADFD })
  const handed = handOver(tap)
  expect((handed.state as { device: unknown }).device).toBe(null)
  taps.push(takeOverTap(OPTIONS, handed, context()).tap)
  kernel = new FakeKernel({ tunGetIff: () => PERSISTENT })
  expect(() => takeOverTap(OPTIONS, handed, context())).toThrow('which was deleted before')
})

/** Descriptors of a TAP that somebody has kept: which are used, and in what place of the open sequence. */
import { beforeEach, expect, test } from 'vitest'
import { EBADFD } from '../../../../src/abi/errno.ts'
import type { TapOptions } from '../../../../src/port/options.ts'
import { openTap } from '../../../../src/port/tap/open.ts'
import type { OpenTap } from '../../../../src/port/tap/open-tap.ts'
import { FakeKernel } from './fake-kernel.ts'

// linux/if_tun.h
const TAP = 0x5002
const MULTI_QUEUE = 0x0100
const DETACHED = 0x0400

let log: string[]
let said: string[]
beforeEach(() => {
  log = []
  said = []
})

interface Device {
  readonly name?: string
  readonly flags?: number | readonly number[]
}

/** Descriptors 50, 51 ... are kept; what the kernel says of each. */
async function open(
  wish: Partial<TapOptions>,
  count: number,
  { name = 'x0', flags = TAP }: Device = {},
): Promise<{ kernel: FakeKernel; tap: OpenTap }> {
  const kept = Array.from({ length: count }, (_, k) => 50 + k)
  const kernel: FakeKernel = new FakeKernel({
    tunGetIff: (fd, nameOut) => {
      kernel.writeName(nameOut, kept.includes(fd) ? name : 'x0')
      if (!kept.includes(fd)) return kernel.flags
      return typeof flags === 'number' ? flags : flags[fd - 50]
    },
    tunSetQueue: () => 0,
  })
  for (const fd of kept) kernel.open.add(fd)
  const tap = await openTap(
    { type: 'tap', id: 'a', ifname: 'x0', ...wish },
    {
      shim: kernel.shim,
      given: new Map(),
      log: (line) => log.push(line),
      keeper: {
        take: () => kept,
        keep: (id, fds) => said.push(`keep ${id} ${fds.join()}`),
        leave: (id) => said.push(`leave ${id}`),
        forget: (id) => said.push(`forget ${id}`),
      },
    },
  )
  return { kernel, tap }
}

test('they are set up as what is opened by name, without opening, and forgotten at the end', async () => {
  const { kernel, tap } = await open({ script: '/bin/false' }, 1)
  expect(tap.fds).toEqual([50])
  expect(kernel.callsOf('open', 'tunOpen')).toEqual([])
  expect(kernel.callsOf('tunSetVnetHdrSize', 'tunSetSndbuf')).toHaveLength(2)
  expect(said).toEqual(['keep a 50'])
  await tap.close()
  expect(said).toEqual(['keep a 50', 'forget a'])
  expect(kernel.open.size).toBe(0)
})

test('one that another process goes on with stays kept', async () => {
  const { tap } = await open({}, 1)
  tap.letGo()
  expect(said).toEqual(['keep a 50', 'leave a'])
})

test('queues that a guest did not use are attached again', async () => {
  const flags = [TAP | MULTI_QUEUE, TAP | MULTI_QUEUE | DETACHED]
  const { kernel, tap } = await open({ queues: 2 }, 2, { flags })
  expect(kernel.callsOf('tunSetQueue')).toEqual(['tunSetQueue 51 512'])
  await tap.close()
})

test.each([
  ['tap%d', 'tap12', true],
  ['', 'tap0', true],
  ['vm%dx', 'vm3x', true],
  ['tap%d', 'tapx', false],
  ['vm%dx', 'vm3', false],
  ['x0', 'x00', false],
])('H9: ifname "%s" and the device %s: %s', async (ifname, name, isUsed) => {
  const { tap } = await open({ ifname }, 1, { name })
  expect(tap.fds[0] === 50).toBe(isUsed)
  await tap.close()
})

test.each<[string, Partial<TapOptions>, number, Device]>([
  ['2 descriptors for 1 queues', {}, 2, {}],
  ['they are of x1, not of x0', {}, 1, { name: 'x1' }],
  ['TUNGETIFF: ', {}, 1, { flags: -EBADFD }],
  ['x0 is no TAP', {}, 1, { flags: 0x4001 }],
  ['x0 has vnet_hdr=off', {}, 1, { flags: 0x1002 }],
  ['x0 has vnet_hdr=on', { vnet_hdr: false }, 1, {}],
  ['x0 has several queues', {}, 1, { flags: TAP | MULTI_QUEUE }],
  ['x0 has one queue', { queues: 2 }, 2, {}],
])('H9: %s: they are closed, and the TAP is opened by name', async (why, wish, count, device) => {
  const { kernel, tap } = await open(wish, count, device)
  expect(log[0]).toContain(`tap a: kept descriptors are not used because="${why}`)
  expect(said[0]).toBe('forget a')
  expect(tap.fds.every((fd) => fd >= 100)).toBe(true)
  expect([...kernel.open].filter((fd) => fd < 100)).toEqual([])
  await tap.close()
})

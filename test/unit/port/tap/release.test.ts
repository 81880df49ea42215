/** Waiting for the owner of a TAP (who holds a multi-queue TAP), on a made-up kernel. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { LinkShim } from '../../../../src/port/interface/link.ts'
import { awaitRelease } from '../../../../src/port/tap/release.ts'

const RTM_NEWLINK = 16
const NLMSG_ERROR = 2
const ENODEV = 19
const [IFLA_LINKINFO, IFLA_INFO_KIND, IFLA_INFO_DATA] = [18, 1, 2]
const [NUM_QUEUES, NUM_DISABLED] = [8, 9]

beforeEach(() => {
  vi.useFakeTimers()
})

afterEach(() => {
  vi.useRealTimers()
})

function attribute(type: number, value: Uint8Array): Uint8Array {
  const bytes = new Uint8Array((4 + value.length + 3) & ~3)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, 4 + value.length, true)
  view.setUint16(2, type, true)
  bytes.set(value, 4)
  return bytes
}

const u32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer)
const join = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts))

/** The kernel's answer about a link of that kind, held by so many queues. */
function answer(kind: string, attached: number, disabled: number): Uint8Array {
  const data = join(attribute(NUM_QUEUES, u32(attached)), attribute(NUM_DISABLED, u32(disabled)))
  const name = new TextEncoder().encode(`${kind}\0`)
  const info = join(attribute(IFLA_INFO_KIND, name), attribute(IFLA_INFO_DATA, data))
  const body = join(new Uint8Array(16), attribute(IFLA_LINKINFO, info))
  const head = new Uint8Array(16)
  const view = new DataView(head.buffer)
  view.setUint32(0, 16 + body.length, true)
  view.setUint16(4, RTM_NEWLINK, true)
  return join(head, body)
}

function noLink(): Uint8Array {
  const bytes = new Uint8Array(36)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, 36, true)
  view.setUint16(4, NLMSG_ERROR, true)
  view.setInt32(16, -ENODEV, true)
  view.setUint32(20, 16, true)
  return bytes
}

/** A kernel with these answers, one after another; the last one is for good. */
function kernel(...answers: Uint8Array[]): { shim: LinkShim; asked: () => number } {
  let asked = 0
  const shim: LinkShim = {
    netlinkRoute: () => 3,
    sendMsg: (_fd, _data, _offset, length) => length,
    recvMsg: (_fd, data) => {
      const bytes = answers[Math.min(asked++, answers.length - 1)]
      data.set(bytes)
      return bytes.length
    },
    close: () => 0,
  }
  return { shim, asked: () => asked }
}

async function outcome(
  shim: LinkShim,
  options: { netns?: string; persist?: boolean } = {},
): Promise<string> {
  const result = awaitRelease(shim, -1, 'fp0', options).then(
    () => 'free',
    (error: Error) => error.message,
  )
  await vi.runAllTimersAsync()
  return result
}

test('a free interface is free at once', async () => {
  const { shim, asked } = kernel(answer('tun', 0, 0))
  expect(await outcome(shim)).toBe('free')
  expect(asked()).toBe(1)
})

test('one that is held is asked about for a second, then its queues are told', async () => {
  const { shim, asked } = kernel(answer('tun', 4, 0))
  expect(await outcome(shim)).toBe('fp0: 4 queues are still attached by another process')
  expect(asked()).toBeGreaterThan(10)
})

test('detached queues are held as well', async () => {
  const { shim } = kernel(answer('tun', 0, 1))
  expect(await outcome(shim)).toBe('fp0: 1 queue is still attached by another process')
})

test('an owner that ends meanwhile is waited for', async () => {
  const { shim, asked } = kernel(answer('tun', 2, 2), answer('tun', 1, 0), answer('tun', 0, 0))
  expect(await outcome(shim)).toBe('free')
  expect(asked()).toBe(3)
})

test('the numbers of other kinds of links mean something else', async () => {
  const { shim } = kernel(answer('macvtap', 7, 7))
  expect(await outcome(shim)).toBe('free')
})

test('a name that does not exist is free, unless the interface was to persist', async () => {
  const { shim } = kernel(noLink())
  expect(await outcome(shim)).toBe('free')
  expect(await outcome(shim, { persist: true, netns: 'lab' })).toBe(
    'no interface "fp0" in netns lab',
  )
  expect(await outcome(shim, { persist: true })).toBe(
    'no interface "fp0" in this network namespace',
  )
})

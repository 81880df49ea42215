/** The session's rules: replies, acknowledgements, ring states, descriptors. */
import { expect, test } from 'vitest'
import { FakeConnection, OFFERED } from '../../support/fake-device.ts'
import { u32s, u64, u64s } from '../../support/front-end.ts'

const PROTOCOL = 0x1801fn
const NEED_REPLY = 9

const bytes = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts))
const reply = (request: number, value: bigint): Uint8Array => bytes(u32s(request, 5, 8), u64(value))
const address = (index: number, at = 0x1000, flags = 0, log = 0): Uint8Array =>
  bytes(u32s(index, flags), u64s(at, at + 0x800, at + 0x400, log))
const region = (guest: number, user: number, size = 0x10_0000): Uint8Array =>
  u64s(guest, size, user, 0)
const table = (...regions: Uint8Array[]): Uint8Array => bytes(u32s(regions.length, 0), ...regions)

async function negotiated(features: bigint = OFFERED & ~(1n << 34n)): Promise<FakeConnection> {
  const connection = new FakeConnection()
  expect(await connection.handle(1)).toEqual(reply(1, OFFERED))
  expect(await connection.handle(15)).toEqual(reply(15, PROTOCOL))
  await connection.handle(16, u64(PROTOCOL))
  await connection.handle(3)
  await connection.handle(2, u64(features))
  return connection
}

async function started(): Promise<FakeConnection> {
  const connection = await negotiated()
  await connection.handle(5, table(region(0, 0)), [10])
  await connection.handle(8, u32s(0, 256))
  await connection.handle(10, u32s(0, 7))
  await connection.handle(9, address(0))
  await connection.handle(13, u64(0n), [12])
  await connection.handle(12, u64(0n), [11])
  return connection
}

test('a ring starts with its kick and carries what was said', async () => {
  const { device, closed } = await started()
  expect(device.running.get(0)).toEqual({
    size: 256,
    descriptorAddress: 0x1000,
    usedAddress: 0x1800,
    availAddress: 0x1400,
    logAddress: -1,
    base: 7,
    kickFd: 11,
    callFd: 12,
  })
  expect(device.calls.some(([name]) => name === 'enable')).toBe(false)
  expect(closed).toEqual([])
})

test.each([
  ['size', [9, 12, 5, 8]],
  ['addresses', [8, 12, 5, 9]],
  ['kick', [8, 9, 5, 12]],
  ['memory', [8, 9, 12, 5]],
])('a ring waits for its %s, whatever the order', async (_what, order) => {
  const connection = await negotiated()
  for (const [step, request] of order.entries()) {
    expect(connection.device.running.has(0), `before step ${step}`).toBe(false)
    if (request === 5) await connection.handle(5, table(region(0, 0)), [20])
    else if (request === 8) await connection.handle(8, u32s(0, 256))
    else if (request === 9) await connection.handle(9, address(0))
    else await connection.handle(12, u64(0x100n))
  }
  expect(connection.device.running.get(0)).toMatchObject({ kickFd: -1, callFd: -1 })
})

test('GET_VRING_BASE stops a ring and answers its index and base', async () => {
  const connection = await started()
  expect(await connection.handle(11, u32s(0, 0))).toEqual(bytes(u32s(11, 5, 8), u32s(0, 42)))
  expect(connection.device.running.has(0)).toBe(false)
  // A second time, and for one that never ran: what is known.
  expect(await connection.handle(11, u32s(0, 0))).toEqual(bytes(u32s(11, 5, 8), u32s(0, 42)))
  await connection.handle(10, u32s(1, 9))
  expect(await connection.handle(11, u32s(1, 0))).toEqual(bytes(u32s(11, 5, 8), u32s(1, 9)))
})

test('a running ring takes new eventfds and a log address, and nothing else', async () => {
  const connection = await started()
  await connection.handle(12, u64(0n), [21])
  await connection.handle(13, u64(0n), [22])
  await connection.handle(9, address(0, 0x1000, 1, 0x9000))
  expect(connection.device.calls.slice(-3)).toEqual([
    ['kick', 0],
    ['call', 0],
    ['queue-log', 0, 0x9000],
  ])
  await expect(connection.handle(8, u32s(0, 128))).rejects.toThrow('was changed while it runs')
  await expect(connection.handle(10, u32s(0, 1))).rejects.toThrow('was changed while it runs')
  await expect(connection.handle(9, address(0, 0x2000))).rejects.toThrow('was moved')
  await expect(connection.handle(2, u64(1n << 32n))).rejects.toThrow('while queues run')
  await connection.handle(2, u64(OFFERED & ~(1n << 34n) & ~(1n << 26n)))
})

test('need_reply is answered once REPLY_ACK is negotiated, and only once', async () => {
  const fresh = new FakeConnection()
  expect(await fresh.handle(3, undefined, [], NEED_REPLY)).toBeNull()
  const connection = await negotiated()
  expect(await connection.handle(3, undefined, [], NEED_REPLY)).toEqual(reply(3, 0n))
  expect(await connection.handle(1, undefined, [], NEED_REPLY)).toEqual(reply(1, OFFERED))
  expect(await connection.handle(20, u64(9001n), [], NEED_REPLY)).toEqual(reply(20, 1n))
  expect(await connection.handle(20, u64(9000n), [], NEED_REPLY)).toEqual(reply(20, 0n))
  expect(await connection.handle(77, undefined, [], NEED_REPLY)).toEqual(reply(77, 1n))
  await expect(connection.handle(77)).rejects.toThrow('message 77 is not known')
  await expect(connection.handle(20, u64(9001n))).rejects.toThrow('MTU')
})

test('SET_LOG_BASE has a reply of its own', async () => {
  const connection = await negotiated()
  expect(await connection.handle(6, u64s(4096, 0), [5], NEED_REPLY)).toEqual(reply(6, 0n))
  expect(connection.device.calls.at(-1)).toEqual(['log', 4096])
})

test('memory slots: counted, apart from each other, named when they go', async () => {
  const connection = await negotiated()
  const slot = (n: number): Uint8Array => bytes(u64(0n), region(n * 0x1000_0000, n * 0x1000_0000))
  for (let n = 0; n < 12; n++) {
    expect(await connection.handle(37, slot(n), [100 + n], NEED_REPLY)).toEqual(reply(37, 0n))
  }
  expect(await connection.handle(37, slot(12), [112], NEED_REPLY)).toEqual(reply(37, 1n))
  expect(connection.closed).toEqual([112])
  // REM may bring a descriptor, which is only closed.
  expect(await connection.handle(38, slot(3), [113], NEED_REPLY)).toEqual(reply(38, 0n))
  expect(connection.closed).toEqual([112, 113])
  await expect(connection.handle(37, bytes(u64(0n), region(0x8_0000, 0)), [114])).rejects.toThrow(
    'overlap',
  )
  expect(connection.closed).toEqual([112, 113, 114])
})

test('memory slots: said once per queue pair, as QEMU 7.2 does, they count once', async () => {
  const connection = await negotiated()
  const slot = bytes(u64(0n), region(0x1000_0000, 0x1000_0000))
  for (const fd of [100, 101]) {
    expect(await connection.handle(37, slot, [fd], NEED_REPLY)).toEqual(reply(37, 0n))
  }
  expect(connection.closed).toEqual([101])
  const count = connection.device.calls.length
  for (let pair = 0; pair < 2; pair++) {
    expect(await connection.handle(38, slot, [], NEED_REPLY)).toEqual(reply(38, 0n))
  }
  expect(connection.device.calls).toHaveLength(count + 1)
})

test('the features of the driver are told without the logging of a migration', async () => {
  const { acked } = await negotiated((1n << 32n) | (1n << 26n))
  expect(acked).toEqual([1n << 32n])
})

test('a broken queue is told by its ERR eventfd', async () => {
  const connection = await started()
  connection.session.queueBroken(0)
  expect(connection.signalled).toEqual([])
  await connection.handle(14, u64(0n), [33])
  connection.session.queueBroken(0)
  expect(connection.signalled).toEqual([33])
})

test('the end of a connection closes what never reached the device', async () => {
  const connection = await negotiated()
  await connection.handle(12, u64(0n), [1])
  await connection.handle(13, u64(1n), [2])
  await connection.handle(14, u64(2n), [3])
  await connection.handle(13, u64(1n), [4])
  expect(connection.closed).toEqual([2])
  await connection.session.close()
  expect(connection.closed.toSorted((a, b) => a - b)).toEqual([1, 2, 3, 4])
  expect([connection.device.isClosed, connection.hasEnded]).toEqual([true, true])
})

test.each<[string, number, Uint8Array, number[], number]>([
  ['another version', 1, u32s(), [], 2],
  ['a reply', 1, u32s(), [], 5],
  ['a payload that does not belong', 1, u64(0n), [], 1],
  ['half a payload', 2, u32s(0), [], 1],
  ['features that were not offered', 2, u64(1n << 5n), [], 1],
  ['protocol features that were not offered', 16, u64(1n << 9n), [], 1],
  ['an index beyond the queues', 8, u32s(4, 256), [], 1],
  ['an index far beyond', 9, address(0xffff_ffff), [], 1],
  ['a ring of no entries', 8, u32s(0, 0), [], 1],
  ['a ring of 65536 entries', 8, u32s(0, 65536), [], 1],
  ['a kick without its descriptor', 12, u64(0n), [], 1],
  ['a kick with two', 12, u64(0n), [1, 2], 1],
  ['a kick with one that was not announced', 12, u64(0x100n), [1], 1],
  ['a call for a queue that is not there', 13, u64(200n), [1], 1],
  ['a kick with what is not an eventfd', 12, u64(0n), [FakeConnection.noEventFd], 1],
  ['a call with what is not an eventfd', 13, u64(0n), [FakeConnection.noEventFd], 1],
  ['an err with what is not an eventfd', 14, u64(0n), [FakeConnection.noEventFd], 1],
  ['an enable of neither', 18, u32s(0, 2), [], 1],
  ['a table of nine regions', 5, u32s(9, 0), [], 1],
  ['a table without descriptors', 5, table(region(0, 0)), [], 1],
  ['a table with overlapping regions', 5, table(region(0, 0), region(4096, 9e9)), [1, 2], 1],
  ['a region of no bytes', 5, table(region(0, 0, 0)), [1], 1],
  ['a region beyond any memory', 5, table(u64s(1n << 60n, 4096, 0, 0)), [1], 1],
  ['a region that ends beyond any memory', 5, table(u64s(2n ** 53n - 1n, 4096, 0, 0)), [1], 1],
  ['a log without a descriptor', 6, u64s(4096, 0), [], 1],
])('%s ends the connection', async (_what, request, payload, fds, flags) => {
  const connection = await negotiated()
  const given = [...fds]
  await expect(connection.handle(request, payload, fds, flags)).rejects.toMatchObject({
    code: 'VHOST_USER_PROTOCOL',
  })
  expect(connection.closed.toSorted((a, b) => a - b)).toEqual(given)
  expect(connection.device.fds.size).toBe(0)
})

test('a split ring has a power of two entries, a packed one any number', async () => {
  const split = await started()
  await split.handle(11, u32s(0, 0))
  await split.handle(8, u32s(0, 100))
  await expect(split.handle(12, u64(0n), [51])).rejects.toThrow('not a power of two')
  const packed = await negotiated(OFFERED)
  await packed.handle(5, table(region(0, 0)), [10])
  await packed.handle(8, u32s(0, 100))
  await packed.handle(9, address(0))
  await packed.handle(12, u64(0n), [11])
  expect(packed.device.running.get(0)).toMatchObject({ size: 100 })
})

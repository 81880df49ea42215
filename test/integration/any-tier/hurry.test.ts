/** While frames wait, nobody waits in an event loop: how long that goes on, and what comes after it. */
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterEach, expect, test } from 'vitest'
import type * as ClientModule from '../../../src/engine/client.ts'
import { NO_SNOOPING } from '../../../src/engine/messages.ts'
import type { OutgoingRecord } from '../../../src/handover/channel.ts'
import type * as ChannelModule from '../../../src/handover/socket-channel.ts'
import { RecordReader } from '../../../src/handover/records.ts'
import { shim } from '../../../src/native/shim.ts'

const built = (file: string): string =>
  pathToFileURL(fileURLToPath(new URL(`../../../build/${file}`, import.meta.url))).href
const { EngineClient } = (await import(built('engine/client.js'))) as typeof ClientModule
const { SocketChannel } = (await import(
  built('handover/socket-channel.js')
)) as typeof ChannelModule

const SOCK_STREAM = 1 | 0o4000
/** Of which each message of the kernel is one. */
const SOCK_SEQPACKET = 5 | 0o4000
/** Of EngineClient. */
const ENGINE_HURRY_MS = 50
const HURRY_MS = 300

const ending: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const end of ending.splice(0)) await end()
})

const never = (): never => {
  throw new Error('nothing else happens')
}

function makeEngine(): InstanceType<typeof EngineClient> {
  const settings = { usesAio: false, pace: 'adaptive', macAgingS: 300, macTableSize: 64 } as const
  const engine = new EngineClient(
    { io: 'read-write', groups: 0xffff, snooping: NO_SNOOPING, ...settings },
    {
      portFailed: never,
      queueBroken: never,
      driverCalled: never,
      loops: never,
      storms: never,
      guardDrops: never,
      failed: never,
    },
  )
  ending.push(() => engine.close())
  return engine
}

/** Whether it is settled without the event loop. */
async function isSettled(one: Promise<unknown>): Promise<boolean> {
  let is = false
  void one.then(() => (is = true))
  for (let turns = 0; turns < 10; turns++) await Promise.resolve()
  return is
}

test('who asks the engine in a hurry has the answer in the call', async () => {
  const engine = makeEngine()
  await engine.request({ op: 'publish-counters' })
  expect(await isSettled(engine.request({ op: 'publish-counters' }))).toBe(false)
  engine.isHurried = true
  // However busy the machine is: one of them is answered in that time.
  let times = 0
  while (!(await isSettled(engine.request({ op: 'publish-counters' })))) {
    expect(++times).toBeLessThan(600)
  }
})

test('an engine that has not answered in time is waited for in the event loop', async () => {
  // Its thread has yet to load its code; once in a while it has done so before we were asked for the time.
  for (let tries = 0; ; tries++) {
    expect(tries).toBeLessThan(20)
    const engine = makeEngine()
    engine.isHurried = true
    const begun = performance.now()
    const answer = engine.request({ op: 'mac-table', cell: 0 })
    const waitedMs = performance.now() - begun
    const isInTime = await isSettled(answer)
    expect(await answer).toMatchObject({ next: -1 })
    if (isInTime) continue
    expect(waitedMs).toBeGreaterThan(ENGINE_HURRY_MS - 1)
    return
  }
})

function makeChannel(fd: number): InstanceType<typeof SocketChannel> {
  const channel = new SocketChannel(fd, '1.0.0', () => undefined)
  ending.push(() => channel.close())
  return channel
}

function socketPair(type: number): [number, number] {
  const pair = new Int32Array(2)
  expect(shim.socketPair(type, pair)).toBe(0)
  return [pair[0], pair[1]]
}

test('records go in as few messages as their descriptors allow, and are whole', async () => {
  const [own, fd] = socketPair(SOCK_SEQPACKET)
  const channel = makeChannel(own)
  const given = shim.eventfd(0, 0)
  const records: OutgoingRecord[] = [
    { section: 'macs', data: [1], fds: [] },
    { section: 'macs', data: [2], fds: [] },
    { section: 'port', data: {}, fds: Array.from({ length: 254 }, () => given) },
    { section: 'switch', data: {}, fds: [] },
    { section: 'end-of-state', data: {}, fds: [] },
  ]
  await channel.sendAll(records)
  const reader = new RecordReader('1.0.0')
  const messages: number[] = []
  const read: string[] = []
  const [bytes, fds, info] = [new Uint8Array(65_536), new Int32Array(253), new Int32Array(2)]
  for (;;) {
    const got = shim.recvMsg(fd, bytes, fds, info, 0)
    if (got <= 0) break
    messages.push(info[0])
    let came = [...fds.subarray(0, info[0])]
    for (let at = 0; at < got;) {
      const part = bytes.slice(at, Math.min(got, at + reader.wanted))
      at += part.length
      const record = reader.push(part, came, false)
      came = []
      if (record === undefined) continue
      read.push(`${record.section} ${record.fds.length}`)
      for (const one of record.fds) shim.close(one)
    }
  }
  for (const one of [given, fd]) shim.close(one)
  // Three records and the header of one, 253 descriptors, one descriptor, and the rest.
  expect(messages).toEqual([0, 253, 1, 0])
  expect(read).toEqual(['macs 0', 'macs 0', 'port 254', 'switch 0', 'end-of-state 0'])
})

test('who hurries waits in the call, for so long, and then in the event loop', async () => {
  const [channel, other] = socketPair(SOCK_STREAM).map(makeChannel)
  const timed = (): { ms: number; record: ReturnType<typeof channel.receive> } => {
    const begun = performance.now()
    const record = channel.receive()
    return { ms: performance.now() - begun, record }
  }
  channel.hurry(HURRY_MS)
  const { ms, record } = timed()
  expect(ms).toBeGreaterThan(HURRY_MS - 2)
  // It is heard all the same.
  other.sendNow('ready', {})
  expect(await record).toMatchObject({ section: 'ready' })
  // The time is over; a machine that is busy may hold up one of them.
  const laterMs: number[] = []
  for (let times = 0; times < 5; times++) {
    const again = timed()
    laterMs.push(again.ms)
    other.sendNow('commit', {})
    expect(await again.record).toMatchObject({ section: 'commit' })
  }
  expect(Math.min(...laterMs)).toBeLessThan(HURRY_MS)
})

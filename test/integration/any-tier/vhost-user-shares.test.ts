/**
 * Windows are the process's: as many vhost-user ports as there can be fit, and guests that take all
 * that they get leave the others what they need.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { createSwitch as CreateSwitch, Switch } from '../../../src/index.ts'
import { shim } from '../../../src/native/shim.ts'
import { hasCome } from '../../support/bounded.ts'
import { F_PROTOCOL, F_VERSION_1, FrontEnd, u32s, u64s } from '../../support/front-end.ts'
import { IO } from '../../support/lab.ts'
import { until } from '../../support/processes.ts'
import { frame } from '../../support/sim.ts'

const { createSwitch } = (await import('../../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

const GREEDY = 8
const SLOTS = 509
/** Messages that are sent before the next answer is waited for. */
const BATCH = 64
const PAGE = 4096
/** While a table is replaced both count: less than half of the share. */
const TABLE_WINDOWS = 200

let directory: string
let sw: Switch
const log: string[] = []
const open: FrontEnd[] = []

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'framepump-shares-'))
  log.length = 0
  sw = createSwitch({ io: IO as 'auto', log: (text) => log.push(text) })
})
afterEach(async () => {
  for (const guest of open.splice(0)) guest.close()
  await sw.close()
  rmSync(directory, { recursive: true })
})

const path = (id: string): string => join(directory, `${id}.sock`)
const addPort = (id: string): Promise<unknown> =>
  sw.addPort({ type: 'vhost-user', id, path: path(id) })

function connect(id: string): FrontEnd {
  const guest = FrontEnd.connect(path(id))
  open.push(guest)
  return guest
}

/** The same where the backlog may be full. */
async function connectLater(id: string): Promise<FrontEnd> {
  const fd = shim.socketUnix(1)
  await until('there is room in the backlog', () => shim.connectUnix(fd, path(id)) === 0)
  const guest = new FrontEnd(fd)
  open.push(guest)
  return guest
}

/** Frames pass from the guest of a port to a memory port. */
async function passesFrames(id: string, number: number): Promise<void> {
  const guest = await connectLater(id)
  await guest.start()
  await until(`${id} is connected`, () => sw.port(id).state === 'connected')
  guest.transmit(frame(255, 3, number))
  await until('the frame comes through', () => hasCome(sw.memoryPort('m'), frame(255, 3, number)))
}

test('a guest that changes its memory all the time is read more slowly, and nobody else', async () => {
  const memfd = shim.memfdCreate('framepump-test-guest', 1)
  shim.ftruncate(memfd, TABLE_WINDOWS * 2 ** 30)
  await sw.addPort({ type: 'memory', id: 'm' })
  for (const id of ['a', 'v']) await addPort(id)
  const guest = connect('a')
  await guest.start()
  const row = u64s(2 ** 40, TABLE_WINDOWS * 2 ** 30, 2 ** 40, 0)
  const table = new Uint8Array(Buffer.concat([u32s(1, 0), row]))
  // What may be done at once, and half a second more.
  const tables = Math.ceil((8192 + 512) / TABLE_WINDOWS) + 1
  const startMs = performance.now()
  for (let number = 0; number < tables; number++) {
    guest.send(5, table, [memfd])
    if (number === tables - 1) await passesFrames('v', 1)
    await guest.barrier()
  }
  expect(performance.now() - startMs).toBeGreaterThan(450)
  expect(sw.port('a').state).toBe('connected')
  shim.close(memfd)
}, 60_000)

test('1,023 vhost-user ports beside a memory port, the last with a guest', async () => {
  await sw.addPort({ type: 'memory', id: 'm' })
  for (let number = 0; number < 1023; number++) await addPort(`v${number}`)
  await passesFrames('v0', 1)
  await passesFrames('v1022', 2)
  await sw.startCapture({ to: { path: join(directory, 'c.pcapng') } }).then((it) => it.stop())
}, 180_000)

test('guests in as many regions as they can leave others theirs', async () => {
  const memfd = shim.memfdCreate('framepump-test-guest', 1)
  shim.ftruncate(memfd, 1024 * PAGE)
  for (let number = 0; number < GREEDY; number++) {
    await addPort(`g${number}`)
    const guest = connect(`g${number}`)
    await guest.negotiate(F_VERSION_1 | F_PROTOCOL)
    for (let slot = 0; slot < SLOTS; slot++) {
      // Pages that do not touch, so that none is part of another's region.
      const at = 2 ** 32 + 2 * slot * PAGE
      guest.send(37, u64s(0, at, PAGE, at, slot * PAGE), [memfd])
      // What one refuses ends the connection.
      if (slot % BATCH === 0) await guest.barrier()
    }
    await guest.barrier()
    // A second one of the same port has but what the first left.
    const second = connect(`g${number}`)
    await second.negotiate(F_VERSION_1 | F_PROTOCOL)
    const rows = Array.from({ length: 8 }, (_, k) => u64s(k * 2 * PAGE, PAGE, k * 2 * PAGE, 0))
    const fds = rows.map(() => memfd)
    second.send(5, new Uint8Array(Buffer.concat([u32s(rows.length, 0), ...rows])), fds)
    await second.hungUp()
  }
  shim.close(memfd)
  expect(log.filter((line) => line.includes('more than its share'))).toHaveLength(GREEDY)
  await sw.addPort({ type: 'memory', id: 'm' })
  for (let number = 0; number < 20; number++) {
    await addPort(`v${number}`)
    await passesFrames(`v${number}`, number)
  }
  const capture = await sw.startCapture({ to: { path: join(directory, 'c.pcapng') } })
  await capture.stop()
}, 120_000)

test('a guest that comes and breaks off all the time is let in more slowly, and nobody else', async () => {
  await sw.addPort({ type: 'memory', id: 'm' })
  for (const id of ['a', 'v']) await addPort(id)
  const startMs = performance.now()
  // What may come at once, and three seconds more, of which the backlog has not come.
  const count = (8192 + 3072) / 8 + 16
  const wrong = new Uint8Array(u32s(1, 2, 0))
  for (let number = 0; number < count; number++) {
    const fd = shim.socketUnix(1)
    while (shim.connectUnix(fd, path('a')) < 0) {
      await new Promise((resolve) => setImmediate(resolve))
    }
    shim.sendMsg(fd, wrong, 0, wrong.length, null, 0, 0)
    shim.close(fd)
  }
  expect(performance.now() - startMs).toBeGreaterThan(2800)
  await passesFrames('v', 1)
  // It is let in all the same.
  await passesFrames('a', 2)
}, 60_000)

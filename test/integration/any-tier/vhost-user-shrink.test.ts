/**
 * Guests that take their memory away under a daemon while frames are in flight. What is lost is put
 * back by the SIGBUS handler; that must never take so many mappings that the process has no more
 * (vm.max_map_count), and only the guest's own port may fail.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { F_VERSION_1, u32s } from '../../support/front-end.ts'
import type { Daemon } from '../../support/lab.ts'
import { Lab } from '../../support/lab.ts'
import { until } from '../../support/processes.ts'
import { ShrinkingGuest } from '../../support/shrinking-guest.ts'
import { frame } from '../../support/sim.ts'
import { VhostGuest } from '../../support/vhost-guest.ts'

const QUEUE_PAIRS = 20
/** Mappings that a daemon makes and drops by itself: heaps grow, buffers come and go. */
const MAPPINGS_MORE_MAX = 300
/** Bursts that a guest goes on with after its memory is gone. */
const ROUNDS = 40
const UNREAD = 6000

let lab: Lab
let daemon: Daemon
let good: VhostGuest[]
const guests: ShrinkingGuest[] = []

beforeEach(async () => {
  lab = new Lab()
  const path = (id: string): string => join(lab.directory, `${id}.sock`)
  const port = (id: string, more = ''): string[] => [
    '--port',
    `vhost-user,id=${id},path=${path(id)}${more}`,
  ]
  daemon = await lab.daemon(
    ...port('a', `,queues=${QUEUE_PAIRS}`),
    ...port('b', `,queues=${QUEUE_PAIRS}`),
    ...port('v'),
    ...port('w'),
  )
  good = [
    await VhostGuest.start(path('v'), F_VERSION_1, frame(255, 1, 1)),
    await VhostGuest.start(path('w'), F_VERSION_1, frame(255, 2, 2)),
  ]
})

afterEach(async () => {
  for (const guest of [...guests.splice(0), ...good]) guest.close()
  await lab[Symbol.asyncDispose]()
})

async function connect(id: string): Promise<ShrinkingGuest> {
  const guest = await ShrinkingGuest.start(join(lab.directory, `${id}.sock`), QUEUE_PAIRS)
  guests.push(guest)
  return guest
}

function mappings(): number {
  return readFileSync(`/proc/${daemon.process.child.pid}/maps`, 'utf8').split('\n').length
}

/** The good guests get frames of each other. */
async function expectUnharmed(): Promise<void> {
  const before = good.map(({ received }) => received)
  await until('the good guests have frames', () => {
    if (!daemon.process.isRunning) throw new Error(`the daemon ended: ${daemon.process.stderr}`)
    for (const guest of good) guest.turn()
    return good.every(({ received }, at) => received > before[at])
  })
}

/** Runs an attack; afterwards the daemon has hardly more mappings, at any time, and works. */
async function expectBounded(attack: () => Promise<void>): Promise<void> {
  await expectUnharmed()
  const before = mappings()
  let most = 0
  let isOver = false
  const watch = async (): Promise<void> => {
    while (!isOver && daemon.process.isRunning) {
      most = Math.max(most, mappings())
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  const watching = watch()
  try {
    await attack()
    await expectUnharmed()
  } finally {
    isOver = true
    await watching
  }
  expect(most - before).toBeLessThan(MAPPINGS_MORE_MAX)
}

async function portFails(id: string): Promise<void> {
  await until(`port ${id} has lost its guest`, async () => {
    if (!daemon.process.isRunning) throw new Error(`the daemon ended: ${daemon.process.stderr}`)
    return (await daemon.port(id))['state'] !== 'connected'
  })
}

/** The guest goes on as if nothing had happened. */
async function keepSending(sender: ShrinkingGuest): Promise<void> {
  for (let round = 0; round < ROUNDS; round++) {
    sender.reclaim()
    sender.sendFrames(round % 2 === 0)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

test.each([
  ['with their heads', false],
  ['behind their heads', true],
])(
  'a sender that shrinks under frames on alternating pages, %s',
  async (_what, isWhole) => {
    const sender = await connect('a')
    await expectBounded(async () => {
      sender.shrink()
      sender.sendFrames(isWhole)
      await portFails('a')
    })
  },
  60_000,
)

test('a receiver that shrinks under frames for all its buffers', async () => {
  const sender = await connect('a')
  const receiver = await connect('b')
  receiver.postBuffers()
  await expectBounded(async () => {
    receiver.shrink()
    sender.sendFrames(true)
    await portFails('b')
    expect((await daemon.port('a'))['state']).toBe('connected')
  })
}, 60_000)

test('both at once', async () => {
  const sender = await connect('a')
  const receiver = await connect('b')
  receiver.postBuffers()
  await expectBounded(async () => {
    receiver.shrink()
    sender.shrink()
    sender.sendFrames(true)
    await portFails('a')
  })
}, 60_000)

test('a sender that goes on, and reads none of thousands of replies', async () => {
  const sender = await connect('a')
  await expectBounded(async () => {
    // What does not fit into the socket is not sent; the back-end has no room for its replies then.
    const request = u32s(1, 1, 0)
    for (let n = 0; n < UNREAD && sender.frontEnd.trySend(request); n++);
    sender.shrink()
    await keepSending(sender)
    await portFails('a')
    await keepSending(sender)
  })
}, 60_000)

test('again and again, by guests that come back', async () => {
  await expectBounded(async () => {
    for (let round = 0; round < 10; round++) {
      const sender = await connect('a')
      const receiver = await connect('b')
      receiver.postBuffers()
      if (round % 2 === 0) sender.shrink()
      else receiver.shrink()
      sender.sendFrames(true)
      await portFails(round % 2 === 0 ? 'a' : 'b')
      for (const guest of guests.splice(0)) guest.close()
      for (const id of ['a', 'b']) {
        await until(`port ${id} is free`, async () => {
          return (await daemon.port(id))['state'] === 'disconnected'
        })
      }
    }
  })
}, 60_000)

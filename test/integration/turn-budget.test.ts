/**
 * A guest whose chains are as dear as can be, beside two that exchange a frame: how many of the dear
 * ones are served before the answer is there. Time would say little on a machine that does other things.
 */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { F_PROTOCOL, F_VERSION_1, FrontEnd, GUEST_BASE, RING_SIZE } from '../support/front-end.ts'
import { Lab } from '../support/lab.ts'
import { until } from '../support/processes.ts'
import { frame } from '../support/sim.ts'

const F_INDIRECT = 1n << 28n
const NEXT = 1
const WRITE = 2
const INDIRECT = 4
const PAIRS = 64
const TABLE = 0x30_0000
const TABLE_ENTRIES = 1024
const ROUND_TRIPS = 60

/** 1023 descriptors of nothing and one of a byte. */
function writeTable(guest: FrontEnd, write: number): void {
  for (let n = 0; n < TABLE_ENTRIES; n++) {
    const isLast = n === TABLE_ENTRIES - 1
    const at = TABLE + 16 * n
    guest.view.setBigUint64(at, BigInt(GUEST_BASE), true)
    guest.view.setUint32(at + 8, isLast ? 1 : 0, true)
    guest.view.setUint16(at + 12, isLast ? write : write | NEXT, true)
    guest.view.setUint16(at + 14, n + 1, true)
  }
}

/** Every chain of these queues is the table. */
async function arm(guest: FrontEnd, queues: readonly number[]): Promise<void> {
  await guest.negotiate(F_VERSION_1 | F_PROTOCOL | F_INDIRECT)
  guest.send(5, guest.memoryTable(), [guest.memfd])
  for (const queue of queues) {
    for (let n = 0; n < RING_SIZE; n++) {
      guest.descriptor(queue, n, GUEST_BASE + TABLE, 16 * TABLE_ENTRIES, INDIRECT)
    }
    for (let n = 0; n < RING_SIZE; n++) guest.availEntry(queue, n, n)
    guest.startQueue(queue)
    guest.enableQueue(queue)
    await guest.barrier()
  }
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1]

test('64 queues of tables of nothing keep two others waiting for a few of them at most', async () => {
  await using lab = new Lab()
  const paths = ['a', 'b', 'h'].map((name) => join(lab.directory, `${name}.sock`))
  const daemon = await lab.daemon(
    ...paths.flatMap((path, k) => [
      '--port',
      `vhost-user,id=g${k},path=${path}${k === 2 ? `,queues=${PAIRS}` : ''}`,
    ]),
    '--link',
    'g0,g1',
  )
  const [a, b, hostile] = paths.map((path) => FrontEnd.connect(path))
  try {
    for (const guest of [a, b]) {
      await guest.start()
      guest.post(RING_SIZE)
    }
    const queues = Array.from({ length: PAIRS }, (_, pair) => 2 * pair + 1)
    writeTable(hostile, 0)
    await arm(hostile, queues)
    const before: number[] = []
    for (let round = 0; round < ROUND_TRIPS; round++) {
      for (const queue of queues) hostile.offerRing(queue)
      const used = queues.map((queue) => hostile.usedIndex(queue))
      const waits = [a, b].map((guest) => guest.usedIndex(0))
      // Without a pause, as what is served of the hostile queues goes on; but not for ever.
      const start = performance.now()
      const comes = (to: FrontEnd, before: number): void => {
        while (to.usedIndex(0) === before) {
          if (performance.now() - start > 30_000) throw new Error('the frame does not come')
        }
      }
      a.transmit(frame(2, 1, round))
      comes(b, waits[1])
      b.transmit(frame(1, 2, round))
      comes(a, waits[0])
      const served = queues.map((queue, at) => (hostile.usedIndex(queue) - used[at]) & 0xffff)
      before.push(served.reduce((sum, count) => sum + count, 0))
      for (const guest of [a, b]) {
        await guest.receive()
        guest.post(1)
      }
    }
    // Without a budget every turn served all that were there: 64 times 64, and the pair waited for two.
    expect(Math.min(...before)).toBeLessThan(200)
    expect(median(before)).toBeLessThan((PAIRS * RING_SIZE) / 2)
    // None of its queues starves: what is there is served in the end.
    for (const queue of queues) hostile.offerRing(queue)
    await until('all chains have been used', () =>
      queues.every((queue) => hostile.usedIndex(queue) === hostile.availIndex(queue)),
    )
    const stats = await daemon.stats('g2')
    expect(stats.rx_drop_malformed).toBeGreaterThan(PAIRS * RING_SIZE)
  } finally {
    for (const guest of [a, b, hostile]) guest.close()
  }
}, 60_000)

test('a guest whose buffers are tables of nothing loses its frames, and only its own', async () => {
  await using lab = new Lab()
  const paths = ['a', 'b', 'h'].map((name) => join(lab.directory, `${name}.sock`))
  const daemon = await lab.daemon(
    ...paths.flatMap((path, k) => ['--port', `vhost-user,id=g${k},path=${path}`]),
  )
  const [a, b, hostile] = paths.map((path) => FrontEnd.connect(path))
  try {
    for (const guest of [a, b]) await guest.start()
    writeTable(hostile, WRITE)
    await arm(hostile, [0])
    hostile.offerRing(0)
    // A burst of broadcasts, again and again, to both.
    await until('frames were dropped since they would cost too much', async () => {
      const used = a.usedIndex(1)
      b.post(RING_SIZE)
      for (let k = 0; k < RING_SIZE; k++) a.transmit(frame(255, 1, k))
      await until('they were sent', () => a.usedIndex(1) === ((used + RING_SIZE) & 0xffff))
      await until('they were received', () => b.usedIndex(0) === b.availIndex(0))
      return (await daemon.stats('g2')).tx_drop_descriptors > 0
    })
    expect(await daemon.stats('g1')).toMatchObject({ tx_drop_descriptors: 0, tx_drop_full: 0 })
  } finally {
    for (const guest of [a, b, hostile]) guest.close()
  }
}, 60_000)

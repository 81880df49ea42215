/**
 * A driver that rewrites its rings, its descriptors and its frames with a second thread at full speed
 * while the engine walks them: nothing that was checked once stays as it was.
 */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { FrontEnd } from '../../support/front-end.ts'
import {
  F_MRG_RXBUF,
  F_PROTOCOL,
  F_VERSION_1,
  GUEST_BASE,
  MEMORY_LENGTH,
  RING_SIZE,
} from '../../support/front-end.ts'
import { HostileLab } from '../../support/hostile-lab.ts'

const F_INDIRECT = 1n << 28n
const F_EVENT_IDX = 1n << 29n
const F_PACKED = 1n << 34n
/** Both positions 0, both wrap counters 1. */
const PACKED_BASE = 0x8000_8000

const ROUNDS = 12
const WRITES = 400_000
/** Of 10,000 writes so many are nonsense: with none a queue lives, with some it dies in between. */
const WILDNESS = [0, 3, 300]

/**
 * The second thread, as text: it runs without a compiler. The window is the process's, so it sees
 * the same memory. Most of what it writes makes sense, so that queues live long enough.
 */
const SCRIBBLER = `
const { parentPort, workerData } = require('node:worker_threads')
const { base, memoryLength, ringSize, build } = workerData
Promise.all([import(build + 'mem/window.js'), import(build + 'native/shim.js')]).then(
  ([{ Window }, { shim }]) => {
    parentPort.on('message', ({ window, kicks, isPacked, wildness, seed, writes }) => {
      const view = Window.view(window)
      const words = new Int32Array(view.buffer)
      const halfWords = new Uint16Array(view.buffer)
      let state = seed | 1
      const random = (limit) => {
        state ^= state << 13
        state ^= state >>> 17
        state ^= state << 5
        return (state >>> 0) % limit
      }
      const borders = [0, memoryLength - 4096, memoryLength, 0x1000, 0x2000]
      const next = [0, 0]
      for (let n = 0; n < writes; n++) {
        const queue = random(2)
        const stride = queue * 0x4000
        const slot = random(ringSize)
        const at = (stride + slot * 16) >> 2
        const isWild = random(10000) < wildness
        const what = random(100)
        if (what < 50) {
          // A descriptor, field by field: it is never wholly the old or the new one.
          words[at] = base + 0x100000 + random(0x200000)
          words[at + 1] = isWild ? random(2) : 0
          words[at + 2] = 60 + random(4000)
          const flags = isWild ? random(8) : queue === 0 ? 2 : 0
          words[at + 3] = isPacked
            ? slot | ((flags | (random(2) === 0 ? 0x80 : 0x8000)) << 16)
            : flags | (random(ringSize) << 16)
        } else if (what < 55) {
          if (isWild) words[at + random(4)] = base + borders[random(5)] - 32 + random(64)
        } else if (what < 70) {
          halfWords[(stride + 0x1000 + 4 + 2 * slot) >> 1] = isWild ? state : random(ringSize)
        } else if (what < 95) {
          if (isPacked) {
            halfWords[(stride + 0x1000) >> 1] = random(4)
            halfWords[(stride + 0x1000 + 2) >> 1] = random(4)
          } else {
            const used = Atomics.load(halfWords, (stride + 0x2000 + 2) >> 1)
            const room = ringSize - ((next[queue] - used) & 0xffff) + (isWild ? 1 : 0)
            if (room > 0) next[queue] = (next[queue] + 1 + random(room)) & 0xffff
            Atomics.store(halfWords, (stride + 0x1000 + 2) >> 1, next[queue])
          }
        } else if (what < 99) {
          words[(0x100000 + random(0x80000) * 4) >> 2] = state
        } else if (isWild) {
          words[(stride + random(0x3000)) >> 2] = state
        }
        if ((n & 255) === 0) shim.eventfdWrite(kicks[queue])
      }
      view.detach()
      parentPort.postMessage('done')
    })
    parentPort.postMessage('ready')
  },
)
`

let lab: HostileLab
let scribbler: Worker

const fromWorker = (): Promise<unknown> => once(scribbler, 'message')

const frames = (): number => lab.sw.port('g').counters.rx_frames

beforeAll(async () => {
  scribbler = new Worker(SCRIBBLER, {
    eval: true,
    workerData: {
      base: GUEST_BASE,
      memoryLength: MEMORY_LENGTH,
      ringSize: RING_SIZE,
      build: new URL('../../../build/', import.meta.url).href,
    },
  })
  await fromWorker()
  lab = await HostileLab.open()
})
afterEach(() => lab.expectUnharmed(), 60_000)
afterAll(async () => {
  await lab.close()
  await scribbler.terminate()
})

/** Lets the second thread loose on a guest until it is done; frames go both ways meanwhile. */
async function race(
  guest: FrontEnd,
  isPacked: boolean,
  wildness: number,
  seed: number,
): Promise<void> {
  let isDone = false
  const done = fromWorker().then(() => (isDone = true))
  scribbler.postMessage({
    window: guest.memory.id,
    kicks: guest.kicks,
    isPacked,
    wildness,
    seed,
    writes: WRITES,
  })
  while (!isDone) {
    for (let n = 0; n < 32; n++) lab.flood()
    await lab.passesFrames()
  }
  await done
}

test.each([
  ['split', 0n, 0],
  ['split, mergeable, indirect, event_idx', F_MRG_RXBUF | F_INDIRECT | F_EVENT_IDX, 0],
  ['packed', F_PACKED, PACKED_BASE],
  [
    'packed, mergeable, indirect, event_idx',
    F_PACKED | F_MRG_RXBUF | F_INDIRECT | F_EVENT_IDX,
    PACKED_BASE,
  ],
])('rings rewritten while they are walked: %s', async (_kind, features, base) => {
  const seed = Date.now() | 0
  const states = new Set<string>()
  const before = frames()
  try {
    for (let round = 0; round < ROUNDS; round++) {
      await lab.stateIs('disconnected')
      const guest = await lab.connect()
      await guest.start(F_VERSION_1 | F_PROTOCOL | features, base)
      await lab.stateIs('connected')
      await race(guest, base !== 0, WILDNESS[round % WILDNESS.length], seed + round)
      states.add(lab.state)
      lab.kill(guest)
    }
  } catch (error) {
    throw new Error(`with seed ${seed}`, { cause: error })
  }
  for (const state of states) expect(['connected', 'failed']).toContain(state)
  // It was worth the while: frames came out of that memory.
  expect(frames() - before).toBeGreaterThan(ROUNDS)
  await lab.expectUsable()
})

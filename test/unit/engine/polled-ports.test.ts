/** When the engine gives polled ports their memory back: after the tier has given its frames to the kernel. */
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Burst } from '../../../src/mem/burst.ts'
import { Window } from '../../../src/mem/window.ts'
import type { PolledPort } from '../../../src/port/contract.ts'
import { Sim } from '../../support/sim.ts'

const FRAME_LENGTH = 60

let sim: Sim
let window: Window
let told: string[]

/** Sends frames of the lengths of its bursts, one after another, to the first port of the switch. */
class Sender implements PolledPort {
  readonly index: number
  readonly rxQueues: number
  readonly txOffloads = 0
  rxQueue = 0
  readonly #bursts: number[]

  constructor(index: number, bursts: readonly number[], rxQueues = 1) {
    this.index = index
    this.#bursts = [...bursts]
    this.rxQueues = rxQueues
  }

  receive(burst: Burst): number {
    const count = this.#bursts.shift() ?? 0
    burst.count = count
    burst.furtherTotal = 0
    burst.descriptors = count
    for (let k = 0; k < count; k++) {
      burst.window[k] = window.id
      burst.offset[k] = 0
      burst.length[k] = FRAME_LENGTH
      burst.headLength[k] = 0
      burst.heads.set([0x0000_0002, 0x0002_0900, 0x0100_0000, 0xb588], k * 4)
    }
    if (count > 0) told.push(`${count} of ${this.index}`)
    return count
  }

  release(): void {
    told.push(`release ${this.index}`)
  }

  waitUs(): number {
    return -1
  }

  transmit(): void {}
  endTurn(): void {}
  close(): void {}
}

beforeEach(() => {
  sim = new Sim(1)
  window = Window.map(4096)
  told = []
  sim.engine.tier.flush = () => void told.push('flush')
})
afterEach(() => {
  sim[Symbol.dispose]()
  window.unmap()
})

function turnWith(...senders: readonly Sender[]): string[] {
  for (const sender of senders) sim.engine.addPort(sender, 0)
  sim.engine.turn(false, 0)
  return told
}

test('few frames of several ports are given to the kernel at once, before any port has its memory back', () => {
  const told = turnWith(new Sender(1, [2]), new Sender(2, [1]), new Sender(3, [8]))
  expect(told.slice(0, 3).toSorted()).toEqual(['1 of 2', '2 of 1', '8 of 3'])
  expect(told[3]).toBe('flush')
  expect(told.slice(4).toSorted()).toEqual(['release 1', 'release 2', 'release 3'])
})

test('many frames do not wait, nor do those before them', () => {
  expect(turnWith(new Sender(1, [2]), new Sender(2, [9]), new Sender(3, [1]))).toEqual([
    '2 of 1',
    '9 of 2',
    'flush',
    'release 1',
    'release 2',
    '1 of 3',
    'flush',
    'release 3',
  ])
})

test('a port has its memory back before its next queue is asked', () => {
  expect(turnWith(new Sender(1, [2, 3], 2))).toEqual([
    '2 of 1',
    'flush',
    'release 1',
    '3 of 1',
    'flush',
    'release 1',
  ])
})

test('a turn without frames flushes nothing', () => {
  expect(turnWith(new Sender(1, []))).toEqual([])
})

/** What a polled port may cost the others: its bursts, and its time in a turn. */
import { expect, test } from 'vitest'
import { Burst, BURST_SIZE_MAX } from '../../../src/mem/burst.ts'
import type { PolledPort } from '../../../src/port/contract.ts'
import type { Clock } from '../../../src/mem/clock.ts'
import { BYTES_MAX, DESCRIPTORS_MAX, TurnBudget } from '../../../src/engine/turn-budget.ts'
import { Sim } from '../../support/sim.ts'

const burst = new Burst()

/** A clock that says nothing before it is read. */
function clockAt(nowUs: number): Clock {
  const time = new Float64Array(2)
  return { time, words: new Int32Array(8), read: () => (time[0] = nowUs) }
}

/** What a port gets after a turn in which so many had something. */
function limits(budget: TurnBudget, port = 0): number[] {
  budget.limit(burst, port)
  expect(burst.descriptors).toBe(0)
  return [burst.framesMax, burst.bytesMax, burst.descriptorsMax]
}

function turnOf(budget: TurnBudget, ports: number): void {
  budget.beginTurn(1000)
  for (let port = 0; port < ports; port++) {
    expect(budget.beginPort(port, true, port)).toBe(true)
    for (let bursts = 0; bursts < 3; bursts++) budget.begin(clockAt(0), true)
  }
  budget.beginTurn(1000)
}

test('a port alone has all, many share a turn, and each has enough to go on', () => {
  const budget = new TurnBudget()
  const whole = [BURST_SIZE_MAX, BYTES_MAX, DESCRIPTORS_MAX]
  expect(limits(budget)).toEqual(whole)
  turnOf(budget, 1)
  expect(limits(budget)).toEqual(whole)
  turnOf(budget, 8)
  expect(limits(budget)).toEqual([BURST_SIZE_MAX, 262_144, 1024])
  turnOf(budget, 1000)
  expect(limits(budget)).toEqual([BURST_SIZE_MAX, 65_536, 256])
  turnOf(budget, 0)
  expect(limits(budget)).toEqual(whole)
})

test('time is counted from the first burst of a port in a turn, and shared as well', () => {
  const budget = new TurnBudget()
  turnOf(budget, 1)
  budget.beginPort(0, true, 0)
  budget.begin(clockAt(1000), true)
  budget.begin(clockAt(1100), true)
  expect([1199, 1200].map((nowUs) => budget.isUsedUp(clockAt(nowUs)))).toEqual([false, true])
  turnOf(budget, 8)
  budget.beginPort(0, true, 0)
  budget.begin(clockAt(1000), true)
  expect([1049, 1050].map((nowUs) => budget.isUsedUp(clockAt(nowUs)))).toEqual([false, true])
})

test('bursts that were too dear are halved until they are not, of that port only', () => {
  const budget = new TurnBudget()
  budget.beginPort(3, true, 3)
  budget.spent(3, 250_000)
  expect(limits(budget, 3)[0]).toBe(256)
  budget.spent(3, 250_001)
  expect(limits(budget, 3).slice(0, 2)).toEqual([128, BYTES_MAX / 2])
  budget.spent(3, 2_000_000)
  expect(limits(budget, 3)[0]).toBe(16)
  budget.spent(3, 1e9)
  expect(limits(budget, 3)[0]).toBe(1)
  budget.spent(3, 1e9)
  expect(limits(budget, 3)[0]).toBe(1)
  expect(limits(budget, 4)[0]).toBe(256)
  budget.forget(3)
  expect(limits(budget, 3)[0]).toBe(256)
})

test('ports of the program itself have no budget', () => {
  const budget = new TurnBudget()
  budget.beginPort(0, false, 0)
  budget.begin(clockAt(0), true)
  expect(budget.isUsedUp(clockAt(1e9))).toBe(false)
  budget.spent(0, 1e9)
  expect(budget.beginPort(0, false, 0)).toBe(true)
})

test('what was halved comes back slowly', () => {
  const budget = new TurnBudget()
  budget.beginPort(0, true, 0)
  budget.recover(0)
  budget.spent(0, 1_000_000)
  budget.spent(9, 500_000)
  expect([limits(budget, 0)[0], limits(budget, 9)[0]]).toEqual([64, 128])
  const seen: number[] = []
  for (let nowUs = 1_000_000; nowUs < 1_400_000; nowUs += 20_000) {
    budget.recover(nowUs)
    seen.push(limits(budget, 0)[0])
  }
  expect(seen.slice(0, 7)).toEqual([128, 128, 128, 128, 128, 256, 256])
  expect(seen.every((frames, at) => at === 0 || frames >= seen[at - 1])).toBe(true)
  expect(limits(budget, 9)[0]).toBe(256)
})

test('a port is left out of as many turns as its burst was too dear', () => {
  const budget = new TurnBudget()
  turnOf(budget, 1)
  budget.spent(0, 250_000)
  expect(budget.beginPort(0, true, 0)).toBe(true)
  budget.spent(0, 950_000)
  const turns: boolean[][] = []
  for (let turn = 0; turn < 4; turn++) {
    budget.beginTurn(1000)
    turns.push([0, 1].map((port) => budget.beginPort(port, true, port)))
  }
  // It counts as busy meanwhile, or the others would be given its share.
  expect(turns.map(([first]) => first)).toEqual([false, false, false, true])
  expect(turns.map(([, second]) => second)).toEqual([true, true, true, true])
  budget.spent(0, 1e9)
  budget.forget(0)
  expect(budget.beginPort(0, true, 0)).toBe(true)
})

test('ports that are busy wait when a turn is used up, and begin the next one; others never wait', () => {
  const budget = new TurnBudget()
  const costs = [60_000, 0, 60_000, 60_000, 100, 60_000, 60_000, 60_000, 60_000]
  const turn = (): number[] => {
    const asked: number[] = []
    let place = budget.beginTurn(costs.length)
    for (let count = 0; count < costs.length; count++, place = (place + 1) % costs.length) {
      if (!budget.beginPort(place, true, place)) continue
      asked.push(place)
      if (costs[place] > 0) budget.begin(clockAt(0), true)
      budget.spent(place, costs[place])
      budget.endPort(place)
    }
    return asked
  }
  expect(turn()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8])
  expect(turn()).toEqual([0, 1, 2, 3, 4, 5, 6])
  expect(turn()).toEqual([7, 8, 0, 1, 2, 3, 4])
  expect(turn()).toEqual([5, 6, 7, 8, 0, 1, 4])
  costs.fill(0)
  turn()
  expect(turn()).toHaveLength(costs.length)
})

test('descriptors count, also of chains that become no frame', () => {
  const budget = new TurnBudget()
  const descriptors = [20_000, 20_000]
  const turn = (): number => {
    let place = budget.beginTurn(2)
    let asked = 0
    for (let count = 0; count < 2; count++, place = 1 - place) {
      if (!budget.beginPort(place, true, place)) continue
      asked++
      budget.read(descriptors[place])
      budget.endPort(place)
    }
    return asked
  }
  expect([turn(), turn(), turn()]).toEqual([2, 1, 1])
  descriptors[0] = 0
  expect([turn(), turn(), turn()]).toEqual([2, 2, 2])
})

/** Its queues always have something, of which no chain is a frame, and each costs `costUs`. */
class DearPort implements PolledPort {
  readonly isGuest = true
  readonly txOffloads = 0
  readonly rxQueue = 0
  readonly index: number
  readonly rxQueues: number
  readonly #sim: Sim
  readonly #costUs: number
  readonly #hasFrames: boolean
  /** By turn, the queues that were asked. */
  readonly asked: number[][] = [[]]
  #next = 0

  constructor(sim: Sim, index: number, rxQueues: number, costUs: number, hasFrames = false) {
    this.#sim = sim
    this.index = index
    this.rxQueues = rxQueues
    this.#costUs = costUs
    this.#hasFrames = hasFrames
  }

  receive(burst: Burst): number {
    this.asked.at(-1)!.push(this.#next)
    this.#next = (this.#next + 1) % this.rxQueues
    this.#sim.clock.nowS += this.#costUs / 1e6
    burst.descriptors = 1024
    burst.count = this.#hasFrames ? 1 : 0
    burst.furtherTotal = 0
    burst.clearOffloads()
    burst.heads.fill(-1, 0, 4)
    burst.length[0] = 60
    return burst.count
  }
  release(): void {}
  transmit(): void {}
  endTurn(): void {
    // Nothing waits.
  }
  waitUs(): number {
    return 0
  }
  close(): void {}
}

test.each([false, true])('queues that cost much wait for the next turn: frames %s', (hasFrames) => {
  using sim = new Sim(2)
  const ports = [64, 8, 1].map((queues, k) => new DearPort(sim, 10 + k, queues, 60, hasFrames))
  for (const port of ports) sim.engine.addPort(port, 0)
  for (let turn = 0; turn < 200; turn++) {
    sim.engine.turn(false, 0)
    for (const port of ports) port.asked.push([])
  }
  for (const port of ports) {
    const [, ...turns] = port.asked.slice(0, -1)
    // Two bursts are 120 of 400 / 3 microseconds, the third exceeds them; the first is not counted.
    for (const one of turns) {
      expect(one.length).toBeGreaterThan(0)
      expect(one.length).toBeLessThanOrEqual(Math.min(port.rxQueues, 4))
    }
    // In turn, so none is forgotten.
    const all = turns.flat()
    const first = all[0]
    expect(all).toEqual(all.map((_, at) => (first + at) % port.rxQueues))
    expect(new Set(all).size).toBe(port.rxQueues)
  }
})

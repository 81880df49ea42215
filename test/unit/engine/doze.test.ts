/** The engine dozes before it sleeps, for a while after frames. */
import { describe, expect, test } from 'vitest'
import { Doze, DOZE_US, DOZES } from '../../../src/engine/doze.ts'
import type { IoTier } from '../../../src/io/tier.ts'
import { frame, Sim } from '../../support/sim.ts'

/** What was done, in order: microseconds of a sleep, or 'stir'. */
class Night {
  readonly did: (number | 'stir')[] = []
  /** So many sleeps until something comes. */
  quiet = Infinity
  readonly doze: Doze

  constructor() {
    const endTurn = (waitUs: number): boolean => {
      this.did.push(waitUs)
      return this.quiet-- <= 0
    }
    this.doze = new Doze({ endTurn } as Partial<IoTier> as IoTier, {
      warmth: { stir: () => this.did.push('stir') },
    })
  }
}

const dozes = (count: number): (number | 'stir')[] =>
  Array.from({ length: 2 * count }, (_, at) => (at % 2 === 0 ? DOZE_US : 'stir'))

test('after frames it dozes first, and then sleeps', () => {
  const { doze, did } = new Night()
  doze.expectMore()
  doze.endTurn(-1)
  expect(did).toEqual([...dozes(DOZES), -1])
  did.length = 0
  doze.endTurn(-1)
  expect(did).toEqual([-1])
})

test('what comes in a doze is not kept waiting, and the rest is dozed afterwards', () => {
  const night = new Night()
  const { doze, did } = night
  doze.expectMore()
  night.quiet = 3
  doze.endTurn(-1)
  expect(did).toEqual([...dozes(3), DOZE_US])
  did.length = 0
  night.quiet = Infinity
  doze.endTurn(-1)
  expect(did).toEqual([...dozes(DOZES - 4), -1])
})

test('a sleep that has an end is no longer for that', () => {
  const { doze, did } = new Night()
  doze.expectMore()
  for (const waitUs of [50 * DOZE_US, DOZE_US, 0]) doze.endTurn(waitUs)
  expect(did).toEqual([50 * DOZE_US, DOZE_US, 0])
})

test('neither when it is off, nor when no frames are to come', () => {
  const { doze, did } = new Night()
  doze.expectMore()
  doze.isOn = false
  doze.endTurn(-1)
  doze.isOn = true
  doze.expectNone()
  doze.endTurn(-1)
  expect(did).toEqual([-1, -1])
})

test('nor when there is nothing to keep warm', () => {
  const slept: number[] = []
  const endTurn = (waitUs: number): boolean => slept.push(waitUs) === 0
  const doze = new Doze({ endTurn } as Partial<IoTier> as IoTier, {})
  doze.expectMore()
  doze.endTurn(-1)
  expect(slept).toEqual([-1])
})

test('who never sleeps stirs now and then', () => {
  const { doze, did } = new Night()
  for (let turns = 1; turns < 10_000; turns++) doze.spun(turns)
  expect(did).toEqual(['stir', 'stir'])
})

describe('an engine', () => {
  const FRAME = frame(2, 1)

  test.each([
    ['warm', DOZES],
    ['adaptive', 0],
    ['interrupt', 0],
  ] as const)('of pace %s stirs %i times after frames, and not again without', (pace, times) => {
    let stirs = 0
    using sim = new Sim(2, { pace, warmth: { stir: () => stirs++ } })
    sim.engine.turn(true, 0)
    expect(stirs).toBe(0)
    sim.send(0, FRAME)
    sim.engine.turn(true, 0)
    expect(stirs).toBe(times)
    sim.engine.turn(true, 0)
    expect(stirs).toBe(times)
  })

  test('that is paused does not', () => {
    let stirs = 0
    using sim = new Sim(2, { pace: 'warm', warmth: { stir: () => stirs++ } })
    sim.send(0, FRAME)
    sim.engine.pause()
    sim.engine.turn(true, 0)
    expect(stirs).toBe(0)
  })
})

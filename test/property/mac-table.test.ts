/** The learning table against a Map, on a clock that the test turns. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { MacTable } from '../../src/engine/mac-table.ts'
import { PortShares } from '../../src/engine/port-shares.ts'

const SIZE = 16
const UNKNOWN = -1

interface Entry {
  readonly port: number
  readonly seenS: number
}

/**
 * What the table is supposed to be: no cells, no probes, as many entries as it was made for. When it is
 * full, an entry of a port that has most of them goes, which one is for the table to say (`gone`).
 */
class Model {
  readonly entries = new Map<string, Entry>()
  moves = 0
  full = 0

  /** Names of the entries that may give way to one of `port`. */
  victims(port: number): string[] {
    const all = [...this.entries]
    const countOf = (one: number): number => all.filter(([, entry]) => entry.port === one).length
    const most = Math.max(...all.map(([, entry]) => countOf(entry.port)))
    const isAllowed = (one: number): boolean =>
      countOf(port) === most ? one === port : countOf(one) === most
    return all.filter(([, entry]) => isAllowed(entry.port)).map(([name]) => name)
  }

  learn(address: string, port: number, seenS: number, gone: () => string[]): void {
    const known = this.entries.get(address)
    if (known === undefined && this.entries.size === SIZE) {
      this.full++
      const [victim, ...more] = gone()
      expect(more).toEqual([])
      expect(this.victims(port)).toContain(victim)
      this.entries.delete(victim)
    }
    if (known !== undefined && known.port !== port) this.moves++
    this.entries.set(address, { port, seenS })
  }

  keep(condition: (entry: Entry) => boolean): void {
    for (const [address, entry] of this.entries) {
      if (!condition(entry)) this.entries.delete(address)
    }
  }
}

const int32 = fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff })
/** Few addresses, so that they meet again; among them words of every shape. */
const address: fc.Arbitrary<readonly [number, number]> = fc.oneof(
  fc.tuple(fc.constant(2), fc.nat(20)),
  fc.tuple(fc.integer({ min: -20, max: 20 }), fc.constantFrom(0, 1, 0x7fff, 0x8000, 0xffff)),
  // All of one cell of the table's hash.
  fc.nat(20).map((k): [number, number] => [Math.imul(k, 0x9e37_79b1), k]),
)
const port = fc.nat(4)
const step = fc.oneof(
  { weight: 10, arbitrary: fc.record({ kind: fc.constant('learn' as const), address, port }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('wait' as const), seconds: fc.nat(9) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('age' as const), ageS: fc.nat(20) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('forget' as const), port }) },
)

const nameOf = ([hi, lo]: readonly [number, number]): string => `${hi},${lo}`

function contents(table: MacTable): Map<string, Entry> {
  const found = new Map<string, Entry>()
  table.forEach((hi, lo, port, seenS) => {
    const name = nameOf([hi, lo])
    expect(found.has(name), `${name} is in the table twice`).toBe(false)
    found.set(name, { port, seenS })
  })
  return found
}

test('after any history the table holds what a Map would', () => {
  fc.assert(
    fc.property(int32, fc.array(step, { maxLength: 120 }), (seed, steps) => {
      const table = new MacTable(SIZE, seed)
      const model = new Model()
      const seen = new Map<string, readonly [number, number]>()
      let nowS = 1000
      for (const one of steps) {
        if (one.kind === 'wait') nowS += one.seconds
        else if (one.kind === 'learn') {
          seen.set(nameOf(one.address), one.address)
          table.learn(...one.address, one.port, nowS)
          model.learn(nameOf(one.address), one.port, nowS, () => {
            const left = contents(table)
            return [...model.entries.keys()].filter((name) => !left.has(name))
          })
        } else if (one.kind === 'age') {
          const beforeS = nowS - one.ageS
          expect(table.sweep(beforeS)).toBe(true)
          model.keep(({ seenS }) => seenS >= beforeS)
        } else {
          table.forgetPort(one.port)
          model.keep((entry) => entry.port !== one.port)
        }
        expect(table.entries).toBe(model.entries.size)
      }
      expect(contents(table)).toEqual(model.entries)
      for (const [name, address] of seen) {
        expect(table.lookup(...address)).toBe(model.entries.get(name)?.port ?? UNKNOWN)
      }
      expect([table.moves, table.full]).toEqual([model.moves, model.full])
    }),
    { numRuns: 500 },
  )
})

test('the order in which addresses were learnt makes no difference', () => {
  const addresses = fc.uniqueArray(address, { maxLength: SIZE, selector: nameOf })
  const orders = addresses.chain((list) =>
    fc.tuple(
      fc.constant(list),
      fc.shuffledSubarray(list, { minLength: list.length, maxLength: list.length }),
      fc.subarray(list),
    ),
  )
  fc.assert(
    fc.property(int32, orders, (seed, [first, second, gone]) => {
      const tables = [first, second].map((list) => {
        const table = new MacTable(SIZE, seed)
        // Those that go belong to port 1; taking them out moves others between cells.
        for (const one of list) table.learn(...one, gone.includes(one) ? 1 : 0, 7)
        table.forgetPort(1)
        return table
      })
      expect(contents(tables[0])).toEqual(contents(tables[1]))
      expect(tables[0].entries).toBe(first.length - gone.length)
      for (const one of first) {
        expect(tables[1].lookup(...one)).toBe(tables[0].lookup(...one))
      }
    }),
  )
})

test('no set of addresses of one port makes a table lose one of others, nor refuse one', () => {
  const many = fc.array(fc.tuple(int32, fc.nat(0xffff)), { maxLength: 600 })
  const few = fc.uniqueArray(fc.tuple(int32, fc.nat(0xffff)), { maxLength: 60, selector: nameOf })
  fc.assert(
    fc.property(int32, few, many, (seed, theirs, flood) => {
      const table = new MacTable(256, seed)
      const own = new Set(theirs.map(nameOf))
      for (const [k, one] of theirs.entries()) table.learn(...one, k % 4, 0)
      for (const one of flood) {
        if (own.has(nameOf(one))) continue
        table.learn(...one, 5, 0)
        expect(table.lookup(...one)).toBe(5)
      }
      for (const [k, one] of theirs.entries()) expect(table.lookup(...one)).toBe(k % 4)
      expect(table.entries).toBe(contents(table).size)
      expect(table.entries).toBeLessThanOrEqual(256)
    }),
  )
})

test('the busiest port is what counting says, whatever comes and goes', () => {
  const steps = fc.array(fc.tuple(fc.boolean(), fc.nat(5)), { maxLength: 200 })
  fc.assert(
    fc.property(steps, (all) => {
      const shares = new PortShares(200)
      const counts = Array.from({ length: 6 }, () => 0)
      for (const [isMore, port] of all) {
        if (isMore) shares.add(port)
        else if (counts[port] === 0) continue
        else shares.remove(port)
        counts[port] += isMore ? 1 : -1
        const most = Math.max(...counts)
        expect(shares.most).toBe(most)
        if (most > 0) expect(counts[shares.busiest]).toBe(most)
        expect(counts.map((_, one) => shares.count(one))).toEqual(counts)
      }
    }),
  )
})

/** What is told of loops: each once, with the ports that are on it. */
import { EventEmitter } from 'node:events'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { LoopInfo, SwitchEvents } from '../../../src/switch/api.ts'
import { Loops, QUIET_MS } from '../../../src/switch/loops.ts'
import { PortEntry } from '../../../src/switch/port-entry.ts'
import { PortTable } from '../../../src/switch/port-table.ts'
import { MemoryControlPort } from '../../../src/port/memory/control.ts'

const SECOND_MS = 1000

let ports: PortTable
let loops: Loops
let nowMs: number
let told: LoopInfo[]
let log: string[]

beforeEach(() => {
  nowMs = 5_000_000
  told = []
  log = []
  ports = new PortTable()
  const events = new EventEmitter<SwitchEvents>()
  events.on('loop-detected', (loop) => told.push(loop))
  loops = new Loops(
    ports,
    events,
    (line) => log.push(line),
    () => nowMs,
  )
  for (const id of ['a', 'b', 'c', 'd', 'e']) addPort(id)
})

afterEach(async () => {
  for (const { open } of ports.all) await open.close()
})

function addPort(id: string): void {
  const options = { type: 'memory', id } as const
  const open = new MemoryControlPort(options, () => undefined)
  ports.add(new PortEntry(ports.freeIndex(id), options, open, undefined))
}

/** A second in which an address with that last byte moved between these, `a` being port 0. */
function second(...pairs: readonly (readonly [string, string, moves?: number])[]): void {
  nowMs += SECOND_MS
  loops.seen(
    pairs.map(([one, other, moves = 100], k) => ({
      hi: 0x0000_0002,
      lo: k << 8,
      ports: [ports.entry(one).index, ports.entry(other).index],
      moves,
    })),
  )
}

const toldPorts = (): string[] => told.splice(0).map((loop) => loop.ports.join(' '))

test('a loop is told once, however long it goes on', () => {
  for (let k = 0; k < 1000; k++) second(['a', 'b', 700 + k])
  expect(told).toEqual([{ mac: '02:00:00:00:00:00', ports: ['a', 'b'], moves: 700 }])
  expect(log).toHaveLength(1)
  expect(log[0]).toMatch(
    /^switch: 02:00:00:00:00:00 keeps moving between ports "a" and "b" \(700 times in a second\): .*loop.*remove one of these ports, or set its link down$/,
  )
})

test('it is told again when it has been quiet for a minute, and not before', () => {
  second(['a', 'b'])
  nowMs += QUIET_MS - SECOND_MS - 1
  second(['a', 'b'])
  expect(toldPorts()).toEqual(['a b'])
  nowMs += QUIET_MS - SECOND_MS
  second(['a', 'b'])
  expect(toldPorts()).toEqual(['a b'])
})

test('two loops are two', () => {
  second(['a', 'b', 500], ['c', 'd', 300])
  expect(told.map(({ ports: ids, moves }) => [ids, moves])).toEqual([
    [['a', 'b'], 500],
    [['c', 'd'], 300],
  ])
  expect(log).toHaveLength(2)
})

test('one of several ports is one, told with all of them', () => {
  second(['a', 'b', 500], ['c', 'd', 300], ['b', 'c', 100])
  expect(told).toEqual([{ mac: '02:00:00:00:00:00', ports: ['a', 'b', 'c', 'd'], moves: 900 }])
  expect(log[0]).toContain('between ports "a", "b", "c" and "d" (900 times')
  second(['a', 'd'], ['b', 'd'])
  expect(told).toHaveLength(1)
})

test('a port that joins it is told, and so are two loops that turn out to be one', () => {
  second(['a', 'b'], ['d', 'e'])
  second(['a', 'b'], ['b', 'c'])
  expect(toldPorts()).toEqual(['a b', 'd e', 'a b c'])
  second(['c', 'd'])
  expect(toldPorts()).toEqual(['a b c d e'])
})

test('what is left of it is told when one of its ports is gone, down, or on a link', async () => {
  second(['a', 'b'], ['b', 'c'])
  expect(toldPorts()).toEqual(['a b c'])
  ports.entry('c').link = false
  second(['a', 'b'])
  expect(toldPorts()).toEqual(['a b'])
  ports.entry('b').peer = ports.entry('e')
  ports.entry('c').link = true
  second(['a', 'c'])
  expect(toldPorts()).toEqual(['a c'])
  await ports.entry('c').open.close()
  ports.remove(ports.entry('c'))
  addPort('c')
  second(['a', 'c'])
  expect(toldPorts()).toEqual(['a c'])
})

test('what is said of ports that are gone since, or down, is not told', () => {
  ports.entry('b').link = false
  second(['a', 'b'])
  loops.seen([{ hi: 2, lo: 0, ports: [0, 99], moves: 100 }])
  expect(told).toEqual([])
  ports.entry('b').link = true
  second(['a', 'b'])
  expect(toldPorts()).toEqual(['a b'])
})

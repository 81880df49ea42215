/**
 * Byte strings as a history of the learning table: addresses of few bytes, so that they meet again and
 * share cells, ports, seconds. What it knows is what a Map knows.
 */
import { MacTable } from '../../src/engine/mac-table.ts'
import type { Features } from './features.ts'
import { check, checkEqual, Operands } from './features.ts'

const SIZE = 16
const UNKNOWN = -1

interface Entry {
  readonly hi: number
  readonly lo: number
  port: number
  seenS: number
}

export function fuzzMacTable(input: Uint8Array, seen: Features): void {
  const operands = new Operands(input)
  const table = new MacTable(SIZE, operands.byte() * 0x0101_0101)
  const model = new Map<number, Entry>()
  let nowS = 0
  let moves = 0
  let full = 0
  while (!operands.isAtEnd) {
    const operation = operands.byte()
    const byte = operands.byte()
    // Words of every sign, whose differences are small.
    const name = byte & 63
    const hi = Math.imul(name & 7, 0x1fff_fffe)
    const lo = (name >> 3) * 0x2000
    switch (operation & 7) {
      case 0:
      case 1:
      case 2:
      case 3: {
        const port = operation >> 6
        table.learn(hi, lo, port, nowS)
        const entry = model.get(name)
        if (entry !== undefined) {
          if (entry.port !== port) moves++
          entry.port = port
          entry.seenS = nowS
          break
        }
        if (model.size === SIZE) {
          full++
          // One that is learnt all the same takes the place of another.
          if (table.lookup(hi, lo) === UNKNOWN) break
          model.delete(victimOf(table, model, port))
        }
        model.set(name, { hi, lo, port, seenS: nowS })
        break
      }
      case 4:
        checkEqual(table.lookup(hi, lo), model.get(name)?.port ?? UNKNOWN, 'port of an address')
        break
      case 5:
        nowS += byte & 7
        break
      case 6: {
        const beforeS = nowS - (byte & 7)
        checkEqual(table.sweep(beforeS), true, 'a small table is swept at once')
        for (const [key, entry] of model) if (entry.seenS < beforeS) model.delete(key)
        break
      }
      default:
        table.forgetPort(byte & 3)
        for (const [key, entry] of model) if (entry.port === (byte & 3)) model.delete(key)
    }
    seen.add(operation & 7, model.size, moves & 3, full & 3)
  }
  checkEqual(table.entries, model.size, 'entries')
  checkEqual(table.moves, moves, 'moves')
  checkEqual(table.full, full, 'addresses without a place')
  let found = 0
  table.forEach((hi, lo, port, seenS) => {
    found++
    for (const entry of model.values()) {
      if (entry.hi !== hi || entry.lo !== lo) continue
      check(entry.port === port && entry.seenS === seenS, 'an entry is what was learnt')
      return
    }
    throw new Error(`violated: ${hi},${lo} was learnt`)
  })
  checkEqual(found, model.size, 'entries that are visited')
  for (const { hi, lo, port } of model.values()) {
    checkEqual(table.lookup(hi, lo), port, 'port of a known address')
  }
}

/** The entry that gave way to one of `port`: of a port that had most, its own if that did. */
function victimOf(table: MacTable, model: ReadonlyMap<number, Entry>, port: number): number {
  const gone: number[] = []
  const counts = [0, 0, 0, 0]
  for (const [name, entry] of model) {
    counts[entry.port]++
    if (table.lookup(entry.hi, entry.lo) === UNKNOWN) gone.push(name)
  }
  checkEqual(gone.length, 1, 'entries that give way')
  const most = Math.max(...counts)
  const { port: loser } = model.get(gone[0])!
  check(counts[loser] === most, 'an entry of the busiest port gives way')
  check(counts[port] < most || loser === port, 'a busiest port pushes out its own')
  return gone[0]
}

/** What a reload changes: nothing but the difference. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Topology } from '../../../src/config/diff.ts'
import { planChanges } from '../../../src/config/diff.ts'
import type { PortOptions } from '../../../src/port/options.ts'

const port = (id: string, queues = 1): PortOptions => ({ type: 'tap', id, queues })
const [a, b, c] = [port('a'), port('b'), port('c')]

describe('a reload', () => {
  test('of the same does nothing, whatever the order and the ends of links', () => {
    const running: Topology = { ports: [a, b, c], links: [['a', 'b']] }
    expect(planChanges(running, { ports: [c, a, b], links: [['b', 'a']] })).toEqual([])
  })

  test('adds and removes ports', () => {
    expect(planChanges({ ports: [a, b], links: [] }, { ports: [b, c], links: [] })).toEqual([
      { action: 'remove', id: 'a' },
      { action: 'add', options: c },
    ])
  })

  test('makes a port anew whose options differ, with its links', () => {
    const running: Topology = { ports: [a, b], links: [['a', 'b']] }
    expect(planChanges(running, { ports: [port('a', 2), b], links: [['a', 'b']] })).toEqual([
      { action: 'unlink', a: 'a', b: 'b' },
      { action: 'remove', id: 'a' },
      { action: 'add', options: port('a', 2) },
      { action: 'link', a: 'a', b: 'b' },
    ])
  })

  test('rewires without touching the ports', () => {
    const running: Topology = { ports: [a, b, c], links: [['a', 'b']] }
    expect(planChanges(running, { ports: [a, b, c], links: [['a', 'c']] })).toEqual([
      { action: 'unlink', a: 'a', b: 'b' },
      { action: 'link', a: 'a', b: 'c' },
    ])
  })

  test('leads from anything to anything, and every step is possible when it comes', () => {
    const ids = ['a', 'b', 'c', 'd', 'e']
    const topology = fc
      .tuple(
        fc.subarray(ids),
        fc.array(fc.integer({ min: 1, max: 2 }), { minLength: 5, maxLength: 5 }),
        fc.shuffledSubarray(ids),
      )
      .map(([chosen, queues, order]): Topology => {
        const wired = order.filter((id) => chosen.includes(id))
        const links: [string, string][] = []
        for (let k = 0; k + 1 < wired.length; k += 2) links.push([wired[k], wired[k + 1]])
        return { ports: chosen.map((id, k) => port(id, queues[k])), links }
      })
    fc.assert(
      fc.property(topology, topology, (running, desired) => {
        const ports = new Map(running.ports.map((options) => [options.id, options]))
        const peers = new Map(running.links.flatMap(([x, y]) => [[x, y] as const, [y, x] as const]))
        for (const step of planChanges(running, desired)) {
          if (step.action === 'unlink') {
            expect(peers.get(step.a)).toBe(step.b)
            peers.delete(step.a)
            peers.delete(step.b)
          } else if (step.action === 'remove') {
            expect(peers.has(step.id)).toBe(false)
            expect(ports.delete(step.id)).toBe(true)
          } else if (step.action === 'add') {
            expect(ports.has(step.options.id)).toBe(false)
            ports.set(step.options.id, step.options)
          } else {
            expect(ports.has(step.a) && ports.has(step.b)).toBe(true)
            expect(peers.has(step.a) || peers.has(step.b)).toBe(false)
            peers.set(step.a, step.b)
            peers.set(step.b, step.a)
          }
        }
        expect([...ports.values()].toSorted(byId)).toEqual([...desired.ports].toSorted(byId))
        for (const [x, y] of desired.links) expect(peers.get(x)).toBe(y)
        expect(peers.size).toBe(2 * desired.links.length)
      }),
    )
  })
})

function byId(one: PortOptions, other: PortOptions): number {
  return one.id < other.id ? -1 : 1
}

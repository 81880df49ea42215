/** What a reload changes: nothing but the difference. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Topology } from '../../../src/config/diff.ts'
import { planChanges } from '../../../src/config/diff.ts'
import type { PortOptions, TapOptions } from '../../../src/port/options.ts'

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

  test('changes in place what can be, and touches neither the port nor its link otherwise', () => {
    const tap = (more: Partial<TapOptions>): PortOptions => ({
      type: 'tap',
      id: 'a',
      queues: 1,
      ...more,
    })
    const desired = tap({ mtu: 1400, gro: false, up: true })
    const plan = (from: PortOptions, to: PortOptions, isBroken = false): unknown =>
      planChanges(
        { ports: [from, b], links: [['a', 'b']] },
        { ports: [b, to], links: [['a', 'b']] },
        () => isBroken,
      )
    expect(plan(a, desired)).toEqual([
      { action: 'change', options: desired, keys: ['mtu', 'gro', 'up'] },
    ])
    expect(plan(desired, a)).toEqual([{ action: 'change', options: a, keys: ['mtu', 'gro', 'up'] }])
    const anew = (to: PortOptions): unknown => [
      { action: 'unlink', a: 'a', b: 'b' },
      { action: 'remove', id: 'a' },
      { action: 'add', options: to },
      { action: 'link', a: 'a', b: 'b' },
    ]
    // With something else, or of a port that has failed.
    const more = tap({ mtu: 1400, queues: 2 })
    expect(plan(a, more)).toEqual(anew(more))
    expect(plan(a, desired, true)).toEqual(anew(desired))
    expect(plan(a, a, true)).toEqual([])
  })

  test('makes a virtio-net port anew for an mtu, which its device must not change', () => {
    const device = (more: object): PortOptions => ({ type: 'virtio-net', id: 'v', ...more })
    const actions = (from: object, to: object): string[] =>
      planChanges({ ports: [device(from)], links: [] }, { ports: [device(to)], links: [] }).map(
        ({ action }) => action,
      )
    expect(actions({ mtu: 1400 }, { mtu: 1500 })).toEqual(['remove', 'add'])
    expect(actions({ gro: true }, { gro: false })).toEqual(['change'])
  })

  test('leads from anything to anything, and every step is possible when it comes', () => {
    const ids = ['a', 'b', 'c', 'd', 'e']
    const topology = fc
      .tuple(
        fc.subarray(ids),
        fc.array(fc.integer({ min: 1, max: 2 }), { minLength: 5, maxLength: 5 }),
        fc.array(fc.integer({ min: 68, max: 69 }), { minLength: 5, maxLength: 5 }),
        fc.shuffledSubarray(ids),
      )
      .map(([chosen, queues, mtu, order]): Topology => {
        const wired = order.filter((id) => chosen.includes(id))
        const links: [string, string][] = []
        for (let k = 0; k + 1 < wired.length; k += 2) links.push([wired[k], wired[k + 1]])
        return { ports: chosen.map((id, k) => ({ ...port(id, queues[k]), mtu: mtu[k] })), links }
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
          } else if (step.action === 'change') {
            expect(ports.get(step.options.id)).toEqual({ ...step.options, mtu: expect.any(Number) })
            ports.set(step.options.id, step.options)
          } else if (step.action === 'add') {
            expect(ports.has(step.options.id)).toBe(false)
            ports.set(step.options.id, step.options)
          } else if (step.action === 'link') {
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

describe('P3: addresses of locked ports in a reload', () => {
  const locked = (
    id: string,
    macs: readonly string[],
    more: Partial<TapOptions> = {},
  ): PortOptions => ({
    type: 'tap',
    id,
    queues: 1,
    locked: true,
    macs,
    ...more,
  })
  const [one, two, three] = ['02:00:00:00:00:01', '02:00:00:00:00:02', '02:00:00:00:00:03']
  const plan = (from: readonly PortOptions[], to: readonly PortOptions[]): unknown =>
    planChanges({ ports: from, links: [] }, { ports: to, links: [] }).map((action) =>
      action.action === 'change' ? action.options : action.action,
    )

  test('one that goes to another port leaves its own before', () => {
    const [a1, b12] = [locked('a', [one]), locked('b', [two, three])]
    const [a2, b3] = [locked('a', [one, two.replaceAll(':', '-')]), locked('b', [three])]
    expect(plan([a1, b12], [a2, b3])).toEqual([b3, a2, b3])
  })

  test('two that change places: one takes nothing meanwhile, whatever else it checks', () => {
    const guarded = { guard: ['mac', 'arp'], ips: ['10.0.0.1'], tag: 5 } as const
    const [a1, b2] = [locked('a', [one], guarded), locked('b', [two], { tag: 5 })]
    const [a2, b1] = [locked('a', [two], guarded), locked('b', [one], { tag: 5 })]
    const none: PortOptions = { type: 'tap', id: 'b', queues: 1, locked: true, tag: 5 }
    // An entry of fdb that stays does not get past the guard.
    const nobody = locked('a', ['02:ff:ff:ff:00:00'], guarded)
    expect(plan([a1, b2], [a2, b1])).toEqual([nobody, none, a2, b1])
  })

  test('in another VLAN it is another entry', () => {
    const a1 = locked('a', [one], { tag: 5 })
    const b1 = locked('b', [one], { tag: 6 })
    expect(plan([a1], [a1, b1])).toEqual(['add'])
  })

  test('an entry of fdb comes when the port has it no more', () => {
    const a1 = locked('a', [one])
    const a2 = locked('a', [two])
    const fdb = [{ mac: one, port: 'b' }]
    const actions = planChanges({ ports: [a1, b], links: [] }, { ports: [a2, b], links: [], fdb })
    expect(actions.map(({ action }) => action)).toEqual(['change', 'fdb-add'])
  })
})

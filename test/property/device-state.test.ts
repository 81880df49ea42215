/** Devices after any commands: what is saved loads, and what is damaged is refused as a whole. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ConfigError } from '../../src/errors.ts'
import type { ControlDevice } from '../support/control-device.ts'
import { controlDevice, newState, OFFERED } from '../support/control-device.ts'
import { bytesOf } from '../support/flow-frames.ts'

const u16 = fc.oneof(fc.nat({ max: 5 }), fc.nat({ max: 0xffff }))
const le16 = (value: number): number[] => [value & 0xff, value >>> 8]
const le32 = (value: number): number[] => [...le16(value & 0xffff), ...le16(value >>> 16)]
const octets = (min: number, max: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: min, maxLength: max })

const macTable = fc
  .tuple(fc.nat({ max: 70 }), fc.nat({ max: 70 }), fc.nat({ max: 255 }))
  .map(([unicast, multicast, fill]) =>
    bytesOf(
      [1, 0],
      le32(unicast),
      new Uint8Array(6 * unicast).fill(fill),
      le32(multicast),
      new Uint8Array(6 * multicast).fill(fill),
    ),
  )
const rssConfig = fc
  .record({
    hashTypes: fc.nat({ max: 0x1ff }),
    bits: fc.nat({ max: 8 }),
    queue: fc.nat({ max: 4 }),
    pairs: fc.nat({ max: 5 }),
    key: octets(0, 41),
  })
  .map(({ hashTypes, bits, queue, pairs, key }) => {
    const table = Array.from({ length: 1 << bits }, () => le16(queue)).flat()
    const head = [4, 1, ...le32(hashTypes), ...le16((1 << bits) - 1), ...le16(queue)]
    return bytesOf(head, table, le16(pairs), key.length, key)
  })
const hashConfig = fc
  .tuple(fc.nat({ max: 0x1ff }), octets(0, 41))
  .map(([types, key]) => bytesOf([4, 2], le32(types), new Uint8Array(8), key.length, key))
const command = fc.oneof(
  octets(0, 80),
  fc.tuple(fc.constant(0), fc.nat({ max: 6 }), fc.nat({ max: 2 })).map((bytes) => bytesOf(bytes)),
  macTable,
  octets(5, 7).map((mac) => bytesOf(1, 1, mac)),
  fc.tuple(fc.nat({ max: 2 }), u16).map(([number, id]) => bytesOf(2, number, le16(id))),
  fc.constant(bytesOf(3, 0)),
  u16.map((pairs) => bytesOf(4, 0, le16(pairs))),
  rssConfig,
  hashConfig,
  octets(7, 8).map((data) => bytesOf(5, 0, data)),
  fc.nat({ max: 0x82 }).map((offloads) => bytesOf(5, 0, le32(offloads), le32(0))),
)

const features = fc.oneof(
  fc.constant(OFFERED),
  fc.bigInt({ min: 0n, max: (1n << 70n) - 1n }).map((mask) => mask & OFFERED),
)
/** A device that was negotiated and then given commands. */
const device: fc.Arbitrary<ControlDevice> = fc
  .record({
    features,
    commands: fc.array(command, { maxLength: 12 }),
    rounds: fc.nat({ max: 2000 }),
    status: fc.nat({ max: 255 }),
  })
  .map(({ features, commands, rounds, status }) => {
    const made = controlDevice(features)
    made.state.deviceStatus = status
    made.state.requestAnnounce(rounds)
    for (const one of commands) made.queue.execute(one, 1)
    return made
  })

test('a command is done, or refused without a trace', () => {
  fc.assert(
    fc.property(device, command, fc.nat({ max: 1 }), (made, bytes, room) => {
      const before = made.state.saveState()
      const told = made.events.length
      const given = bytes.slice()
      const result = made.queue.execute(bytes, room)
      expect(bytes).toEqual(given)
      expect([-1, 0, 1]).toContain(result)
      expect(result === -1).toBe(bytes.length < 2 || room === 0)
      if (result === 0) return
      expect(made.state.saveState()).toEqual(before)
      expect(made.events).toHaveLength(told)
    }),
    { numRuns: 3000 },
  )
})

test('whatever the commands were, the saved device loads and saves the same', () => {
  fc.assert(
    fc.property(device, device, (made, other) => {
      const saved = made.state.saveState()
      const text = JSON.stringify(saved)
      other.state.loadState(JSON.parse(text))
      expect(JSON.stringify(other.state.saveState())).toBe(text)
      expect(other.state.features).toBe(made.state.features)
      expect(other.state.offloads).toBe(made.state.offloads)
    }),
    { numRuns: 1000 },
  )
})

/** Loads into a used device: done, or the one declared error and no change. */
function loadHostile(target: ControlDevice, hostile: unknown): void {
  const before = JSON.stringify(target.state.saveState())
  try {
    target.state.loadState(hostile)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    expect(error.code).toBe('DEVICE_STATE')
    expect(error.message.length).toBeLessThan(1000)
    expect(JSON.stringify(target.state.saveState())).toBe(before)
    return
  }
  const taken = JSON.stringify(target.state.saveState())
  const again = newState()
  again.loadState(JSON.parse(taken))
  expect(JSON.stringify(again.saveState())).toBe(taken)
}

/** All values inside, as paths. */
function paths(value: unknown, path: string[] = []): string[][] {
  if (typeof value !== 'object' || value === null) return [path]
  return [path, ...Object.entries(value).flatMap(([key, inner]) => paths(inner, [...path, key]))]
}

function replaced(value: unknown, path: readonly string[], by: unknown): unknown {
  if (path.length === 0) return by
  const copy = structuredClone(value) as Record<string, unknown>
  const last = path.at(-1)!
  let parent = copy
  for (const key of path.slice(0, -1)) parent = parent[key] as Record<string, unknown>
  if (by === undefined) delete parent[last]
  else parent[last] = by
  return copy
}

test('one value replaced by any other is taken whole or refused whole', () => {
  const value = fc.oneof(
    fc.jsonValue(),
    fc.integer({ min: -1, max: 300 }),
    fc.boolean(),
    fc.stringMatching(/^(0x)?[0-9a-f]{0,40}$/),
    fc.constant(undefined),
    fc.constantFrom(-0, 1e300, NaN, Infinity),
  )
  fc.assert(
    fc.property(device, device, fc.nat(), value, (made, target, pick, by) => {
      const saved = made.state.saveState()
      const all = paths(saved)
      loadHostile(target, replaced(saved, all[pick % all.length], by))
    }),
    { numRuns: 3000 },
  )
})

test('a file with damaged bytes that is still JSON is taken whole or refused whole', () => {
  const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0x20, max: 0x7e })), {
    minLength: 1,
    maxLength: 3,
  })
  let parsed = 0
  fc.assert(
    fc.property(device, device, damage, (made, target, changes) => {
      const bytes = Buffer.from(JSON.stringify(made.state.saveState()))
      for (const [at, value] of changes) bytes[at % bytes.length] = value
      let hostile: unknown
      try {
        hostile = JSON.parse(bytes.toString())
      } catch {
        return
      }
      parsed++
      loadHostile(target, hostile)
    }),
    { numRuns: 3000 },
  )
  expect(parsed).toBeGreaterThan(100)
})

test('anything at all is refused or taken', () => {
  fc.assert(
    fc.property(device, fc.anything(), (target, anything) => {
      loadHostile(target, anything)
    }),
    { numRuns: 2000 },
  )
})

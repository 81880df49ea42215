/** What guests acknowledged, over restarts. */
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { AckedStore, offeredFeatures } from '../../../src/vhost-user/acked-store.ts'
import { prepareStateDirectory } from '../../../src/vhost-user/state-directory.ts'

const FILE = 'vhost-user-a.json'
const STATE = { features: (1n << 68n) | 1n, queuePairs: 4, slots: 509 }
const NOTHING = { features: 0n, queuePairs: 0, slots: 0 }
const isRoot = process.geteuid!() === 0

let directory: string
let log: string[]
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'framepump-acked-'))
  log = []
})
afterEach(() => {
  vi.useRealTimers()
  rmSync(directory, { recursive: true })
})

const store = (id = 'a', where: string | undefined = directory): AckedStore =>
  new AckedStore(where, id, (message) => void log.push(message))

test('what is stored is loaded, port by port; nothing is nothing', () => {
  expect(new AckedStore(undefined, 'a', () => undefined).load()).toEqual(NOTHING)
  expect(store().load()).toEqual(NOTHING)
  store().store({ features: 1n, queuePairs: 1, slots: 8 })
  store().store(STATE)
  expect(store().load()).toEqual(STATE)
  expect(store('b').load()).toEqual(NOTHING)
  expect(readdirSync(directory)).toEqual([FILE])
  expect(log).toEqual([])
})

test.each([
  '',
  '{',
  'null',
  '{"features":"0x1","queuePairs":1}',
  '{"features":1,"queuePairs":1,"slots":1}',
  '{"features":"-0x1","queuePairs":1,"slots":1}',
  '{"features":"0x1","queuePairs":-1,"slots":1}',
  '{"features":"0x1","queuePairs":1.5,"slots":1}',
  'x'.repeat(5000),
])('%j is refused by name', (text) => {
  writeFileSync(join(directory, FILE), text, { mode: 0o600 })
  expect(() => store().load()).toThrow('vhost-user-a.json cannot be used')
})

test('a link in the place of the file is neither read nor written through', () => {
  const elsewhere = join(directory, 'elsewhere')
  const text = '{"features":"0x1","queuePairs":1,"slots":1}'
  writeFileSync(elsewhere, text)
  symlinkSync(elsewhere, join(directory, FILE))
  expect(() => store().load()).toThrow('it is a link')
  symlinkSync(elsewhere, join(directory, `${FILE}.new`))
  store().store(STATE)
  expect(readFileSync(elsewhere, 'utf8')).toBe(text)
  expect(store().load()).toEqual(STATE)
})

test('a file that others can write, and what is no file, is refused', () => {
  store().store(STATE)
  chmodSync(join(directory, FILE), 0o666)
  expect(() => store().load()).toThrow('others can write to it')
  rmSync(join(directory, FILE))
  mkdirSync(join(directory, FILE))
  expect(() => store().load()).toThrow('it is not a file')
})

test.runIf(isRoot)('a file or directory of somebody else is refused', () => {
  store().store(STATE)
  chownSync(join(directory, FILE), 12345, 12345)
  expect(() => store().load()).toThrow('it belongs to user 12345')
  chownSync(directory, 12345, 12345)
  expect(() => prepareStateDirectory(directory)).toThrow(
    expect.objectContaining({ code: 'STATE_DIR', message: expect.stringContaining('user 12345') }),
  )
})

test('a directory that others can write is refused, but for one like /tmp', () => {
  chmodSync(directory, 0o777)
  expect(() => prepareStateDirectory(directory)).toThrow('others can write to it')
  chmodSync(directory, 0o1777)
  expect(() => prepareStateDirectory(directory)).not.toThrow()
  expect(readdirSync(directory)).toEqual([])
})

test('what an ended process left half-written is cleaned up', () => {
  writeFileSync(join(directory, `${FILE}.new`), '{"fea')
  expect(store().load()).toEqual(NOTHING)
  expect(readdirSync(directory)).toEqual([])
})

test('what cannot be stored is told once, tried until it can, and told once', () => {
  vi.useFakeTimers()
  const place = join(directory, 'place')
  const kept = store('a', place)
  kept.store({ features: 1n, queuePairs: 1, slots: 8 })
  kept.store(STATE)
  vi.advanceTimersByTime(600_000)
  expect(log).toEqual([
    expect.stringMatching(/cannot be stored: No such file or directory: tried again until it can/),
  ])
  mkdirSync(place)
  vi.advanceTimersByTime(30_000)
  expect(log.slice(1)).toEqual(['what the guest acknowledged is stored now'])
  expect(store('a', place).load()).toEqual(STATE)
  expect(vi.getTimerCount()).toBe(0)
})

test('the end of a port is the last time that it is tried, and leaves no timer', () => {
  vi.useFakeTimers()
  const place = join(directory, 'place')
  const kept = store('a', place)
  kept.store(STATE)
  mkdirSync(place)
  kept.close()
  expect(vi.getTimerCount()).toBe(0)
  expect(store('a', place).load()).toEqual(STATE)
})

test('what was acknowledged is offered again, or the lack of it is named', () => {
  expect(offeredFeatures(0b111n, 0b001n, 0b010n)).toBe(0b011n)
  expect(() => offeredFeatures(0b001n, 0b001n, 1n << 15n)).toThrow('VIRTIO_NET_F_MRG_RXBUF')
})

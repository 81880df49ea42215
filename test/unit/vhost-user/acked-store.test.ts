/** What guests acknowledged, over restarts. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { loadAcked, offeredFeatures, storeAcked } from '../../../src/vhost-user/acked-store.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'framepump-acked-'))
})
afterEach(() => rmSync(directory, { recursive: true }))

test('what is stored is loaded, port by port; nothing is nothing', () => {
  const nothing = { features: 0n, queuePairs: 0, slots: 0 }
  expect(loadAcked(undefined, 'a')).toEqual(nothing)
  expect(loadAcked(directory, 'a')).toEqual(nothing)
  const deeper = join(directory, 'made')
  const state = { features: (1n << 68n) | 1n, queuePairs: 4, slots: 509 }
  storeAcked(deeper, 'a', { features: 1n, queuePairs: 1, slots: 8 })
  storeAcked(deeper, 'a', state)
  expect(loadAcked(deeper, 'a')).toEqual(state)
  expect(loadAcked(deeper, 'b')).toEqual(nothing)
  expect(readdirSync(deeper)).toEqual(['vhost-user-a.json'])
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
])('%j is refused by name', (text) => {
  writeFileSync(join(directory, 'vhost-user-a.json'), text)
  expect(() => loadAcked(directory, 'a')).toThrow('vhost-user-a.json cannot be used')
})

test('what was acknowledged is offered again, or the lack of it is named', () => {
  expect(offeredFeatures(0b111n, 0b001n, 0b010n)).toBe(0b011n)
  expect(() => offeredFeatures(0b001n, 0b001n, 1n << 15n)).toThrow('VIRTIO_NET_F_MRG_RXBUF')
})

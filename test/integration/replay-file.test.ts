/** A replayed file that changes under its port: what was never in it is not sent. */
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawnSync } from 'node:child_process'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { createSwitch as CreateSwitch, Switch } from '../../src/index.ts'
import { IO } from '../support/lab.ts'
import { sh, until } from '../support/processes.ts'
import { frame } from '../support/sim.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

const FRAMES = 3000
const LENGTH = 1514
const HEADER_LENGTH = 24
const RECORD_LENGTH = 16
const FILLING_AT = frame(255, 1, 0).length
const FILLING = Buffer.alloc(LENGTH - FILLING_AT, 0xa5)

let directory: string
let sw: Switch

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'framepump-replay-'))
  sw = createSwitch({ io: IO as 'auto' })
  await sw.addPort({ type: 'memory', id: 'm' })
})
afterEach(async () => {
  await sw.close()
  rmSync(directory, { recursive: true })
})

/** A frame that is zero nowhere in its number, so that one of zeros is none of them. */
function numbered(number: number): Uint8Array {
  const bytes = new Uint8Array(LENGTH).fill(0xa5)
  bytes.set(frame(255, 1, number))
  return bytes
}

/** A pcap file of frames `intervalUs` apart. */
function writeCapture(path: string, intervalUs: number): void {
  const file = new DataView(new ArrayBuffer(HEADER_LENGTH + FRAMES * (RECORD_LENGTH + LENGTH)))
  const bytes = new Uint8Array(file.buffer)
  const header = [0xa1b2c3d4, 0x0004_0002, 0, 0, 65535, 1]
  for (const [at, word] of header.entries()) file.setUint32(4 * at, word, true)
  for (let number = 0; number < FRAMES; number++) {
    const at = HEADER_LENGTH + number * (RECORD_LENGTH + LENGTH)
    const us = number * intervalUs
    const record = [1 + Math.floor(us / 1e6), us % 1e6, LENGTH, LENGTH]
    for (const [word, value] of record.entries()) file.setUint32(at + 4 * word, value, true)
    bytes.set(numbered(number), at + RECORD_LENGTH)
  }
  writeFileSync(path, bytes)
}

/**
 * Takes what is there; every frame is one of the file, whole. Returns how many. At most `FRAMES` a call:
 * a replay at full pace may send as fast as this takes, and then it would never return.
 */
function takeFrames(): number {
  for (let count = 0; count < FRAMES; count++) {
    const bytes = sw.memoryPort('m').receive()
    if (bytes === null) return count
    if (bytes.length !== LENGTH || FILLING.compare(bytes, FILLING_AT) !== 0) {
      expect.fail(`a frame of ${bytes.length} bytes that is not of the file`)
    }
  }
  return FRAMES
}

const addReplay = (path: string, pace: 'recorded' | 'full'): Promise<unknown> =>
  sw.addPort({ type: 'pcap', id: 'r', replay: path, pace, loop: 0 })

// Within a page, at its border, in a record header, and wholly.
test.each([
  ['recorded', 100],
  ['recorded', 4096],
  ['full', 0],
  ['full', 100],
  ['full', 4096],
  ['full', 5000],
  ['full', 1_000_000],
] as const)('at the pace %s, truncated to %i bytes: the port fails', async (pace, length) => {
  const path = join(directory, 'a.pcap')
  writeCapture(path, 500)
  await addReplay(path, pace)
  await until('frames come', () => takeFrames() > 0)
  truncateSync(path, length)
  await until('the port has failed', () => {
    takeFrames()
    return sw.port('r').state === 'failed'
  })
  expect(sw.port('r').error).toContain('its file was truncated')
  takeFrames()
  const before = sw.port('r').counters.rx_frames
  await sw.addPort({ type: 'memory', id: 'other' })
  expect(sw.port('r').counters.rx_frames).toBe(before)
  await sw.removePort('r')
})

test('one that grows is replayed as it was', async () => {
  const path = join(directory, 'a.pcap')
  writeCapture(path, 100)
  await addReplay(path, 'full')
  writeFileSync(path, new Uint8Array(100_000), { flag: 'a' })
  for (let count = 0; count < 2 * FRAMES;) {
    await until('frames come', () => {
      const taken = takeFrames()
      count += taken
      return taken > 0
    })
  }
  expect(sw.port('r').state).toBe('open')
})

test('one of a file system without a disk is copied before', async (context) => {
  const parts = ['lower', 'upper', 'work', 'mounted'].map((name) => join(directory, name))
  for (const part of parts) mkdirSync(part)
  const [lower, upper, work, mounted] = parts
  const layers = `lowerdir=${lower},upperdir=${upper},workdir=${work}`
  const result = spawnSync('mount', ['-t', 'overlay', 'overlay', '-o', layers, mounted])
  if (result.status !== 0) return context.skip('no overlayfs can be mounted')
  try {
    const path = join(mounted, 'a.pcap')
    writeCapture(path, 100)
    await addReplay(path, 'full')
    truncateSync(path, 0)
    for (let count = 0; count < 2 * FRAMES;) {
      await until('frames come', () => {
        const taken = takeFrames()
        count += taken
        return taken > 0
      })
    }
    expect(sw.port('r').state).toBe('open')
    await sw.removePort('r')
  } finally {
    sh('umount', mounted)
  }
})

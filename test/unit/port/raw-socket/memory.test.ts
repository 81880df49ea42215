/** Rings are not asked for that would leave others without memory. */
import { expect, test } from 'vitest'
import { ringGeometry } from '../../../../src/port/raw-socket/geometry.ts'
import { checkMemory } from '../../../../src/port/raw-socket/memory.ts'

const meminfo = (kib: number) => (): string =>
  `MemTotal:       99999999 kB\nMemFree:               1 kB\nMemAvailable:   ${kib} kB\n`

test('rings that take more than half of what is available are refused', () => {
  const geometry = ringGeometry(16_384)
  expect(() => checkMemory(geometry, 4, meminfo(140_000))).not.toThrow()
  expect(() => checkMemory(geometry, 4, meminfo(120_000))).toThrow(
    'no 4 rings of 16388 KiB: 120000 KiB of memory are available',
  )
  expect(() => checkMemory(geometry, 1, meminfo(1000))).toThrow(
    expect.objectContaining({
      code: 'RAW_SOCKET',
      errno: 12,
      hint: expect.stringContaining('ring-kb='),
    }),
  )
})

test('where nobody tells what is available the kernel decides', () => {
  const geometry = ringGeometry(1_048_576)
  expect(() => checkMemory(geometry, 64, () => '')).not.toThrow()
  const noProc = (): string => {
    throw new Error('ENOENT')
  }
  expect(() => checkMemory(geometry, 64, noProc)).not.toThrow()
  expect(() => checkMemory(ringGeometry(256), 1)).not.toThrow()
})

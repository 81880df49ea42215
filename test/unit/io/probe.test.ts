/** The choice of a tier: what is forced is taken, `auto` takes the cheaper one of those there are. */
import { expect, test } from 'vitest'
import { Aio } from '../../../src/io/aio.ts'
import { cheaperAio, measureWrites } from '../../../src/io/measure.ts'
import { chooseTier, probeTiers } from '../../../src/io/probe.ts'
import { Uring } from '../../../src/io/uring.ts'

test('a forced tier is taken without a reason', () => {
  for (const name of ['read-write', 'io_uring-multishot'] as const) {
    expect(chooseTier(name)).toEqual({ name })
  }
})

test('both tiers are found, each with what a write costs', () => {
  const [uring, readWrite] = probeTiers()
  expect([uring.name, readWrite.name]).toEqual(['io_uring-multishot', 'read-write'])
  for (const { reason, writeNs } of [uring, readWrite]) {
    expect(reason).toBeUndefined()
    expect(writeNs).toBeGreaterThan(10)
    expect(writeNs).toBeLessThan(100_000)
  }
})

test('auto takes io_uring without a reason, or says why not and what both cost', () => {
  const { name, reason } = chooseTier('auto')
  if (name === 'io_uring-multishot') expect(reason).toBeUndefined()
  else {
    const [, systemCallNs, uringNs] = /(\d+) ns a write, (\d+) ns by io_uring/.exec(reason!)!
    expect(Number(systemCallNs)).toBeLessThan(Number(uringNs))
  }
})

test('measuring leaves the ring as it was', () => {
  const uring = new Uring(64, 128)
  try {
    measureWrites(null, uring)
    expect(uring.pending).toBe(0)
    uring.submit()
    expect(uring.tail()).toBe(uring.head)
  } finally {
    uring.close()
  }
})

test('AIO is measured, taken where it is the cheaper way, and left closed where not', () => {
  const aio = Aio.open()!
  const { systemCallNs, aioNs, uringNs } = measureWrites(aio, null)
  aio.close()
  expect(systemCallNs).toBeGreaterThan(10)
  expect(aioNs).toBeGreaterThan(10)
  expect(uringNs).toBe(Infinity)
  expect(measureWrites(null, null).aioNs).toBe(Infinity)
  const cheaper = cheaperAio()
  // A factor that no noise makes: then the choice is known.
  if (aioNs * 2 < systemCallNs) expect(cheaper).not.toBeNull()
  if (systemCallNs * 2 < aioNs) expect(cheaper).toBeNull()
  cheaper?.close()
})

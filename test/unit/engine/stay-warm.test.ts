/** The small engine that keeps the code of the first one warm. */
import { readdirSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { StayWarm } from '../../../src/engine/stay-warm.ts'
import { uringLack } from '../../../src/io/probe.ts'
import { ReadWriteTier } from '../../../src/io/read-write-tier.ts'
import type { TierEvents } from '../../../src/io/tier.ts'
import { UringTier } from '../../../src/io/uring-tier.ts'
import { KernelClock } from '../../../src/mem/clock.ts'
import { EventSignals } from '../../../src/native/event-signals.ts'
import type { PortDescription } from '../../../src/port/messages.ts'

const tap = (vnetHdrLength: number): PortDescription => ({ kind: 'tap', fds: [], vnetHdrLength })
const raw = (vnetHdrLength: number): PortDescription => {
  const geometry = { blockLength: 4096, blocks: 1, slotsPerBlock: 1 }
  return { kind: 'raw-socket', queues: [], geometry, vnetHdrLength, mtu: 1500 }
}
const GUEST: PortDescription = { kind: 'virtio' }
/** Whole rounds of two, three and four ends; the last of it is drained. */
const STIRS = 960

const lacks = uringLack()
const fdCount = (): number => readdirSync('/proc/self/fd').length

describe.each([
  ['read-write', (fd: number, events: TierEvents) => new ReadWriteTier(fd, events)],
  ['io_uring-multishot', (fd: number, events: TierEvents) => new UringTier(fd, events)],
] as const)('%s', (name, makeTier) => {
  const isMissing = name === 'io_uring-multishot' && lacks !== undefined
  const why = isMissing ? ` (skipped: ${lacks})` : ''

  describe.skipIf(isMissing)(`a frame at each stir${why}`, () => {
    test.each([
      ['TAPs', [tap(12)]],
      ['TAPs of two kinds', [tap(12), tap(0), tap(12)]],
      ['guests', [GUEST]],
      ['raw sockets', [raw(10)]],
      ['all kinds', [tap(12), raw(10), GUEST]],
      ['more kinds than it has room for', [tap(12), tap(10), tap(0), raw(10), raw(0), GUEST]],
    ])('passes between %s, and nothing is left', (_, kinds) => {
      const signals = EventSignals.open()
      const fds = fdCount()
      const stayWarm = new StayWarm(new KernelClock(), signals, makeTier)
      try {
        for (const kind of kinds) stayWarm.expect(kind)
        stayWarm.prepare()
        for (let stirs = 0; stirs < STIRS; stirs++) stayWarm.stir()
        expect(stayWarm.passed).toBe(STIRS)
      } finally {
        stayWarm.close()
        expect(fdCount()).toBe(fds)
        signals.close()
      }
    })

    test('passes also between ports that come when frames have passed', () => {
      const signals = EventSignals.open()
      const stayWarm = new StayWarm(new KernelClock(), signals, makeTier)
      stayWarm.expect(tap(12))
      // One for each end.
      for (let stirs = 0; stirs < STIRS + 2; stirs++) stayWarm.stir()
      stayWarm.expect(GUEST)
      for (let stirs = 0; stirs < STIRS + 1; stirs++) stayWarm.stir()
      expect(stayWarm.passed).toBe(2 * STIRS)
      stayWarm.close()
      signals.close()
    })

    test('is left out without a port that it knows', () => {
      const signals = EventSignals.open()
      const stayWarm = new StayWarm(new KernelClock(), signals, makeTier)
      stayWarm.expect({ kind: 'memory' } as PortDescription)
      stayWarm.stir()
      expect(stayWarm.passed).toBe(0)
      stayWarm.close()
      signals.close()
    })
  })
})

/**
 * Frames that change their tag on the way into a guest: what the sink writes as it copies them is what it
 * delivers of frames that were built so; and a sender that writes to its frames meanwhile changes no tag.
 */
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Burst } from '../../src/mem/burst.ts'
import { CopyProgram } from '../../src/mem/copy-program.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import type { NewHeads } from '../../src/mem/new-heads.ts'
import { Window } from '../../src/mem/window.ts'
import type { FrameTaker } from '../../src/offload/stage.ts'
import { DESCRIPTORS_AHEAD } from '../../src/virtio/net/descriptor-budget.ts'
import { FrameSink } from '../../src/virtio/net/frame-sink.ts'
import { DirtyLog } from '../../src/virtio/ring/dirty-log.ts'
import { OFFLOADS_ALL } from '../../src/wire/vnet-hdr.ts'
import type { SwitchingOptions } from '../../src/port/switching-options.ts'
import type { Guest } from '../support/guest.ts'
import {
  addChain,
  GUEST_ADDRESS,
  KINDS,
  makeQueues,
  region,
  USER_ADDRESS,
} from '../support/guest.ts'
import { ipFrame, payloadOf, tunnelFrame } from '../support/ip-frames.ts'
import type { OffloadFrame } from '../support/offload-bench.ts'
import { OffloadBench } from '../support/offload-bench.ts'
import { policies, policy } from '../support/policies.ts'

const MEMORY = 1 << 20
const BUFFERS = 1 << 17
const SIZE = 256
const GUARD = 0xa5
const [NEEDS_CSUM, IN_IPV4] = [1, 0x20]
const [NONE, TCPV4] = [0, 1]

const window = Window.map(MEMORY)
const guest: Guest = {
  window,
  memory: new GuestMemory([region(window.id, MEMORY, GUEST_ADDRESS, USER_ADDRESS)]),
  bytes: new Uint8Array(window.buffer),
  words: new Int32Array(window.buffer),
  halfWords: new Uint16Array(window.buffer),
}
const copies = new CopyProgram()
const sink = new FrameSink(copies)
const bitmap = Window.map(1 << 18)
const bits = new Uint8Array(bitmap.buffer)
const log = new DirtyLog(bitmap.id)
let bench: OffloadBench
beforeAll(() => {
  bench = new OffloadBench()
})
afterAll(() => {
  bench.close()
  log.close()
  bitmap.unmap()
  sink.close()
  copies.close()
  guest.memory.detach()
  window.unmap()
})

const native = (tag: number): SwitchingOptions => ({ 'vlan-mode': 'native-untagged', tag })
const WAYS: Readonly<Record<string, readonly [SwitchingOptions, SwitchingOptions]>> = {
  'access to trunk': [{ tag: 10 }, { trunks: ['10'] }],
  'trunk to access': [{ trunks: ['10'] }, { tag: 10 }],
  'trunk to native': [{ trunks: ['1-20'] }, native(10)],
  'native to trunk': [native(10), { trunks: ['1-20'] }],
  'native to native': [native(10), native(9)],
  'access to access': [{ tag: 10 }, { tag: 10 }],
  'trunk to access, priorities stay': [{ trunks: ['10'] }, { tag: 10, 'priority-tags': 'always' }],
  'access to access, priorities stay': [{ tag: 10 }, { tag: 10, 'priority-tags': 'always' }],
  'trunk to tunnel, priorities stay': [
    { trunks: ['10'] },
    { 'vlan-mode': 'dot1q-tunnel', tag: 10, 'priority-tags': 'always' },
  ],
  'tunnel to trunk': [{ 'vlan-mode': 'dot1q-tunnel', tag: 10 }, { trunks: ['10'] }],
}

const KIND = ['plain', 'partial', 'gso', 'tunnelled'] as const

interface Given {
  readonly vlans: readonly number[]
  readonly payload: number
  readonly kind: (typeof KIND)[number]
  readonly cuts: readonly number[]
  readonly tos: number
}

function frameOf({ vlans, payload, kind, cuts, tos }: Given, hasOffloads: boolean): OffloadFrame {
  const isPlain = kind === 'plain' || !hasOffloads
  const checksum = isPlain ? 'full' : 'partial'
  const one = ipFrame({ vlans, tos, payload: payloadOf(payload), checksum })
  if (isPlain) return { bytes: one.bytes, cuts }
  if (kind === 'tunnelled') {
    const { bytes, end, l4, l3, outerL4, checksumOffset } = tunnelFrame(one, { vlans })
    const header = [NEEDS_CSUM, IN_IPV4 | TCPV4, end, 500, l4, checksumOffset] as const
    return { bytes, cuts, header, tunnel: [outerL4, l3] }
  }
  const { bytes, end, l4, checksumOffset } = one
  const isGso = kind === 'gso'
  return {
    bytes,
    cuts,
    header: [
      NEEDS_CSUM,
      isGso ? TCPV4 : NONE,
      isGso ? end : 0,
      isGso ? 500 : 0,
      l4,
      checksumOffset,
    ],
  }
}

const vlanStacks = fc.constantFrom([], [10], [10, 30], [0], [9])

const given: fc.Arbitrary<Given> = fc.record({
  vlans: vlanStacks,
  payload: fc.oneof(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 0, max: 3000 })),
  kind: fc.constantFrom(...KIND),
  cuts: fc.oneof(
    { weight: 2, arbitrary: fc.constant([]) },
    { weight: 1, arbitrary: fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 4 }) },
  ),
  tos: fc.constantFrom(0, 0, 0, 4),
})

const some = fc.array(given, { minLength: 1, maxLength: 10 })
/** Half of them are one run, and most of those begin the same. */
const givenBursts: fc.Arbitrary<readonly Given[]> = fc.oneof(
  some,
  fc.tuple(some, vlanStacks, fc.constantFrom(true, true, false)).map(([frames, vlans, isSame]) => {
    const alike = isSame ? { vlans, tos: 0 } : { vlans }
    return frames.map((frame) => ({ ...frame, ...alike }))
  }),
)

/** What the driver finds in its buffers: chains with their used bytes. */
class Receiver {
  readonly #queues: ReturnType<typeof makeQueues>
  readonly #places: (readonly (readonly [offset: number, length: number])[])[] = []
  /** Lists that came with heads. */
  withHeads = 0
  /** Those with more than one frame, and one head for all of them. */
  withOneHead = 0

  constructor(kind: (typeof KINDS)[number], offered: readonly (readonly number[])[]) {
    guest.bytes.fill(GUARD, BUFFERS)
    bits.fill(0)
    this.#queues = makeQueues(guest, kind, SIZE)
    let next = BUFFERS
    for (const lengths of offered) {
      const places = lengths.map((length) => {
        const offset = next
        next += length + 3
        return [offset, length] as const
      })
      const buffers = places.map(([offset, length]) => ({ offset, length, isWritable: true }))
      this.#places[addChain(this.#queues.driver, buffers)] = places
    }
    this.#queues.driver.publish()
    sink.descriptorsLeft = DESCRIPTORS_AHEAD
  }

  taker(writesHeads: boolean): FrameTaker {
    const transmit = (burst: Burst, list: Int32Array, first: number, count: number): void => {
      sink.deliverAll(this.#queues.device, guest.memory, burst, list, first, count)
      copies.run()
    }
    if (!writesHeads) return { transmit }
    return {
      transmit,
      writesHeads,
      transmitWithHeads: (burst, list, first, count, _queue, heads: NewHeads) => {
        this.withHeads++
        const isBrief = sink.offloads === 0 && sink.headerLength === 12
        if (heads.isOne && count > 1 && isBrief) this.withOneHead++
        sink.heads = heads
        transmit(burst, list, first, count)
        sink.heads = null
      },
    }
  }

  /** Chains in the order in which they were used, all of the memory, and the pages that are dirty. */
  end(): Readonly<Record<'used' | 'memory' | 'dirty', string[]>> {
    const { device, driver } = this.#queues
    device.publish()
    const used: string[] = []
    for (;;) {
      const id = driver.takeUsed()
      if (id === -1) break
      const bytes = this.#places[id].flatMap(([offset, length]) => [
        ...guest.bytes.subarray(offset, offset + length),
      ])
      used.push(Buffer.from(bytes.slice(0, driver.usedLength)).toString('hex'))
    }
    log.mark()
    const memory = Buffer.from(guest.bytes.subarray(BUFFERS)).toString('base64')
    return { used, memory: [memory], dirty: [Buffer.from(bits).toString('base64')] }
  }
}

const offered = fc.oneof(
  // Single buffers that take everything: the short way.
  { weight: 2, arbitrary: fc.constant(Array.from({ length: 24 }, () => [4000])) },
  {
    weight: 1,
    arbitrary: fc.array(
      fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 60, max: 2000 })), {
        minLength: 1,
        maxLength: 4,
      }),
      { maxLength: 30 },
    ),
  },
)

test.each(KINDS.filter(({ hasEventIdx, tableEntries }) => !hasEventIdx && tableEntries === 0))(
  '$name queues: heads that are written while frames are copied',
  (kind) => {
    let [short, spoilt, one] = [0, 0, 0]
    for (const [name, [from, to]] of Object.entries(WAYS)) {
      const all = policies()
      all.set(0, policy(from))
      all.set(1, policy(to))
      fc.assert(
        fc.property(
          givenBursts,
          offered,
          fc.constantFrom(10, 12, 12, 12, 20, 24),
          fc.boolean(),
          fc.boolean(),
          fc.boolean(),
          fc.boolean(),
          (frames, buffers, headerLength, isMergeable, hasOffloads, isLogged, isParted) => {
            sink.headerLength = headerLength
            sink.isMergeable = isMergeable
            sink.offloads = hasOffloads ? OFFLOADS_ALL : 0
            sink.log = isLogged ? log : null
            const made = frames
              .filter(({ kind: its }) => its !== 'tunnelled' || headerLength === 24)
              .map((frame) => frameOf(frame, hasOffloads))
            const numbers = made.map((_, k) => k)
            const lists = isParted
              ? [numbers.filter((k) => k % 2 === 1), numbers.filter((k) => k % 2 === 0)]
              : [numbers]
            const run = (writesHeads: boolean, spoils: boolean): ReturnType<Receiver['end']> => {
              const receiver = new Receiver(kind, buffers)
              bench.giveTagged(made, receiver.taker(writesHeads), all.vlans, spoils, lists)
              if (receiver.withHeads > 0) short++
              one += receiver.withOneHead
              return receiver.end()
            }
            const built = run(false, false)
            expect({ name, ...run(true, false) }).toEqual({ name, ...built })
            // Pieces that are shorter than what decides are nothing that a spoiler is kept from.
            if (made.every(({ cuts = [] }) => cuts.length === 0)) {
              spoilt++
              expect({ name, ...run(false, true) }).toEqual({ name, ...built })
              expect({ name, ...run(true, true) }).toEqual({ name, ...built })
            }
            sink.log = null
          },
        ),
        { numRuns: 60 },
      )
    }
    expect(short).toBeGreaterThan(100)
    expect(spoilt).toBeGreaterThan(100)
    expect(one).toBeGreaterThan(5)
  },
)

/** What is left to be done for a frame that comes without a vnet_hdr. */
import { expect, test } from 'vitest'
import { Burst } from '../../../../src/mem/burst.ts'
import { OffloadGuess } from '../../../../src/port/raw-socket/offload-guess.ts'
import type { IpFrameOptions } from '../../../support/ip-frames.ts'
import { ipFrame, payloadOf } from '../../../support/ip-frames.ts'

const [CSUM, TSO4, TSO6] = [1, 2, 4]
const TCPV4 = 1
const TCPV6 = 4

interface Guess {
  readonly gso: number
  readonly gsoSize: number
  readonly csumOffset: number
  readonly needs: number
}

/** Of one frame; null: it must not go on. */
function guess(bytes: Uint8Array, isPartial: boolean, mtu = 1500): Guess | null {
  const burst = new Burst()
  const memory = new Uint8Array(100 + bytes.length)
  memory.set(bytes, 68)
  burst.length[0] = bytes.length
  const isKnown = new OffloadGuess(mtu).add(burst, 0, memory, 68, isPartial)
  const [gso, gsoSize] = [burst.gso[0], burst.gsoSize[0]]
  const [csumOffset, needs] = [burst.csumOffset[0], burst.needs[0]]
  // Otherwise nobody would look at them.
  expect(burst.hasOffloads).toBe(gso !== 0)
  burst.close()
  return isKnown ? { gso, gsoSize, csumOffset, needs } : null
}

const NOTHING: Guess = { gso: 0, gsoSize: 0, csumOffset: 0, needs: 0 }

const KINDS: readonly IpFrameOptions[] = [
  { payload: payloadOf(0) },
  { payload: payloadOf(0), vlans: [5] },
  { payload: payloadOf(0), vlans: [5, 6] },
  { payload: payloadOf(0), ipOptions: 8, tcpOptions: [1, 1, 1, 1] },
  { payload: payloadOf(0), isIpv6: true },
  { payload: payloadOf(0), isIpv6: true, vlans: [5, 6], tcpOptions: [1, 1, 1, 1] },
]

test.each(KINDS)('TCP %#', (kind) => {
  const type = kind.isIpv6 === true ? TCPV6 : TCPV4
  const small = ipFrame({ ...kind, payload: payloadOf(100) })
  expect(guess(small.bytes, false)).toEqual(NOTHING)
  const checksum = { gso: 1, gsoSize: small.l4 << 16, csumOffset: 16, needs: CSUM }
  expect(guess(small.bytes, true)).toEqual(checksum)

  // One that fills the mtu, and one that is a byte longer.
  const headers = small.end - small.l3
  const full = ipFrame({ ...kind, payload: payloadOf(1500 - headers) })
  expect(guess(full.bytes, false)).toEqual(NOTHING)
  const long = ipFrame({ ...kind, payload: payloadOf(1501 - headers) })
  const segments: Guess = {
    gso: 1 | (type << 8) | (long.end << 16),
    gsoSize: (1500 - headers) | (long.l4 << 16),
    csumOffset: 16,
    needs: CSUM | (type === TCPV4 ? TSO4 : TSO6),
  }
  expect(guess(long.bytes, true)).toEqual(segments)
  // It may have its checksum, and is to be cut all the same. So short a one would pass as it is.
  const longer = ipFrame({ ...kind, payload: payloadOf(1509 - headers) })
  expect(guess(longer.bytes, false)).toEqual(segments)
  expect(guess(long.bytes, true, 9000)).toEqual({ ...checksum, gsoSize: long.l4 << 16 })
})

test.each([{}, { isIpv6: true }, { vlans: [7] }])('UDP %o', (kind) => {
  const small = ipFrame({ ...kind, protocol: 'udp', payload: payloadOf(100) })
  expect(guess(small.bytes, false)).toEqual(NOTHING)
  expect(guess(small.bytes, true)).toEqual({
    gso: 1,
    gsoSize: small.l4 << 16,
    csumOffset: 6,
    needs: CSUM,
  })
  const long = ipFrame({ ...kind, protocol: 'udp', payload: payloadOf(4000) })
  expect(guess(long.bytes, true)).toBeNull()
  expect(guess(long.bytes, true, 9000)).not.toBeNull()
})

test('what is neither TCP nor UDP passes when nothing is missing', () => {
  const frame = Uint8Array.from({ length: 1514 }, (_, k) => k)
  frame.set([0x88, 0xb5], 12)
  expect(guess(frame, false)).toEqual(NOTHING)
  expect(guess(frame, true)).toBeNull()
  expect(guess(new Uint8Array(14), false)).toEqual(NOTHING)
  expect(guess(new Uint8Array(14), true)).toBeNull()
  // SCTP, whose checksum is a CRC.
  const sctp = ipFrame({ payload: payloadOf(100) }).bytes
  sctp[23] = 132
  expect(guess(sctp, false)).toEqual(NOTHING)
  expect(guess(sctp, true)).toBeNull()
  // As long as two tags may make it, and longer.
  const jumbo = new Uint8Array(1500 + 14 + 8 + 1)
  jumbo.set([0x88, 0xb5], 12)
  expect(guess(jumbo.subarray(1), false)).toEqual(NOTHING)
  expect(guess(jumbo, false)).toBeNull()
})

test('headers that leave no room in the mtu are refused', () => {
  const frame = ipFrame({ payload: payloadOf(1000), ipOptions: 40, tcpOptions: Array(40).fill(1) })
  expect(guess(frame.bytes, true, 68)).toBeNull()
})

/** offloadNeeds against the clauses of VIRTIO 1.3 §5.1.6.2, for every header there is. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { NEEDS_MALFORMED, NEEDS_UNKNOWN_TYPE, offloadNeeds } from '../../src/wire/vnet-hdr.ts'

/** TUN_F_* bits without the checksum's, by gso_type; 3 (UDP fragments) is given up. */
const BITS_BY_TYPE: Readonly<Record<number, number>> = { 1: 0x02, 4: 0x04, 5: 0x60 }

const u16 = fc.oneof(fc.nat(100), fc.nat(0xffff), fc.constantFrom(0x7fff, 0x8000, 0xffff))
const header = fc.record({
  flags: fc.nat(255),
  gsoType: fc.oneof(fc.constantFrom(0, 1, 3, 4, 5, 0x81, 0x84, 0x21, 0x44), fc.nat(255)),
  hdrLen: u16,
  gsoSize: u16,
  csumStart: u16,
  csumOffset: u16,
  outerTh: u16,
  innerNh: u16,
  length: fc.oneof(fc.integer({ min: 14, max: 200 }), fc.integer({ min: 14, max: 69_000 })),
})

test('every header is understood as the standard says, or refused', () => {
  fc.assert(
    fc.property(header, (given) => {
      const { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset, length } = given
      const { outerTh, innerNh } = given
      // As the data plane gets them: words of memory, signed.
      const bytes = new DataView(new ArrayBuffer(24))
      bytes.setUint8(0, flags)
      bytes.setUint8(1, gsoType)
      bytes.setUint16(2, hdrLen, true)
      bytes.setUint16(4, gsoSize, true)
      bytes.setUint16(6, csumStart, true)
      bytes.setUint16(8, csumOffset, true)
      bytes.setUint16(20, outerTh, true)
      bytes.setUint16(22, innerNh, true)
      const words = [bytes.getInt32(0, true), bytes.getInt32(4, true)] as const
      const got = offloadNeeds(...words, csumOffset, length, bytes.getInt32(20, true))

      const hasPartialChecksum = (flags & 1) !== 0
      const isInFrame = csumStart >= 14 && csumStart + csumOffset + 2 <= length
      const type = gsoType & 0x1f
      const [isIpv4, isIpv6] = [(gsoType & 0x20) !== 0, (gsoType & 0x40) !== 0]
      const isTunnelInOrder =
        isIpv4 !== isIpv6 &&
        hasPartialChecksum &&
        outerTh >= (isIpv4 ? 34 : 54) &&
        innerNh >= outerTh + 8 &&
        csumStart >= innerNh + 20
      const hasEcn = gsoType >= 0x80
      if (hasPartialChecksum && !isInFrame) expect(got).toBe(NEEDS_MALFORMED)
      else if (gsoType === 0) expect(got).toBe(hasPartialChecksum ? 1 : 0)
      else if (type === 0 || gsoSize === 0) expect(got).toBe(NEEDS_MALFORMED)
      else if ((isIpv4 || isIpv6) && !isTunnelInOrder) expect(got).toBe(NEEDS_MALFORMED)
      else if (BITS_BY_TYPE[type] === undefined) expect(got).toBe(NEEDS_UNKNOWN_TYPE)
      else {
        const tunnelBits = isIpv4 || isIpv6 ? 0x80 | ((flags & 8) === 0 ? 0 : 0x100) : 0
        expect(got).toBe(BITS_BY_TYPE[type] | 1 | (hasEcn ? 8 : 0) | tunnelBits)
      }
    }),
    { numRuns: 5000 },
  )
})

/** The receive filter decision by decision (spec §3.5). */
import { describe, expect, test } from 'vitest'
import { MAC_TABLE_ENTRIES, RxFilter, vlanOf } from '../../../src/virtio/net/rx-filter.ts'
import { bytesOf } from '../../support/flow-frames.ts'

const OWN = bytesOf(0x52, 0x54, 0, 0x12, 0x34, 0x56)
const OTHER = bytesOf(0x52, 0x54, 0, 0x12, 0x34, 0x57)
const GROUP = bytesOf(0x33, 0x33, 0, 0, 0, 1)
const BROADCAST = new Uint8Array(6).fill(0xff)
const UNTAGGED = -1

function filter(): RxFilter {
  const own = new RxFilter()
  own.setMac(OWN)
  own.promisc = false
  return own
}

function accepts(own: RxFilter, dst: Uint8Array, vlan = UNTAGGED): boolean {
  const view = new DataView(dst.buffer, dst.byteOffset)
  return own.accepts(view.getInt32(0, true), view.getUint16(4, true), vlan)
}

function macs(count: number, first: number): Uint8Array[] {
  return Array.from({ length: count }, (_, at) => bytesOf(first, 0, 0, 0, 0xff, at))
}

test('a new one is promiscuous and takes everything, VLANs that are not allowed too', () => {
  const own = new RxFilter()
  own.allowVlans(false)
  own.nouni = true
  own.nobcast = true
  expect(accepts(own, OTHER, 5)).toBe(true)
  expect(accepts(own, BROADCAST)).toBe(true)
})

test('without promisc only the own address and broadcast pass', () => {
  const own = filter()
  expect(accepts(own, OWN)).toBe(true)
  expect(accepts(own, BROADCAST)).toBe(true)
  expect(accepts(own, OTHER)).toBe(false)
  expect(accepts(own, GROUP)).toBe(false)
})

test.each([
  ['allmulti', GROUP, true],
  ['allmulti', OTHER, false],
  ['alluni', OTHER, true],
  ['alluni', GROUP, false],
  ['nouni', OWN, false],
  ['nobcast', BROADCAST, false],
  ['nomulti', BROADCAST, true],
] as const)('%s decides about %o: %s', (flag, dst, isAccepted) => {
  const own = filter()
  own[flag] = true
  expect(accepts(own, dst)).toBe(isAccepted)
})

test('what suppresses a kind wins over what accepts all of it, and over the table', () => {
  const own = filter()
  own.setTable([OTHER], [GROUP])
  own.allmulti = true
  own.alluni = true
  own.nomulti = true
  own.nouni = true
  expect([OWN, OTHER, GROUP].map((dst) => accepts(own, dst))).toEqual([false, false, false])
})

describe('the MAC table', () => {
  test('accepts what is in it, each kind only in its part', () => {
    const own = filter()
    own.setTable([OTHER], [GROUP])
    expect([OTHER, GROUP].map((dst) => accepts(own, dst))).toEqual([true, true])
    own.setTable([GROUP], [OTHER])
    expect([OTHER, GROUP].map((dst) => accepts(own, dst))).toEqual([false, false])
  })

  test('gives back what was set', () => {
    const own = filter()
    own.setTable([OTHER, OWN], [GROUP])
    expect(own.unicast).toEqual([OTHER, OWN])
    expect(own.multicast).toEqual([GROUP])
  })

  test('holds 64 of both kinds together; the kind that does not fit is accepted as a whole', () => {
    const own = filter()
    own.setTable(macs(MAC_TABLE_ENTRIES - 1, 2), macs(1, 3))
    expect([own.unicastOverflow, own.multicastOverflow]).toEqual([false, false])
    own.setTable(macs(MAC_TABLE_ENTRIES - 1, 2), macs(2, 3))
    expect([own.unicastOverflow, own.multicastOverflow]).toEqual([false, true])
    expect([OTHER, GROUP].map((dst) => accepts(own, dst))).toEqual([false, true])
    own.setTable(null, macs(MAC_TABLE_ENTRIES, 3))
    expect([own.unicastOverflow, own.multicastOverflow]).toEqual([true, false])
    expect([OTHER, GROUP].map((dst) => accepts(own, dst))).toEqual([true, false])
    expect(own.multicast).toHaveLength(MAC_TABLE_ENTRIES)
  })
})

describe('VLANs', () => {
  test('are all allowed until told otherwise, then one by one', () => {
    const own = filter()
    for (const id of [0, 31, 32, 4095]) {
      own.allowVlans(true)
      expect(accepts(own, OWN, id)).toBe(true)
      own.allowVlan(id, false)
      expect(accepts(own, OWN, id)).toBe(false)
      expect(accepts(own, OWN, id ^ 1)).toBe(true)
      own.allowVlans(false)
      own.allowVlan(id, true)
      expect(own.isVlanAllowed(id)).toBe(true)
      expect(accepts(own, OWN, id)).toBe(true)
      expect(accepts(own, OWN, id ^ 1)).toBe(false)
    }
  })

  test('a frame without a tag does not depend on them', () => {
    const own = filter()
    own.allowVlans(false)
    expect(accepts(own, OWN)).toBe(true)
  })

  test('the table is bytes, lowest id in the lowest bit', () => {
    const own = filter()
    own.allowVlans(false)
    own.allowVlan(9, true)
    own.allowVlan(4095, true)
    const bytes = own.vlans
    expect([bytes[1], bytes[511]]).toEqual([0x02, 0x80])
    const other = filter()
    other.setVlans(bytes)
    expect([8, 9, 10, 4095].map((id) => other.isVlanAllowed(id))).toEqual([
      false,
      true,
      false,
      true,
    ])
  })

  test('the id is in the low twelve bits of a tag of type 0x8100', () => {
    const word3 = (...bytes: number[]): number =>
      new DataView(bytesOf(bytes).buffer).getInt32(0, true)
    expect(vlanOf(word3(0x81, 0x00, 0xef, 0xa5))).toBe(0xfa5)
    expect(vlanOf(word3(0x88, 0xa8, 0x00, 0x05))).toBe(-1)
    expect(vlanOf(word3(0x08, 0x00, 0x45, 0x00))).toBe(-1)
  })
})

test('a reset is promiscuous with empty tables, and keeps the own address', () => {
  const own = filter()
  own.setTable(null, [GROUP])
  own.nomulti = true
  own.allowVlans(false)
  own.reset()
  expect(own.promisc).toBe(true)
  own.promisc = false
  expect([OWN, OTHER, GROUP].map((dst) => accepts(own, dst))).toEqual([true, false, false])
  expect(accepts(own, OWN, 7)).toBe(true)
  expect(own.mac).toEqual(OWN)
})

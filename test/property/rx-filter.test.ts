/** The receive filter against a model that says the rules of spec §3.5 in words. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { RxFilter } from '../../src/virtio/net/rx-filter.ts'
import { bytesOf } from '../support/flow-frames.ts'

/** Few addresses, so that they meet. */
const mac = fc
  .tuple(fc.constantFrom(0x02, 0x03, 0xfe, 0xff), fc.constantFrom(0, 0xff), fc.nat({ max: 2 }))
  .map(([first, middle, last]) => bytesOf(first, middle, middle, middle, middle, last))
const destination = fc.oneof(mac, fc.constant(new Uint8Array(6).fill(0xff)))
const macs = fc.oneof(
  fc.array(mac, { maxLength: 6 }),
  fc.array(mac, { minLength: 30, maxLength: 66 }),
)

const setup = fc.record({
  own: mac,
  promisc: fc.boolean(),
  allmulti: fc.boolean(),
  alluni: fc.boolean(),
  nomulti: fc.boolean(),
  nouni: fc.boolean(),
  nobcast: fc.boolean(),
  unicast: macs,
  multicast: macs,
  vlans: fc.uniqueArray(fc.nat({ max: 4095 })),
})
type Setup = typeof setup extends fc.Arbitrary<infer Value> ? Value : never

function wanted(rules: Setup, dst: Uint8Array, vlan: number): boolean {
  const text = dst.join()
  const isIn = (list: Uint8Array[]): boolean => list.some((one) => one.join() === text)
  const unicastFits = rules.unicast.length <= 64
  const used = unicastFits ? rules.unicast.length : 0
  const multicastFits = used + rules.multicast.length <= 64
  if (rules.promisc) return true
  if (vlan >= 0 && !rules.vlans.includes(vlan)) return false
  if (dst.every((byte) => byte === 0xff)) return !rules.nobcast
  if (dst[0] % 2 === 1) {
    return !rules.nomulti && (rules.allmulti || !multicastFits || isIn(rules.multicast))
  }
  const isOwn = rules.own.join() === text
  return !rules.nouni && (rules.alluni || !unicastFits || isOwn || isIn(rules.unicast))
}

test('a frame passes when the rules say so', () => {
  const vlan = fc.oneof(fc.constant(-1), fc.nat({ max: 4095 }))
  fc.assert(
    fc.property(setup, destination, vlan, fc.boolean(), (rules, dst, id, isListed) => {
      const filter = new RxFilter()
      filter.setMac(rules.own)
      filter.promisc = rules.promisc
      filter.allmulti = rules.allmulti
      filter.alluni = rules.alluni
      filter.nomulti = rules.nomulti
      filter.nouni = rules.nouni
      filter.nobcast = rules.nobcast
      filter.setTable(rules.unicast, rules.multicast)
      filter.allowVlans(false)
      const vlans = isListed && id >= 0 ? [...rules.vlans, id] : rules.vlans
      for (const one of vlans) filter.allowVlan(one, true)
      const view = new DataView(dst.buffer)
      const accepted = filter.accepts(view.getInt32(0, true), view.getUint16(4, true), id)
      expect(accepted).toBe(wanted({ ...rules, vlans }, dst, id))
    }),
    { numRuns: 5000 },
  )
})

/** Multicast groups as users see them. */
import { expect, test } from 'vitest'
import { groupEntries } from '../../../src/switch/groups.ts'

const ports = new Map([
  [0, { id: 'a' }],
  [1, { id: 'b' }],
])

test.each([
  [[0xff020000, 0, 0, 0xfb], 'ff02::fb'],
  [[0xff020000, 0, 1, 0xff000001], 'ff02::1:ff00:1'],
  [[0xff150000, 0x00010000, 0, 0x00010000], 'ff15:0:1::1:0'],
  [[0xff150001, 0x00020003, 0x00040005, 0x00060007], 'ff15:1:2:3:4:5:6:7'],
  [[0xff150001, 0x00000003, 0x00040000, 0x00060000], 'ff15:1:0:3:4:0:6:0'],
  [[0xff150000, 0, 0, 0], 'ff15::'],
  [[0, 0, 0, 1], '::1'],
])('an IPv6 group %j is %s', (words, text) => {
  const row = [1 << 24, ...words.map((word) => word | 0), 1, 5]
  const [entry] = groupEntries(row, ports)
  expect(entry).toEqual({ vlan: 0, family: 'ipv6', group: text, port: 'b', expiresS: 1 })
})

test('members, routers and queriers, in VLANs inside of VLANs', () => {
  const member = [10 | (20 << 12), 0, 0, 0, 0xef010203 | 0, 0, 2600]
  expect(groupEntries(member, ports)).toEqual([
    { vlan: 10, innerVlan: 20, family: 'ipv4', group: '239.1.2.3', port: 'a', expiresS: 260 },
  ])
  const router = [10, 0, 0, 0, 0, 1, 11]
  const shown = { vlan: 10, family: 'ipv4', port: 'b', expiresS: 2 }
  expect(groupEntries(router, ports)).toEqual([shown])
  const querier = [...router, 11, 0, 0, 0, 0xc0a80001 | 0, 2600, 2, 0]
  expect(groupEntries(querier, ports)).toEqual([{ ...shown, querier: '192.168.0.1' }])
  expect(groupEntries([10, 0, 0, 0, 0, 7, 11], ports)).toEqual([])
})

test('P8, multicast-router: what options say is told where the querier is, and once', () => {
  const router = [10, 0, 0, 0, 0, 0, 11]
  const querier = [...router, 11, 0, 0, 0, 0xc0a80001 | 0, 2600, 2, 0]
  const where = { vlan: 10, family: 'ipv4' }
  const its = { ...where, port: 'a', expiresS: 2, querier: '192.168.0.1' }
  const never = new Map([[0, { id: 'a', 'multicast-router': 'never' as const }]])
  expect(groupEntries(router, never)).toEqual([])
  expect(groupEntries(querier, never)).toEqual([{ ...its, multicastRouter: 'never' }])
  const always = { 'multicast-router': 'always' as const }
  const all = new Map([
    [0, { id: 'a', ...always }],
    [1, { id: 'b', ...always }],
    [2, { id: 'c', ...always, tag: 20 }],
    [3, { id: 'd' }],
  ])
  expect(groupEntries(router, all)).toEqual([])
  expect(groupEntries(querier, all)).toEqual([
    { ...its, multicastRouter: 'always' },
    { ...where, port: 'b', multicastRouter: 'always' },
  ])
})

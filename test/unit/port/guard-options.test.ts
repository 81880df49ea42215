/** P4: a guard as options say it, in option strings and files. */
import { expect, test } from 'vitest'
import { parseNetdev, formatNetdev } from '../../../src/config/netdev.ts'
import { guardOf } from '../../../src/port/switching-options.ts'

const parsed = (options: string): object => parseNetdev(`tap,id=a,${options}`)

test('lists in an option string are split at colons, but for those in addresses', () => {
  const options = parsed(
    'guard=mac:arp,macs=02:00:00:00:00:01:02:00:00:00:00:02,ips=10.0.0.1:[fd00::1]:[2001:db8::]/32',
  )
  expect(options).toMatchObject({
    guard: ['mac', 'arp'],
    macs: ['02:00:00:00:00:01', '02:00:00:00:00:02'],
    ips: ['10.0.0.1', 'fd00::1', '2001:db8::/32'],
  })
  expect(guardOf(options)).toEqual({
    checks: ['mac', 'arp'],
    macs: [
      [2, 0, 0, 0, 0, 1],
      [2, 0, 0, 0, 0, 2],
    ],
    ipv4: [[0x0a000001, -1]],
    ipv6: [
      [0xfd000000 | 0, 0, 0, 1, -1, -1, -1, -1],
      [0x20010db8, 0, 0, 0, -1, 0, 0, 0],
    ],
  })
  expect(guardOf({})).toBeNull()
})

test('an option string of them is read again as what it was', () => {
  for (const ips of ['10.0.0.1', 'fd00::1', '10.0.0.0/8:[fd00::]/8:[::1]']) {
    const options = parseNetdev(`tap,id=a,guard=arp,macs=02:00:00:00:00:01,ips=${ips}`)
    expect(parseNetdev(formatNetdev(options))).toEqual(options)
  }
})

test.each([
  ['guard=mac', 'guard=mac needs macs='],
  ['guard=arp,macs=02:00:00:00:00:01', 'guard=arp needs ips='],
  ['guard=ipv4', 'guard=ipv4 needs ips='],
  ['guard=dhcp:ipv6', 'guard=ipv6 needs ips='],
  ['macs=02:00:00:00:00:01', 'macs= is only valid with locked=on or guard='],
  ['ips=10.0.0.1', 'ips= is only valid with guard='],
  ['guard=dns', '"guard" must be one of mac, arp, ipv4, ipv6, dhcp, ra'],
  ['guard=ipv4,ips=10.0.0.300', '"10.0.0.300" in ips is no IP address or prefix'],
  ['guard=mac,macs=02:00:00', 'is not a MAC address'],
])('%s: %s', (options, why) => {
  expect(() => parsed(options)).toThrow(why)
})

test('what needs no addresses has none', () => {
  expect(guardOf(parsed('guard=dhcp:ra'))).toEqual({
    checks: ['dhcp', 'ra'],
    macs: [],
    ipv4: [],
    ipv6: [],
  })
})

/** The options of VLANs and policy: in the forms that files and option strings have, and what they mean together. */
import { expect, test } from 'vitest'
import { parseConfig } from '../../../src/config/load.ts'
import { formatNetdev, parseNetdev } from '../../../src/config/netdev.ts'
import { ConfigError } from '../../../src/errors.ts'
import { vlanModeOf } from '../../../src/port/switching-options.ts'

const refusal = (spec: string): string => {
  try {
    parseNetdev(spec)
  } catch (error) {
    if (error instanceof ConfigError) return error.message
    throw error
  }
  return ''
}

test('every kind of port has them, and lists are split at colons', () => {
  const options = {
    trunks: ['10', '20-30'],
    isolated: true,
    'vlan-mode': 'trunk',
    'multicast-router': 'never',
  }
  for (const start of ['tap,id=a', 'vhost-user,id=a,path=/x', 'virtio-net,id=a']) {
    const spec = `${start},trunks=10:20-30,isolated=on,vlan-mode=trunk,multicast-router=never`
    expect(parseNetdev(spec)).toMatchObject(options)
    expect(parseNetdev(formatNetdev(parseNetdev(spec)))).toEqual(parseNetdev(spec))
  }
})

test('maps and words have their forms too', () => {
  const spec =
    'tap,id=a,storm.broadcast=100,storm.multicast=5,group-addresses=02:0e,macs=02-00-00-00-00-01,locked=on'
  const options = {
    storm: { broadcast: 100, multicast: 5 },
    'group-addresses': ['02', '0e'],
    macs: ['02-00-00-00-00-01'],
  }
  expect(parseNetdev(spec)).toMatchObject(options)
  expect(parseNetdev(formatNetdev(parseNetdev(spec)))).toEqual(parseNetdev(spec))
  expect(parseNetdev('tap,id=a,group-addresses=802.1D')).toMatchObject({
    'group-addresses': '802.1D',
  })
  const yaml = 'ports: [{ id: a, type: tap, storm: { broadcast: 100 }, group-addresses: [02, 0e] }]'
  expect(parseConfig(yaml, 'x.yaml').ports).toEqual([
    { id: 'a', type: 'tap', storm: { broadcast: 100 }, 'group-addresses': ['2', '0e'] },
  ])
})

test('F2, P7: static entries and group addresses of the switch in a file', () => {
  const port = 'ports: [{ id: a, type: tap }]\n'
  const said = (text: string): string => {
    try {
      parseConfig(port + text, 'x.yaml')
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }
  const config = parseConfig(
    `${port}switch: { group-addresses: [02, 0e] }\nfdb: [{ mac: 02:00:00:00:00:01, vlan: 10, port: a }]`,
    'x.yaml',
  )
  expect(config.fdb).toEqual([{ mac: '02:00:00:00:00:01', vlan: 10, port: 'a' }])
  expect(config.groupAddresses).toEqual([2, '0e'])
  expect(said('switch: { group-addresses: 802.1X }')).toContain(
    'must be one of transparent, 802.1D',
  )
  expect(said('fdb: [{ mac: 02:00:00:00:00:01, port: b }]')).toContain('there is no port "b"')
  expect(said('fdb: [{ mac: x, port: a }]')).toContain('x.yaml:2:9: fdb[0].mac')
  expect(
    said('fdb: [{ mac: 02:00:00:00:00:01, port: a }, { mac: 02-00-00-00-00-01, port: a }]'),
  ).toContain('02-00-00-00-00-01 is there already')
})

test('in a file lists are lists', () => {
  const { ports } = parseConfig('ports: [{ id: a, type: tap, trunks: [10, 20-30] }]', 'x.yaml')
  expect(ports).toEqual([{ id: 'a', type: 'tap', trunks: ['10', '20-30'] }])
  expect(() => parseConfig('ports: [{ id: a, type: tap, trunks: [4096] }]', 'x.yaml')).toThrow(
    'x.yaml:1:29: ports[0].trunks: "4096" in trunks is no VID from 0 to 4095, and no range of them',
  )
})

test.each([
  ['tag=10', 'access'],
  ['trunks=10', 'trunk'],
  ['priority-tags=always', 'trunk'],
  ['vlan-mode=native-tagged,tag=1', 'native-tagged'],
  ['isolated=on', undefined],
])('%s means %s', (more, mode) => {
  expect(vlanModeOf(parseNetdev(`tap,id=a,${more}`))).toBe(mode)
})

test.each([
  ['tag=0', '"tag" must be a number from 1 to 4094'],
  ['tag=4095', '"tag" must be a number from 1 to 4094'],
  ['trunks=', '"" in trunks is no VID from 0 to 4095, and no range of them'],
  ['trunks=30-20', '"30-20" in trunks is no VID from 0 to 4095, and no range of them'],
  ['tag=10,trunks=20', 'tag= and trunks= together need a vlan-mode='],
  ['vlan-mode=trunk,tag=10', 'a trunk has no tag='],
  ['vlan-mode=access', 'vlan-mode=access needs a tag='],
  ['vlan-mode=native-untagged', 'vlan-mode=native-untagged needs a tag='],
  ['vlan-mode=access,tag=1,trunks=2', 'trunks= is invalid with vlan-mode=access'],
  ['tag=1,cvlans=2', 'cvlans= is only valid with vlan-mode=dot1q-tunnel'],
  ['trunks=1,qinq-ethtype=0x8100', 'qinq-ethtype= is only valid with vlan-mode=dot1q-tunnel'],
  ['mac-limit-action=drop', 'mac-limit-action= is only valid with mac-limit='],
  ['macs=02:00:00:00:00:01', 'macs= is only valid with locked=on or guard='],
  ['locked=on,macs=02:00', '"02:00" in macs is not a MAC address'],
  ['locked=on,macs=20-30:20-30:10:0e', '"20-30" in macs is not a MAC address'],
  ['locked=on,macs=02:00-00:00:00:01', '"02:00-00:00:00:01" in macs is not a MAC address'],
  ['locked=on,macs=02:00:00:00:00:01:02-00-00-00-00-02:02', '"02" in macs is not a MAC address'],
  [
    'locked=on,macs=02:00:00:00:00:01:02:00:00:00:00:02,trunks=1-4094',
    '2 addresses in 4094 VLANs are more than 4096 static entries',
  ],
  ['storm=5', '"storm" must be a map of broadcast, multicast, unknown-unicast'],
  ['storm.any=5', 'unknown key "any" in storm'],
  ['storm.broadcast=0', '"storm.broadcast" must be a number from 1 to 200000000'],
  ['group-addresses=10', '"10" in group-addresses is not an octet from 00 to 0f'],
  [
    'vlan-mode=hybrid',
    '"vlan-mode" must be one of access, trunk, native-tagged, native-untagged, dot1q-tunnel',
  ],
])('%s is refused: %s', (more, message) => {
  expect(refusal(`tap,id=a,${more}`)).toBe(message)
})

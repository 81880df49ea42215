/** `framepump show policy`: what ports were given, so that it can be given again. */
import { expect, test } from 'vitest'
import { shownPolicy } from '../../../src/cli/shown-policy.ts'
import { parseNetdev } from '../../../src/config/netdev.ts'

test.each([
  'vlan-mode=native-untagged tag=10 trunks=20-30:40',
  'tag=10 locked=on macs=02-00-00-00-00-01:02-00-00-00-00-02 isolated=on multicast-router=never',
  'macs=02-00-00-00-00-01 guard=mac:arp:ipv6 ips=10.0.0.1:[fd00::1]:[2001:db8::]/64',
  'mac-limit=5 mac-limit-action=drop storm.broadcast=100 storm.multicast=5 flood=off hairpin=on',
  'learning=off sticky=on group-addresses=02:0e mcast-flood=off bcast-flood=off',
])('%s is shown as it was given', (text) => {
  const port = parseNetdev(`tap,id=a,ifname=x0,${text.replaceAll(' ', ',')}`)
  expect(shownPolicy(port).split(' ').toSorted()).toEqual(text.split(' ').toSorted())
})

test('what says nothing of the switch is not there', () => {
  expect(shownPolicy(parseNetdev('tap,id=a,ifname=x0,queues=2'))).toBe('')
})

/** VLANs between real guests: the VLAN interfaces of Linux, one in another, behind trunks and tunnels. */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { download, downloadHost, serve, serveHost } from '../support/guest-transfer.ts'
import { Lab, tapSpec } from '../support/lab.ts'
import { LengthWatch } from '../support/length-watch.ts'
import { bootGuest } from '../support/qemu.ts'

const VLAN = 10
const [SERVICE, CUSTOMER] = [100, 20]

test('V1, V2, V4: TCP passes by access port, trunk and QinQ, with all offloads', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const sockets = [0, 1].map((k) => join(lab.directory, `guest-${k}.sock`))
  const ports = [
    tapSpec(0, netns, `tag=${VLAN},vnet_hdr=on`),
    `vhost-user,id=g0,path=${sockets[0]},trunks=${VLAN}:${SERVICE}`,
    `vhost-user,id=g1,path=${sockets[1]},vlan-mode=dot1q-tunnel,tag=${SERVICE},cvlans=${CUSTOMER}`,
  ]
  const daemon = await lab.daemon(...ports.flatMap((port) => ['--port', port]))
  lab.address(netns, '10.0.10.1')
  const [provider, customer] = await Promise.all(
    sockets.map((socket, k) =>
      bootGuest(lab, { socket, mac: `52:54:00:00:02:0${k}`, address: `10.0.0.${k + 1}/24` }),
    ),
  )
  // The interface of a VLAN is on that of the guest's NIC, or on one that is itself on that.
  const add = (on: string, name: string, vlan: number, address = '', protocol = '802.1Q'): string =>
    [
      `ip link add link ${on} name ${name} type vlan protocol ${protocol} id ${vlan}`,
      ...(address === '' ? [] : [`ip addr add ${address}/24 dev ${name}`]),
      `ip link set ${name} up`,
    ].join(' && ')
  await provider.output(add('eth0', 'access', VLAN, '10.0.10.2'))
  await provider.output(add('eth0', 'service', SERVICE, '', '802.1ad'))
  await provider.output(add('service', 'customer', CUSTOMER, '10.0.20.2'))
  await customer.output(add('eth0', 'customer', CUSTOMER, '10.0.20.1'))

  expect(await provider.ping('10.0.10.1')).toBe(3)
  expect(await customer.ping('10.0.20.2')).toBe(3)
  const [fromHost, fromProvider, fromCustomer] = [
    await serveHost(lab, netns),
    await serve(provider),
    await serve(customer),
  ]
  const watches = [
    await LengthWatch.start(lab, daemon, 'p0', 'in'),
    await LengthWatch.start(lab, daemon, 'p0', 'out'),
  ]
  expect(await download(provider, '10.0.10.1')).toBe(fromHost)
  expect(downloadHost(lab, netns, '10.0.10.2')).toBe(fromProvider)
  for (const lengths of watches) expect(await lengths.longest()).toBeGreaterThan(3000)
  expect(await daemon.stats('p0')).toMatchObject({ tx_segmented: 0 })
  expect(await download(provider, '10.0.20.1')).toBe(fromCustomer)
  expect(await download(customer, '10.0.20.2')).toBe(fromProvider)
  for (const id of ['p0', 'g0', 'g1']) {
    expect(await daemon.stats(id)).toMatchObject({
      rx_drop_malformed: 0,
      rx_drop_vlan: 0,
      tx_drop_offload: 0,
      tx_drop_malformed: 0,
    })
  }
})

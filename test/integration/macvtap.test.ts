/** A macvtap interface that exists is opened by its own device node: frames pass it both ways. */
import { existsSync, rmSync } from 'node:fs'
import { expect, onTestFinished, test } from 'vitest'
import { Lab } from '../support/lab.ts'
import { sh } from '../support/processes.ts'

test('a macvtap in a namespace is a port like a TAP, and stays when the port goes', async () => {
  await using lab = new Lab()
  const [host, far, guest] = [lab.netns(), lab.netns(), lab.netns()]
  sh('ip', '-n', host, 'link', 'add', 'v0', 'type', 'veth', 'peer', 'name', 'v1', 'netns', far)
  sh(
    'ip',
    '-n',
    host,
    'link',
    'add',
    'link',
    'v0',
    'name',
    'm0',
    'type',
    'macvtap',
    'mode',
    'bridge',
  )
  for (const ifname of ['v0', 'm0']) sh('ip', '-n', host, 'link', 'set', ifname, 'up')
  lab.address(far, '10.0.0.2', 'v1')
  const ifindex = lab.exec(host, 'cat', '/sys/class/net/m0/ifindex').trim()
  const node = `/dev/tap${ifindex}`
  // Where /dev is no devtmpfs, nobody but us makes the node.
  if (!existsSync(node)) {
    const numbers = lab.exec(host, 'cat', `/sys/class/net/m0/tap${ifindex}/dev`).trim().split(':')
    sh('mknod', node, 'c', ...numbers)
    // The next interface of that index is another device.
    onTestFinished(() => rmSync(node))
  }
  const daemon = await lab.daemon(
    '--port',
    `tap,id=m,ifname=m0,netns=${host}`,
    '--port',
    `tap,id=g,ifname=x0,netns=${guest}`,
  )
  // A macvtap hands over what is for its own address: the guest behind it has that one.
  sh('ip', '-n', guest, 'link', 'set', 'x0', 'address', lab.mac(host, 'm0'))
  lab.address(guest, '10.0.0.3')

  expect(lab.ping(guest, '10.0.0.2', 5)).toBe(5)
  expect(await daemon.port('m')).toMatchObject({ state: 'open', ifname: 'm0', netns: host })
  await daemon.execute('netdev_del', { id: 'm' })
  expect(lab.exec(host, 'cat', '/sys/class/net/m0/ifindex').trim()).toBe(ifindex)
  await daemon.execute('netdev_add', { type: 'tap', id: 'm', ifname: 'm0', netns: host })
  expect(lab.ping(guest, '10.0.0.2', 5)).toBe(5)
})

test('a macvtap without its device node is named, and nothing is left', async () => {
  await using lab = new Lab()
  const host = lab.netns()
  sh('ip', '-n', host, 'link', 'add', 'v0', 'type', 'veth', 'peer', 'name', 'v1')
  sh('ip', '-n', host, 'link', 'add', 'link', 'v0', 'name', 'm0', 'type', 'macvtap')
  const ifindex = lab.exec(host, 'cat', '/sys/class/net/m0/ifindex').trim()
  if (existsSync(`/dev/tap${ifindex}`)) sh('rm', `/dev/tap${ifindex}`)
  const daemon = await lab.daemon()
  await expect(
    daemon.execute('netdev_add', { type: 'tap', id: 'm', ifname: 'm0', netns: host }),
  ).rejects.toThrow('/dev/net/tun (m0)')
  expect(await daemon.execute('query-ports')).toEqual([])
})

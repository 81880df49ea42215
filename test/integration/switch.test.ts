/** The switch on real TAPs: what a user of a switch relies on. Runs once per I/O tier. */
import { writeFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { frameHex, frameNumber, IFNAME, Lab, tapSpec } from '../support/lab.ts'
import { LengthWatch } from '../support/length-watch.ts'
import { sh, until } from '../support/processes.ts'

const BROADCAST = 'ff:ff:ff:ff:ff:ff'
const STRANGER = '02:00:00:00:00:99'

/** What is sent by it at once waits there when the daemon is not run for a while. */
const makeRoom = (netns: string): string =>
  sh('ip', '-n', netns, 'link', 'set', IFNAME, 'txqueuelen', '30000')

test('pings pass between two TAPs, and the table learns both addresses', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  expect(lab.ping(netns[0], '10.0.0.2', 5)).toBe(5)
  const macs = await daemon.execute<{ mac: string; port: string }[]>('query-mac-table')
  const found = Object.fromEntries(macs.map(({ mac, port }) => [port, mac]))
  expect(found).toEqual({ p0: lab.mac(netns[0]), p1: lab.mac(netns[1]) })
})

test.each(['vnet_hdr=on', 'vnet_hdr=off'])('iperf3 TCP and UDP pass with %s', async (options) => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2, options)
  const run = async (
    ...args: string[]
  ): Promise<{ end: Record<string, Record<string, number>> }> => {
    const server = lab.start(netns[1], 'iperf3', '-s', '-1', '-i', '0', '--forceflush')
    await until('the server listens', () =>
      lab.exec(netns[1], 'ss', '-Hltn', 'sport = :5201').includes('5201'),
    )
    const output = lab.exec(netns[0], 'iperf3', '-c', '10.0.0.2', '-J', ...args)
    await server.exited
    return JSON.parse(output) as { end: Record<string, Record<string, number>> }
  }
  const lengths = await LengthWatch.start(lab, daemon, 'p1', 'out')
  const tcp = await run('-n', '200M')
  expect(tcp.end['sum_received']['bytes']).toBeGreaterThan(199e6)
  // All of them have room with a receiver that is not run for a while.
  const udp = await run('-u', '-b', '5M', '-k', '150', '-w', '200K')
  expect(udp.end['sum']['packets']).toBeGreaterThanOrEqual(150)
  expect(udp.end['sum']['lost_packets']).toBe(0)
  const longest = await lengths.longest()
  expect((await daemon.stats('p1'))['tx_segmented']).toBe(0)
  // With vnet_hdr TCP arrives in frames far beyond the MTU.
  if (options.endsWith('on')) expect(longest).toBeGreaterThan(3000)
  else expect(longest).toBe(1514)
})

test('broadcast, multicast and unknown unicast reach all other ports, known unicast one', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(4)
  const receivers = await Promise.all(netns.map((name) => lab.receive(name, 1000, 800)))
  const source = lab.mac(netns[0])
  const known = '02:00:00:00:00:33'
  await lab.send(netns[3], [frameHex(STRANGER, known, 100)])
  await daemon.came('p3', 1)
  await lab.send(netns[0], [
    frameHex(BROADCAST, source, 1),
    frameHex('01:00:5e:01:02:03', source, 2),
    frameHex(STRANGER, source, 3),
    frameHex(known, source, 4),
    frameHex('01:80:c2:00:00:00', source, 5),
  ])
  await daemon.came('p0', 5)
  const got = await Promise.all(
    receivers.map(async (r) => (await r.frames()).map((f) => frameNumber(f))),
  )
  expect(got).toEqual([[100], [100, 1, 2, 3, 5], [100, 1, 2, 3, 5], [1, 2, 3, 4, 5]])
})

test('802.1D group addresses are dropped and counted when asked for', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const file = `${lab.directory}/switch.yaml`
  writeFileSync(
    file,
    `switch: { group-addresses: 802.1D }\nports:\n${netns
      .map((name, k) => `  - { id: p${k}, type: tap, ifname: x0, netns: ${name}, up: on }\n`)
      .join('')}`,
  )
  const daemon = await lab.daemon('--config', file)
  const receiver = await lab.receive(netns[1], 10, 800)
  const source = lab.mac(netns[0])
  await lab.send(netns[0], [
    frameHex('01:80:c2:00:00:0e', source, 1),
    frameHex('01:80:c2:00:00:10', source, 2),
  ])
  await daemon.came('p0', 2)
  expect((await receiver.frames()).map((f) => frameNumber(f))).toEqual([2])
  expect((await daemon.stats('p0'))['rx_drop_group_address']).toBe(1)
})

test('VLAN tags pass untouched', async () => {
  await using lab = new Lab()
  const { netns } = await lab.star(2)
  const source = lab.mac(netns[0])
  const tagged = frameHex(BROADCAST, source, 7, 80, '8100a064')
  // The receiver filters by ethertype, which the kernel takes from behind the tag.
  const receiver = await lab.receive(netns[1], 1)
  await lab.send(netns[0], [tagged])
  const frames = await receiver.frames()
  expect(frames).toHaveLength(1)
})

test('every flow keeps its order over TAPs of 4 queues', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2, 'queues=4')
  makeRoom(netns[0])
  const receiver = await lab.receive(netns[1], 4000)
  const flows = Array.from(
    { length: 40 },
    (_, flow) => `02:00:00:00:01:${flow.toString(16).padStart(2, '0')}`,
  )
  const frames: string[] = []
  for (let n = 0; n < 100; n++) {
    flows.forEach((source, flow) => frames.push(frameHex(BROADCAST, source, (flow << 16) | n)))
  }
  await lab.send(netns[0], frames)
  const numbers = (await receiver.frames()).map((frame) => frameNumber(frame))
  expect(numbers).toHaveLength(4000)
  for (let flow = 0; flow < flows.length; flow++) {
    const own = numbers.filter((number) => number >>> 16 === flow).map((number) => number & 0xffff)
    expect(own).toEqual(Array.from({ length: 100 }, (_, n) => n))
  }
  expect((await daemon.port('p0'))['queues']).toBe(4)
})

test('16 ports: everybody reaches everybody', async () => {
  await using lab = new Lab()
  const { netns } = await lab.star(16)
  for (let k = 1; k < 16; k++) expect(lab.ping(netns[0], `10.0.0.${k + 1}`, 2)).toBe(2)
  expect(lab.ping(netns[15], '10.0.0.9', 2)).toBe(2)
})

test('addresses age out', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const file = `${lab.directory}/switch.yaml`
  writeFileSync(
    file,
    `switch: { mac-aging-s: 1 }\nports:\n${netns
      .map((name, k) => `  - { id: p${k}, type: tap, ifname: x0, netns: ${name}, up: on }\n`)
      .join('')}`,
  )
  const daemon = await lab.daemon('--config', file)
  await lab.send(netns[0], [frameHex(BROADCAST, STRANGER, 1)])
  await until(
    'it is learnt',
    async () => (await daemon.execute<unknown[]>('query-mac-table')).length > 0,
  )
  await until(
    'it is forgotten',
    async () => (await daemon.execute<unknown[]>('query-mac-table')).length === 0,
  )
})

test('ports are added and removed under traffic, and the others lose nothing', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  const extra = lab.netns()
  makeRoom(netns[0])
  const receiver = await lab.receive(netns[1], 20_000)
  const target = lab.mac(netns[1])
  expect(lab.ping(netns[0], '10.0.0.2', 2)).toBe(2)
  const source = lab.mac(netns[0])
  const frames = Array.from({ length: 20_000 }, (_, n) => frameHex(target, source, n))
  const sending = lab.send(netns[0], frames)
  for (let round = 0; round < 5; round++) {
    await daemon.execute('netdev_add', {
      type: 'tap',
      id: 'extra',
      ifname: 'x0',
      netns: extra,
      up: true,
    })
    await daemon.execute('netdev_del', { id: 'extra' })
  }
  await sending
  const numbers = (await receiver.frames()).map((frame) => frameNumber(frame))
  expect(numbers).toEqual(Array.from({ length: 20_000 }, (_, n) => n))
})

test('stop keeps what the kernel queues hold, cont delivers it in order', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  expect(lab.ping(netns[0], '10.0.0.2', 2)).toBe(2)
  const receiver = await lab.receive(netns[1], 500)
  await daemon.execute('stop')
  expect(await daemon.execute('query-status')).toMatchObject({ status: 'paused', running: false })
  const [source, target] = [lab.mac(netns[0]), lab.mac(netns[1])]
  await lab.send(
    netns[0],
    Array.from({ length: 500 }, (_, n) => frameHex(target, source, n)),
  )
  await daemon.execute('cont')
  const numbers = (await receiver.frames()).map((frame) => frameNumber(frame))
  expect(numbers).toEqual(Array.from({ length: 500 }, (_, n) => n))
})

test('set_link takes the carrier away and counts what it drops', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  expect(lab.ping(netns[0], '10.0.0.2', 2)).toBe(2)
  await daemon.execute('set_link', { name: 'p1', up: false })
  expect(lab.exec(netns[1], 'cat', '/sys/class/net/x0/carrier').trim()).toBe('0')
  const [source, target] = [lab.mac(netns[0]), lab.mac(netns[1])]
  await lab.send(netns[0], [frameHex(target, source, 1)])
  await until(
    'the drop is counted',
    async () => (await daemon.stats('p1'))['tx_drop_link_down'] > 0,
  )
  expect(await daemon.port('p1')).toMatchObject({ state: 'down', link: false })
  await daemon.execute('set_link', { name: 'p1', up: true })
  expect(lab.exec(netns[1], 'cat', '/sys/class/net/x0/carrier').trim()).toBe('1')
  expect(lab.ping(netns[0], '10.0.0.2', 2)).toBe(2)
})

test('a link wires two ports and takes them off the switch', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(4)
  await daemon.execute('link-add', { a: 'p0', b: 'p1' })
  expect(await daemon.execute('query-links')).toEqual([{ a: 'p0', b: 'p1' }])
  expect(lab.ping(netns[0], '10.0.0.2', 2)).toBe(2)
  expect(lab.ping(netns[2], '10.0.0.4', 2)).toBe(2)
  const receiver = await lab.receive(netns[2], 1, 700)
  await lab.send(netns[0], [frameHex(BROADCAST, lab.mac(netns[0]), 1)])
  expect(await receiver.frames()).toEqual([])
  await daemon.execute('link-del', { a: 'p0', b: 'p1' })
  expect(lab.ping(netns[0], '10.0.0.3', 2)).toBe(2)
})

test('mtu is set on the interface, and longer frames are dropped and counted', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const daemon = await lab.daemon(
    '--port',
    tapSpec(0, netns[0], 'up=on,vnet_hdr=off'),
    '--port',
    tapSpec(1, netns[1], 'up=on,vnet_hdr=off,mtu=1000'),
  )
  expect(sh('ip', '-n', netns[1], '-o', 'link', 'show', 'x0')).toContain('mtu 1000')
  const receiver = await lab.receive(netns[1], 10, 800)
  const source = lab.mac(netns[0])
  await lab.send(netns[0], [
    frameHex(BROADCAST, source, 1, 1014),
    frameHex(BROADCAST, source, 2, 1100),
  ])
  await daemon.came('p0', 2)
  expect((await receiver.frames()).map((f) => frameNumber(f))).toEqual([1])
  expect((await daemon.stats('p1'))['tx_drop_mtu']).toBe(1)
})

test('a port without offloads slows nobody: TAPs ask for everything, and it is given segments', async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const daemon = await lab.daemon(
    '--port',
    tapSpec(0, netns[0], 'vnet_hdr=on'),
    '--port',
    tapSpec(1, netns[1], 'vnet_hdr=off'),
  )
  netns.forEach((name, k) => lab.address(name, `10.0.0.${k + 1}`))
  expect(await daemon.port('p0')).toMatchObject({
    offloads: { rx: expect.arrayContaining(['csum', 'tso4']) },
  })
  const server = lab.start(netns[1], 'iperf3', '-s', '-1')
  await until('the server listens', () =>
    lab.exec(netns[1], 'ss', '-Hltn', 'sport = :5201').includes('5201'),
  )
  lab.exec(netns[0], 'iperf3', '-c', '10.0.0.2', '-n', '20M')
  await server.exited
  const stats = await daemon.stats('p1')
  expect(stats['tx_drop_offload']).toBe(0)
  expect(stats['tx_segmented']).toBeGreaterThan(0)
})

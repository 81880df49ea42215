/**
 * What happens to the interface of a TAP beside us: down, no carrier, renamed, moved to another
 * namespace; and what its kernel drops.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Daemon } from '../support/lab.ts'
import { frameHex, frameNumber, IFNAME, Lab, tapSpec } from '../support/lab.ts'
import { sh, until } from '../support/processes.ts'

const mac = (n: number): string => `02:00:00:00:00:0${n}`
const numbers = (count: number): number[] => [...Array(count).keys()]
const BROADCAST = 'ff:ff:ff:ff:ff:ff'

async function macsOf(daemon: Daemon, port: string): Promise<string[]> {
  const rows = await daemon.execute<{ mac: string; port: string }[]>('query-mac-table')
  return rows.filter((row) => row.port === port).map((row) => row.mac)
}

/** Each port has sent a frame from its own address. */
async function learn(lab: Lab, daemon: Daemon, netns: readonly string[]): Promise<void> {
  for (const [k, name] of netns.entries()) await lab.send(name, [frameHex(BROADCAST, mac(k), 0)])
  for (const k of netns.keys()) {
    await until('it is learnt', async () => (await macsOf(daemon, `p${k}`)).includes(mac(k)))
  }
}

test.each([
  ['is set down', ['down'], ['up'], 'down'],
  ['loses its carrier', ['carrier', 'off'], ['carrier', 'on'], 'no-carrier'],
])('an interface that %s loses its addresses, and says so', async (_, away, back, device) => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(3)
  await learn(lab, daemon, netns)
  sh('ip', '-n', netns[1], 'link', 'set', IFNAME, ...away)
  // The kernel tells of a carrier with a delay.
  const isDevice = async (is: string): Promise<boolean> =>
    (await daemon.port('p1'))['device'] === is
  if (device === 'no-carrier') await until('it is told', () => isDevice(device))
  expect(await daemon.port('p1')).toMatchObject({ state: 'down', device, link: true })
  await until('they are forgotten', async () => (await macsOf(daemon, 'p1')).length === 0)
  expect(await macsOf(daemon, 'p0')).toEqual([mac(0)])
  // Whoever has moved elsewhere is found.
  const receiver = await lab.receive(netns[2], 1)
  await lab.send(netns[0], [frameHex(mac(1), mac(0), 7)])
  expect((await receiver.frames()).map((hex) => frameNumber(hex))).toEqual([7])

  sh('ip', '-n', netns[1], 'link', 'set', IFNAME, ...back)
  if (device === 'no-carrier') await until('it is told', () => isDevice('up'))
  expect(await daemon.port('p1')).toMatchObject({ state: 'open', device: 'up' })
  const again = await lab.receive(netns[1], 1)
  await lab.send(netns[0], [frameHex(BROADCAST, mac(0), 8)])
  expect((await again.frames()).map((hex) => frameNumber(hex))).toEqual([8])
})

test('what is shown stays true while an interface is renamed, moved and set down elsewhere', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  const other = lab.netns()
  sh('ip', '-n', netns[1], 'link', 'set', IFNAME, 'name', 'y1')
  expect(await daemon.port('p1')).toMatchObject({ ifname: 'y1', netns: netns[1], state: 'open' })
  sh('ip', '-n', netns[1], 'link', 'set', 'y1', 'netns', other)
  // The kernel sets down what it moves.
  expect(await daemon.port('p1')).toMatchObject({ ifname: 'y1', netns: other, state: 'down' })
  sh('ip', '-n', other, 'link', 'set', 'y1', 'up')
  expect(await daemon.port('p1')).toMatchObject({ netns: other, state: 'open' })
  await lab.send(netns[0], [frameHex(BROADCAST, mac(0), 0)])
  const client = await daemon.port('p0')
  expect(client).toMatchObject({ state: 'open', device: 'up' })
  // Another interface that takes the old name is another one.
  sh('ip', '-n', netns[1], 'tuntap', 'add', IFNAME, 'mode', 'tap')
  expect(await daemon.port('p1')).toMatchObject({ state: 'open', device: 'up' })
  sh('ip', '-n', other, 'link', 'set', 'y1', 'down')
  await until('nobody asks, and it is known', async () =>
    /p1.* down /.test(sh('node', ...showPorts(daemon))),
  )
})

const showPorts = ({ control }: Daemon): string[] => [
  new URL('../../dist/cli/main.js', import.meta.url).pathname,
  'show',
  'ports',
  '--control',
  control,
]

test('a daemon that has given up its privileges sees it as well', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const daemon = await lab.daemon('--privileges', 'locked', '--port', tapSpec(0, netns, 'up=on'))
  expect(await daemon.port('p0')).toMatchObject({ state: 'open', device: 'up' })
  sh('ip', '-n', netns, 'link', 'set', IFNAME, 'down')
  expect(await daemon.port('p0')).toMatchObject({ state: 'down', device: 'down' })
  sh('ip', '-n', netns, 'link', 'set', IFNAME, 'up')
  expect(await daemon.port('p0')).toMatchObject({ state: 'open', device: 'up', netns })
  expect(await daemon.stats('p0')).toHaveProperty('rx_kernel_dropped')
})

test('a change is told of by an event, without anybody asking; what others do is none', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(1)
  const changes: string[] = []
  daemon.client.events.on('event', (name: string, data: Record<string, unknown>) => {
    if (name === 'PORT_LINK_CHANGED') changes.push(String(data['state']))
  })
  // What was told of the start is in before the answer.
  expect(await daemon.port('p0')).toMatchObject({ device: 'up' })
  changes.length = 0
  // More than a socket buffer holds of messages about others.
  const batch = join(lab.directory, 'batch')
  writeFileSync(
    batch,
    numbers(2000)
      .map((n) => `link set lo mtu ${2000 + n}\n`)
      .join(''),
  )
  sh('ip', '-n', netns[0], '-batch', batch)
  sh('ip', '-n', netns[0], 'link', 'set', IFNAME, 'down')
  await until('the event', () => changes.includes('down'))
  sh('ip', '-n', netns[0], 'link', 'set', IFNAME, 'up')
  await until('the event', () => changes.includes('open'))
  expect(changes).toEqual(['down', 'open'])
})

test('what the kernel drops for want of room is shown beside what was forwarded', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await lab.star(2)
  await daemon.execute('stop')
  const before = await daemon.stats('p0')
  expect(before['rx_kernel_dropped']).toBe(0)
  const frames = Array.from({ length: 1500 }, (_, n) => frameHex(BROADCAST, mac(0), n))
  await lab.send(netns[0], frames)
  await until('all are accounted for', async () => {
    const { rx_kernel_dropped: dropped } = await daemon.stats('p0')
    return dropped > 0
  })
  await daemon.execute('cont')
  await until('the rest has come', async () => {
    const { rx_frames: came, rx_kernel_dropped: dropped } = await daemon.stats('p0')
    return came + dropped === 1500
  })
  expect(sh('node', ...showPorts(daemon).with(2, 'stats'))).toMatch(/p0 +rx_kernel_dropped +\d+/)
})

/** VLANs and isolation in a running daemon, between the kernel's own stacks: the examples, and TCP over a trunk. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parse, stringify } from 'yaml'
import type { Daemon } from '../support/lab.ts'
import { compiledTool, frameHex, IFNAME, IO, Lab, ROOT, tapSpec } from '../support/lab.ts'
import { LengthWatch } from '../support/length-watch.ts'
import { sh, until, words } from '../support/processes.ts'
import { transferTcp } from '../support/transfer.ts'

interface Example {
  readonly ports: readonly ({ id: string } & Record<string, unknown>)[]
}

/** What an option of a kind says; the others are how the port takes part in the switch. */
const OF_KIND = ['type', 'path', 'ifname', 'up', 'script', 'downscript']

/** The example with TAPs, whose other ends are namespaces: by id. */
async function run(
  lab: Lab,
  name: string,
): Promise<{ daemon: Daemon; netns: Record<string, string> }> {
  const example = parse(readFileSync(join(ROOT, `config/examples/${name}`), 'utf8')) as Example
  const netns = Object.fromEntries(example.ports.map(({ id }) => [id, lab.netns()]))
  const ports = example.ports.map((port) => ({
    ...Object.fromEntries(Object.entries(port).filter(([key]) => !OF_KIND.includes(key))),
    type: 'tap',
    ifname: IFNAME,
    netns: netns[port.id],
  }))
  const file = join(lab.directory, 'config.yaml')
  writeFileSync(file, stringify({ ports }))
  const daemon = await lab.daemon('--config', file)
  for (const [at, { id }] of example.ports.entries()) lab.address(netns[id], `10.0.0.${at + 1}`)
  return { daemon, netns }
}

/** Of 64 KiB, of each transfer. */
const BLOCKS = 50
const [OTHER, SOURCE] = ['02:00:00:00:00:99', '02:00:00:00:00:98']

test('the example: three guests in two VLANs, and a trunk', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await run(lab, 'vlans.yaml')
  expect(lab.ping(netns['vm1'], '10.0.0.2')).toBe(3)
  expect(lab.ping(netns['vm1'], '10.0.0.3', 1)).toBe(0)
  const receiver = await lab.receiveTagged(netns['uplink'], 40, 1500)
  await lab.send(netns['vm3'], [frameHex(OTHER, SOURCE, 7)])
  await daemon.came('vm3', 1)
  expect(await receiver.frames()).toContain(frameHex(OTHER, SOURCE, 7, 64, '81000014'))
  const untagged = await lab.receive(netns['vm1'], 1)
  await lab.send(netns['uplink'], [
    frameHex(OTHER, SOURCE, 8, 60, '81000014'),
    frameHex(OTHER, SOURCE, 9, 60, '8100000a'),
  ])
  expect(await untagged.frames()).toEqual([frameHex(OTHER, SOURCE, 9, 56)])
  expect(await daemon.execute('query-vlans')).toEqual([
    { vlan: 0, tagged: [], untagged: [] },
    { vlan: 10, tagged: ['uplink'], untagged: ['vm1', 'vm2'] },
    { vlan: 20, tagged: ['uplink'], untagged: ['vm3'] },
  ])
})

test("the example: customers' VLANs in those of a provider", async () => {
  await using lab = new Lab()
  const { daemon, netns } = await run(lab, 'qinq.yaml')
  const receiver = await lab.receiveTagged(netns['uplink'], 40, 1500)
  await lab.send(netns['red'], [frameHex(OTHER, SOURCE, 1, 60, '8100012c')])
  await lab.send(netns['blue'], [
    frameHex(OTHER, SOURCE, 2, 60, '8100000a'),
    frameHex(OTHER, SOURCE, 3, 60, '8100012c'),
  ])
  await daemon.came('red', 1)
  await daemon.came('blue', 2)
  const frames = await receiver.frames()
  expect(frames).toContain(frameHex(OTHER, SOURCE, 1, 64, '88a800648100012c'))
  expect(frames).toContain(frameHex(OTHER, SOURCE, 2, 64, '88a800c88100000a'))
  expect(await daemon.stats('blue')).toMatchObject({ rx_drop_vlan: 1 })
  const red = await lab.receiveTagged(netns['red'], 1)
  await lab.send(netns['uplink'], [frameHex(SOURCE, OTHER, 4, 60, '88a800648100012c')])
  expect(await red.frames()).toEqual([frameHex(SOURCE, OTHER, 4, 56, '8100012c')])
})

test('P1, the example: sandboxes reach the uplink and not one another', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await run(lab, 'private-vlan.yaml')
  for (const id of ['job1', 'job2', 'job3']) {
    expect(lab.ping(netns[id], '10.0.0.4')).toBe(3)
    expect(lab.ping(netns['uplink'], `10.0.0.${id.slice(3)}`)).toBe(3)
  }
  // Also with the address at hand, so that nobody has to be asked for it.
  const mac = lab.mac(netns['job2'])
  lab.exec(netns['job1'], ...words(`ip neigh replace 10.0.0.2 lladdr ${mac} dev ${IFNAME}`))
  expect(lab.ping(netns['job1'], '10.0.0.2', 1)).toBe(0)
  await until('it is dropped', async () => (await daemon.stats('job2'))['tx_drop_isolated'] > 0)
  expect(await daemon.port('job1')).toMatchObject({ isolated: true })
})

test('V1, V2, V3: TCP passes from access port to access port over a trunk, with and without TSO', async () => {
  await using lab = new Lab()
  const between = lab.netns()
  sh('ip', '-n', between, ...words('link add t0 type veth peer name t1'))
  for (const name of ['t0', 't1']) sh('ip', '-n', between, 'link', 'set', name, 'up')
  const ends = [0, 1].map((at) => ({ netns: lab.netns(), address: `10.0.0.${at + 1}` }))
  const modes = ['tag=10,vnet_hdr=on', 'vlan-mode=native-untagged,tag=10,trunks=20,vnet_hdr=off']
  for (const [at, { netns, address }] of ends.entries()) {
    const trunk = `raw-socket,id=trunk,ifname=t${at},netns=${between},trunks=10`
    const port = tapSpec(0, netns, modes[at])
    await lab.daemon('--port', trunk, '--port', port)
    lab.address(netns, address)
  }
  expect(lab.ping(ends[0].netns, ends[1].address)).toBe(3)
  await transferTcp(lab, ends[0], ends[1], 200)
  await transferTcp(lab, ends[1], ends[0], 200)
}, 60_000)

/** What leaves the interface has these tags, the inner one first; what comes loses as many. */
function tagAll(lab: Lab, netns: string, ...vids: readonly number[]): void {
  if (vids.length > 0) lab.exec(netns, compiledTool('vlan-push'), IFNAME, ...vids.map(String))
}

test.each([
  { what: 'access and trunk', ports: ['tag=10', 'trunks=10'], near: [], far: [10] },
  {
    what: 'native VLAN and trunk',
    ports: ['vlan-mode=native-untagged,tag=10', 'trunks=10'],
    near: [],
    far: [10],
  },
  {
    what: 'a tunnel of untagged frames and a trunk',
    ports: ['vlan-mode=dot1q-tunnel,tag=100,qinq-ethtype=0x8100', 'trunks=100'],
    near: [],
    far: [100],
  },
  {
    what: 'a tunnel and a trunk, which is QinQ',
    ports: ['vlan-mode=dot1q-tunnel,tag=100,cvlans=20', 'trunks=100'],
    near: [20],
    far: [20, 100],
  },
  {
    what: 'two tunnels',
    ports: ['vlan-mode=dot1q-tunnel,tag=100', 'vlan-mode=dot1q-tunnel,tag=100'],
    near: [20],
    far: [20],
  },
])('V1, V2, V3, V4: TCP passes between $what', { timeout: 120_000 }, async (choice) => {
  for (const vnetHdr of [
    ['on', 'on'],
    ['on', 'off'],
    ['off', 'on'],
  ]) {
    await using lab = new Lab()
    const ends = [0, 1].map((at) => ({ netns: lab.netns(), address: `10.0.0.${at + 1}` }))
    const specs = ends.map(({ netns }, at) =>
      tapSpec(at, netns, `${choice.ports[at]},vnet_hdr=${vnetHdr[at]}`),
    )
    const daemon = await lab.daemon(...specs.flatMap((spec) => ['--port', spec]))
    for (const [at, { netns, address }] of ends.entries()) {
      lab.address(netns, address)
      tagAll(lab, netns, ...(at === 0 ? choice.near : choice.far))
    }
    expect(lab.ping(ends[0].netns, ends[1].address)).toBe(3)
    const watches: LengthWatch[] = []
    for (const port of ['p0', 'p1']) watches.push(await LengthWatch.start(lab, daemon, port, 'in'))
    await transferTcp(lab, ends[0], ends[1], BLOCKS)
    await transferTcp(lab, ends[1], ends[0], BLOCKS)
    for (const port of ['p0', 'p1']) {
      const stats = await daemon.stats(port)
      expect(stats['tx_drop_malformed']).toBe(0)
      // Where both ends have long frames the switch cuts none for the sake of a tag.
      if (!vnetHdr.includes('off')) expect(stats['tx_segmented']).toBe(0)
    }
    if (vnetHdr.includes('off') || choice.far.length > 1) continue
    for (const lengths of watches) expect(await lengths.longest()).toBeGreaterThan(2000)
  }
})

test(`F2, P3: static entries and locked ports by the config, a reload and commands (${IO})`, async () => {
  await using lab = new Lab()
  const netns = [lab.netns(), lab.netns()]
  const macs = ['02:00:00:00:00:01', '02:00:00:00:00:02']
  const file = join(lab.directory, 'config.yaml')
  const write = (locked: readonly string[], fdb: readonly object[]): void => {
    const ports = netns.map((name, at) => ({
      id: `p${at}`,
      type: 'tap',
      ifname: IFNAME,
      netns: name,
      ...(at === 0 ? { locked: true, macs: locked } : {}),
    }))
    writeFileSync(file, stringify({ ports, fdb }))
  }
  write([macs[0]], [{ mac: macs[1], vlan: 7, port: 'p1' }])
  const daemon = await lab.daemon('--config', file)
  for (const [at, name] of netns.entries()) {
    sh('ip', '-n', name, 'link', 'set', IFNAME, 'address', macs[at])
    lab.address(name, `10.0.0.${at + 1}`)
  }
  const statics = async (): Promise<unknown> => {
    const all = await daemon.execute<{ static?: boolean }[]>('query-mac-table')
    return all.filter((entry) => entry.static === true)
  }
  const entry = (at: number, vlan: number): object => ({
    mac: macs[at],
    vlan,
    port: `p${at}`,
    'age-s': 0,
    static: true,
  })
  expect(await statics()).toEqual(expect.arrayContaining([entry(0, 0), entry(1, 7)]))
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  // Another address is nobody's here.
  write(['02:00:00:00:00:07'], [])
  const reloaded = await daemon.execute<{ actions: string[] }>('config-reload')
  expect(reloaded.actions).toEqual([`fdb-del ${macs[1]}`, 'change p0 macs'])
  expect(lab.ping(netns[0], '10.0.0.2', 1)).toBe(0)
  await until('it is dropped', async () => (await daemon.stats('p0'))['rx_drop_locked'] > 0)
  await daemon.execute('fdb-add', { mac: macs[0], port: 'p0' })
  expect(lab.ping(netns[0], '10.0.0.2')).toBe(3)
  await daemon.execute('fdb-flush', { which: 'all' })
  expect(await statics()).toEqual([{ ...entry(0, 0), mac: '02:00:00:00:00:07' }])
  await expect(daemon.execute('fdb-del', { mac: macs[0] })).rejects.toThrow('no static entry')
})

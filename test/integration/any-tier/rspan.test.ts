/**
 * Mirrors into a VLAN, of a daemon between the kernel's own stacks.
 *
 *     [vm1]--access 10 \               / trunk 10, 900--[uplink]
 *                       > switch, mirror
 *     [vm2]--access 10 /               \ access 900--[mon]
 */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parse, stringify } from 'yaml'
import type { Daemon } from '../../support/lab.ts'
import { CLI, frameHex, frameNumber, IFNAME, Lab, ROOT } from '../../support/lab.ts'
import { sh, until } from '../../support/processes.ts'
import { transferTcp } from '../../support/transfer.ts'
import { Watch } from '../../support/watch.ts'

interface Example {
  readonly ports: readonly ({ id: string } & Record<string, unknown>)[]
  readonly mirrors: readonly object[]
}

const IDS = ['vm1', 'vm2', 'uplink', 'mon'] as const
type Netns = Record<(typeof IDS)[number], string>

const OTHER = '02:00:00:00:00:99'
const SENDER = '02:00:00:00:00:98'

/** The example with TAPs of these options, whose other ends are namespaces. */
async function run(
  lab: Lab,
  options: Partial<Record<(typeof IDS)[number], object>> = {},
): Promise<{ daemon: Daemon; netns: Netns }> {
  const text = readFileSync(join(ROOT, 'config/examples/rspan.yaml'), 'utf8')
  const { ports, mirrors } = parse(text) as Example
  expect(ports.map(({ id }) => id)).toEqual(IDS)
  const netns = Object.fromEntries(IDS.map((id) => [id, lab.netns()])) as Netns
  const taps = ports.map(({ id, tag, trunks }) => ({
    id,
    type: 'tap',
    ifname: IFNAME,
    netns: netns[id as (typeof IDS)[number]],
    ...(tag === undefined ? {} : { tag }),
    ...(trunks === undefined ? {} : { trunks }),
    ...options[id as (typeof IDS)[number]],
  }))
  const file = join(lab.directory, 'config.yaml')
  writeFileSync(file, stringify({ ports: taps, mirrors }))
  const daemon = await lab.daemon('--config', file)
  for (const id of IDS) sh('ip', '-n', netns[id], 'link', 'set', IFNAME, 'up')
  return { daemon, netns }
}

test('M4, the example: copies leave by the trunk in VLAN 900, and at the analyser without a tag', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await run(lab)
  const trunk = await Watch.start(lab, netns.uplink, { mode: 'tags' })
  const analyser = await lab.receive(netns.mon, 3)
  await lab.send(netns.vm1, [frameHex(OTHER, SENDER, 1)])
  // Towards vm1, as it leaves there.
  await lab.send(netns.uplink, [frameHex(SENDER, OTHER, 2, 64, '8100a00a')])
  // In VLAN 900 already: it is not copied, and the analyser has it once.
  await lab.send(netns.uplink, [frameHex(SENDER, OTHER, 3, 64, '81000384')])
  expect((await analyser.frames()).map((hex) => frameNumber(hex))).toEqual([1, 2, 3])
  const out = await trunk.count(3)
  expect(out).toContain(frameHex(OTHER, SENDER, 1, 64, '8100000a'))
  expect(out).toContain(frameHex(OTHER, SENDER, 1, 64, '81000384'))
  expect(out).toContain(frameHex(SENDER, OTHER, 2, 64, '81000384'))
  expect(await daemon.execute('query-mirrors')).toMatchObject([
    { name: 'vm1-rspan', 'output-vlan': 900, missing: [] },
  ])
  const macs = await daemon.execute<{ vlan: number }[]>('query-mac-table')
  expect(macs.filter(({ vlan }) => vlan === 900)).toEqual([])
  const shown = sh(process.execPath, CLI, 'show', 'mirrors', '--control', daemon.control)
  expect(shown).toMatch(/vm1-rspan +vm1 +vm1 +all +vlan 900 /)
})

test('M4, M5: of a TCP transfer the trunk has GSO frames with the tag, the analyser segments with right checksums', async () => {
  await using lab = new Lab()
  const offloads = { vnet_hdr: true }
  const taking = { vm1: offloads, vm2: offloads, uplink: offloads, mon: { vnet_hdr: false } }
  const { daemon, netns } = await run(lab, taking)
  const ends = [netns.vm1, netns.vm2].map((name, k) => ({
    netns: name,
    address: `10.0.0.${k + 1}`,
  }))
  for (const { netns: name, address } of ends) lab.address(name, address)
  const file = join(lab.directory, 'uplink.pcapng')
  const capture = { path: file, ports: ['uplink'], direction: 'out', snaplen: 262_144 }
  const { id } = await daemon.execute<{ id: number }>('capture-start', capture)
  const segments = join(lab.directory, 'mon.pcapng')
  const dump = lab.start(netns.mon, 'dumpcap', '-B', '64', '-i', IFNAME, '-w', segments)
  await until('it listens', () => dump.stderr.includes('File:'))
  await transferTcp(lab, ends[0], ends[1], 2)
  await daemon.execute('capture-stop', { id })
  const count = (from: string, filter: string): number => {
    const checked = ['-o', 'tcp.check_checksum:TRUE', '-o', 'ip.check_checksum:TRUE']
    // While it is written it may end in the middle of a frame.
    const { stdout } = spawnSync('tshark', ['-r', from, ...checked, '-Y', filter], {
      encoding: 'utf8',
    })
    return stdout.split('\n').length - 1
  }
  await until('the end was seen', () => count(segments, 'tcp.flags.fin == 1') >= 2)
  await dump.stop('SIGINT')
  const right = 'tcp.checksum.status == 1 && ip.checksum.status == 1'
  expect(count(segments, `tcp && ${right} && !vlan`)).toBeGreaterThan(2 * 40)
  expect(count(segments, `tcp && !(${right})`)).toBe(0)
  expect(count(file, 'vlan.id == 900 && frame.len > 1518')).toBeGreaterThan(0)
  expect(count(file, 'tcp && vlan.id != 900')).toBe(0)
  const [onTrunk, atAnalyser] = [await daemon.stats('uplink'), await daemon.stats('mon')]
  expect([onTrunk['tx_segmented'], onTrunk['tx_drop_offload']]).toEqual([0, 0])
  expect(atAnalyser['tx_segmented']).toBeGreaterThan(0)
  expect(atAnalyser['tx_drop_offload']).toBe(0)
})

test('M4: a reload changes the VLAN; mirror-add says what is wrong', async () => {
  await using lab = new Lab()
  const { daemon, netns } = await run(lab)
  const file = join(lab.directory, 'config.yaml')
  const config = parse(readFileSync(file, 'utf8')) as Example
  writeFileSync(file, stringify(config).replaceAll('900', '901'))
  const { actions } = await daemon.execute<{ actions: string[] }>('config-reload')
  expect(actions).toContain('mirror vm1-rspan')
  const trunk = await Watch.start(lab, netns.uplink, { mode: 'tags' })
  const analyser = await lab.receive(netns.mon, 1)
  await lab.send(netns.vm1, [frameHex(OTHER, SENDER, 1)])
  expect((await analyser.frames()).map((hex) => frameNumber(hex))).toEqual([1])
  expect(await trunk.count(2)).toContain(frameHex(OTHER, SENDER, 1, 64, '81000385'))
  const add = (output: object): Promise<unknown> =>
    daemon.execute('mirror-add', { name: 'm', 'select-all': true, ...output })
  await expect(add({})).rejects.toThrow(
    'it has one output: give output-port, output-vlan or erspan',
  )
  await expect(add({ 'output-vlan': 4095 })).rejects.toThrow('in the range of 1 to 4094')
  await add({ 'output-vlan': 901 })
})

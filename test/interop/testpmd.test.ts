/** DPDK's virtio-user front-end, on every path that its driver has. */
import { readFileSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { watchChecksums } from '../support/checksums.ts'
import type { Daemon } from '../support/lab.ts'
import { IFNAME, Lab, tapSpec } from '../support/lab.ts'
import { sh, until, words } from '../support/processes.ts'
import type { Testpmd } from '../support/testpmd.ts'
import { HugePages } from '../support/huge-pages.ts'
import { startTestpmd, TESTPMD_PAGES, testpmdMac } from '../support/testpmd.ts'
import { transferTcp, transferUdpGso } from '../support/transfer.ts'

const VIRTIO_NET_F_MRG_RXBUF = 15n
const VIRTIO_F_RING_PACKED = 34n
const VIRTIO_F_IN_ORDER = 35n

/** Frames that a port must have received before a path counts as tried. */
const BULK = 200_000
const HOST = '10.0.0.1'
const BLOCKS = 64
const GSO_SENDS = 10

let pages: HugePages
beforeAll(() => {
  pages = new HugePages(TESTPMD_PAGES)
})
afterAll(() => pages.putBack())

interface Rig {
  readonly daemon: Daemon
  /** A namespace with a TAP on the switch. */
  readonly netns: string
  readonly sockets: readonly string[]
  readonly state: string
}

/** A switch with a TAP and two vhost-user ports, g0 and g1. */
async function rig(lab: Lab, options = ''): Promise<Rig> {
  const netns = lab.netns()
  const state = join(lab.directory, 'state')
  const file = join(lab.directory, 'switch.yaml')
  writeFileSync(file, `state-dir: ${state}\n`)
  const sockets = [0, 1].map((k) => join(lab.directory, `vhost-${k}.sock`))
  const ports = sockets.map((path, k) => `vhost-user,id=g${k},path=${path}${options}`)
  const specs = [tapSpec(0, netns), ...ports].flatMap((port) => ['--port', port])
  const daemon = await lab.daemon('--config', file, ...specs)
  lab.address(netns, HOST)
  return { daemon, netns, sockets, state }
}

const statesAre = (daemon: Daemon, state: string): Promise<void> =>
  until(`both ports are ${state}`, async () => {
    const ports = await Promise.all(['g0', 'g1'].map((id) => daemon.port(id)))
    return ports.every((port) => port['state'] === state)
  })

/** What a process has open. */
const descriptorsOf = (pid: number): string[] =>
  readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`)
    } catch {
      // Closed meanwhile.
      return ''
    }
  })

/** Kilobytes of huge pages that a process has mapped. */
function hugeKbOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  const found = [...text.matchAll(/^(?:Shared|Private)_Hugetlb: *(\d+) kB$/gm)]
  return found.reduce((sum, [, kb]) => sum + Number(kb), 0)
}

/** Whether the driver of a port acknowledged a feature. */
function hasAcked(rig: Rig, port: string, feature: bigint): boolean {
  const text = readFileSync(join(rig.state, `vhost-user-${port}.json`), 'utf8')
  const { features } = JSON.parse(text) as { features: string }
  return ((BigInt(features) >> feature) & 1n) === 1n
}

/** testpmd answers ping on its first port; what comes back is compared by ping, byte by byte. */
async function expectEcho(lab: Lab, rig: Rig, testpmd: Testpmd): Promise<void> {
  await testpmd.command('set portlist 0')
  await testpmd.command('set fwd icmpecho')
  await testpmd.command('start')
  for (const length of [18, 1000, 1472]) {
    // With a deadline ping waits for the last reply, too, and may have sent more until it comes.
    const ping = `ping -n -c 20 -i 0.01 -w 20 -s ${length} -p c3 10.0.0.99`
    const output = lab.exec(rig.netns, ...words(ping))
    const answered = [...output.matchAll(/icmp_seq=(\d+)/g)].map(([, number]) => Number(number))
    expect(answered.length).toBeGreaterThanOrEqual(20)
    expect(answered.toSorted((a, b) => a - b)).toEqual(answered.map((_number, k) => k + 1))
    expect(output).not.toContain('wrong data')
  }
  await testpmd.command('stop')
}

/** Frames go round: whatever a port receives, testpmd sends back to it by the other one. */
async function expectBulk(rig: Rig, testpmd: Testpmd, length: number): Promise<void> {
  await testpmd.command('set portlist 0,1')
  await testpmd.command(`set eth-peer 0 ${testpmdMac(1)}`)
  await testpmd.command(`set eth-peer 1 ${testpmdMac(0)}`)
  await testpmd.command('set fwd mac')
  await testpmd.command(`set txpkts ${length}`)
  const before = [await testpmd.stats(0), await testpmd.stats(1)]
  await testpmd.command('start tx_first 4')
  for (const port of [0, 1]) {
    await until(
      `port ${port} of testpmd has received ${BULK} frames`,
      async () => (await testpmd.stats(port)).rxPackets - before[port].rxPackets > BULK,
      60_000,
    )
  }
  await testpmd.command('stop')
  for (const port of [0, 1]) {
    expect(await testpmd.stats(port)).toMatchObject({
      rxErrors: 0,
      txErrors: before[port].txErrors,
    })
    const { rx_drop_malformed, rx_frames, rx_bytes } = await rig.daemon.stats(`g${port}`)
    expect(rx_drop_malformed).toBe(0)
    expect(rx_bytes / rx_frames).toBeGreaterThan(60)
  }
}

/** What decides which of its functions the driver uses. */
const PATHS = [
  'packed_vq=0,mrg_rxbuf=0,in_order=0',
  'packed_vq=0,mrg_rxbuf=0,in_order=0,vectorized=1',
  'packed_vq=0,mrg_rxbuf=0,in_order=1',
  'packed_vq=0,mrg_rxbuf=1,in_order=0',
  'packed_vq=0,mrg_rxbuf=1,in_order=1',
  'packed_vq=1,mrg_rxbuf=0,in_order=0',
  'packed_vq=1,mrg_rxbuf=0,in_order=1',
  // On a CPU with AVX-512.
  'packed_vq=1,mrg_rxbuf=0,in_order=1,vectorized=1',
  'packed_vq=1,mrg_rxbuf=1,in_order=0',
  'packed_vq=1,mrg_rxbuf=1,in_order=1',
]

test.each(PATHS)('frames pass with %s', async (device) => {
  await using lab = new Lab()
  const r = await rig(lab)
  const testpmd = await startTestpmd(lab, {
    devices: r.sockets.map((socket) => `path=${socket},${device}`),
    eal: ['--force-max-simd-bitwidth=512'],
  })
  await statesAre(r.daemon, 'connected')
  for (const port of ['g0', 'g1']) {
    expect(hasAcked(r, port, VIRTIO_F_RING_PACKED)).toBe(device.includes('packed_vq=1'))
    expect(hasAcked(r, port, VIRTIO_NET_F_MRG_RXBUF)).toBe(device.includes('mrg_rxbuf=1'))
    expect(hasAcked(r, port, VIRTIO_F_IN_ORDER)).toBe(device.includes('in_order=1'))
  }
  await expectEcho(lab, r, testpmd)
  await expectBulk(r, testpmd, 64)
  await expectBulk(r, testpmd, 1514)
  await testpmd.quit()
  await statesAre(r.daemon, 'disconnected')
})

const SCATTERED = PATHS.filter((device) => !device.includes('vectorized'))

test.each(SCATTERED.flatMap((device) => [300, 2000].map((length) => [length, device] as const)))(
  'frames of four segments of %i bytes pass with %s',
  async (length, device) => {
    await using lab = new Lab()
    const r = await rig(lab)
    const testpmd = await startTestpmd(lab, {
      devices: r.sockets.map((socket) => `path=${socket},${device}`),
      args: ['--tx-offloads=0x8000'],
    })
    await statesAre(r.daemon, 'connected')
    await testpmd.command('set portlist 0')
    await testpmd.command(`set eth-peer 0 ${lab.mac(r.netns)}`)
    await testpmd.command('set fwd txonly')
    await testpmd.command(`set txpkts ${[length, length, length, length].join(',')}`)
    await testpmd.command('start')
    await until(
      'frames have come',
      async () => (await r.daemon.stats('g0')).rx_frames > BULK / 10,
      60_000,
    )
    await testpmd.command('stop')
    const { txPackets } = await testpmd.stats(0)
    await until('all of them', async () => (await r.daemon.stats('g0')).rx_frames === txPackets)
    const { rx_bytes, rx_drop_malformed } = await r.daemon.stats('g0')
    expect([rx_bytes, rx_drop_malformed]).toEqual([4 * length * txPackets, 0])
    expect((await r.daemon.port('g0'))['state']).toBe('connected')
    await testpmd.quit()
  },
)

test.each([
  { queues: 4, device: 'mrg_rxbuf=1,in_order=0' },
  { queues: 8, device: 'mrg_rxbuf=1,in_order=1' },
  { queues: 8, device: 'mrg_rxbuf=1,packed_vq=1' },
])('$queues queue pairs are all used ($device)', async ({ queues, device }) => {
  await using lab = new Lab()
  const r = await rig(lab, `,queues=${queues}`)
  const testpmd = await startTestpmd(lab, {
    devices: r.sockets.map((socket) => `path=${socket},${device},queues=${queues}`),
    queues,
  })
  await expectEcho(lab, r, testpmd)
  // Many flows into the guest: each receiveq has its share of them.
  await testpmd.command('start')
  const pings = 'for k in $(seq 100 227); do ping -n -c 1 -W 5 10.0.0.$k; done'
  const output = lab.exec(r.netns, 'sh', '-c', pings)
  expect(output.match(/ 0% packet loss/g)).toHaveLength(128)
  await testpmd.command('stop')
  const statistics = await testpmd.command('show port xstats 0')
  const used = Array.from({ length: queues }, (_, queue) =>
    Number(new RegExp(`rx_q${queue}_good_packets: (\\d+)`).exec(statistics)?.[1]),
  )
  expect(Math.min(...used)).toBeGreaterThan(0)
  await expectBulk(r, testpmd, 64)
})

test('ports stop and start again, with more queues and fewer', async () => {
  await using lab = new Lab()
  const r = await rig(lab, ',queues=4')
  const testpmd = await startTestpmd(lab, {
    devices: r.sockets.map((socket) => `path=${socket},mrg_rxbuf=1,queues=4`),
    queues: 4,
  })
  for (const queues of [1, 2, 4, 1, 4]) {
    // virtio-user keeps its rings while its port is stopped: it only disables queues.
    await testpmd.command('port stop all')
    await testpmd.command(`port config all rxq ${queues}`)
    await testpmd.command(`port config all txq ${queues}`)
    const output = await testpmd.command('port start all')
    expect(output).toContain('Done')
    await statesAre(r.daemon, 'connected')
    await expectEcho(lab, r, testpmd)
    await expectBulk(r, testpmd, 64)
  }
})

test('on a link the queues of a TAP follow those of testpmd', async () => {
  await using lab = new Lab()
  const netns = lab.netns()
  const path = join(lab.directory, 'vhost.sock')
  const specs = [tapSpec(0, netns, 'queues=4'), `vhost-user,id=g0,path=${path},queues=4`]
  const ports = specs.flatMap((spec) => ['--port', spec])
  const daemon = await lab.daemon(...ports, '--link', 'p0,g0')
  lab.address(netns, HOST)
  const countsAre = (attached: number): Promise<void> =>
    until(`${attached} queues are attached`, () => {
      const [link] = JSON.parse(sh('ip', '-n', netns, '-d', '-j', 'link', 'show', IFNAME)) as {
        linkinfo: { info_data: { numqueues: number; numdisabled: number } }
      }[]
      const { numqueues, numdisabled } = link.linkinfo.info_data
      return numqueues === attached && numdisabled === 4 - attached
    })
  await countsAre(4)
  const device = `path=${path},mrg_rxbuf=1,queues=4`
  const testpmd = await startTestpmd(lab, { devices: [device], queues: 4 })
  for (const queues of [1, 2, 4, 3]) {
    await testpmd.command('port stop all')
    await testpmd.command(`port config all rxq ${queues}`)
    await testpmd.command(`port config all txq ${queues}`)
    expect(await testpmd.command('port start all')).toContain('Done')
    await countsAre(queues)
    await testpmd.command('set fwd icmpecho')
    await testpmd.command('start')
    const pings = 'for k in $(seq 100 131); do ping -n -c 1 -W 5 10.0.0.$k; done'
    const output = lab.exec(netns, 'sh', '-c', pings)
    expect(output.match(/ 0% packet loss/g)).toHaveLength(32)
    await testpmd.command('stop')
  }
  expect((await daemon.port('p0'))['queues-attached']).toBe(3)
  await testpmd.kill()
  await countsAre(4)
  expect(await daemon.port('p0')).not.toHaveProperty('queues-attached')
})

test.each([
  { who: 'framepump listens', port: '', device: '' },
  { who: 'testpmd listens', port: ',server=off', device: ',server=1' },
])('nothing of a testpmd stays when it ends or is killed ($who)', async ({ port, device }) => {
  await using lab = new Lab()
  const r = await rig(lab, port)
  const pid = r.daemon.process.child.pid!
  // Not how many pages are free: other tests take some and give some back.
  const facts = (): { files: string[]; maps: string[]; hugeKb: number } => ({
    files: descriptorsOf(pid),
    maps: readFileSync(`/proc/${pid}/maps`, 'utf8')
      .split('\n')
      .filter((line) => /memfd|huge/.test(line)),
    hugeKb: hugeKbOf(pid),
  })
  let before = facts()
  await until('it has looked at its interfaces, in their namespaces', () => {
    before = facts()
    return !before.files.some((file) => file.startsWith('net:'))
  })
  for (let round = 0; round < 6; round++) {
    const testpmd = await startTestpmd(lab, {
      devices: r.sockets.map((socket) => `path=${socket},mrg_rxbuf=1${device}`),
    })
    await statesAre(r.daemon, 'connected')
    await expectEcho(lab, r, testpmd)
    expect(facts().maps.length).toBeGreaterThan(before.maps.length)
    expect(facts().hugeKb).toBeGreaterThan(before.hugeKb)
    if (round % 2 === 0) {
      await expectBulk(r, testpmd, 64)
      await testpmd.quit()
    } else {
      await testpmd.command('set portlist 0,1')
      await testpmd.command('set fwd txonly')
      await testpmd.command('start')
      await testpmd.kill()
      sh('rm', '-f', ...(device === '' ? [] : r.sockets))
    }
    await statesAre(r.daemon, 'disconnected')
    await until('everything of it is gone', () => {
      const now = facts()
      return now.hugeKb === before.hugeKb && now.maps.length === before.maps.length
    })
    await until('its descriptors are closed', () => facts().files.length === before.files.length)
  }
})

test.each(
  ['SIGTERM', 'SIGKILL'].flatMap((signal) =>
    ['packed_vq=0,mrg_rxbuf=1', 'packed_vq=0,mrg_rxbuf=0', 'packed_vq=1,mrg_rxbuf=1'].map(
      (device) => [signal as NodeJS.Signals, device] as const,
    ),
  ),
)(
  'a testpmd that listens goes on when the daemon is restarted after %s, %s',
  async (signal, device) => {
    await using lab = new Lab()
    const netns = lab.netns()
    const path = join(lab.directory, 'vhost.sock')
    const start = (): Promise<Daemon> =>
      lab.daemon('--port', tapSpec(0, netns), '--port', `vhost-user,id=g0,path=${path},server=off`)
    // It waits for its back-end before it prompts.
    let daemon = await start()
    const testpmd = await startTestpmd(lab, { devices: [`path=${path},server=1,${device}`] })
    await testpmd.command('set fwd icmpecho')
    await testpmd.command('start')
    for (let round = 0; round < 3; round++) {
      if (round > 0) daemon = await start()
      lab.address(netns, HOST)
      await until(
        'the port is connected',
        async () => (await daemon.port('g0'))['state'] === 'connected',
      )
      await until('testpmd answers', () => lab.ping(netns, '10.0.0.99', 20) > 10, 30_000)
      // More than the ring has, so that every descriptor has been round.
      lab.exec(netns, ...words('ping -n -q -f -c 1500 10.0.0.99'))
      expect(lab.ping(netns, '10.0.0.99', 20)).toBeGreaterThan(10)
      expect(daemon.process.stderr).not.toContain('broken')
      await daemon.process.stop(signal)
    }
  },
)

/** RTE_ETH_TX_OFFLOAD_: UDP_CKSUM, TCP_CKSUM, TCP_TSO, MULTI_SEGS. */
const TX_OFFLOADS = 0x4 | 0x8 | 0x20 | 0x8000
/** RTE_ETH_RX_OFFLOAD_: UDP_CKSUM and TCP_CKSUM; TCP_LRO; SCATTER. */
const [RX_CHECKSUMS, RX_LRO, RX_SCATTER] = [0x4 | 0x8, 0x10, 0x2000]

test.each([
  ['TSO', 'split', RX_CHECKSUMS | RX_LRO],
  ['TSO', 'packed', RX_CHECKSUMS | RX_LRO],
  ['checksums', 'split', RX_CHECKSUMS],
  ['no offload', 'split', 0],
  ['no offload', 'packed', 0],
])(
  'TCP through a testpmd that takes %s, %s rings; checksums and TSO are ours',
  async (_, rings, takes) => {
    await using lab = new Lab()
    // ns 0 -- p0 [daemon] g0 -- testpmd -- g1 [daemon] p1 -- ns 1, where the TAP has no vnet_hdr. Not on
    // links: there a TAP's kernel is told what the guest takes.
    const netns = [lab.netns(), lab.netns()]
    const sockets = [0, 1].map((k) => join(lab.directory, `vhost-${k}.sock`))
    const daemons: Daemon[] = []
    for (const k of [0, 1]) {
      const tap = tapSpec(k, netns[k], k === 1 ? 'vnet_hdr=off' : '')
      const guest = `vhost-user,id=g${k},path=${sockets[k]}`
      daemons.push(await lab.daemon('--port', tap, '--port', guest))
    }
    const ends = netns.map((name, k) => {
      lab.address(name, `10.0.0.${k + 1}`)
      return { netns: name, address: `10.0.0.${k + 1}` }
    })
    const testpmd = await startTestpmd(lab, {
      devices: sockets.map(
        (socket) => `path=${socket},mrg_rxbuf=1,packed_vq=${rings === 'packed' ? 1 : 0}`,
      ),
      args: [
        `--tx-offloads=0x${TX_OFFLOADS.toString(16)}`,
        `--rx-offloads=0x${(takes | RX_SCATTER).toString(16)}`,
      ],
    })
    for (const command of ['port stop all', 'set fwd csum']) await testpmd.command(command)
    for (const port of [0, 1]) {
      await testpmd.command(`csum set tcp hw ${port}`)
      await testpmd.command(`csum set udp hw ${port}`)
      await testpmd.command(`tso set 1448 ${port}`)
      await testpmd.command(`csum mac-swap off ${port}`)
    }
    await testpmd.command('port start all')
    await testpmd.command('start')
    const wrong = await watchChecksums(lab, netns[1])
    await transferTcp(lab, ends[0], ends[1], BLOCKS)
    await transferTcp(lab, ends[1], ends[0], BLOCKS)
    await transferUdpGso(lab, ends[0], ends[1], 1200, GSO_SENDS)
    await transferUdpGso(lab, ends[1], ends[0], 1200, GSO_SENDS)
    expect(await wrong()).toBe('')
    const all = daemons.flatMap((daemon, k) => [daemon.stats(`p${k}`), daemon.stats(`g${k}`)])
    const stats = await Promise.all(all)
    for (const one of stats) {
      expect(one).toMatchObject({ tx_drop_offload: 0, rx_drop_malformed: 0, rx_drop_gso_type: 0 })
    }
    // testpmd takes no USO, and TSO and checksums as told; its own are done for the far TAP.
    const [, g0, p1] = stats
    expect(g0['tx_segmented'] > GSO_SENDS).toBe((takes & RX_LRO) === 0)
    expect(g0['tx_checksummed'] > 0).toBe((takes & RX_CHECKSUMS) === 0)
    expect(p1['tx_checksummed']).toBeGreaterThan(0)
    expect(p1['tx_segmented'] > 0).toBe((takes & RX_LRO) !== 0)
    await testpmd.quit()
  },
)

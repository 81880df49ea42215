/**
 * Offloads per pair of ports: whatever the two ends can do, bytes arrive whole, and what a port
 * without offloads is given has correct checksums (as tshark finds, on the receiving side).
 */
import { describe, expect, test } from 'vitest'
import type { createSwitch as CreateSwitch } from '../../src/index.ts'
import { watchChecksums } from '../support/checksums.ts'
import type { Daemon } from '../support/lab.ts'
import { compiledTool, IO, Lab, tapSpec } from '../support/lab.ts'
import { ipFrame, payloadOf, tunnelFrame } from '../support/ip-frames.ts'
import type { IpFrameOptions, TunnelOptions } from '../support/ip-frames.ts'
import { LengthWatch } from '../support/length-watch.ts'
import { sh, until } from '../support/processes.ts'
import type { End } from '../support/transfer.ts'
import { transferTcp, transferUdp, transferUdpGso } from '../support/transfer.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

const BLOCKS = 64
const DATAGRAMS = 50
const GSO_SENDS = 10

const featureSet = (...bits: readonly number[]): bigint =>
  bits.reduce((set, bit) => set | (1n << BigInt(bit)), 0n)
const VERSION_1 = featureSet(32)
/** CSUM, HOST_TSO4, HOST_TSO6, HOST_ECN, HOST_USO, HOST_UDP_TUNNEL_GSO and its _CSUM */
const HOST_OFFLOADS = VERSION_1 | featureSet(0, 11, 12, 13, 56, 67, 68)
const HEADER_LENGTH = 24
const [NEEDS_CSUM, TUNNEL_CSUM] = [1, 8]

function addAddresses(lab: Lab, netns: string, k: number): void {
  lab.exec(netns, 'sh', '-c', 'echo 0 | tee /proc/sys/net/ipv6/conf/*/disable_ipv6 >/dev/null')
  sh('ip', '-n', netns, 'addr', 'add', `10.0.0.${k}/24`, 'dev', 'x0')
  sh('ip', '-n', netns, 'addr', 'add', `fd00::${k}/64`, 'dev', 'x0', 'nodad')
  sh('ip', '-n', netns, 'link', 'set', 'x0', 'up')
}

async function transferAll(lab: Lab, a: string, b: string): Promise<void> {
  for (const [from, to] of [
    [1, 2],
    [2, 1],
  ]) {
    for (const net of ['10.0.0.', 'fd00::']) {
      const end = (k: number): End => ({ netns: k === 1 ? a : b, address: `${net}${k}` })
      await transferTcp(lab, end(from), end(to), BLOCKS)
      await transferUdp(lab, end(from), end(to), DATAGRAMS, 1200)
      await transferUdpGso(lab, end(from), end(to), 1200, GSO_SENDS)
    }
  }
}

/** As if TUNSETOFFLOAD had asked for checksums only. */
function keepSegmentation(lab: Lab, netns: string): void {
  const features = ['tcp-segmentation', 'tcp6-segmentation', 'udp-segmentation']
  lab.exec(netns, 'ethtool', '-K', 'x0', ...features.flatMap((name) => [`tx-${name}`, 'off']))
}

/** What leaves the interface has a VLAN tag, as an offload of it; what enters loses its own. */
function tagAll(lab: Lab, netns: string): void {
  lab.exec(netns, compiledTool('vlan-push'), 'x0', '5')
}

describe.each([
  ['on', 'on', ''],
  ['on', 'off', ''],
  ['csum only', 'on', ''],
  ['csum only', 'off', ''],
  ['off', 'off', ''],
  ['on', 'on', ', VLAN-tagged'],
  ['on', 'off', ', VLAN-tagged'],
])('two TAPs, vnet_hdr %s and %s%s', (first, second, tagged) => {
  test('TCP and UDP over IPv4 and IPv6, both ways', { timeout: 120_000 }, async () => {
    await using lab = new Lab()
    const [a, b] = [lab.netns(), lab.netns()]
    const isCsumOnly = first === 'csum only'
    const vnetHdr = isCsumOnly ? 'on' : first
    const ports = [tapSpec(0, a, `vnet_hdr=${vnetHdr}`), tapSpec(1, b, `vnet_hdr=${second}`)]
    const daemon: Daemon = await lab.daemon(...ports.flatMap((spec) => ['--port', spec]))
    addAddresses(lab, a, 1)
    addAddresses(lab, b, 2)
    if (isCsumOnly) keepSegmentation(lab, a)
    if (tagged !== '') for (const netns of [a, b]) tagAll(lab, netns)
    const wrong = second === 'off' ? await watchChecksums(lab, b) : undefined
    await transferAll(lab, a, b)
    if (wrong !== undefined) expect(await wrong()).toBe('')
    const isMixed = vnetHdr !== second
    const stats = [await daemon.stats('p0'), await daemon.stats('p1')]
    for (const one of stats) expect(one).toMatchObject({ tx_drop_offload: 0, rx_drop_malformed: 0 })
    expect(stats[1]['tx_segmented'] > 0).toBe(isMixed && !isCsumOnly)
    expect(stats[1]['tx_checksummed'] > 0).toBe(isMixed)
    expect(stats[0]['tx_coalesced'] > 0).toBe(isMixed)
    const pairs = await daemon.execute<Record<string, unknown>[]>('query-offloads')
    const pass = pairs.find(({ from }) => from === 'p0')
    if (isMixed)
      expect(pass).toMatchObject({ to: 'p1', pass: [], segmented: stats[1]['tx_segmented'] })
  })
})

test.each([
  ['over IPv4, to a TAP with vnet_hdr=on', '10.0.0.', 'on', false],
  ['over IPv4, to a TAP with vnet_hdr=off', '10.0.0.', 'off', false],
  ['over IPv4 with a VLAN tag, to a TAP with vnet_hdr=on', '10.0.0.', 'on', true],
  ['over IPv4 with a VLAN tag, to a TAP with vnet_hdr=off', '10.0.0.', 'off', true],
  ['over IPv6, to a TAP with vnet_hdr=off', 'fd00::', 'off', false],
  ['over IPv6 with a VLAN tag, to a TAP with vnet_hdr=on', 'fd00::', 'on', true],
  ['over IPv6 with a VLAN tag, to a TAP with vnet_hdr=off', 'fd00::', 'off', true],
])('TCP in VXLAN %s', async (_, net, second, isTagged) => {
  await using lab = new Lab()
  const [a, b] = [lab.netns(), lab.netns()]
  const ports = [tapSpec(0, a), tapSpec(1, b, `vnet_hdr=${second}`)]
  const daemon = await lab.daemon(...ports.flatMap((spec) => ['--port', spec]))
  const ends: End[] = []
  for (const [k, netns] of [a, b].entries()) {
    addAddresses(lab, netns, k + 1)
    if (isTagged) tagAll(lab, netns)
    const vxlan = ['type', 'vxlan', 'id', '42', 'dstport', '4789', 'remote', `${net}${2 - k}`]
    sh('ip', '-n', netns, 'link', 'add', 'vx0', ...vxlan)
    const address = `10.1.0.${k + 1}`
    sh('ip', '-n', netns, 'addr', 'add', `${address}/24`, 'dev', 'vx0')
    sh('ip', '-n', netns, 'link', 'set', 'vx0', 'up')
    ends.push({ netns, address })
  }
  const lengths = await LengthWatch.start(lab, daemon, 'p0', 'in')
  const wrong = second === 'off' ? await watchChecksums(lab, b) : undefined
  await transferTcp(lab, ends[0], ends[1], BLOCKS)
  if (wrong !== undefined) expect(await wrong()).toBe('')
  const stats = [await daemon.stats('p0'), await daemon.stats('p1')]
  for (const one of stats) expect(one).toMatchObject({ tx_drop_offload: 0, rx_drop_malformed: 0 })
  expect(stats[1]['tx_segmented'] > 0).toBe(second === 'off')
  // The kernel left whole TSO frames to us, in their tunnel.
  expect(await lengths.longest()).toBeGreaterThan(2000)
})

test('gro=off: segments stay as they are', async () => {
  await using lab = new Lab()
  const [a, b] = [lab.netns(), lab.netns()]
  const ports = [tapSpec(0, a), tapSpec(1, b, 'vnet_hdr=off,gro=off')]
  const daemon = await lab.daemon(...ports.flatMap((spec) => ['--port', spec]))
  lab.address(a, '10.0.0.1')
  lab.address(b, '10.0.0.2')
  const ends = [
    { netns: b, address: '10.0.0.2' },
    { netns: a, address: '10.0.0.1' },
  ]
  await transferTcp(lab, ends[0], ends[1], BLOCKS)
  expect(await daemon.stats('p0')).toMatchObject({ tx_coalesced: 0, tx_drop_offload: 0 })
})

/** A frame as a driver hands it over, with its vnet_hdr. */
function gsoFrame(
  type: number,
  gsoSize: number,
  options: IpFrameOptions,
  around?: TunnelOptions,
): { readonly bytes: Uint8Array; readonly header: Uint8Array } {
  const inner = ipFrame({ ...options, checksum: 'partial' })
  const tunnel = around === undefined ? undefined : tunnelFrame(inner, around)
  const { bytes, l4, end, checksumOffset } = tunnel ?? inner
  const header = new Uint8Array(HEADER_LENGTH)
  const view = new DataView(header.buffer)
  view.setUint8(0, around?.checksum === undefined ? NEEDS_CSUM : NEEDS_CSUM | TUNNEL_CSUM)
  view.setUint8(1, type)
  for (const [at, value] of [end, gsoSize, l4, checksumOffset].entries()) {
    view.setUint16(2 + 2 * at, value, true)
  }
  view.setUint16(20, tunnel?.outerL4 ?? 0, true)
  view.setUint16(22, tunnel?.l3 ?? 0, true)
  return { bytes, header }
}

/** A bridge says something itself now and then. */
const NOISE = 8
const isOurs = (hex: string): boolean => hex.slice(12, 24) === '020000000001'

describe('a GSO frame of a driver', () => {
  const CASES: [string, number, number, IpFrameOptions, TunnelOptions?][] = [
    ['TCPv4', 1, 1400, { payload: payloadOf(20_000), flags: 0x18 }],
    ['TCPv6', 4, 1400, { payload: payloadOf(20_000), flags: 0x19, isIpv6: true }],
    ['TCPv4 with CWR', 0x81, 1000, { payload: payloadOf(4500), flags: 0x98 }],
    ['TCPv4 with options', 1, 500, { payload: payloadOf(1700), tcpOptions: [1, 1, 1, 1] }],
    ['UDPv4', 5, 1200, { payload: payloadOf(9000), protocol: 'udp' }],
    ['UDPv6', 5, 1200, { payload: payloadOf(9000), protocol: 'udp', isIpv6: true }],
    ['TCPv4 in VXLAN', 0x21, 1398, { payload: payloadOf(20_000), flags: 0x18 }, {}],
    ['TCPv6 in VXLAN', 0x24, 1000, { payload: payloadOf(4500), isIpv6: true }, {}],
    [
      'TCPv4 in VXLAN over IPv6, with a checksum around it',
      0x41,
      1000,
      { payload: payloadOf(4501), flags: 0x19 },
      { isIpv6: true, checksum: 'partial' },
    ],
    [
      'UDPv4 in VXLAN with a checksum around it',
      0x25,
      1200,
      { payload: payloadOf(9000), protocol: 'udp' },
      { checksum: 'partial' },
    ],
  ]

  test.each(CASES)('%s is segmented as the kernel does it', async (...given) => {
    const [, type, gsoSize, options, around] = given
    await using lab = new Lab()
    // Our own segments leave by a TAP without vnet_hdr, the kernel's by a veth without TSO.
    const [ours, kernel] = [lab.netns(), lab.netns()]
    const [tap, veth] = [`tap0`, `veth0`]
    await using sw = createSwitch({ io: IO as 'auto' })
    await sw.addPort({
      type: 'tap',
      id: 'ours',
      ifname: tap,
      netns: ours,
      vnet_hdr: false,
      up: true,
    })
    await sw.addPort({
      type: 'tap',
      id: 'kernel',
      ifname: tap,
      netns: kernel,
      vnet_hdr: true,
      up: true,
    })
    const ip = (...words: string[]): string => sh('ip', '-n', kernel, ...words)
    ip('link', 'add', 'br0', 'type', 'bridge')
    ip('link', 'add', veth, 'type', 'veth', 'peer', 'name', 'far')
    lab.exec(kernel, 'ethtool', '-K', veth, 'tso', 'off', 'gso', 'off', 'tx', 'off')
    for (const name of [tap, veth]) ip('link', 'set', name, 'master', 'br0', 'up')
    for (const name of ['far', 'br0']) ip('link', 'set', name, 'up')
    const isForwarding = (): boolean =>
      sh('bridge', '-n', kernel, 'link').match(/state forwarding/g)?.length === 2
    await until('both ports of the bridge forward', isForwarding)

    await sw.addPort({ type: 'virtio-net', id: 'device' })
    const device = sw.virtioNetPort('device')
    expect(await device.negotiate(HOST_OFFLOADS)).toBe(HOST_OFFLOADS)
    const count = Math.ceil(options.payload.length / gsoSize)
    const receivers = [
      await lab.receiveAll(ours, tap, count + NOISE, 1000),
      await lab.receiveAll(kernel, 'far', count + NOISE, 1000),
    ]
    const { bytes, header } = gsoFrame(type, gsoSize, options, around)
    expect(device.send(bytes, { header })).toBe(true)
    await until('it is segmented', () => sw.port('ours').counters.tx_segmented === 1)
    // And the turn over: what is for either kernel, it has.
    await sw.currentCounters()
    const [own, others] = await Promise.all(
      receivers.map(async (receiver) => (await receiver.frames()).filter(isOurs)),
    )
    expect(own).toHaveLength(count)
    expect(own).toEqual(others)
    expect(sw.port('ours').counters).toMatchObject({ tx_segmented: 1 })
    expect(sw.port('kernel').counters).toMatchObject({ tx_segmented: 0 })
  })
})

describe('between two devices of this process', () => {
  const ALL = featureSet(1, 7, 8, 9, 54, 55, 65, 66)
  const TCP: IpFrameOptions = { payload: payloadOf(4500), flags: 0x18 }
  const UDP: IpFrameOptions = { payload: payloadOf(4500), protocol: 'udp' }
  const CHECKED: TunnelOptions = { checksum: 'partial' }
  /** What is sent, what the receiver lacks, and how many frames it gets. */
  test.each([
    ['TCP', 'nothing', [], 1, TCP, undefined, 1],
    ['TCP', 'TSO4', [7, 65, 66], 1, TCP, undefined, 5],
    ['UDP', 'nothing', [], 5, UDP, undefined, 1],
    ['UDP', 'USO4', [54, 65, 66], 5, UDP, undefined, 5],
    ['UDP', 'USO', [54, 55, 65, 66], 5, UDP, undefined, 5],
    ['TCP in VXLAN', 'nothing', [], 0x21, TCP, {}, 1],
    ['TCP in VXLAN', 'UDP_TUNNEL_GSO_CSUM', [66], 0x21, TCP, {}, 1],
    ['TCP in VXLAN', 'UDP_TUNNEL_GSO', [65, 66], 0x21, TCP, {}, 5],
    ['UDP in VXLAN', 'nothing', [], 0x25, UDP, {}, 1],
    ['TCP in VXLAN with a checksum', 'nothing', [], 0x21, TCP, CHECKED, 1],
    ['TCP in VXLAN with a checksum', 'UDP_TUNNEL_GSO_CSUM', [66], 0x21, TCP, CHECKED, 5],
    ['TCP in VXLAN with a checksum', 'any', [1, 7, 8, 9, 54, 55, 65, 66], 0x21, TCP, CHECKED, 5],
  ] as const)('%s to a driver without %s', async (...given) => {
    const [, , lacking, type, options, around, count] = given
    await using sw = createSwitch({ io: IO as 'auto' })
    await sw.addPort({ type: 'virtio-net', id: 'from' })
    await sw.addPort({ type: 'virtio-net', id: 'to' })
    const [from, to] = [sw.virtioNetPort('from'), sw.virtioNetPort('to')]
    const takes = VERSION_1 | (ALL & ~featureSet(...lacking))
    expect(await from.negotiate(HOST_OFFLOADS)).toBe(HOST_OFFLOADS)
    expect(await to.negotiate(takes)).toBe(takes)
    const { bytes, header } = gsoFrame(type, 1000, options, around)
    expect(from.send(bytes, { header })).toBe(true)
    const received: Uint8Array[] = []
    let got = await to.next()
    for (; received.push(got.frame) < count; got = await to.next());
    expect(to.receive()).toBeNull()
    expect(sw.port('to').counters).toMatchObject({ tx_segmented: count === 1 ? 0 : 1 })
    if (count > 1) {
      expect(received.map(({ length }) => length - received[4].length)).toEqual([
        500, 500, 500, 500, 0,
      ])
      return
    }
    expect(received[0]).toEqual(bytes)
    // num_buffers is the device's.
    const expected = header.slice(0, got.header.length)
    expected[10] = 1
    expect(got.header).toEqual(expected)
  })
})

/**
 * Raw socket ports on veth pairs: what hosts at both ends send arrives as it was sent, whatever their
 * offloads are and the port's. Runs once per I/O tier.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { createSwitch as CreateSwitch } from '../../src/index.ts'
import { readPcapng } from '../../src/wire/pcapng.ts'
import { watchChecksums } from '../support/checksums.ts'
import type { IpFrameOptions } from '../support/ip-frames.ts'
import { ipFrame, payloadOf } from '../support/ip-frames.ts'
import { frameHex, IO, Lab } from '../support/lab.ts'
import { LengthWatch } from '../support/length-watch.ts'
import { until } from '../support/processes.ts'
import {
  addAddresses,
  addHosts,
  rawStar,
  setLink,
  uplinkName,
  withoutOffloads,
} from '../support/raw-lab.ts'
import type { End } from '../support/transfer.ts'
import { transferTcp, transferUdp, transferUdpGso } from '../support/transfer.ts'
import { flowFrames, flowOf, numbers } from '../support/tun.ts'

const { createSwitch } = (await import('../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}

const BROADCAST = 'ff:ff:ff:ff:ff:ff'
const SOURCE = '02:00:00:00:00:01'
const BLOCKS = 24
/** A full ring is no fault: what a test sends may exceed it on a machine that does something else. */
const NO_LOSS = {
  rx_drop_malformed: 0,
  rx_drop_gso_type: 0,
  rx_drop_oversize: 0,
  tx_drop_offload: 0,
  tx_drop_malformed: 0,
  tx_drop_error: 0,
  tx_drop_mtu: 0,
}

test('pings pass between two interfaces, and the table learns both addresses', async () => {
  await using lab = new Lab()
  const { daemon, hosts } = await rawStar(lab, 2)
  addAddresses(lab, hosts)
  expect(lab.ping(hosts[0], '10.0.0.2', 5)).toBe(5)
  const macs = await daemon.execute<{ mac: string; port: string }[]>('query-mac-table')
  const found = Object.fromEntries(macs.map(({ mac, port }) => [port, mac]))
  expect(found).toEqual({ p0: lab.mac(hosts[0]), p1: lab.mac(hosts[1]) })
  expect(await daemon.port('p0')).toMatchObject({ state: 'open', ifname: 'u0', device: 'up' })
})

interface Offloads {
  readonly vnetHdr: readonly [string, string]
  /** Who has them switched off with ethtool. */
  readonly off: readonly ('hosts' | 'uplink')[]
}

const OFFLOADS: readonly Offloads[] = [
  { vnetHdr: ['on', 'on'], off: [] },
  { vnetHdr: ['on', 'on'], off: ['uplink'] },
  { vnetHdr: ['on', 'off'], off: [] },
  { vnetHdr: ['off', 'off'], off: [] },
  { vnetHdr: ['off', 'on'], off: ['hosts', 'uplink'] },
]

test.each(OFFLOADS)(
  'TCP and UDP pass both ways, vnet_hdr $vnetHdr, offloads off at $off',
  { timeout: 120_000 },
  async ({ vnetHdr, off }) => {
    await using lab = new Lab()
    const { daemon, uplink, hosts } = await rawStar(
      lab,
      2,
      ...vnetHdr.map((value) => `vnet_hdr=${value}`),
    )
    addAddresses(lab, hosts)
    for (const [k, host] of hosts.entries()) {
      if (off.includes('hosts')) withoutOffloads(lab, host, 'x0')
      if (off.includes('uplink')) withoutOffloads(lab, uplink, uplinkName(k))
      // Where its datagrams end nobody would know.
      if (vnetHdr[k] === 'off') withoutOffloads(lab, host, 'x0', ['tx-udp-segmentation'])
    }
    const lengths = await LengthWatch.start(lab, daemon, 'p0', 'in')
    // What has passed a port without offloads has whole checksums.
    const wrong = vnetHdr[1] === 'off' ? await watchChecksums(lab, hosts[1], 'inbound') : undefined
    for (const [from, to] of [
      [0, 1],
      [1, 0],
    ]) {
      for (const net of ['10.0.0.', 'fd00::']) {
        const end = (k: number): End => ({ netns: hosts[k], address: `${net}${k + 1}` })
        await transferTcp(lab, end(from), end(to), BLOCKS)
        await transferUdp(lab, end(from), end(to), 30, 1200)
        await transferUdpGso(lab, end(from), end(to), 1200, 5)
      }
    }
    if (wrong !== undefined) expect(await wrong()).toBe('')
    for (const id of ['p0', 'p1']) expect(await daemon.stats(id)).toMatchObject(NO_LOSS)
    const longest = await lengths.longest()
    if (off.includes('hosts')) expect(longest).toBe(1514)
    else expect(longest).toBeGreaterThan(1514)
  },
)

/** IEEE 802.1Q §9.6: priority tags have VLAN 0; 0x88a8 is the service tag of 802.1ad. */
const TAGS: readonly (readonly [what: string, tags: string])[] = [
  ['no tag', ''],
  ['802.1Q', '8100a064'],
  ['a priority tag', '8100e000'],
  ['VLAN 4095 with the drop eligible bit', '81001fff'],
  ['802.1ad', '88a80064'],
  ['a customer tag behind that of a provider', '88a8006481000065'],
  ['two customer tags', '8100006481000065'],
  ['three tags', '88a8006488a8006581000066'],
]

describe.each(['on', 'off'])('with vnet_hdr=%s', (vnetHdr) => {
  test('VLAN tags arrive as they were sent, byte for byte', async () => {
    await using lab = new Lab()
    const { daemon, hosts } = await rawStar(lab, 2, `vnet_hdr=${vnetHdr}`)
    const frames = TAGS.flatMap(([, tags], k) =>
      [60, 61, 300, 1400, 1514].map((length) => frameHex(BROADCAST, SOURCE, k, length, tags)),
    )
    const receiver = await lab.receiveTagged(hosts[1], frames.length)
    await lab.send(hosts[0], frames)
    expect(await receiver.frames()).toEqual(frames)
    expect(await daemon.stats('p0')).toMatchObject({ ...NO_LOSS, rx_frames: frames.length })
    expect(await daemon.stats('p1')).toMatchObject({ ...NO_LOSS, tx_frames: frames.length })
  })
})

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

interface Offloaded {
  readonly what: string
  readonly options: IpFrameOptions
  /** VIRTIO_NET_HDR_GSO_*; 0: the checksum only. */
  readonly type: number
  readonly gsoSize: number
}

const GSO = { TCPV4: 1, TCPV6: 4, UDP_L4: 5 }
const VLANS = [5, 6]
/** Segments of 1460 bytes fill the mtu: without a vnet_hdr nobody says how long they were to be. */
const OFFLOADED: readonly Offloaded[] = [
  ...[[], [5], VLANS].flatMap((vlans): Offloaded[] => [
    {
      what: `TCPv4 in segments, ${vlans.length} tags`,
      options: { vlans, payload: payloadOf(20_000), flags: 0x18 },
      type: GSO.TCPV4,
      gsoSize: 1460,
    },
    {
      what: `TCPv6 in segments, ${vlans.length} tags`,
      options: { vlans, payload: payloadOf(5000), isIpv6: true },
      type: GSO.TCPV6,
      gsoSize: 1440,
    },
    {
      what: `TCPv4 without its checksum, ${vlans.length} tags`,
      options: { vlans, payload: payloadOf(700) },
      type: 0,
      gsoSize: 0,
    },
    {
      what: `UDPv6 without its checksum, ${vlans.length} tags`,
      options: { vlans, payload: payloadOf(333), isIpv6: true, protocol: 'udp' },
      type: 0,
      gsoSize: 0,
    },
  ]),
  {
    what: 'UDPv4 in segments, 1 tag',
    options: { vlans: [5], payload: payloadOf(9000), protocol: 'udp' },
    type: GSO.UDP_L4,
    gsoSize: 1200,
  },
]

/** The frame as its sender hands it over: what is missing, and a vnet_hdr that says so. */
function offloaded({ options, type, gsoSize }: Offloaded): { sent: string; frame: string } {
  const { bytes, l4, end, checksumOffset } = ipFrame({ ...options, checksum: 'partial' })
  const header = new DataView(new ArrayBuffer(10))
  header.setUint8(0, 1)
  header.setUint8(1, type)
  for (const [at, value] of [end, gsoSize, l4, checksumOffset].entries()) {
    header.setUint16(2 + 2 * at, value, true)
  }
  return { sent: hex(new Uint8Array(header.buffer)) + hex(bytes), frame: hex(bytes) }
}

/** What is on the wire when all is done. */
function completed({ options, type, gsoSize }: Offloaded): string[] {
  if (type === 0) return [hex(ipFrame(options).bytes)]
  const { payload, sequence = 1000, id = 0x1234, flags = 0x10 } = options
  const count = Math.ceil(payload.length / gsoSize)
  return numbers(count).map((k) => {
    const isLast = k === count - 1
    const part = payload.subarray(k * gsoSize, (k + 1) * gsoSize)
    const own = { payload: part, id: id + k, sequence: sequence + k * gsoSize }
    // PSH is the last one's.
    return hex(ipFrame({ ...options, ...own, flags: isLast ? flags : flags & ~8 }).bytes)
  })
}

test.each([
  ['on', 'on'],
  ['on', 'off'],
  ['off', 'on'],
  ['off', 'off'],
])('frames with offloads and tags, from vnet_hdr=%s to vnet_hdr=%s', async (first, second) => {
  await using lab = new Lab()
  const options = [`vnet_hdr=${first},gro=off`, `vnet_hdr=${second}`]
  const { daemon, uplink, hosts } = await rawStar(lab, 2, ...options)
  // The kernel sends frames with a tag of 802.1ad when they fit into the mtu with all of their tags.
  setLink(hosts[1], 'x0', 'mtu', '1508')
  setLink(uplink, 'u1', 'mtu', '1508')
  const isKnown = ({ type }: Offloaded): boolean => first === 'on' || type !== GSO.UDP_L4
  const cases = OFFLOADED.filter(isKnown)
  const expected = cases.flatMap((one) =>
    second === 'on' ? [offloaded(one).frame] : completed(one),
  )
  const receiver = await lab.receiveTagged(hosts[1], expected.length)
  const frames = cases.map((one) => offloaded(one).sent)
  await lab.send(hosts[0], frames, true)
  expect(await receiver.frames()).toEqual(expected)
  expect(await daemon.stats('p0')).toMatchObject({ ...NO_LOSS, rx_frames: cases.length })
  expect(await daemon.stats('p1')).toMatchObject({ ...NO_LOSS, tx_frames: expected.length })
})

test('a UDP frame in segments is lost where nobody says how long they are, and counted', async () => {
  await using lab = new Lab()
  const { daemon, hosts } = await rawStar(lab, 2, 'vnet_hdr=off', 'vnet_hdr=on')
  const receiver = await lab.receiveTagged(hosts[1], 1)
  const udp = OFFLOADED.filter(({ type }) => type === GSO.UDP_L4)
  const plain = frameHex(BROADCAST, SOURCE, 1)
  await lab.send(
    hosts[0],
    [...udp.map((one) => offloaded(one).sent), '00'.repeat(10) + plain],
    true,
  )
  expect(await receiver.frames()).toEqual([plain])
  expect(await daemon.stats('p0')).toMatchObject({ rx_frames: 1, rx_drop_oversize: udp.length })
})

test.each([9000, 65535])('frames of mtu %i pass whole', async (mtu) => {
  await using lab = new Lab()
  const { daemon, uplink, hosts } = await rawStar(lab, 2, 'vnet_hdr=on', 'vnet_hdr=off')
  for (const [k, host] of hosts.entries()) {
    setLink(host, 'x0', 'mtu', String(mtu))
    setLink(uplink, uplinkName(k), 'mtu', String(mtu))
  }
  const length = mtu + 14
  let sent = 0
  // Without a vnet_hdr a port has to be told of it.
  await until('the mtu is known', async () => {
    const receiver = await lab.receiveTagged(hosts[0], 1, 200)
    await lab.send(hosts[1], [frameHex(BROADCAST, SOURCE, 0, length)])
    // None of them is still on its way later.
    await daemon.came('p1', ++sent)
    return (await receiver.frames()).length === 1
  })
  const frames = [
    frameHex(BROADCAST, SOURCE, 1, length),
    frameHex(BROADCAST, SOURCE, 2, length + 4, '8100a064'),
    frameHex(BROADCAST, SOURCE, 3, length, '88a80064'),
    frameHex(BROADCAST, SOURCE, 4, 1600),
  ]
  for (const [from, to] of [
    [0, 1],
    [1, 0],
  ]) {
    const receiver = await lab.receiveTagged(hosts[to], frames.length)
    await lab.send(hosts[from], frames)
    expect(await receiver.frames()).toEqual(frames)
  }
  addAddresses(lab, hosts)
  const size = ['-s', String(Math.min(mtu, 65535) - 28), '-M', 'do']
  const pings = ['-n', '-q', '-c', '3', '-w', '20', '-i', '0.1', ...size]
  // It fails when there are fewer.
  lab.exec(hosts[0], 'ping', ...pings, '10.0.0.2')
  for (const id of ['p0', 'p1']) expect(await daemon.stats(id)).toMatchObject(NO_LOSS)
})

test('a frame that is longer than the interface takes is lost and counted', async () => {
  await using lab = new Lab()
  const { daemon, uplink, hosts } = await rawStar(lab, 2)
  for (const [netns, ifname] of [
    [hosts[0], 'x0'],
    [uplink, 'u0'],
  ]) {
    setLink(netns, ifname, 'mtu', '9000')
  }
  const receiver = await lab.receiveTagged(hosts[1], 1)
  await lab.send(hosts[0], [frameHex(BROADCAST, SOURCE, 1, 1515), frameHex(BROADCAST, SOURCE, 2)])
  expect(await receiver.frames()).toEqual([frameHex(BROADCAST, SOURCE, 2)])
  expect(await daemon.stats('p1')).toMatchObject({ tx_frames: 1, tx_bytes: 60, tx_drop_mtu: 1 })
})

test('every flow keeps its order over four queues, and no frame is there twice', async () => {
  await using lab = new Lab()
  const { daemon, hosts } = await rawStar(lab, 2, 'queues=4')
  const flows = numbers(40)
  const count = 100
  const frames = flowFrames(flows, count)
  const receiver = await lab.receiveTagged(hosts[1], frames.length + 1, 1500)
  const sender = lab.start(hosts[0], lab.packetTool, 'send', 'x0')
  // So many that none of the rings is ever full.
  for (let sent = 0; sent < frames.length; sent += flows.length) {
    sender.child.stdin!.write(`${frames.slice(sent, sent + flows.length).join('\n')}\n`)
    const isTaken = async (): Promise<boolean> =>
      (await daemon.stats('p0'))['rx_frames'] >= sent + flows.length
    await until('they are taken', isTaken)
  }
  const received = (await receiver.frames()).map(flowOf)
  expect(received).toHaveLength(frames.length)
  for (const flow of flows) {
    const own = received.filter((one) => one.flow === flow).map(({ number }) => number)
    expect(own).toEqual(numbers(count))
  }
  expect(await daemon.port('p0')).toMatchObject({ queues: 4 })
})

test.each(['on', 'off'])(
  'a full ring loses frames, counts them and goes on, vnet_hdr=%s',
  async (vnetHdr) => {
    await using lab = new Lab()
    // The least there is: three slots.
    const { daemon, hosts } = await rawStar(lab, 2, `ring-kb=256,vnet_hdr=${vnetHdr}`)
    const sent = 200
    for (const round of [1, 2, 3]) {
      await daemon.execute('stop')
      await lab.send(
        hosts[0],
        numbers(sent).map((number) => frameHex(BROADCAST, SOURCE, number)),
      )
      const lost = async (): Promise<number> => (await daemon.stats('p0'))['rx_drop_kernel']
      await until('all are there', async () => (await lost()) >= round * (sent - 3))
      expect(await lost()).toBe(round * (sent - 3))
      const receiver = await lab.receive(hosts[1], 3)
      await daemon.execute('cont')
      const expected = numbers(3).map((number) => frameHex(BROADCAST, SOURCE, number))
      expect(await receiver.frames()).toEqual(expected)
      expect(await daemon.stats('p0')).toMatchObject({ rx_frames: round * 3 })
    }
    addAddresses(lab, hosts)
    expect(lab.ping(hosts[0], '10.0.0.2', 5)).toBe(5)
  },
)

test('what the host itself sends by the interface never enters, what comes for it does', async () => {
  await using lab = new Lab()
  const { daemon, uplink, hosts } = await rawStar(lab, 2)
  addAddresses(lab, hosts)
  lab.exec(uplink, 'ip', 'addr', 'add', '10.0.0.9/24', 'dev', 'u0')
  // The host at the far end is reached, and nothing of that is forwarded but what comes back.
  expect(lab.ping(uplink, '10.0.0.1', 3)).toBe(3)
  // Whatever came in meanwhile may have left meanwhile.
  const { tx_frames: forwarded } = await daemon.stats('p1')
  const { rx_frames: frames } = await daemon.stats('p0')
  // Answers to ping and ARP, and its own questions.
  expect(frames).toBeGreaterThanOrEqual(4)
  expect(forwarded).toBeLessThanOrEqual(frames)
  const macs = await daemon.execute<{ mac: string }[]>('query-mac-table')
  expect(macs.map(({ mac }) => mac)).not.toContain(lab.mac(uplink, 'u0'))
})

test('frames with tags and offloads reach a TAP, a guest, a program and a recording', async () => {
  await using lab = new Lab()
  const { uplink, hosts } = addHosts(lab, 1)
  const tapHost = lab.netns()
  const record = join(lab.directory, 'record.pcapng')
  await using sw = createSwitch({ io: IO as 'auto' })
  await sw.addPort({ type: 'raw-socket', id: 'r', ifname: 'u0', netns: uplink })
  await sw.addPort({ type: 'tap', id: 't', ifname: 'x0', netns: tapHost, up: true })
  await sw.addPort({ type: 'memory', id: 'm' })
  await sw.addPort({ type: 'pcap', id: 'f', record })
  await sw.addPort({ type: 'virtio-net', id: 'v' })
  const [guest, program] = [sw.virtioNetPort('v'), sw.memoryPort('m')]
  // Without offloads, as the program: checksums are completed and segments cut for these two.
  await guest.negotiate(1n << 32n)
  const [toGuest, toProgram]: string[][] = [[], []]
  const take = (): void => {
    for (let one = guest.receive(); one !== null; one = guest.receive())
      toGuest.push(hex(one.frame))
    for (let one = program.receive(); one !== null; one = program.receive()) {
      toProgram.push(hex(one))
    }
  }

  const whole = OFFLOADED.map((one) => offloaded(one).frame)
  const cut = OFFLOADED.flatMap(completed)
  const receiver = await lab.receiveTagged(tapHost, whole.length)
  for (const [k, one] of OFFLOADED.entries()) {
    await lab.send(hosts[0], [offloaded(one).sent], true)
    await until('it has come', () => {
      take()
      return sw.port('r').counters.rx_frames > k
    })
  }
  await until('all have come', () => {
    take()
    return Math.min(toGuest.length, toProgram.length) >= cut.length
  })
  expect(toGuest).toEqual(cut)
  expect(toProgram).toEqual(cut)
  expect(await receiver.frames()).toEqual(whole)

  // And back: a frame of a driver that has offloads leaves as it is. CSUM, HOST_TSO4, HOST_TSO6, HOST_USO
  await guest.negotiate([32n, 0n, 11n, 12n, 56n].reduce((set, bit) => set | (1n << bit), 0n))
  const back = await lab.receiveTagged(hosts[0], whole.length)
  for (const one of OFFLOADED) {
    const bytes = new Uint8Array(Buffer.from(offloaded(one).sent, 'hex'))
    const header = new Uint8Array(12)
    header.set(bytes.subarray(0, 10))
    await until('there is a buffer', () => guest.send(bytes.subarray(10), { header }))
  }
  expect(await back.frames()).toEqual(whole)
  expect(sw.port('r').counters).toMatchObject({ tx_frames: whole.length, tx_drop_error: 0 })
  await sw.removePort('f')
  const recorded: string[] = []
  const file = new Uint8Array(readFileSync(record))
  readPcapng(file, {
    frame: (offset, length) => void recorded.push(hex(file.subarray(offset, offset + length))),
  })
  expect(recorded).toEqual([...whole, ...whole])
})

/** What tshark sees at both ends of a switch between two hosts: the same frames, none of them malformed. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { readPcapng } from '../../src/wire/pcapng.ts'
import { ipFrame, payloadOf } from '../support/ip-frames.ts'
import { frameHex, Lab } from '../support/lab.ts'
import { introduce } from '../support/numbered-flow.ts'
import type { Background } from '../support/processes.ts'
import { sh, until } from '../support/processes.ts'
import { rawStar } from '../support/raw-lab.ts'
import { transferTcp } from '../support/transfer.ts'

const BROADCAST = 'ff:ff:ff:ff:ff:ff'
const SOURCE = '02:00:00:00:00:01'
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** Frames that were not made by a kernel, of all sorts. */
const CRAFTED: readonly string[] = [
  ...['', '8100a064', '88a80064', '88a8006481000065', '8100e000'].flatMap((tags, k) =>
    [60, 333, 1500].map((length) => frameHex(BROADCAST, SOURCE, k, length, tags)),
  ),
  ...[[], [5], [5, 6]].flatMap((vlans) =>
    [false, true].flatMap((isIpv6) =>
      (['tcp', 'udp'] as const).map((protocol) =>
        hex(ipFrame({ vlans, isIpv6, protocol, payload: payloadOf(800) }).bytes),
      ),
    ),
  ),
  // LLDP, a spanning tree's BPDU in an LLC frame, and nothing but addresses.
  `0180c200000e02000000000188cc${'0207040200000000010403050100060200780000'.padEnd(92, '0')}`,
  `0180c200000002000000000100264242030000000000${'00'.repeat(38)}`,
  `ffffffffffff0200000000010800${'00'.repeat(46)}`,
]

interface Capture {
  readonly process: Background
  readonly file: string
}

async function startCapture(lab: Lab, netns: string, filter: string): Promise<Capture> {
  const file = join(lab.directory, `${netns}.pcapng`)
  // All of a frame of 64 KiB.
  const size = ['-s', '262144', '-B', '64']
  const process = lab.start(netns, 'dumpcap', '-q', '-i', 'x0', ...size, '-f', filter, '-w', file)
  await until('dumpcap captures', () => process.stderr.includes('File:'))
  return { process, file }
}

/** Each frame as bytes, and as tshark reads it. */
async function read({ process, file }: Capture, count: number): Promise<string[]> {
  await until(`${count} frames are in the file`, () => framesOf(file).length >= count)
  await process.stop('SIGINT')
  const fields = ['frame.len', 'frame.protocols', 'eth.src', 'eth.type', 'vlan.id', '_ws.malformed']
  const shown = fields.flatMap((name) => ['-e', name])
  const lines = sh('tshark', '-r', file, '-T', 'fields', ...shown).split('\n')
  return framesOf(file).map((frame, k) => `${lines[k]} ${frame}`)
}

function framesOf(file: string): string[] {
  const bytes = new Uint8Array(readFileSync(file))
  const frames: string[] = []
  try {
    readPcapng(bytes, {
      frame: (offset, length) => void frames.push(hex(bytes.subarray(offset, offset + length))),
    })
  } catch {
    // Its end is not written yet.
  }
  return frames
}

test.each(['vnet_hdr=on', 'vnet_hdr=on,queues=4'])(
  'tshark sees the same frames at both ends, %s',
  { timeout: 120_000 },
  async (options) => {
    await using lab = new Lab()
    const { daemon, hosts } = await rawStar(lab, 2, options)
    const addresses = hosts.map((netns, k) => ({ netns, address: `10.0.0.${k + 1}` }))
    for (const { netns, address } of addresses) lab.address(netns, address)
    // Nobody asks for anybody now and then.
    introduce(lab, ...addresses)
    // What host 0 sends, and what arrives of it at host 1.
    const from = `ether src ${lab.mac(hosts[0])} or ether src ${SOURCE}`
    expect(lab.ping(hosts[0], '10.0.0.2', 2)).toBe(2)
    const { rx_frames: before } = await daemon.stats('p0')
    const ends = [await startCapture(lab, hosts[0], from), await startCapture(lab, hosts[1], from)]
    await lab.send(hosts[0], CRAFTED)
    const [a, b] = addresses
    await transferTcp(lab, a, b, 4)
    await transferTcp(lab, b, a, 4)
    expect(lab.ping(hosts[0], '10.0.0.2', 2)).toBe(2)
    const sent = (await daemon.stats('p0'))['rx_frames']
    const count = sent - before
    await until('all have left', async () => (await daemon.stats('p1'))['tx_frames'] >= sent)
    const [first, second] = [await read(ends[0], count), await read(ends[1], count)]
    expect(await daemon.stats('p0')).toMatchObject({ rx_drop_kernel: 0, rx_drop_malformed: 0 })
    expect(first.length).toBeGreaterThan(CRAFTED.length + 10)
    // Flows of several queues may overtake each other.
    if (options.includes('queues')) for (const frames of [first, second]) frames.sort()
    expect(second).toEqual(first)
  },
)

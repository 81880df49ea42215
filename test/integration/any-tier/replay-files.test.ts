/** Files that are replayed: what tshark says of them is what enters the switch, at their own pace. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { crc32, gzipSync } from 'node:zlib'
import { afterAll, describe, expect, test } from 'vitest'
import type { createSwitch as CreateSwitch } from '../../../src/index.ts'
import { PcapngFile, pcapFile } from '../../support/capture-files.ts'
import { IO } from '../../support/lab.ts'
import { sh, until } from '../../support/processes.ts'
import { frame } from '../../support/sim.ts'

const { createSwitch } = (await import('../../../dist/index.js')) as {
  createSwitch: typeof CreateSwitch
}
const io = IO as 'auto'
const directory = mkdtempSync(join(tmpdir(), 'framepump-test-'))
afterAll(() => rmSync(directory, { recursive: true }))

const NOW = 1_700_000_000_000_000n
const plain = (n: number): Uint8Array => frame(255, 1, n)

function withFcs(n: number): Uint8Array {
  const fcs = Buffer.alloc(4)
  fcs.writeUInt32LE(crc32(plain(n)))
  return Buffer.concat([plain(n), fcs])
}

let files = 0
function write(bytes: Uint8Array, name = `${files++}`): string {
  const path = join(directory, name)
  writeFileSync(path, bytes)
  return path
}

/** The frames that a replayed file brings, and when: milliseconds, at least those of the pace. */
async function replay(path: string, count: number): Promise<{ frames: Buffer[]; ms: number[] }> {
  await using sw = createSwitch({ io })
  await sw.addPort({ type: 'memory', id: 'out' })
  const startMs = performance.now()
  await sw.addPort({ type: 'pcap', id: 'in', replay: path })
  const out = sw.memoryPort('out')
  const frames: Buffer[] = []
  const ms: number[] = []
  for (let n = 0; n < count; n++) {
    frames.push(Buffer.from(await out.next({ signal: AbortSignal.timeout(40_000) })))
    ms.push(performance.now())
  }
  await until('all frames are counted', () => sw.port('in').counters.rx_frames >= count)
  expect(sw.port('in').counters.rx_frames).toBe(count)
  return { frames, ms: ms.map((at) => at - startMs) }
}

/** Lengths without the FCS, as tshark has them. */
function tsharkLengths(path: string): number[] {
  const fields = ['frame.cap_len', 'frame.len', 'eth.fcs'].flatMap((name) => ['-e', name])
  const lines = sh('tshark', '-r', path, '-T', 'fields', ...fields)
    .split('\n')
    .filter(Boolean)
  return lines.map((line) => {
    const [captured, original, fcs] = line.split('\t')
    return Math.min(Number(captured) - (fcs === '' ? 0 : 4), Number(original))
  })
}

const le32 = (value: number): Buffer => Buffer.from(Uint32Array.of(value).buffer)
const two = [plain(1), plain(2)] as const
const ng = (isLittle = true): PcapngFile => new PcapngFile(isLittle)

const READ: [string, () => Uint8Array][] = [
  [
    'pcap of each byte order',
    () =>
      pcapFile(
        two.map((one) => [one] as const),
        { isLittle: false },
      ),
  ],
  [
    'pcap, nanoseconds',
    () =>
      pcapFile(
        two.map((one) => [one] as const),
        { magic: 0xa1b23c4d },
      ),
  ],
  [
    'pcap, modified',
    () =>
      pcapFile(
        two.map((one) => [one] as const),
        { magic: 0xa1b2cd34, extra: 8 },
      ),
  ],
  ['pcap with FCS', () => pcapFile([[withFcs(1)], [withFcs(2)]], { link: 0x2400_0001 })],
  ['pcap, captured above original', () => pcapFile([[plain(1), 50], [plain(2)]])],
  [
    'pcapng of the other byte order',
    () =>
      ng(false).interface().frame({ bytes: two[0], time: NOW }).frame({ bytes: two[1], time: NOW })
        .bytes,
  ],
  [
    'pcapng with if_fcslen',
    () =>
      ng()
        .interface([[13, Uint8Array.of(4)]])
        .frame({ bytes: withFcs(1), time: NOW })
        .frame({ bytes: withFcs(2), time: NOW }).bytes,
  ],
  [
    'pcapng, captured above original',
    () =>
      ng()
        .interface()
        .frame({ bytes: two[0], original: 50, time: NOW })
        .frame({ bytes: two[1], time: NOW }).bytes,
  ],
  [
    'pcapng, unknown blocks',
    () =>
      ng()
        .block(0x99, le32(1))
        .interface()
        .block(0x4000_0bad, le32(1))
        .frame({ bytes: two[0], time: NOW })
        .block(5, Buffer.alloc(12))
        .frame({ bytes: two[1], time: NOW }).bytes,
  ],
  [
    'pcapng, two sections',
    () =>
      Buffer.concat([
        ng().interface().frame({ bytes: two[0], time: NOW }).bytes,
        ng(false)
          .interface([[9, Uint8Array.of(9)]])
          .frame({ bytes: two[1], time: NOW * 1000n }).bytes,
      ]),
  ],
  [
    'pcapng, simple blocks',
    () => ng().interface().frame({ bytes: two[0] }).frame({ bytes: two[1] }).bytes,
  ],
  [
    'gzip',
    () =>
      gzipSync(
        pcapFile(
          two.map((one) => [one] as const),
          { magic: 0xa1b23c4d },
        ),
      ),
  ],
]

describe('read as tshark reads it', () => {
  test.each(READ.filter(([name]) => name !== 'pcapng, unknown blocks'))('%s', async (_, make) => {
    const path = write(make())
    const lengths = tsharkLengths(path)
    expect(lengths).toHaveLength(2)
    // Times a second apart are not waited for.
    await using sw = createSwitch({ io })
    await sw.addPort({ type: 'memory', id: 'out' })
    await sw.addPort({ type: 'pcap', id: 'in', replay: path, pace: 'full' })
    const out = sw.memoryPort('out')
    for (const [n, length] of lengths.entries()) {
      const got = await out.next({ signal: AbortSignal.timeout(40_000) })
      expect(Buffer.from(got)).toEqual(Buffer.from(two[n].subarray(0, length)))
    }
  })

  test('blocks that it does not know are passed over', async () => {
    const path = write(READ.find(([name]) => name === 'pcapng, unknown blocks')![1]())
    expect((await replay(path, 2)).frames).toEqual(two.map((one) => Buffer.from(one)))
  })
})

describe('refused by name', () => {
  test.each([
    ['text', Buffer.from('0000 ff ff ff ff\n'), 'is text, not a pcap or pcapng file'],
    ['zstd', Buffer.from('28b52ffd00', 'hex'), 'is compressed with zstd'],
    ['another link type', pcapFile([[plain(1)]], { link: 113 }), '113 (Linux cooked)'],
    ['a pcap of Ixia', pcapFile([[plain(1)]], { magic: 0x1c0001ac }), 'Ixia'],
    ['gzip of text', gzipSync('0000 ff ff ff ff\n'), 'is text'],
  ])('%s', async (_, bytes, message) => {
    await using sw = createSwitch({ io })
    const added = sw.addPort({ type: 'pcap', id: 'in', replay: write(bytes) })
    await expect(added).rejects.toMatchObject({ code: 'CAPTURE_FORMAT' })
    await expect(added).rejects.toThrow(message)
    expect(sw.ports()).toEqual([])
  })
})

describe('the pace', () => {
  test('frames without a time wait for nothing, nor does anything for them', async () => {
    const at = (n: number, ms?: bigint): { bytes: Uint8Array; time?: bigint } =>
      ms === undefined ? { bytes: plain(n) } : { bytes: plain(n), time: NOW + ms * 1000n }
    const first = ng().interface().frame(at(0)).frame(at(1, 0n)).frame(at(2, 200n))
    const later = ng().interface().frame(at(0, 0n)).frame(at(1)).frame(at(2, 200n)).frame(at(3))
    for (const [file, count] of [
      [first, 3],
      [later, 4],
    ] as const) {
      const { ms } = await replay(write(file.bytes), count)
      expect(ms[2]).toBeGreaterThanOrEqual(200)
    }
  })

  test('goes on when the clock of the file was set back', async () => {
    const file = ng().interface()
    for (const [n, ms] of [0n, 200n, -3_600_000n, -3_599_800n, -3_599_600n].entries()) {
      file.frame({ bytes: plain(n), time: NOW + ms * 1000n })
    }
    const { ms } = await replay(write(file.bytes), 5)
    expect(ms[4]).toBeGreaterThanOrEqual(600)
  })
})

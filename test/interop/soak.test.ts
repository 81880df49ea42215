/**
 * A switch with everything on it (support/soak-bed.ts) is replaced again and again, A -> B -> C ...: no frame is lost,
 * doubled or overtaken, and nothing is left of those that were. `npm run soak` does it 50 times, or as many as
 * FRAMEPUMP_SOAK_UPGRADES says.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { readPcapng } from '../../src/wire/pcapng.ts'
import { NoAutogroup } from '../support/autogroup.ts'
import { Lab } from '../support/lab.ts'
import { descriptorsOf, interfacesOf, processesWith, unixSocketsIn } from '../support/leftovers.ts'
import { learntAt, QUEUES, RECORDER, SoakBed } from '../support/soak-bed.ts'
import { capturedFlows, SoakTraffic, unlike } from '../support/soak-traffic.ts'
import { until } from '../support/processes.ts'
import { HugePages } from '../support/huge-pages.ts'
import { TESTPMD_PAGES } from '../support/testpmd.ts'
import type { Line } from '../support/upgrades.ts'
import { tapQueuesOf } from '../support/upgrades.ts'

const UPGRADES = Number(process.env['FRAMEPUMP_SOAK_UPGRADES'] ?? 6)
const TAPS = 8
const ADDRESSES = 1000
/** In frames of the replay: the last byte of the destination, and their number. */
const [MAC_LAST, NUMBER_AT] = [5, 14]
/** Of each upgrade, and of everything before and after them. */
const [UPGRADE_MS, REST_MS] = [20_000, 400_000]
const SETTLED_MS = 1000
const TRIES_MAX = 5
const CAPTURES = ['all.pcapng', 'out.pcap']

let pages: HugePages
let autogroup: NoAutogroup
beforeAll(() => {
  pages = new HugePages(TESTPMD_PAGES)
  autogroup = new NoAutogroup()
})
afterAll(() => {
  autogroup.putBack()
  pages.putBack()
})

/** What must be the same whoever has the switch. */
async function belongings(bed: SoakBed): Promise<unknown> {
  const { line } = bed
  await line.areOthersGone()
  const ports = await line.execute<Record<string, unknown>[]>('query-ports')
  return {
    processes: processesWith('run', bed.file('switch.yaml')).length,
    tapQueues: tapQueuesOf(line.last),
    // A capture may have ended: see expectCaptured.
    descriptors: Object.fromEntries(
      Object.entries(descriptorsOf(line.last)).filter(
        ([name]) => !CAPTURES.some((file) => name === bed.file(file).replaceAll(/\d+/g, '#')),
      ),
    ),
    sockets: unixSocketsIn(bed.lab.directory),
    files: readdirSync(bed.lab.directory).toSorted(),
    interfaces: interfacesOf(bed.namespaces),
    ports: ports.map(({ id, state, queues, ...more }) => ({
      id,
      state,
      queues,
      attached: more['queues-attached'],
    })),
    carriers: await Promise.all(
      bed.guests.map((guest) => guest.output('cat /sys/class/net/eth0/carrier_changes')),
    ),
  }
}

/** The same, when nothing is under way any more: connections that were ended, what a new one loads. */
async function settled(bed: SoakBed): Promise<unknown> {
  let now = await belongings(bed)
  await until(
    'nothing comes or goes',
    async () => {
      const before = now
      await new Promise((resolve) => setTimeout(resolve, SETTLED_MS))
      now = await belongings(bed)
      return isDeepStrictEqual(now, before)
    },
    REST_MS,
  )
  return now
}

/** What was dropped, but for frames of no protocol that a namespace has. */
async function dropsOf(line: Line): Promise<Record<string, number>> {
  const ports =
    await line.execute<{ id: string; counters: Record<string, number> }[]>('query-ports')
  const drops: Record<string, number> = {}
  for (const { id } of ports) {
    const [stats] = await line.execute<Record<string, number>[]>('query-port-stats', { id })
    for (const [name, value] of Object.entries(stats)) {
      if (/drop/.test(name) && name !== 'tx_kernel_dropped' && value !== 0)
        drops[`${id} ${name}`] = value
    }
  }
  return drops
}

/** Everything that was sent has come to the other side, once and in order. */
function expectFlows(traffic: SoakTraffic, results: Awaited<ReturnType<SoakTraffic['end']>>): void {
  for (const [k, { name }] of traffic.flows.entries()) {
    for (const to of [0, 1]) {
      const { sent } = results.flows[k][1 - to]
      expect(sent).toBeGreaterThan(100 * UPGRADES)
      const { silenceUs: _, silentUntilUs: _at, sent: _own, ...got } = results.flows[k][to]
      const good = {
        expected: sent,
        received: sent,
        duplicates: 0,
        overtaken: 0,
        corrupt: 0,
        gaps: [],
      }
      expect({ name, to, ...got }).toEqual({ name, to, ...good })
    }
  }
  expect(results.pings.flatMap(({ name, wrong }) => wrong.map((seq) => `${name}: ${seq}`))).toEqual(
    [],
  )
  for (const { sent, received } of results.transfers) {
    expect(sent.length).toBeGreaterThan(64)
    expect(received).toBe(sent)
  }
}

/** A record port is not handed over before all is in its file, for which the thread that writes has 200 ms. */
async function upgradeInTime(line: Line): ReturnType<Line['upgrade']> {
  for (let tries = 1; ; tries++) {
    try {
      return await line.upgrade()
    } catch (error) {
      const isLate = (error as Error).message.includes('as fast as it has to be')
      if (!isLate || tries === TRIES_MAX) throw error
    }
  }
}

/**
 * The files of the captures have each frame once: in, where it entered, and out, where it left. `isRunning`: to the end;
 * one of which not all was in its file in 50 ms has ended with a hand-over.
 */
function expectCaptured(
  bed: SoakBed,
  traffic: SoakTraffic,
  results: Awaited<ReturnType<SoakTraffic['end']>>,
  isRunning: (file: string) => boolean,
): void {
  const countOf = (file: string, numbers: readonly number[], sent: number): number =>
    isRunning(file) ? sent : numbers.length
  const [all, out] = CAPTURES.map((name) => capturedFlows(bed.file(name)))
  for (const [k, { name, ports }] of traffic.flows.entries()) {
    for (const from of [0, 1]) {
      const { sent } = results.flows[k][from]
      const ways = [...all.get(ports[from])!.values()]
      const wrong = ways.flatMap((numbers) => unlike(numbers, countOf('all.pcapng', numbers, sent)))
      // Behind testpmd they enter once more.
      const entries = k === 1 ? 2 : 1
      const times = ways.length
      expect({ name, from, times, wrong }).toEqual({ name, from, times: entries, wrong: [] })
    }
  }
  const [first] = traffic.flows
  expect([...out.keys()]).toEqual([first.ports[0]])
  const [numbers] = out.get(first.ports[0])!.values()
  expect(unlike(numbers, countOf('out.pcap', numbers, results.flows[0][0].sent))).toEqual([])
}

/** What was replayed is in the file of the other port, up to where the last one ended. */
function expectRecorded(bed: SoakBed): void {
  const numbers: number[] = []
  const bytes = new Uint8Array(readFileSync(bed.file('record.pcapng')))
  const view = new DataView(bytes.buffer)
  const frame = (at: number): void => {
    // Others are for everybody.
    if (bytes[at + MAC_LAST] === RECORDER) numbers.push(view.getUint32(at + NUMBER_AT))
  }
  readPcapng(bytes, { frame })
  expect(numbers.length).toBeGreaterThan(100 * UPGRADES)
  expect(unlike(numbers, numbers.length)).toEqual([])
}

/** The last one has ended: no process, interface, socket or descriptor of it is there any more. */
function expectNothingLeft(bed: SoakBed): void {
  expect(processesWith('run', bed.file('switch.yaml'))).toEqual([])
  const interfaces = interfacesOf(bed.namespaces)
  expect(interfaces.filter((name) => name.endsWith(' x0'))).toEqual([
    `${bed.places[TAPS].netns} x0`,
  ])
  const isOurs = (name: string): boolean => !name.endsWith('.qmp')
  expect(Object.keys(unixSocketsIn(bed.lab.directory)).filter(isOurs)).toEqual([])
  const left = readdirSync(bed.lab.directory).filter((name) => name.endsWith('.sock'))
  expect(left).toEqual([])
}

test(
  `H4, H5, H7, H8, H11, H13, H14, H16: ${UPGRADES} upgrades of a switch with everything on it lose, double and overtake nothing`,
  async () => {
    await using lab = new Lab()
    await using bed = await SoakBed.start(lab)
    const { line } = bed
    // Guests that had not booted had no frames of those who learnt of each other.
    const dropped = await dropsOf(line)
    const traffic = await SoakTraffic.start(bed)
    const pauses: number[] = []
    let before: unknown
    for (let time = 0; time < UPGRADES; time++) {
      bed.peer.begin()
      const { ports, 'pause-us': pauseUs, 'frames-lost': lost } = await upgradeInTime(line)
      expect({ count: ports.length, lost }).toEqual({ count: TAPS + 8, lost: 0 })
      pauses.push(pauseUs)
      await bed.peer.complete()
      // The first one was started otherwise, and its control socket goes on in the second.
      if (time === 1) before = await settled(bed)
    }
    const after = await settled(bed)
    expect(after).toEqual(before)
    expect(after).toMatchObject({ processes: 1, tapQueues: TAPS * QUEUES })
    expect(new Set(line.pids).size).toBe(UPGRADES + 1)
    const results = await traffic.end()
    const table = await line.execute<{ mac: string; port: string }[]>('query-mac-table')
    expect(learntAt(table, 'p0')).toBe(ADDRESSES)
    const { sent, came } = bed.peer
    expect(came.map((numbers, from) => unlike(numbers, sent[from]))).toEqual([[], []])
    const captures = await line.execute<{ id: number; to: string }[]>('query-captures')
    for (const { id } of captures) {
      expect(await line.execute('capture-stop', { id })).toMatchObject({ dropped: 0 })
    }
    const drops = await dropsOf(line)
    console.log(`soak: ${UPGRADES} pauses, ${pauses.join(', ')} us; drops ${JSON.stringify(drops)}`)
    for (const [k, { name }] of traffic.flows.entries()) {
      const [a, b] = results.flows[k]
      const silences = [a, b].map(({ silenceUs }) => Math.round(silenceUs / 1000)).join(' and ')
      console.log(`soak: ${name}: ${a.received} and ${b.received}, silent for ${silences} ms`)
    }
    expect(drops).toEqual(dropped)
    expectFlows(traffic, results)
    expectCaptured(bed, traffic, results, (file) =>
      captures.some(({ to }) => to === bed.file(file)),
    )
    await bed[Symbol.asyncDispose]()
    expectRecorded(bed)
    expectNothingLeft(bed)
  },
  UPGRADES * UPGRADE_MS + REST_MS,
)

/** Traffic by all ports of a SoakBed at once, and captures of it: what became of every frame. */
import { readFileSync } from 'node:fs'
import { readPcap } from '../../src/wire/pcap.ts'
import { readPcapng } from '../../src/wire/pcapng.ts'
import { NumberedUdp } from './numbered-udp.ts'
import type { UdpResult } from './numbered-udp.ts'
import { SteadyPing, wrongOf } from './pings.ts'
import type { SoakBed } from './soak-bed.ts'
import { pairsOf } from './soak-bed.ts'
import { SteadyTransfer } from './steady-transfer.ts'

/** Of each direction: what waits while a machine is busy fits into rings and queues. */
const RATE_FPS = 300
/** Of an emulated guest. */
const GUEST_RATE_FPS = 200
const FIRST_PORT = 5400
/** A flood ping, and one of an emulated guest. */
const [FLOOD_MS, PING_MS] = [2, 10]
const [TRANSFER_MS, GUEST_TRANSFER_MS] = [20, 100]
/** Of the captures: behind Ethernet, IP and UDP headers there are 8 bytes of the tool. */
const SNAPLEN = 64

const IPV4 = 0x0800
const UDP = 17
const [TYPE_AT, PROTOCOL_AT, PORT_AT, NUMBER_AT, LAST_AT] = [12, 23, 34, 42, 46]

/** By the port of UDP it comes from, and the interface of the capture. */
export type CapturedFlows = Map<number, Map<number, number[]>>

export class SoakTraffic {
  readonly #bed: SoakBed
  readonly flows: readonly NumberedUdp[]
  readonly #transfers: readonly SteadyTransfer[]
  readonly #pings: readonly SteadyPing[]

  private constructor(
    bed: SoakBed,
    flows: readonly NumberedUdp[],
    transfers: readonly SteadyTransfer[],
    pings: readonly SteadyPing[],
  ) {
    this.#bed = bed
    this.flows = flows
    this.#transfers = transfers
    this.#pings = pings
  }

  /** Captures run before the first frame. */
  static async start(bed: SoakBed): Promise<SoakTraffic> {
    const { lab, places, guests, guestPlaces, line } = bed
    const pairs = pairsOf(places, guestPlaces)
    const captures = [
      { path: bed.file('all.pcapng'), snaplen: SNAPLEN },
      { path: bed.file('out.pcap'), snaplen: SNAPLEN, ports: ['p1'], direction: 'out' },
    ]
    for (const capture of captures) await line.execute('capture-start', capture)
    const flows: NumberedUdp[] = []
    for (const [k, pair] of pairs.entries()) {
      const isGuest = guestPlaces.includes(pair[1])
      const rate = isGuest ? GUEST_RATE_FPS : RATE_FPS
      flows.push(await NumberedUdp.open(pair, FIRST_PORT + 2 * k, rate))
    }
    const guest = { guest: guests[1], address: guestPlaces[1].address }
    const transfers = [
      await SteadyTransfer.start(lab, places[1], places[0], TRANSFER_MS),
      await SteadyTransfer.toGuest(lab, places[6], guest.guest, guest.address, GUEST_TRANSFER_MS),
    ]
    const pings = pairs.map(
      ([{ netns }, { address }], k) =>
        new SteadyPing(lab, netns, address, k === 0 ? FLOOD_MS : PING_MS),
    )
    for (const flow of flows) await flow.begin()
    return new SoakTraffic(bed, flows, transfers, pings)
  }

  /** What each flow received, each transfer, each ping: when nothing is under way any more. */
  async end(): Promise<{
    readonly flows: readonly (readonly [UdpResult, UdpResult])[]
    readonly transfers: readonly { readonly sent: string; readonly received: string }[]
    readonly pings: readonly { readonly name: string; readonly wrong: readonly number[] }[]
  }> {
    for (const flow of this.flows) await flow.end()
    for (const ping of this.#pings) await ping.end()
    const transfers = []
    for (const transfer of this.#transfers) transfers.push(await transfer.end())
    const flows = []
    for (const flow of this.flows) flows.push(await flow.results())
    await this.#bed.peer.end()
    const pings = this.#pings.map(({ name, output }) => ({ name, wrong: wrongOf(output) }))
    return { flows, transfers, pings }
  }
}

/** Numbers of datagrams in a file, in their order; without the last messages. */
export function capturedFlows(path: string): CapturedFlows {
  const bytes = new Uint8Array(readFileSync(path))
  const view = new DataView(bytes.buffer)
  const flows: CapturedFlows = new Map()
  const frame = (
    at: number,
    length: number,
    _original: number,
    _time: bigint,
    id: number,
  ): void => {
    if (length < LAST_AT + 4 || view.getUint16(at + TYPE_AT) !== IPV4) return
    if (bytes[at + PROTOCOL_AT] !== UDP || view.getUint32(at + LAST_AT, true) !== 0) return
    const port = view.getUint16(at + PORT_AT)
    if (!flows.has(port)) flows.set(port, new Map())
    const interfaces = flows.get(port)!
    if (!interfaces.has(id)) interfaces.set(id, [])
    interfaces.get(id)!.push(view.getUint32(at + NUMBER_AT, true))
  }
  if (path.endsWith('.pcap')) readPcap(bytes, { frame })
  else readPcapng(bytes, { frame })
  return flows
}

/** Where a list differs from 0, 1, 2 ...: the first places; there is none when it is that, of so many. */
export function unlike(numbers: readonly number[], count: number): string[] {
  const wrong = numbers.flatMap((number, at) => {
    const wanted = at === 0 ? 0 : numbers[at - 1] + 1
    return number === wanted ? [] : [`${number} at ${at} in place of ${wanted}`]
  })
  if (numbers.length !== count) wrong.push(`${numbers.length} in place of ${count}`)
  return wrong.slice(0, 5)
}

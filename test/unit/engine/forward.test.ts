/** Who is given which frame of a burst, and why the others are not. */
import { beforeEach, describe, expect, test } from 'vitest'
import { Burst, HEAD_WORDS } from '../../../src/mem/burst.ts'
import { Window } from '../../../src/mem/window.ts'
import type { EnginePort } from '../../../src/port/contract.ts'
import { PORTS_MAX } from '../../../src/port/contract.ts'
import { COUNTERS_STRIDE } from '../../../src/stats/counters.ts'
import type { CounterName } from '../../../src/stats/counters.ts'
import { readCounters } from '../../../src/stats/port-counters.ts'
import { StageMachinery } from '../../../src/engine/egress.ts'
import { Forwarder } from '../../../src/engine/forward.ts'
import { MacTable } from '../../../src/engine/mac-table.ts'
import { ALL_GROUPS, NO_GROUPS, NOBODY_WATCHES, policies } from '../../support/policies.ts'

const [CSUM, TSO4] = [0x01, 0x02]
/** A vnet_hdr that says TCPv4. */
const GSO = 0x0101
const BROADCAST = 255
/** 01:80:c2:00:00:00 */
const RESERVED = 254
/** 00:00:00:00:00:00 */
const ZERO = 0

const burst = new Burst()
const counters = new Float64Array(PORTS_MAX * COUNTERS_STRIDE)
let forwarder: Forwarder
let ports: RecordingPort[]

/** Remembers what it was given. */
class RecordingPort implements EnginePort {
  readonly index: number
  readonly txOffloads: number
  readonly given: { frames: number[]; queue: number }[] = []
  turns = 0

  constructor(index: number, txOffloads: number) {
    this.index = index
    this.txOffloads = txOffloads
  }

  transmit(_: Burst, list: Int32Array, first: number, count: number, queue: number): void {
    this.given.push({ frames: [...list.subarray(first, first + count)], queue })
  }

  endTurn(): void {
    this.turns++
  }

  close(): void {}
}

interface Frame {
  readonly to: number
  readonly from: number
  readonly length?: number
  readonly needs?: number
  readonly gso?: number
  readonly gsoSize?: number
}

function address(number: number): number[] {
  if (number === BROADCAST) return [255, 255, 255, 255, 255, 255]
  if (number === RESERVED) return [1, 0x80, 0xc2, 0, 0, 0]
  return number === ZERO ? [0, 0, 0, 0, 0, 0] : [2, 0, 0, 0, 0, number]
}

/** Nothing that these frames need can be done in software: there are no headers in their memory. */
const machinery = new StageMachinery(counters, policies().vlans, NOBODY_WATCHES, () => undefined)
const memory = Window.map(4096)
burst.window.fill(memory.id)

/** Classifies and delivers a burst; returns the numbers of the frames that each port was given. */
function forward(inPort: number, frames: readonly Frame[], nowS = 0, queue = 0): number[][] {
  frames.forEach(({ to, from, length = 60, needs = 0, gso = 0, gsoSize = 0 }, k) => {
    const head = new Uint8Array(HEAD_WORDS * 4)
    head.set([...address(to), ...address(from), 0x88, 0xb5])
    burst.heads.set(new Int32Array(head.buffer), k * HEAD_WORDS)
    burst.length[k] = length
    burst.needs[k] = needs
    burst.gso[k] = gso
    burst.gsoSize[k] = gsoSize
  })
  burst.clear()
  burst.count = frames.length
  burst.hasOffloads = frames.some(({ needs = 0, gso = 0 }) => (needs | gso) !== 0)
  for (const port of ports) port.given.length = 0
  forwarder.classify(burst, inPort, nowS)
  forwarder.deliver(burst, inPort, queue)
  return ports.map(({ given }) => given.flatMap((one) => one.frames))
}

function add(index: number, mtu = 0, txOffloads = 0): void {
  ports[index] = new RecordingPort(index, txOffloads)
  forwarder.addPort(ports[index], mtu)
}

function setUp(count: number, dropsReservedGroups = false): void {
  counters.fill(0)
  ports = []
  forwarder = new Forwarder(
    new MacTable(64, 1),
    counters,
    policies(dropsReservedGroups ? NO_GROUPS : ALL_GROUPS),
    machinery,
  )
  for (let index = 0; index < count; index++) add(index)
}

/** The counters of a port that are not zero. */
function counted(port: number): Partial<Record<CounterName, number>> {
  return Object.fromEntries(
    Object.entries(readCounters(counters, port)).filter(([, value]) => value !== 0),
  )
}

beforeEach(() => setUp(4))

describe('on the switch', () => {
  test('each frame has its own way, whether those beside it share its addresses or not', () => {
    forward(2, [{ to: BROADCAST, from: 2 }])
    forward(3, [{ to: BROADCAST, from: 3 }])
    const [two, three] = [
      { to: 2, from: 1 },
      { to: 3, from: 1 },
    ]
    const frames = [two, two, three, { ...two, from: 9 }, two, three, three, { ...two, to: 77 }]
    expect(forward(1, frames)).toEqual([[7], [], [0, 1, 3, 4, 7], [2, 5, 6, 7]])
    // Only the frame in the middle of the run is too long.
    setUp(1)
    add(1, 1500)
    const run = [60, 1600, 60].map((length) => ({ to: 77, from: 1, length }))
    expect(forward(0, run)).toEqual([[], [0, 2]])
    expect(counted(1)).toEqual({ tx_drop_mtu: 1 })
  })

  test('broadcast, multicast and unknown addresses go to all ports but the in-port', () => {
    expect(
      forward(1, [
        { to: BROADCAST, from: 1 },
        { to: RESERVED, from: 1 },
        { to: 77, from: 1 },
      ]),
    ).toEqual([[0, 1, 2], [], [0, 1, 2], [0, 1, 2]])
    expect(counted(1)).toEqual({ rx_frames: 3, rx_bytes: 180 })
    expect(counted(0)).toEqual({})
  })

  test('a known address goes to its port, in the order of arrival', () => {
    forward(2, [{ to: BROADCAST, from: 5 }])
    forward(3, [{ to: BROADCAST, from: 6 }])
    const frames = [5, 6, 6, 5, BROADCAST, 5].map((to) => ({ to, from: 1 }))
    expect(forward(0, frames)).toEqual([[], [4], [0, 3, 4, 5], [1, 2, 4]])
  })

  test('every port is given its part of a burst in one call, with the queue it came in by', () => {
    forward(
      0,
      [
        { to: BROADCAST, from: 1 },
        { to: BROADCAST, from: 1 },
      ],
      0,
      3,
    )
    expect(ports[1].given).toEqual([{ frames: [0, 1], queue: 3 }])
    expect(ports[0].given).toEqual([])
  })

  test('lists do not outlive their burst', () => {
    forward(0, [{ to: BROADCAST, from: 1 }])
    expect(forward(0, [])).toEqual([[], [], [], []])
    expect(forwarder.given.egressCount).toBe(0)
  })

  test('a frame for the port it came from is dropped there', () => {
    forward(0, [
      { to: BROADCAST, from: 1 },
      { to: BROADCAST, from: 2 },
    ])
    expect(forward(0, [{ to: 2, from: 1 }])).toEqual([[], [], [], []])
    expect(counted(0)).toMatchObject({ rx_frames: 3, rx_drop_same_port: 1 })
  })

  test('a flood on a switch without other ports is dropped at the in-port', () => {
    setUp(1)
    forward(0, [{ to: BROADCAST, from: 1 }])
    expect(counted(0)).toEqual({ rx_frames: 1, rx_bytes: 60, rx_drop_no_port: 1 })
  })

  test('802.1D group addresses are dropped only when asked for, other groups never', () => {
    setUp(2, true)
    const got = forward(0, [
      { to: RESERVED, from: 1 },
      { to: BROADCAST, from: 1 },
    ])
    expect(got).toEqual([[], [1]])
    expect(counted(0)).toMatchObject({ rx_drop_group_address: 1 })
  })

  test.each([
    ['broadcast', BROADCAST],
    ['a group address', RESERVED],
    ['zero', ZERO],
  ])('frames from %s are dropped and counted, those beside them are not', (_, source) => {
    const got = forward(0, [
      { to: 9, from: source },
      { to: 9, from: 1 },
      { to: 9, from: source },
      { to: BROADCAST, from: source },
    ])
    expect(got).toEqual([[], [1], [1], [1]])
    expect(counted(0)).toEqual({ rx_frames: 4, rx_bytes: 240, rx_drop_source: 3 })
    expect(forwarder.macTable.entries).toBe(1)
  })

  test('a link passes whatever source a frame has', () => {
    forwarder.wire(0, 1)
    const got = forward(0, [
      { to: 9, from: ZERO },
      { to: 9, from: BROADCAST },
    ])
    expect(got).toEqual([[], [0, 1], [], []])
    expect(counted(0)).not.toHaveProperty('rx_drop_source')
  })

  test('the address of zeros is never learnt, wherever in a burst it stands', () => {
    forward(0, [{ to: 9, from: ZERO }])
    expect(forwarder.macTable.entries).toBe(0)
    forward(0, [
      { to: 9, from: 1 },
      { to: 9, from: ZERO },
    ])
    expect(forwarder.macTable.entries).toBe(1)
  })

  test('what a burst teaches holds for the rest of the burst', () => {
    forward(3, [{ to: BROADCAST, from: 5 }])
    const got = forward(0, [
      { to: 5, from: 1 },
      // 5 has moved here: what follows for it is on its own port.
      { to: 1, from: 5 },
      { to: 5, from: 1 },
    ])
    expect(got).toEqual([[], [], [], [0]])
    expect(counted(0)).toMatchObject({ rx_drop_same_port: 2 })
  })

  test('the same address twice in a row is looked up as it is after the frame between', () => {
    const got = forward(0, [
      { to: 5, from: 1 },
      { to: 5, from: 5 },
    ])
    expect(got).toEqual([[], [0], [0], [0]])
    expect(counted(0)).toMatchObject({ rx_drop_same_port: 1 })
  })
})

describe('what a port does not take', () => {
  test('nothing leaves by a port whose link is down, and each frame counts', () => {
    forwarder.setLink(2, false)
    expect(forward(0, [{ to: BROADCAST, from: 1 }])).toEqual([[], [0], [], [0]])
    expect(counted(2)).toEqual({ tx_drop_link_down: 1 })
    forwarder.setLink(2, true)
    expect(forward(0, [{ to: BROADCAST, from: 1 }])[2]).toEqual([0])
  })

  test('nothing enters by a port whose link is down, nor is learnt', () => {
    forwarder.setLink(0, false)
    expect(forward(0, [{ to: BROADCAST, from: 1 }])).toEqual([[], [], [], []])
    expect(counted(0)).toEqual({ rx_frames: 1, rx_bytes: 60, rx_drop_link_down: 1 })
    expect(forwarder.macTable.entries).toBe(0)
  })

  test('a link that goes down takes its addresses with it: they flood', () => {
    forward(2, [{ to: BROADCAST, from: 5 }])
    forwarder.setLink(2, false)
    expect(forward(0, [{ to: 5, from: 1 }])).toEqual([[], [0], [], [0]])
  })

  test('a frame may be as long as the mtu, an Ethernet header and two VLAN tags', () => {
    setUp(1)
    add(1, 1500)
    const longest = 1500 + 14 + 8
    expect(
      forward(0, [
        { to: BROADCAST, from: 1, length: longest },
        { to: BROADCAST, from: 1, length: longest + 1 },
      ]),
    ).toEqual([[], [0]])
    expect(counted(1)).toEqual({ tx_drop_mtu: 1 })
  })

  test('a GSO frame is as long as one of its segments', () => {
    setUp(1)
    add(1, 1500, CSUM | TSO4)
    const tcp = { to: BROADCAST, from: 1, length: 60_000, needs: CSUM | TSO4 }
    const headers = (length: number): number => 1 | (1 << 8) | (length << 16)
    expect(
      forward(0, [
        { ...tcp, gso: headers(66), gsoSize: 1448 | (34 << 16) },
        { ...tcp, gso: headers(66), gsoSize: 1457 | (34 << 16) },
        // A plain frame with something in gso_size is as long as it is.
        { to: BROADCAST, from: 1, length: 60_000, gso: headers(66) & ~0xffff, gsoSize: 100 },
        { ...tcp, needs: CSUM, gso: 1, gsoSize: 1 | (34 << 16) },
      ]),
    ).toEqual([[], [0]])
    expect(counted(1)).toEqual({ tx_drop_mtu: 3 })
  })

  test('a frame that needs what a port lacks, and makes no sense, is dropped for that port', () => {
    setUp(1)
    add(1, 0, 0)
    add(2, 0, CSUM)
    add(3, 0, CSUM | TSO4)
    expect(
      forward(0, [
        { to: BROADCAST, from: 1, needs: CSUM | TSO4, gso: GSO, gsoSize: 1448 },
        { to: BROADCAST, from: 1, needs: CSUM, gso: GSO },
        { to: BROADCAST, from: 1 },
      ]),
      // Those that are left are numbered anew.
    ).toEqual([[], [0], [0, 1], [0, 1, 2]])
    expect(counted(1)).toEqual({ tx_drop_offload: 2 })
    expect(counted(2)).toEqual({ tx_drop_offload: 1 })
    expect(counted(3)).toEqual({})
  })
})

describe('links', () => {
  test('two wired ports have each other and nobody else, whatever the addresses', () => {
    forwarder.wire(0, 2)
    expect(
      forward(0, [
        { to: BROADCAST, from: 1 },
        { to: 1, from: 1 },
      ]),
    ).toEqual([[], [], [0, 1], []])
    expect(forward(2, [{ to: 1, from: 9 }])).toEqual([[0], [], [], []])
    expect(forward(1, [{ to: BROADCAST, from: 3 }])).toEqual([[], [], [], [0]])
    expect(forwarder.macTable.entries).toBe(1)
  })

  test('wiring forgets what both ports were known for', () => {
    forward(0, [{ to: BROADCAST, from: 5 }])
    forward(2, [{ to: BROADCAST, from: 6 }])
    forwarder.wire(0, 2)
    expect(forward(1, [{ to: 5, from: 1 }])).toEqual([[], [], [], [0]])
    expect(forwarder.macTable.lookup(2, 0x0600)).toBe(-1)
  })

  test('mtu, offloads and link state hold on a link as well', () => {
    setUp(1)
    add(1, 1500)
    forwarder.wire(0, 1)
    const frames = [
      { to: 1, from: 1, length: 2000 },
      { to: 1, from: 1, needs: CSUM, gso: GSO },
    ]
    expect(forward(0, frames)).toEqual([[], []])
    forwarder.setLink(1, false)
    forward(0, [{ to: 1, from: 1 }])
    expect(counted(1)).toEqual({ tx_drop_mtu: 1, tx_drop_offload: 1, tx_drop_link_down: 1 })
  })

  test('unwired, both are on the switch again', () => {
    forwarder.wire(0, 2)
    forwarder.unwire(0, 2)
    expect(forward(1, [{ to: BROADCAST, from: 1 }])).toEqual([[0], [], [0], [0]])
  })

  test('a port whose peer is removed is on the switch again', () => {
    forwarder.wire(0, 2)
    forwarder.removePort(2)
    expect(forward(0, [{ to: BROADCAST, from: 1 }])).toEqual([[], [0], [], [0]])
  })
})

describe('ports that come and go', () => {
  test('a removed port is given nothing and its addresses flood', () => {
    forward(3, [{ to: BROADCAST, from: 5 }])
    forwarder.removePort(3)
    expect(forwarder.port(3)).toBeNull()
    expect(forward(0, [{ to: 5, from: 1 }])).toEqual([[], [0], [0], []])
  })

  test('its number can be used again, with nothing left of the old limits', () => {
    forwarder.removePort(3)
    add(3, 1500)
    forwarder.setLink(3, false)
    forwarder.removePort(3)
    add(3)
    expect(forward(0, [{ to: BROADCAST, from: 1, length: 9000 }])[3]).toEqual([0])
  })
})

test('the end of a turn reaches each port that was given frames, once', () => {
  forward(0, [{ to: BROADCAST, from: 1 }])
  forward(1, [{ to: 1, from: 2 }])
  forwarder.removePort(3)
  forwarder.endTurn()
  expect(ports.map(({ turns }) => turns)).toEqual([1, 1, 1, 0])
  forwarder.endTurn()
  expect(ports.map(({ turns }) => turns)).toEqual([1, 1, 1, 0])
})

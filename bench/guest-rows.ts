/** The rows with vhost-user guests. */
import type { GuestPeer } from './guests.ts'
import { ACCESS_AND_TRUNK, GuestBed, SETUPS } from './guests.ts'
import type { HostileChoice } from './hostile-bed.ts'
import { measureHostile } from './hostile-bed.ts'
import type { LoadChoice } from './load-bed.ts'
import { measureLoad } from './load-bed.ts'
import type { Report } from './report.ts'
import { median } from './report.ts'
import type { Row, Scale } from './rows.ts'
import { inTurn } from './rows.ts'
import { VLAN } from './topology.ts'

const PAIR: LoadChoice = { ports: 2, addresses: 1, ringSize: 1024 }
const HUNDRED_VLANS = Array.from({ length: 100 }, (_, k) => 100 + k)

/** All that a guard can check, with the address of load.ts. */
const guarded = (guest: number): string =>
  `guard=mac:arp:ipv4:ipv6:dhcp:ra,macs=02:00:00:0${guest}:00:00,ips=10.${guest + 1}.0.0:[fd00::${guest}]`

export const GUEST_ROWS: Readonly<Record<string, Row>> = {
  'vhost-64': guestRow('vhost-64', 64),
  'vhost-1514': guestRow('vhost-1514', 1514),
  // framepump beside Open vSwitch with an access port and a trunk.
  'vhost-vlan-64': vlanRow('vhost-vlan-64', 64),
  'vhost-options-64': optionsRow('vhost-options-64', 64),
  'vhost-vlan': loadRow('vhost-vlan', {
    'access-trunk': { ...PAIR, options: ACCESS_AND_TRUNK, vlans: [[], [VLAN]] },
    guards: { ...PAIR, options: [0, 1].map(guarded) },
    untagged: PAIR,
  }),
  'vhost-macs': loadRow('vhost-macs', {
    '1000-in-100-vlans': {
      ports: 2,
      addresses: 1000,
      ringSize: 1024,
      vlans: [HUNDRED_VLANS, HUNDRED_VLANS],
    },
    '1000-addresses': { ports: 2, addresses: 1000, ringSize: 1024 },
    '10-addresses': { ports: 2, addresses: 10, ringSize: 1024 },
    '1-address': { ports: 2, addresses: 1, ringSize: 1024 },
  }),
  // As many buffers in all of them: what their memory costs is not the question.
  'vhost-ports': loadRow('vhost-ports', {
    '32-ports': { ports: 32, addresses: 1, ringSize: 256 },
    '8-ports': { ports: 8, addresses: 1, ringSize: 1024 },
    '2-ports': { ports: 2, addresses: 1, ringSize: 4096 },
  }),
}

export const HOSTILE_ROW: Row = hostileRow('hostile', {
  tables: { attack: 'tables', guests: 1, queues: 64 },
  'tables-8-guests': { attack: 'tables', guests: 8, queues: 8 },
  'tables-64-guests': { attack: 'tables', guests: 64, queues: 1 },
  segments: { attack: 'segments', guests: 1, queues: 64 },
  bytes: { attack: 'bytes', guests: 1, queues: 64 },
  'bytes-to-32': { attack: 'bytes', guests: 32, queues: 2 },
  gso: { attack: 'gso', guests: 1, queues: 64 },
  receiver: { attack: 'receiver', guests: 2, queues: 32 },
  none: { attack: 'none', guests: 1, queues: 64 },
})

/** Both directions at once between two guests. */
function guestRow(row: string, length: number): Row<GuestPeer> {
  return {
    peers: ['framepump', 'ovs-dpdk', 'testpmd'],
    run: (scale, peers, report) =>
      betweenGuests(row, length, scale, peers, report, (peer) => GuestBed.make(peer)),
  }
}

/** The same with a guest on an access port, and one on a trunk. testpmd as a switch has no VLANs. */
function vlanRow(row: string, length: number): Row<GuestPeer> {
  return {
    peers: ['framepump', 'ovs-dpdk'],
    run: (scale, peers, report) =>
      betweenGuests(row, length, scale, peers, report, (peer) =>
        GuestBed.make(peer, SETUPS['access-trunk']),
      ),
  }
}

/** framepump with options of its ports, beside itself without any. */
function optionsRow(row: string, length: number): Row<keyof typeof SETUPS> {
  return {
    peers: ['access-trunk', 'guards', 'untagged'],
    run: (scale, peers, report) =>
      betweenGuests(row, length, scale, peers, report, (peer) =>
        GuestBed.make('framepump', SETUPS[peer]),
      ),
  }
}

function betweenGuests<P extends string>(
  row: string,
  length: number,
  scale: Scale,
  peers: readonly P[],
  report: Report,
  make: (peer: P) => Promise<GuestBed>,
): Promise<void> {
  return inTurn(scale, peers, async (peer) => {
    const bed = await make(peer)
    try {
      report.add(row, peer, 'Mpps each way', await bed.frames(length, scale.seconds))
    } finally {
      await bed.close()
    }
  })
}

/** What a frame costs the switch, in sizes of which the last is the reference. */
function loadRow<P extends string>(row: string, sizes: Readonly<Record<P, LoadChoice>>): Row<P> {
  return {
    peers: Object.keys(sizes) as P[],
    run: (scale, peers, report) =>
      inTurn(scale, peers, async (peer) => {
        const { nsPerFrame, lost } = await measureLoad(sizes[peer], scale.seconds)
        report.add(row, peer, 'ns CPU/frame', median(nsPerFrame))
        report.add(row, peer, 'lost %', 100 * lost)
      }),
  }
}

/** Round trips between two guests beside hostile ones, in attacks of which the last is none. */
function hostileRow<P extends string>(
  row: string,
  choices: Readonly<Record<P, HostileChoice>>,
): Row<P> {
  return {
    peers: Object.keys(choices) as P[],
    run: (scale, peers, report) =>
      inTurn(scale, peers, async (peer) => {
        const { median, p99, chains } = await measureHostile(choices[peer], scale.seconds)
        report.add(row, peer, 'ms median', median)
        report.add(row, peer, 'ms p99', p99)
        report.add(row, peer, 'hostile chains/s', chains)
      }),
  }
}

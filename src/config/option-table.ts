/**
 * The options of each port type: one table for option strings, control commands and config files.
 * Names are QEMU's (qapi/net.json) where QEMU has them.
 */
import type { PortType } from '../port/options.ts'

export type OptionKind =
  | 'string'
  | 'boolean'
  /** Decimal integer, `range` inclusive. */
  | 'integer'
  /** Bytes; k, M, G and T multiply by 1024 as in QEMU. */
  | 'size'
  /** A path, or a false boolean which means `no`. */
  | 'script'
  /** One of `values`. */
  | 'choice'

export interface OptionRule {
  readonly kind: OptionKind
  readonly range?: readonly [number, number]
  readonly values?: readonly string[]
}

const ID: OptionRule = { kind: 'string' }
const GRO: OptionRule = { kind: 'boolean' }
const MTU: OptionRule = { kind: 'integer', range: [68, 65535] }

/** Port types that option strings and config files can name; `memory` exists in the API only. */
export const OPTION_TABLE: Readonly<
  Record<Exclude<PortType, 'memory'>, Readonly<Record<string, OptionRule>>>
> = {
  tap: {
    id: ID,
    ifname: { kind: 'string' },
    fd: { kind: 'string' },
    fds: { kind: 'string' },
    helper: { kind: 'string' },
    br: { kind: 'string' },
    script: { kind: 'script' },
    downscript: { kind: 'script' },
    sndbuf: { kind: 'size', range: [0, Number.MAX_SAFE_INTEGER] },
    vnet_hdr: { kind: 'boolean' },
    vhost: { kind: 'boolean' },
    vhostfd: { kind: 'string' },
    vhostfds: { kind: 'string' },
    vhostforce: { kind: 'boolean' },
    queues: { kind: 'integer', range: [1, 256] },
    'poll-us': { kind: 'integer', range: [0, 0xffff_ffff] },
    persist: { kind: 'boolean' },
    netns: { kind: 'string' },
    mtu: MTU,
    owner: { kind: 'string' },
    group: { kind: 'string' },
    up: { kind: 'boolean' },
    gro: GRO,
  },
  'raw-socket': {
    id: ID,
    ifname: { kind: 'string' },
    netns: { kind: 'string' },
    fd: { kind: 'string' },
    queues: { kind: 'integer', range: [1, 64] },
    promisc: { kind: 'boolean' },
    vnet_hdr: { kind: 'boolean' },
    bypass: { kind: 'boolean' },
    'ring-kb': { kind: 'integer', range: [256, 1_048_576] },
    mtu: MTU,
    gro: GRO,
  },
  'vhost-user': {
    id: ID,
    path: { kind: 'string' },
    server: { kind: 'boolean' },
    queues: { kind: 'integer', range: [1, 128] },
    mtu: MTU,
    gro: GRO,
  },
  'virtio-net': {
    id: ID,
    driver: { kind: 'choice', values: ['echo', 'sink', 'generate'] },
    queues: { kind: 'integer', range: [1, 16] },
    mtu: MTU,
    gro: GRO,
  },
  pcap: {
    id: ID,
    replay: { kind: 'string' },
    record: { kind: 'string' },
    pace: { kind: 'choice', values: ['recorded', 'full'] },
    loop: { kind: 'integer', range: [0, 0x7fff_ffff] },
    mtu: MTU,
  },
}

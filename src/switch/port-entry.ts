/** What the control plane knows of one port of the switch, and how it is shown. */
import { TUN_F_TSO4, TUN_F_TSO6 } from '../abi/if-tun.ts'
import { strerror } from '../abi/strerror.ts'
import { ConfigError, StateError } from '../errors.ts'
import type { MacRows } from '../engine/messages.ts'
import { MAC_ROW, STATIC_AGE } from '../engine/messages.ts'
import type { PortFailure } from '../port/messages.ts'
import type { PortOptions } from '../port/options.ts'
import { PORTS_MAX } from '../port/contract.ts'
import { onlySwitching, switchingOptions } from '../port/switching-options.ts'
import type { LinkInfo } from '../port/interface/link.ts'
import { readCounters } from '../stats/port-counters.ts'
import { formatMac } from '../wire/ethernet.ts'
import type { DeviceState, KernelCounters, MacEntry, PortInfo, PortState } from './api.ts'
import { StaticMacs } from './static-macs.ts'
import { offloadNames } from './switch-options.ts'
import type { ControlPort, PortFacts } from '../port/control-port.ts'

const TSO: number = TUN_F_TSO4 | TUN_F_TSO6

export class PortEntry {
  readonly index: number
  /** Replaced by others that differ in what changes in place. */
  options: PortOptions
  /** A postponed one until the real one is open. */
  open: ControlPort
  /** In an incoming instance: why it was not postponed. */
  readonly notPostponed: string | undefined
  /** Of the forwarding database. */
  readonly statics: StaticMacs
  /** Administrative state (set_link). */
  link = true
  failure: string | undefined
  /** That was its guest's doing, and ends with the guest. */
  #isGuests = false
  /** Nothing enters or leaves by it yet. */
  isHeld = false
  /** Another process has it, or is about to: what it is made of is let go of and not changed. */
  isAnothers = false
  /** Of the interface behind it, as it was last looked at; undefined: there is none, or nobody knows. */
  device: DeviceState | undefined
  /** Of the interface. */
  deviceMtu: number | undefined
  /** That interface has been up since it was opened: one that nobody has set up yet is just open. */
  wasUp = false
  /** What the kernel had dropped at that interface before the port was opened. */
  droppedBefore: { readonly rx: number; readonly tx: number } = { rx: 0, tx: 0 }
  /** Somebody is at the other end, as it was last told; undefined: there is no such thing. */
  wasConnected: boolean | undefined
  peer: PortEntry | undefined
  /** `merges`, as the engine was last told. */
  wasMerging = false

  constructor(
    index: number,
    options: PortOptions,
    open: ControlPort,
    notPostponed: string | undefined,
  ) {
    this.index = index
    this.options = options
    this.statics = new StaticMacs(options)
    this.open = open
    this.notPostponed = notPostponed
    this.wasConnected = open.isConnected
    this.failure = open.failure
  }

  /** False: it is known to have failed. What a guest did is not told when there is no guest to come. */
  fail(reason: string, isGuests: boolean): boolean {
    if (this.failure !== undefined && (isGuests || !this.#isGuests)) return false
    this.failure = reason
    this.#isGuests = isGuests
    return true
  }

  /** Why it has failed, for whoever goes on with it. */
  get handedFailure(): { readonly reason: string; readonly isGuests: boolean } | null {
    return this.failure === undefined ? null : { reason: this.failure, isGuests: this.#isGuests }
  }

  /** Its guest is gone. True: the port had failed because of it. */
  forgive(): boolean {
    if (this.failure === undefined || !this.#isGuests) return false
    this.failure = undefined
    return true
  }

  get isUp(): boolean {
    return this.link && this.failure === undefined && this.open.isConnected !== false
  }

  /** Its TCP segments are merged for ports that take TSO: it has no TSO frames of its own. */
  get merges(): boolean {
    const { options, open } = this
    // Where there is no such option there is nothing to merge.
    if (open.hasNoMerging === true) return false
    const gro = 'gro' in options ? options.gro : undefined
    return gro !== false && (open.rxOffloads & TSO) === 0
  }

  get #state(): PortState {
    if (this.open.postponed !== undefined) return 'postponed'
    if (this.failure !== undefined) return 'failed'
    if (!this.link || (this.wasUp && this.device !== 'up')) return 'down'
    if (this.wasConnected === undefined) return 'open'
    return this.wasConnected ? 'connected' : 'disconnected'
  }

  /** What the kernel dropped at its interface, in the switch's directions. */
  kernelCounters(link: LinkInfo): KernelCounters {
    const { droppedBefore: before } = this
    // An interface that was moved to another namespace may have begun anew.
    const rx = Math.max(0, link.rxDropped - before.rx)
    const tx = Math.max(0, link.txDropped - before.tx)
    const isOutward = this.open.facesOutward === true
    return {
      rx_kernel_dropped: isOutward ? rx : tx,
      tx_kernel_dropped: isOutward ? tx : rx,
    }
  }

  info(counters: Float64Array): PortInfo {
    const { options, open, link, peer, notPostponed } = this
    const { postponed } = open
    const attached = open.tap?.current.attached.filter(Boolean).length ?? open.queues
    const error = postponed === undefined ? this.failure : postponed.error
    return {
      id: options.id,
      type: options.type,
      state: this.#state,
      ...(error === undefined ? {} : { error }),
      ...(postponed === undefined ? {} : { info: postponed.info }),
      ...(notPostponed === undefined ? {} : { notPostponed }),
      ...open.facts(),
      ...(this.device === undefined ? {} : { device: this.device }),
      ...(this.deviceMtu === undefined ? {} : { deviceMtu: this.deviceMtu }),
      queues: open.queues,
      ...(attached === open.queues ? {} : { queuesAttached: attached }),
      offloads: { rx: offloadNames(open.rxOffloads), tx: offloadNames(open.txOffloads) },
      gro: this.merges,
      vnetHdrLength: open.vnetHdrLength,
      link,
      ...(this.isHeld ? { held: true } : {}),
      ...(options.mtu === undefined ? {} : { mtu: options.mtu }),
      ...(peer === undefined ? {} : { peer: peer.options.id }),
      switching: onlySwitching(options),
      counters: readCounters(counters, this.index),
    }
  }
}

/** The lowest number that no port has. */
export function freeIndex(isTaken: (index: number) => boolean): number {
  for (let index = 0; index < PORTS_MAX; index++) if (!isTaken(index)) return index
  throw new StateError('TOO_MANY_PORTS', `a switch has at most ${PORTS_MAX} ports`)
}

/** Pairs of ids of ports that are wired to each other. */
export function listLinks(entries: Iterable<PortEntry>): [string, string][] {
  const links: [string, string][] = []
  for (const { options, index, peer } of entries) {
    if (peer !== undefined && index < peer.index) links.push([options.id, peer.options.id])
  }
  return links
}

/** Rows of the engine's table as they are shown; those of ports that have just gone are left out. */
export function listMacs(
  rows: MacRows['rows'],
  byIndex: readonly (PortEntry | undefined)[],
): MacEntry[] {
  const macs: MacEntry[] = []
  for (let at = 0; at < rows.length; at += MAC_ROW) {
    const [hi, lo, port, ageS] = rows.subarray(at, at + MAC_ROW)
    const entry = byIndex[port]
    if (entry === undefined) continue
    const isStatic = ageS === STATIC_AGE
    macs.push({
      mac: formatMac(hi, lo),
      vlan: lo >>> 16,
      port: entry.options.id,
      ageS: isStatic ? 0 : ageS,
      ...(isStatic ? { static: true } : {}),
    })
  }
  return macs
}

/** Two ports that can be put on a link: throws when they are one, or on a link already. */
export function checkWirable(a: PortEntry, b: PortEntry): void {
  if (a === b) throw new ConfigError('BAD_LINK', `cannot wire "${a.options.id}" to itself`)
  for (const entry of [a, b]) {
    checkFree(entry)
    checkWithoutSwitching(entry.options)
  }
}

/** Throws when the port is on a link, and has options that say how it takes part in the switch. */
export function checkNotWired({ peer }: Pick<PortEntry, 'peer'>, options: PortOptions): void {
  if (peer !== undefined) checkWithoutSwitching(options)
}

/** Throws when a port cannot be on a link because of its options. */
export function checkWithoutSwitching(options: PortOptions): void {
  const given = switchingOptions(options)
  if (given.length === 0) return
  throw new ConfigError(
    'BAD_LINK',
    `port "${options.id}" has ${given.map((key) => `${key}=`).join(', ')}, which ports on a link cannot have`,
    { hint: 'a link passes everything: leave them out, or the link' },
  )
}

/** Throws when a port with these options cannot be wired to that one. */
export function checkWirablePeer(entry: PortEntry, options: PortOptions): void {
  checkFree(entry)
  for (const one of [entry.options, options]) checkWithoutSwitching(one)
}

/** Throws when the port is on a link. */
export function checkFree({ options, peer }: PortEntry): void {
  if (peer === undefined) return
  const text = `port "${options.id}" is already wired to "${peer.options.id}"`
  throw new ConfigError('BAD_LINK', text)
}

const FAILURES: Readonly<Record<PortFailure['what'], (facts: PortFacts) => string>> = {
  'interface-deleted': ({ ifname }) =>
    `${ifname === undefined ? 'its interface' : `the interface ${ifname}`} was deleted`,
  'memory-lost': () => 'its memory was taken away',
  'file-truncated': () => 'its file was truncated',
  'file-unreadable': () => 'its file cannot be read',
}

/** Why the engine could not go on with a port, in words. */
export function whyFailed({ what, errno }: PortFailure, facts: PortFacts): string {
  return `${strerror(errno)}: ${FAILURES[what](facts)}`
}

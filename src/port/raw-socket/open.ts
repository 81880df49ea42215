/**
 * Opening a raw socket port: from options to bound packet sockets with their rings, which the engine can
 * read. Control plane: may take its time, throws SysError and ConfigError.
 *
 * The order is the kernel's: what a ring contains (version, reserve, vnet_hdr) is said before there is
 * one, PACKET_IGNORE_OUTGOING before the first socket joins its group, and a socket joins when it is
 * bound. packet(7); net/packet/af_packet.c
 */
import { constants } from 'node:fs'
import { ENODEV, ENOMEM, EPERM } from '../../abi/errno.ts'
import {
  ETH_P_ALL,
  PACKET_FANOUT,
  PACKET_FANOUT_FLAG_UNIQUEID,
  PACKET_FANOUT_HASH,
  PACKET_IGNORE_OUTGOING,
  PACKET_QDISC_BYPASS,
  PACKET_RESERVE,
  PACKET_RX_RING,
  PACKET_VERSION,
  PACKET_VNET_HDR,
  PACKET_VNET_HDR_SZ,
  SO_SNDBUF,
  SO_SNDBUFFORCE,
  SOL_PACKET,
  SOL_SOCKET,
  TP_STATUS_KERNEL,
  TP_STATUS_USER,
  TPACKET_REQ_LENGTH,
  TPACKET_V2,
} from '../../abi/if-packet.ts'
import { strerror } from '../../abi/strerror.ts'
import { VNET_HDR_LENGTH } from '../../abi/virtio-net.ts'
import { SysError } from '../../errors.ts'
import { Window } from '../../mem/window.ts'
import type { FdClaim } from '../../native/owned-fds.ts'
import { claimFd } from '../../native/owned-fds.ts'
import type { Shim } from '../../native/shim.ts'
import { noteHeld, noteReleased } from '../interface/held.ts'
import type { LinkInfo } from '../interface/link.ts'
import { getLink, getLinkByIndex } from '../interface/link.ts'
import { cannotEnter, isOwnNetns, netnsName, openNetns } from '../interface/netns.ts'
import type { DescriptorKeeper } from '../keeper.ts'
import type { RawSocketOptions } from '../options.ts'
import type { RawSocketQueue } from './messages.ts'
import type { RingGeometry } from './geometry.ts'
import {
  RESERVE,
  RING_KB_DEFAULT,
  ringGeometry,
  ringLength,
  SLOT_LENGTH,
  slotOffsets,
} from './geometry.ts'
import { checkEthernet, checkUsable, noInterface, takeGivenSocket } from './interface.ts'
import { takeKeptSockets } from './kept.ts'
import { checkMemory, RING_SIZE_HINT } from './memory.ts'
import { dropPromisc, failed, i32, RING_HINT, setOption, setPromisc } from './socket-options.ts'
import type { Log } from '../../text.ts'

const O_CLOEXEC = 0o2000000
const OWN_NETNS = '/proc/self/ns/net'
/** Bytes on their way out, as the kernel counts them. */
const SNDBUF = 8_388_608

export interface OpenRawSocketContext {
  readonly shim: Shim
  /** Descriptors by name, for fd=. */
  readonly given: ReadonlyMap<string, number>
  readonly log: Log
  readonly keeper?: DescriptorKeeper | undefined
  /** Told which queue is opened next. */
  readonly reached?: (queue: number) => void
}

/** What is opened for one queue pair. */
export interface OpenQueue {
  readonly fd: number
  readonly ring: Window
  first: number
}

/** How the sockets came to be the port's. */
interface Ownership {
  /** They stay their giver's, should the port not be used. */
  readonly isGiven: boolean
  readonly isPromisc: boolean
}

/** An interface's packet sockets: owns them, and their rings, until close(). */
export class OpenRawSocket {
  /** Of its port. */
  readonly id: string
  readonly kind = 'raw-socket'
  readonly geometry: RingGeometry
  /** 10, or 0: without. */
  readonly vnetHdrLength: number
  /** The kernel also takes UDP frames that it is to segment. */
  readonly hasUso: boolean
  readonly link: LinkInfo
  /** Where the interface is known to be: its state can be asked for. */
  readonly isKnown: boolean
  readonly #shim: Shim
  readonly #isGiven: boolean
  readonly #netns: string | undefined
  readonly #netnsFd: number
  readonly #queues: readonly OpenQueue[]
  readonly #claims: readonly FdClaim[]
  #ifname: string
  #isPromisc: boolean
  #keeper: DescriptorKeeper | undefined

  constructor(
    shim: Shim,
    { id, netns, fd, promisc = true }: RawSocketOptions,
    place: Place,
    queues: readonly OpenQueue[],
    geometry: RingGeometry,
    vnetHdr: VnetHdr,
    own: Ownership = { isGiven: fd !== undefined, isPromisc: promisc },
  ) {
    this.#shim = shim
    this.id = id
    this.#isGiven = own.isGiven
    this.#isPromisc = own.isPromisc
    this.#netns = netns
    this.#netnsFd = place.netnsFd
    this.isKnown = place.isKnown
    this.link = place.link
    this.#ifname = place.link.ifname
    this.#queues = queues
    this.geometry = geometry
    this.vnetHdrLength = vnetHdr.length
    this.hasUso = vnetHdr.hasUso
    this.#claims = queues.map((queue) => claimFd(queue.fd, `port "${id}"`))
    if (this.isKnown) noteHeld(shim, this)
  }

  get isPromisc(): boolean {
    return this.#isPromisc
  }

  /** -1: the interface is in our namespace. */
  get netnsFd(): number {
    return this.#netnsFd
  }

  /** Their rings, for who finds out where they are read on. */
  get rings(): readonly OpenQueue[] {
    return this.#queues
  }

  get queues(): readonly RawSocketQueue[] {
    return this.#queues.map(({ fd, ring, first }) => ({ fd, window: ring.id, first }))
  }

  /** Name and namespace, as they were last found: an interface can be renamed. */
  identify(): { readonly ifname: string; readonly netns?: string } {
    let netns = this.#netns
    if (netns !== undefined) {
      try {
        netns = netnsName(this.#netnsFd, netns) ?? netns
      } catch {
        // Without /proc there is no other name for it.
      }
    }
    return { ifname: this.#ifname, ...(netns === undefined ? {} : { netns }) }
  }

  /** The interface as the kernel has it now; null: it is gone, or the kernel does not tell us. */
  lookUp(): LinkInfo | null {
    const name = new Int32Array(3)
    if (this.#shim.packetName(this.#queues[0].fd, name) < 0 || name[1] <= 0) return null
    let link: LinkInfo | null
    try {
      link = getLinkByIndex(this.#shim, this.#netnsFd, name[1])
    } catch {
      return null
    }
    if (link !== null) this.#ifname = link.ifname
    return link
  }

  /** The kernel has taken the sockets off the interface: it was deleted, or moved to another namespace. */
  get isGone(): boolean {
    const name = new Int32Array(3)
    return this.#shim.packetName(this.#queues[0].fd, name) < 0 || name[1] <= 0
  }

  /** There is an interface of that name where it was; it is not opened. */
  isBack(ifname: string): boolean {
    try {
      return getLink(this.#shim, this.#netnsFd, ifname) !== null
    } catch {
      return false
    }
  }

  /** A descriptor of the namespace that it lives in, for the caller to close; -1: ours, or not told. */
  openNetns(): number {
    const path = this.#netnsFd < 0 ? OWN_NETNS : `/proc/self/fd/${this.#netnsFd}`
    return Math.max(-1, this.#shim.open(path, constants.O_RDONLY | O_CLOEXEC))
  }

  /** Sets what changes while it is open; see port/in-place.ts. Throws SysError. */
  change(before: RawSocketOptions, after: RawSocketOptions): void {
    const { promisc = true, bypass = false } = after
    if (promisc !== (before.promisc ?? true)) {
      setPromisc(this.#shim, this.#queues[0].fd, this.link, promisc)
      this.#isPromisc = promisc
    }
    if (bypass !== (before.bypass ?? false)) {
      for (const { fd } of this.#queues) {
        setOption(this.#shim, fd, 'PACKET_QDISC_BYPASS', PACKET_QDISC_BYPASS, bypass ? 1 : 0)
      }
    }
  }

  /** Another process is to have them, should this one be killed. */
  keepBy(keeper: DescriptorKeeper | undefined): void {
    this.#keeper = keeper
    const fds = this.#queues.map(({ fd }) => fd)
    keeper?.keep(this.id, fds, 'raw-socket')
  }

  /** Another process has it. */
  letGo(): void {
    this.#keeper?.leave(this.id, 'raw-socket')
    this.#keeper = undefined
    this.close()
  }

  /** After the engine let go. A socket that another process has as well stays what it is. */
  close(): void {
    this.#keeper?.forget(this.id, 'raw-socket')
    noteReleased(this.#shim, this)
    for (const { fd, ring } of this.#queues) {
      ring.unmap()
      this.#shim.close(fd)
    }
    for (const claim of this.#claims) claim.end()
    if (this.#netnsFd >= 0) this.#shim.close(this.#netnsFd)
  }

  /** It is not used after all: as `close`, but a given socket stays its giver's, without what it got here. */
  abandon(): void {
    if (!this.#isGiven) return this.close()
    noteReleased(this.#shim, this)
    const [{ fd, ring }] = this.#queues
    ring.unmap()
    removeRing(this.#shim, fd)
    if (this.#isPromisc) dropPromisc(this.#shim, fd, this.link)
    for (const claim of this.#claims) claim.giveBack()
  }
}

/** Where the interface is. */
interface Place {
  /** -1: in our namespace. Becomes the port's. */
  readonly netnsFd: number
  readonly link: LinkInfo
  readonly isKnown: boolean
}

interface VnetHdr {
  readonly length: number
  readonly hasUso: boolean
}

export function openRawSocket(
  options: RawSocketOptions,
  context: OpenRawSocketContext,
): OpenRawSocket {
  const { shim, given, log } = context
  if (options.fd !== undefined) {
    const { fd, link, isKnown } = takeGivenSocket(shim, options.fd, given, options.mtu)
    // Numbers of interfaces in other namespaces are no names.
    if (isKnown) checkUsable(shim, link, -1, options.id, log)
    else checkEthernet(link)
    return openQueues(options, context, { netnsFd: -1, link, isKnown }, [fd])
  }
  const ifname = options.ifname!
  const netnsFd = placeOf(shim, options.netns)
  try {
    checkEntering(shim, netnsFd, options.netns)
    const link = getLink(shim, netnsFd, ifname)
    if (link === null) throw noInterface(shim, netnsFd, ifname, options.netns)
    checkUsable(shim, link, netnsFd, options.id, log)
    return openQueues(options, context, { netnsFd, link, isKnown: true }, [])
  } catch (error) {
    if (netnsFd >= 0) shim.close(netnsFd)
    throw error
  }
}

/** A descriptor of the namespace, -1 when it is the one that we are in. */
function placeOf(shim: Shim, netns: string | undefined): number {
  if (netns === undefined) return -1
  const fd = openNetns(shim, netns)
  if (!isOwnNetns(fd)) return fd
  shim.close(fd)
  return -1
}

/** Throws when the namespace cannot be entered; all that follows would fail with other words. */
function checkEntering(shim: Shim, netnsFd: number, netns: string | undefined): void {
  if (netnsFd < 0) return
  const fd = shim.netlinkRoute(netnsFd)
  if (fd < 0) throw cannotEnter(netns, -fd)
  shim.close(fd)
}

/** `fds` begins with what was given; on failure those that were opened here are closed again. */
function openQueues(
  options: RawSocketOptions,
  context: OpenRawSocketContext,
  place: Place,
  fds: number[],
): OpenRawSocket {
  const { shim } = context
  const geometry = ringGeometry(options['ring-kb'] ?? RING_KB_DEFAULT)
  const queues: OpenQueue[] = []
  const isGiven = options.fd !== undefined
  const count = isGiven ? 1 : (options.queues ?? 1)
  checkMemory(geometry, count)
  const kept = isGiven ? [] : takeKeptSockets(options, context, place, geometry)
  if (kept.length > 0) return goOn(options, context, place, kept, geometry)
  try {
    let vnetHdr: VnetHdr = { length: 0, hasUso: false }
    for (let queue = 0; queue < count; queue++) {
      context.reached?.(queue)
      if (!isGiven) fds.push(openSocket(shim, place.netnsFd, options.netns))
      const fd = fds[queue]
      vnetHdr = configure(shim, fd, options)
      queues.push({ fd, ring: mapRing(shim, fd, geometry), first: 0 })
    }
    if (!isGiven) bindAll(shim, queues, place.link, geometry)
    if (options.promisc ?? true) setPromisc(shim, fds[0], place.link, true)
    return new OpenRawSocket(shim, options, place, queues, geometry, vnetHdr)
  } catch (error) {
    for (const { fd, ring } of queues) {
      ring.unmap()
      if (isGiven) removeRing(shim, fd)
    }
    if (!isGiven) for (const fd of fds) shim.close(fd)
    throw error
  }
}

/** What is set while it runs is set again, as options may be others than they were. */
function goOn(
  options: RawSocketOptions,
  { shim }: OpenRawSocketContext,
  place: Place,
  queues: readonly OpenQueue[],
  geometry: RingGeometry,
): OpenRawSocket {
  const { vnet_hdr = true, promisc = true, bypass = false } = options
  const size = new Uint8Array(4)
  const [{ fd: first }] = queues
  try {
    for (const { fd } of queues) {
      setOption(shim, fd, 'PACKET_QDISC_BYPASS', PACKET_QDISC_BYPASS, bypass ? 1 : 0)
    }
    // Once at most, whatever it was.
    dropPromisc(shim, first, place.link)
    if (promisc) setPromisc(shim, first, place.link, true)
    const hasUso =
      vnet_hdr && shim.getSocketOption(first, SOL_PACKET, PACKET_VNET_HDR_SZ, size) >= 0
    const vnetHdr = { length: vnet_hdr ? VNET_HDR_LENGTH : 0, hasUso }
    return new OpenRawSocket(shim, options, place, queues, geometry, vnetHdr)
  } catch (error) {
    for (const { fd, ring } of queues) {
      ring.unmap()
      shim.close(fd)
    }
    throw error
  }
}

function openSocket(shim: Shim, netnsFd: number, netns: string | undefined): number {
  const fd = shim.socketPacket(netnsFd)
  if (fd >= 0) return fd
  const where = netns === undefined ? '' : ` in netns ${netns}`
  throw new SysError('RAW_SOCKET', `cannot open a packet socket${where}: ${strerror(-fd)}`, {
    syscall: 'socket',
    errno: -fd,
    hint:
      fd === -EPERM
        ? 'it needs CAP_NET_RAW, in the namespace of the interface: run as root, or allow it once with setcap cap_net_raw+ep $(readlink -f $(which node)); in a container add NET_RAW'
        : undefined,
  })
}

/** What has to be said before there is a ring. */
function configure(shim: Shim, fd: number, options: RawSocketOptions): VnetHdr {
  setOption(shim, fd, 'PACKET_VERSION', PACKET_VERSION, TPACKET_V2)
  setOption(shim, fd, 'PACKET_RESERVE', PACKET_RESERVE, RESERVE)
  // For frames of 64 KiB that wait in a queue of the device. Who may not have so much has what is allowed.
  const isForced = shim.setSocketOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, i32(SNDBUF)) >= 0
  if (!isForced) shim.setSocketOption(fd, SOL_SOCKET, SO_SNDBUF, i32(SNDBUF))
  // Linux 4.20; before, what this machine sends is left out when it is read.
  shim.setSocketOption(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, i32(1))
  if (options.bypass === true) {
    setOption(shim, fd, 'PACKET_QDISC_BYPASS', PACKET_QDISC_BYPASS, 1)
  }
  const wanted = options.vnet_hdr ?? true
  const result = shim.setSocketOption(fd, SOL_PACKET, PACKET_VNET_HDR, i32(wanted ? 1 : 0))
  if (!wanted) return { length: 0, hasUso: false }
  if (result < 0) throw failed('PACKET_VNET_HDR', result)
  // Linux takes UDP segmentation in a vnet_hdr from 6.2 on, and cannot be asked; this it knows from 6.6 on.
  const size = new Uint8Array(4)
  const hasUso = shim.getSocketOption(fd, SOL_PACKET, PACKET_VNET_HDR_SZ, size) >= 0
  return { length: VNET_HDR_LENGTH, hasUso }
}

function mapRing(shim: Shim, fd: number, geometry: RingGeometry): Window {
  const { blockLength, blocks, slotsPerBlock } = geometry
  const request = ringRequest(blockLength, blocks, SLOT_LENGTH, blocks * slotsPerBlock)
  const result = shim.setSocketOption(fd, SOL_PACKET, PACKET_RX_RING, request)
  if (result < 0) {
    const kib = Math.ceil(ringLength(geometry) / 1024)
    throw new SysError('RAW_SOCKET', `no ring of ${kib} KiB: ${strerror(-result)}`, {
      syscall: 'setsockopt',
      errno: -result,
      hint: result === -ENOMEM ? RING_SIZE_HINT : RING_HINT,
    })
  }
  try {
    return Window.map(ringLength(geometry), { fd })
  } catch (error) {
    removeRing(shim, fd)
    throw error
  }
}

function removeRing(shim: Shim, fd: number): void {
  shim.setSocketOption(fd, SOL_PACKET, PACKET_RX_RING, ringRequest(0, 0, 0, 0))
}

/** struct tpacket_req */
function ringRequest(...words: [number, number, number, number]): Uint8Array {
  const bytes = new Uint8Array(TPACKET_REQ_LENGTH)
  new Uint32Array(bytes.buffer).set(words)
  return bytes
}

/**
 * Binds them to the interface, several as one group. Until a further one has joined it gets every frame
 * once more, so what it has by then is not read.
 */
function bindAll(
  shim: Shim,
  queues: readonly OpenQueue[],
  { ifindex, ifname }: LinkInfo,
  geometry: RingGeometry,
): void {
  let group = 0
  for (const queue of queues) {
    const result = shim.bindPacket(queue.fd, ETH_P_ALL, ifindex)
    if (result < 0) {
      throw new SysError('RAW_SOCKET', `cannot bind to ${ifname}: ${strerror(-result)}`, {
        syscall: 'bind',
        errno: -result,
        ifname,
        hint: result === -ENODEV ? 'the interface has just gone' : undefined,
      })
    }
    if (queues.length === 1) return
    const flags = queue === queues[0] ? PACKET_FANOUT_FLAG_UNIQUEID : 0
    const joined = (PACKET_FANOUT_HASH | flags) << 16
    setOption(shim, queue.fd, 'PACKET_FANOUT', PACKET_FANOUT, group | joined)
    if (queue === queues[0]) group = fanoutGroup(shim, queue.fd)
  }
  // Those that came before the last one had joined were divided among fewer.
  for (const queue of queues.slice(1)) queue.first = skipFrames(queue.ring, geometry)
}

/** The number that the kernel has chosen. */
function fanoutGroup(shim: Shim, fd: number): number {
  const value = new Uint8Array(4)
  const result = shim.getSocketOption(fd, SOL_PACKET, PACKET_FANOUT, value)
  if (result < 0) throw failed('PACKET_FANOUT', result)
  return new DataView(value.buffer).getUint16(0, true)
}

/** Gives back what the ring has so far; returns the slot that the kernel fills next. */
function skipFrames(ring: Window, geometry: RingGeometry): number {
  const words = new Int32Array(ring.buffer)
  const offsets = slotOffsets(geometry)
  const isFilled = (slot: number): boolean =>
    (Atomics.load(words, offsets[slot] >> 2) & TP_STATUS_USER) !== 0
  let slot = 0
  for (let left = offsets.length; left > 0 && isFilled(slot); left--) {
    Atomics.store(words, offsets[slot] >> 2, TP_STATUS_KERNEL)
    slot = (slot + 1) % offsets.length
  }
  return slot
}

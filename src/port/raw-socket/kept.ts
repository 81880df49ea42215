/**
 * Packet sockets that somebody has kept since a process before this one was killed: frames have gone on to come
 * into their rings, and the interface has stayed promiscuous. It is looked at whether they are what would be
 * opened, and where the kernel fills on, which no process can be asked for any more.
 *
 *     | filled: not given back by the killed one | head: filled next ...  |
 *
 * What the killed one had read and not given back it may have forwarded: it comes once more, a burst at most.
 */
import { POLLIN } from '../../abi/epoll.ts'
import {
  PACKET_FANOUT,
  PACKET_RESERVE,
  PACKET_VERSION,
  PACKET_VNET_HDR,
  SO_NETNS_COOKIE,
  SOL_PACKET,
  SOL_SOCKET,
  TP_STATUS_KERNEL,
  TP_STATUS_USER,
  TPACKET_V2,
} from '../../abi/if-packet.ts'
import type { Window } from '../../mem/window.ts'
import type { Shim } from '../../native/shim.ts'
import { explain } from '../../text.ts'
import type { Log } from '../../text.ts'
import type { LinkInfo } from '../interface/link.ts'
import type { DescriptorKeeper } from '../keeper.ts'
import type { RawSocketOptions } from '../options.ts'
import { checkSocket, mapCameRing } from './came.ts'
import type { RingGeometry } from './geometry.ts'
import { RESERVE, slotOffsets } from './geometry.ts'

/** A status that the kernel never writes: our mark on a slot that is the kernel's. */
const MARK: number = TP_STATUS_USER | 0x1000_0000

export interface KeptQueue {
  readonly fd: number
  readonly ring: Window
  first: number
}

export interface KeptPlace {
  /** -1: our namespace. */
  readonly netnsFd: number
  readonly link: Pick<LinkInfo, 'ifindex'>
}

/** Empty: there are none, or they were closed, as they are not of this port. */
export function takeKeptSockets(
  options: RawSocketOptions,
  { shim, keeper, log }: { shim: Shim; keeper?: DescriptorKeeper | undefined; log: Log },
  place: KeptPlace,
  geometry: RingGeometry,
): KeptQueue[] {
  const { id, queues: count = 1 } = options
  const kept = keeper?.take(id, 'raw-socket') ?? []
  if (kept.length === 0) return []
  const queues: KeptQueue[] = []
  try {
    if (kept.length !== count) throw new Error(`${kept.length} descriptors for ${count} queues`)
    for (const [queue, fd] of kept.entries()) {
      const where = `descriptor ${fd} of queue ${queue}`
      checkSocket(shim, fd, place.link.ifindex, id, where)
      checkNetns(shim, fd, place.netnsFd)
      checkOptions(shim, fd, options)
      const ring = mapCameRing(fd, geometry, id, where)
      queues.push({ fd, ring, first: 0 })
    }
    checkGroup(shim, kept)
    for (const queue of queues) queue.first = findFirst(shim, queue.fd, queue.ring, geometry)
    log(`raw-socket ${id}: goes on with kept descriptors queues=${count}`)
    return queues
  } catch (error) {
    log(`raw-socket ${id}: kept descriptors are not used because="${explain(error)}"`, 'warning')
    keeper?.forget(id, 'raw-socket')
    for (const { ring } of queues) ring.unmap()
    for (const fd of kept) shim.close(fd)
    return []
  }
}

/** Numbers of interfaces are each namespace's own. */
function checkNetns(shim: Shim, fd: number, netnsFd: number): void {
  const own = shim.netlinkRoute(netnsFd)
  const [wanted, is] = [new Uint8Array(8), new Uint8Array(8)]
  const results = [
    own < 0 ? own : shim.getSocketOption(own, SOL_SOCKET, SO_NETNS_COOKIE, wanted),
    shim.getSocketOption(fd, SOL_SOCKET, SO_NETNS_COOKIE, is),
  ]
  if (own >= 0) shim.close(own)
  const isSame = results.every((result) => result >= 0) && wanted.every((byte, k) => byte === is[k])
  if (!isSame) throw new Error('they are in another network namespace')
}

function checkOptions(shim: Shim, fd: number, { vnet_hdr = true }: RawSocketOptions): void {
  if (optionOf(shim, fd, PACKET_VERSION) !== TPACKET_V2) throw new Error('their ring is another')
  if (optionOf(shim, fd, PACKET_RESERVE) !== RESERVE) throw new Error('their ring is another')
  const has = optionOf(shim, fd, PACKET_VNET_HDR) !== 0
  if (has !== vnet_hdr) throw new Error(`they have vnet_hdr=${has ? 'on' : 'off'}`)
}

/** Several are one group of their own, in which each frame goes to one of them. */
function checkGroup(shim: Shim, fds: readonly number[]): void {
  const groups = new Set(fds.map((fd) => optionOf(shim, fd, PACKET_FANOUT)))
  const isGroup = groups.size === 1 && !groups.has(0)
  if (fds.length > 1 ? !isGroup : isGroup) throw new Error('they are not one group')
}

function optionOf(shim: Shim, fd: number, name: number): number {
  const value = new Uint8Array(4)
  const result = shim.getSocketOption(fd, SOL_PACKET, name, value)
  if (result < 0) throw new Error(`getsockopt ${name}: errno ${-result}`)
  return new DataView(value.buffer).getInt32(0, true)
}

/** The first slot that is filled, or when none is, the one that is filled next. Throws when that is not found. */
export function findFirst(
  shim: Pick<Shim, 'poll'>,
  fd: number,
  ring: Pick<Window, 'buffer'>,
  geometry: RingGeometry,
): number {
  const words = new Int32Array(ring.buffer)
  const at = [...slotOffsets(geometry)].map((offset) => offset >> 2)
  const isFilled = (slot: number): boolean =>
    (Atomics.load(words, at[(slot + at.length) % at.length]) & TP_STATUS_USER) !== 0
  const filled = at.flatMap((_, slot) => (isFilled(slot) ? [slot] : []))
  const starts = filled.filter((slot) => !isFilled(slot - 1))
  if (starts.length === 1) return starts[0]
  if (starts.length > 1) throw new Error('what is in their ring is in several pieces')
  const head = findHead(shim, fd, words, at, filled.length > 0)
  if (head >= 0) return head
  // Something has come meanwhile.
  const first = at.findIndex((_, slot) => isFilled(slot) && !isFilled(slot - 1))
  if (first < 0) throw new Error('where their ring is filled is not known')
  return first
}

/**
 * Where all slots are alike. poll(2) tells of the slot before the head alone whether it is filled
 * (packet_poll, net/packet/af_packet.c): so that is the one whose change, for a moment, changes what it says.
 * -1: it is not found, as frames come.
 */
function findHead(
  shim: Pick<Shim, 'poll'>,
  fd: number,
  words: Int32Array,
  at: readonly number[],
  isFull: boolean,
): number {
  for (const [slot, word] of at.entries()) {
    const before = Atomics.load(words, word)
    const isKernels = (before & TP_STATUS_USER) === 0
    // Filled meanwhile.
    if (isKernels === isFull) return -1
    const mark = isFull ? TP_STATUS_KERNEL : MARK
    if (Atomics.compareExchange(words, word, before, mark) !== before) return -1
    const isReadable = (shim.poll(fd, POLLIN, 0) & POLLIN) !== 0
    const isOurs = Atomics.compareExchange(words, word, mark, before) === mark
    if (!isOurs) return -1
    if (isReadable === isFull) continue
    // It was the mark, and nothing that has just come.
    const isAsBefore = ((shim.poll(fd, POLLIN, 0) & POLLIN) !== 0) === isFull
    return isAsBefore ? (slot + 1) % at.length : -1
  }
  return -1
}

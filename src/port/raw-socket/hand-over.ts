/**
 * A raw socket port that another process goes on with: the same sockets, and the same rings, mapped once
 * more, read from the slot on that is next. Nothing is set on a socket, which is bound and joined already.
 *
 *     fds: the sockets, in the order of the queues; then the network namespace, if it is not the process's
 */
import { TP_STATUS_USER } from '../../abi/if-packet.ts'
import type { Window } from '../../mem/window.ts'
import type { Shim } from '../../native/shim.ts'
import type { HandedState, JsonValue } from '../handed.ts'
import { HandedReader, handOverError } from '../handed.ts'
import type { LinkInfo } from '../interface/link.ts'
import type { RawSocketOptions } from '../options.ts'
import { checkSocket, mapCameRing } from './came.ts'
import type { RingGeometry } from './geometry.ts'
import { slotOffsets } from './geometry.ts'
import type { OpenQueue } from './open.ts'
import { OpenRawSocket } from './open.ts'

const VERSION = 1

/** All but the position, which is the slot that is read next, by queue. */
export function handOverRawSocket(
  shim: Pick<Shim, 'packetName'>,
  socket: OpenRawSocket,
): HandedState {
  const { queues, geometry, vnetHdrLength, hasUso, isKnown, isPromisc, link, netnsFd } = socket
  const bound = new Int32Array(3)
  shim.packetName(queues[0].fd, bound)
  const state = {
    queues: queues.length,
    ifindex: bound[1],
    geometry: { ...geometry },
    vnetHdrLength,
    hasUso,
    isKnown,
    isPromisc,
    link: { ...link },
    hasNetns: netnsFd >= 0,
  } satisfies JsonValue
  const fds = queues.map(({ fd }) => fd)
  return { version: VERSION, state, fds: netnsFd >= 0 ? [...fds, netnsFd] : fds }
}

/** The descriptors are the port's with success, and the caller's when this throws. */
export function takeOverRawSocket(
  shim: Shim,
  options: RawSocketOptions,
  handed: HandedState,
): OpenRawSocket {
  const state = HandedReader.of(options, handed, VERSION)
  const hasNetns = state.boolean('hasNetns')
  const count = state.number('queues')
  const sockets = hasNetns ? handed.fds.slice(0, -1) : handed.fds
  if (sockets.length === 0 || sockets.length !== count) {
    const text = `${sockets.length} descriptors of sockets for ${count} queues`
    throw handOverError(options.id, text)
  }
  const geometry = geometryOf(state.object('geometry'))
  const queues: OpenQueue[] = []
  try {
    for (const [queue, fd] of sockets.entries()) {
      const where = `descriptor ${fd} of queue ${queue}`
      checkSocket(shim, fd, state.number('ifindex'), options.id, where)
      const ring = mapCameRing(fd, geometry, options.id, where)
      // Where it is read on is said at the end.
      queues.push({ fd, ring, first: 0 })
    }
    const place = {
      netnsFd: hasNetns ? handed.fds[handed.fds.length - 1] : -1,
      link: linkOf(state.object('link')),
      isKnown: state.boolean('isKnown'),
    }
    const vnetHdr = { length: state.number('vnetHdrLength'), hasUso: state.boolean('hasUso') }
    const own = { isGiven: false, isPromisc: state.boolean('isPromisc') }
    return new OpenRawSocket(shim, options, place, queues, geometry, vnetHdr, own)
  } catch (error) {
    for (const { ring } of queues) ring.unmap()
    throw error
  }
}

/**
 * A socket that was taken over is read on at these slots, by queue. Throws when that cannot be: when it is no
 * rehearsal, in which they are read elsewhere meanwhile.
 */
export function moveOn(
  { id, rings, geometry }: Pick<OpenRawSocket, 'id' | 'rings' | 'geometry'>,
  position: JsonValue | undefined,
  isRehearsed: boolean,
): number[] {
  const next = Array.isArray(position) ? position.map(Number) : []
  const offsets = slotOffsets(geometry)
  for (const [queue, open] of rings.entries()) {
    const isSlot = next[queue] >= 0 && next[queue] < offsets.length
    if (!isSlot || !(isNext(open.ring, offsets, next[queue]) || isRehearsed)) {
      const where = `descriptor ${open.fd} of queue ${queue}`
      throw handOverError(id, `slot ${next[queue]} is not the next of ${where}`)
    }
    open.first = next[queue]
  }
  return next
}

function geometryOf(state: HandedReader): RingGeometry {
  return {
    blockLength: state.number('blockLength'),
    blocks: state.number('blocks'),
    slotsPerBlock: state.number('slotsPerBlock'),
  }
}

function linkOf(state: HandedReader): LinkInfo {
  return {
    ifindex: state.number('ifindex'),
    ifname: state.string('ifname'),
    hardware: state.number('hardware'),
    master: state.number('master'),
    isUp: state.boolean('isUp'),
    hasCarrier: state.boolean('hasCarrier'),
    mtu: state.number('mtu'),
    kind: state.string('kind'),
    tunQueues: state.number('tunQueues'),
    rxDropped: state.number('rxDropped'),
    txDropped: state.number('txDropped'),
  }
}

/**
 * What the kernel has filled begins with that slot. It goes on filling, forwards: so this looks backwards,
 * and finds nothing that was not filled before what it has seen.
 */
function isNext(ring: Window, offsets: Int32Array, next: number): boolean {
  const words = new Int32Array(ring.buffer)
  let hasFilled = false
  for (let back = 1; back <= offsets.length; back++) {
    const slot = (next + offsets.length - back) % offsets.length
    const isFilled = (Atomics.load(words, offsets[slot] >> 2) & TP_STATUS_USER) !== 0
    if (hasFilled && !isFilled) return false
    hasFilled ||= isFilled
  }
  return true
}

/**
 * An open TAP that another process goes on with: what is said of it, and how that is checked against what
 * the kernel says of the descriptors that came. Nothing is set on the way, as settings are the device's.
 *
 *     fds: one for each queue, in the order of the queues, detached ones among them
 */
import { fstatSync } from 'node:fs'
import { EBADFD } from '../../abi/errno.ts'
import {
  IFF_DETACH_QUEUE,
  IFF_MULTI_QUEUE,
  IFF_PERSIST,
  IFF_TAP,
  IFF_TUN,
  IFF_VNET_HDR,
  IFNAMSIZ,
} from '../../abi/if-tun.ts'
import { strerror } from '../../abi/strerror.ts'
import type { Shim } from '../../native/shim.ts'
import type { HandedState, JsonValue } from '../handed.ts'
import { HandedReader, handOverError } from '../handed.ts'
import type { TapOptions } from '../options.ts'
import type { TapShape } from '../shape.ts'
import { cString } from './descriptors.ts'
import type { OpenContext } from './open-tap.ts'
import { OpenTap } from './open-tap.ts'

const VERSION = 1
/** What of a device's flags never changes. */
const KIND_MASK: number = IFF_TUN | IFF_TAP | IFF_VNET_HDR | IFF_MULTI_QUEUE

/** A TAP, as it was taken over. */
export interface TakenTap {
  readonly tap: OpenTap
  readonly shape: TapShape
  /** TUN_F_* bits that were asked for last, of which the kernel may know less. */
  readonly asked: number
}

type TapShim = Pick<Shim, 'tunGetIff' | 'tunGetDevNetns' | 'tunGetVnetHdrSize' | 'close'>

export function handOverTap(
  shim: TapShim,
  tap: OpenTap,
  shape: TapShape,
  asked: number,
): HandedState {
  const { fds, vnetHdrLength, inForce, origin, probed } = tap
  const found = look(shim, fds[0])
  const state = {
    device: found === null ? null : { ...found, netns: netnsOf(shim, fds[0]) },
    ifname: tap.identify().ifname,
    vnetHdrLength,
    shape: { vnetHdrLength: shape.vnetHdrLength, attached: [...shape.attached] },
    offloads: { asked, inForce },
    probed: { ...probed },
    origin: { ...origin },
  } satisfies JsonValue
  return { version: VERSION, state, fds }
}

/** The descriptors are the TAP's with success, and the caller's when this throws. */
export function takeOverTap(
  options: TapOptions,
  handed: HandedState,
  context: OpenContext,
): TakenTap {
  const state = HandedReader.of(options, handed, VERSION)
  const shape = {
    vnetHdrLength: state.object('shape').number('vnetHdrLength'),
    attached: state.object('shape').booleans('attached'),
  }
  const ifname = state.string('ifname')
  check(options, state, shape, handed.fds, context.shim)
  const probed = state.object('probed')
  const origin = state.object('origin')
  const offloads = state.object('offloads')
  const tap = new OpenTap(
    context,
    options,
    handed.fds,
    ifname,
    state.number('vnetHdrLength'),
    {
      hasUfo: probed.boolean('hasUfo'),
      hasUso: probed.boolean('hasUso'),
      hasTunnel: probed.boolean('hasTunnel'),
    },
    { wasPersistent: origin.boolean('wasPersistent'), isFound: origin.boolean('isFound') },
    offloads.number('inForce'),
  )
  tap.claim()
  return { tap, shape, asked: offloads.number('asked') }
}

/** The device of a descriptor; null: it is gone. */
function look(shim: TapShim, fd: number): { name: string; flags: number } | null {
  const name = new Uint8Array(IFNAMSIZ)
  const flags = shim.tunGetIff(fd, name)
  return flags < 0 ? null : { name: cString(name), flags: flags & KIND_MASK }
}

/** What tells its namespace from others; '': the kernel does not say. */
function netnsOf(shim: TapShim, fd: number): string {
  const netnsFd = shim.tunGetDevNetns(fd)
  if (netnsFd < 0) return ''
  try {
    const { dev, ino } = fstatSync(netnsFd)
    return `${dev}:${ino}`
  } finally {
    shim.close(netnsFd)
  }
}

/** Throws when a descriptor is not a queue of the device that it was said to be of. */
function check(
  { id }: TapOptions,
  state: HandedReader,
  { vnetHdrLength, attached }: TapShape,
  fds: readonly number[],
  shim: TapShim,
): void {
  const wrong = (why: string): Error => handOverError(id, why)
  if (fds.length === 0 || fds.length !== attached.length) {
    throw wrong(`${fds.length} descriptors for ${attached.length} queues`)
  }
  const device = state.has('device') ? state.object('device') : undefined
  for (const [queue, fd] of fds.entries()) {
    const where = `descriptor ${fd} of queue ${queue}`
    const name = new Uint8Array(IFNAMSIZ)
    const flags = shim.tunGetIff(fd, name)
    // A device that was deleted is nobody's any more: the descriptors alone are handed over.
    if (device === undefined && flags === -EBADFD) continue
    if (flags < 0) throw wrong(`${where} is not a TAP: TUNGETIFF: ${strerror(-flags)}`)
    if (device === undefined) throw wrong(`${where} has a device, which was deleted before`)
    checkQueue(device, flags, cString(name), attached[queue], `${where} `, wrong)
    const length = (flags & IFF_VNET_HDR) === 0 ? 0 : shim.tunGetVnetHdrSize(fd)
    if (length !== vnetHdrLength) {
      throw wrong(`${where} has a vnet_hdr of ${length} bytes, not of ${vnetHdrLength}`)
    }
    const netns = device.string('netns')
    const there = netns === '' ? '' : netnsOf(shim, fd)
    if (there !== '' && there !== netns) {
      throw wrong(`${where} is of ${cString(name)} in another network namespace`)
    }
  }
}

function checkQueue(
  device: HandedReader,
  flags: number,
  name: string,
  isAttached: boolean,
  where: string,
  wrong: (why: string) => Error,
): void {
  const wanted = device.string('name')
  if (name !== wanted) throw wrong(`${where}is of ${name}, not of ${wanted}`)
  const kind = flags & KIND_MASK
  const wantedKind = device.number('flags')
  if (kind !== wantedKind) {
    throw wrong(`${where}has flags 0x${kind.toString(16)}, not 0x${wantedKind.toString(16)}`)
  }
  const isThere = (flags & IFF_DETACH_QUEUE) === 0
  if (isThere === isAttached) return
  const [is, was] = isThere ? ['attached', 'detached'] : ['detached', 'attached']
  throw wrong(`${where}is ${is}, and was ${was}`)
}

/** Why another process could not open it by its name after this one has closed it; undefined: it could. */
export function whyNotOpenedAgain(shim: TapShim, fd: number): string | undefined {
  const flags = shim.tunGetIff(fd, new Uint8Array(IFNAMSIZ))
  if (flags >= 0 && (flags & IFF_PERSIST) !== 0) return undefined
  return 'its TAP is not persistent: it would be gone when it is closed'
}

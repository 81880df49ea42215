/**
 * Opening a TAP: from options to descriptors that the engine can read, in QEMU's order and with its
 * error texts. Control plane: may take its time, throws SysError and ConfigError.
 *
 * Header size, sndbuf and offloads are per device, not per queue; IFF_VNET_HDR asked for while
 * another queue is attached is silently ignored. So what TUNGETIFF reads back is believed.
 */
import { constants, existsSync } from 'node:fs'
import { EACCES, EBUSY, EINTR, ENOENT, EPERM } from '../../abi/errno.ts'
import {
  IFF_MULTI_QUEUE,
  IFF_NO_PI,
  IFF_ONE_QUEUE,
  IFF_TAP,
  IFF_VNET_HDR,
  IFNAME_LENGTH_MAX,
  IFNAMSIZ,
} from '../../abi/if-tun.ts'
import { strerror } from '../../abi/strerror.ts'
import { VNET_HDR_MRG_LENGTH, VNET_HDR_TUNNEL_LENGTH } from '../../abi/virtio-net.ts'
import { ConfigError, SysError } from '../../errors.ts'
import type { Shim } from '../../native/shim.ts'
import type { TapOptions } from '../options.ts'
import { otherNetns, setOwnership, setSndbuf } from './device-settings.ts'
import { cString, identity, isGiven, takeGiven } from './descriptors.ts'
import type { LinkInfo } from '../interface/link.ts'
import { setNonblocking } from '../interface/given.ts'
import { checkNoLoop, holderOf, setIffHint } from '../interface/held.ts'
import { getLink, setLinkProperties } from '../interface/link.ts'
import { cannotEnter, openNetns } from '../interface/netns.ts'
import { takeKept } from './kept.ts'
import { isUsableVnetHdrLength } from './queues.ts'
import { awaitRelease } from './release.ts'
import { NO_OFFLOADS, probeOffloads } from './offloads.ts'
import type { OpenContext } from './open-tap.ts'
import { OpenTap, runDownscript } from './open-tap.ts'
import { isScript, runHelper, runScript } from './scripts.ts'

const TUN_NODE = '/dev/net/tun'
const O_CLOEXEC = 0o2000000
/** An owner that was killed keeps the name busy for some milliseconds (io_uring pins its file). */
const BUSY_RETRY_MS = 1000
const BUSY_WAIT_MS = 20

export async function openTap(options: TapOptions, context: OpenContext): Promise<OpenTap> {
  const { shim } = context
  if (process.platform !== 'linux') {
    throw new SysError('TAP_FEATURE', `tap is not supported on ${process.platform}`)
  }
  const netnsFd = options.netns === undefined ? -1 : openNetns(shim, options.netns)
  const fds: number[] = []
  let isKept = false
  try {
    if (isGiven(options)) takeGiven(options, context, fds)
    else if (takeKept(options, context, netnsFd, fds)) isKept = true
    else if (options.helper !== undefined) {
      fds.push(await runHelper(shim, options.helper, options.br ?? 'br0'))
      setNonblocking(shim, fds[0], 'TAP_FD')
    } else await openByName(options, context, netnsFd, fds)

    const { ifname, flags } = identity(shim, fds[0])
    // What it set up is still there.
    if (isScript(options.script) && !isKept) await runScript(options.script, ifname)
    try {
      const hasVnetHdr = (flags & IFF_VNET_HDR) !== 0
      const tap = configure(options, context, netnsFd, fds, ifname, hasVnetHdr)
      tap.claim()
      return tap
    } catch (error) {
      // What the script set up is taken down again.
      if (isScript(options.script)) await runDownscript(options, ifname, context.log)
      throw error
    }
  } catch (error) {
    if (isKept) context.keeper?.forget(options.id)
    if (!isGiven(options)) for (const fd of fds) shim.close(fd)
    throw error
  } finally {
    if (netnsFd >= 0) shim.close(netnsFd)
  }
}

// --- by name ----------------------------------------------------------------------------------

async function openByName(
  options: TapOptions,
  context: OpenContext,
  netnsFd: number,
  fds: number[],
): Promise<void> {
  const { shim } = context
  let name = options.ifname === undefined || options.ifname === '' ? 'tap%d' : options.ifname
  if (Buffer.byteLength(name) > IFNAME_LENGTH_MAX) {
    throw new ConfigError(
      'BAD_OPTION',
      `ifname "${name}" is ${Buffer.byteLength(name)} bytes long, the kernel takes ${IFNAME_LENGTH_MAX}`,
    )
  }
  checkNoLoop(shim, 'raw-socket', name, netnsFd)
  const queues = options.queues ?? 1
  context.reached?.(0)
  if (context.takesOver === true && !name.includes('%d')) {
    const isMade = context.isLeft !== true
    await awaitRelease(shim, netnsFd, name, isMade ? { ...options, persist: false } : options)
  }
  const macvtap = macvtapNode(shim, netnsFd, name)
  const node = macvtap ?? TUN_NODE
  const features = readFeatures(context, node)
  const flags = requestFlags(options, features, queues)
  for (let queue = 0; queue < queues; queue++) {
    context.reached?.(queue)
    const { fd, ifname } = await setIff(shim, netnsFd, node, name, flags, options)
    fds.push(fd)
    // Further queues belong to the device that the first one named.
    name = ifname
  }
}

/** The character device of a macvtap or ipvtap of that name, when there is one. */
function macvtapNode(shim: Shim, netnsFd: number, name: string): string | undefined {
  if (name.includes('%d')) return undefined
  let link: LinkInfo | null
  try {
    link = getLink(shim, netnsFd, name)
  } catch {
    // A TAP needs no netlink, and what is in the way of both is told better by TUNSETIFF.
    return undefined
  }
  if (link === null || (link.kind !== 'macvtap' && link.kind !== 'ipvtap')) return undefined
  const node = `/dev/tap${link.ifindex}`
  return existsSync(node) ? node : undefined
}

function readFeatures(context: OpenContext, node: string): number {
  const { shim, log } = context
  const fd = shim.open(node, constants.O_RDWR | constants.O_NONBLOCK | O_CLOEXEC)
  if (fd < 0) throw cannotOpen(node, -fd)
  try {
    const features = shim.tunGetFeatures(fd)
    if (features >= 0) return features
    log(`TUNGETFEATURES failed: ${strerror(-features)}`, 'warning')
    return 0
  } finally {
    shim.close(fd)
  }
}

function cannotOpen(node: string, errno: number): SysError {
  const hint =
    errno === EACCES || errno === EPERM
      ? 'give this user access to it (Debian: mode 0666)'
      : errno === ENOENT
        ? 'load the tun module (modprobe tun); in a container, pass the device in'
        : undefined
  return new SysError('TAP_NODE', `Could not open '${node}': ${strerror(errno)}`, {
    syscall: 'open',
    errno,
    path: node,
    hint,
  })
}

function requestFlags(options: TapOptions, features: number, queues: number): number {
  let flags = IFF_TAP | IFF_NO_PI | (features & IFF_ONE_QUEUE)
  if (options.vnet_hdr ?? true) {
    if ((features & IFF_VNET_HDR) !== 0) flags |= IFF_VNET_HDR
    else if (options.vnet_hdr === true) throw noVnetHdr()
  }
  if (queues > 1) {
    if ((features & IFF_MULTI_QUEUE) === 0) {
      throw new SysError(
        'TAP_FEATURE',
        'multiqueue required, but no kernel support for IFF_MULTI_QUEUE available',
      )
    }
    flags |= IFF_MULTI_QUEUE
  }
  return flags
}

function noVnetHdr(): SysError {
  return new SysError(
    'TAP_FEATURE',
    'vnet_hdr=1 requested, but no kernel support for IFF_VNET_HDR available',
  )
}

async function setIff(
  shim: Shim,
  netnsFd: number,
  node: string,
  name: string,
  flags: number,
  options: TapOptions,
): Promise<{ fd: number; ifname: string }> {
  const nameOut = new Uint8Array(IFNAMSIZ)
  const stage = new Int32Array(1)
  const deadline = Date.now() + BUSY_RETRY_MS
  for (;;) {
    const fd = shim.tunOpen(netnsFd, node, name, flags, nameOut, stage)
    if (fd >= 0) return { fd, ifname: cString(nameOut) }
    if (fd === -EINTR) continue
    const holder = holderOf(shim, name, netnsFd)
    if (fd === -EBUSY && holder === undefined && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, BUSY_WAIT_MS))
      continue
    }
    if (stage[0] === 0) throw cannotEnter(options.netns, -fd)
    if (stage[0] === 1) throw cannotOpen(node, -fd)
    const given = options.ifname !== undefined && options.ifname !== ''
    const subject = given ? `could not configure ${node} (${name})` : `could not configure ${node}`
    throw new SysError('TAP_SETIFF', `${subject}: ${strerror(-fd)}`, {
      syscall: 'ioctl',
      errno: -fd,
      ifname: name,
      hint: setIffHint(-fd, name, holder),
    })
  }
}

// --- set-up of the device ---------------------------------------------------------------------

function configure(
  options: TapOptions,
  context: OpenContext,
  netnsFd: number,
  fds: readonly number[],
  ifname: string,
  hasVnetHdr: boolean,
): OpenTap {
  const { shim, log } = context
  const fd = fds[0]
  if (options.vnet_hdr === true && !hasVnetHdr) throw noVnetHdr()
  const probed = hasVnetHdr ? probeOffloads(shim, fd) : NO_OFFLOADS
  let vnetHdrLength = 0
  if (hasVnetHdr) {
    const wanted = probed.hasTunnel ? VNET_HDR_TUNNEL_LENGTH : VNET_HDR_MRG_LENGTH
    const set = shim.tunSetVnetHdrSize(fd, wanted)
    if (set < 0) log(`TUNSETVNETHDRSZ ioctl() failed: ${strerror(-set)}.`, 'warning')
    vnetHdrLength = shim.tunGetVnetHdrSize(fd)
    if (!isUsableVnetHdrLength(vnetHdrLength)) {
      throw new SysError(
        'TAP_VNET_HDR_SIZE',
        `vnet_hdr of ${vnetHdrLength} bytes on ${ifname} cannot be used`,
        { ifname, hint: 'it must be even and 10 to 24 bytes' },
      )
    }
  }
  fds.forEach((queueFd, queue) => {
    context.reached?.(queue)
    setSndbuf(options, shim, queueFd, ifname)
  })
  if (options.mtu !== undefined || options.up !== undefined) {
    const elsewhere = netnsFd < 0 ? otherNetns(shim, fd) : -1
    try {
      const at = elsewhere < 0 ? netnsFd : elsewhere
      setLinkProperties(shim, at, ifname, { mtu: options.mtu, up: options.up })
    } finally {
      if (elsewhere >= 0) shim.close(elsewhere)
    }
  }
  const tap = new OpenTap(context, options, fds, ifname, vnetHdrLength, probed)
  // The last that can fail, as a persistent device would stay.
  setOwnership(options, shim, fd, ifname)
  return tap
}

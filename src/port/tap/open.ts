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
  IFF_PERSIST,
  IFF_TAP,
  IFF_VNET_HDR,
  IFNAME_LENGTH_MAX,
  IFNAMSIZ,
} from '../../abi/if-tun.ts'
import { strerror } from '../../abi/strerror.ts'
import { VNET_HDR_MRG_LENGTH, VNET_HDR_TUNNEL_LENGTH } from '../../abi/virtio-net.ts'
import { ConfigError, SysError } from '../../errors.ts'
import type { FdClaim } from '../../native/owned-fds.ts'
import { claimFd } from '../../native/owned-fds.ts'
import type { Shim } from '../../native/shim.ts'
import type { Log } from '../../text.ts'
import { explain } from '../../text.ts'
import { OFFLOADS_TUNNEL } from '../../wire/vnet-hdr.ts'
import type { TapOptions } from '../options.ts'
import { changeDevice, otherNetns, setOwnership, setSndbuf } from './device-settings.ts'
import { cString, identity, isGiven, takeGiven } from './descriptors.ts'
import type { LinkInfo } from '../interface/link.ts'
import { setNonblocking } from '../interface/given.ts'
import { checkNoLoop, holderOf, noteHeld, noteReleased, setIffHint } from '../interface/held.ts'
import { getLink, setLinkProperties } from '../interface/link.ts'
import { netnsName, openNetns } from '../interface/netns.ts'
import { isUsableVnetHdrLength } from './queues.ts'
import { awaitRelease } from './release.ts'
import type { ProbedOffloads } from './offloads.ts'
import { applyOffloads, NO_OFFLOADS, probeOffloads } from './offloads.ts'
import { isScript, runHelper, runScript } from './scripts.ts'

const TUN_NODE = '/dev/net/tun'
const O_CLOEXEC = 0o2000000
/** An owner that was killed keeps the name busy for some milliseconds (io_uring pins its file). */
const BUSY_RETRY_MS = 1000
const BUSY_WAIT_MS = 20

export interface OpenContext {
  readonly shim: Shim
  /** Descriptors by name, for fd= and fds=. */
  readonly given: ReadonlyMap<string, number>
  readonly log: Log
  /** Another process may still have the interface: wait for it, never attach beside it. */
  readonly takesOver?: boolean
  /** Its owner leaves it behind, when it is persistent: it is not made anew. */
  readonly isLeft?: boolean
  /** Told which queue is opened or set up next. */
  readonly reached?: (queue: number) => void
}

export interface TapIdentity {
  readonly ifname: string
  readonly netns: string | undefined
}

/** An open TAP: owns its descriptors until close(). */
export class OpenTap {
  /** Of its port. */
  readonly id: string
  readonly kind = 'tap'
  readonly fds: readonly number[]
  readonly vnetHdrLength: number
  readonly probed: ProbedOffloads
  readonly #context: OpenContext
  #options: TapOptions
  /** It was persistent before it was opened. */
  readonly #wasPersistent: boolean
  #claims: readonly FdClaim[] = []
  #last: TapIdentity
  /** TUN_F_* bits, as far as we have set them. */
  #inForce = 0

  constructor(
    context: OpenContext,
    options: TapOptions,
    fds: readonly number[],
    ifname: string,
    vnetHdrLength: number,
    probed: ProbedOffloads,
  ) {
    this.#context = context
    this.#options = options
    this.id = options.id
    this.fds = fds
    this.vnetHdrLength = vnetHdrLength
    this.probed = probed
    this.#last = { ifname, netns: options.netns }
    this.#wasPersistent = (identity(context.shim, fds[0]).flags & IFF_PERSIST) !== 0
    this.#last = this.identify()
  }

  /** Nobody else is to be given these descriptors by their numbers. */
  claim(): void {
    this.#claims = this.fds.map((fd) => claimFd(fd, `port "${this.#options.id}"`))
  }

  /** Name and namespace as they are now: both can change. After a deletion the last known ones. */
  identify(): TapIdentity {
    const { shim } = this.#context
    const name = new Uint8Array(IFNAMSIZ)
    if (shim.tunGetIff(this.fds[0], name) < 0) return this.#last
    let netns = this.#last.netns
    const netnsFd = shim.tunGetDevNetns(this.fds[0])
    // Old kernels and macvtap do not tell, and the call needs CAP_NET_ADMIN.
    if (netnsFd >= 0) {
      try {
        netns = netnsName(netnsFd, this.#options.netns)
      } catch {
        // Without /proc there is no name for it.
      } finally {
        shim.close(netnsFd)
      }
    }
    this.#last = { ifname: cString(name), netns }
    return this.#last
  }

  /** The interface as the kernel has it now; null: it is gone, or the kernel does not tell us. */
  lookUp(): LinkInfo | null {
    const { shim } = this.#context
    const { ifname } = this.identify()
    const netnsFd = shim.tunGetDevNetns(this.fds[0])
    // Without permission to ask, only an interface of our own namespace can be found by its name.
    if (netnsFd < 0 && this.#options.netns !== undefined) return null
    try {
      return getLink(shim, netnsFd < 0 ? -1 : netnsFd, ifname)
    } catch {
      return null
    } finally {
      if (netnsFd >= 0) shim.close(netnsFd)
    }
  }

  /** A descriptor of the namespace that it lives in, for the caller to close; -1: ours, or not told. */
  openNetns(): number {
    return Math.max(-1, this.#context.shim.tunGetDevNetns(this.fds[0]))
  }

  /** Lets the kernel hand over frames with these offloads; returns the TUN_F_* bits in force. */
  setOffloads(wish: number): number {
    if (this.vnetHdrLength === 0) return 0
    const { shim, log } = this.#context
    this.#inForce = applyOffloads(shim, this.fds[0], wish, (errno) =>
      log(`TUNSETOFFLOAD ioctl() failed: ${strerror(errno)}`, 'warning'),
    )
    return this.#inForce
  }

  /**
   * Asks the device again whether it is there and has the vnet_hdr that it was opened with. Throws
   * SysError when not.
   */
  probe(): void {
    const { flags, ifname } = identity(this.#context.shim, this.fds[0])
    const hasVnetHdr = (flags & IFF_VNET_HDR) !== 0
    if (hasVnetHdr === this.vnetHdrLength > 0) return
    throw new SysError('TAP_FEATURE', `${ifname} has vnet_hdr=${hasVnetHdr ? 'on' : 'off'} now`, {
      ifname,
    })
  }

  /** Sets on the open device what differs and can be: see port/in-place.ts. Throws SysError. */
  change(before: TapOptions, after: TapOptions): void {
    this.#options = after
    const isFound = this.#wasPersistent || isGiven(after) || after.helper !== undefined
    const isOurs = !isFound && this.lookUp()?.kind === 'tun'
    const { ifname } = this.identify()
    changeDevice(this.#context.shim, { fds: this.fds, ifname, isOurs }, before, after)
  }

  /** Shows the interface a carrier or none; -errno when the device is gone or cannot. */
  setCarrier(isUp: boolean): number {
    return this.#context.shim.tunSetCarrier(this.fds[0], isUp ? 1 : 0)
  }

  /** After the engine let go: runs the down-script, closes the descriptors. */
  async close(): Promise<void> {
    await this.#leave()
    for (const fd of this.fds) this.#context.shim.close(fd)
    for (const claim of this.#claims) claim.end()
  }

  /** It is not used after all: as `close`, but what was made does not persist, and given
   *  descriptors stay their giver's. */
  async abandon(): Promise<void> {
    if (this.#options.persist === true && !this.#wasPersistent) {
      this.#context.shim.tunSetPersist(this.fds[0], 0)
    }
    if (!isGiven(this.#options)) return this.close()
    await this.#leave()
    for (const claim of this.#claims) claim.giveBack()
  }

  async #leave(): Promise<void> {
    const { shim, log } = this.#context
    noteReleased(shim, this)
    await runDownscript(this.#options, this.identify().ifname, log)
    // Whoever has the device next may set a header that is too short for tunnels.
    if ((this.#inForce & OFFLOADS_TUNNEL) !== 0) {
      shim.tunSetOffload(this.fds[0], this.#inForce & ~OFFLOADS_TUNNEL)
    }
  }
}

/** What fails in it is told, and keeps nothing open. */
async function runDownscript({ downscript }: TapOptions, ifname: string, log: Log): Promise<void> {
  if (!isScript(downscript)) return
  await runScript(downscript, ifname).catch((error) => log(explain(error)))
}

export async function openTap(options: TapOptions, context: OpenContext): Promise<OpenTap> {
  const { shim } = context
  if (process.platform !== 'linux') {
    throw new SysError('TAP_FEATURE', `tap is not supported on ${process.platform}`)
  }
  const netnsFd = options.netns === undefined ? -1 : openNetns(shim, options.netns)
  const fds: number[] = []
  try {
    if (isGiven(options)) takeGiven(options, context, fds)
    else if (options.helper !== undefined) {
      fds.push(await runHelper(shim, options.helper, options.br ?? 'br0'))
      setNonblocking(shim, fds[0], 'TAP_FD')
    } else await openByName(options, context, netnsFd, fds)

    const { ifname, flags } = identity(shim, fds[0])
    if (isScript(options.script)) await runScript(options.script, ifname)
    try {
      const hasVnetHdr = (flags & IFF_VNET_HDR) !== 0
      const tap = configure(options, context, netnsFd, fds, ifname, hasVnetHdr)
      tap.claim()
      noteHeld(shim, tap)
      return tap
    } catch (error) {
      // What the script set up is taken down again.
      if (isScript(options.script)) await runDownscript(options, ifname, context.log)
      throw error
    }
  } catch (error) {
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
    if (stage[0] === 0) {
      throw new SysError('NETNS', `setns ${options.netns}: ${strerror(-fd)}`, {
        syscall: 'setns',
        errno: -fd,
        hint: 'entering a network namespace needs CAP_SYS_ADMIN',
      })
    }
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

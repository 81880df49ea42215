/** An open TAP: its descriptors, what is asked of its device and set on it, and its end. */
import { IFF_PERSIST, IFF_VNET_HDR, IFNAMSIZ } from '../../abi/if-tun.ts'
import { strerror } from '../../abi/strerror.ts'
import { SysError } from '../../errors.ts'
import type { FdClaim } from '../../native/owned-fds.ts'
import { claimFd } from '../../native/owned-fds.ts'
import type { Shim } from '../../native/shim.ts'
import type { Log } from '../../text.ts'
import { explain } from '../../text.ts'
import { OFFLOADS_TUNNEL } from '../../wire/vnet-hdr.ts'
import { noteHeld, noteReleased } from '../interface/held.ts'
import type { LinkInfo } from '../interface/link.ts'
import { getLink } from '../interface/link.ts'
import type { DescriptorKeeper } from '../keeper.ts'
import { netnsName } from '../interface/netns.ts'
import type { TapOptions } from '../options.ts'
import { cString, identity, isGiven } from './descriptors.ts'
import { changeDevice } from './device-settings.ts'
import type { ProbedOffloads } from './offloads.ts'
import { applyOffloads } from './offloads.ts'
import { isScript, runScript } from './scripts.ts'

export interface OpenContext {
  readonly shim: Shim
  /** Descriptors by name, for fd= and fds=. */
  readonly given: ReadonlyMap<string, number>
  readonly log: Log
  readonly keeper?: DescriptorKeeper | undefined
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

/** Of a device, before this port had it. */
export interface TapOrigin {
  readonly wasPersistent: boolean
  /** Its descriptors came from elsewhere: it was not made for this port. */
  readonly isFound: boolean
}

function originOf(shim: Shim, options: TapOptions, fd: number): TapOrigin {
  const wasPersistent = (identity(shim, fd).flags & IFF_PERSIST) !== 0
  return { wasPersistent, isFound: isGiven(options) || options.helper !== undefined }
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
  /** What was so before it was opened, here or by the process that handed it over. */
  readonly #origin: TapOrigin
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
    origin: TapOrigin = originOf(context.shim, options, fds[0]),
    inForce = 0,
  ) {
    this.#context = context
    this.#options = options
    this.id = options.id
    this.fds = fds
    this.vnetHdrLength = vnetHdrLength
    this.probed = probed
    this.#origin = origin
    this.#inForce = inForce
    this.#last = { ifname, netns: options.netns }
    this.#last = this.identify()
  }

  get origin(): TapOrigin {
    return this.#origin
  }

  /** TUN_F_* bits, as far as they were set for this port. */
  get inForce(): number {
    return this.#inForce
  }

  /**
   * Nobody else is to be given these descriptors by their numbers, or this device by its name; and they
   * are kept, but for those that whoever starts us gives to the next one as well.
   */
  claim(): void {
    if (!isGiven(this.#options)) this.#context.keeper?.keep(this.id, this.fds)
    this.#claims = this.fds.map((fd) => claimFd(fd, `port "${this.#options.id}"`))
    noteHeld(this.#context.shim, this)
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
    const { isFound, wasPersistent } = this.#origin
    const isOurs = !isFound && !wasPersistent && this.lookUp()?.kind === 'tun'
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
    this.#closeFds()
  }

  /** Another process has it, with all that is to be done at its end. */
  letGo(): void {
    this.#context.keeper?.leave(this.id)
    noteReleased(this.#context.shim, this)
    this.#closeFds()
  }

  #closeFds(): void {
    for (const fd of this.fds) this.#context.shim.close(fd)
    for (const claim of this.#claims) claim.end()
  }

  /** It is not used after all: as `close`, but what was made does not persist, and given
   *  descriptors stay their giver's. */
  async abandon(): Promise<void> {
    if (this.#options.persist === true && !this.#origin.wasPersistent) {
      this.#context.shim.tunSetPersist(this.fds[0], 0)
    }
    if (!isGiven(this.#options)) return this.close()
    await this.#leave()
    for (const claim of this.#claims) claim.giveBack()
  }

  async #leave(): Promise<void> {
    const { shim, log, keeper } = this.#context
    keeper?.forget(this.id)
    noteReleased(shim, this)
    await runDownscript(this.#options, this.identify().ifname, log)
    // Whoever has the device next may set a header that is too short for tunnels.
    if ((this.#inForce & OFFLOADS_TUNNEL) !== 0) {
      shim.tunSetOffload(this.fds[0], this.#inForce & ~OFFLOADS_TUNNEL)
    }
  }
}

/** What fails in it is told, and keeps nothing open. */
export async function runDownscript(
  { downscript }: TapOptions,
  ifname: string,
  log: Log,
): Promise<void> {
  if (!isScript(downscript)) return
  await runScript(downscript, ifname).catch((error) => log(explain(error)))
}

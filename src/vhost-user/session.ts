/**
 * One front-end's connection: from messages to what the device (device.ts) does, and the replies.
 *
 * A ring starts with its SET_VRING_KICK, once its size, its addresses and the memory they lie in are
 * known, and stops with GET_VRING_BASE. Whether it is served depends on SET_VRING_ENABLE as well,
 * unless protocol features were not negotiated: then a ring is enabled from its start.
 *
 * A message that breaks the protocol ends the connection: `handle` throws. What is only refused is
 * answered with a failure when the front-end asked for an answer. Source: vhost-user protocol.
 */
import {
  featureMask,
  VHOST_F_LOG_ALL,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VIRTIO_F_RING_PACKED,
} from '../abi/virtio-features.ts'
import { VIRTQ_SIZE_MAX } from '../abi/virtio-ring.ts'
import * as vhost from '../abi/vhost-user.ts'
import { ProtocolError } from '../errors.ts'
import type { RawMessage } from '../sockets/message-stream.ts'
import type { Log } from '../text.ts'
import { explain } from '../text.ts'
import * as codec from './codec.ts'
import type { RegionRow } from './codec.ts'
import type { VhostUserDevice } from './device.ts'
import type { SessionState } from './session-state.ts'
import { Vring } from './vring.ts'

export interface SessionOptions {
  readonly device: VhostUserDevice
  /** Features to offer now; asked again with every GET_FEATURES. */
  readonly offered: () => bigint
  readonly queuePairsMax: number
  /** Memory regions that the front-end may add one by one. */
  readonly memorySlots: number
  /** The features that the driver acknowledged, without the logging of a migration. */
  readonly acked: (features: bigint) => void
  /** The connection is over and everything of it released. */
  readonly ended: () => void
  readonly closeFd: (fd: number) => void
  /** Makes a descriptor ready for being signalled; false: it is no eventfd. */
  readonly prepareEventFd: (fd: number) => boolean
  /** Signals an eventfd. */
  readonly signalFd: (fd: number) => void
  readonly log: Log
}

const PROTOCOL_FEATURES: bigint = featureMask(
  vhost.VHOST_USER_PROTOCOL_F_MQ,
  vhost.VHOST_USER_PROTOCOL_F_LOG_SHMFD,
  vhost.VHOST_USER_PROTOCOL_F_RARP,
  vhost.VHOST_USER_PROTOCOL_F_REPLY_ACK,
  vhost.VHOST_USER_PROTOCOL_F_NET_MTU,
  vhost.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS,
  vhost.VHOST_USER_PROTOCOL_F_STATUS,
)
const LOG_ALL_MASK: bigint = featureMask(VHOST_F_LOG_ALL)
const PROTOCOL_FEATURES_MASK: bigint = featureMask(VHOST_USER_F_PROTOCOL_FEATURES)
const PACKED_MASK: bigint = featureMask(VIRTIO_F_RING_PACKED)
const REPLY_ACK_MASK: bigint = featureMask(vhost.VHOST_USER_PROTOCOL_F_REPLY_ACK)

const RARP_MAC_LENGTH = 6

const broken = (message: string): ProtocolError => new ProtocolError('VHOST_USER_PROTOCOL', message)
const refused = (message: string): ProtocolError =>
  new ProtocolError('VHOST_USER_PROTOCOL', message, { isFatal: false })

export class VhostUserSession {
  readonly #options: SessionOptions
  readonly #device: VhostUserDevice
  readonly #vrings: readonly Vring[]
  /** Everything that this front-end was ever offered. */
  #offered = 0n
  #features = 0n
  #protocolFeatures = 0n
  #regions: readonly RegionRow[] = []
  #status = 0n

  /** `came`: what another process knew of the connection. */
  constructor(options: SessionOptions, came?: SessionState) {
    this.#options = options
    this.#device = options.device
    const all = Array.from({ length: 2 * options.queuePairsMax }, (_, queue) => queue)
    this.#vrings = all.map((queue) => {
      const known = came?.vrings[queue]
      return known === undefined ? new Vring() : Vring.of(known)
    })
    if (came === undefined) return
    this.#offered = came.offered
    this.#features = came.features
    this.#protocolFeatures = came.protocolFeatures
    this.#regions = came.regions
    this.#status = came.status
  }

  /** For another process. The descriptors stay this session's. */
  get state(): SessionState {
    return {
      offered: this.#offered,
      features: this.#features,
      protocolFeatures: this.#protocolFeatures,
      status: this.#status,
      regions: this.#regions,
      vrings: this.#vrings.map((vring) => vring.state),
    }
  }

  /**
   * Carries a message out; returns the reply, null when there is none. The descriptors that came
   * with it are the session's from the call on. Messages are handled one at a time.
   */
  async handle(message: RawMessage, fds: number[]): Promise<Uint8Array | null> {
    const { request, flags } = message
    const needsReply =
      (flags & vhost.VHOST_USER_NEED_REPLY_MASK) !== 0 &&
      (this.#protocolFeatures & REPLY_ACK_MASK) !== 0n
    try {
      if (
        (flags & vhost.VHOST_USER_VERSION_MASK) !== vhost.VHOST_USER_VERSION ||
        (flags & vhost.VHOST_USER_REPLY_MASK) !== 0
      ) {
        throw broken(`message ${request} has flags 0x${flags.toString(16)}`)
      }
      const reply = await this.#answer(message, fds)
      if (reply !== null) return reply
      return needsReply ? codec.replyU64(request, 0n) : null
    } catch (error) {
      const isRefusal = error instanceof ProtocolError && !error.isFatal
      if (!isRefusal || !needsReply) throw error
      this.#options.log(`refused message ${request}: ${explain(error)}`, 'warning')
      return codec.replyU64(request, 1n)
    } finally {
      // What nobody took is not wanted.
      for (const fd of fds) this.#options.closeFd(fd)
    }
  }

  /** The reply of a message that has one of its own. */
  async #answer(message: RawMessage, fds: number[]): Promise<Uint8Array | null> {
    const { request, payload } = message
    switch (request) {
      case vhost.VHOST_USER_GET_FEATURES:
        codec.parseEmpty(payload)
        this.#offered |= this.#options.offered()
        return codec.replyU64(request, this.#offered)
      case vhost.VHOST_USER_GET_PROTOCOL_FEATURES:
        codec.parseEmpty(payload)
        return codec.replyU64(request, PROTOCOL_FEATURES)
      case vhost.VHOST_USER_GET_QUEUE_NUM:
        codec.parseEmpty(payload)
        return codec.replyU64(request, BigInt(this.#options.queuePairsMax))
      case vhost.VHOST_USER_GET_MAX_MEM_SLOTS:
        codec.parseEmpty(payload)
        return codec.replyU64(request, BigInt(this.#options.memorySlots))
      case vhost.VHOST_USER_GET_STATUS:
        codec.parseEmpty(payload)
        return codec.replyU64(request, this.#status)
      case vhost.VHOST_USER_GET_VRING_BASE: {
        const { index } = codec.parseVringState(payload)
        const num = await this.#stop(index)
        return codec.replyVringState(request, { index, num })
      }
      case vhost.VHOST_USER_SET_LOG_BASE:
        await this.#device.setLog({ ...codec.parseLog(payload), fd: oneFd(fds) })
        return codec.replyU64(request, 0n)
      default:
        await this.#carryOut(message, fds)
        return null
    }
  }

  async #carryOut(message: RawMessage, fds: number[]): Promise<void> {
    const { request, payload } = message
    switch (request) {
      case vhost.VHOST_USER_SET_FEATURES:
        return this.#setFeatures(codec.parseU64(payload))
      case vhost.VHOST_USER_SET_PROTOCOL_FEATURES:
        return this.#setProtocolFeatures(codec.parseU64(payload))
      case vhost.VHOST_USER_SET_OWNER:
      case vhost.VHOST_USER_RESET_OWNER:
        return codec.parseEmpty(payload)
      case vhost.VHOST_USER_SET_MEM_TABLE:
        return this.#setMemory(codec.parseMemoryTable(payload), fds)
      case vhost.VHOST_USER_ADD_MEM_REG:
        return this.#addMemory(codec.parseMemoryRegion(payload), fds)
      case vhost.VHOST_USER_REM_MEM_REG:
        return this.#removeMemory(codec.parseMemoryRegion(payload))
      case vhost.VHOST_USER_SET_LOG_FD:
        // It would be signalled after each write to the log; no front-end waits for that.
        return this.#options.closeFd(oneFd(fds))
      case vhost.VHOST_USER_SET_VRING_NUM:
        return this.#setSize(codec.parseVringState(payload))
      case vhost.VHOST_USER_SET_VRING_BASE:
        return this.#setBase(codec.parseVringState(payload))
      case vhost.VHOST_USER_SET_VRING_ADDR:
        return this.#setAddress(codec.parseVringAddress(payload))
      case vhost.VHOST_USER_SET_VRING_KICK:
        return this.#setKick(codec.parseU64(payload), fds)
      case vhost.VHOST_USER_SET_VRING_CALL:
        return this.#setCall(codec.parseU64(payload), fds)
      case vhost.VHOST_USER_SET_VRING_ERR:
        return this.#setErr(codec.parseU64(payload), fds)
      case vhost.VHOST_USER_SET_VRING_ENABLE:
        return this.#enable(codec.parseVringState(payload))
      case vhost.VHOST_USER_SEND_RARP:
        codec.parseU64(payload)
        return this.#device.sendRarp(payload.slice(0, RARP_MAC_LENGTH))
      case vhost.VHOST_USER_NET_SET_MTU:
        return this.#setMtu(codec.parseU64(payload))
      case vhost.VHOST_USER_SET_STATUS:
        this.#status = codec.parseU64(payload) & 0xffn
        return
      default:
        throw refused(`message ${request} is not known`)
    }
  }

  // --- features -----------------------------------------------------------------------------------

  async #setFeatures(features: bigint): Promise<void> {
    const unknown = features & ~this.#offered
    if (unknown !== 0n) throw broken(`features 0x${unknown.toString(16)} were not offered`)
    const changed = features ^ this.#features
    if ((changed & ~LOG_ALL_MASK) !== 0n && this.#vrings.some(({ isStarted }) => isStarted)) {
      throw broken('features changed while queues run')
    }
    this.#features = features
    this.#options.acked(features & ~LOG_ALL_MASK)
    await this.#device.setFeatures(features)
  }

  #setProtocolFeatures(features: bigint): void {
    const unknown = features & ~PROTOCOL_FEATURES
    if (unknown !== 0n) throw broken(`protocol features 0x${unknown.toString(16)} were not offered`)
    this.#protocolFeatures = features
  }

  #setMtu(mtu: bigint): void {
    if (!this.#device.setMtu(Number(mtu))) throw refused(`an MTU of ${mtu} is beyond the port's`)
  }

  // --- memory -------------------------------------------------------------------------------------

  async #setMemory(rows: readonly RegionRow[], fds: number[]): Promise<void> {
    if (fds.length !== rows.length) {
      throw broken(`${fds.length} descriptors for ${rows.length} memory regions`)
    }
    checkOverlaps(rows)
    this.#regions = rows
    await this.#device.setMemory(rows.map((row) => ({ ...row, fd: fds.shift()! })))
    await this.#startComplete()
  }

  /**
   * QEMU up to 7.2 adds and removes every region once per queue pair: an addition that is there and
   * a removal of what is gone are repetitions.
   */
  async #addMemory(row: RegionRow, fds: number[]): Promise<void> {
    if (this.#regions.some((own) => isSameRegion(own, row) && own.mmapOffset === row.mmapOffset)) {
      return this.#options.closeFd(oneFd(fds))
    }
    const regions = [...this.#regions, row]
    if (regions.length > this.#options.memorySlots) throw refused('no memory slot is left')
    checkOverlaps(regions)
    await this.#device.addMemory({ ...row, fd: oneFd(fds) })
    this.#regions = regions
    await this.#startComplete()
  }

  async #removeMemory(row: RegionRow): Promise<void> {
    const isThere = this.#regions.some((own) => isSameRegion(own, row))
    if (!isThere && this.#vrings.length > 2) return
    await this.#device.removeMemory(row)
    this.#regions = this.#regions.filter((own) => own.guestAddress !== row.guestAddress)
  }

  // --- rings --------------------------------------------------------------------------------------

  #vring(index: number): Vring {
    const vring = this.#vrings[index]
    if (vring === undefined) {
      throw broken(`queue ${index} of a port with ${this.#vrings.length}`)
    }
    return vring
  }

  /** One that the device does not run: what is said now holds from its next start on. */
  #stoppedVring(index: number): Vring {
    const vring = this.#vring(index)
    if (vring.isStarted) throw broken(`queue ${index} was changed while it runs`)
    return vring
  }

  async #setSize({ index, num }: codec.VringState): Promise<void> {
    const vring = this.#stoppedVring(index)
    if (num === 0 || num > VIRTQ_SIZE_MAX) throw broken(`queue ${index} of ${num} entries`)
    vring.size = num
    await this.#start(index)
  }

  #setBase({ index, num }: codec.VringState): void {
    this.#stoppedVring(index).base = num
  }

  async #setAddress(address: codec.VringAddress): Promise<void> {
    const { index, flags, descriptorAddress, availAddress, usedAddress } = address
    const vring = this.#vring(index)
    const isSame =
      vring.descriptorAddress === descriptorAddress &&
      vring.availAddress === availAddress &&
      vring.usedAddress === usedAddress
    if (vring.isStarted && !isSame) throw broken(`queue ${index} was moved while it runs`)
    vring.descriptorAddress = descriptorAddress
    vring.availAddress = availAddress
    vring.usedAddress = usedAddress
    vring.logAddress = (flags & vhost.VHOST_VRING_F_LOG) === 0 ? -1 : address.logAddress
    if (vring.isStarted) await this.#device.setQueueLog(index, vring.logAddress)
    else await this.#start(index)
  }

  async #setKick(value: bigint, fds: number[]): Promise<void> {
    const { index, fd } = vringFd(value, fds)
    const vring = this.#vringOf(index, fd)
    if (vring.isStarted) return this.#device.setKick(index, fd)
    this.#closeFd(vring.kickFd)
    vring.kickFd = fd
    vring.isWanted = true
    await this.#start(index)
    if (!vring.isStarted)
      this.#options.log(`queue ${index} waits for its size, addresses or memory`)
  }

  async #setCall(value: bigint, fds: number[]): Promise<void> {
    const { index, fd } = vringFd(value, fds)
    const vring = this.#vringOf(index, fd)
    if (vring.isStarted) return this.#device.setCall(index, fd)
    this.#closeFd(vring.callFd)
    vring.callFd = fd
  }

  #setErr(value: bigint, fds: number[]): void {
    const { index, fd } = vringFd(value, fds)
    const vring = this.#vringOf(index, fd)
    this.#closeFd(vring.errFd)
    vring.errFd = fd
  }

  /** The ring, and the descriptor that came for it ready; or that closed. */
  #vringOf(index: number, fd: number): Vring {
    try {
      const vring = this.#vring(index)
      if (fd >= 0 && !this.#options.prepareEventFd(fd)) {
        throw broken(`a descriptor of queue ${index} is not an eventfd`)
      }
      return vring
    } catch (error) {
      this.#closeFd(fd)
      throw error
    }
  }

  async #enable({ index, num }: codec.VringState): Promise<void> {
    this.#vring(index)
    if (num > 1) throw broken(`SET_VRING_ENABLE with ${num}`)
    await this.#device.enableQueue(index, num === 1)
  }

  /** Starts a ring of which everything is known. */
  async #start(index: number): Promise<void> {
    const vring = this.#vrings[index]
    if (vring.isStarted || !vring.isComplete || !this.#hasMemoryOf(vring)) return
    const isPacked = (this.#features & PACKED_MASK) !== 0n
    if (!isPacked && (vring.size & (vring.size - 1)) !== 0) {
      throw broken(`queue ${index} of ${vring.size} entries, which is not a power of two`)
    }
    // The device takes the descriptors over, whatever comes of it.
    vring.isStarted = true
    await this.#device.startQueue(index, vring.takeSetup(isPacked))
    if ((this.#features & PROTOCOL_FEATURES_MASK) === 0n) {
      await this.#device.enableQueue(index, true)
    }
  }

  async #startComplete(): Promise<void> {
    for (const index of this.#vrings.keys()) await this.#start(index)
  }

  #hasMemoryOf(vring: Vring): boolean {
    return [vring.descriptorAddress, vring.availAddress, vring.usedAddress].every((address) =>
      this.#regions.some(
        ({ userAddress, size }) => address >= userAddress && address - userAddress < size,
      ),
    )
  }

  async #stop(index: number): Promise<number> {
    const vring = this.#vring(index)
    vring.isWanted = false
    if (vring.isStarted) {
      vring.isStarted = false
      vring.base = await this.#device.stopQueue(index)
    }
    this.#closeFd(vring.kickFd)
    this.#closeFd(vring.callFd)
    vring.kickFd = -1
    vring.callFd = -1
    return Math.max(vring.base, 0)
  }

  #closeFd(fd: number): void {
    if (fd >= 0) this.#options.closeFd(fd)
  }

  /** The driver broke a queue: a front-end that gave an eventfd for that is told. */
  queueBroken(index: number): void {
    const fd = this.#vrings[index]?.errFd ?? -1
    if (fd >= 0) this.#options.signalFd(fd)
  }

  /** The connection is gone: everything of it ends. */
  async close(): Promise<void> {
    for (const vring of this.#vrings) for (const fd of vring.takeFds()) this.#options.closeFd(fd)
    try {
      await this.#device.close()
    } finally {
      this.#options.ended()
    }
  }
}

/** Takes the one descriptor that the message must have. */
function oneFd(fds: number[]): number {
  if (fds.length !== 1) throw broken(`${fds.length} descriptors where one belongs`)
  return fds.shift()!
}

/** Index and descriptor of SET_VRING_KICK, CALL and ERR; -1: none comes. */
function vringFd(value: bigint, fds: number[]): { readonly index: number; readonly fd: number } {
  const bits = Number(value & 0x1ffn)
  const index = bits & vhost.VHOST_USER_VRING_IDX_MASK
  const isNone = (bits & vhost.VHOST_USER_VRING_NOFD_MASK) !== 0
  if (isNone && fds.length > 0) throw broken('a descriptor that was not announced')
  return { index, fd: isNone ? -1 : oneFd(fds) }
}

const isSameRegion = (a: RegionRow, b: RegionRow): boolean =>
  a.guestAddress === b.guestAddress && a.userAddress === b.userAddress && a.size === b.size

function checkOverlaps(rows: readonly RegionRow[]): void {
  for (const [at, row] of rows.entries()) {
    for (const other of rows.slice(at + 1)) {
      const isApart =
        row.guestAddress + row.size <= other.guestAddress ||
        other.guestAddress + other.size <= row.guestAddress
      if (!isApart) throw broken('two memory regions overlap')
    }
  }
}

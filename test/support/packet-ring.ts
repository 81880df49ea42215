/** A receive ring as the kernel fills it, in memory of the test: linux/if_packet.h, TPACKET_V2. */
import { TPACKET2_HDRLEN } from '../../src/abi/if-packet.ts'
import type { WatchedSocket } from '../../src/io/tier.ts'
import type { Burst } from '../../src/mem/burst.ts'
import { Window } from '../../src/mem/window.ts'
import {
  RESERVE,
  ringGeometry,
  ringLength,
  SLOT_LENGTH,
  slotOffsets,
} from '../../src/port/raw-socket/geometry.ts'
import type { RingGeometry } from '../../src/port/raw-socket/geometry.ts'
import { OffloadGuess } from '../../src/port/raw-socket/offload-guess.ts'
import { PacketRing } from '../../src/port/raw-socket/ring.ts'

export const STATUS = {
  kernel: 0,
  user: 1,
  losing: 4,
  csumNotReady: 8,
  vlan: 0x10,
  vlanTpid: 0x40,
} as const

export interface SlotOptions {
  readonly status?: number
  /** tp_len, when it is not that of the bytes. */
  readonly length?: number
  readonly snapLength?: number
  readonly mac?: number
  /** tp_mac, when it is not where the frame is. */
  readonly toldMac?: number
  readonly tci?: number
  readonly tpid?: number
  readonly packetType?: number
  readonly header?: Uint8Array
}

export const PORT = 5

export class KernelRing {
  readonly geometry: RingGeometry
  readonly window: Window
  readonly view: DataView
  readonly bytes: Uint8Array
  readonly offsets: Int32Array
  readonly ring: PacketRing
  /** [malformed, unknown, oversize] of each report. */
  readonly drops: number[][] = []
  readonly #vnetHdrLength: number
  /** The slot that is filled next. */
  at = 0

  constructor(kb: number, vnetHdrLength: number, mtu = 1500, first = 0) {
    this.geometry = ringGeometry(kb)
    this.window = Window.map(ringLength(this.geometry))
    this.view = new DataView(this.window.buffer)
    this.bytes = new Uint8Array(this.window.buffer)
    this.offsets = slotOffsets(this.geometry)
    this.#vnetHdrLength = vnetHdrLength
    this.at = first
    const socket: WatchedSocket = { fd: -1, id: 0, isArmed: false }
    this.ring = new PacketRing(
      PORT,
      socket,
      this.window.id,
      first,
      vnetHdrLength,
      this.geometry,
      new OffloadGuess(mtu),
      {
        dropped: (port, ...counts) => {
          if (port !== PORT) throw new Error(`port ${port}`)
          this.drops.push(counts)
        },
      },
    )
  }

  readonly slotLength = SLOT_LENGTH

  get slots(): number {
    return this.offsets.length
  }

  /** Where the kernel puts a frame in its slot. */
  get frameAt(): number {
    return ((TPACKET2_HDRLEN + 16 + 15) & ~15) + RESERVE + this.#vnetHdrLength - 14
  }

  status(slot: number): number {
    return this.view.getUint32(this.offsets[slot], true)
  }

  /** The kernel has a frame; false: the slot is not its own. */
  deliver(frame: Uint8Array, options: SlotOptions = {}): boolean {
    const { view, bytes } = this
    const slot = this.offsets[this.at]
    if (view.getUint32(slot, true) !== STATUS.kernel) return false
    const { mac = this.frameAt, header = new Uint8Array(this.#vnetHdrLength) } = options
    bytes.set(header, slot + mac - header.length)
    bytes.set(frame, slot + mac)
    view.setUint32(slot + 4, options.length ?? frame.length, true)
    view.setUint32(slot + 8, options.snapLength ?? options.length ?? frame.length, true)
    view.setUint16(slot + 12, options.toldMac ?? mac, true)
    view.setUint16(slot + 14, mac + 14, true)
    view.setUint16(slot + 24, options.tci ?? 0, true)
    view.setUint16(slot + 26, options.tpid ?? 0, true)
    bytes[slot + 42] = options.packetType ?? 0
    view.setUint32(slot, STATUS.user | (options.status ?? 0), true)
    this.at = (this.at + 1) % this.slots
    return true
  }

  /** No slot has anything, and none is filled. */
  clear(): void {
    this.bytes.fill(0)
  }

  /** What the port reads. */
  read(burst: Burst): number {
    return this.ring.fill(burst)
  }

  close(): void {
    this.ring.close()
    this.window.unmap()
  }
}

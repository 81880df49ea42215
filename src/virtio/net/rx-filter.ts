/**
 * The receive filter of a network device: which frames the driver wants to see. VIRTIO 1.3
 * §5.1.6.5.1 to §5.1.6.5.3; the order of the decisions is QEMU's.
 *
 *     promisc -> all    VLAN not in the table -> none    then by kind of destination:
 *     broadcast   unless nobcast
 *     multicast   unless nomulti: allmulti or overflow, table
 *     unicast     unless nouni: alluni or overflow, own MAC, table
 *
 * A MAC address is two int32 as in wire/ethernet.ts.
 */
import { isGroup } from '../../wire/ethernet.ts'

/** Addresses of both kinds that the table holds together. */
export const MAC_TABLE_ENTRIES = 64
export const VLAN_COUNT = 4096
/** The VLAN table as bytes. */
export const VLAN_BYTES: number = VLAN_COUNT / 8

const MAC_LENGTH = 6
const VLAN_WORDS: number = VLAN_COUNT / 32
const BROADCAST_HI = -1
const BROADCAST_LO = 0xffff
/** Word 3 of a frame's head starts with these two bytes in a frame with a VLAN tag. */
const VLAN_TYPE_WORD = 0x0081
const NO_VLAN = -1

/** The modes of the RX commands. */
export const RX_FLAGS = ['promisc', 'allmulti', 'alluni', 'nomulti', 'nouni', 'nobcast'] as const
export type RxFlags = Readonly<Record<(typeof RX_FLAGS)[number], boolean>>

/** A filter as another thread can be given it. */
export interface RxFilterSettings {
  readonly flags: RxFlags
  readonly mac: Uint8Array
  /** Null: more than the table holds. */
  readonly unicast: readonly Uint8Array[] | null
  readonly multicast: readonly Uint8Array[] | null
  /** As `RxFilter.vlans`. */
  readonly vlans: Uint8Array
}

export class RxFilter {
  promisc = true
  allmulti = false
  alluni = false
  nomulti = false
  nouni = false
  nobcast = false
  /** The driver gave more addresses of this kind than fit: all of that kind are accepted. */
  unicastOverflow = false
  multicastOverflow = false
  macHi = 0
  macLo = 0

  /** Unicast addresses first; the others from #unicastCount on. */
  readonly #hi: Int32Array = new Int32Array(MAC_TABLE_ENTRIES)
  readonly #lo: Int32Array = new Int32Array(MAC_TABLE_ENTRIES)
  #unicastCount = 0
  #count = 0
  /** Bit id & 31 of word id >> 5: frames with this tag are accepted. */
  readonly #vlans: Int32Array = new Int32Array(VLAN_WORDS).fill(-1)

  /** As after a device reset; the own MAC stays. */
  reset(): void {
    this.promisc = true
    this.allmulti = false
    this.alluni = false
    this.nomulti = false
    this.nouni = false
    this.nobcast = false
    this.setTable([], [])
    this.allowVlans(true)
  }

  get settings(): RxFilterSettings {
    const { promisc, allmulti, alluni, nomulti, nouni, nobcast } = this
    return {
      flags: { promisc, allmulti, alluni, nomulti, nouni, nobcast },
      mac: this.mac,
      unicast: this.unicastOverflow ? null : this.unicast,
      multicast: this.multicastOverflow ? null : this.multicast,
      vlans: this.vlans,
    }
  }

  apply(settings: RxFilterSettings): void {
    Object.assign(this, settings.flags)
    this.setMac(settings.mac)
    this.setTable(settings.unicast, settings.multicast)
    this.setVlans(settings.vlans)
  }

  /** The own address, from six bytes. */
  setMac(mac: Uint8Array): void {
    this.macHi = macHi(mac)
    this.macLo = macLo(mac)
  }

  /** The own address as six bytes. */
  get mac(): Uint8Array {
    return macBytes(this.macHi, this.macLo)
  }

  /**
   * Replaces the table by addresses of six bytes each; null: there are more of that kind than the
   * driver can expect us to hold. A kind that does not fit as a whole is accepted as a whole, and
   * unicast comes first.
   */
  setTable(unicast: readonly Uint8Array[] | null, multicast: readonly Uint8Array[] | null): void {
    this.#count = 0
    this.unicastOverflow = !this.#addAll(unicast)
    this.#unicastCount = this.#count
    this.multicastOverflow = !this.#addAll(multicast)
  }

  #addAll(macs: readonly Uint8Array[] | null): boolean {
    if (macs === null || this.#count + macs.length > MAC_TABLE_ENTRIES) return false
    for (const mac of macs) {
      this.#hi[this.#count] = macHi(mac)
      this.#lo[this.#count] = macLo(mac)
      this.#count++
    }
    return true
  }

  /** The addresses in the table, in the order given. */
  get unicast(): Uint8Array[] {
    return this.#range(0, this.#unicastCount)
  }

  get multicast(): Uint8Array[] {
    return this.#range(this.#unicastCount, this.#count)
  }

  #range(from: number, to: number): Uint8Array[] {
    return Array.from({ length: to - from }, (_, at) =>
      macBytes(this.#hi[from + at], this.#lo[from + at]),
    )
  }

  /** All VLANs are accepted, or none. */
  allowVlans(areAllowed: boolean): void {
    this.#vlans.fill(areAllowed ? -1 : 0)
  }

  /** Accepts or refuses one VLAN, id 0..4095. */
  allowVlan(id: number, isAllowed: boolean): void {
    const bit = 1 << (id & 31)
    if (isAllowed) this.#vlans[id >> 5] |= bit
    else this.#vlans[id >> 5] &= ~bit
  }

  /** The table as VLAN_BYTES bytes: bit (id & 7) of byte (id >> 3). */
  get vlans(): Uint8Array {
    const bytes = new Uint8Array(VLAN_BYTES)
    const view = new DataView(bytes.buffer)
    for (let word = 0; word < VLAN_WORDS; word++) view.setInt32(4 * word, this.#vlans[word], true)
    return bytes
  }

  /** Replaces the table by what `vlans` gave. */
  setVlans(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, VLAN_BYTES)
    for (let word = 0; word < VLAN_WORDS; word++) this.#vlans[word] = view.getInt32(4 * word, true)
  }

  isVlanAllowed(id: number): boolean {
    return ((this.#vlans[id >> 5] >>> (id & 31)) & 1) === 1
  }

  /**
   * Whether the driver wants a frame with destination (hi, lo) and this VLAN id, -1: it has no tag.
   * @hot
   */
  accepts(hi: number, lo: number, vlan: number): boolean {
    if (this.promisc) return true
    if (vlan >= 0 && ((this.#vlans[vlan >> 5] >>> (vlan & 31)) & 1) === 0) return false
    if (isGroup(hi)) {
      if (hi === BROADCAST_HI && lo === BROADCAST_LO) return !this.nobcast
      if (this.nomulti) return false
      if (this.allmulti || this.multicastOverflow) return true
      return this.#has(hi, lo, this.#unicastCount, this.#count)
    }
    if (this.nouni) return false
    if (this.alluni || this.unicastOverflow) return true
    if (hi === this.macHi && lo === this.macLo) return true
    return this.#has(hi, lo, 0, this.#unicastCount)
  }

  /** @hot */
  #has(hi: number, lo: number, from: number, to: number): boolean {
    for (let at = from; at < to; at++) {
      if (this.#hi[at] === hi && this.#lo[at] === lo) return true
    }
    return false
  }
}

/**
 * The VLAN id of a frame, -1 without a tag, from word 3 of its head (bytes 12 to 15). Only tags of
 * type 0x8100 count, the outer of two.
 * @hot
 */
export function vlanOf(word3: number): number {
  if ((word3 & 0xffff) !== VLAN_TYPE_WORD) return NO_VLAN
  return ((word3 >>> 8) & 0x0f00) | (word3 >>> 24)
}

function macHi(mac: Uint8Array): number {
  return mac[0] | (mac[1] << 8) | (mac[2] << 16) | (mac[3] << 24)
}

function macLo(mac: Uint8Array): number {
  return mac[4] | (mac[5] << 8)
}

function macBytes(hi: number, lo: number): Uint8Array {
  const mac = new Uint8Array(MAC_LENGTH)
  const view = new DataView(mac.buffer)
  view.setInt32(0, hi, true)
  view.setUint16(4, lo, true)
  return mac
}

/** Null accepts everything, at no cost: what a promiscuous driver, as each one is after a reset, wants. */
export function filterOf(settings: RxFilterSettings | null): RxFilter | null {
  if (settings === null || settings.flags.promisc) return null
  const filter = new RxFilter()
  filter.apply(settings)
  return filter
}

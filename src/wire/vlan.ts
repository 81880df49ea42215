/**
 * VLAN tags as the data plane sees them: the four bytes behind the addresses as a little-endian word, which
 * is word 3 of a frame's `heads`. IEEE 802.1Q-2022 §9.3, §9.6.
 *
 *     bits 0..15: TPID, its first byte lowest    16..19: VID 8..11    20: DEI    21..23: PCP    24..31: VID 0..7
 *
 * Zero is no tag. VID 0 is a priority tag: the frame belongs to no VLAN by it.
 */

/** As the lower half of such a word. */
export const TPID_8100 = 0x0081
export const TPID_88A8 = 0xa888
/** Addresses, tag, type: a shorter frame is cut off inside its tag. */
export const TAGGED_LENGTH_MIN = 18
/** VIDs, 0 included. */
export const VLANS = 4096

const PCP_MASK = 0x00e0_0000
const DEI_MASK = 0x0010_0000
const NO_VID_MASK = 0x00f0_ffff

/** The tag at word 3 of `heads`; 0: there is none. A frame with another TPID has it as payload. @hot */
export function tagIn(word3: number): number {
  const type = word3 & 0xffff
  return type === TPID_8100 || type === TPID_88A8 ? word3 : 0
}

/** @hot */
export function vidOf(tag: number): number {
  return ((tag >>> 8) & 0xf00) | (tag >>> 24)
}

/** The tag's priority, where it stands in the word. @hot */
export function pcpOf(tag: number): number {
  return tag & PCP_MASK
}

/** A tag of this TPID, the priority of `pcp` (a tag, or 0), DEI 0. @hot */
export function makeTag(tpid: number, pcp: number, vid: number): number {
  return tpid | (pcp & PCP_MASK) | ((vid & 0xf00) << 8) | (vid << 24)
}

/** The tag with another VID: TPID, priority and DEI stay. @hot */
export function withVid(tag: number, vid: number): number {
  return (tag & NO_VID_MASK) | ((vid & 0xf00) << 8) | (vid << 24)
}

/** They differ in nothing but DEI. @hot */
export function isSameTag(one: number, other: number): boolean {
  return ((one ^ other) & ~DEI_MASK) === 0
}

/** A set of VIDs. */
export class VlanSet {
  readonly #words: Int32Array = new Int32Array(VLANS >>> 5)

  /** All of them, or those that are listed as [first, last]. */
  constructor(ranges: readonly (readonly [number, number])[] | null) {
    for (const [first, last] of ranges ?? [[0, VLANS - 1]]) {
      for (let vid = first; vid <= last; vid++) this.add(vid)
    }
  }

  add(vid: number): void {
    this.#words[vid >>> 5] |= 1 << (vid & 31)
  }

  clear(): void {
    this.#words.fill(0)
  }

  delete(vid: number): void {
    this.#words[vid >>> 5] &= ~(1 << (vid & 31))
  }

  /** @hot */
  has(vid: number): boolean {
    return ((this.#words[vid >>> 5] >>> (vid & 31)) & 1) !== 0
  }
}

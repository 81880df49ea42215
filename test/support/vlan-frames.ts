/** Frames with VLAN tags. */

export const C_TAG = 0x8100
export const S_TAG = 0x88a8

export interface Tag {
  /** Default C_TAG. */
  readonly tpid?: number
  readonly vid: number
  readonly pcp?: number
  readonly dei?: number
}

/** A number is a VID with a C_TAG. */
export type TagLike = number | Tag

function tagBytes(tag: TagLike): number[] {
  const { tpid = C_TAG, vid, pcp = 0, dei = 0 } = typeof tag === 'number' ? { vid: tag } : tag
  const tci = (pcp << 13) | (dei << 12) | vid
  return [tpid >> 8, tpid & 0xff, tci >> 8, tci & 0xff]
}

/** The frame with these tags behind its addresses, outermost first. */
export function tagged(frame: Uint8Array, ...tags: readonly TagLike[]): Uint8Array {
  return Uint8Array.from([
    ...frame.subarray(0, 12),
    ...tags.flatMap(tagBytes),
    ...frame.subarray(12),
  ])
}

/**
 * How a receive ring is laid out. packet(7), TPACKET_V2; Documentation/networking/packet_mmap.rst
 *
 *     block:  | slot | slot | ... | slot | unused |     pages that the kernel has in one piece, or not
 *     slot:   | tpacket2_hdr | sockaddr_ll | vnet_hdr | L2 bytes, up to FRAME_LENGTH_MAX ... |
 *                            ^ RESERVE bytes are left here
 *
 * A slot takes a GSO frame of 64 KiB, as with or without a vnet_hdr the kernel hands those over. Its
 * length is no multiple of 4 KiB, which spreads the slots over the cache sets (as in mem/frame-pool.ts).
 */
import { TPACKET2_HDRLEN } from '../../abi/if-packet.ts'
import { ETHER_HEADER_LENGTH, VLAN_TAG_LENGTH } from '../../wire/ethernet.ts'

/** Longest frame: 64 KiB of payload, Ethernet header, two VLAN tags. */
export const FRAME_LENGTH_MAX: number = 65535 + ETHER_HEADER_LENGTH + 2 * VLAN_TAG_LENGTH
/** What PACKET_RESERVE asks for: the vnet_hdr, or the frame without one, begins at a multiple of 4. */
export const RESERVE = 2
/** Where the kernel puts a frame at most: TPACKET_ALIGN(52 + 16), RESERVE, a vnet_hdr of 10 bytes. */
const FRAME_AT_MAX: number = ((TPACKET2_HDRLEN + 16 + 15) & ~15) + RESERVE + 10
const align64 = (length: number): number => (length + 63) & ~63
/** Bytes of a slot, a multiple of TPACKET_ALIGNMENT (16). */
export const SLOT_LENGTH: number = align64(FRAME_AT_MAX + FRAME_LENGTH_MAX)
/** Slots of a block, at most: 241 pages, of which the kernel allocates 256 in one piece when it can. */
const SLOTS_PER_BLOCK = 15
const PAGE = 4096
/** Least and most KiB of a ring, for each queue; and of all rings of a port. The kernel's own memory. */
export const RING_KB_MIN = 256
export const RING_KB_MAX = 262_144
export const RINGS_KB_MAX = 1_048_576
export const RING_KB_DEFAULT = 16_384

/** Of one ring. */
export interface RingGeometry {
  readonly blockLength: number
  readonly blocks: number
  readonly slotsPerBlock: number
}

/** The ring of so many KiB, without what its blocks leave unused, but of two slots at least. */
export function ringGeometry(kb: number): RingGeometry {
  const slots = Math.max(2, Math.floor((kb * 1024) / SLOT_LENGTH))
  const blocks = Math.ceil(slots / SLOTS_PER_BLOCK)
  const slotsPerBlock = Math.floor(slots / blocks)
  const blockLength = Math.ceil((slotsPerBlock * SLOT_LENGTH) / PAGE) * PAGE
  return { slotsPerBlock, blockLength, blocks }
}

export function ringLength({ blockLength, blocks }: RingGeometry): number {
  return blockLength * blocks
}

/** Offset of each slot in the ring, in the order in which the kernel fills them. */
export function slotOffsets({ blockLength, blocks, slotsPerBlock }: RingGeometry): Int32Array {
  return Int32Array.from(
    { length: blocks * slotsPerBlock },
    (_, slot) =>
      Math.floor(slot / slotsPerBlock) * blockLength + (slot % slotsPerBlock) * SLOT_LENGTH,
  )
}

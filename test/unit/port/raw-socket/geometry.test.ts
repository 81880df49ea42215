/** The layout of a receive ring, by the rules of packet_set_ring (net/packet/af_packet.c). */
import { expect, test } from 'vitest'
import { TPACKET2_HDRLEN } from '../../../../src/abi/if-packet.ts'
import {
  FRAME_LENGTH_MAX,
  RESERVE,
  RING_KB_DEFAULT,
  RING_KB_MAX,
  RING_KB_MIN,
  ringGeometry,
  ringLength,
  SLOT_LENGTH,
  slotOffsets,
} from '../../../../src/port/raw-socket/geometry.ts'

const PAGE = 4096
const SIZES = [RING_KB_MIN, 300, 640, 1027, 2048, 5000, RING_KB_DEFAULT, 65_536, RING_KB_MAX]

test('the longest frame fits behind all that the kernel writes before it', () => {
  // TPACKET_ALIGN(hdrlen + max(16, header)) + reserve + vnet_hdr, less the Ethernet header.
  const network = ((TPACKET2_HDRLEN + 16 + 15) & ~15) + RESERVE + 10
  expect(network - 14 + FRAME_LENGTH_MAX).toBeLessThanOrEqual(SLOT_LENGTH)
  expect(FRAME_LENGTH_MAX).toBe(65535 + 14 + 8)
  expect(SLOT_LENGTH % 16).toBe(0)
  // Both the frame without a vnet_hdr and the vnet_hdr before one begin at a multiple of 4.
  expect((network - 14 - 10) % 4).toBe(0)
  // Room for the tag that is put back, behind the address.
  expect(network - 14 - 10 - 4).toBeGreaterThanOrEqual(TPACKET2_HDRLEN)
})

test.each(SIZES)('a ring of %i KiB is one that the kernel takes', (kb) => {
  const { blockLength, blocks, slotsPerBlock } = ringGeometry(kb)
  // Whole pages of one order: the rest of them would be lost.
  expect(blockLength / PAGE).toBeLessThanOrEqual(256)
  expect(blockLength % PAGE).toBe(0)
  expect(Math.floor(blockLength / SLOT_LENGTH)).toBe(slotsPerBlock)
  expect(blocks).toBeGreaterThan(0)
  expect(blocks * slotsPerBlock).toBeGreaterThanOrEqual(2)
  const length = ringLength({ blockLength, blocks, slotsPerBlock })
  // But for the rest of a block.
  expect(length).toBeLessThanOrEqual(kb * 1024 + blocks * PAGE)
  expect(length).toBeGreaterThan(kb * 1024 * 0.7)
  expect(length).toBeLessThan(2 ** 31)
})

test('slots lie in their blocks, one behind the other', () => {
  const geometry = ringGeometry(4096)
  const { blockLength, blocks, slotsPerBlock } = geometry
  const offsets = [...slotOffsets(geometry)]
  expect(offsets).toHaveLength(blocks * slotsPerBlock)
  expect(blocks).toBeGreaterThan(2)
  offsets.forEach((offset, slot) => {
    const block = Math.floor(slot / slotsPerBlock)
    expect(offset).toBe(block * blockLength + (slot % slotsPerBlock) * SLOT_LENGTH)
    expect(offset + SLOT_LENGTH).toBeLessThanOrEqual((block + 1) * blockLength)
  })
})

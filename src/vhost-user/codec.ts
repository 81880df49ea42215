/**
 * Payloads of vhost-user messages, to and from values. Every parser checks the size; what a value
 * means is the session's affair. Addresses and sizes that no 53-bit number holds are refused: no
 * machine has them.
 */
import {
  MEMORY_REGION_LENGTH,
  VHOST_MEMORY_BASELINE_NREGIONS,
  VHOST_USER_HEADER_LENGTH,
  VHOST_USER_REPLY_MASK,
  VHOST_USER_VERSION,
} from '../abi/vhost-user.ts'
import { ProtocolError } from '../errors.ts'
import type { MemoryRegion } from './device.ts'

export interface VringState {
  readonly index: number
  readonly num: number
}

export interface VringAddress {
  readonly index: number
  readonly flags: number
  readonly descriptorAddress: number
  readonly usedAddress: number
  readonly availAddress: number
  readonly logAddress: number
}

export type RegionRow = Omit<MemoryRegion, 'fd'>

const TABLE_HEADER_LENGTH = 8

function viewOf(payload: Uint8Array, length: number): DataView {
  if (payload.length !== length) {
    throw new ProtocolError(
      'VHOST_USER_PROTOCOL',
      `a payload of ${payload.length} bytes where ${length} belong`,
    )
  }
  return new DataView(payload.buffer, payload.byteOffset, payload.length)
}

function number64(view: DataView, offset: number): number {
  const value = view.getBigUint64(offset, true)
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new ProtocolError('VHOST_USER_PROTOCOL', `0x${value.toString(16)} is beyond any memory`)
  }
  return Number(value)
}

export function parseEmpty(payload: Uint8Array): void {
  viewOf(payload, 0)
}

export function parseU64(payload: Uint8Array): bigint {
  return viewOf(payload, 8).getBigUint64(0, true)
}

export function parseVringState(payload: Uint8Array): VringState {
  const view = viewOf(payload, 8)
  return { index: view.getUint32(0, true), num: view.getUint32(4, true) }
}

export function parseVringAddress(payload: Uint8Array): VringAddress {
  const view = viewOf(payload, 40)
  return {
    index: view.getUint32(0, true),
    flags: view.getUint32(4, true),
    descriptorAddress: number64(view, 8),
    usedAddress: number64(view, 16),
    availAddress: number64(view, 24),
    logAddress: number64(view, 32),
  }
}

function region(view: DataView, offset: number): RegionRow {
  const row = {
    guestAddress: number64(view, offset),
    size: number64(view, offset + 8),
    userAddress: number64(view, offset + 16),
    mmapOffset: number64(view, offset + 24),
  }
  const end = Math.max(row.guestAddress, row.userAddress, row.mmapOffset) + row.size
  if (row.size === 0 || !Number.isSafeInteger(end)) {
    throw new ProtocolError('VHOST_USER_PROTOCOL', `a memory region of ${row.size} bytes`)
  }
  return row
}

/** u32 count, u32 padding, the regions. */
export function parseMemoryTable(payload: Uint8Array): RegionRow[] {
  const count = payload.length >= 4 ? new DataView(payload.buffer).getUint32(0, true) : 0
  if (count > VHOST_MEMORY_BASELINE_NREGIONS) {
    throw new ProtocolError('VHOST_USER_PROTOCOL', `a memory table of ${count} regions`)
  }
  const view = viewOf(payload, TABLE_HEADER_LENGTH + count * MEMORY_REGION_LENGTH)
  return Array.from({ length: count }, (_, at) =>
    region(view, TABLE_HEADER_LENGTH + at * MEMORY_REGION_LENGTH),
  )
}

/** u64 padding, the region. */
export function parseMemoryRegion(payload: Uint8Array): RegionRow {
  return region(viewOf(payload, 8 + MEMORY_REGION_LENGTH), 8)
}

export function parseLog(payload: Uint8Array): { readonly size: number; readonly offset: number } {
  const view = viewOf(payload, 16)
  return { size: number64(view, 0), offset: number64(view, 8) }
}

/** Replies carry the version and the reply flag and nothing else: both front-ends insist on it. */
function reply(request: number, payloadLength: number): DataView {
  const view = new DataView(new ArrayBuffer(VHOST_USER_HEADER_LENGTH + payloadLength))
  view.setUint32(0, request, true)
  view.setUint32(4, VHOST_USER_VERSION | VHOST_USER_REPLY_MASK, true)
  view.setUint32(8, payloadLength, true)
  return view
}

export function replyU64(request: number, value: bigint): Uint8Array {
  const view = reply(request, 8)
  view.setBigUint64(VHOST_USER_HEADER_LENGTH, value, true)
  return new Uint8Array(view.buffer)
}

export function replyVringState(request: number, state: VringState): Uint8Array {
  const view = reply(request, 8)
  view.setUint32(VHOST_USER_HEADER_LENGTH, state.index, true)
  view.setUint32(VHOST_USER_HEADER_LENGTH + 4, state.num, true)
  return new Uint8Array(view.buffer)
}

/**
 * A hash of a frame's flow, for spreading frames over queues: both directions of a flow have the
 * same value, so that one queue (and the CPU behind it) sees a whole conversation, and all fragments
 * of a datagram have the same value, so that they stay in order.
 *
 *     endpoint = mix over (port, address)          hash = mix(endpoint of src + endpoint of dst)
 *
 * Endpoints are addresses and ports of TCP, UDP and SCTP; addresses alone of other IP and of every
 * fragment; MAC addresses of what is no IP. A VLAN tag does not count. The hash has no secret: who
 * picks colliding flows slows down nobody but the queue that they share.
 */
import { FlowKey } from './flow-key.ts'

/** Both MAC addresses. */
const ADDRESSES_LENGTH = 12

/** One per thread; overwritten by every call. */
const key: FlowKey = new FlowKey()

/**
 * The hash of the frame whose L2 header is at `offset`, of which `length` bytes can be read: an
 * int32 (`>>> 0` before a modulo). 0 for less than two MAC addresses. The protocol is not in it,
 * because fragments of an IPv6 datagram may name different ones (RFC 8200 §4.5).
 * @hot
 */
export function flowHash(bytes: Uint8Array, offset: number, length: number): number {
  key.parse(bytes, offset, length)
  const words = key.words
  const count = key.addressWords
  if (count === 0) return linkHash(bytes, offset, length)
  const ports = key.transport === 0 ? 0 : words[count]
  const half = count >> 1
  let source = ports >>> 16
  let destination = ports & 0xffff
  for (let word = 0; word < half; word++) {
    source = mix(source ^ words[word])
    destination = mix(destination ^ words[half + word])
  }
  return mix((source + destination) | 0)
}

/** @hot */
function linkHash(bytes: Uint8Array, offset: number, length: number): number {
  if (length < ADDRESSES_LENGTH || bytes.length - offset < ADDRESSES_LENGTH) return 0
  let destination = 0
  let source = 0
  for (let byte = 0; byte < 6; byte += 2) {
    destination = mix(destination ^ (bytes[offset + byte] << 8) ^ bytes[offset + byte + 1])
    source = mix(source ^ (bytes[offset + 6 + byte] << 8) ^ bytes[offset + 7 + byte])
  }
  return mix((source + destination) | 0)
}

/** Every bit of the int32 changes half of the bits: the finalizer of MurmurHash3. The constant keeps
 *  zeros from staying zero. @hot */
function mix(value: number): number {
  let bits = (value + 0x9e37_79b9) | 0
  bits = Math.imul(bits ^ (bits >>> 16), 0x85eb_ca6b)
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2_ae35)
  return bits ^ (bits >>> 16)
}

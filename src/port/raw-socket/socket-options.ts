/** Options of packet sockets, and what their errors say. packet(7) */
import { EBUSY } from '../../abi/errno.ts'
import {
  PACKET_ADD_MEMBERSHIP,
  PACKET_DROP_MEMBERSHIP,
  PACKET_MR_PROMISC,
  PACKET_MREQ_LENGTH,
  SOL_PACKET,
} from '../../abi/if-packet.ts'
import { strerror } from '../../abi/strerror.ts'
import { SysError } from '../../errors.ts'
import type { Shim } from '../../native/shim.ts'
import type { LinkInfo } from '../interface/link.ts'

export const RING_HINT = 'a socket that is given must have no ring yet'

/** Or not any more. */
export function setPromisc(shim: Shim, fd: number, link: LinkInfo, isWanted: boolean): void {
  const name = isWanted ? PACKET_ADD_MEMBERSHIP : PACKET_DROP_MEMBERSHIP
  const result = shim.setSocketOption(fd, SOL_PACKET, name, promiscRequest(link))
  if (result < 0) throw failed('PACKET_MR_PROMISC', result)
}

/** When it cannot be, as the interface is gone, there is nothing to be dropped. */
export function dropPromisc(shim: Shim, fd: number, link: LinkInfo): void {
  shim.setSocketOption(fd, SOL_PACKET, PACKET_DROP_MEMBERSHIP, promiscRequest(link))
}

/** struct packet_mreq */
function promiscRequest({ ifindex }: LinkInfo): Uint8Array {
  const request = new Uint8Array(PACKET_MREQ_LENGTH)
  const view = new DataView(request.buffer)
  view.setInt32(0, ifindex, true)
  view.setUint16(4, PACKET_MR_PROMISC, true)
  return request
}

export function setOption(shim: Shim, fd: number, text: string, name: number, value: number): void {
  const result = shim.setSocketOption(fd, SOL_PACKET, name, i32(value))
  if (result < 0) throw failed(text, result)
}

export function failed(option: string, result: number): SysError {
  return new SysError('RAW_SOCKET', `setsockopt ${option}: ${strerror(-result)}`, {
    syscall: 'setsockopt',
    errno: -result,
    hint: result === -EBUSY ? RING_HINT : undefined,
  })
}

export function i32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setInt32(0, value, true)
  return bytes
}

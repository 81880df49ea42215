/** Packet sockets that another process has opened: whether they are what a port needs, and their rings. */
import { ETH_P_ALL, SO_TYPE, SOCK_RAW, SOL_SOCKET } from '../../abi/if-packet.ts'
import { strerror } from '../../abi/strerror.ts'
import { Window } from '../../mem/window.ts'
import type { Shim } from '../../native/shim.ts'
import { handOverError } from '../handed.ts'
import type { RingGeometry } from './geometry.ts'
import { ringLength } from './geometry.ts'

/** Throws when it is not a packet socket at that interface. */
export function checkSocket(
  shim: Pick<Shim, 'packetName' | 'getSocketOption'>,
  fd: number,
  ifindex: number,
  id: string,
  where: string,
): void {
  const bound = new Int32Array(3)
  const result = shim.packetName(fd, bound)
  if (result < 0) throw handOverError(id, `${where} is not a packet socket: ${strerror(-result)}`)
  const type = new Uint8Array(4)
  shim.getSocketOption(fd, SOL_SOCKET, SO_TYPE, type)
  if (type[0] !== SOCK_RAW) throw handOverError(id, `${where} is not of SOCK_RAW`)
  if (bound[0] !== ETH_P_ALL) throw handOverError(id, `${where} does not receive all protocols`)
  if (bound[1] !== ifindex) {
    throw handOverError(id, `${where} is bound to interface ${bound[1]}, not to ${ifindex}`)
  }
}

/** The kernel maps a ring of that length, or none. */
export function mapCameRing(fd: number, geometry: RingGeometry, id: string, where: string): Window {
  try {
    return Window.map(ringLength(geometry), { fd })
  } catch (error) {
    const why = (error as Error).message
    throw handOverError(id, `${where} has no ring of ${ringLength(geometry)} bytes: ${why}`)
  }
}

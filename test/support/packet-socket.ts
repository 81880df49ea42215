/** Packet sockets as somebody else would open them, to be given to a switch. packet(7) */
import { closeSync, openSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { ETH_P_ALL, PACKET_RX_RING, SOL_PACKET } from '../../src/abi/if-packet.ts'
import { shim } from '../../src/native/shim.ts'
import { getLink } from '../../src/port/interface/link.ts'
import type { Lab } from './lab.ts'
import { ROOT } from './lab.ts'
import { sh, words } from './processes.ts'

const [AF_PACKET, SOCK_DGRAM] = [17, 2]

export interface PacketSocketOptions {
  readonly protocol?: number
  /** It has a receive ring of its own. */
  readonly hasRing?: boolean
}

/** One of SOCK_RAW in that namespace, bound to the interface if one is named. */
export function packetSocket(
  netns: string,
  ifname: string | undefined,
  { protocol = ETH_P_ALL, hasRing = false }: PacketSocketOptions = {},
): number {
  const netnsFd = openSync(`/run/netns/${netns}`, 'r')
  try {
    const fd = shim.socketPacket(netnsFd)
    if (fd < 0) throw new Error(`socket: errno ${-fd}`)
    if (ifname !== undefined) {
      const { ifindex } = getLink(shim, netnsFd, ifname)!
      const result = shim.bindPacket(fd, protocol, ifindex)
      if (result < 0) throw new Error(`bind: errno ${-result}`)
    }
    if (hasRing) {
      // struct tpacket_req: block size, blocks, frame size, frames.
      const request = new Uint8Array(Uint32Array.of(4096, 1, 2048, 2).buffer)
      const result = shim.setSocketOption(fd, SOL_PACKET, PACKET_RX_RING, request)
      if (result < 0) throw new Error(`PACKET_RX_RING: errno ${-result}`)
    }
    return fd
  } finally {
    closeSync(netnsFd)
  }
}

/** One without Ethernet headers, bound to nothing. */
export function packetSocketWithoutHeaders(lab: Lab): number {
  const tool = join(lab.directory, 'raw.node')
  const headers = join(ROOT, 'node_modules/node-api-headers/include')
  const source = join(ROOT, 'test/support/c/raw-syscall.c')
  const flags = words('-std=c11 -D_GNU_SOURCE -Wall -Werror -fPIC -shared -I')
  sh('cc', ...flags, headers, '-o', tool, source)
  const { syscall } = createRequire(import.meta.url)(tool) as {
    syscall: (...numbers: number[]) => number
  }
  const socket = process.arch === 'arm64' ? 198 : 41
  return syscall(socket, AF_PACKET, SOCK_DGRAM, 0)
}

/**
 * TUNSETOFFLOAD: what the kernel may hand to us. The matrix of what it accepts is measured: CSUM is
 * the gate, ECN needs a TSO, USO4 and USO6 go only together, and a UDP tunnel needs a TSO, its
 * checksum the tunnel.
 *
 * While tunnels are on, every frame is lost that is read with a vnet_hdr of less than 24 bytes (EFAULT
 * on Linux 6.18): whoever shortens the header switches them off first.
 */
import {
  TUN_F_CSUM,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_TSO_ECN,
  TUN_F_UDP_TUNNEL_GSO,
  TUN_F_UDP_TUNNEL_GSO_CSUM,
  TUN_F_UFO,
  TUN_F_USO4,
  TUN_F_USO6,
} from '../../abi/if-tun.ts'
import type { Shim } from '../../native/shim.ts'

const USO = TUN_F_USO4 | TUN_F_USO6
const TSO = TUN_F_TSO4 | TUN_F_TSO6

/** The nearest set of bits to a wish that makes sense for the kernel. */
export function sensibleOffloads(wish: number): number {
  if ((wish & TUN_F_CSUM) === 0) return 0
  let bits = wish
  if ((bits & TSO) === 0) bits &= ~TUN_F_TSO_ECN
  if ((bits & USO) !== USO) bits &= ~USO
  if ((bits & TSO) === 0) bits &= ~TUN_F_UDP_TUNNEL_GSO
  if ((bits & TUN_F_UDP_TUNNEL_GSO) === 0) bits &= ~TUN_F_UDP_TUNNEL_GSO_CSUM
  return bits
}

/**
 * Asks for the wish, then without USO, then also without UFO, as far as the kernel goes. Returns
 * the bits in force; 0 when the device knows no offloads. `failed` is told the last errno.
 */
export function applyOffloads(
  shim: Pick<Shim, 'tunSetOffload'>,
  fd: number,
  wish: number,
  failed: (errno: number) => void,
): number {
  if (shim.tunSetOffload(fd, 0) < 0) return 0
  const bits = sensibleOffloads(wish)
  if (bits === 0) return 0
  let last = 0
  for (const attempt of [bits, bits & ~USO, bits & ~USO & ~TUN_F_UFO]) {
    last = shim.tunSetOffload(fd, attempt)
    if (last >= 0) return attempt
  }
  failed(-last)
  return 0
}

/** What not every kernel has. */
export interface ProbedOffloads {
  readonly hasUfo: boolean
  readonly hasUso: boolean
  /** UDP tunnels, whose checksum included. */
  readonly hasTunnel: boolean
}

export const NO_OFFLOADS: ProbedOffloads = { hasUfo: false, hasUso: false, hasTunnel: false }

/** Finds out by trying; leaves all offloads off. */
export function probeOffloads(shim: Pick<Shim, 'tunSetOffload'>, fd: number): ProbedOffloads {
  const takes = (bits: number): boolean => shim.tunSetOffload(fd, TUN_F_CSUM | bits) >= 0
  const hasUfo = takes(TUN_F_UFO)
  const hasUso = takes(USO)
  const hasTunnel = takes(TUN_F_TSO4 | TUN_F_UDP_TUNNEL_GSO | TUN_F_UDP_TUNNEL_GSO_CSUM)
  shim.tunSetOffload(fd, 0)
  return { hasUfo, hasUso, hasTunnel }
}

/**
 * TUNSETOFFLOAD: what the kernel may hand to us. The matrix of what it accepts is measured: CSUM is
 * the gate, ECN needs a TSO, and USO4 and USO6 go only together.
 */
import {
  TUN_F_CSUM,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_TSO_ECN,
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

/** Which of UFO and USO the kernel knows, by trying; leaves all offloads off. */
export function probeOffloads(
  shim: Pick<Shim, 'tunSetOffload'>,
  fd: number,
): { readonly hasUfo: boolean; readonly hasUso: boolean } {
  const hasUfo = shim.tunSetOffload(fd, TUN_F_CSUM | TUN_F_UFO) >= 0
  const hasUso = shim.tunSetOffload(fd, TUN_F_CSUM | USO) >= 0
  shim.tunSetOffload(fd, 0)
  return { hasUfo, hasUso }
}

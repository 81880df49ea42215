/** TUNSETOFFLOAD: the whole matrix that was measured, and what is asked for. */
import { describe, expect, test } from 'vitest'
import { EINVAL } from '../../../../src/abi/errno.ts'
import {
  applyOffloads,
  probeOffloads,
  sensibleOffloads,
} from '../../../../src/port/tap/offloads.ts'

const CSUM = 0x01
const TSO4 = 0x02
const TSO6 = 0x04
const ECN = 0x08
const UFO = 0x10
const USO4 = 0x20
const USO6 = 0x40
const TUNNEL = 0x80
const TUNNEL_CSUM = 0x100
const FD = 5

/** Linux 6.18's answer, less the bits that an older kernel does not know. */
function kernelTakes(bits: number, unknown = 0): boolean {
  const has = (mask: number): boolean => (bits & mask) !== 0
  if ((bits & ~0x1ff) !== 0 || has(unknown)) return false
  if (bits !== 0 && !has(CSUM)) return false
  if (has(ECN) && !has(TSO4 | TSO6)) return false
  if (has(USO4) !== has(USO6)) return false
  if (has(TUNNEL) && !has(TSO4 | TSO6)) return false
  return !has(TUNNEL_CSUM) || has(TUNNEL)
}

/** A device of a kernel that does not know some bits; remembers what was asked. */
class Device {
  readonly asked: number[] = []
  inForce = -1
  readonly #unknown: number
  readonly #knowsOffloads: boolean

  constructor(unknown = 0, knowsOffloads = true) {
    this.#unknown = unknown
    this.#knowsOffloads = knowsOffloads
  }

  tunSetOffload = (fd: number, bits: number): number => {
    expect(fd).toBe(FD)
    this.asked.push(bits)
    if (!this.#knowsOffloads || !kernelTakes(bits, this.#unknown)) return -EINVAL
    this.inForce = bits
    return 0
  }
}

function apply(device: Device, wish: number): { result: number; failed: number[] } {
  const failed: number[] = []
  const result = applyOffloads(device, FD, wish, (errno) => failed.push(errno))
  return { result, failed }
}

const wishes = Array.from({ length: 512 }, (_, bits) => bits)

test('the measured matrix is what this file takes for the kernel', () => {
  const fine = [0, CSUM, CSUM | TSO4, CSUM | TSO6, CSUM | TSO4 | ECN, CSUM | UFO, 0x61, 0x1ff]
  const bad = [TSO4, UFO, USO4 | USO6, CSUM | ECN, CSUM | USO4, CSUM | USO6, CSUM | TUNNEL, 0x200]
  expect(fine.filter((bits) => !kernelTakes(bits))).toEqual([])
  expect(bad.filter((bits) => kernelTakes(bits))).toEqual([])
  expect(kernelTakes(CSUM | TSO4 | TUNNEL | TUNNEL_CSUM)).toBe(true)
  expect(kernelTakes(CSUM | TSO4 | TUNNEL_CSUM)).toBe(false)
})

describe('sensibleOffloads', () => {
  test.each([
    [0, 0],
    [TSO4 | TSO6 | UFO | USO4 | USO6, 0],
    [CSUM, CSUM],
    [CSUM | TSO4, CSUM | TSO4],
    [CSUM | TSO6, CSUM | TSO6],
    [CSUM | TSO4 | ECN, CSUM | TSO4 | ECN],
    [CSUM | TSO6 | ECN, CSUM | TSO6 | ECN],
    [CSUM | ECN, CSUM],
    [CSUM | UFO | ECN, CSUM | UFO],
    [CSUM | USO4, CSUM],
    [CSUM | USO6, CSUM],
    [CSUM | USO4 | USO6, CSUM | USO4 | USO6],
    [CSUM | TSO4 | USO4, CSUM | TSO4],
    [CSUM | TUNNEL, CSUM],
    [CSUM | TSO6 | TUNNEL, CSUM | TSO6 | TUNNEL],
    [CSUM | USO4 | USO6 | TUNNEL, CSUM | USO4 | USO6],
    [CSUM | TSO4 | TUNNEL_CSUM, CSUM | TSO4],
    [0x1ff, 0x1ff],
  ])('of 0x%s is 0x%s', (wish, expected) => {
    expect(sensibleOffloads(wish)).toBe(expected)
  })

  test('asks for nothing that was not wished, and for nothing that the kernel refuses', () => {
    for (const wish of wishes) {
      const bits = sensibleOffloads(wish)
      expect(bits & ~wish).toBe(0)
      expect(kernelTakes(bits), `wish 0x${wish.toString(16)}`).toBe(true)
    }
  })

  test('gives up no bit without need: one more of the wish would be refused', () => {
    for (const wish of wishes) {
      const bits = sensibleOffloads(wish)
      for (let more = 1; more < 512; more++) {
        const isMoreOfWish = (more & ~wish) === 0 && (more & bits) === bits && more !== bits
        if (isMoreOfWish) expect(kernelTakes(more)).toBe(false)
      }
    }
  })
})

describe('applyOffloads', () => {
  test('on a kernel that knows all, the sensible part of each wish is in force', () => {
    for (const wish of wishes) {
      const device = new Device()
      expect(apply(device, wish)).toEqual({ result: sensibleOffloads(wish), failed: [] })
      expect(device.inForce).toBe(sensibleOffloads(wish))
      expect(device.asked[0]).toBe(0)
    }
  })

  test('without USO in the kernel, the rest is in force', () => {
    const device = new Device(USO4 | USO6)
    expect(apply(device, 0x7f)).toEqual({ result: 0x1f, failed: [] })
    expect(device.asked).toEqual([0, 0x7f, 0x1f])
    expect(device.inForce).toBe(0x1f)
  })

  test('without USO and UFO, the rest is in force', () => {
    const device = new Device(USO4 | USO6 | UFO)
    expect(apply(device, 0x7f)).toEqual({ result: 0x0f, failed: [] })
    expect(device.asked).toEqual([0, 0x7f, 0x1f, 0x0f])
    expect(device.inForce).toBe(0x0f)
  })

  test('when even the least is refused, none is in force and the errno is told once', () => {
    const device = new Device(TSO4 | UFO | USO4)
    expect(apply(device, CSUM | TSO4 | UFO)).toEqual({ result: 0, failed: [EINVAL] })
    expect(device.inForce).toBe(0)
  })

  test('a device that knows no offloads is asked once and nobody is told', () => {
    const device = new Device(0, false)
    expect(apply(device, 0x7f)).toEqual({ result: 0, failed: [] })
    expect(device.asked).toEqual([0])
  })

  test('a wish for nothing switches all off', () => {
    const device = new Device()
    apply(device, 0x7f)
    expect(apply(device, 0)).toEqual({ result: 0, failed: [] })
    expect(device.inForce).toBe(0)
  })
})

describe('probeOffloads', () => {
  test.each([
    [0, true, true, true],
    [USO4 | USO6, true, false, true],
    [UFO, false, true, true],
    [TUNNEL | TUNNEL_CSUM, true, true, false],
    [UFO | USO4 | USO6 | TUNNEL | TUNNEL_CSUM, false, false, false],
  ])('without 0x%s: UFO %s, USO %s, tunnels %s', (unknown, hasUfo, hasUso, hasTunnel) => {
    const device = new Device(unknown)
    expect(probeOffloads(device, FD)).toEqual({ hasUfo, hasUso, hasTunnel })
    expect(device.inForce).toBe(0)
    const tunnels = CSUM | TSO4 | TUNNEL | TUNNEL_CSUM
    expect(device.asked).toEqual([CSUM | UFO, CSUM | USO4 | USO6, tunnels, 0])
  })
})

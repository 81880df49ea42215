/** A guest's memory as its driver and the specification know it: bytes at addresses, nothing else. */

export interface ModelRegion {
  readonly address: number
  readonly bytes: Uint8Array
  readonly view: DataView
}

/** A part of one region. */
export interface Part {
  readonly region: number
  readonly offset: number
  readonly length: number
}

export class GuestModel {
  readonly regions: readonly ModelRegion[]

  constructor(places: readonly (readonly [length: number, address: number])[]) {
    this.regions = places.map(([length, address]) => {
      const bytes = new Uint8Array(length)
      return { address, bytes, view: new DataView(bytes.buffer) }
    })
  }

  clear(): void {
    for (const { bytes } of this.regions) bytes.fill(0)
  }

  #regionOf(address: number): number {
    return this.regions.findIndex(
      (region) => address >= region.address && address < region.address + region.bytes.length,
    )
  }

  /** The parts that `length` bytes lie in, in their order; null: some lie nowhere. */
  parts(address: number, length: number): Part[] | null {
    const parts: Part[] = []
    let [at, left] = [address, length]
    while (left > 0) {
      const number = this.#regionOf(at)
      if (number < 0) return null
      const { address: start, bytes } = this.regions[number]
      const part = Math.min(left, start + bytes.length - at)
      parts.push({ region: number, offset: at - start, length: part })
      at += part
      left -= part
    }
    return parts
  }

  /** Whether `length` bytes lie in one region. */
  isWhole(address: number, length: number): boolean {
    const number = this.#regionOf(address)
    if (number < 0) return false
    const { address: start, bytes } = this.regions[number]
    return address + length <= start + bytes.length
  }

  read16(address: number): number {
    const region = this.regions[this.#regionOf(address)]
    return region.view.getUint16(address - region.address, true)
  }

  read32(address: number): number {
    const region = this.regions[this.#regionOf(address)]
    return region.view.getUint32(address - region.address, true)
  }

  write16(address: number, value: number): void {
    const region = this.regions[this.#regionOf(address)]
    region.view.setUint16(address - region.address, value, true)
  }

  write32(address: number, value: number): void {
    const region = this.regions[this.#regionOf(address)]
    region.view.setUint32(address - region.address, value, true)
  }

  byte(part: Part, at: number): number {
    return this.regions[part.region].bytes[part.offset + at]
  }
}

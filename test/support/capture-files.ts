/** Capture files built byte by byte, with every field of the formats to choose. */

export interface FileFrame {
  readonly bytes: Uint8Array
  readonly original?: number
  /** Units of the interface's timestamps; absent: a simple block, without a time. */
  readonly time?: bigint
  readonly interface?: number
  readonly flags?: number
}

const pad4 = (bytes: Uint8Array): Buffer =>
  Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)])

/** A pcapng file under construction. */
export class PcapngFile {
  readonly #isLittle: boolean
  #bytes: Buffer = Buffer.alloc(0)

  constructor(isLittle = true) {
    this.#isLittle = isLittle
    const body = Buffer.concat([this.u32(0x1a2b3c4d), this.u16(1), this.u16(0)])
    this.block(0x0a0d0d0a, Buffer.concat([body, Buffer.alloc(8, 0xff)]))
  }

  u16(value: number): Buffer {
    const bytes = Buffer.alloc(2)
    if (this.#isLittle) bytes.writeUInt16LE(value)
    else bytes.writeUInt16BE(value)
    return bytes
  }

  u32(value: number): Buffer {
    const bytes = Buffer.alloc(4)
    if (this.#isLittle) bytes.writeUInt32LE(value)
    else bytes.writeUInt32BE(value)
    return bytes
  }

  block(type: number, body: Uint8Array): this {
    const length = this.u32(12 + pad4(body).length)
    this.#bytes = Buffer.concat([this.#bytes, this.u32(type), length, pad4(body), length])
    return this
  }

  options(list: readonly (readonly [number, Uint8Array])[]): Buffer {
    if (list.length === 0) return Buffer.alloc(0)
    const parts = list.flatMap(([code, value]) => [
      this.u16(code),
      this.u16(value.length),
      pad4(value),
    ])
    return Buffer.concat([...parts, Buffer.alloc(4)])
  }

  interface(
    options: readonly (readonly [number, Uint8Array])[] = [],
    snapLength = 0,
    linkType = 1,
  ): this {
    const body = [this.u16(linkType), this.u16(0), this.u32(snapLength), this.options(options)]
    return this.block(1, Buffer.concat(body))
  }

  frame({ bytes, original = bytes.length, time, flags, ...more }: FileFrame): this {
    if (time === undefined) return this.block(3, Buffer.concat([this.u32(original), bytes]))
    const options = flags === undefined ? [] : [[2, this.u32(flags)] as const]
    return this.block(
      6,
      Buffer.concat([
        this.u32(more.interface ?? 0),
        this.u32(Number(time >> 32n)),
        this.u32(Number(time & 0xffff_ffffn)),
        this.u32(bytes.length),
        this.u32(original),
        pad4(bytes),
        this.options(options),
      ]),
    )
  }

  get bytes(): Buffer {
    return this.#bytes
  }
}

/** A pcap file; each frame is of the next second. */
export function pcapFile(
  frames: readonly (readonly [bytes: Uint8Array, original?: number])[],
  {
    magic = 0xa1b2c3d4,
    link = 1,
    isLittle = true,
    extra = 0,
  }: { magic?: number; link?: number; isLittle?: boolean; extra?: number } = {},
): Buffer {
  const words = (...values: number[]): Buffer => {
    const bytes = Buffer.alloc(4 * values.length)
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    values.forEach((value, at) => view.setUint32(4 * at, value, isLittle))
    return bytes
  }
  const version = isLittle ? 0x0004_0002 : 0x0002_0004
  return Buffer.concat([
    words(magic, version, 0, 0, 262144, link),
    ...frames.flatMap(([bytes, original = bytes.length], n) => [
      words(1_700_000_000 + n, 0, bytes.length, original),
      Buffer.alloc(extra),
      bytes,
    ]),
  ])
}

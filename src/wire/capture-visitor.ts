/** What the readers of capture files tell, and how they fail. */
export interface CaptureVisitor {
  /**
   * A frame of `length` captured bytes at `offset` of the file. `interfaceId` counts per section;
   * pcap files have interface 0 only.
   */
  frame(
    offset: number,
    length: number,
    originalLength: number,
    timestampNs: bigint,
    interfaceId: number,
  ): void
  /** The file ends in the middle of the block or record at `offset`; what came before was read. */
  truncated?(offset: number): void
}

/** The file is not what it claims to be; `offset` is where. */
export class CaptureFormatError extends Error {
  readonly offset: number

  constructor(offset: number, reason: string) {
    super(`${reason}, at byte ${offset}`)
    this.offset = offset
  }
}

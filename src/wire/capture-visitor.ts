/** What the readers of capture files tell, and how they fail. */
export interface CaptureVisitor {
  /**
   * A frame of `length` captured bytes at `offset` of the file, without its FCS, where the file says
   * that there is one. `timestampNs` is null when the file has none for it. `interfaceId` counts per
   * section; pcap files have interface 0 only.
   */
  frame(
    offset: number,
    length: number,
    originalLength: number,
    timestampNs: bigint | null,
    interfaceId: number,
  ): void
  /** The file ends in the middle of the block or record at `offset`; what came before was read. */
  truncated?(offset: number): void
  /** The frame at `offset`, told of next, has more captured bytes than it had: those are left out. */
  overlong?(offset: number): void
}

/** The file is not what it claims to be; `offset` is where. */
export class CaptureFormatError extends Error {
  readonly offset: number

  constructor(offset: number, reason: string) {
    super(`${reason}, at byte ${offset}`)
    this.offset = offset
  }
}

/**
 * Tells of a frame whose original had `fcsLength` bytes of FCS at its end: they are no part of it, and
 * captured only as far as nothing cut the frame off before. An original that is shorter than what was
 * captured of it did not count its FCS, or is wrong; what goes beyond it is left out.
 */
export function visitFrame(
  visitor: CaptureVisitor,
  offset: number,
  captured: number,
  original: number,
  fcsLength: number,
  timestampNs: bigint | null,
  interfaceId: number,
): void {
  const isOverlong = captured > original
  if (isOverlong && captured !== original + fcsLength) visitor.overlong?.(offset)
  const length = isOverlong ? original : Math.max(0, original - fcsLength)
  visitor.frame(offset, Math.min(captured, length), length, timestampNs, interfaceId)
}

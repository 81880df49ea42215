/**
 * What the virtio ports of one engine share: memory for headers and tables that is in use only within
 * one call, or until the copy program has run. Each port would else have windows of its own.
 */
import type { CopyProgram } from '../../mem/copy-program.ts'
import { FlowSteering } from '../../virtio/net/flow-steering.ts'
import { FrameSink } from '../../virtio/net/frame-sink.ts'
import { FrameSource } from '../../virtio/net/frame-source.ts'

/** Queue pairs of one device. */
export const QUEUE_PAIRS_MAX = 128

export class VirtioScratch {
  readonly source: FrameSource = new FrameSource()
  readonly sink: FrameSink
  readonly steering: FlowSteering = new FlowSteering(QUEUE_PAIRS_MAX)

  constructor(copies: CopyProgram) {
    this.sink = new FrameSink(copies)
  }

  close(): void {
    this.source.close()
    this.sink.close()
  }
}

/** A port that records what it is given, as the control plane keeps it. */
import { CaptureSession } from '../../capture/capture.ts'
import { OFFLOADS_ALL } from '../../wire/vnet-hdr.ts'
import type { ControlPort, ControlPortContext, PortFacts } from '../control-port.ts'
import { DevicelessPort } from '../deviceless.control.ts'
import type { PcapOptions } from '../options.ts'
import type { RecordDescription } from './messages.ts'

export class RecordControlPort extends DevicelessPort implements ControlPort {
  readonly txOffloads: number = OFFLOADS_ALL
  readonly description: RecordDescription
  readonly #path: string
  readonly #capture: CaptureSession
  #letGo: () => void = () => undefined

  constructor(options: PcapOptions, context: ControlPortContext) {
    super()
    this.#path = options.record!
    // The engine's recorder is the port itself: it is detached when the port is removed, and not
    // before, also when the disk is full.
    const removed = new Promise<void>((resolve) => (this.#letGo = resolve))
    const captured = { to: { path: this.#path }, direction: 'out' } as const
    const detach = (error?: string): Promise<void> => {
      if (error !== undefined) context.failed(error)
      return removed
    }
    this.#capture = new CaptureSession(0, captured, detach, `port "${options.id}"`)
    const { block } = this.#capture.describe(options.id, 'record')
    this.description = { kind: 'record', ring: this.#capture.ring, block }
  }

  facts(): PortFacts {
    return { path: this.#path }
  }

  /** From now on the file is this port's: what it held before is gone. */
  start(): void {
    this.#capture.begin()
  }

  async close(): Promise<void> {
    this.#letGo()
    await this.#capture.end()
  }
}

/** A port that records what it is given, as the control plane keeps it. */
import type { CameCapture } from '../../capture/capture.ts'
import { CaptureSession } from '../../capture/capture.ts'
import { OFFLOADS_ALL } from '../../wire/vnet-hdr.ts'
import type { ControlPort, ControlPortContext, PortFacts } from '../control-port.ts'
import { DevicelessPort } from '../deviceless.control.ts'
import type { PcapOptions } from '../options.ts'
import type { HandedState } from '../handed.ts'
import { handOverError } from '../handed.ts'
import { handOverRecord } from './hand-over.ts'
import type { RecordDescription } from './messages.ts'

/** What is recorded already may take so long to be written before the port is handed over. */
const WRITE_MS = 200

export class RecordControlPort extends DevicelessPort implements ControlPort {
  readonly txOffloads: number = OFFLOADS_ALL
  readonly description: RecordDescription
  readonly #path: string
  readonly #capture: CaptureSession
  readonly #id: string
  #letGo: () => void = () => undefined
  #failure: string | undefined

  /** `came`: another process has begun the file. */
  constructor(options: PcapOptions, context: ControlPortContext, came?: CameCapture) {
    super()
    this.#id = options.id
    this.#path = options.record!
    // The engine's recorder is the port itself: it is detached when the port is removed, and not
    // before, also when the disk is full.
    const removed = new Promise<void>((resolve) => (this.#letGo = resolve))
    const captured = { to: { path: this.#path }, direction: 'out' } as const
    const detach = (error?: string): Promise<void> => {
      if (error !== undefined) context.failed(error)
      this.#failure = error
      return removed
    }
    const user = `port "${options.id}"`
    this.#capture =
      came === undefined
        ? new CaptureSession(0, captured, detach, user)
        : CaptureSession.of(came, 0, detach, user)
    const block = came === undefined ? this.#capture.describe(options.id, 'record').block : null
    this.description = { kind: 'record', ring: this.#capture.ring, block }
  }

  facts(): PortFacts {
    return { path: this.#path }
  }

  /** From now on the file is this port's: what it held before is gone. */
  start(): void {
    this.#capture.begin()
  }

  whyNotOpenedAgain(): string {
    return 'what it has recorded would be gone'
  }

  whyNotHandedOver(): string | undefined {
    return this.#failure
  }

  async handOver(): Promise<HandedState> {
    const handed = await this.#capture.handOver(WRITE_MS)
    if (handed !== null) return handOverRecord(handed)
    throw handOverError(this.#id, `${this.#path} cannot be written as fast as it has to be`)
  }

  async handedOver(): Promise<void> {
    this.#letGo()
    await this.#capture.leave()
  }

  async close(): Promise<void> {
    this.#letGo()
    await this.#capture.end()
  }
}

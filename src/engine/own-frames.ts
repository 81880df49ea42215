/** Frames of our own that wait for the end of a pause, or for their port; the oldest goes when there are too many. */

const OWN_MAX = 256

export interface OwnFrame {
  readonly port: number
  readonly frame: Uint8Array
}

export class OwnFrames {
  #frames: OwnFrame[] = []

  get all(): readonly OwnFrame[] {
    return this.#frames
  }

  add(port: number, frame: Uint8Array): void {
    this.#frames.push({ port, frame })
    if (this.#frames.length > OWN_MAX) this.#frames.shift()
  }

  /** The port is gone. */
  forget(port: number): void {
    this.#frames = this.#frames.filter((own) => own.port !== port)
  }

  /** None waits any more. */
  takeAll(): OwnFrame[] {
    return this.#frames.splice(0)
  }
}

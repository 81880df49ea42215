/** Frames over a stream socket of another program, each behind its length in big-endian bytes. */
import type { Socket } from 'node:net'
import { connect } from 'node:net'

export class FrameSocket {
  /** What came, until somebody takes it. */
  readonly frames: Uint8Array[] = []
  readonly #socket: Socket
  readonly #lengthBytes: number
  #rest: Buffer = Buffer.alloc(0)

  private constructor(socket: Socket, lengthBytes: number) {
    this.#socket = socket
    this.#lengthBytes = lengthBytes
    socket.on('data', (bytes) => this.#take(bytes))
  }

  static connect(path: string, lengthBytes: number): Promise<FrameSocket> {
    return new Promise((resolve, reject) => {
      const socket = connect(path, () => resolve(new FrameSocket(socket, lengthBytes)))
      socket.on('error', reject)
    })
  }

  #take(bytes: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, bytes])
    const start = this.#lengthBytes
    for (;;) {
      if (this.#rest.length < start) return
      const end = start + this.#rest.readUIntBE(0, start)
      if (this.#rest.length < end) return
      this.frames.push(Uint8Array.from(this.#rest.subarray(start, end)))
      this.#rest = this.#rest.subarray(end)
    }
  }

  send(frame: Uint8Array): void {
    const length = Buffer.alloc(this.#lengthBytes)
    length.writeUIntBE(frame.length, 0, this.#lengthBytes)
    this.#socket.write(Buffer.concat([length, frame]))
  }

  close(): void {
    this.#socket.destroy()
  }
}

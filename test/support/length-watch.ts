/**
 * The longest frame of a port, by a capture. What all frames have on average says little of it: that depends on how
 * many acknowledgements there are, and a busy machine makes more.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { readPcapng } from '../../src/wire/pcapng.ts'
import type { Daemon, Lab } from './lab.ts'

/** Its frames are not looked at. */
const SNAPLEN = 64

let count = 0

export class LengthWatch {
  readonly #daemon: Daemon
  readonly #path: string
  readonly #id: number

  private constructor(daemon: Daemon, path: string, id: number) {
    this.#daemon = daemon
    this.#path = path
    this.#id = id
  }

  /** `out`: as frames are before they are cut for the port. */
  static async start(
    lab: Lab,
    daemon: Daemon,
    port: string,
    direction: 'in' | 'out',
  ): Promise<LengthWatch> {
    const path = join(lab.directory, `lengths-${count++}.pcapng`)
    const capture = { path, ports: [port], direction, snaplen: SNAPLEN }
    const { id } = await daemon.execute<{ id: number }>('capture-start', capture)
    return new LengthWatch(daemon, path, id)
  }

  /** Ends it; L2 bytes. */
  async longest(): Promise<number> {
    await this.#daemon.execute('capture-stop', { id: this.#id })
    let longest = 0
    readPcapng(new Uint8Array(readFileSync(this.#path)), {
      frame: (_offset, _length, original) => {
        longest = Math.max(longest, original)
      },
    })
    return longest
  }
}

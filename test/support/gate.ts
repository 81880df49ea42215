/**
 * A TAP that takes as long to open as the test wants: its script waits. What is listed before it is
 * there meanwhile, what is listed after it is not.
 */
import { chmodSync, existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { until } from './processes.ts'

export class Gate {
  /** For `script=`. */
  readonly script: string
  readonly #reached: string
  readonly #open: string

  constructor(directory: string, name = 'gate') {
    this.script = join(directory, name)
    this.#reached = `${this.script}.reached`
    this.#open = `${this.script}.open`
    const wait = `touch ${this.#reached}\nwhile [ ! -e ${this.#open} ]; do sleep 0.02; done`
    writeFileSync(this.script, `#!/bin/sh\n${wait}\n`)
    chmodSync(this.script, 0o755)
  }

  reached(): Promise<void> {
    return until('the script runs', () => existsSync(this.#reached))
  }

  open(): void {
    writeFileSync(this.#open, '')
  }
}

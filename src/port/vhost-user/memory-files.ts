/**
 * The files of a guest's memory, open as long as regions of them are mapped: a process that goes on with the
 * port maps them again. A front-end sends a descriptor for each region, which are mostly of one file: one of
 * each file is kept.
 */
import { fstatSync } from 'node:fs'
import { shim } from '../../native/shim.ts'
import { KEPT_FILES_MAX } from '../descriptor-budget.ts'

interface KeptFile {
  readonly key: string
  readonly fd: number
  uses: number
}

export class MemoryFiles {
  readonly #byKey = new Map<string, KeptFile>()
  readonly #byFd = new Map<number, KeptFile>()

  /** The descriptor is its own from now on; returns one of that file, -1: there are too many files. */
  keep(fd: number): number {
    const { dev, ino } = fstatSync(fd)
    const key = `${dev}:${ino}`
    const known = this.#byKey.get(key)
    if (known !== undefined) {
      known.uses++
      if (known.fd !== fd) shim.close(fd)
      return known.fd
    }
    if (this.#byKey.size >= KEPT_FILES_MAX) {
      shim.close(fd)
      return -1
    }
    const file = { key, fd, uses: 1 }
    this.#byKey.set(key, file)
    this.#byFd.set(fd, file)
    return fd
  }

  /** One of those who have it does not need it any more. */
  giveBack(fd: number): void {
    const file = this.#byFd.get(fd)
    if (file === undefined || --file.uses > 0) return
    this.#byFd.delete(fd)
    this.#byKey.delete(file.key)
    shim.close(fd)
  }
}

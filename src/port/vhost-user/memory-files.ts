/**
 * The files of a guest's memory, open as long as regions of them are mapped: a process that goes on with the
 * port maps them again. A front-end sends a descriptor for each region, which are mostly of one file: one of
 * each file is kept. They are beyond what is set aside for the port: where there is no room, it does without.
 */
import { fstatSync } from 'node:fs'
import { shim } from '../../native/shim.ts'
import { MEMORY_SLOTS_MAX } from '../../vhost-user/device.ts'

/** One for each region, and that of a dirty log: a guest of memory devices (virtio-mem, DIMMs) has many. */
export const KEPT_FILES_MAX: number = MEMORY_SLOTS_MAX + 1

interface KeptFile {
  readonly key: string
  readonly fd: number
  uses: number
}

/** What the port may have beyond its share. */
export interface FileRoom {
  /** One more; false: there is no room. */
  take(): boolean
  giveBack(): void
}

export class MemoryFiles {
  readonly #room: FileRoom
  readonly #byKey = new Map<string, KeptFile>()
  readonly #byFd = new Map<number, KeptFile>()

  constructor(room: FileRoom) {
    this.#room = room
  }

  /** The descriptor is its own from now on; returns one of that file, -1: there is no room for it. */
  keep(fd: number): number {
    const { dev, ino } = fstatSync(fd)
    const key = `${dev}:${ino}`
    const known = this.#byKey.get(key)
    if (known !== undefined) {
      known.uses++
      if (known.fd !== fd) shim.close(fd)
      return known.fd
    }
    if (this.#byKey.size >= KEPT_FILES_MAX || !this.#room.take()) {
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
    this.#room.giveBack()
  }
}

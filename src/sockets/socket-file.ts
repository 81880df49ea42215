/**
 * The file of a listening socket: it goes with the socket, and with the process however that ends
 * (but for SIGKILL), if it is still ours. So do directories that were made for it and are empty.
 */
import { lstatSync, mkdirSync, renameSync, rmdirSync, unlinkSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { atExit } from '../native/worker-exit.ts'

export class SocketFile {
  #path: string
  readonly #inode: number
  /** The outermost directory that was made for it. */
  readonly #made: string | undefined
  readonly #forget: () => void

  /** Of a socket that has just been bound to the path. */
  constructor(path: string, made?: string) {
    this.#path = path
    this.#inode = lstatSync(path).ino
    this.#made = made
    this.#forget = atExit(() => this.remove())
  }

  get path(): string {
    return this.#path
  }

  /** Throws what rename(2) refuses. */
  moveTo(path: string): void {
    renameSync(this.#path, path)
    this.#path = path
  }

  remove(): void {
    this.#forget()
    try {
      if (lstatSync(this.#path).ino === this.#inode) unlinkSync(this.#path)
    } catch {
      // Somebody removed it before.
    }
    removeDirectories(dirname(this.#path), this.#made)
  }
}

/** Makes a socket's directory; returns the outermost one that was not there before. */
export function makeDirectory(path: string): string | undefined {
  return mkdirSync(path, { recursive: true, mode: 0o700 })
}

/** Removes `path` and its parents up to `made`, as long as they are empty. */
export function removeDirectories(path: string, made: string | undefined): void {
  if (made === undefined) return
  try {
    const outermost = resolve(made)
    for (let at = resolve(path); at.startsWith(outermost); at = dirname(at)) rmdirSync(at)
  } catch {
    // Somebody else uses it.
  }
}

/**
 * The file of a listening socket, by which it is known whose of ours it is. It goes with the socket, and with the process however that ends
 * (but for SIGKILL), if it is still ours. So do directories that were made for it and are empty.
 */
import type { Stats } from 'node:fs'
import { existsSync, lstatSync, mkdirSync, renameSync, rmdirSync, unlinkSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { atExit } from '../native/worker-exit.ts'
import { inDirectoryOf } from './directory-lock.ts'

/** Of a file: on which device, and which one there. */
export const numberOf = ({ dev, ino }: Pick<Stats, 'dev' | 'ino'>): string =>
  `${dev.toString(16)}-${ino}`

const files = new Set<SocketFile>()

/** Whose the socket is that has this name, when it is one of this process. */
export function ownerOf(path: string): string | undefined {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined) return undefined
  return [...files].find(({ inode, device }) => inode === found.ino && device === found.dev)?.owner
}

export class SocketFile {
  /** Whom it belongs to, as people say: `port "vm1"`. */
  readonly owner: string
  readonly inode: number
  readonly device: number
  #path: string
  /** The outermost directory that was made for it. */
  readonly #made: string | undefined
  /** What takes back that it goes with the process; undefined: it does not. */
  #forget: (() => void) | undefined

  /** Of a socket that is bound to the path. Nothing is removed before `own`. */
  constructor(path: string, owner: string, made?: string) {
    this.#path = path
    this.owner = owner
    const { ino, dev } = lstatSync(path)
    this.inode = ino
    this.device = dev
    files.add(this)
    this.#made = made
  }

  /** Its number, which no other file has as long as the socket is there. */
  get number(): string {
    return numberOf({ dev: this.device, ino: this.inode })
  }

  get path(): string {
    return this.#path
  }

  /** The outermost directory that goes with it. */
  get made(): string | undefined {
    return this.#made
  }

  /** It goes with this process, and nobody else's. */
  own(): void {
    this.#forget ??= atExit(() => this.remove())
  }

  /** It may be another process's: a file too many can be replaced, one that is gone nobody makes again. */
  disown(): void {
    this.#forget?.()
    this.#forget = undefined
  }

  /** It is another process's. */
  letGo(): void {
    this.disown()
    files.delete(this)
  }

  /** Throws what rename(2) refuses. */
  moveTo(path: string): void {
    inDirectoryOf(path, () => renameSync(this.#path, path))
    this.#path = path
  }

  /** As long as the socket is open, or its number could be another file's. */
  remove(): void {
    const isOurs = this.#forget !== undefined
    this.letGo()
    if (!isOurs) return
    try {
      inDirectoryOf(this.#path, () => {
        const { ino, dev } = lstatSync(this.#path)
        if (ino === this.inode && dev === this.device) unlinkSync(this.#path)
      })
    } catch {
      // Somebody removed it before.
    }
    removeDirectories(dirname(this.#path), this.#made)
  }
}

/**
 * Makes a directory, and those around it; returns the outermost one that was not there before. Throws
 * what mkdir(2) refuses, and has made nothing then. Node's own `recursive` tries for ever where a file
 * system (/proc) says that what is to be made does not exist.
 */
export function makeDirectory(path: string): string | undefined {
  const missing: string[] = []
  for (let at = resolve(path); !existsSync(at); at = dirname(at)) missing.unshift(at)
  for (const [at, directory] of missing.entries()) {
    try {
      mkdirSync(directory, { mode: 0o700 })
    } catch (error) {
      if (at > 0) removeDirectories(missing[at - 1], missing[0])
      throw error
    }
  }
  return missing[0]
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

/** A listening socket with its file: both are there, or neither is. */
import { dirname } from 'node:path'
import type { FdClaim } from '../native/owned-fds.ts'
import { claimFd } from '../native/owned-fds.ts'
import { shim } from '../native/shim.ts'
import type { ListenErrors } from './listen.ts'
import { listenOn, makeDirectoryOf } from './listen.ts'
import type { SocketKeeper } from './kept.ts'
import { takeKept } from './kept.ts'
import { removeDirectories, SocketFile } from './socket-file.ts'

/** Of another process. */
export interface CameSocket {
  readonly fd: number
  /** The outermost directory that was made for it. */
  readonly made: string | undefined
}

/** From where it may come, and whither it may go. */
export interface SocketPassing {
  /** Another process has opened it, and made that directory. */
  readonly came?: CameSocket | undefined
  readonly keeper?: SocketKeeper | undefined
}

export class ListeningSocket {
  readonly fd: number
  readonly file: SocketFile
  readonly #claim: FdClaim
  readonly #keeper: SocketKeeper | undefined
  #isKept = false

  /**
   * For `owner`, as people say. Its directory is made if it is missing, and goes with the file. Throws
   * what `errors` has, and what lstat(2) says. One that came is this socket's with success, and the other
   * process's as well, until it is owned.
   */
  constructor(
    path: string,
    backlog: number,
    owner: string,
    errors: ListenErrors,
    { came, keeper }: SocketPassing = {},
  ) {
    const made = came === undefined ? makeDirectoryOf(path, errors) : came.made
    let fd = -1
    try {
      fd = came?.fd ?? takeKept(path, backlog, keeper) ?? listenOn(path, backlog, errors)
      this.file = new SocketFile(path, owner, made)
    } catch (error) {
      if (came === undefined) {
        if (fd >= 0) shim.close(fd)
        removeDirectories(dirname(path), made)
      }
      throw error
    }
    this.fd = fd
    this.#claim = claimFd(this.fd, `clients come by it to ${path}`)
    this.#keeper = keeper
    if (came === undefined) this.own()
  }

  /** Its file goes with this process, or stays for the next one, should this one be killed. */
  own(): void {
    this.file.own()
    if (this.#isKept) return
    this.#isKept = true
    this.#keeper?.keep(this.file.number, this.fd)
  }

  /** Should this process be killed, the socket goes with it. */
  keepNoMore(): void {
    if (this.#isKept) this.#keeper?.forget(this.file.number)
    this.#isKept = false
  }

  /** Another process has it, with its file. */
  letGo(): void {
    this.#keeper?.leave(this.file.number)
    shim.close(this.fd)
    this.#claim.end()
    this.file.letGo()
  }

  /**
   * Removes the file, if it is still ours. Nobody touches the socket any more. The file goes first: one that
   * nobody answers on is anybody's to replace.
   */
  close(): void {
    this.file.remove()
    this.keepNoMore()
    shim.close(this.fd)
    this.#claim.end()
  }
}

/** A listening socket with its file: both are there, or neither is. */
import { dirname } from 'node:path'
import type { FdClaim } from '../native/owned-fds.ts'
import { claimFd } from '../native/owned-fds.ts'
import { shim } from '../native/shim.ts'
import type { ListenErrors } from './listen.ts'
import { listenOn, makeDirectoryOf } from './listen.ts'
import { removeDirectories, SocketFile } from './socket-file.ts'

/** Of another process. */
export interface CameSocket {
  readonly fd: number
  /** The outermost directory that was made for it. */
  readonly made: string | undefined
}

export class ListeningSocket {
  readonly fd: number
  readonly file: SocketFile
  readonly #claim: FdClaim

  /**
   * For `owner`, as people say. Its directory is made if it is missing, and goes with the file. Throws
   * what `errors` has, and what lstat(2) says. `came`: another process has opened it so, and made that
   * directory; the descriptor is the socket's with success, and the file that one's until it is owned.
   */
  constructor(
    path: string,
    backlog: number,
    owner: string,
    errors: ListenErrors,
    came?: CameSocket,
  ) {
    const made = came === undefined ? makeDirectoryOf(path, errors) : came.made
    let fd = -1
    try {
      fd = came?.fd ?? listenOn(path, backlog, errors)
      this.file = new SocketFile(path, owner, made)
      if (came === undefined) this.file.own()
    } catch (error) {
      if (came === undefined) {
        if (fd >= 0) shim.close(fd)
        removeDirectories(dirname(path), made)
      }
      throw error
    }
    this.fd = fd
    this.#claim = claimFd(this.fd, `clients come by it to ${path}`)
  }

  /** Another process has it, with its file. */
  letGo(): void {
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
    shim.close(this.fd)
    this.#claim.end()
  }
}

/** A listening socket with its file: both are there, or neither is. */
import type { FdClaim } from '../native/owned-fds.ts'
import { claimFd } from '../native/owned-fds.ts'
import { shim } from '../native/shim.ts'
import type { ListenErrors } from './listen.ts'
import { listenOn } from './listen.ts'
import { SocketFile } from './socket-file.ts'

export class ListeningSocket {
  readonly fd: number
  readonly file: SocketFile
  readonly #claim: FdClaim

  /** `made`: the outermost directory that was made for it. Throws what `errors` has, and what lstat(2) says. */
  constructor(path: string, backlog: number, errors: ListenErrors, made?: string) {
    this.fd = listenOn(path, backlog, errors)
    try {
      this.file = new SocketFile(path, made)
    } catch (error) {
      shim.close(this.fd)
      throw error
    }
    this.#claim = claimFd(this.fd, `clients come by it to ${path}`)
  }

  /** Removes the file, if it is still ours. Nobody touches the socket any more. */
  close(): void {
    shim.close(this.fd)
    this.#claim.end()
    this.file.remove()
  }
}

/** `--wait-fd N`: whoever started the daemon reads a line from a descriptor when it is ready. */
import { closeSync, fstatSync, readdirSync, writeSync } from 'node:fs'
import { POLLOUT } from '../abi/epoll.ts'
import { ConfigError } from '../errors.ts'
import type { FdClaim } from '../native/owned-fds.ts'
import { claimFd } from '../native/owned-fds.ts'
import { shim } from '../native/shim.ts'

const LINE = 'ready\n'
const O_ACCMODE = 3
const O_RDONLY = 0
const FIRST_BEYOND_STANDARD = 3

export class WaitFd {
  readonly #fd: number
  readonly #claim: FdClaim

  private constructor(fd: number) {
    this.#fd = fd
    this.#claim = claimFd(fd, '--wait-fd tells by it that the daemon is ready')
  }

  /** Throws ConfigError BAD_ARGUMENT. A process that ends before it is ready closes the descriptor as well. */
  static take(fd: number): WaitFd {
    const wrong = whyUnusable(fd)
    if (wrong === undefined) return new WaitFd(fd)
    throw new ConfigError('BAD_ARGUMENT', `--wait-fd ${fd}: ${wrong}`, {
      hint: 'give one that is open for writing, as 3 in: framepump run --wait-fd 3 3>FILE',
    })
  }

  ready(): void {
    try {
      // A pipe that is full has a reader who sees its end.
      if ((shim.poll(this.#fd, POLLOUT, 0) & POLLOUT) !== 0) writeSync(this.#fd, LINE)
    } catch {
      // Nobody waits any more.
    }
    this.#claim.end()
    closeSync(this.#fd)
  }
}

function whyUnusable(fd: number): string | undefined {
  if (fd < FIRST_BEYOND_STANDARD) return 'standard input, output and error are not closed'
  const flags = shim.getStatusFlags(fd)
  if (flags < 0) return 'there is no such descriptor'
  if ((flags & O_ACCMODE) === O_RDONLY) return 'it is open for reading only'
  const found = fstatSync(fd, { bigint: true })
  // Event descriptors and the like have no type; of Node's own pipes both ends are here.
  const isFile = found.isFile() || found.isFIFO() || found.isSocket() || found.isCharacterDevice()
  return isFile && !hasReadEndHere(fd, found.dev, found.ino) ? undefined : "it is the process's own"
}

/** Somebody in this process reads what is written there. */
function hasReadEndHere(fd: number, device: bigint, inode: bigint): boolean {
  return readdirSync('/proc/self/fd').some((name) => {
    const other = Number(name)
    const flags = other === fd ? -1 : shim.getStatusFlags(other)
    if (flags < 0 || (flags & O_ACCMODE) !== O_RDONLY) return false
    const found = fstatSync(other, { bigint: true })
    return found.isFIFO() && found.dev === device && found.ino === inode
  })
}

/**
 * Whose the descriptors of this process are, as far as somebody could be told to use one by its number:
 * one that another part uses and closes would be taken from under it. Of the main thread only; its
 * other descriptors, and those of other threads, are none that a port or a capture can use.
 */
import { ConfigError } from '../errors.ts'

const claims = new Map<number, FdClaim>()

export class FdClaim {
  readonly fd: number
  readonly owner: string
  /** Whoever is told its name may use it. */
  readonly isOffered: boolean
  readonly #before: FdClaim | undefined
  #isOver = false

  constructor(fd: number, owner: string, isOffered: boolean) {
    this.fd = fd
    this.owner = owner
    this.isOffered = isOffered
    this.#before = claims.get(fd)
    claims.set(fd, this)
  }

  /** It is closed, or somebody else's: its number can be anybody's. A second call does nothing. */
  end(): void {
    this.#isOver = true
    if (claims.get(this.fd) === this) claims.delete(this.fd)
  }

  /** Instead of `end`: whoever offered it has it again. */
  giveBack(): void {
    const isCurrent = claims.get(this.fd) === this
    this.end()
    const before = this.#before
    if (isCurrent && before !== undefined && !before.#isOver) claims.set(this.fd, before)
  }
}

/** Notes that a descriptor is the owner's, until `end`. */
export function claimFd(fd: number, owner: string, isOffered = false): FdClaim {
  return new FdClaim(fd, owner, isOffered)
}

/** It is somebody's. */
export const isFdClaimed = (fd: number): boolean => claims.has(fd)

/** Throws when the descriptor is somebody's who has not offered it. `isNamed`: it was asked for by name. */
export function checkFdFree(fd: number, isNamed: boolean): void {
  const claim = claims.get(fd)
  if (claim === undefined || (isNamed && claim.isOffered)) return
  throw new ConfigError('BAD_OPTION', `file descriptor ${fd} is in use: ${claim.owner}`, {
    hint: 'give each port and capture a descriptor of its own',
  })
}

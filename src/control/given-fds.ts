/** Descriptors that one client of the control socket has handed over by name (getfd). */
import { StateError } from '../errors.ts'
import type { FdClaim } from '../native/owned-fds.ts'
import { claimFd } from '../native/owned-fds.ts'
import { shim } from '../native/shim.ts'

/** Of a client: as many as the queues of a TAP. */
export const GIVEN_FDS_MAX = 256
/** Of all clients. */
export const GIVEN_FDS_TOTAL_MAX = 1024
/** Characters of a name. */
export const FDNAME_LENGTH_MAX = 255

let total = 0

export class GivenFds {
  readonly #claims = new Map<string, FdClaim>()

  get byName(): ReadonlyMap<string, number> {
    return new Map([...this.#claims].map(([name, { fd }]) => [name, fd]))
  }

  /** Throws when there are too many, or the name cannot be one; then the descriptor stays the caller's. */
  add(name: string, fd: number): void {
    if (/^\d/.test(name)) {
      throw argument(`Parameter 'fdname' expects a name not starting with a digit`)
    }
    if (name.length > FDNAME_LENGTH_MAX) {
      throw argument(`Parameter 'fdname' expects at most ${FDNAME_LENGTH_MAX} characters`)
    }
    const tooMany =
      this.#claims.size >= GIVEN_FDS_MAX
        ? `a client keeps at most ${GIVEN_FDS_MAX} descriptors`
        : total >= GIVEN_FDS_TOTAL_MAX
          ? `all clients together keep at most ${GIVEN_FDS_TOTAL_MAX} descriptors`
          : undefined
    if (tooMany !== undefined) {
      throw new StateError('OUT_OF_RESOURCES', tooMany, { hint: 'closefd those not needed' })
    }
    this.#claims.set(name, claimFd(fd, `a client has it as "${name}"`, true))
    total++
  }

  /** It is the caller's from now on; undefined: there is none of that name. */
  take(name: string): number | undefined {
    const claim = this.#claims.get(name)
    if (claim === undefined) return undefined
    this.#claims.delete(name)
    total--
    claim.end()
    return claim.fd
  }

  close(): void {
    for (const claim of this.#claims.values()) {
      claim.end()
      shim.close(claim.fd)
    }
    total -= this.#claims.size
    this.#claims.clear()
  }
}

const argument = (text: string): StateError => new StateError('QMP_ARGUMENT', text)

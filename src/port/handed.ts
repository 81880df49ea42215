/**
 * What of a port crosses to another process that goes on with it: plain JSON and descriptors. Each kind
 * writes and reads a state of its own, with a version of its own.
 */
import { StateError } from '../errors.ts'
import type { PortOptions } from './options.ts'

export type JsonValue =
  null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue }

/** Of one port, of which the engine neither reads nor writes any more. */
export interface HandedState {
  /** Of what `state` and `position` look like, by kind; from 1 on. */
  readonly version: number
  /** What does not change as frames pass. */
  readonly state: JsonValue
  /** What does: how far it has come. Absent: there is no such thing. */
  readonly position?: JsonValue
  /** In an order that the kind knows. They stay those of whoever hands over. */
  readonly fds: readonly number[]
}

/** Descriptors that are handed over, as the state names them: by their place, -1 is none. */
export class HandedFds {
  readonly fds: number[] = []

  add(fd: number): number {
    if (fd < 0) return -1
    const at = this.fds.indexOf(fd)
    return at >= 0 ? at : this.fds.push(fd) - 1
  }
}

/** Those that came, and which of them the state has named. */
export class CameFds {
  readonly #id: string
  readonly #fds: readonly number[]
  readonly #named = new Set<number>()

  constructor(id: string, fds: readonly number[]) {
    this.#id = id
    this.#fds = fds
  }

  /** -1: none. Throws when there is none of that number. */
  at(place: number): number {
    if (place === -1) return -1
    if (!(place >= 0 && place < this.#fds.length)) {
      throw handOverError(this.#id, `descriptor ${place} of ${this.#fds.length} is not there`)
    }
    this.#named.add(place)
    return this.#fds[place]
  }

  /** Nobody has named them. */
  get unclaimed(): readonly number[] {
    return this.#fds.filter((_, place) => !this.#named.has(place))
  }
}

/** Why a port is not handed over, or cannot be gone on with. */
export function handOverError(id: string, why: string, hint?: string): StateError {
  const error = new StateError('HAND_OVER', `port "${id}": ${why}`, { hint })
  error.port = id
  return error
}

/**
 * Reads the state of one port: what is absent or of another type is told by its name. Whoever wrote it is
 * another process, perhaps of another version.
 */
export class HandedReader {
  readonly #id: string
  readonly #fields: Readonly<Record<string, JsonValue>>

  constructor(id: string, fields: JsonValue | undefined) {
    if (typeof fields !== 'object' || fields === null || Array.isArray(fields)) {
      throw handOverError(id, 'its state is not an object')
    }
    this.#id = id
    this.#fields = fields as Readonly<Record<string, JsonValue>>
  }

  /** Of a port whose kind reads that version. Throws StateError, naming both, when it is another one. */
  static of(
    { id, type }: Pick<PortOptions, 'id' | 'type'>,
    { version, state }: HandedState,
    known: number,
  ): HandedReader {
    if (version === known) return new HandedReader(id, state)
    throw handOverError(
      id,
      `its state has version ${version}, and a ${type} port of this release reads ${known}`,
    )
  }

  number(key: string): number {
    return this.#typed(key, Number.isSafeInteger, 'whole number') as number
  }

  /** Any number. */
  real(key: string): number {
    return this.#typed(key, Number.isFinite, 'number') as number
  }

  boolean(key: string): boolean {
    return this.#typed(key, (value) => typeof value === 'boolean', 'boolean') as boolean
  }

  string(key: string): string {
    return this.#typed(key, (value) => typeof value === 'string', 'string') as string
  }

  booleans(key: string): boolean[] {
    return this.list(key).map((value) => {
      if (typeof value !== 'boolean') throw this.#wrong(key, 'list of booleans')
      return value
    })
  }

  /** A bit set that is wider than a number, in hexadecimal. */
  bits(key: string): bigint {
    const text = this.string(key)
    if (!/^0x[0-9a-f]{1,16}$/.test(text)) throw this.#wrong(key, 'hexadecimal number')
    return BigInt(text)
  }

  numbers(key: string): number[] {
    return this.list(key).map((value) => {
      if (!Number.isSafeInteger(value)) throw this.#wrong(key, 'list of whole numbers')
      return value as number
    })
  }

  list(key: string): readonly JsonValue[] {
    return this.#typed(key, Array.isArray, 'list') as readonly JsonValue[]
  }

  /** An object in this one. */
  object(key: string): HandedReader {
    return new HandedReader(this.#id, this.#fields[key])
  }

  /** The objects of a list. */
  objects(key: string): HandedReader[] {
    return this.list(key).map((value) => new HandedReader(this.#id, value))
  }

  has(key: string): boolean {
    return this.#fields[key] !== undefined && this.#fields[key] !== null
  }

  #typed(key: string, isIt: (value: unknown) => boolean, what: string): unknown {
    const value = this.#fields[key]
    if (!isIt(value)) throw this.#wrong(key, what)
    return value
  }

  #wrong(key: string, what: string): StateError {
    return handOverError(this.#id, `"${key}" of its state is no ${what}`)
  }
}

/** One target and the inputs that are known for it: runs mutants, and keeps those that do something new. */
import { randomFrom } from '../support/random.ts'
import { INPUT_LENGTH_MAX } from './corpus.ts'
import { Features } from './features.ts'
import { mutate } from './mutate.ts'
import type { Target } from './targets.ts'

/** Inputs between two looks at the clock. */
const CLOCK_STRIDE = 64
/** Inputs that are remembered at most: a target whose every input is new would fill the memory. */
const POOL_MAX = 4096
/** Inputs that one run adds to the corpus of a target. */
const KEPT_MAX = 24

/** Where the input that is running stands, so that somebody else can tell after a crash. */
export interface Scratch {
  readonly bytes: Uint8Array
  /** An input of so many bytes is about to run. */
  starts(length: number): void
  /** Something else than an input takes its time, and does not hang. */
  goesOn(): void
  /** The inputs that follow are this target's. */
  names(target: string): void
}

export class Finding extends Error {
  readonly target: string
  readonly input: Uint8Array

  constructor(target: string, input: Uint8Array, cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause })
    this.target = target
    this.input = input
  }
}

export class Fuzzer {
  readonly target: Target
  readonly features: Features = new Features()
  runs = 0
  /** Time of a processor, not of the clock: what else runs on the machine is no matter. */
  cpuMs = 0
  readonly #scratch: Scratch
  readonly #random: (limit: number) => number
  readonly #pool: Uint8Array[] = []

  constructor(target: Target, scratch: Scratch, seed: number) {
    this.target = target
    this.#scratch = scratch
    this.#random = randomFrom(seed)
  }

  /** Runs the inputs that are there already. */
  async learn(corpus: readonly Uint8Array[]): Promise<void> {
    this.#scratch.names(this.target.name)
    for (const bytes of corpus) {
      this.#scratch.bytes.set(bytes)
      await this.#run(bytes.length)
    }
    if (this.#pool.length === 0) this.#pool.push(new Uint8Array(64))
  }

  /** Goes on for a time, and at most so many inputs. */
  async fuzz(milliseconds: number, most: number): Promise<void> {
    this.#scratch.names(this.target.name)
    const before = process.cpuUsage()
    const until = performance.now() + milliseconds
    const random = this.#random
    const limit = this.target.lengthMax ?? INPUT_LENGTH_MAX
    for (let left = most; left > 0 && performance.now() < until;) {
      for (let n = 0; n < CLOCK_STRIDE && left > 0; n++, left--) {
        const { length } = this.#pool
        // The newest ones are the least known.
        const from = random(2) === 0 ? random(length) : length - 1 - random(Math.min(16, length))
        const to = this.#scratch.bytes
        await this.#run(mutate(to, limit, this.#pool[from], this.#pool[random(length)], random))
      }
    }
    const { user, system } = process.cpuUsage(before)
    this.cpuMs += (user + system) / 1000
  }

  async #run(length: number): Promise<void> {
    const { features } = this
    const before = features.size
    const { bytes } = this.#scratch
    this.#scratch.starts(length)
    this.runs++
    const input = bytes.subarray(0, length)
    try {
      const running = this.target.run(input, features)
      // Most targets wait for nothing, and an await costs as much as their shortest inputs.
      if (running !== undefined) await running
    } catch (error) {
      throw new Finding(this.target.name, input.slice(), error)
    }
    if (features.size === before) return
    const place = this.#pool.length < POOL_MAX ? this.#pool.length : this.#random(POOL_MAX)
    this.#pool[place] = input.slice()
  }

  /** Some inputs that together do what all do, apart from those that are there: greedily chosen. */
  async smallest(corpus: readonly Uint8Array[]): Promise<Uint8Array[]> {
    const seen = async (input: Uint8Array): Promise<Set<number>> => {
      const features = new Features()
      features.recorded = new Set()
      this.#scratch.goesOn()
      await this.target.run(input, features)
      return features.recorded
    }
    const shown = new Set<number>()
    for (const input of corpus) for (const feature of await seen(input)) shown.add(feature)
    const left: { input: Uint8Array; features: Set<number> }[] = []
    for (const input of this.#pool) left.push({ input, features: await seen(input) })
    const chosen: Uint8Array[] = []
    while (chosen.length < KEPT_MAX) {
      let [most, best] = [0, left[0]]
      for (const one of left) {
        for (const feature of one.features) if (shown.has(feature)) one.features.delete(feature)
        // Short ones are easier to understand.
        const worth = one.features.size / (64 + one.input.length)
        if (worth > most) [most, best] = [worth, one]
      }
      if (most === 0) break
      for (const feature of best.features) shown.add(feature)
      chosen.push(best.input)
    }
    return chosen
  }
}

/** A shorter input that fails as well; what is left out is tried from large to small. */
export async function shorten(
  target: Target,
  input: Uint8Array,
  goesOn: () => void,
): Promise<Uint8Array> {
  let best = input
  const fails = async (bytes: Uint8Array): Promise<boolean> => {
    goesOn()
    try {
      await target.run(bytes, new Features())
      return false
    } catch {
      return true
    }
  }
  if (!(await fails(best))) return input
  for (let part = 1 << (31 - Math.clz32(Math.max(input.length, 1))); part >= 1; part >>= 1) {
    for (let at = 0; at + part <= best.length;) {
      const less = new Uint8Array(best.length - part)
      less.set(best.subarray(0, at))
      less.set(best.subarray(at + part), at)
      if (await fails(less)) best = less
      else at += part
    }
  }
  return best
}

/**
 * Plants faults in a switch of this process: the n-th step that could fail does. A step is a call of
 * the shim, of a few functions of node:fs, the start of a worker, or a request to the engine, which is
 * refused before it is sent or after it has been carried out.
 */
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import threads from 'node:worker_threads'
import type { Shim } from '../../src/native/shim.ts'
import type { EngineClient } from '../../src/engine/client.ts'

const ENOMEM = 12

/** What gives something back, or cannot fail. */
const SURE = new Set([
  'windowDetach',
  'windowUnmap',
  'windowAddress',
  'windowLength',
  'windowFaults',
  'windowFaultCounter',
  'close',
  'eventfdWrite',
  'eventfdRead',
  'clockGettime',
  'aioDestroy',
])

type AnyFunction = (...args: unknown[]) => unknown

export class Faults {
  /** What has failed since it was armed. */
  hit: string | undefined
  #left = 0
  #spared: string | undefined
  readonly #restore: (() => void)[] = []

  constructor(shim: Shim, engine: { readonly prototype: Pick<EngineClient, 'request'> }) {
    for (const name of Object.keys(shim)) {
      if (!SURE.has(name)) this.#wrap(shim, name, () => -ENOMEM)
    }
    for (const name of ['fstatSync', 'ftruncateSync', 'chmodSync']) {
      this.#wrap(fs, name, () => {
        throw Object.assign(new Error('planted'), { code: 'EIO', errno: -5 })
      })
    }
    const fails = (name: string): boolean => this.#fails(name)
    const { Worker } = threads
    threads.Worker = class extends Worker {
      constructor(...args: ConstructorParameters<typeof Worker>) {
        if (fails('Worker')) throw new Error('planted: no worker')
        super(...args)
      }
    }
    syncBuiltinESMExports()
    const { request } = engine.prototype
    engine.prototype.request = async function (what): Promise<unknown> {
      if (fails(`before ${what.op}`)) throw new Error(`planted: before ${what.op}`)
      const value = await request.call(this, what)
      if (fails(`after ${what.op}`)) throw new Error(`planted: after ${what.op}`)
      return value
    }
    this.#restore.push(() => {
      threads.Worker = Worker
      engine.prototype.request = request
      syncBuiltinESMExports()
    })
  }

  #wrap(object: object, name: string, fail: () => unknown): void {
    const functions = object as Record<string, AnyFunction>
    const original = functions[name]
    functions[name] = (...args) => (this.#fails(name) ? fail() : original(...args))
    this.#restore.push(() => (functions[name] = original))
  }

  #fails(name: string): boolean {
    if (this.#left === 0 || (this.#spared !== undefined && name.startsWith(this.#spared)))
      return false
    if (--this.#left > 0) return false
    this.hit = name
    return true
  }

  /** The n-th step from now on fails, and no other; those that begin with `spared` do not count. */
  arm(n: number, spared?: string): void {
    this.hit = undefined
    this.#left = n
    this.#spared = spared
  }

  disarm(): void {
    this.#left = 0
  }

  /** All is as it was before. */
  restore(): void {
    for (const restore of this.#restore.splice(0)) restore()
  }
}

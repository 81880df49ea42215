/**
 * Faults planted into the threads of a real process, from outside: a module that Node loads before
 * ours in every thread (NODE_OPTIONS=--import) has a function of Node's throw, or never return, once a
 * file with the thread's name is there.
 */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll } from 'vitest'

export type Thread = 'engine' | 'io' | 'driver' | 'writer'

/** What each thread calls in its loop: engine and I/O thread when they are asked something. */
const PLANT = `
import { existsSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import worker from 'node:worker_threads'

function threadName() {
  const data = worker.workerData
  if (worker.isMainThread || data === null || typeof data !== 'object') return 'none'
  if ('aioContext' in data) return 'engine'
  if ('ring' in data) return 'writer'
  return 'mode' in data ? 'driver' : 'io'
}

function fault() {
  const path = process.env.FRAMEPUMP_PLANTED + '/' + threadName()
  if (existsSync(path + '-hangs')) for (;;);
  if (existsSync(path)) throw new Error('planted')
}

const planted = (owner, name) => {
  const original = owner[name]
  owner[name] = (...args) => {
    fault()
    return original(...args)
  }
}
if (!worker.isMainThread) {
  planted(worker, 'receiveMessageOnPort')
  planted(Atomics, 'wait')
  const load = Atomics.load
  Atomics.load = (...args) => {
    if (threadName() === 'driver') fault()
    return load(...args)
  }
  syncBuiltinESMExports()
}
`

const directories: string[] = []
afterAll(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true })
})

export class Planted {
  readonly env: NodeJS.ProcessEnv
  readonly #directory: string

  constructor() {
    this.#directory = mkdtempSync(join(tmpdir(), 'framepump-planted-'))
    directories.push(this.#directory)
    const module = join(this.#directory, 'plant.mjs')
    writeFileSync(module, PLANT)
    this.env = {
      NODE_OPTIONS: `--import=${pathToFileURL(module).href}`,
      FRAMEPUMP_PLANTED: this.#directory,
    }
  }

  /** From now on. */
  fail(thread: Thread): void {
    writeFileSync(join(this.#directory, thread), '')
  }

  hang(thread: Thread): void {
    writeFileSync(join(this.#directory, `${thread}-hangs`), '')
  }

  /** For the next process. */
  clear(): void {
    for (const thread of ['engine', 'io', 'driver', 'writer']) {
      for (const name of [thread, `${thread}-hangs`]) {
        const path = join(this.#directory, name)
        if (existsSync(path)) rmSync(path)
      }
    }
  }
}

/**
 * Loaded into a daemon by NODE_OPTIONS=--import: makes system calls from inside of it, on its main
 * thread, on a worker that is made for it, and on the engine thread. FRAMEPUMP_PROBE is a directory with
 * raw.node; when `calls` appears there (a JSON list of [name, number, ...arguments]), each thread
 * writes its results to `main`, `worker` and `engine`.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { isMainThread, Worker, workerData } from 'node:worker_threads'

const directory = process.env['FRAMEPUMP_PROBE']
const require = createRequire(import.meta.url)
const at = (name) => join(directory, name)

function answer(name) {
  const raw = require(at('raw.node'))
  const calls = JSON.parse(readFileSync(at('calls'), 'utf8'))
  const results = calls.map(([call, number, ...args]) => [call, raw.syscall(number, ...args)])
  writeFileSync(at(`${name}.new`), JSON.stringify(results))
  renameSync(at(`${name}.new`), at(name))
}

if (isMainThread) {
  const timer = setInterval(() => {
    if (!existsSync(at('calls'))) return
    clearInterval(timer)
    answer('main')
    new Worker(new URL(import.meta.url), { workerData: { isProbe: true } }).unref()
  }, 20)
  timer.unref()
} else if (workerData?.isProbe === true) {
  if (!existsSync(at('worker'))) answer('worker')
} else if (workerData?.engineCounters !== undefined) {
  // The engine never returns to its event loop: it is caught at a call that it makes every turn.
  const { dlopen } = process
  process.dlopen = (module, path, ...flags) => {
    dlopen.call(process, module, path, ...flags)
    if (path !== process.env['FRAMEPUMP_SHIM']) return
    const { clockGettime } = module.exports
    module.exports.clockGettime = (window, offset) => {
      if (existsSync(at('calls')) && !existsSync(at('engine'))) answer('engine')
      return clockGettime(window, offset)
    }
  }
}

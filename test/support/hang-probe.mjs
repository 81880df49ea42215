/**
 * Loaded into a daemon by NODE_OPTIONS=--import: the engine thread stands still as long as there is the
 * file FRAMEPUMP_HANG. It never returns to its event loop: it is caught at a call that it makes every turn.
 */
import { existsSync, writeFileSync } from 'node:fs'
import { workerData } from 'node:worker_threads'

const file = process.env['FRAMEPUMP_HANG']

if (workerData?.engineCounters !== undefined) {
  const { dlopen } = process
  const never = new Int32Array(new SharedArrayBuffer(4))
  process.dlopen = (module, path, ...flags) => {
    dlopen.call(process, module, path, ...flags)
    if (path !== process.env['FRAMEPUMP_SHIM']) return
    const { clockGettime } = module.exports
    module.exports.clockGettime = (window, offset) => {
      if (existsSync(file)) writeFileSync(`${file}.hangs`, '')
      while (existsSync(file)) Atomics.wait(never, 0, 0, 10)
      return clockGettime(window, offset)
    }
  }
}

/** Capabilities and filters by the shim; what changes the process happens in a child. */
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { EINVAL, EOPNOTSUPP } from '../../../src/abi/errno.ts'
import { capabilityNames, capabilityWords } from '../../../src/native/capabilities.ts'
import { shim } from '../../../src/native/shim.ts'

const SHIM =
  process.env['FRAMEPUMP_SHIM'] ??
  join(
    fileURLToPath(new URL('../../..', import.meta.url)),
    'native-shim/build/Release/framepump.node',
  )

const PR_GET_DUMPABLE = 3
const PR_CAPBSET_READ = 23

test('every other thread makes the calls once', () => {
  const out = new Int32Array(3)
  const rows = Int32Array.from([0, PR_GET_DUMPABLE, 0, 0, 0, 0, 0])
  const others = readdirSync('/proc/self/task').length - 1
  expect(shim.everyThread(rows, out)).toBe(others)
  expect([...out]).toEqual([0, 0, 0])
})

test('calls that fail are counted, in every thread', () => {
  const out = new Int32Array(3)
  const rows = Int32Array.from([0, PR_CAPBSET_READ, 99, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0])
  const others = readdirSync('/proc/self/task').length - 1
  expect(shim.everyThread(rows, out)).toBe(others)
  expect([...out]).toEqual([2 * others, EINVAL, 0])
})

test('what is no table of calls is refused', () => {
  expect(shim.everyThread(new Int32Array(6), new Int32Array(3))).toBe(-EINVAL)
  expect(shim.everyThread(new Int32Array(7 * 129), new Int32Array(3))).toBe(-EINVAL)
  expect(shim.everyThread(new Int32Array(7), new Int32Array(2))).toBe(-EINVAL)
  expect(shim.capget(new Int32Array(5))).toBe(-EINVAL)
  expect(shim.capset(new Int32Array(5))).toBe(-EINVAL)
  // PR_SET_MM and PR_SET_NAME take addresses; SECCOMP_SET_MODE_STRICT would end the process.
  expect(shim.prctl(35, 0, 0, 0, 0)).toBe(-EOPNOTSUPP)
  expect(shim.prctl(15, 0, 0, 0, 0)).toBe(-EOPNOTSUPP)
  expect(shim.seccomp(0, 0, new Uint8Array(8))).toBe(-EOPNOTSUPP)
  expect(shim.seccomp(1, 0, new Uint8Array(7))).toBe(-EINVAL)
  expect(shim.seccomp(1, 0, new Uint8Array(8 * 4097))).toBe(-EINVAL)
})

test('sets of capabilities and their words', () => {
  expect([...capabilityWords((1n << 40n) | (1n << 31n) | 1n, 2n)]).toEqual([
    -0x7fffffff, 256, -0x7fffffff, 256, 2, 0,
  ])
  expect(capabilityNames((1n << 12n) | (1n << 21n) | (1n << 50n))).toEqual([
    'net-admin',
    'sys-admin',
    'cap-50',
  ])
})

/** Runs a script with `shim`, `status(thread)` and a sleeping worker; returns what it printed. */
function child(script: string): string {
  const prelude = `
    const shim = require(${JSON.stringify(SHIM)})
    const { readFileSync, readdirSync, stat } = require('node:fs')
    const { Worker } = require('node:worker_threads')
    const status = (id, name) => new RegExp('^' + name + ':\\\\s*(.*)$', 'm')
      .exec(readFileSync('/proc/self/task/' + id + '/status', 'utf8'))[1]
    const tasks = () => readdirSync('/proc/self/task').map(Number)
    const others = (name) => [...new Set(tasks().filter((id) => id !== process.pid)
      .map((id) => status(id, name)))].join()
    const worker = new Worker('require("worker_threads").parentPort.postMessage(1);' +
      'setInterval(() => undefined, 1000)', { eval: true })
    worker.once('message', () => stat('/', () => { main(); process.exit(0) }))
    function main() { ${script} }`
  const { stdout, stderr, status } = spawnSync(process.execPath, ['-e', prelude], {
    encoding: 'utf8',
    env: { ...process.env, NODE_OPTIONS: '' },
  })
  expect([stderr, status]).toEqual(['', 0])
  return stdout.trim()
}

test('in every thread but the caller’s capabilities go, also in those of Node that block signals', () => {
  const printed = child(`
    const before = status(process.pid, 'CapPrm')
    const rows = Int32Array.from([1, 0, 0, 0, 0, 0, 0, 0, 38, 1, 0, 0, 0, 0])
    const count = shim.everyThread(rows, new Int32Array(3))
    console.log(count === tasks().length - 1, others('CapPrm'), others('NoNewPrivs'),
      status(process.pid, 'CapPrm') === before, status(process.pid, 'NoNewPrivs'))`)
  expect(printed).toBe('true 0000000000000000 1 true 0')
})

test('the C library has its signal back: setuid reaches every thread', () => {
  const printed = child(`
    shim.everyThread(new Int32Array(0), new Int32Array(3))
    if (process.getuid() === 0) { process.setgid(65534); process.setuid(65534) }
    console.log(others('Uid').split(String.fromCharCode(9))[0] === String(process.getuid()))`)
  expect(printed).toBe('true')
})

test('a filter is every thread’s', () => {
  const printed = child(`
    shim.prctl(38, 1, 0, 0, 0)
    // ret ALLOW
    const program = Uint8Array.from([6, 0, 0, 0, 0, 0, 0xff, 0x7f])
    console.log(shim.seccomp(1, 1, program), status(process.pid, 'Seccomp'), others('Seccomp'),
      shim.seccomp(1, 1, Uint8Array.from([0, 1, 2, 3, 4, 5, 6, 7])))`)
  expect(printed).toBe(`0 2 2 -${EINVAL}`)
})

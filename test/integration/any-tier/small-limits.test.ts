/** Starting where little is allowed: the tier that works is taken, and what lacks is said. */
import { chmodSync, readdirSync } from 'node:fs'
import { arch } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { CLI, compiledTool, Lab } from '../../support/lab.ts'
import type { Background } from '../../support/processes.ts'
import { until } from '../../support/processes.ts'

/** The same numbers on x86-64 and arm64. */
const SETUP = 425
const ENTER = 426
const REGISTER = 427
const EPERM = 1
const ENOSYS = 38

/** A daemon with a device that needs no rights, started by that command. */
async function start(lab: Lab, ...command: string[]): Promise<Background> {
  const control = join(lab.directory, 'made/c.sock')
  const [program, ...args] = command
  const options = ['--io', 'auto', '--control', control, '--port', 'virtio-net,id=v,driver=echo']
  const run = lab.background(program, [...args, process.execPath, CLI, 'run', ...options])
  await until('it is ready or over', () => run.stderr.includes('ready') || !run.isRunning, 30_000)
  return run
}

describe.runIf(arch() === 'x64' || arch() === 'arm64')('a profile that forbids', () => {
  test.each([
    ['io_uring', EPERM, [SETUP, ENTER, REGISTER]],
    ['io_uring, as an old kernel', ENOSYS, [SETUP, ENTER, REGISTER]],
    ['io_uring_enter alone', EPERM, [ENTER]],
    ['io_uring_enter alone, as an old kernel', ENOSYS, [ENTER]],
    ['io_uring_register alone', EPERM, [REGISTER]],
  ])('%s: the other tier is taken, and why is logged', async (_, errno, calls) => {
    await using lab = new Lab()
    const run = await start(lab, compiledTool('deny'), String(errno), calls.join(','))
    expect(run.stderr).toMatch(/switch: started io=read-write because="[^"]*io_uring/)
    expect(run.stderr).toContain('framepump: ready')
    expect(await run.stop()).toBe(0)
  })
})

test.each([0, 32, 64, 96, 128, 512])('RLIMIT_MEMLOCK of %i KiB is enough', async (kib) => {
  await using lab = new Lab()
  chmodSync(lab.directory, 0o777)
  const user = ['--reuid', '65534', '--regid', '65534', '--clear-groups', '--bounding-set=-all']
  const run = await start(lab, 'prlimit', `--memlock=${kib * 1024}`, 'setpriv', ...user)
  expect(run.stderr).toMatch(/switch: started io=/)
  expect(run.stderr).toContain('framepump: ready')
  expect(await run.stop()).toBe(0)
})

// With 44 and more a daemon may start.
test.each([24, 32, 40])('with %i open files it says what to raise, in one line', async (files) => {
  await using lab = new Lab()
  const run = await start(lab, 'prlimit', `--nofile=${files}`)
  // Node itself may need more than the lowest of these.
  const code = await run.exited
  const told = run.stderr.split('\n').filter((line) => line.startsWith('framepump: '))
  expect({ isFailure: code === 1 || code === 77, told }).toEqual({
    isFailure: true,
    told: [
      expect.stringContaining(
        '(allow more open files: ulimit -n 1024, or LimitNOFILE= in the unit)',
      ),
    ],
  })
  expect(run.stderr).not.toMatch(/\n +at /)
  expect(readdirSync(lab.directory)).toEqual([])
})

/** The daemon's log: flooded by a front-end, read by nobody, and full of what others call things. */
import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { closeSync, constants, openSync, readSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ControlClient } from '../../../src/control/client.ts'
import { FrontEnd } from '../../support/front-end.ts'
import { CLI, IO, Lab } from '../../support/lab.ts'
import { sh, until } from '../../support/processes.ts'

const UNKNOWN_MESSAGE = 99
const NEED_REPLY = 9
/** What the daemon keeps for a reader, and what a pipe holds. */
const KEPT_MAX = 256 * 1024 + 65536 + 4096

/** A pipe that is full; its number is for both ends. */
function fullPipe(lab: Lab): number {
  const path = join(lab.directory, 'stuck')
  sh('mkfifo', path)
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  try {
    for (;;) writeSync(fd, 'x')
  } catch (error) {
    expect((error as NodeJS.ErrnoException).code).toBe('EAGAIN')
  }
  return fd
}

/** What is in the pipe. */
function drain(fd: number): string {
  const bytes = Buffer.alloc(65536)
  let text = ''
  try {
    for (;;) text += bytes.toString('latin1', 0, readSync(fd, bytes))
  } catch (error) {
    expect((error as NodeJS.ErrnoException).code).toBe('EAGAIN')
    return text
  }
}

interface StuckDaemon extends Disposable {
  readonly control: string
  readonly child: ChildProcess
  readonly exited: Promise<number | null>
}

function startStuck(lab: Lab, stderr: number, ...args: string[]): StuckDaemon {
  const control = join(lab.directory, 'stuck.sock')
  const child = spawn(process.execPath, [CLI, 'run', '--io', IO, '--control', control, ...args], {
    stdio: ['ignore', 'ignore', stderr],
  })
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
  return { control, child, exited, [Symbol.dispose]: () => void child.kill('SIGKILL') }
}

async function connected(control: string): Promise<ControlClient> {
  let client: ControlClient | undefined
  await until('the daemon answers', async () => {
    client = await ControlClient.connect(control).catch(() => undefined)
    return client !== undefined
  })
  return client!
}

test('a front-end that is refused again and again fills no log, and what is left out is counted', async () => {
  await using lab = new Lab()
  const path = join(lab.directory, 'g.sock')
  const daemon = await lab.daemon('--port', `vhost-user,id=g,path=${path}`)
  const guest = FrontEnd.connect(path)
  await guest.negotiate()
  const refusals = 5000
  const atOnce = 50
  for (let n = 0; n < refusals; n += atOnce) {
    for (let k = 0; k < atOnce; k++) guest.send(UNKNOWN_MESSAGE + k, undefined, [], NEED_REPLY)
    for (let k = 0; k < atOnce; k++) await guest.reply()
  }
  guest.close()
  await daemon.process.stop()
  const lines = daemon.process.stderr.split('\n')
  const refused = lines.filter((line) => line.includes('vhost-user g: refused message'))
  const counts = lines.flatMap((line) => {
    const match = /vhost-user g: left out lines=(\d+) like="refused message/.exec(line)
    return match === null ? [] : [Number(match[1])]
  })
  expect(refused.length).toBeLessThan(100)
  expect(refused.length + counts.reduce((a, b) => a + b, 0)).toBe(refusals)
  expect(lines.length).toBeLessThan(200)
})

test('a log that nobody reads takes no memory, and the daemon ends all the same', async () => {
  await using lab = new Lab()
  const pipe = fullPipe(lab)
  using daemon = startStuck(lab, pipe)
  const client = await connected(daemon.control)
  const path = join(lab.directory, 'p'.repeat(60))
  for (let n = 0; n < 2000; n++) {
    await client.execute('netdev_add', { type: 'vhost-user', id: `v${n}`, path })
    await client.execute('netdev_del', { id: `v${n}` })
  }
  // A reader comes back: the oldest lines are there, the others are counted.
  let text = ''
  await until('what was lost is told', () => {
    text += drain(pipe)
    return /log: lost lines=\d+ .*\n/.test(text)
  })
  const count = Number(/log: lost lines=(\d+)/.exec(text)![1])
  expect(text.length).toBeLessThan(KEPT_MAX)
  expect(text).toContain('vhost-user v0: opened')
  const written = text.split('\n').filter((line) => / v\d+: (opened|removed)/.test(line)).length
  expect(written + count).toBe(4000)
  // Stuck once more.
  for (let n = 0; n < 1000; n++) {
    await client.execute('netdev_add', { type: 'vhost-user', id: `w${n}`, path })
    await client.execute('netdev_del', { id: `w${n}` })
  }
  daemon.child.kill('SIGTERM')
  expect(await daemon.exited).toBe(0)
  client.close()
  closeSync(pipe)
})

test('a daemon that cannot start ends, also when nobody reads why', async () => {
  await using lab = new Lab()
  const pipe = fullPipe(lab)
  using daemon = startStuck(lab, pipe, '--port', 'vhost-user,id=a,path=/proc/nowhere/at/all')
  expect(await daemon.exited).toBe(1)
  closeSync(pipe)
})

test('names of others move no cursor and begin no line, wherever they are shown', async () => {
  await using lab = new Lab()
  const nasty = 'a\u001b[2J\nb\u009b31m\u202ec'
  const shown = 'a\\u001b[2J\\nb\\u009b31m\\u202ec'
  const daemon = await lab.daemon()
  const path = join(lab.directory, nasty)
  await daemon.execute('netdev_add', { type: 'vhost-user', id: 'v', path })
  const cli = async (...args: string[]): Promise<string> => {
    const command = lab.background(process.execPath, [CLI, ...args])
    await command.exited
    return command.stdout + command.stderr
  }
  const at = ['--control', daemon.control]
  const outputs = await Promise.all([
    cli('show', 'ports', ...at),
    cli('ctl', 'netdev_del', `id=${nasty}`, ...at),
    cli('ctl', `x${nasty}`, ...at),
    cli('ctl', 'query-status', `x${nasty}`, ...at),
    cli('show', nasty, ...at),
    cli('show', 'ports', '--control', join(lab.directory, `no${nasty}`)),
    cli('run', '--config', join(lab.directory, nasty)),
    cli('run', '--port', `tap,id=a,${nasty}=1`),
    cli('capture', '-w', join(lab.directory, nasty, 'x'), ...at),
  ])
  for (const output of outputs) {
    expect(output).toContain(shown)
    expect(output.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\u202e]/u)
  }
  for (const command of [
    ['ctl', 'query-ports'],
    ['show', 'ports', '--json'],
  ]) {
    const json = await cli(...command, ...at)
    expect(json.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\u202e]/u)
    expect(JSON.parse(json)).toMatchObject([{ path }])
  }
  await daemon.process.stop()
  expect(daemon.process.stderr).toContain(shown)
  expect(daemon.process.stderr.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\u202e]/u)
}, 120_000)

test('sockets are for their owner, whatever the umask', async () => {
  await using lab = new Lab()
  const path = join(lab.directory, 'g.sock')
  const before = process.umask(0)
  try {
    const daemon = await lab.daemon('--port', `vhost-user,id=g,path=${path}`)
    for (const socket of [path, daemon.control]) expect(statSync(socket).mode & 0o777).toBe(0o600)
  } finally {
    process.umask(before)
  }
})

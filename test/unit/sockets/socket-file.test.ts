/** Files of sockets that several processes make, move and remove at the same time. */
import { spawn } from 'node:child_process'
import {
  constants,
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { shim } from '../../../src/native/shim.ts'
import type { ListenErrors } from '../../../src/sockets/listen.ts'
import { ListeningSocket } from '../../../src/sockets/listening-socket.ts'
import { SocketFile } from '../../../src/sockets/socket-file.ts'

/** What another process does between a look at the path and what is done about it. */
const meanwhile = vi.hoisted(() => ({ after: '', act: (): void => undefined }))

vi.mock('node:fs', async (original) => {
  const fs = await original<typeof import('node:fs')>()
  return {
    ...fs,
    lstatSync: (...args: Parameters<typeof fs.lstatSync>) => {
      const found = fs.lstatSync(...args)
      if (meanwhile.after === args[0]) {
        meanwhile.after = ''
        meanwhile.act()
      }
      return found
    },
  }
})

const errors: ListenErrors = {
  notSocket: () => new Error('no socket'),
  busy: () => new Error('busy'),
  failed: (what, syscall) => new Error(`${what} ${syscall}`),
}
const LOCK_EX = 2
/** Connects to the socket; where nobody answers it takes the place, as a daemon that starts. */
const STARTING = `
const [path, done] = process.argv.slice(1)
const { unlinkSync, writeFileSync } = require('node:fs')
const { connect, createServer } = require('node:net')
const end = (what) => (writeFileSync(done, what), process.exit())
connect(path).on('connect', () => end('busy')).on('error', () => {
  unlinkSync(path)
  createServer().listen(path, () => writeFileSync(done, 'listens'))
})`

let directory = ''
let path = ''
const children: ReturnType<typeof spawn>[] = []

beforeEach(() => {
  directory = mkdtempSync('/tmp/framepump-socket-file-')
  path = join(directory, 'a.sock')
})

afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    const exited = new Promise((resolve) => child.once('exit', resolve))
    child.kill()
    await exited
  }
  rmSync(directory, { recursive: true })
})

/** Another process that has to do with the file; `done` is there when it is through. */
function other(command: readonly string[], done: string): void {
  children.push(spawn('flock', ['--no-fork', directory, ...command], { stdio: 'inherit' }))
  // It is as far as it comes while this process is where it is.
  const waits = new RegExp(`-> FLOCK .*:${lstatSync(directory).ino} `)
  const cell = new Int32Array(new SharedArrayBuffer(4))
  while (!existsSync(done) && !waits.test(readFileSync('/proc/locks', 'utf8')))
    Atomics.wait(cell, 0, 0, 1)
}

const listening = (at: string): ListeningSocket => new ListeningSocket(at, 1, 'a test', errors)

async function untilThere(file: string): Promise<string> {
  await vi.waitFor(() => expect(readFileSync(file, 'utf8')).not.toBe(''), 10_000)
  return readFileSync(file, 'utf8')
}

test('what a successor moves into the place while the file is looked at is not removed', async () => {
  const before = listening(path)
  const successor = listening(`${path}.incoming`)
  const moved = join(directory, 'moved')
  meanwhile.after = path
  const command = `mv -T "${path}.incoming" "${path}" && echo moved >"${moved}"`
  meanwhile.act = () => other(['sh', '-c', command], moved)
  before.close()
  await untilThere(moved)
  expect(lstatSync(path).ino).toBe(successor.file.inode)
  shim.close(successor.fd)
  successor.file.letGo()
})

test('of two that start where a stale file is, one listens and the other is told', async () => {
  const stale = listening(path)
  shim.close(stale.fd)
  stale.file.letGo()
  const done = join(directory, 'done')
  const connectUnix = shim.connectUnix.bind(shim)
  vi.spyOn(shim, 'connectUnix').mockImplementationOnce((fd, to) => {
    const result = connectUnix(fd, to)
    other([process.execPath, '-e', STARTING, path, done], done)
    return result
  })
  const here = listening(path)
  expect(await untilThere(done)).toBe('busy')
  expect(lstatSync(path).ino).toBe(here.file.inode)
  here.close()
})

test('a directory that somebody keeps locked holds nobody up', () => {
  const fd = shim.open(directory, constants.O_RDONLY)
  expect(shim.flock(fd, LOCK_EX)).toBe(0)
  const socket = listening(path)
  socket.file.moveTo(`${path}.moved`)
  socket.close()
  expect(readdirSync(directory)).toEqual([])
  shim.close(fd)
})

test('a file of another process is removed by whoever owns it, and by nobody in between', () => {
  const first = listening(path)
  const came = { fd: first.fd, made: undefined }
  const fresh = (): ListeningSocket => new ListeningSocket(path, 1, 'a test', errors, { came })
  fresh().file.remove()
  expect(existsSync(path)).toBe(true)
  const second = fresh()
  first.file.disown()
  first.file.remove()
  expect(existsSync(path)).toBe(true)
  second.file.own()
  second.close()
  expect(existsSync(path)).toBe(false)
})

test('what has the name now, and is another file, stays', async () => {
  const socket = listening(path)
  renameSync(path, `${path}.away`)
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(path, resolve))
  socket.close()
  expect(existsSync(path)).toBe(true)
  await new Promise((resolve) => server.close(resolve))
  expect(() => new SocketFile(path, 'a test')).toThrow('ENOENT')
})

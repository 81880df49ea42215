/** Memory, descriptors and child processes for the tests of the shim; every test gives them back. */
import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterEach } from 'vitest'
import { shim } from '../../../src/native/shim.ts'

/** The file behind `shim`, for worker threads and child processes, which cannot load TypeScript. */
export const shimPath: string =
  process.env['FRAMEPUMP_SHIM'] ||
  fileURLToPath(new URL('../../../native-shim/build/Release/framepump.node', import.meta.url))

/** A sanitizer reports a deadly signal by itself and exits, so that the signal is not seen. */
export const isSanitized: boolean = shimPath.includes('Sanitize')

export const PAGE = 4096
/** What memory around a destination is filled with, to see a byte written beside it. */
export const GUARD = 0xa5

export const O_RDONLY = 0
export const O_RDWR = 2
export const O_CREAT = 0o100
export const O_NONBLOCK = 0o4000
export const O_CLOEXEC = 0o2000000
export const MFD_CLOEXEC = 1
export const SOCK_STREAM = 1
export const SOCK_DGRAM = 2
export const SOCK_SEQPACKET = 5
export const EMFILE = 24

export interface Mapped {
  readonly id: number
  readonly buffer: ArrayBuffer
  readonly bytes: Uint8Array
  readonly ints: Int32Array
}

const mapped: Mapped[] = []
const descriptors: number[] = []

afterEach(() => {
  for (const window of mapped.splice(0)) {
    if (window.buffer.byteLength > 0) shim.windowDetach(window.buffer)
    shim.windowUnmap(window.id)
  }
  for (const fd of descriptors.splice(0)) shim.close(fd)
})

/** Maps a window until the end of the test. */
export function mapWindow(length: number, fd = -1, fileOffset = 0, flags = 0): Mapped {
  const id = shim.windowMap(fd, length, fileOffset, flags)
  if (id < 0) throw new Error(`windowMap: ${id}`)
  const buffer = shim.windowBuffer(id)
  if (typeof buffer === 'number') throw new Error(`windowBuffer: ${buffer}`)
  const window = {
    id,
    buffer,
    bytes: new Uint8Array(buffer),
    ints: new Int32Array(buffer, 0, buffer.byteLength >> 2),
  }
  mapped.push(window)
  return window
}

/** Unmaps before the end of the test; returns the number, which no window has now. */
export function unmapWindow(window: Mapped): number {
  mapped.splice(mapped.indexOf(window), 1)
  shim.windowDetach(window.buffer)
  shim.windowUnmap(window.id)
  return window.id
}

/** Closes the descriptor at the end of the test; throws when it is an error. */
export function keepFd(fd: number): number {
  if (fd < 0) throw new Error(`no descriptor: ${fd}`)
  descriptors.push(fd)
  return fd
}

export function memfd(length: number): number {
  const fd = keepFd(shim.memfdCreate('framepump-test', MFD_CLOEXEC))
  if (shim.ftruncate(fd, length) !== 0) throw new Error('ftruncate')
  return fd
}

/** Both ends of a socket pair; with `nonBlocking` a read of an empty one is -EAGAIN. */
export function pair(type: number, nonBlocking = true): readonly [number, number] {
  const fds = new Int32Array(2)
  if (shim.socketPair(type, fds) !== 0) throw new Error('socketPair')
  for (const fd of fds) {
    keepFd(fd)
    if (nonBlocking) shim.setStatusFlags(fd, O_NONBLOCK)
  }
  return [fds[0], fds[1]]
}

/** Descriptors of this process; only comparable within one synchronous piece of code. */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}

/** Whether exec(2) would close the descriptor. */
export function isCloseOnExec(fd: number): boolean {
  const line = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))
  return (Number.parseInt(line![1], 8) & O_CLOEXEC) !== 0
}

export interface ChildResult {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs CommonJS code in its own process; `shim` and `assert` are there. */
export function runChild(code: string, environment: Record<string, string> = {}): ChildResult {
  const result = spawnSync(
    process.execPath,
    [
      '-e',
      `const shim = require(process.env.SHIM); const assert = require('node:assert/strict');${code}`,
    ],
    {
      encoding: 'utf8',
      cwd: '/tmp',
      timeout: 20_000,
      env: { ...process.env, NODE_OPTIONS: '', SHIM: shimPath, ...environment },
    },
  )
  const { status, signal, stdout, stderr } = result
  return { status, signal, stdout, stderr }
}

/**
 * Where a capture is written to: a file, a given descriptor, a stream. It is opened when the capture
 * is asked for, and nothing of it is touched before everything else has been checked.
 */
import { constants, fstatSync, ftruncateSync, lstatSync, unlinkSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { EEXIST, ENOENT } from '../abi/errno.ts'
import { strerror } from '../abi/strerror.ts'
import { SysError } from '../errors.ts'
import { checkFdFree, claimFd } from '../native/owned-fds.ts'
import { shim } from '../native/shim.ts'
import type { CaptureOptions } from './options.ts'
import { systemReason } from '../text.ts'
import { claimFile } from './files-in-use.ts'

const O_CLOEXEC = 0o2000000
const SOCK_STREAM = 1
/** A stream that takes nothing for so long after the end has lost its last bytes. */
const STREAM_STUCK_MS = 2000

export interface Destination {
  readonly fd: number
  readonly name: string
  /** It lives in this process. */
  readonly isStream: boolean
  /** It is written from now on: what a file held is gone. The descriptor is the writer's. */
  begin(): void
  /** Instead of `begin`: all is as it was before it was opened. */
  abandon(): void
  /** Waits, after the writer's end, until all has reached a stream; tells what went wrong there. */
  settle(): Promise<string | undefined>
  /** Nothing is written any more. */
  released(): void
}

const nothing = (): void => undefined
const settled = (): Promise<undefined> => Promise.resolve(undefined)

/** `user`: who writes there, as people say. */
export function openDestination(to: CaptureOptions['to'], user: string): Destination {
  if ('fd' in to && typeof to.fd === 'number' && !('write' in to)) {
    return givenDescriptor(to.fd, to.truncate === true, user)
  }
  if ('path' in to && typeof to.path === 'string' && !('write' in to))
    return openFile(to.path, user)
  return openStream(to as Writable)
}

function givenDescriptor(fd: number, isTruncated: boolean, user: string): Destination {
  const name = 'the given descriptor'
  checkFdFree(fd, false)
  // Its name may be another's namespace's: the file is claimed as what it is.
  const release = isTruncated ? claimFile(fd, name, true, user) : nothing
  const claim = claimFd(fd, `${user} writes to it`)
  const released = (): void => {
    release()
    claim.end()
  }
  const begin = isTruncated ? (): void => empty(fd) : nothing
  return { fd, name, isStream: false, begin, abandon: released, settle: settled, released }
}

/** What another process has written to, and which is gone on with where that one stopped. */
export function cameFile(fd: number, name: string, user: string): Destination {
  // Where it came from it is in use as well.
  const release = claimFile(fd, name, false, user)
  const claim = claimFd(fd, `${user} writes to it`)
  const released = (): void => {
    release()
    claim.end()
  }
  const abandon = (): void => {
    released()
    shim.close(fd)
  }
  return { fd, name, isStream: false, begin: nothing, abandon, settle: settled, released }
}

function empty(fd: number): void {
  if (fstatSync(fd).isFile()) ftruncateSync(fd)
}

function openFile(path: string, user: string): Destination {
  const { fd, isNew } = openOrMake(path)
  const undo = (): void => {
    if (isNew) removeOwn(path, fd)
    shim.close(fd)
  }
  try {
    const release = claimFile(fd, path, true, user)
    return {
      fd,
      name: path,
      isStream: false,
      begin: () => empty(fd),
      abandon: () => {
        release()
        undo()
      },
      settle: settled,
      released: release,
    }
  } catch (error) {
    undo()
    throw error
  }
}

/** Never truncates. Without O_NONBLOCK a FIFO that nobody reads would hold up the whole control plane. */
function openOrMake(path: string): { fd: number; isNew: boolean } {
  const { O_WRONLY, O_CREAT, O_EXCL, O_NONBLOCK } = constants
  const flags = O_WRONLY | O_NONBLOCK | O_CLOEXEC
  let fd = shim.open(path, flags)
  let isNew = false
  if (fd === -ENOENT) {
    fd = shim.open(path, flags | O_CREAT | O_EXCL)
    isNew = fd >= 0
    // A link to a file that is still to be made, or somebody was faster.
    if (fd === -EEXIST) fd = shim.open(path, flags | O_CREAT)
  }
  if (fd >= 0) return { fd, isNew }
  const reason = strerror(-fd)
  throw new SysError('CAPTURE_FILE', `cannot create ${path}: ${reason}`, {
    syscall: 'open',
    errno: -fd,
    path,
  })
}

/** Removes the file that this name had when we made it. */
function removeOwn(path: string, fd: number): void {
  try {
    if (lstatSync(path).ino === fstatSync(fd).ino) unlinkSync(path)
  } catch {
    // Somebody removed it before.
  }
}

/** A socket pair whose other end is piped into the stream, at the stream's own pace. */
function openStream(stream: Writable): Destination {
  const fds = new Int32Array(2)
  const made = shim.socketPair(SOCK_STREAM, fds)
  if (made < 0) {
    throw new SysError('OUT_OF_RESOURCES', `socketpair: ${strerror(-made)}`, { errno: -made })
  }
  const [ours, theirs] = fds
  const stuck = new AbortController()
  let source: Socket | undefined
  let flushed: Promise<string | undefined> = settled()
  return {
    fd: ours,
    name: 'the stream',
    isStream: true,
    begin: () => {
      source = new Socket({ fd: theirs, readable: true, writable: false })
      flushed = pipeline(source, stream, { signal: stuck.signal }).then(
        () => undefined,
        (error: Error) =>
          stuck.signal.aborted ? 'nobody reads the stream' : `stream: ${systemReason(error)}`,
      )
    },
    abandon: () => {
      shim.close(ours)
      if (source === undefined) shim.close(theirs)
      else source.destroy()
    },
    settle: () => {
      const flow = (): string => `${source?.bytesRead} ${stream.writableLength}`
      let before = ''
      const timer = setInterval(() => {
        const now = flow()
        if (now === before) stuck.abort()
        before = now
      }, STREAM_STUCK_MS)
      return flushed.finally(() => clearInterval(timer))
    },
    released: nothing,
  }
}

/** Listening on a Unix path: a stale socket file is replaced, a live one respected. */
import { fchmodSync, lstatSync, unlinkSync } from 'node:fs'
import { dirname } from 'node:path'
import { EACCES, ECONNREFUSED, ENAMETOOLONG, ENOENT, EPERM } from '../abi/errno.ts'
import { shim } from '../native/shim.ts'
import { inDirectoryOf } from './directory-lock.ts'
import { makeDirectory, ownerOf } from './socket-file.ts'

export const SOCK_STREAM = 1
/** Of every socket's file: for the user that we run as, whatever the umask, and nobody else. */
const SOCKET_MODE = 0o600

/** The errors that the caller's users are to see. */
export interface ListenErrors {
  /** Something else has this name. */
  notSocket(): Error
  /**
   * Somebody answers on it: `owner` when he is in this process, else the process `pid`, null when even
   * that cannot be told.
   */
  busy(pid: number | null, owner: string | undefined): Error
  /** `what` cannot be had. */
  failed(what: string, syscall: string, errno: number, hint: string | undefined): Error
}

/** The directory of a socket, if it is missing; returns the outermost that was made. */
export function makeDirectoryOf(path: string, errors: ListenErrors): string | undefined {
  const directory = dirname(path)
  try {
    return makeDirectory(directory)
  } catch (error) {
    const { errno = 0 } = error as NodeJS.ErrnoException
    const what = `its directory ${directory} cannot be made`
    throw errors.failed(what, 'mkdir', -errno, 'make it first, or give another path')
  }
}

/** The listening socket, which the caller closes; the mode of its file is SOCKET_MODE. */
export function listenOn(path: string, backlog: number, errors: ListenErrors): number {
  // Two that start at once both see a stale file, or one that is bound and not listened to yet.
  return inDirectoryOf(path, () => replace(path, backlog, errors))
}

function replace(path: string, backlog: number, errors: ListenErrors): number {
  refuseWhenAnswered(path, errors)
  const fd = makeSocket(errors)
  let isBound = false
  try {
    // bind(2) gives the file the mode of the socket: it never has another, and no path is looked up a
    // second time, behind which there might be another file by then.
    fchmodSync(fd, SOCKET_MODE)
    const bound = shim.bindUnix(fd, path)
    if (bound < 0) throw cannot(errors, 'bind', -bound)
    isBound = true
    const listening = shim.listen(fd, backlog)
    if (listening < 0) throw cannot(errors, 'listen', -listening)
    return fd
  } catch (error) {
    if (isBound) unlinkSync(path)
    shim.close(fd)
    throw error
  }
}

/** Whether somebody answers on the path. He sees a connection that says nothing and goes. */
export function isAnswered(path: string): boolean {
  const fd = shim.socketUnix(SOCK_STREAM)
  if (fd < 0) return false
  const result = shim.connectUnix(fd, path)
  shim.close(fd)
  return result === 0
}

function refuseWhenAnswered(path: string, errors: ListenErrors): void {
  let isSocket: boolean
  try {
    isSocket = lstatSync(path).isSocket()
  } catch {
    return
  }
  if (!isSocket) throw errors.notSocket()
  const owner = ownerOf(path)
  if (owner !== undefined) throw errors.busy(process.pid, owner)
  const probe = makeSocket(errors)
  const result = shim.connectUnix(probe, path)
  const credentials = new Int32Array(3)
  if (result === 0) shim.peerCredentials(probe, credentials)
  shim.close(probe)
  if (result === -ECONNREFUSED) removeStale(path, errors)
  else if (result !== -ENOENT) throw errors.busy(result === 0 ? credentials[0] : null, undefined)
}

function removeStale(path: string, errors: ListenErrors): void {
  try {
    unlinkSync(path)
  } catch (error) {
    const { errno = 0 } = error as NodeJS.ErrnoException
    throw cannot(errors, 'unlink', -errno)
  }
}

function cannot(errors: ListenErrors, syscall: string, errno: number): Error {
  const isForbidden = errno === EACCES || errno === EPERM
  const hint = isForbidden
    ? `user ${process.geteuid?.()} must be able to write in its directory`
    : errno === ENAMETOOLONG
      ? "a socket's path has at most 107 bytes"
      : undefined
  const what = syscall === 'unlink' ? 'a stale one cannot be removed' : ''
  return errors.failed(what, syscall, errno, hint)
}

function makeSocket(errors: ListenErrors): number {
  const fd = shim.socketUnix(SOCK_STREAM)
  if (fd < 0) throw cannot(errors, 'socket', -fd)
  return fd
}

/** Listening on a Unix path: a stale socket file is replaced, a live one respected. */
import { chmodSync, lstatSync, unlinkSync } from 'node:fs'
import { ECONNREFUSED, ENOENT } from '../abi/errno.ts'
import { shim } from '../native/shim.ts'

export const SOCK_STREAM = 1

/** The errors that the caller's users are to see. */
export interface ListenErrors {
  /** Something else has this name. */
  notSocket(): Error
  /** Somebody answers on it: the process `pid`, null when even that cannot be told. */
  busy(pid: number | null): Error
  failed(syscall: 'bind' | 'listen', errno: number): Error
}

/** The listening socket, which the caller closes. `mode`: permissions of the file. */
export function listenOn(
  path: string,
  backlog: number,
  errors: ListenErrors,
  mode?: number,
): number {
  refuseWhenAnswered(path, errors)
  const fd = shim.socketUnix(SOCK_STREAM)
  const fail = (syscall: 'bind' | 'listen', result: number): never => {
    shim.close(fd)
    throw errors.failed(syscall, -result)
  }
  const bound = shim.bindUnix(fd, path)
  if (bound < 0) fail('bind', bound)
  // Nobody can connect before listen, so nobody gets in through wider permissions.
  if (mode !== undefined) chmodSync(path, mode)
  const listening = shim.listen(fd, backlog)
  if (listening < 0) fail('listen', listening)
  return fd
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
  const probe = shim.socketUnix(SOCK_STREAM)
  const result = shim.connectUnix(probe, path)
  const credentials = new Int32Array(3)
  if (result === 0) shim.peerCredentials(probe, credentials)
  shim.close(probe)
  if (result === -ECONNREFUSED) unlinkSync(path)
  else if (result !== -ENOENT) throw errors.busy(result === 0 ? credentials[0] : null)
}

/** Descriptors that somebody else has opened, by a name or a number. */
import { constants } from 'node:fs'
import { strerror } from '../../abi/strerror.ts'
import { ConfigError, SysError } from '../../errors.ts'
import type { Shim } from '../../native/shim.ts'

/** Descriptors are a C int. */
const FD_MAX = 0x7fff_ffff

/** By the name with which it was given (getfd), else by its number. Texts are QEMU's. */
export function findDescriptor(name: string, given: ReadonlyMap<string, number>): number {
  const named = given.get(name)
  if (named !== undefined) return named
  if (!/^\d+$/.test(name) || Number(name) > FD_MAX) {
    throw /^\d/.test(name)
      ? new ConfigError('BAD_OPTION', `Invalid file descriptor number '${name}'`)
      : new ConfigError('BAD_OPTION', `File descriptor named '${name}' has not been found`)
  }
  return Number(name)
}

/** `code` is that of the error. */
export function setNonblocking(
  shim: Pick<Shim, 'getStatusFlags' | 'setStatusFlags'>,
  fd: number,
  code: 'TAP_FD' | 'RAW_SOCKET_FD',
): void {
  const flags = shim.getStatusFlags(fd)
  const result = flags < 0 ? flags : shim.setStatusFlags(fd, flags | constants.O_NONBLOCK)
  if (result < 0) {
    throw new SysError(
      code,
      `Can't set file descriptor ${fd} non-blocking: fcntl: ${strerror(-result)}`,
      { syscall: 'fcntl', errno: -result },
    )
  }
}

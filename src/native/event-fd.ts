/** Eventfds of our own, by which threads wake each other. eventfd(2). */
import { errnoName, SysError } from '../errors.ts'
import { shim } from './shim.ts'

const EFD_NONBLOCK_CLOEXEC = 0o2004000

/** A new one; the caller closes it. Throws SysError OUT_OF_RESOURCES. */
export function makeEventFd(): number {
  const fd = shim.eventfd(0, EFD_NONBLOCK_CLOEXEC)
  if (fd >= 0) return fd
  throw new SysError('OUT_OF_RESOURCES', `eventfd: ${errnoName(fd)}`, {
    syscall: 'eventfd',
    errno: -fd,
  })
}

/** Eventfds of our own, by which threads wake each other. eventfd(2). */
import { strerror } from '../abi/strerror.ts'
import { SysError } from '../errors.ts'
import { shim } from './shim.ts'

const EFD_NONBLOCK_CLOEXEC = 0o2004000

/** A new one; the caller closes it. Throws SysError OUT_OF_RESOURCES. */
export function makeEventFd(): number {
  return made('eventfd', shim.eventfd(0, EFD_NONBLOCK_CLOEXEC))
}

/** All of them, or none. */
export function makeEventFds(count: number): number[] {
  const fds: number[] = []
  try {
    while (fds.length < count) fds.push(makeEventFd())
    return fds
  } catch (error) {
    for (const fd of fds) shim.close(fd)
    throw error
  }
}

/** A new epoll instance; the caller closes it. Throws SysError OUT_OF_RESOURCES. */
export function makeEpoll(): number {
  return made('epoll_create1', shim.epollCreate())
}

function made(syscall: string, result: number): number {
  if (result >= 0) return result
  throw new SysError('OUT_OF_RESOURCES', `${syscall}: ${strerror(-result)}`, {
    syscall,
    errno: -result,
  })
}

/**
 * Eventfds of a front-end. The engine signals them, so nothing else is taken for one: a pipe, a file
 * or a socket could make it wait, or fill a disk.
 */
import { constants, readlinkSync } from 'node:fs'
import { shim } from '../native/shim.ts'

const EVENTFD = 'anon_inode:[eventfd]'

/**
 * False: it is none. Else a write to it does not wait from now on, unless its sender undoes that: it
 * is for machines on which nothing better is to be had (native/event-signals.ts).
 */
export function prepareEventFd(fd: number): boolean {
  if (readlinkSync(`/proc/self/fd/${fd}`) !== EVENTFD) return false
  return shim.setStatusFlags(fd, shim.getStatusFlags(fd) | constants.O_NONBLOCK) === 0
}

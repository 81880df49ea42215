/** A process, seen from another one: whether it still lives. pidfd_open(2) */
import { readlinkSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { POLLIN } from '../abi/epoll.ts'
import { strerror } from '../abi/strerror.ts'
import { SysError } from '../errors.ts'
import { shim } from '../native/shim.ts'
import { channelError } from './records.ts'

/**
 * A process that is killed closes its sockets first, and ends a moment later: so long the one may be seen
 * without the other.
 */
const ENDING_MS = 3000
const LOOK_MS = 5

/**
 * By which others see that this process has ended; the caller closes it. A daemon takes it at its start, as
 * its filter of system calls has none later. Throws SysError HAND_OVER.
 */
export function openOwnProcess(): number {
  const fd = shim.pidfdOpen(process.pid)
  if (fd >= 0) return fd
  throw new SysError('HAND_OVER', `pidfd_open: ${strerror(-fd)}`, {
    syscall: 'pidfd_open',
    errno: -fd,
    hint: 'a hand-over takes Linux 5.3',
  })
}

/** Throws unless it is one descriptor, of a process: then descriptors pass. */
export function checkProcess(fds: readonly number[]): void {
  const names = fds.map((fd) => readlinkSync(`/proc/self/fd/${fd}`))
  if (names.length === 1 && names[0].includes('pidfd')) return
  throw channelError(`the hello came with ${names.join(', ') || 'no descriptor'}`)
}

/** Of a process whose connection is broken: once it has ended, or if it does not. */
export async function hasProcessEnded(
  fd: number,
  patienceMs: number = ENDING_MS,
): Promise<boolean> {
  for (const start = performance.now(); ;) {
    if ((shim.poll(fd, POLLIN, 0) & POLLIN) !== 0) return true
    if (performance.now() - start > patienceMs) return false
    await setTimeout(LOOK_MS)
  }
}

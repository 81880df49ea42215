/**
 * One process at a time has something to do with the files of sockets in a directory: what a name stands for
 * cannot be looked at and changed in one step, and the file that is removed would be another's.
 */
import { constants } from 'node:fs'
import { dirname } from 'node:path'
import { EAGAIN } from '../abi/errno.ts'
import { shim } from '../native/shim.ts'

const O_CLOEXEC = 0o2000000
const LOCK_EX = 2
const LOCK_NB = 4
/**
 * Whoever can read the directory can lock it, and hold it for ever. What is done under the lock takes some
 * microseconds.
 */
const WAIT_MS = 100
const LOOK_MS = 1

const never = new Int32Array(new SharedArrayBuffer(4))

/**
 * Does it while no other process does the like in the directory of that path. Where no lock is to be had, it
 * is done all the same.
 */
export function inDirectoryOf<T>(path: string, action: () => T): T {
  const { O_RDONLY, O_DIRECTORY } = constants
  const fd = shim.open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
  const end = performance.now() + WAIT_MS
  while (fd >= 0 && shim.flock(fd, LOCK_EX | LOCK_NB) === -EAGAIN) {
    if (performance.now() > end) break
    Atomics.wait(never, 0, 0, LOOK_MS)
  }
  try {
    return action()
  } finally {
    if (fd >= 0) shim.close(fd)
  }
}

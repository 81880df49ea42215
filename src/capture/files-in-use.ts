/**
 * The capture files that this process reads or writes: nobody writes into one that somebody uses. By
 * device and inode, as one file has many names.
 */
import { fstatSync } from 'node:fs'
import { StateError } from '../errors.ts'

/** How often each is in use. */
const inUse = new Map<string, number>()

/** Notes that the file is used; returns what ends it. Throws when a writer would not be alone. */
export function claimFile(fd: number, path: string, isWriter: boolean): () => void {
  const stat = fstatSync(fd)
  // Pipes and devices have no contents to lose.
  if (!stat.isFile()) return () => undefined
  const key = `${stat.dev}:${stat.ino}`
  const users = inUse.get(key) ?? 0
  if (isWriter && users > 0) {
    throw new StateError('CAPTURE_FILE', `cannot write ${path}: a port or a capture uses it`, {
      hint: 'give another file',
    })
  }
  inUse.set(key, users + 1)
  let isHeld = true
  return () => {
    if (!isHeld) return
    isHeld = false
    const left = inUse.get(key)! - 1
    if (left === 0) inUse.delete(key)
    else inUse.set(key, left)
  }
}

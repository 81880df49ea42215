/**
 * The capture files that this process reads or writes: nobody writes into one that somebody uses. By
 * device and inode, as one file has many names.
 */
import { fstatSync } from 'node:fs'
import { StateError } from '../errors.ts'

/** Who uses each, as people say: `port "rec"`, `capture 3`. */
const inUse = new Map<string, string[]>()

/** Notes that `user` uses the file; returns what ends it. Throws when a writer would not be alone. */
export function claimFile(fd: number, path: string, isWriter: boolean, user: string): () => void {
  const stat = fstatSync(fd)
  // Pipes and devices have no contents to lose.
  if (!stat.isFile()) return () => undefined
  const key = `${stat.dev}:${stat.ino}`
  const users = inUse.get(key) ?? []
  if (isWriter && users.length > 0) {
    throw new StateError('CAPTURE_FILE', `cannot write ${path}: ${users[0]} uses it`, {
      hint: 'give another file',
    })
  }
  inUse.set(key, [...users, user])
  let isHeld = true
  return () => {
    if (!isHeld) return
    isHeld = false
    const left = inUse.get(key)!
    left.splice(left.indexOf(user), 1)
    if (left.length === 0) inUse.delete(key)
  }
}
